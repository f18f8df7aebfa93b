//! What the fuzz targets do, one function each. `tests/decoders.rs` runs the same on stable Rust.
//!
//! A body returns for any input, panics for none, and holds what the format promises.

use jiff::tz::TimeZone;
use statekeep::codec::cipher::Suite;
use statekeep::config::Place;
use statekeep::config::Schedule;
use statekeep::context::Context;
use statekeep::format;
use statekeep::format::checkpoint::State;
use statekeep::format::config::Config;
use statekeep::format::container;
use statekeep::format::container::DataKeys;
use statekeep::format::container::ObjectKind;
use statekeep::format::container::Opener;
use statekeep::format::container::Sealer;
use statekeep::format::database;
use statekeep::format::entry::Entry;
use statekeep::format::entry::PackBytes;
use statekeep::format::extents::EXTENT_BLOCK_BYTES;
use statekeep::format::key::Binding;
use statekeep::format::key::Credential;
use statekeep::format::key::Derivation;
use statekeep::format::key::Slot;
use statekeep::format::list::ListNode;
use statekeep::format::list::Stream;
use statekeep::format::manifest::Manifest;
use statekeep::format::note::Note;
use statekeep::format::note::Notes;
use statekeep::format::pack;
use statekeep::format::pack::ChunkKind;
use statekeep::format::pack::Codec;
use statekeep::format::pack::Encoding;
use statekeep::format::pack::Row;
use statekeep::format::pack::TAIL_BYTES;
use statekeep::format::tree::Attributes;
use statekeep::format::tree::Bundle;
use statekeep::format::tree::Class;
use statekeep::format::tree::Content;
use statekeep::format::tree::FileTime;
use statekeep::format::tree::Kind;
use statekeep::format::tree::Leaf;
use statekeep::format::tree::Node;
use statekeep::format::tree::TreeRoot;
use statekeep::format::tree::is_plain_path;
use statekeep::format::tree::path_order;
use statekeep::format::wire;
use statekeep::format::wire::Reader;
use statekeep::id::ChunkId;
use statekeep::id::PackId;
use statekeep::id::RepoId;
use statekeep::ops::archive;
use statekeep::ops::archive::Archive;
use statekeep::ops::archive::listing;
use statekeep::ops::archive::listing::Limits;
use statekeep::ops::keep::Within;
use statekeep::ops::restore as restoring;
use statekeep::ops::restore::RestoreOptions;
use statekeep::ops::snapshots;
use statekeep::repo::Access;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::repo::chunks::Scratch;
use statekeep::source::redb as redb_source;
use statekeep::source::sqlite::btree as pages;
use statekeep::store::Key;
use statekeep::store::MemoryStore;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A body.
pub(crate) type Body = fn(&[u8]);

/// Every target by name.
#[allow(dead_code, reason = "each fuzz target uses one")]
pub(crate) const ALL: [(&str, Body); 20] = [
    ("config", config),
    ("key_slot", key_slot),
    ("container", container),
    ("pack_table", pack_table),
    ("list", list),
    ("extents", extents),
    ("databases", databases),
    ("tree_node", tree_node),
    ("manifest", manifest),
    ("entry", entry),
    ("checkpoint", checkpoint),
    ("note", note),
    ("wire", wire),
    ("chunk_reader", chunk_reader),
    ("archive", archive),
    ("btree", btree),
    ("settings", settings),
    ("words", words),
    ("redb", redb),
    ("restore", restore),
];

const MANIFEST_KEY: [u8; 32] = [5; 32];

pub(crate) fn config(bytes: &[u8]) {
    if let Ok(config) = Config::decode(bytes) {
        assert_eq!(Config::decode(&config.encode()), Ok(config));
    }
}

