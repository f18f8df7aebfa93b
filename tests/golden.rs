//! Golden repositories: what a released version stored, every later version reads (I5).
//!
//! Each directory under `tests/golden/` is a repository as it was written once, beside
//! `expected.txt`: every entry of every snapshot with size, mode and BLAKE3 of its content. Never
//! edit one; a change of the format adds a directory. Until the first release they are made anew
//! by `cargo test make_golden -- --ignored`.

use statekeep::context::Clock;
use statekeep::context::Context;
use statekeep::context::Random;
use statekeep::context::Silent;
use statekeep::context::Timestamp;
use statekeep::disk::RealDisk;
use statekeep::error::Result;
use statekeep::format::container;
use statekeep::format::container::ObjectKind;
use statekeep::format::entry::Change;
use statekeep::format::entry::Entry;
use statekeep::format::key::Credential;
use statekeep::format::key::Derivation;
use statekeep::format::list::HOLE;
use statekeep::format::list::Stream;
use statekeep::format::manifest::Manifest;
use statekeep::format::note::Note;
use statekeep::format::pack::ChunkKind;
use statekeep::format::pack::Codec;
use statekeep::format::tree::Content;
use statekeep::format::tree::Kind;
use statekeep::format::tree::path_order;
use statekeep::id::RepoId;
use statekeep::id::SlotHash;
use statekeep::id::WriterId;
use statekeep::ops::backup::BackupOptions;
use statekeep::ops::backup::backup;
use statekeep::repo::Access;
use statekeep::repo::NewKey;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::repo::chunks::Scratch;
use statekeep::repo::log::State;
use statekeep::repo::stream::Pieces;
use statekeep::repo::tree::LeafAt;
use statekeep::repo::tree::Leaves;
use statekeep::store::DirStore;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::MemoryStore;
use statekeep::store::Put;
use statekeep::store::Store;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Every directory under `tests/golden/`.
const LISTED: [&str; 2] = ["v1-encrypted", "v1-plain"];
/// The secret of the encrypted one, known to everybody.
const SECRET: [u8; 32] = *b"statekeep golden test repository";
const PASSPHRASE: &[u8] = b"statekeep golden test passphrase";
const SNAPSHOTS: usize = 3;

#[test]
fn every_golden_directory_is_listed() {
    let names = fs::read_dir(golden("")).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();

    assert_eq!(names, LISTED);
}

#[test]
fn golden_repositories_are_read_in_full() {
    let secret = || Credential::Secret(SECRET.into());
    let passphrase = || Credential::Passphrase(PASSPHRASE.to_vec().into());
    for (name, credentials) in [
        ("v1-plain", vec![]),
        ("v1-encrypted", vec![secret()]),
        ("v1-encrypted", vec![passphrase()]),
    ] {
        let expected = fs::read_to_string(golden(name).join("expected.txt")).unwrap();

        let repo = Repo::open(load(name), &credentials, None).unwrap();

        assert_eq!(listing(&repo), expected, "{name}");
    }
}

fn open(name: &str) -> Repo {
    let secret = Credential::Secret(SECRET.into());
    let credentials = if name.ends_with("plain") {
        vec![]
    } else {
        vec![secret]
    };
    Repo::open(load(name), &credentials, None).unwrap()
}

#[test]
fn golden_repositories_hold_what_they_are_there_to_prove() {
    for name in LISTED {
        let repo = open(name);
        let state = repo.read_state(&Context::new()).unwrap();
        let chunks = Chunks::open(&repo, &state.packs).unwrap();
        let mut codecs = Vec::new();
        for pack in state.packs.keys() {
            let rows = chunks.table(pack).unwrap();
            codecs.extend(rows.iter().map(|row| row.encoding.codec));
        }

        for codec in [Codec::Raw, Codec::Zstd, Codec::Delta] {
            assert!(codecs.contains(&codec), "{name} has no {codec:?}");
        }
        assert_eq!(repo.store().list(Folder::State).unwrap().len(), 1);
        // The last slot is void: it would remove a snapshot.
        assert_eq!((state.position, state.snapshots.len()), (4, SNAPSHOTS));
        assert_eq!(state.notes.tags.len(), 1);
    }
}

