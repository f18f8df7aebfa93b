//! Writing a checkpoint: by whoever finds the tail longer than half of the last one.
//!
//! Invariant: a checkpoint is a pure function of the slots up to its position, and those slots are
//! durable and were never trimmed before they were read. So it does not matter who writes it, how
//! late, or whether two do.

use crate::error::Result;
use crate::format::checkpoint::State;
use crate::repo::log::read;
use crate::repo::log::rules::Rule;
use crate::repo::log::rules::Rules;
use crate::repo::log::step::Machine;
use crate::repo::log::step::Reply;
use crate::repo::log::step::Request;
use crate::repo::log::step::Step;
use std::sync::Arc;

/// Stores a state as a checkpoint. The output is whether one was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    rules: Rules,
    state: Arc<State>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Begin,
    List,
    Put,
}

impl Checkpoint {
    /// Stores this state.
    pub fn new(rules: Rules, state: Arc<State>) -> Checkpoint {
        Checkpoint {
            rules,
            state,
            phase: Phase::Begin,
        }
    }

    fn ask(&mut self, phase: Phase, request: Request) -> Result<Step<bool>> {
        self.phase = phase;
        Ok(Step::Ask(request))
    }
}

impl Machine for Checkpoint {
    type Output = bool;

    fn step(&mut self, reply: Option<Reply>) -> Result<Step<bool>> {
        let state = &self.state;
        match (self.phase, reply) {
            // A state that came from a checkpoint alone is one already.
            (Phase::Begin, None) if state.position == state.read.checkpoint => {
                Ok(Step::Done(false))
            }
            // Order: slots are durable before a checkpoint stands for them, or power loss leaves
            // it with slots that others have written anew.
            (Phase::Begin, None) if state.read.settled < state.position => Ok(Step::Done(false)),
            (Phase::Begin, None) => self.ask(Phase::List, Request::ListCheckpoints),
            (Phase::List, Some(Reply::Checkpoints(list))) => {
                let is_exact = read::is_exact(self.rules, state, &list)
                    || self.rules.omit(Rule::ExactBeforeCheckpoint);
                let is_newest = list.iter().all(|there| there.position < state.position);
                if !is_exact || !is_newest {
                    return Ok(Step::Done(false));
                }
                if self.rules.omit(Rule::RememberDrops) {
                    Arc::make_mut(&mut self.state).dropped.clear();
                }
                let put = Request::PutCheckpoint(self.state.clone());
                self.ask(Phase::Put, put)
            }
            (Phase::Put, Some(Reply::Done)) => Ok(Step::Done(true)),
            (phase, reply) => unreachable!("{reply:?} does not answer {phase:?}"),
        }
    }
}