pub(crate) fn key_slot(bytes: &[u8]) {
    let Ok(slot) = Slot::decode(bytes) else {
        return;
    };
    // A varint has one form, so what was decoded is encoded as it was.
    assert_eq!(slot.encode(), bytes);
    let binding = Binding {
        config: b"config",
        suite: Suite::Aes256Gcm,
    };
    let secret = Credential::Secret([5; 32].into());
    assert!(!matches!(slot.unseal(&secret, binding), Ok(Some(_))));
    // A slot may ask for a second of work, and a fuzzer has no time for that.
    let is_quick = match slot.derivation {
        Derivation::Secret => true,
        Derivation::Passphrase { memory_kib, passes } => {
            memory_kib <= 64 && passes <= 2 || memory_kib > 1 << 20 || passes > 64
        }
    };
    if is_quick {
        let passphrase = Credential::Passphrase(b"correct".to_vec().into());
        assert!(!matches!(slot.unseal(&passphrase, binding), Ok(Some(_))));
    }
}

pub(crate) fn container(bytes: &[u8]) {
    for suite in [Suite::Plain, Suite::Aes256Gcm] {
        let keys = DataKeys::new(suite, vec![(1, [1; 32]), (2, [2; 32])]).unwrap();
        for kind in [ObjectKind::Pack, ObjectKind::Slot, ObjectKind::Checkpoint] {
            if let Ok(plain) = container::unseal(&keys, kind, bytes) {
                assert_eq!(
                    container::stored_bytes(plain.len() as u64),
                    bytes.len() as u64
                );
            }
        }
        let mut reader = Reader::new(bytes);
        let (Ok(stored_bytes), Ok(start), Ok(len)) = (reader.u64(), reader.u64(), reader.u64())
        else {
            continue;
        };
        let object = container::seal(&keys, ObjectKind::Pack, [9; 24], reader.rest());
        let range = start..start.saturating_add(len);
        let opener = Opener::begin(&keys, ObjectKind::Pack, &object, stored_bytes);
        if let Ok(opener) = opener
            && let Ok(stored) = opener.stored_range(&range)
        {
            assert!(stored.start < stored.end && stored.end <= stored_bytes);
            let cut = |at: u64| usize::try_from(at).unwrap().min(object.len());
            let mut part = object[cut(stored.start)..cut(stored.end)].to_vec();
            let _ = opener.unseal_range(&range, &mut part);
        }
    }
}

pub(crate) fn pack_table(bytes: &[u8]) {
    let _ = table(bytes);
    // The compressor stands in the way of mutation: the same bytes as the columns themselves.
    let mut sealed = statekeep::codec::zstd::Encoder::new(1)
        .whole(bytes)
        .to_vec();
    let table_bytes = u32::try_from(sealed.len()).unwrap();
    for records in [0, u64::from(u32::MAX)] {
        let frame_bytes = sealed.len();
        sealed.extend_from_slice(&records.to_le_bytes());
        sealed.extend_from_slice(&table_bytes.to_le_bytes());
        sealed.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
        let _ = table(&sealed);
        sealed.truncate(frame_bytes);
    }
    if let Some(tail) = bytes.first_chunk::<TAIL_BYTES>() {
        let _ = pack::table_bytes(tail, bytes.len() as u64);
    }
}

fn table(bytes: &[u8]) -> Option<()> {
    let rows = pack::decode_table(bytes).ok()?;
    assert_eq!(pack::decode_table(&pack::encode_table(&rows)), Ok(rows));
    Some(())
}

pub(crate) fn list(bytes: &[u8]) {
    if let Ok(node) = ListNode::decode(bytes) {
        assert_eq!(node.encode(), bytes);
    }
    if let Ok(stream) = Stream::take(&mut Reader::new(bytes)) {
        let mut again = Vec::new();
        stream.put(&mut again);
        assert!(bytes.starts_with(&again));
    }
}

