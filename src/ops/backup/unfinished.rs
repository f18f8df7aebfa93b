//! The packs a backup has stored and no log entry names yet.
//!
//! Their names are noted in a local file as they become durable. A run that is killed leaves the
//! file, and the next one takes the packs over, so that an interrupted backup goes on where it was.
//! The note is a hint: a pack counts only if the store has it and the log never dropped it.

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
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Packs of this run and those it took over.
pub(super) struct Unfinished {
    packs: BTreeMap<PackId, PackBytes>,
    since: u64,
    path: Option<PathBuf>,
    file: Option<File>,
}

impl Unfinished {
    /// Takes over what the last run left behind.
    pub(super) fn take_over(repo: &Repo, state: &State) -> Result<Unfinished> {
        let path = repo.cache_dir().map(|dir| dir.join("unfinished"));
        let (packs, since) = (BTreeMap::new(), state.position);
        let mut unfinished = Unfinished {
            packs,
            since,
            path,
            file: None,
        };
        let Some(path) = &unfinished.path else {
            return Ok(unfinished);
        };
        // Whoever renames it owns it; two backups at once do not take over the same packs.
        let taken = path.with_extension(format!("taken-{}", std::process::id()));
        if std::fs::rename(path, &taken).is_err() {
            return Ok(unfinished);
        }
        let text = std::fs::read_to_string(&taken).unwrap_or_default();
        let _ = std::fs::remove_file(&taken);
        let mut lines = text.lines();
        let since = lines
            .next()
            .and_then(|line| line.strip_prefix("since ")?.parse().ok());
        // A position that is not known proves nothing about what was dropped since.
        let Some(since) = since.filter(|since| *since <= state.position) else {
            return Ok(unfinished);
        };
        for line in lines {
            let Some((pack, bytes)) = parse(line) else {
                continue;
            };
            let is_named = state.packs.contains_key(&pack) || state.dropped.contains_key(&pack);
            let stored = repo.store().stored_bytes(&Key::pack(&pack))?;
            if !is_named && stored == Some(bytes.stored_bytes) {
                unfinished.packs.insert(pack, bytes);
            }
        }
        unfinished.since = since;
        for (pack, bytes) in unfinished.packs.clone() {
            unfinished.note(&pack, &bytes);
        }
        Ok(unfinished)
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

    /// Failing to note costs storing again after an interruption, and nothing else.
    fn note(&mut self, pack: &PackId, bytes: &PackBytes) {
        if self.file.is_none() {
            self.file = self.path.as_ref().and_then(|path| {
                let mut options = OpenOptions::new();
                let file = options.create(true).append(true).mode(0o600).open(path);
                let mut file = file.ok()?;
                writeln!(file, "since {}", self.since).ok()?;
                Some(file)
            });
        }
        if let Some(file) = &mut self.file {
            let _ = writeln!(file, "{pack} {} {}", bytes.stored_bytes, bytes.table_bytes);
        }
    }

    /// The log names the packs now.
    pub(super) fn finish(&mut self) {
        self.forget();
    }

    /// The packs may not be used any more.
    pub(super) fn forget(&mut self) {
        self.packs.clear();
        self.file = None;
        if let Some(path) = &self.path {
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
