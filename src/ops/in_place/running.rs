//! Who uses the files that are about to be replaced: an application that goes on with a database
//! that lost its name would write into nothing.
//!
//! Read from `/proc`: files that processes have open, and locks, which show processes that hide
//! their files from this user. Nothing is locked or opened for it, so nobody is disturbed.

use crate::safeguard::Safeguard;
use crate::source::redb::MAGIC as REDB_MAGIC;
use crate::source::sqlite::MAGIC as SQLITE_MAGIC;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// Logs, whose use is use of the database.
const SUFFIXES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// A process that has a file open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// Its number; zero if it cannot be seen from here.
    pub pid: u32,
    /// What it is called.
    pub name: String,
    /// The file, relative to the root.
    pub path: Vec<u8>,
    /// Whether the file is a database or belongs to one.
    pub is_database: bool,
}

/// Returns who has files below a root open. `databases` are paths of databases in it.
pub fn users(root: &Path, databases: &[Vec<u8>]) -> Vec<User> {
    if !Safeguard::UseRefused.holds() {
        return Vec::new();
    }
    let Ok(root) = root.canonicalize() else {
        return Vec::new();
    };
    let known = inodes(&root, databases);
    let mut found = BTreeSet::new();
    let own = std::process::id();
    for pid in numbers(Path::new("/proc")).filter(|pid| *pid != own) {
        let process = PathBuf::from(format!("/proc/{pid}"));
        for fd in numbers(&process.join("fd")) {
            let link = process.join(format!("fd/{fd}"));
            if let Some((path, is_database)) = used(&root, &link, &known) {
                let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
                let name = name.trim_end().to_string();
                found.insert(User {
                    pid,
                    name,
                    path,
                    is_database,
                });
            }
        }
    }
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    for (pid, inode) in locks
        .lines()
        .filter_map(lock)
        .filter(|(pid, _)| *pid != own)
    {
        let is_new = |path: &&Vec<u8>| !found.iter().any(|user: &User| user.path == **path);
        if let Some(path) = known.get(&inode).filter(is_new) {
            found.insert(User {
                pid,
                name: "a lock of another process".to_string(),
                path: path.clone(),
                is_database: true,
            });
        }
    }
    found.into_iter().collect()
}

/// Returns the device and number of each file of the databases that is there.
fn inodes(root: &Path, databases: &[Vec<u8>]) -> BTreeMap<(u64, u64), Vec<u8>> {
    let mut known = BTreeMap::new();
    for database in databases {
        for suffix in SUFFIXES {
            let path = [database, suffix.as_bytes()].concat();
            if let Ok(stat) = fs::symlink_metadata(root.join(OsStr::from_bytes(&path))) {
                known.insert((stat.dev(), stat.ino()), path);
            }
        }
    }
    known
}

fn numbers(dir: &Path) -> impl Iterator<Item = u32> + use<> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Returns which file below the root a descriptor is of, if it is of one.
fn used(
    root: &Path,
    link: &Path,
    known: &BTreeMap<(u64, u64), Vec<u8>>,
) -> Option<(Vec<u8>, bool)> {
    // Follows the descriptor itself, wherever its path leads by now.
    let stat = fs::metadata(link).ok().filter(|stat| stat.is_file())?;
    if let Some(path) = known.get(&(stat.dev(), stat.ino())) {
        return Some((path.clone(), true));
    }
    let target = fs::read_link(link).ok()?;
    let path = target.strip_prefix(root).ok()?;
    Some((path.as_os_str().as_bytes().to_vec(), is_database(&target)))
}

fn is_database(path: &Path) -> bool {
    let mut start = [0; 16];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && (start == *SQLITE_MAGIC || start.starts_with(REDB_MAGIC))
}

/// Reads a line of `/proc/locks`: the process, zero if unknown, and the device and file.
fn lock(line: &str) -> Option<(u32, (u64, u64))> {
    // A line with an arrow is of somebody who waits.
    let words: Vec<&str> = line
        .split_whitespace()
        .filter(|word| *word != "->")
        .collect();
    let pid = words.get(4)?.parse::<i64>().ok()?;
    let mut numbers = words.get(5)?.split(':');
    let major = u32::from_str_radix(numbers.next()?, 16).ok()?;
    let minor = u32::from_str_radix(numbers.next()?, 16).ok()?;
    let inode = numbers.next()?.parse().ok()?;
    let device = rustix::fs::makedev(major, minor);
    Some((u32::try_from(pid).unwrap_or(0), (device, inode)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_locks_are_read() {
        let line = "2: POSIX  ADVISORY  READ  4242 fe:01:918273 1073741826 1073742335";
        let device = rustix::fs::makedev(0xfe, 1);
        assert_eq!(lock(line), Some((4242, (device, 918_273))));
        let line = "3: -> OFDLCK ADVISORY WRITE -1 00:2e:5 0 EOF";
        assert_eq!(lock(line), Some((0, (rustix::fs::makedev(0, 0x2e), 5))));
        assert_eq!(lock("nonsense"), None);
    }

    #[test]
    fn nobody_uses_what_only_this_process_has_open() {
        let root = tempfile::tempdir().unwrap();
        let _file = File::create(root.path().join("app.db")).unwrap();

        assert_eq!(users(root.path(), &[b"app.db".to_vec()]), []);
        assert_eq!(users(&root.path().join("none"), &[]), []);
    }
}
