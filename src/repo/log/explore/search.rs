//! Visits every state that some order of operations leads to.
//!
//! One step is run ahead of all others if it is a read whose answer can never change: that leaves
//! out orders that make no difference, and only those.

use super::actors::Actor;
use super::actors::Asked;
use super::world;
use super::world::World;
use crate::repo::log::step::Put;
use crate::repo::log::step::Reply;
use crate::repo::log::step::Request;
use crate::repo::log::step::Slot;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;

const DEPTH_FIRST_FROM: usize = 10_000_000;

/// All there is at a moment.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) world: World,
    pub(super) actors: Vec<Actor>,
}

/// What was found.
pub(super) struct Explored {
    pub(super) states: usize,
    pub(super) complete: bool,
    /// What went wrong, and the way to it.
    pub(super) violation: Option<(String, Vec<String>)>,
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
        slot: &Arc<Slot>,
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

/// Breadth first, so that the way to a violation is the shortest; with a high limit depth first,
/// because then the states still to be visited are few.
pub(super) fn explore(roots: &[Node], states_max: usize) -> Explored {
    let mut came_from: HashMap<u128, (u128, u16)> = HashMap::new();
    let mut queue = VecDeque::new();
    for (index, root) in roots.iter().enumerate() {
        came_from.insert(root.print(), (0, index as u16));
        queue.push_back(root.clone());
    }
    let next = |queue: &mut VecDeque<Node>| match states_max {
        DEPTH_FIRST_FROM.. => queue.pop_back(),
        _ => queue.pop_front(),
    };
    while let Some(node) = next(&mut queue) {
        let here = node.print();
        let moves = match node.moves() {
            Ok(moves) => moves,
            Err(error) => return failed(roots, &came_from, here, error),
        };
        for (index, (next, _)) in moves.into_iter().enumerate() {
            let there = next.print();
            let Entry::Vacant(new) = came_from.entry(there) else {
                continue;
            };
            new.insert((here, index as u16));
            if let Some(violation) = next.world.violation() {
                return failed(roots, &came_from, there, violation);
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
