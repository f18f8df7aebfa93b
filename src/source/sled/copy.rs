//! A private copy of the files of a database, made while nothing tells us what its owner does.
//!
//! Order: snapshots, then blobs, then the log, then the blobs again. A snapshot says where pages
//! were in the log, and the log is read on from there, so the log must not be older. The log names
//! blobs: one may be gone by the time it was read, another new. For an exact copy the order means
//! nothing; for any other it leaves most to be found.
//!
//! Invariant: nothing that the application owns is written, and the copy is as private as can be:
//! a directory of mode 0700 with files of mode 0600.

use super::Part;
use crate::source::files::Problem;
use crate::source::files::Stat;
use crate::source::files::Tree;
use crate::source::files::Xattrs;
use crate::source::private;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// How often the files are copied before they count as always changing.
const TRIES: u32 = 3;
/// How long each try waits for the files to come to rest. sled writes twice a second by default.
const REST: Duration = Duration::from_millis(700);
const PAUSE: Duration = Duration::from_millis(5);
/// Copied between two questions whether to go on.
const STEP_BYTES: u64 = 64 << 20;

/// Why there is no copy.
#[derive(Debug)]
pub enum Refusal {
    /// A file of the database cannot be read.
    Unreadable(Problem),
    /// There is no room for the copy.
    NoRoom { reason: String },
    /// The caller asked to stop.
    Stopped,
}

impl Refusal {
    /// Returns a word for programs and the reason for people.
    pub fn describe(&self) -> (&'static str, String) {
        match self {
            Refusal::Unreadable(problem) => (problem.code, problem.message.clone()),
            Refusal::NoRoom { reason } => {
                let why = format!("there is no room for a private copy: {reason}");
                ("no-room", why)
            }
            Refusal::Stopped => ("stopped", "the copy was stopped".to_string()),
        }
    }
}

/// A file of the copy.
#[derive(Debug, Clone)]
pub struct Copied {
    /// What the original was before it was copied.
    pub stat: Stat,
    pub xattrs: Xattrs,
    /// Whether nobody had just written to it.
    is_settled: bool,
}

/// The files of a database by their names within its directory.
pub type Listing = BTreeMap<Vec<u8>, Stat>;

/// What is copied.
pub struct Original<'a> {
    pub tree: &'a Tree,
    /// The directory with a '/', or nothing if it is the root.
    pub prefix: &'a [u8],
    /// Lists the files that are sled's.
    pub list: &'a dyn Fn() -> Result<Listing, Problem>,
    /// Asked now and then whether to go on.
    pub check: &'a dyn Fn() -> bool,
}

/// A directory with a copy; it goes when this is dropped.
#[derive(Debug)]
pub struct PrivateCopy {
    directory: PathBuf,
    files: BTreeMap<Vec<u8>, Copied>,
    is_exact: bool,
}

impl PrivateCopy {
    /// Copies a database below a directory, until the copy is exact or that seems hopeless.
    pub fn create(
        original: &Original<'_>,
        room: &Path,
        bytes_max: u64,
    ) -> Result<PrivateCopy, Refusal> {
        let mut copy = PrivateCopy {
            directory: create_directory(room).map_err(|error| no_room(&error))?,
            files: BTreeMap::new(),
            is_exact: false,
        };
        for _ in 0..TRIES {
            copy.is_exact = copy.try_once(original, bytes_max)?;
            if copy.is_exact {
                break;
            }
        }
        Ok(copy)
    }

    /// Whether it is what a crash at one instant would have left.
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Returns the files by their names within the directory.
    pub fn files(&self) -> &BTreeMap<Vec<u8>, Copied> {
        &self.files
    }

    /// Returns where the copy is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a copy of the copy that may be opened. Only the log is written to then; the other
    /// files are replaced or removed as a whole, so that they need no copy of their own.
    pub fn twin(&self, room: &Path) -> io::Result<PrivateCopy> {
        let twin = PrivateCopy {
            directory: create_directory(room)?,
            files: BTreeMap::new(),
            is_exact: self.is_exact,
        };
        for name in self.files.keys() {
            let (from, to) = (self.path_of(name), twin.path_of(name));
            match Part::of(name) {
                Some(Part::Log) => drop(fs::copy(from, to)?),
                _ => fs::hard_link(from, to)?,
            }
        }
        Ok(twin)
    }

