//! Exhaustive exploration: the real machines over a small store, in every order of operations,
//! with lost replies, late packets, power loss and trimmed slots. Each state is checked for a lost
//! pack, a lost acknowledgement, an entry that took effect twice, and a repository said to be
//! broken. A crashed client is one that never moves again and a zombie one that moves late, so both
//! are in. `docs/protocol.md`, section "What was explored".
//!
//! Every rule of the protocol has a test here that leaves it out and is caught.
//!
//! One step is run ahead of all others if it is a read whose answer can never change; that halves
//! the orders and hides none.

mod actors;
mod world;

use crate::repo::log::rules::Rule;
use crate::repo::log::rules::Rules;
use crate::repo::log::step::Put;
use crate::repo::log::step::Reply;
use crate::repo::log::step::Request;
use actors::Actor;
use actors::Asked;
use actors::Kind;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;
use world::World;

/// States explored per scenario in an ordinary test run. The ignored tests have no limit.
const STATES_MAX: usize = 150_000;

#[derive(Clone)]
struct Node {
    world: World,
    actors: Vec<Actor>,
}

struct Explored {
    states: usize,
    complete: bool,
    /// What went wrong, and the shortest way to it.
    violation: Option<(String, Vec<String>)>,
}

/// One letter per client: capitals read first, small ones have read the state before they slept.
struct Scenario {
    clients: &'static str,
    losses: u8,
    crashes: u8,
}

const TWO_BACKUPS: Scenario = Scenario::of("aBFGK");
const TWO_COLLECTORS: Scenario = Scenario::of("aFGHK");

impl Scenario {
    const fn of(clients: &'static str) -> Scenario {
        Scenario {
            clients,
            losses: 0,
            crashes: 0,
        }
    }

    fn roots(&self, rules: Rules) -> Vec<Node> {
        let mut world = World::new(rules);
        world.losses_left = self.losses;
        world.crashes_left = self.crashes;
        let mut roots = vec![Vec::new()];
        for letter in self.clients.bytes() {
            let name = letter.to_ascii_uppercase();
            let kind = match name {
                b'A' | b'B' | b'C' => Kind::Backup,
                b'F' => Kind::Forget,
                b'G' | b'H' => Kind::Collect,
                b'K' => Kind::Checkpoint(1),
                b'L' => Kind::Checkpoint(2),
                other => unreachable!("no client {}", char::from(other)),
            };
            let read = letter.is_ascii_lowercase();
            let read = read.then(|| world.checkpoints[&1].clone());
            let choices = Actor::new(name, kind, rules, read);
            let grow = |actors: Vec<Actor>| {
                choices
                    .iter()
                    .map(move |choice| [&actors[..], &[choice.clone()]].concat())
            };
            roots = roots.into_iter().flat_map(grow).collect();
        }
        let node = |actors| Node {
            world: world.clone(),
            actors,
        };
        roots.into_iter().map(node).collect()
    }
}

/// 128 bits are enough never to meet two states with the same print.
#[derive(Default)]
struct Print(u128);

impl Hasher for Print {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        const ODD: u128 = 0x2d99_7879_26d4_6932_a4c1_f326_80f7_0c55;
        self.0 = (self.0 ^ u128::from(value) ^ 0x9e37_79b9).wrapping_mul(ODD);
        self.0 = self.0.rotate_left(59) ^ (self.0 >> 71);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        unreachable!("the whole print is read")
    }
}

impl Node {
    fn print(&self) -> u128 {
        let mut print = Print::default();
        self.world.hash(&mut print);
        self.actors.hash(&mut print);
        print.0
    }

    /// Returns every state that one operation leads to, in a fixed order, each with what was done.
    fn moves(&self) -> Result<Vec<(Node, String)>, String> {
        let may_trim = self.actors.iter().any(Actor::may_trim);
        let mut actors = 0..self.actors.len();
        let free = actors.find(|&i| self.actors[i].is_free(&self.world, may_trim));
        let mut moves = Vec::new();
        if let Some(index) = free {
            self.act(index, &mut moves)?;
            return Ok(moves);
        }
        for index in 0..self.actors.len() {
            self.act(index, &mut moves)?;
        }
        if let Some((number, slot)) = &self.world.delayed {
            let mut node = self.clone();
            node.world.delayed = None;
            node.world.put(*number, slot.clone(), true);
            moves.push((node, format!("late put of slot {number} arrives")));
        }
        if self.world.crashes_left > 0 {
            for world in self.world.crashed() {
                self.power_loss(world, &mut moves)?;
            }
        }
        Ok(moves)
    }

