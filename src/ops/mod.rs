//! What people ask for, one file or folder for each verb. The only place that starts threads.

pub mod archive;
pub mod backup;
mod budget;
pub mod check;
pub mod copy;
pub mod demo;
pub mod detect;
pub mod diff;
pub mod doctor;
pub mod drill;
pub mod export;
pub mod find;
pub mod guard;
pub mod hook;
pub mod import;
pub mod in_place;
pub mod inspect;
pub mod judge;
pub mod keep;
mod marks;
pub mod notes;
pub mod notify;
pub mod prune;
pub mod report;
pub mod restore;
mod scatter;
mod scratch;
pub mod snapshots;
pub mod stats;
pub mod status;
mod tally;
pub mod tune;
mod unfinished;
pub mod words;

pub use tally::Tally;

use std::num::NonZero;

/// Returns how many threads an operation uses.
fn thread_count() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
