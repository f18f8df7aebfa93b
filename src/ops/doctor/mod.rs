//! What may be wrong around backups, looked at one concern at a time: facts, and no advice.
//!
//! Invariant: read-only. Nothing here opens a database with its engine, runs a program or writes;
//! what a repository says of itself is read by the callers, who have the key.

pub mod clock;
pub mod programs;
pub mod room;
pub mod secrets;
pub mod sources;
pub mod timers;
