//! What is to be backed up: there, and readable by this user.
//!
//! A database is opened as a file and no further: its engine could write beside it.

use crate::context::Context;
use crate::error::Result;
use crate::ops::detect;
use crate::source::files::Kind;
use rustix::fs::Access;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What was found at and below a root.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Files looked at.
    pub files: u64,
    /// How large they are.
    pub total_bytes: u64,
    /// Paths that this user cannot read.
    pub unreadable: Vec<String>,
    /// Databases.
    pub databases: u64,
    /// Databases that look as if they were encrypted by the application.
    pub opaque: Vec<String>,
}

/// Looks at all there is at a root, or fails if that cannot be read itself.
pub fn look(cx: &Context, root: &Path) -> Result<Found> {
    let detected = detect::detect(cx, root)?;
    let mut found = Found {
        files: detected.files,
        total_bytes: detected.total_bytes,
        unreadable: detected.unreadable,
        databases: detected.databases.len() as u64,
        opaque: Vec::new(),
    };
    for database in detected.databases {
        if File::open(root.join(&database.path)).is_err() {
            found.unreadable.push(database.path);
        } else if database.engine.is_none() {
            found.opaque.push(database.path);
        }
    }
    closed_files(cx, root, &mut found.unreadable)?;
    found.unreadable.sort();
    found.unreadable.dedup();
    Ok(found)
}

/// Adds the files that are listed and cannot be opened.
fn closed_files(cx: &Context, root: &Path, unreadable: &mut Vec<String>) -> Result<()> {
    let source = detect::whole(root)?;
    for item in source.walk()?.flatten() {
        cx.check()?;
        let path = root.join(OsStr::from_bytes(&item.path));
        if item.stat.kind == Kind::File && rustix::fs::access(&path, Access::READ_OK).is_err() {
            unreadable.push(String::from_utf8_lossy(&item.path).into_owned());
        }
    }
    Ok(())
}