fn golden(name: &str) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    golden.join(name)
}

/// Copies a repository into memory: a checkout has no empty directories.
fn load(name: &str) -> Arc<MemoryStore> {
    let store = MemoryStore::new();
    let config = fs::read(golden(name).join("config")).unwrap();
    store.put_new(&Key::config(), &config).unwrap();
    for folder in Folder::ALL.into_iter().filter(|&f| f != Folder::Top) {
        let Ok(entries) = fs::read_dir(golden(name).join(folder.name())) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap();
            let key = Key::new(folder, file).unwrap();
            store.put_new(&key, &fs::read(&path).unwrap()).unwrap();
        }
    }
    Arc::new(store)
}

/// Reads everything of every snapshot, oldest first.
fn listing(repo: &Repo) -> String {
    let state = repo.read_state(&Context::new()).unwrap();
    let chunks = Chunks::open(repo, &state.packs).unwrap();
    let decoded = |raw: &Arc<[u8]>| Manifest::decode(raw).unwrap();
    let mut manifests: Vec<Manifest> = state.snapshots.values().map(decoded).collect();
    manifests.sort_by_key(|manifest| manifest.started_at);
    let mut text = String::new();
    for (number, manifest) in manifests.iter().enumerate() {
        assert!(!manifest.partial && manifest.host == "golden");
        writeln!(text, "snapshot {}", number + 1).unwrap();
        let mut scratch = Scratch::default();
        let mut leaves = Leaves::begin(&chunks, &manifest.tree);
        while let Some(leaf) = leaves.next(&mut scratch).unwrap() {
            list_leaf(&chunks, &mut scratch, &leaf, &mut text);
        }
    }
    text
}

fn list_leaf(chunks: &Chunks<'_>, scratch: &mut Scratch, at: &LeafAt, text: &mut String) {
    let leaf = &at.leaf;
    let bundles: Vec<Vec<u8>> = leaf
        .bundles
        .iter()
        .map(|bundle| chunks.read(scratch, ChunkKind::Data, &bundle.id).unwrap())
        .collect();
    for (entry, place) in leaf.entries.iter().zip(leaf.places()) {
        let mode = entry.attributes.mode;
        let line = match &entry.kind {
            Kind::Directory => directory_line(mode),
            Kind::Symlink { target } => link_line("link", target),
            Kind::HardLink { path } => link_line("hard", path),
            Kind::File {
                size_bytes,
                content,
            } => {
                let bytes = match (content, place) {
                    (Content::Stream(stream), _) => {
                        read_stream(chunks, scratch, stream, *size_bytes)
                    }
                    (Content::Bundled(_), place) => {
                        let place = place.unwrap();
                        let start = usize::try_from(place.offset).unwrap();
                        let len = usize::try_from(place.size_bytes).unwrap();
                        bundles[place.bundle][start..start + len].to_vec()
                    }
                };
                assert_eq!(bytes.len() as u64, *size_bytes);
                file_line(mode, &bytes)
            }
            other => panic!("{other:?}"),
        };
        let path = String::from_utf8(entry.path.clone()).unwrap();
        writeln!(text, "/{path} {line}").unwrap();
    }
}

fn read_stream(
    chunks: &Chunks<'_>,
    scratch: &mut Scratch,
    stream: &Stream,
    size_bytes: u64,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut pieces = Pieces::begin(chunks, stream, size_bytes);
    while let Some(piece) = pieces.next(scratch).unwrap() {
        let len = usize::try_from(piece.plain_bytes).unwrap();
        let plain = match piece.id == HOLE {
            true => vec![0; len],
            false => chunks.read(scratch, ChunkKind::Data, &piece.id).unwrap(),
        };
        assert_eq!(plain.len(), len);
        bytes.extend(plain);
    }
    bytes
}

fn directory_line(mode: u32) -> String {
    format!("directory {mode:04o}")
}

fn link_line(kind: &str, target: &[u8]) -> String {
    format!("{kind} {}", String::from_utf8_lossy(target))
}