    fn act(&self, index: usize, moves: &mut Vec<(Node, String)>) -> Result<(), String> {
        let actor = &self.actors[index];
        match &actor.asked {
            None => Ok(()),
            Some(Asked::PutPack(number)) => {
                let mut world = self.world.clone();
                world.packs |= 1 << number;
                if self.world.losses_left > 0 {
                    // The store failed after all; the client puts the pack a second time.
                    let mut node = self.clone();
                    node.world = world.clone();
                    node.world.losses_left -= 1;
                    moves.push((node, format!("{index} put pack {number}, reply lost")));
                }
                self.go_on(index, world, None, "put a pack", moves)
            }
            Some(Asked::Store(Request::PutSlot(number, entry))) => {
                let slot = Arc::new(world::sealed(crate::format::entry::Entry::clone(entry)));
                self.put_slot(index, *number, &slot, moves)
            }
            Some(Asked::Store(request)) => {
                let mut world = self.world.clone();
                let reply = world.answer(request);
                self.go_on(index, world, Some(reply), "", moves)
            }
        }
    }

    fn put_slot(
        &self,
        index: usize,
        number: u64,
        slot: &Arc<crate::repo::log::step::Slot>,
        moves: &mut Vec<(Node, String)>,
    ) -> Result<(), String> {
        if self.actors[index].syncing {
            let mut world = self.world.clone();
            world.sync();
            let reply = Reply::Put(Put::Created(slot.clone()));
            return self.go_on(index, world, Some(reply), "synced", moves);
        }
        let mut world = self.world.clone();
        let put = world.put(number, slot.clone(), self.world.crashes_left == 0);
        let is_new = matches!(put, Put::Created(_));
        if is_new && self.world.crashes_left > 0 {
            let mut node = self.clone();
            node.world = world.clone();
            node.actors[index].syncing = true;
            moves.push((node, format!("{index} made slot {number} visible")));
        } else {
            self.go_on(index, world.clone(), Some(Reply::Put(put)), "put", moves)?;
        }
        if self.world.losses_left > 0 {
            let unknown = || Some(Reply::Put(Put::Unknown));
            let mut before = self.world.clone();
            before.losses_left -= 1;
            world.losses_left -= 1;
            if before.delayed.is_none() {
                let mut late = before.clone();
                late.delayed = Some((number, slot.clone()));
                self.go_on(index, late, unknown(), "put is late, reply lost", moves)?;
            }
            self.go_on(index, before, unknown(), "put failed", moves)?;
            self.go_on(index, world, unknown(), "put, reply lost", moves)?;
        }
        Ok(())
    }

    fn go_on(
        &self,
        index: usize,
        world: World,
        reply: Option<Reply>,
        what: &str,
        moves: &mut Vec<(Node, String)>,
    ) -> Result<(), String> {
        let asked = &self.actors[index].asked;
        let name = char::from(self.actors[index].name);
        let label = match asked {
            Some(Asked::Store(Request::PutSlot(number, entry))) => {
                format!("{name} {what} slot {number} {:?}", entry.change)
            }
            Some(Asked::Store(Request::PutCheckpoint(state))) => {
                format!("{name} checkpoint {}", state.position)
            }
            other => format!("{name} {what} {other:?}"),
        };
        let label = format!("{label} -> {reply:?}")
            .chars()
            .take(220)
            .collect::<String>();
        let mut actor = self.actors[index].clone();
        actor.syncing = false;
        for (actor, acknowledged) in actor.resume(reply, world.rules)? {
            let mut node = self.clone();
            node.world = world.clone();
            if acknowledged {
                node.world.acknowledged.push(actor.name);
                node.world.acknowledged.sort_unstable();
            }
            node.actors[index] = actor;
            moves.push((node, label.clone()));
        }
        Ok(())
    }

    /// The server lost power: who waited for a sync gets an error; all clients live on, for one
    /// that does not is one that never moves again.
    fn power_loss(&self, world: World, moves: &mut Vec<(Node, String)>) -> Result<(), String> {
        let mut nodes = vec![Node {
            world,
            actors: self.actors.clone(),
        }];
        for index in 0..self.actors.len() {
            if self.actors[index].syncing {
                let mut after = Vec::new();
                for node in &nodes {
                    let world = node.world.clone();
                    node.go_on(index, world, Some(Reply::Put(Put::Unknown)), "", &mut after)?;
                }
                nodes = after.into_iter().map(|(node, _)| node).collect();
            }
        }
        for node in nodes {
            let left: Vec<u64> = node.world.slots.keys().copied().collect();
            moves.push((node, format!("power loss leaves slots {left:?}")));
        }
        Ok(())
    }
}

