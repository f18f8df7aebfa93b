//! Content-addressed incremental backups of the state of running applications.
//!
//! An application that embeds this uses a [`Keeper`]: open or create a repository, back up, list,
//! restore, drill, prune. `examples/embed_sqlite.rs` and `examples/embed_redb.rs` are whole
//! applications, `docs/embed.md` is the text for people.
//!
//! The library prints nothing, reads no environment variables and keeps no global state. An
//! operation takes a [`Context`], which has the clock, the randomness, a place to report to and a
//! flag to stop it; [`Context::watched`] makes one of a function. It may start threads, all of
//! which have ended when it returns. With the feature `faults`, for tests, `safeguard` reads the
//! environment.
//!
//! # What is stable
//!
//! By semantic versioning: before 1.0 a new minor version (0.2) may break callers, a new patch
//! version (0.1.1) does not. The promise is for what the crate root names, and for what those types
//! and functions name in turn. Options may get new fields, so make them with `of`, `new` or
//! `..Default::default()`; reports may get new fields, and [`Error`] and [`Event`] new variants.
//! All other modules are public for the command and the tests, and may change in any version.
//! Stored bytes are another promise: what one version wrote, all later ones read.
//!
//! The oldest Rust is the `rust-version` of `Cargo.toml`; raising it takes a new minor version.
//!
//! # A map
//!
//! Top layer last. Imports go downward only; `tests/tidy.rs` enforces it.

pub mod error;
pub mod id;
pub mod safeguard;

pub mod context;

pub mod disk;

pub mod chunker;
pub mod codec;
pub mod source;
pub mod store;

pub mod format;

pub mod repo;

pub mod ops;

pub mod keeper;

pub mod config;

#[doc(hidden)]
pub mod cli;

pub use context::Context;
pub use context::Event;
pub use error::Error;
pub use error::Result;
pub use id::SnapshotId;
pub use keeper::Keeper;
pub use keeper::Place;
pub use keeper::Protection;
pub use ops::backup::BackupOptions;
pub use ops::backup::BackupReport;
pub use ops::check::CheckReport;
pub use ops::check::ReadData;
pub use ops::drill::DrillReport;
pub use ops::keep::Policy;
pub use ops::prune::PruneReport;
pub use ops::restore::RestoreOptions;
pub use ops::restore::RestoreReport;
pub use ops::snapshots::Snapshot;
