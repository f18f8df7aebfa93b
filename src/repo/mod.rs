//! The repository: what its objects mean together.

pub mod index;
