//! Reversible transformations of bytes: compression with bases, authenticated encryption.
//!
//! They know nothing of objects, packs or repositories.

pub mod cipher;
pub mod zstd;