fn file_line(mode: u32, bytes: &[u8]) -> String {
    format!("file {mode:04o} {} {}", bytes.len(), blake3::hash(bytes))
}

/// What the generator puts on disk.
enum Made {
    Directory(u32),
    File(u32, Vec<u8>),
    Link(&'static str),
    Hard(&'static str),
}

type Model = BTreeMap<&'static str, Made>;

/// Text that compresses to little, of several chunks, with some lines that differ by version.
fn large(changed: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for line in 0..30_000_usize {
        let version = if line / 100 == changed {
            "changed"
        } else {
            "the same"
        };
        let number = line / 100;
        text.extend(format!("line {number:04}: {version} as in all of them\n").bytes());
    }
    text
}

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&[seed])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn model(snapshot: usize) -> Model {
    let mut sparse = vec![0; 300 << 10];
    sparse[..4].copy_from_slice(b"head");
    sparse[(300 << 10) - 4..].copy_from_slice(b"tail");
    let mut model: Model = [
        ("", Made::Directory(0o755)),
        (".env", Made::File(0o600, b"TOKEN=not a secret\n".to_vec())),
        ("data", Made::Directory(0o700)),
        ("data/empty", Made::File(0o644, vec![])),
        ("data/large.txt", Made::File(0o644, large(snapshot))),
        ("data/noise", Made::File(0o444, noise(1, 700))),
        ("data/sparse", Made::File(0o640, sparse)),
        ("data-also", Made::Hard("data/noise")),
        ("data.link", Made::Link("../elsewhere")),
        ("rules", Made::Directory(0o2750)),
        (
            "rules/a.toml",
            Made::File(0o640, b"when = \"dawn\"\n".repeat(20)),
        ),
        (
            "rules/b.toml",
            Made::File(0o4755, b"when = \"dusk\"\n".repeat(30)),
        ),
    ]
    .into();
    if snapshot >= 1 {
        let text = [&b"when = \"noon\"\n"[..], &b"when = \"dawn\"\n".repeat(19)].concat();
        model.insert("rules/a.toml", Made::File(0o640, text));
        model.insert("rules/c", Made::Directory(0o755));
        model.insert("rules/c/d.toml", Made::File(0o644, noise(2, 300)));
    }
    if snapshot >= 2 {
        model.remove("rules/b.toml");
        model.remove("data-also");
        model.insert("data/noise", Made::File(0o444, noise(3, 600)));
    }
    model
}

fn expected() -> String {
    let mut text = String::new();
    for snapshot in 0..SNAPSHOTS {
        writeln!(text, "snapshot {}", snapshot + 1).unwrap();
        let model = model(snapshot);
        let mut paths: Vec<_> = model.keys().collect();
        paths.sort_by(|a, b| path_order(a.as_bytes(), b.as_bytes()));
        for path in paths {
            // The later one in the order of paths is the link to the earlier one.
            let line = match &model[path] {
                Made::Directory(mode) => directory_line(*mode),
                Made::File(mode, bytes) => file_line(*mode, bytes),
                Made::Link(target) => link_line("link", target.as_bytes()),
                Made::Hard(first) => link_line("hard", first.as_bytes()),
            };
            writeln!(text, "/{path} {line}").unwrap();
        }
    }
    text
}

fn make_tree(root: &Path, model: &Model) {
    let _ = fs::remove_dir_all(root);
    let mut links = Vec::new();
    for (path, made) in model {
        let path = root.join(path);
        match made {
            Made::Directory(_) => fs::create_dir_all(&path).unwrap(),
            Made::Link(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
            Made::Hard(first) => links.push((root.join(first), path)),
            Made::File(mode, bytes) => {
                let file = fs::File::create(&path).unwrap();
                file.set_len(bytes.len() as u64).unwrap();
                for (number, part) in bytes.chunks(4096).enumerate() {
                    if part.iter().any(|&byte| byte != 0) {
                        file.write_all_at(part, number as u64 * 4096).unwrap();
                    }
                }
                let mode = fs::Permissions::from_mode(*mode);
                file.set_permissions(mode).unwrap();
            }
        }
    }
    links
        .iter()
        .for_each(|(first, path)| fs::hard_link(first, path).unwrap());
    for (path, made) in model {
        if let Made::Directory(mode) = made {
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(*mode)).unwrap();
        }
    }
}

/// A clock that ticks by itself and a generator that anybody can predict.
struct Fixed {
    now: AtomicI64,
    drawn: AtomicU64,
}

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.fetch_add(1_000_000, Ordering::Relaxed))
    }
}

