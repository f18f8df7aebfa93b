//! What several tests need: repositories over any store, and a reader that owes nothing to restore.

use statekeep::context::Clock;
use statekeep::context::Context;
use statekeep::context::Timestamp;
use statekeep::format::key::Credential;
use statekeep::format::key::Derivation;
use statekeep::format::list::HOLE;
use statekeep::format::manifest::Manifest;
use statekeep::format::pack::ChunkKind;
use statekeep::format::tree::Content;
use statekeep::format::tree::Kind;
use statekeep::id::RepoId;
use statekeep::id::SnapshotId;
use statekeep::ops::backup;
use statekeep::ops::backup::BackupOptions;
use statekeep::ops::backup::BackupReport;
use statekeep::ops::restore;
use statekeep::ops::restore::RestoreOptions;
use statekeep::repo::Access;
use statekeep::repo::NewKey;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::repo::chunks::Scratch;
use statekeep::repo::stream::Pieces;
use statekeep::repo::tree::Leaves;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::MemoryStore;
use statekeep::store::Store;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

/// One node as a test compares it: mode and what it is.
pub(crate) type Node = (u32, String, Vec<u8>);

/// A tree by path.
pub(crate) type Model = BTreeMap<Vec<u8>, Node>;

/// What a process of the command gets of an environment that is cleared otherwise: the safeguards
/// that are taken away (`tests/faults`).
pub(crate) fn taken_away() -> Option<(&'static str, OsString)> {
    std::env::var_os(TAKEN_AWAY).map(|names| (TAKEN_AWAY, names))
}

/// Names the safeguards that are taken away, if the feature `faults` is on.
pub(crate) const TAKEN_AWAY: &str = "STATEKEEP_FAULT";

/// A clock that only tests move, far enough ahead that no file looks freshly changed.
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn at(now: Timestamp) -> TestClock {
        TestClock(AtomicI64::new(now.0))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1_000_000, Ordering::Relaxed))
    }
}

/// Returns a context whose time is ten seconds ahead of every file: nothing is racy.
pub(crate) fn context() -> Context {
    let now = Context::new().clock.now().0 + 10_000_000_000;
    Context {
        clock: Arc::new(TestClock(AtomicI64::new(now))),
        ..Context::new()
    }
}

pub(crate) fn credential() -> Credential {
    Credential::Secret([7; 32].into())
}

pub(crate) fn create(store: Arc<dyn Store>, plain: bool, cache: Option<&Path>) -> Repo {
    let cx = context();
    let key = NewKey {
        credential: credential(),
        derivation: Derivation::Secret,
        label: "test".to_string(),
    };
    let access = if plain {
        Access::Plain
    } else {
        Access::Encrypted(vec![key])
    };
    Repo::create(&cx, store, RepoId([5; 16]), access, cache).unwrap()
}

pub(crate) fn open(store: Arc<dyn Store>, cache: Option<&Path>) -> statekeep::error::Result<Repo> {
    let (config, _) = statekeep::repo::read_config(&*store)?;
    match config.public_secret {
        Some(_) => Repo::open(store, &[], cache),
        None => Repo::open(store, &[credential()], cache),
    }
}

pub(crate) fn options(path: &Path) -> BackupOptions {
    BackupOptions {
        paths: vec![path.to_path_buf()],
        host: "host".into(),
        ..Default::default()
    }
}

pub(crate) fn backup(repo: &Repo, path: &Path) -> statekeep::error::Result<BackupReport> {
    backup::backup(&context(), repo, &options(path))
}

/// Returns what is in a directory now.
pub(crate) fn model_of(root: &Path) -> Model {
    let mut model = Model::new();
    let mut first_names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let mode = meta.mode() & 0o7777;
        let node = if meta.is_dir() {
            todo.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            (mode, "dir".to_string(), vec![])
        } else if meta.is_symlink() {
            let target = std::fs::read_link(&path).unwrap();
            (
                0,
                "link".to_string(),
                target.as_os_str().as_bytes().to_vec(),
            )
        } else {
            (mode, "file".to_string(), std::fs::read(&path).unwrap())
        };
        let name = path
            .strip_prefix(root)
            .unwrap()
            .as_os_str()
            .as_bytes()
            .to_vec();
        if meta.is_file() && meta.nlink() > 1 {
            first_names
                .entry(meta.ino())
                .or_insert_with(|| name.clone());
        }
        model.insert(name, node);
    }
    model
}

