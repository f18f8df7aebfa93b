//! Reversible transformations of bytes: compression with bases, authenticated encryption, sums.
//!
//! They know nothing of objects, packs or repositories.

pub mod age_file;
pub mod cipher;
pub mod gzip;
pub mod sha256;
pub mod zstd;
