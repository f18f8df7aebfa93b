//! What an application that embeds this library may lend: its own handle of a database.
//!
//! A read transaction of the application keeps redb from taking again any page of the newest
//! commit or a later one. So a walk under it comes to its end at the first attempt, however busy
//! the writers are. Commits that are not durable are only in memory and are not captured.

use std::any::Any;
use std::fmt::Debug;
use std::io;

/// Keeps the pages of a database where they are for a while.
pub trait Hold: Debug {
    /// Begins to hold. It ends when what is returned is dropped.
    fn hold(&self) -> io::Result<Box<dyn Any>>;
}

impl Hold for ::redb::Database {
    fn hold(&self) -> io::Result<Box<dyn Any>> {
        use ::redb::ReadableDatabase;
        let transaction = self.begin_read().map_err(io::Error::other)?;
        Ok(Box::new(transaction))
    }
}
