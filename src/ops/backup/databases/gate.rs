//! Which databases did not change since they were captured: a disposable local file.
//!
//! One row for each database of the newest tree: what its file and its logs looked like before the
//! capture began. As with `seen`, what changed shortly before that proves nothing, and without this
//! file everything is read.

use crate::context::Timestamp;
use crate::format::tree::TreeRoot;
use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::format::wire::Reader;
use crate::ops::backup::seen::FINGERPRINT_BYTES;
use crate::ops::backup::seen::Fingerprint;
use crate::safeguard::Safeguard;
use crate::source::files::Kind;
use crate::source::files::Problem;
use crate::source::files::Stat;
use crate::source::files::Tree;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const MAGIC: [u8; 8] = *b"stgate1\n";
const HEADER_BYTES: usize = 8 + 33 + 8;
/// Names under which SQLite keeps what is not in the database file yet, or not for good.
const LOGS: [&str; 2] = ["-wal", "-journal"];

/// What a database looked like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Looks {
    file: Fingerprint,
    /// The logs beside it. An empty one is as good as none, and our own reading may leave one.
    logs: [Option<Fingerprint>; 2],
}

impl Looks {
    /// Looks at a database and its logs. `None` if it is no file (any more).
    pub(super) fn of(tree: &Tree, path: &[u8]) -> Result<Option<(Looks, Stat)>, Problem> {
        let file = |path: &[u8]| {
            let stat = tree.stat(path)?;
            Ok(stat.filter(|stat| stat.kind == Kind::File))
        };
        let Some(stat) = file(path)? else {
            return Ok(None);
        };
        let mut logs = [None; 2];
        for (log, suffix) in logs.iter_mut().zip(LOGS) {
            let found = file(&[path, suffix.as_bytes()].concat())?;
            *log = found
                .filter(|stat| stat.size_bytes > 0)
                .map(|stat| Fingerprint::of(&stat));
        }
        let file = Fingerprint::of(&stat);
        Ok(Some((Looks { file, logs }, stat)))
    }

    /// What a file looks like that has no logs.
    pub(super) fn of_file(stat: &Stat) -> Looks {
        Looks {
            file: Fingerprint::of(stat),
            logs: [None; 2],
        }
    }

    /// Whether the database at this path still looks so.
    pub(super) fn is_still(&self, tree: &Tree, path: &[u8]) -> bool {
        matches!(Looks::of(tree, path), Ok(Some((now, _))) if now == *self)
    }

    /// Whether there are logs with something in them.
    pub(super) fn has_logs(&self) -> bool {
        self.logs.iter().any(Option::is_some)
    }

    /// Whether the logs are those of another name, down to the inode.
    pub(super) fn has_logs_of(&self, other: &Looks) -> bool {
        self.logs == other.logs
    }

    /// Whether both are names of one file.
    pub(super) fn is_same_file(&self, other: &Looks) -> bool {
        self.file.is_same_node(&other.file)
    }

    /// Whether it could change after a look at that time and look the same.
    fn is_racy(&self, then: Timestamp) -> bool {
        let mut logs = self.logs.iter().flatten();
        self.file.is_racy(then) || logs.any(|log| log.is_racy(then))
    }
}

/// What the databases of one tree looked like.
#[derive(Debug, Default)]
pub(super) struct Gate {
    rows: BTreeMap<Vec<u8>, Looks>,
}

impl Gate {
    /// Reads the file if it is about this tree. Rows that prove nothing are left out.
    pub(super) fn read(path: &Path, tree: &TreeRoot) -> Gate {
        let bytes = std::fs::read(path).unwrap_or_default();
        let rows = match bytes.split_at_checked(HEADER_BYTES) {
            Some((header, rows)) if header[..8] == MAGIC && header[8..41] == tree.encode()[..] => {
                let then = header[41..].try_into().map_or(0, i64::from_le_bytes);
                decode(rows, Timestamp(then)).unwrap_or_default()
            }
            _ => BTreeMap::new(),
        };
        Gate { rows }
    }

    /// Whether the database looks as it did.
    pub(super) fn is_unchanged(&self, path: &[u8], now: &Looks) -> bool {
        let then = self.rows.get(path);
        let is_same_file = then.is_some_and(|then| then.file == now.file);
        then == Some(now) || is_same_file && !Safeguard::LogsCompared.holds()
    }

    /// Returns the paths of all rows.
    pub(super) fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.keys().map(Vec::as_slice)
    }

    /// Adds what a database looked like before it was captured.
    pub(super) fn insert(&mut self, path: Vec<u8>, looks: Looks) {
        self.rows.insert(path, looks);
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, path: &[u8]) {
        self.rows.remove(path);
    }

    /// Publishes the file for the next backup. Order: none; losing it only costs reading.
    pub(super) fn write(
        &self,
        path: &Path,
        tree: &TreeRoot,
        looked_at: Timestamp,
    ) -> io::Result<()> {
        if self.rows.is_empty() {
            let _ = std::fs::remove_file(path);
            return Ok(());
        }
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&tree.encode());
        out.extend_from_slice(&looked_at.0.to_le_bytes());
        for (path, looks) in &self.rows {
            wire::put_bytes(&mut out, path);
            out.extend_from_slice(&looks.file.encode());
            for log in &looks.logs {
                let bytes = log.map_or([0xff; FINGERPRINT_BYTES], |log| log.encode());
                out.extend_from_slice(&bytes);
            }
        }
        let temp = path.with_extension(format!("{}", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600);
        file.open(&temp)?.write_all(&out)?;
        std::fs::rename(&temp, path)
    }
}

fn decode(bytes: &[u8], then: Timestamp) -> Decoded<BTreeMap<Vec<u8>, Looks>> {
    let mut rows = BTreeMap::new();
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let path = reader.bytes()?.to_vec();
        let mut fingerprint = || {
            let bytes = reader.array()?;
            match bytes == [0xff; FINGERPRINT_BYTES] {
                true => Ok(None),
                false => Ok(Fingerprint::decode(&bytes)),
            }
        };
        let file = fingerprint()?.ok_or(Malformed::Bytes("a database has no file"))?;
        let logs = [fingerprint()?, fingerprint()?];
        let looks = Looks { file, logs };
        if !looks.is_racy(then) || !Safeguard::RacyDatabaseRead.holds() {
            rows.insert(path, looks);
        }
    }
    Ok(rows)
}
