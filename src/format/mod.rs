//! Bytes to structs and back, without any input or output. `docs/format.md` is the normative text.
//!
//! Invariant I5: what a released version of these decoders accepts, every later version accepts.
//! Every decoder bounds its memory by the length of its input.

pub mod checkpoint;
pub mod config;
pub mod container;
pub mod database;
pub mod entry;
pub mod extents;
pub mod history;
pub mod key;
pub mod keyfile;
pub mod list;
pub mod manifest;
pub mod note;
pub mod pack;
pub mod tree;
pub mod wire;
