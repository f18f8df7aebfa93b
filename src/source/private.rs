//! Private copies of what cannot be read in place: where they are, and whether they count.

use crate::disk::node::Stat;
use crate::safeguard::Safeguard;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

/// How the names of their directories begin; the process and a number follow. Nobody else has such
/// names, so that what a killed run left can be removed.
pub const COPY_PREFIX: &str = "statekeep-copy-";

/// A file that changed this recently could change again without its times telling.
pub(super) const RACY: Duration = Duration::from_millis(50);

/// Returns true if a change now might leave the same times.
pub(super) fn is_racy(stat: &Stat) -> bool {
    let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) else {
        return false;
    };
    let newest = stat.mtime.max(stat.ctime);
    let Ok(secs) = u64::try_from(newest.secs) else {
        return false;
    };
    // A time in the future is that of another clock, and says nothing about now.
    now.checked_sub(Duration::new(secs, newest.nanos))
        .is_some_and(|age| age < RACY)
}

/// Makes a directory that nobody else may enter (I9).
pub fn create_directory(room: &Path) -> io::Result<PathBuf> {
    let mode = Safeguard::CopyPrivate.mode(0o700);
    for number in 0..u32::MAX {
        let name = format!("{COPY_PREFIX}{}-{number}", std::process::id());
        let directory = room.join(name);
        match fs::DirBuilder::new().mode(mode).create(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