    /// Brings the copy up to date; true if it is exact.
    fn try_once(&mut self, original: &Original<'_>, bytes_max: u64) -> Result<bool, Refusal> {
        let (before, is_at_rest) = rest(original)?;
        self.files.retain(|name, _| before.contains_key(name));
        let bytes = before.values().map(|stat| stat.size_bytes).sum::<u64>();
        if bytes_max < bytes {
            let reason = format!("{bytes} bytes are needed, {bytes_max} may be used");
            return Err(Refusal::NoRoom { reason });
        }
        let mut is_whole = true;
        for part in [Part::Snapshot, Part::Blob, Part::Log, Part::Conf] {
            let of_part = before
                .iter()
                .filter(|(name, _)| Part::of(name) == Some(part));
            for (name, stat) in of_part {
                is_whole &= self.bring(original, name, stat)?;
            }
        }
        let after = (original.list)().map_err(Refusal::Unreadable)?;
        for (name, stat) in &after {
            if Part::of(name) == Some(Part::Blob) && !before.contains_key(name) {
                self.bring(original, name, stat)?;
            }
        }
        let is_same = before.len() == after.len()
            && before
                .iter()
                .zip(&after)
                .all(|((name, then), (other, now))| name == other && then.same_content(now));
        Ok(is_at_rest && is_whole && is_same)
    }

    /// Copies a file unless the copy has it; false if it is gone.
    fn bring(
        &mut self,
        original: &Original<'_>,
        name: &[u8],
        stat: &Stat,
    ) -> Result<bool, Refusal> {
        let is_here = |copied: &Copied| copied.is_settled && copied.stat.same_content(stat);
        if self.files.get(name).is_some_and(is_here) {
            return Ok(true);
        }
        self.files.remove(name);
        let path = [original.prefix, name].concat();
        let opened = original.tree.open_file(&path).and_then(|file| {
            let xattrs = file.xattrs()?;
            Ok((file, xattrs))
        });
        let (file, xattrs) = match opened {
            Ok(opened) => opened,
            Err(problem) if problem.code == "vanished" => return Ok(false),
            Err(problem) => return Err(Refusal::Unreadable(problem)),
        };
        let is_settled = !private::is_racy(stat) && file.stat().same_content(stat);
        let stat = *file.stat();
        let mut out = self.new_file(name).map_err(|error| no_room(&error))?;
        let mut file = file.into_file();
        while 0 < io::copy(&mut (&mut file).take(STEP_BYTES), &mut out)
            .map_err(|error| no_room(&error))?
        {
            if !(original.check)() {
                return Err(Refusal::Stopped);
            }
        }
        let copied = Copied {
            stat,
            xattrs,
            is_settled,
        };
        self.files.insert(name.to_vec(), copied);
        Ok(true)
    }

    fn path_of(&self, name: &[u8]) -> PathBuf {
        self.directory.join(OsStr::from_bytes(name))
    }

    fn new_file(&self, name: &[u8]) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path_of(name))
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        // What cannot be removed now is in a place that its owner clears.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Lists the files when they have come to rest; false if they do not.
fn rest(original: &Original<'_>) -> Result<(Listing, bool), Refusal> {
    let began = Instant::now();
    loop {
        if !(original.check)() {
            return Err(Refusal::Stopped);
        }
        let listing = (original.list)().map_err(Refusal::Unreadable)?;
        let is_at_rest = !listing.values().any(private::is_racy);
        if is_at_rest || REST < began.elapsed() {
            return Ok((listing, is_at_rest));
        }
        thread::sleep(PAUSE);
    }
}

fn create_directory(room: &Path) -> io::Result<PathBuf> {
    let directory = private::create_directory(room)?;
    let blobs = directory.join("blobs");
    fs::DirBuilder::new().mode(0o700).create(blobs)?;
    Ok(directory)
}

fn no_room(error: &io::Error) -> Refusal {
    Refusal::NoRoom {
        reason: error.to_string(),
    }
}
