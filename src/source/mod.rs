//! What can be backed up. Sources yield bytes and attributes; what becomes of them is not their
//! business. Nothing here changes what it reads.

pub mod files;
pub mod private;
pub mod redb;
pub mod sled;
pub mod sqlite;
