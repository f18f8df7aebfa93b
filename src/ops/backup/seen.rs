//! What the files of a series looked like at the last backup: a disposable local file.
//!
//! One fingerprint for each entry of the newest tree, in the order of the tree. A file whose
//! fingerprint is the same is not read again. In doubt it is: without this file everything is read.
//!
//! Git's racy rule: a file changed so shortly before a scan that another change could have left the
//! same times is never believed to be unchanged.

use crate::context::Timestamp;
use crate::format::tree::TreeRoot;
use crate::format::wire::Reader;
use crate::safeguard::Safeguard;
use crate::source::files::FileTime;
use crate::source::files::Stat;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufReader;
use std::io::BufWriter;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

const MAGIC: [u8; 8] = *b"stseen1\n";
const HEADER_BYTES: usize = 8 + 33 + 8;
/// Bytes of an encoded fingerprint.
pub(super) const FINGERPRINT_BYTES: usize = 48;
/// The coarsest clock of file systems in use: two seconds.
const RACY_NS: i64 = 2_000_000_000;
/// No backup takes longer than this to scan.
const TEMP_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What tells whether a file was touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: FileTime,
    changed: FileTime,
}

impl Fingerprint {
    /// Returns the fingerprint of a node.
    pub(super) fn of(stat: &Stat) -> Fingerprint {
        Fingerprint {
            device: stat.device,
            inode: stat.inode,
            size_bytes: stat.size_bytes,
            modified: stat.mtime,
            changed: match Safeguard::ChangeTimeCompared.holds() {
                true => stat.ctime,
                false => stat.mtime,
            },
        }
    }

    /// Returns one that no node has, so that the next backup looks closer.
    pub(super) fn forgotten(self) -> Fingerprint {
        Fingerprint {
            device: u64::MAX,
            ..self
        }
    }

    /// Returns whether both are of one node, whatever happened to it between.
    pub(super) fn is_same_node(&self, other: &Fingerprint) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Returns whether the node could change after a scan that began then and keep its times.
    pub(super) fn is_racy(&self, scan: Timestamp) -> bool {
        let newest = self.modified.max(self.changed);
        let ns = newest
            .secs
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(newest.nanos));
        ns > scan.0.saturating_sub(RACY_NS)
    }

    pub(super) fn encode(&self) -> [u8; FINGERPRINT_BYTES] {
        let mut bytes = [0; FINGERPRINT_BYTES];
        bytes[..8].copy_from_slice(&self.device.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.inode.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.size_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.modified.secs.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.modified.nanos.to_le_bytes());
        bytes[36..44].copy_from_slice(&self.changed.secs.to_le_bytes());
        bytes[44..].copy_from_slice(&self.changed.nanos.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; FINGERPRINT_BYTES]) -> Option<Fingerprint> {
        let mut reader = Reader::new(bytes);
        let mut next = || reader.u64().ok();
        let (device, inode, size_bytes) = (next()?, next()?, next()?);
        let mut time = || {
            let secs = reader.u64().ok()?.cast_signed();
            Some(FileTime {
                secs,
                nanos: reader.u32().ok()?,
            })
        };
        Some(Fingerprint {
            device,
            inode,
            size_bytes,
            modified: time()?,
            changed: time()?,
        })
    }
}

/// Reads the fingerprints of the entries of a tree, one after the other.
pub(super) struct SeenReader {
    file: BufReader<File>,
    scan: Timestamp,
}

impl SeenReader {
    /// Opens the file if it is about this tree.
    pub(super) fn open(path: &Path, tree: &TreeRoot) -> Option<SeenReader> {
        let mut file = BufReader::with_capacity(1 << 16, File::open(path).ok()?);
        let mut header = [0; HEADER_BYTES];
        file.read_exact(&mut header).ok()?;
        let is_ours = header[..8] == MAGIC && header[8..41] == tree.encode()[..];
        let scan = i64::from_le_bytes(header[41..].try_into().ok()?);
        is_ours.then_some(SeenReader {
            file,
            scan: Timestamp(scan),
        })
    }

    /// Returns the next fingerprint, `None` if it proves nothing.
    pub(super) fn next(&mut self) -> Option<Fingerprint> {
        let mut bytes = [0; FINGERPRINT_BYTES];
        self.file.read_exact(&mut bytes).ok()?;
        let fingerprint = Fingerprint::decode(&bytes)?;
        let is_racy = fingerprint.is_racy(self.scan) && Safeguard::RacyRead.holds();
        (!is_racy).then_some(fingerprint)
    }
}

/// Writes the fingerprints of a new tree beside the old ones.
pub(super) struct SeenWriter {
    file: BufWriter<File>,
    temp: PathBuf,
    path: PathBuf,
}

impl SeenWriter {
    /// Begins; `unique` keeps two runs apart.
    pub(super) fn begin(path: &Path, unique: u64) -> io::Result<SeenWriter> {
        remove_old_temps(path);
        let temp = path.with_extension(format!("{unique:016x}"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temp)?;
        let mut file = BufWriter::with_capacity(1 << 16, file);
        file.write_all(&[0; HEADER_BYTES])?;
        Ok(SeenWriter {
            file,
            temp,
            path: path.to_path_buf(),
        })
    }

    /// Adds the fingerprint of the next entry; `None` makes the next backup look closer.
    pub(super) fn push(&mut self, fingerprint: Option<&Fingerprint>) -> io::Result<()> {
        let bytes = fingerprint.map_or([0xff; FINGERPRINT_BYTES], Fingerprint::encode);
        self.file.write_all(&bytes)
    }

    /// Publishes the file for the next backup. Order: none; losing it only costs reading.
    pub(super) fn finish(mut self, tree: &TreeRoot, scan: Timestamp) -> io::Result<()> {
        let file = &mut self.file;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&MAGIC)?;
        file.write_all(&tree.encode())?;
        file.write_all(&scan.0.to_le_bytes())?;
        file.flush()?;
        std::fs::rename(&self.temp, &self.path)
    }
}

impl Drop for SeenWriter {
    fn drop(&mut self) {
        // After `finish` the name is gone already.
        let _ = std::fs::remove_file(&self.temp);
    }
}

/// Removes what killed runs of this series left; one that is at work is younger.
fn remove_old_temps(path: &Path) {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    let prefix = [name.as_encoded_bytes(), b"."].concat();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_temp = entry.file_name().as_encoded_bytes().starts_with(&prefix);
        let modified = entry.metadata().and_then(|meta| meta.modified());
        let age = modified.ok().and_then(|time| time.elapsed().ok());
        if is_temp && age.is_some_and(|age| age > TEMP_AGE) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
