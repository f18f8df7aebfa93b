//! Which files are databases: told by their first bytes, wherever they lie.

use crate::context::Context;
use crate::error::Result;
use crate::ops::backup::Holder;
use crate::ops::backup::databases::read_sled;
use crate::ops::backup::source::Source;
use crate::safeguard::Safeguard;
use crate::source;
use crate::source::files::Kind;
use crate::source::files::Problem;
use crate::source::files::Stat;
use crate::source::sqlite;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// Every database is a multiple of this long, and few other files are.
const SECTOR_BYTES: u64 = 512;
/// Names people give databases. Only what cannot be told by its bytes is judged by its name.
const EXTENSIONS: [&[u8]; 5] = [b".db", b".db3", b".sqlite", b".sqlite3", b".sqlitedb"];
/// Among 512 random bytes about 221 values occur; in anything with a structure far fewer.
const VALUES_OF_NOISE: usize = 195;
const WAL_MAGIC: [[u8; 4]; 2] = [[0x37, 0x7f, 0x06, 0x82], [0x37, 0x7f, 0x06, 0x83]];
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Sniffed {
    Sqlite,
    Redb,
    /// Looks like a database that was encrypted.
    Opaque,
    Other,
}

/// Returns whether a file of this length that begins so belongs to a database, so that it must not
/// be read like any other file.
pub(in crate::ops::backup) fn is_database(path: &[u8], size_bytes: u64, first: &[u8]) -> bool {
    if !Safeguard::DatabaseTold.holds() {
        return false;
    }
    let is_whole = size_bytes > 0 && size_bytes.is_multiple_of(SECTOR_BYTES);
    let is_log = path.ends_with(b"-wal") || path.ends_with(b"-journal");
    if read_sled::is_mark(path, size_bytes, first) {
        return true;
    }
    is_whole && (first.starts_with(sqlite::MAGIC) || first.starts_with(source::redb::MAGIC))
        || is_log && is_log_of(first)
}

fn is_log_of(first: &[u8]) -> bool {
    WAL_MAGIC.iter().any(|magic| first.starts_with(magic)) || first.starts_with(&JOURNAL_MAGIC)
}

/// Where there may be databases.
#[derive(Default)]
pub(super) struct FoundPaths {
    pub files: Vec<Vec<u8>>,
    /// Those of engines that keep a database in several files.
    pub directories: BTreeSet<Vec<u8>>,
}

/// Looks into files.
pub(in crate::ops) struct Finder<'a> {
    source: &'a Source,
    /// Files that this very process has open and SQLite may have locked, by device and inode.
    /// Closing another descriptor of one would drop the locks that SQLite holds on it, so SQLite
    /// has to look into them.
    held: HashSet<(u64, u64)>,
    /// The redb databases among them, by the same.
    holders: HashMap<(u64, u64), Holder>,
}

