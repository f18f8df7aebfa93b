//! Content-addressed incremental backups of the state of running applications.
//!
//! The crate root is a map, top layer last. Imports go downward only; `tests/tidy.rs` enforces it.
//! The library prints nothing, reads no environment and keeps no global state.

pub mod error;
pub mod id;

pub mod context;

pub mod disk;

pub mod chunker;
pub mod codec;
pub mod source;
pub mod store;

pub mod format;

pub mod repo;

pub mod ops;

pub mod config;

pub mod cli;