pub(crate) fn extents(bytes: &[u8]) {
    let Ok(extents) = format::extents::decode(bytes) else {
        return;
    };
    assert!(!extents.is_empty());
    for extent in &extents {
        assert!(extent.offset.is_multiple_of(EXTENT_BLOCK_BYTES) && !extent.bytes.is_empty());
        let end = extent.offset.checked_add(extent.bytes.len() as u64);
        assert!(end.is_some_and(|end| i64::try_from(end).is_ok()));
    }
    assert_eq!(format::extents::encode(&extents), bytes);
}

pub(crate) fn databases(bytes: &[u8]) {
    if let Ok(records) = database::decode(bytes) {
        assert_eq!(database::decode(&database::encode(&records)), Ok(records));
    }
}

/// A SQLite database, page by page: what a comparison of two of them reads.
pub(crate) fn btree(bytes: &[u8]) {
    let _ = pages::values(bytes, 50);
    for count in [0, 1, 3] {
        if let Ok(first) = pages::first_values(bytes, count) {
            let found = format!("{:?}", pages::values(&first, count));
            assert_eq!(found, format!("{:?}", pages::values(bytes, count)));
        }
    }
    let Ok(layout) = pages::Layout::parse(bytes) else {
        return;
    };
    for (number, bytes) in (1..).zip(bytes.chunks(layout.page_bytes as usize)) {
        let _ = layout.is_reserved(number);
        let _ = pages::overflow(&layout, bytes);
        let _ = pages::trunk(&layout, bytes);
        let Ok(page) = pages::Page::parse(&layout, number, bytes) else {
            continue;
        };
        let _ = page.first_rowid();
        if let Ok(children) = page.children() {
            assert_eq!(children.is_empty(), page.is_leaf);
        }
        for cell in (0..page.cell_count()).filter_map(|cell| page.cell(cell).ok()) {
            assert!(cell.local.len() as u64 <= cell.payload_bytes);
            let _ = pages::values(cell.local, 50);
        }
    }
}

pub(crate) fn tree_node(bytes: &[u8]) {
    let _ = TreeRoot::decode(bytes);
    match Node::decode(bytes) {
        Ok(Node::Leaf(leaf)) => {
            for pair in leaf.entries.windows(2) {
                assert!(path_order(&pair[0].path, &pair[1].path).is_lt());
            }
            for (entry, place) in leaf.entries.iter().zip(leaf.places()) {
                assert!(is_plain_path(&entry.path));
                assert_eq!(place.is_some(), entry.class().is_some());
                if let Kind::HardLink { path } = &entry.kind {
                    assert!(path_order(path, &entry.path).is_lt());
                }
            }
            assert_eq!(Node::decode(&leaf.encode()), Ok(Node::Leaf(leaf)));
        }
        Ok(Node::Inner(inner)) => {
            assert!(!inner.children.is_empty());
            assert_eq!(Node::decode(&inner.encode()), Ok(Node::Inner(inner)));
        }
        Err(_) => {}
    }
}

pub(crate) fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }
}

pub(crate) fn entry(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(&MANIFEST_KEY, bytes) {
        assert_eq!(Entry::decode(&MANIFEST_KEY, &entry.encode()), Ok(entry));
    }
}

pub(crate) fn checkpoint(bytes: &[u8]) {
    if let Ok(state) = State::decode(&MANIFEST_KEY, bytes) {
        let again = State::decode(&MANIFEST_KEY, &state.encode()).unwrap();
        assert_eq!(again.encode(), state.encode());
    }
}

pub(crate) fn note(bytes: &[u8]) {
    if let Ok(note) = Note::decode(bytes) {
        let mut sum = Notes::default();
        sum.apply(&note);
        let mut again = Notes::default();
        sum.to_list().iter().for_each(|note| again.apply(note));
        assert_eq!(again, sum);
        assert_eq!(Note::decode(&note.encode()), Ok(note));
    }
}