/// Returns what a snapshot holds, read chunk by chunk.
pub(crate) fn model_in(repo: &Repo, snapshot: &SnapshotId) -> statekeep::error::Result<Model> {
    let state = repo.read_state(&context())?;
    let chunks = Chunks::open(repo, &state.packs)?;
    let manifest = Manifest::decode(&state.snapshots[snapshot]).unwrap();
    let (mut scratch, mut model) = (Scratch::default(), Model::new());
    let mut leaves = Leaves::begin(&chunks, &manifest.tree);
    while let Some(at) = leaves.next(&mut scratch)? {
        let places = at.leaf.places();
        for (entry, place) in at.leaf.entries.iter().zip(places) {
            let mode = entry.attributes.mode;
            let node = match &entry.kind {
                Kind::Directory => (mode, "dir".to_string(), vec![]),
                Kind::Symlink { target } => (0, "link".to_string(), target.clone()),
                Kind::HardLink { path } => model[path].clone(),
                Kind::File {
                    content: Content::Bundled(_),
                    size_bytes,
                } => {
                    let place = place.unwrap();
                    let id = at.leaf.bundles[place.bundle].id;
                    let bundle = chunks.read(&mut scratch, ChunkKind::Data, &id)?;
                    let start = place.offset as usize;
                    let content = bundle[start..start + *size_bytes as usize].to_vec();
                    (mode, "file".to_string(), content)
                }
                Kind::File {
                    content: Content::Stream(stream),
                    size_bytes,
                } => {
                    let mut content = Vec::new();
                    let mut pieces = Pieces::begin(&chunks, stream, *size_bytes);
                    while let Some(piece) = pieces.next(&mut scratch)? {
                        if piece.id == HOLE {
                            content.resize(content.len() + piece.plain_bytes as usize, 0);
                        } else {
                            let plain = chunks.read(&mut scratch, ChunkKind::Data, &piece.id)?;
                            assert_eq!(plain.len() as u64, piece.plain_bytes);
                            content.extend(plain);
                        }
                    }
                    (mode, "file".to_string(), content)
                }
                other => (mode, format!("{other:?}"), vec![]),
            };
            model.insert(entry.path.clone(), node);
        }
    }
    Ok(model)
}

/// Restores a snapshot into a directory that is not there yet.
pub(crate) fn restore(repo: &Repo, report: &BackupReport, target: &Path) {
    let state = repo.read_state(&context()).unwrap();
    let chunks = Chunks::open(repo, &state.packs).unwrap();
    let (cx, options) = (context(), RestoreOptions::new(target));
    let plan = restore::plan(&cx, &chunks, &report.manifest, &options).unwrap();
    restore::apply(&cx, &chunks, &report.manifest, &options, &plan).unwrap();
}

/// A small deterministic generator.
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Seeded {
        Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Compressible bytes.
    pub(crate) fn text(&mut self, len: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(len + 16);
        while text.len() < len {
            text.extend(format!("key_{} = {}\n", self.below(50), self.below(1000)).bytes());
        }
        text.truncate(len);
        text
    }
}

/// Returns a store of its own with the same objects.
pub(crate) fn copy_of(store: &dyn Store) -> Arc<MemoryStore> {
    let copy = MemoryStore::new();
    for folder in Folder::ALL {
        for row in store.list(folder).unwrap() {
            let key = Key::new(folder, row.name).unwrap();
            let bytes = store.get(&key).unwrap().unwrap();
            copy.put_new(&key, &bytes).unwrap();
        }
    }
    Arc::new(copy)
}