impl<'a> Finder<'a> {
    pub(in crate::ops) fn new(source: &'a Source, holders: &[(PathBuf, Holder)]) -> Finder<'a> {
        let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
        let (mut held, mut apart) = (HashSet::new(), HashSet::new());
        for descriptor in open.flatten() {
            let meta = std::fs::metadata(descriptor.path());
            let Some(meta) = meta.ok().filter(Metadata::is_file) else {
                continue;
            };
            let info = Path::new("/proc/self/fdinfo").join(descriptor.file_name());
            let info = std::fs::read_to_string(info).unwrap_or_default();
            // redb locks in these two ways and SQLite in neither. They outlive other descriptors,
            // and SQLite, asked about such a file, would wait for the lock.
            if info.contains("OFDLCK") || info.contains("FLOCK") {
                apart.insert((meta.dev(), meta.ino()));
            }
            held.insert((meta.dev(), meta.ino()));
        }
        held.retain(|node| !apart.contains(node));
        let holder = |(path, holder): &(PathBuf, Holder)| {
            let meta = std::fs::metadata(path).ok()?;
            Some(((meta.dev(), meta.ino()), Holder::clone(holder)))
        };
        Finder {
            source,
            held,
            holders: holders.iter().filter_map(holder).collect(),
        }
    }

    /// Returns the handle by which this very process has a database open, if it was given one.
    pub(super) fn holder(&self, stat: &Stat) -> Option<Holder> {
        self.holders.get(&(stat.device, stat.inode)).cloned()
    }

    /// Returns where in the source there may be databases.
    pub(super) fn all(&self, cx: &Context) -> Result<FoundPaths> {
        let mut found = FoundPaths::default();
        let mut nodes = 0_u64;
        // What cannot be read is reported by the scan, which comes to it too.
        for item in self.source.walk()?.flatten() {
            nodes += 1;
            if nodes.is_multiple_of(256) {
                cx.check()?;
            }
            if item.stat.kind != Kind::File {
                continue;
            }
            if let Some(dir) = read_sled::marked_directory(&item.path, item.stat.size_bytes)
                && read_sled::find(self.source, dir).is_some()
            {
                found.directories.insert(dir.to_vec());
                continue;
            }
            match self.sniff(&item.path, &item.stat) {
                Ok(Sniffed::Other) | Err(_) => {}
                Ok(_) => found.files.push(item.path),
            }
        }
        Ok(found)
    }

    /// Returns what a file is.
    pub(in crate::ops) fn sniff(&self, path: &[u8], stat: &Stat) -> Result<Sniffed, Problem> {
        if stat.size_bytes == 0 {
            // The first transaction of a new database may lie in its log alone.
            return Ok(match self.has_log(path) {
                true => Sniffed::Sqlite,
                false => Sniffed::Other,
            });
        }
        if !stat.size_bytes.is_multiple_of(SECTOR_BYTES) {
            return Ok(Sniffed::Other);
        }
        let node = (stat.device, stat.inode);
        if self.holders.contains_key(&node) {
            return Ok(Sniffed::Redb);
        }
        let is_held = self.held.contains(&node);
        // The locks of a log lie on its index. SQLite would take that for another database, and
        // drop them as it closes it.
        if is_held && path.ends_with(b"-shm") {
            return Ok(Sniffed::Other);
        }
        let mut first = [0; SECTOR_BYTES as usize];
        let len = match is_held {
            true => {
                let absolute = self.source.absolute(path);
                match sqlite::first_bytes(&absolute, &mut first) {
                    Ok(true) => first.len(),
                    Ok(false) | Err(_) => return Ok(Sniffed::Other),
                }
            }
            false => {
                let file = self.source.tree.open_file(path)?;
                file.read_at(0, &mut first)?
            }
        };
        let first = &first[..len];
        if first.starts_with(sqlite::MAGIC) {
            return Ok(Sniffed::Sqlite);
        }
        if first.starts_with(source::redb::MAGIC) {
            return Ok(Sniffed::Redb);
        }
        let is_named = EXTENSIONS.iter().any(|extension| path.ends_with(extension));
        match is_noise(first) && (is_named || self.has_log(path)) {
            true => Ok(Sniffed::Opaque),
            false => Ok(Sniffed::Other),
        }
    }

    fn has_log(&self, path: &[u8]) -> bool {
        let begins = |suffix: &[u8]| {
            let file = self.source.tree.open_file(&[path, suffix].concat()).ok()?;
            let mut first = [0; 8];
            let len = file.read_at(0, &mut first).ok()?;
            is_log_of(&first[..len]).then_some(())
        };
        begins(b"-wal").or_else(|| begins(b"-journal")).is_some()
    }
}

fn is_noise(bytes: &[u8]) -> bool {
    let mut seen = [false; 256];
    bytes
        .iter()
        .for_each(|&byte| seen[usize::from(byte)] = true);
    seen.iter().filter(|&&seen| seen).count() >= VALUES_OF_NOISE
}