pub(crate) fn wire(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    while let Ok(Some((number, field))) = reader.field() {
        let _ = (wire::unknown_field(number), wire::number(field));
        let _ = (wire::text(field), wire::array::<32>(field));
    }
    for least_bytes in [0, 1, 37] {
        if let Ok(count) = Reader::new(bytes).count(least_bytes) {
            assert!(count * least_bytes.max(1) <= bytes.len());
        }
    }
    let _ = Reader::new(bytes).varint_u32();
}

/// A pack whose rows say whatever the input says is read by all its ids. With more rows or bases a
/// tower of bases would take longer than anybody waits: see `a_tower_of_bases_is_given_up`.
pub(crate) fn chunk_reader(bytes: &[u8]) {
    let mut input = Reader::new(bytes);
    let mut rows = Vec::new();
    let mut records = Vec::new();
    while rows.len() < 6
        && let Ok([what, height, bases, first, second, third, plain, stored]) = input.array()
    {
        rows.push(hostile_row(&mut records, what, height, plain, stored));
        let names = [first, second, third].map(|base| name(base % 8));
        let row: &mut Row = rows.last_mut().unwrap();
        if row.encoding.codec == Codec::Delta || bases & 0x80 != 0 {
            row.bases = names[..usize::from(bases % 4)].to_vec();
        }
    }
    let len = records.len().min(input.rest().len());
    records[..len]
        .iter_mut()
        .zip(input.rest())
        .for_each(|(a, b)| *a ^= b);
    for (_, id, plain) in read_all(&rows, &records) {
        // Of the kind asked for: see `a_chunk_is_not_taken_for_one_of_another_kind`.
        assert!(
            ChunkKind::ALL
                .iter()
                .any(|kind| chunk_id(*kind, &plain) == id)
        );
    }
}