impl Random for Fixed {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&number.to_le_bytes())
            .finalize_xof()
            .fill(buffer);
        Ok(())
    }
}

fn fixed() -> Context {
    let fixed = Arc::new(Fixed {
        now: AtomicI64::new(1_763_600_000_000_000_000),
        drawn: AtomicU64::new(0),
    });
    Context {
        clock: fixed.clone(),
        random: fixed,
        progress: Arc::new(Silent),
        cancel: Arc::new(AtomicBool::new(false)),
    }
}

#[test]
#[ignore = "replaces tests/golden"]
fn make_golden() {
    let key = |credential, derivation, label: &str| NewKey {
        credential,
        derivation,
        label: label.to_string(),
    };
    let quick = Derivation::Passphrase {
        memory_kib: 64,
        passes: 1,
    };
    let keys = vec![
        key(
            Credential::Secret(SECRET.into()),
            Derivation::Secret,
            "key file",
        ),
        key(
            Credential::Passphrase(PASSPHRASE.to_vec().into()),
            quick,
            "passphrase",
        ),
    ];
    make("v1-plain", Access::Plain);
    make("v1-encrypted", Access::Encrypted(keys));
}

fn make(name: &str, access: Access) {
    let cx = fixed();
    let root = golden(name);
    let _ = fs::remove_dir_all(&root);
    let store = Arc::new(DirStore::create(Arc::new(RealDisk), &root).unwrap());
    let repo = Repo::create(&cx, store, RepoId(*b"statekeep golden"), access, None).unwrap();
    let tree = std::env::temp_dir().join("statekeep-golden");
    for snapshot in 0..SNAPSHOTS {
        make_tree(&tree, &model(snapshot));
        let options = BackupOptions {
            paths: vec![tree.clone()],
            host: "golden".to_string(),
            secrets: vec![".env".to_string()],
            tags: match snapshot {
                0 => vec!["first".to_string()],
                _ => vec![],
            },
            ..BackupOptions::default()
        };
        let report = backup(&cx, &repo, &options).unwrap();
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        if snapshot == 1 {
            let state = repo.read_state(&cx).unwrap();
            put(
                &cx,
                &repo,
                ObjectKind::Checkpoint,
                &Key::checkpoint(2),
                &state.encode(),
            );
        }
    }
    fs::remove_dir_all(&tree).unwrap();
    put_void_entry(&cx, &repo);
    fs::write(root.join("expected.txt"), expected()).unwrap();
    assert_eq!(listing(&repo), expected());
}

/// An entry by somebody who knew another log: it must change nothing.
fn put_void_entry(cx: &Context, repo: &Repo) {
    let state: Arc<State> = repo.read_state(cx).unwrap();
    let all: BTreeSet<_> = state.snapshots.keys().copied().collect();
    let entry = Entry {
        previous: SlotHash([0xee; 32]),
        writer: WriterId(cx.random_bytes().unwrap()),
        written_at: cx.clock.now(),
        change: Change {
            remove_snapshots: all.iter().copied().collect(),
            notes: vec![Note::Tag(*all.first().unwrap(), "void".into())],
            ..Change::default()
        },
    };
    put(
        cx,
        repo,
        ObjectKind::Slot,
        &Key::slot(state.position + 1),
        &entry.encode(),
    );
}

fn put(cx: &Context, repo: &Repo, kind: ObjectKind, key: &Key, plain: &[u8]) {
    let keys = repo.secrets().data_keys();
    let object = container::seal(keys, kind, cx.random_bytes().unwrap(), plain);
    assert_eq!(repo.store().put_new(key, &object).unwrap(), Put::Created);
}
