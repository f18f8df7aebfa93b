//! The packs a backup or a copy has stored and no log entry names yet.
//!
//! Their names are noted in a local file as they become durable. A run that is killed leaves the
//! file, and the next one takes the packs over, so that an interrupted backup goes on where it was.
//! The note is a hint: a pack counts only if the store has it and the log never dropped it.

use crate::context::Context;
use crate::context::Timestamp;
use crate::error::Result;
use crate::format::entry::PackBytes;
use crate::id::PackId;
use crate::repo::Repo;
use crate::repo::log::State;
use crate::store::Key;
use std::collections::BTreeMap;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Half-written files younger than this may belong to a writer that is still at work.
const LEFTOVER_AGE_NS: i64 = 3600 * 1_000_000_000;

/// Packs of this run and those it took over.
pub(super) struct Unfinished {
    packs: BTreeMap<PackId, PackBytes>,
    since: u64,
    path: Option<PathBuf>,
    file: Option<File>,
}

impl Unfinished {
    /// Begins with what the last run left behind.
    pub(super) fn begin(cx: &Context, repo: &Repo, state: &State) -> Result<Unfinished> {
        let path = repo.cache_dir().map(|dir| dir.join("unfinished"));
        let (packs, since) = (BTreeMap::new(), state.position);
        let mut unfinished = Unfinished {
            packs,
            since,
            path,
            file: None,
        };
        unfinished.take_over(cx, repo, state)?;
        unfinished.begin_note();
        Ok(unfinished)
    }

    /// Begins with nothing, and leaves no note: the packs go with this run.
    pub(super) fn apart(state: &State) -> Unfinished {
        Unfinished {
            packs: BTreeMap::new(),
            since: state.position,
            path: None,
            file: None,
        }
    }

    fn take_over(&mut self, cx: &Context, repo: &Repo, state: &State) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        // Whoever renames it owns it; two backups at once do not take over the same packs.
        let taken = path.with_extension(format!("taken-{}", std::process::id()));
        if std::fs::rename(path, &taken).is_err() {
            return Ok(());
        }
        // The last run was cut off, so it may have left half-written files too.
        let before = Timestamp(cx.clock.now().0.saturating_sub(LEFTOVER_AGE_NS));
        repo.store().remove_leftovers(before)?;
        let text = std::fs::read_to_string(&taken).unwrap_or_default();
        let _ = std::fs::remove_file(&taken);
        let mut lines = text.lines();
        let since = lines
            .next()
            .and_then(|line| line.strip_prefix("since ")?.parse().ok());
        // Whoever has not read every entry since then cannot tell what was dropped; the log would
        // refuse the packs after all the work was done.
        let known = state.read.since..=state.position;
        let Some(since) = since.filter(|since| known.contains(since)) else {
            return Ok(());
        };
        for line in lines {
            let Some((pack, bytes)) = parse(line) else {
                continue;
            };
            let is_named = state.packs.contains_key(&pack) || state.dropped.contains_key(&pack);
            let stored = repo.store().stored_bytes(&Key::pack(&pack))?;
            if !is_named && stored == Some(bytes.stored_bytes) {
                self.packs.insert(pack, bytes);
            }
        }
        self.since = since;
        Ok(())
    }

    /// Returns the packs.
    pub(super) fn packs(&self) -> &BTreeMap<PackId, PackBytes> {
        &self.packs
    }

    /// Returns the position of a state read before the first of them was stored.
    pub(super) fn since(&self) -> u64 {
        self.since
    }

    /// Adds a pack that is durable.
    pub(super) fn add(&mut self, pack: PackId, bytes: PackBytes) {
        self.packs.insert(pack, bytes);
        self.note(&pack, &bytes);
    }

    /// Leaves a pack out that turned out to be unreadable.
    pub(super) fn remove(&mut self, pack: &PackId) {
        self.packs.remove(pack);
    }

    /// Begins the note. Whoever finds one there leaves it alone: it belongs to a run beside this
    /// one, whose packs were stored at other positions of the log.
    fn begin_note(&mut self) {
        self.file = self.path.as_ref().and_then(|path| {
            let mut options = OpenOptions::new();
            let mut file = options
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(path)
                .ok()?;
            writeln!(file, "since {}", self.since).ok()?;
            Some(file)
        });
        for (pack, bytes) in self.packs.clone() {
            self.note(&pack, &bytes);
        }
    }

    /// Failing to note costs storing again after an interruption, and nothing else.
    fn note(&mut self, pack: &PackId, bytes: &PackBytes) {
        if let Some(file) = &mut self.file {
            let _ = writeln!(file, "{pack} {} {}", bytes.stored_bytes, bytes.table_bytes);
        }
    }

    /// The packs may not be used any more. What is stored from now on is new to the log as of this
    /// state.
    pub(super) fn forget(&mut self, state: &State) {
        self.end_note();
        self.packs.clear();
        self.since = state.position;
        self.begin_note();
    }

    /// The log names the packs now, or they are not wanted.
    pub(super) fn finish(mut self) {
        self.end_note();
    }

    fn end_note(&mut self) {
        let (Some(file), Some(path)) = (self.file.take(), &self.path) else {
            return;
        };
        // A run beside this one may have taken our note over and put its own there.
        let inode = |metadata: std::io::Result<std::fs::Metadata>| metadata.ok().map(|m| m.ino());
        if inode(file.metadata()) == inode(std::fs::metadata(path)) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn parse(line: &str) -> Option<(PackId, PackBytes)> {
    let mut words = line.split(' ');
    let pack = words.next()?.parse().ok()?;
    let stored_bytes = words.next()?.parse().ok()?;
    let table_bytes = words.next()?.parse().ok()?;
    Some((
        pack,
        PackBytes {
            stored_bytes,
            table_bytes,
        },
    ))
}