/// Bytes as an archive, and a tar whose headers are sound and say what the bytes like: their sums
/// stand in the way of mutation.
pub(crate) fn archive(bytes: &[u8]) {
    judge(bytes);
    let mut tar = Vec::new();
    let mut input = Reader::new(bytes);
    while let Ok([kind, name_bytes, link_bytes, content_bytes]) = input.array::<4>() {
        let mut take = |len: u8| {
            input
                .take(usize::from(len % 100))
                .unwrap_or_default()
                .to_vec()
        };
        let (name, link, content) = (take(name_bytes), take(link_bytes), take(content_bytes));
        put_header(&mut tar, kind, &name, &link, content.len());
        tar.extend_from_slice(&content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    judge(&tar);
}

fn put_header(tar: &mut Vec<u8>, kind: u8, name: &[u8], link: &[u8], content_bytes: usize) {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..124].copy_from_slice(b"0000644\x000000000\x000000000\x00");
    header[124..136].copy_from_slice(format!("{content_bytes:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = b"0125xLKgS3"[usize::from(kind % 10)];
    header[157..157 + link.len()].copy_from_slice(link);
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&header);
}

/// What was let through has plain paths, each once, below directories, and links that stay inside.
fn judge(bytes: &[u8]) {
    let name = format!(
        "statekeep-fuzz-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let path = std::env::temp_dir().join(name);
    File::create(&path).unwrap().write_all(bytes).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let Ok(Some(archive)) = Archive::of_file(file, Path::new("archive")) else {
        return;
    };
    let limits = Limits {
        members_max: 1000,
        plain_bytes_max: 16 << 20,
        ..Limits::default()
    };
    let Ok(listing) = listing::list(&Context::new(), &archive, &limits) else {
        return;
    };
    let (mut paths, mut leaves) = (BTreeSet::new(), BTreeSet::new());
    for listed in &listing.members {
        let member = &listed.member;
        assert!(is_plain_path(&member.path) && !member.path.is_empty());
        assert!(paths.insert(member.path.clone()));
        match &member.kind {
            archive::Kind::Directory => {}
            archive::Kind::HardLink(first) => {
                let first = first.strip_prefix(b"./").unwrap_or(first);
                assert!(leaves.contains(first));
            }
            archive::Kind::Symlink(target) => assert!(!target.starts_with(b"/")),
            archive::Kind::CharDevice(..) | archive::Kind::BlockDevice(..) => panic!("a device"),
            archive::Kind::File(_) | archive::Kind::Fifo => {}
        }
        if member.kind != archive::Kind::Directory {
            leaves.insert(member.path.clone());
        }
    }
    for path in &paths {
        let mut ends = (0..path.len()).filter(|&end| path[end] == b'/');
        assert!(!ends.any(|end| leaves.contains(&path[..end])));
    }
}

/// A configuration: what is wrong with it is told, and each line is one of the text.
pub(crate) fn settings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let place = Place {
        file: PathBuf::from("/etc/statekeep/config.toml"),
        home: Some(PathBuf::from("/home/somebody")),
    };
    if let Err(faults) = statekeep::config::parse(&text, &place) {
        assert!(!faults.is_empty());
    }
    if let Ok(edited) = statekeep::config::edit::set(&text, "app", "database-cuts", "\"content\"") {
        // Changing one line leaves a configuration one.
        let was_sound = statekeep::config::parse(&text, &place).is_ok();
        let is_sound = statekeep::config::parse(&edited.text, &place).is_ok();
        assert!(is_sound || !was_sound, "{text}");
    }
}

/// Short texts that people type: durations, schedules, retention, ids, references.
pub(crate) fn words(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = statekeep::config::parse_duration(&text);
    let _ = (text.parse::<Schedule>(), text.parse::<Within>());
    let _ = (text.parse::<ChunkId>(), text.parse::<RepoId>());
    let (reference, path) = snapshots::split_path(bytes);
    let path_bytes = path.map_or(0, |path| path.len() + 1);
    // Slashes around a path are left out.
    assert!(reference.len() + path_bytes <= bytes.len());
    let _ = snapshots::of_state(&State::default());
    let now = Context::new().clock.now();
    assert!(snapshots::resolve(&[], &text, now, &TimeZone::UTC).is_err());
}

/// A file that says it is one of redb: it is proved or refused, and not changed.
pub(crate) fn redb(bytes: &[u8]) {
    for start in [&b""[..], &redb_source::MAGIC[..]] {
        let content = [start, bytes].concat();
        let (file, spool) = (nameless(&content), nameless(b""));
        let mut steps = 0;
        let _ = redb_source::prove(file, spool, &mut || {
            steps += 1;
            steps < 10_000
        });
    }
}

fn nameless(content: &[u8]) -> File {
    let mut file = statekeep::disk::unnamed_file(&std::env::temp_dir()).unwrap();
    file.write_all(content).unwrap();
    file
}

/// A tree of whatever the input says is restored, twice. What lies beside the target stays as it is.
pub(crate) fn restore(bytes: &[u8]) {
    let mut input = Reader::new(bytes);
    let mut entries: BTreeMap<Vec<u8>, Kind> = BTreeMap::new();
    let mut bundled = 0;
    while let Ok([what, path, to]) = input.array::<3>() {
        let kind = match what % 6 {
            0 => Kind::Directory,
            1 | 2 => Kind::Symlink {
                target: TARGETS[usize::from(to) % TARGETS.len()].to_vec(),
            },
            3 => Kind::HardLink {
                path: hostile_path(to),
            },
            4 => Kind::Fifo,
            _ => Kind::File {
                size_bytes: 1,
                content: Content::Bundled(Class::Ordinary),
            },
        };
        entries.insert(hostile_path(path), kind);
    }
    let attributes = Arc::new(Attributes {
        mode: 0o755,
        ..Attributes::default()
    });
    let mut entries: Vec<_> = entries
        .into_iter()
        .map(|(path, kind)| statekeep::format::tree::Entry {
            path,
            attributes: Arc::clone(&attributes),
            modified: FileTime::default(),
            kind,
        })
        .collect();
    entries.sort_by(|a, b| path_order(&a.path, &b.path));
    bundled += entries
        .iter()
        .filter(|entry| entry.class().is_some())
        .count();
    let content = vec![b'x'; bundled];
    let bundles = match bundled {
        0 => Vec::new(),
        _ => vec![Bundle {
            id: chunk_id(ChunkKind::Data, &content),
            files: u32::try_from(bundled).unwrap(),
            class: Class::Ordinary,
        }],
    };
    let node = Leaf { entries, bundles }.encode();
    if Node::decode(&node).is_err() {
        return;
    }
    with_chunks(
        &[(ChunkKind::Tree, &node), (ChunkKind::Data, &content)],
        |chunks| {
            let tree = TreeRoot {
                id: chunk_id(ChunkKind::Tree, &node),
                level: 0,
            };
            restore_beside(
                chunks,
                &Manifest {
                    tree,
                    ..Manifest::default()
                },
            );
        },
    );
}

const TARGETS: [&[u8]; 6] = [b"..", b"../beside", b"/", b"a", b".", b"../../.."];

/// Paths that are made of few names, so that they meet.
fn hostile_path(number: u8) -> Vec<u8> {
    let names = [&b"a"[..], b"b", b"canary", b".statekeep-restore"];
    let parts = (0..=number % 3).map(|at| names[usize::from(number >> (2 + 2 * at)) % names.len()]);
    parts.collect::<Vec<_>>().join(&b'/')
}

fn restore_beside(chunks: &Chunks<'_>, manifest: &Manifest) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("statekeep-fuzz-{}-{number}", std::process::id());
    let scene = std::env::temp_dir().join(name);
    std::fs::create_dir_all(scene.join("beside/in")).unwrap();
    std::fs::write(scene.join("canary"), "canary").unwrap();
    std::fs::write(scene.join("beside/canary"), "canary").unwrap();
    let (cx, mut options) = (Context::new(), RestoreOptions::new(scene.join("target")));
    options.sync = restoring::Sync::Never;
    for _ in 0..2 {
        if let Ok(plan) = restoring::plan(&cx, chunks, manifest, &options) {
            let _ = restoring::apply(&cx, chunks, manifest, &options, &plan);
        }
    }
    let mut there: Vec<_> = ["", "beside", "beside/in"]
        .iter()
        .flat_map(|dir| std::fs::read_dir(scene.join(dir)).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "target")
        .collect();
    there.sort();
    assert_eq!(there, ["beside", "canary", "canary", "in"]);
    for canary in ["canary", "beside/canary"] {
        assert_eq!(std::fs::read(scene.join(canary)).unwrap(), b"canary");
    }
    std::fs::remove_dir_all(&scene).unwrap();
}

/// Puts chunks into a pack as they are and hands out who reads them.
fn with_chunks(plain: &[(ChunkKind, &[u8])], read: impl FnOnce(&Chunks<'_>)) {
    let (mut rows, mut records) = (Vec::new(), Vec::new());
    for (kind, bytes) in plain.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        records.extend_from_slice(bytes);
        rows.push(Row {
            id: chunk_id(*kind, bytes),
            encoding: Encoding {
                codec: Codec::Raw,
                kind: *kind,
                run_head: false,
            },
            height: 0,
            plain_bytes: u32::try_from(bytes.len()).unwrap(),
            stored_bytes: u32::try_from(bytes.len()).unwrap(),
            bases: Vec::new(),
        });
    }
    with_pack(&rows, &records, read);
}

fn repo() -> &'static Repo {
    static REPO: OnceLock<Repo> = OnceLock::new();
    REPO.get_or_init(|| {
        let store = Arc::new(MemoryStore::new());
        Repo::create(&Context::new(), store, RepoId([7; 16]), Access::Plain, None).unwrap()
    })
}

fn content(number: u8) -> Vec<u8> {
    vec![number; 100 + usize::from(number)]
}

fn id(number: u8) -> ChunkId {
    chunk_id(ChunkKind::Data, &content(number))
}

fn name(number: u8) -> [u8; 8] {
    *id(number).as_bytes().first_chunk().unwrap()
}

fn hostile_row(records: &mut Vec<u8>, what: u8, height: u8, plain: u8, stored: u8) -> Row {
    let number = what % 8;
    let mut row = Row {
        id: id(number),
        encoding: Encoding {
            codec: [Codec::Raw, Codec::Zstd, Codec::Delta, Codec::Delta][usize::from(what >> 6)],
            kind: ChunkKind::ALL[usize::from(what >> 3) % 3],
            run_head: height & 1 == 1,
        },
        height,
        plain_bytes: u32::from(plain) << (stored % 20),
        stored_bytes: u32::from(stored),
        bases: Vec::new(),
    };
    if what & 0x20 == 0 {
        row.plain_bytes = u32::from(number) + 100;
    }
    match row.encoding.codec {
        Codec::Raw => {
            records.extend(content(number));
            row.height = 0;
            row.plain_bytes = u32::from(number) + 100;
            row.stored_bytes = row.plain_bytes;
            // Another chunk with the same short name.
            if what & 0x20 != 0 {
                row.id.0[31] ^= height;
            }
        }
        Codec::Zstd | Codec::Delta => {
            let mut encoder = statekeep::codec::zstd::Encoder::new(1);
            let frame = encoder.whole(&content(number)).to_vec();
            row.stored_bytes = u32::try_from(frame.len()).unwrap();
            records.extend(frame);
            row.height = if row.encoding.codec == Codec::Delta {
                height
            } else {
                0
            };
        }
    }
    row
}

/// A chunk that was asked for by kind and id, and what came.
pub(crate) type ReadChunk = (ChunkKind, ChunkId, Vec<u8>);

/// Puts these rows into a pack and returns everything anybody could ask it for.
pub(crate) fn read_all(rows: &[Row], records: &[u8]) -> Vec<ReadChunk> {
    let mut read = Vec::new();
    with_pack(rows, records, |chunks| {
        let mut scratch = Scratch::default();
        for row in rows {
            for record in chunks.find(&row.id) {
                let _ = chunks.chain(&record);
                let _ = chunks.needed_packs(&record);
            }
            for kind in ChunkKind::ALL {
                if let Ok(plain) = chunks.read(&mut scratch, kind, &row.id) {
                    read.push((kind, row.id, plain));
                }
            }
        }
    });
    read
}

/// Has a pack of these rows read, if that is one, and removes it.
fn with_pack(rows: &[Row], records: &[u8], read: impl FnOnce(&Chunks<'_>)) {
    let (repo, mut random) = (repo(), [0; 24]);
    Context::new().random.fill(&mut random).unwrap();
    let keys = repo.secrets().data_keys();
    let mut sealer = Sealer::begin(keys, ObjectKind::Pack, random, 0);
    let table = pack::encode_table(rows);
    sealer.push(records);
    sealer.push(&table);
    let object = sealer.finish();
    let pack = PackId(*blake3::hash(&object).as_bytes());
    let bytes = PackBytes {
        stored_bytes: object.len() as u64,
        table_bytes: table.len() as u64,
    };
    repo.store().put_new(&Key::pack(&pack), &object).unwrap();
    if let Ok(chunks) = Chunks::open(repo, &BTreeMap::from([(pack, bytes)])) {
        read(&chunks);
    }
    repo.store().delete(&Key::pack(&pack)).unwrap();
}

/// Returns the id of a chunk of this kind.
pub(crate) fn chunk_id(kind: ChunkKind, plain: &[u8]) -> ChunkId {
    repo().secrets().chunk_id(kind, plain)
}
