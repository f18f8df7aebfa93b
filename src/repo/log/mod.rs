//! The commit log: create-only slots whose fold is the state of the repository.
//!
//! `docs/protocol.md` has the protocol and the argument why it is right. The machines here decide
//! and do no input or output: they are given replies and return the next request. `driver` runs
//! them over a store; `explore` (tests) runs them through every interleaving.
//!
//! Invariants: an acknowledged entry is in the log of every later reader (I6). An entry takes
//! effect only if its writer knew everything before it. A pack is deleted only after the drop that
//! names it is durable and can no longer be outrun (I4).

mod append;
mod checkpoint;
mod collect;
mod driver;
#[cfg(test)]
mod explore;
mod fold;
mod read;
mod rules;
mod settle;
mod step;
mod trim;

pub use crate::format::checkpoint::State;
pub use append::Append;
pub use append::Draft;
pub use append::Outcome;
pub use append::Outdated;
pub use checkpoint::Checkpoint;
pub use collect::Survey;
pub use collect::SurveyReport;
pub use collect::Sweep;
pub use collect::SweepReport;
pub use driver::LogKeys;
pub use driver::append;
pub use driver::checkpoint;
pub use driver::read_state;
pub use driver::survey;
pub use driver::sweep;
pub use driver::trim;
pub use fold::Applied;
pub use fold::hash_after;
pub use read::ReadState;
pub use rules::Rules;
pub use step::Machine;
pub use step::Put;
pub use step::Reply;
pub use step::Request;
pub use step::Slot;
pub use step::Step;
pub use step::StoredCheckpoint;
pub use step::StoredPack;
pub use trim::Trim;
pub use trim::TrimReport;
