//! Room on file systems, and whether this user may write there. Nothing is written to find out.

use crate::error::Result;
use crate::ops::archive::place;
use rustix::fs::Access;
use std::path::Path;

/// What a backup of nothing new takes, and the reserve.
const ROOM_BYTES_MIN: u64 = 2 << 20;

/// Returns how many bytes there is room for, where a path is or will be.
pub fn free_bytes(path: &Path) -> Result<u64> {
    place::free_bytes(path)
}

/// Returns whether this user may put files into a directory; for one that is not there, into the
/// nearest that is.
pub fn is_writable(dir: &Path) -> bool {
    let mut above = dir.ancestors();
    let Some(nearest) = above.find(|place| place.exists()) else {
        return false;
    };
    // A file system that is mounted read-only refuses here as well, even to root.
    nearest.is_dir() && rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// Whether there is room for the next backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// For ten like the largest.
    Enough,
    /// For one and not for ten.
    Little,
    /// For none.
    None,
}

/// Returns whether there is room for backups of this size in so many free bytes.
pub fn judge(free_bytes: u64, backup_bytes: u64) -> Room {
    let need_bytes = backup_bytes.saturating_add(ROOM_BYTES_MIN);
    match free_bytes {
        free if free < need_bytes => Room::None,
        free if free / 10 < need_bytes => Room::Little,
        _ => Room::Enough,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_judged_by_the_largest_backup() {
        assert_eq!(judge(0, 0), Room::None);
        assert_eq!(judge(ROOM_BYTES_MIN + 5, 6), Room::None);
        assert_eq!(judge(ROOM_BYTES_MIN + 6, 6), Room::Little);
        assert_eq!(judge(10 * (ROOM_BYTES_MIN + 6), 6), Room::Enough);
        assert_eq!(judge(u64::MAX, u64::MAX), Room::Little);
    }

    #[test]
    fn a_directory_that_is_not_there_is_judged_by_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();

        assert!(is_writable(&dir.path().join("a/b")));
        assert!(!is_writable(&dir.path().join("file")));
        assert!(free_bytes(&dir.path().join("a/b")).unwrap() > 0);
    }
}
