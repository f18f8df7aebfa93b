//! Exhaustive exploration: the real machines over a small store, in every order of operations,
//! with lost replies, late packets, power loss and trimmed slots. Each state is checked for a lost
//! pack, a lost acknowledgement, an entry that took effect twice, and a repository said to be
//! broken. A crashed client is one that never moves again and a zombie one that moves late, so both
//! are in. `docs/protocol.md`, section "What was explored".
//!
//! Every rule of the protocol has a test here that leaves it out and is caught.

mod actors;
mod search;
mod world;

use crate::repo::log::rules::Rule;
use crate::repo::log::rules::Rules;
use actors::Actor;
use actors::Kind;
use search::Node;
use search::explore;
use world::World;

/// States explored per scenario in an ordinary test run.
const STATES_MAX: usize = 150_000;
/// States explored of a scenario that is expected to end by itself; about 3 GB.
const LONG_STATES_MAX: usize = 30_000_000;

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
                    .map(move |choice| [&actors[..], std::slice::from_ref(choice)].concat())
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

#[expect(clippy::print_stdout, reason = "the counts are the result")]
fn assert_holds(scenario: &Scenario, rules: Rules, states_max: usize) {
    let explored = explore(&scenario.roots(rules), states_max);
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

/// Fails unless leaving out these rules does harm that the exploration sees.
fn assert_caught(rules: &[Rule], scenario: &Scenario) {
    assert_caught_within(rules, scenario, 3_000_000);
}

#[expect(clippy::print_stdout, reason = "the counts are the result")]
fn assert_caught_within(rules: &[Rule], scenario: &Scenario, states_max: usize) {
    let mutant = rules
        .iter()
        .fold(Rules::EAGER, |all, rule| all.without(*rule));
    let explored = explore(&scenario.roots(mutant), states_max);
    let clients = scenario.clients;
    let (what, way) = explored.violation.unwrap_or_else(|| {
        panic!(
            "{clients}: without {rules:?} nothing happens in {} states",
            explored.states
        )
    });
    println!(
        "{clients} without {rules:?}: {what} after {} states",
        explored.states
    );
    for step in way {
        println!("    {step}");
    }
}

mod tests {
    use super::*;

    const fn lossy(clients: &'static str, losses: u8) -> Scenario {
        Scenario {
            losses,
            ..Scenario::of(clients)
        }
    }

    const fn crashing(clients: &'static str, crashes: u8) -> Scenario {
        Scenario {
            crashes,
            ..Scenario::of(clients)
        }
    }

    #[test]
    fn a_backup_against_forget_collector_and_checkpoints_loses_nothing() {
        for clients in ["AG", "aGK", "aFG", "aBG", "FGK", "FGH", "aGL"] {
            assert_holds(&Scenario::of(clients), Rules::EAGER, LONG_STATES_MAX);
        }
    }

    #[test]
    fn lost_replies_and_late_packets_lose_nothing() {
        for scenario in [lossy("aB", 2), lossy("aFG", 1), lossy("aGK", 1)] {
            assert_holds(&scenario, Rules::EAGER, LONG_STATES_MAX);
        }
    }

    #[test]
    fn power_loss_with_surviving_clients_loses_nothing() {
        for clients in ["aG", "aFG", "aGK", "aBG"] {
            assert_holds(&crashing(clients, 1), Rules::EAGER, LONG_STATES_MAX);
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

    #[test]
    #[ignore = "takes minutes and gigabytes"]
    fn everything_loses_nothing() {
        for clients in [
            "aFGK", "aFGH", "aBGK", "aBFG", "aGHK", "aFGL", "aBFGK", "aFGHK",
        ] {
            assert_holds(&Scenario::of(clients), Rules::EAGER, LONG_STATES_MAX);
        }
        for scenario in [lossy("aFGK", 1), crashing("aFGH", 1), crashing("aBGK", 1)] {
            assert_holds(&scenario, Rules::EAGER, LONG_STATES_MAX);
        }
    }

    #[test]
    fn the_fence_is_needed() {
        assert_caught(&[Rule::Fence], &Scenario::of("aG"));
    }

    #[test]
    fn the_jump_check_is_needed() {
        assert_caught(&[Rule::JumpCheck], &Scenario::of("agHK"));
    }

    /// The jump check does not depend on what checkpoints remember; without it, that matters.
    #[test]
    fn a_checkpoint_that_forgets_drops_is_harmless_behind_the_jump_check() {
        let forgetful = Rules::EAGER.without(Rule::RememberDrops);
        assert_holds(&Scenario::of("aGK"), forgetful, LONG_STATES_MAX);

        let rules = [Rule::RememberDrops, Rule::JumpCheck];
        assert_caught(&rules, &Scenario::of("aGK"));
    }

    #[test]
    fn the_new_mark_is_needed() {
        assert_caught(&[Rule::NewMark], &Scenario::of("aFG"));
    }

    #[test]
    fn the_post_check_is_needed() {
        assert_caught(&[Rule::PostCheck], &Scenario::of("aFK"));
    }

    #[test]
    fn the_parent_check_is_needed() {
        assert_caught(&[Rule::ParentCheck], &Scenario::of("aFG"));
    }

    #[test]
    fn settling_before_a_put_is_needed() {
        assert_caught(&[Rule::SettleBeforePut], &crashing("aBG", 1));
    }

    #[test]
    fn settling_what_was_read_is_needed() {
        assert_caught(&[Rule::SettleRead], &crashing("aFGH", 1));
    }

    #[test]
    fn settling_a_slot_of_ones_own_is_needed() {
        let scenario = Scenario {
            losses: 1,
            ..crashing("a", 1)
        };
        assert_caught(&[Rule::SettleOwn], &scenario);
    }

    #[test]
    fn an_unknown_outcome_is_not_success() {
        assert_caught(&[Rule::UnknownIsNotSuccess], &lossy("aG", 1));
    }

    #[test]
    fn an_unknown_outcome_is_not_failure() {
        assert_caught(&[Rule::UnknownIsNotFailure], &lossy("a", 1));
    }

    #[test]
    fn void_entries_must_not_count() {
        assert_caught(&[Rule::VoidEntries], &crashing("aBG", 1));
    }

    #[test]
    fn exactness_before_a_delete_is_needed() {
        assert_caught(&[Rule::ExactBeforeDelete], &Scenario::of("aghK"));
    }

    #[test]
    #[ignore = "takes a minute"]
    fn exactness_before_a_checkpoint_is_needed() {
        let rules = [Rule::ExactBeforeCheckpoint, Rule::ExactRead];
        assert_caught_within(&rules, &Scenario::of("abFKK"), LONG_STATES_MAX);
    }
}