/// Breadth first, so that the way to a violation is the shortest; without a limit depth first,
/// because then the states still to be visited are few.
fn explore(scenario: &Scenario, rules: Rules, states_max: usize) -> Explored {
    let roots = scenario.roots(rules);
    let mut came_from: HashMap<u128, (u128, u16)> = HashMap::new();
    let mut queue = VecDeque::new();
    for (index, root) in roots.iter().enumerate() {
        came_from.insert(root.print(), (0, index as u16));
        queue.push_back(root.clone());
    }
    let next = |queue: &mut VecDeque<Node>| match states_max {
        usize::MAX => queue.pop_back(),
        _ => queue.pop_front(),
    };
    while let Some(node) = next(&mut queue) {
        let here = node.print();
        let moves = match node.moves() {
            Ok(moves) => moves,
            Err(error) => return failed(&roots, &came_from, here, error),
        };
        for (index, (next, _)) in moves.into_iter().enumerate() {
            let there = next.print();
            let Entry::Vacant(new) = came_from.entry(there) else {
                continue;
            };
            new.insert((here, index as u16));
            if let Some(violation) = next.world.violation() {
                return failed(&roots, &came_from, there, violation);
            }
            queue.push_back(next);
        }
        if came_from.len() >= states_max {
            break;
        }
    }
    Explored {
        states: came_from.len(),
        complete: queue.is_empty(),
        violation: None,
    }
}

/// Goes the way from the start once more and writes it down.
fn failed(
    roots: &[Node],
    came_from: &HashMap<u128, (u128, u16)>,
    last: u128,
    what: String,
) -> Explored {
    let mut steps = Vec::new();
    let mut at = last;
    while at != 0 {
        let (before, index) = came_from[&at];
        steps.push(usize::from(index));
        at = before;
    }
    steps.reverse();
    let mut node = roots[steps[0]].clone();
    let mut way = Vec::new();
    for index in &steps[1..] {
        let (next, label) = node
            .moves()
            .expect("it went well before")
            .swap_remove(*index);
        way.push(label);
        node = next;
    }
    Explored {
        states: came_from.len(),
        complete: false,
        violation: Some((what, way)),
    }
}

#[expect(clippy::print_stdout, reason = "the counts are the result")]
fn assert_holds(scenario: &Scenario, rules: Rules, states_max: usize) {
    let explored = explore(scenario, rules, states_max);
    let extent = if explored.complete {
        "all"
    } else {
        "the first"
    };
    let Scenario {
        clients,
        losses,
        crashes,
    } = scenario;
    println!(
        "{clients}, {losses} lost replies, {crashes} power losses: {extent} {} states",
        explored.states
    );
    if let Some((what, way)) = explored.violation {
        panic!("{what}\n  {}", way.join("\n  "));
    }
}

mod tests {
    use super::*;

    #[test]
    #[ignore = "long"]
    fn sizes() {
        for (clients, losses, crashes) in [
            ("aG", 0, 0),
            ("AG", 0, 0),
            ("aGK", 0, 0),
            ("aFG", 0, 0),
            ("aBG", 0, 0),
            ("FGK", 0, 0),
            ("FGH", 0, 0),
            ("aGK", 1, 0),
            ("aFG", 1, 0),
            ("aB", 2, 0),
            ("aG", 0, 1),
            ("aBG", 0, 1),
            ("aFG", 0, 1),
            ("aGK", 0, 1),
            ("aGL", 0, 0),
            ("aFGK", 0, 0),
            ("aBGK", 0, 0),
            ("aFGH", 0, 0),
        ] {
            let t = std::time::Instant::now();
            assert_holds(
                &Scenario {
                    clients,
                    losses,
                    crashes,
                },
                Rules::EAGER,
                usize::MAX,
            );
            println!("   {:?}", t.elapsed());
        }
    }

    #[test]
    fn two_backups_and_a_collector_lose_nothing() {
        assert_holds(&TWO_BACKUPS, Rules::EAGER, STATES_MAX);
    }

    #[test]
    fn two_collectors_lose_nothing() {
        assert_holds(&TWO_COLLECTORS, Rules::EAGER, STATES_MAX);
    }
}
