//! The snapshot of what is there before a restore in place: made, durable, read back and held
//! before anything is touched.

use crate::context::Context;
use crate::context::Event;
use crate::disk::jail::STAGE_NAME;
use crate::disk::node::Problem;
use crate::error::Error;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::note::Replaced;
use crate::format::pack::ChunkKind;
use crate::format::tree::Entry;
use crate::id::ChunkId;
use crate::id::SnapshotId;
use crate::ops::backup;
use crate::ops::backup::BackupOptions;
use crate::ops::backup::FreePages;
use crate::ops::in_place::InPlaceOptions;
use crate::ops::inspect;
use crate::ops::restore::select::Only;
use crate::ops::snapshots::SAFETY_TAG;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::reach::Visitor;
use crate::repo::reach::Walk;
use crate::safeguard::Safeguard;

/// What is there now, saved.
pub(super) struct Safety<'r> {
    pub id: SnapshotId,
    pub manifest: Manifest,
    pub chunks: Chunks<'r>,
    /// What could not be saved as it should be.
    pub warnings: Vec<Problem>,
}

/// Saves what the backups of this place save, `None` if nothing of it is there.
pub(super) fn take<'r>(
    cx: &Context,
    repo: &'r Repo,
    options: &InPlaceOptions,
    like: &Manifest,
    replaced: Option<Replaced>,
) -> Result<Option<Safety<'r>>> {
    if !Safeguard::SafetyTaken.holds() {
        return Ok(None);
    }
    let root = &options.root;
    let root = match root.canonicalize() {
        Ok(root) => root,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("find", root)(error)),
    };
    let listed = std::fs::read_dir(&root).map_err(Error::io("list", &root))?;
    if listed
        .flatten()
        .all(|entry| entry.file_name() == STAGE_NAME)
    {
        return Ok(None);
    }
    let Some(again) = backup::again(like, &root, &options.host)? else {
        return Ok(None);
    };
    let options = BackupOptions {
        app_version: options.app_version.clone(),
        free_pages: FreePages::Exact,
        tags: vec![SAFETY_TAG.to_string()],
        replaced,
        ..again
    };
    let report = backup::backup(cx, repo, &options)?;
    let id = report.snapshot.ok_or_else(|| Error::Refused {
        reason: "what is there now was not saved".to_string(),
    })?;
    let state = repo.read_state(cx)?;
    let chunks = Chunks::open(repo, &state.packs)?;
    Ok(Some(Safety {
        id,
        manifest: report.manifest,
        chunks,
        warnings: report.warnings,
    }))
}

/// Reads back every chunk of what is wanted of a snapshot; each is verified as it is read (I3).
pub(super) fn read_back(
    cx: &Context,
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    only: &Only,
) -> Result<()> {
    cx.progress.event(Event::Phase("verify"));
    let mut reading = Reading {
        cx,
        chunks,
        only,
        scratch: Scratch::default(),
    };
    Walk::begin(chunks).snapshot(cx, manifest, &mut reading)
}

/// Reads what a walk comes to. Nodes it has read itself.
struct Reading<'r> {
    cx: &'r Context,
    chunks: &'r Chunks<'r>,
    only: &'r Only,
    scratch: Scratch,
}

impl Visitor for Reading<'_> {
    fn visit(&mut self, kind: ChunkKind, id: &ChunkId) -> Result<bool> {
        if kind == ChunkKind::Data {
            let plain = self.chunks.read(&mut self.scratch, kind, id)?;
            let bytes = plain.len() as u64;
            inspect::recycle(&mut self.scratch, plain);
            self.scratch.touched.clear();
            self.cx.progress.event(Event::Done { files: 0, bytes });
        }
        Ok(true)
    }

    fn wants(&self, entry: &Entry) -> bool {
        self.only.wants(&entry.path, &entry.kind)
    }
}
