//! The hex blocks of `docs/format.md` are what the text says they are.
//!
//! Each block is decoded by the real decoder and compared with a value built here from the text.
//! Where encoding is deterministic, it has to yield the same bytes. A block without a row in
//! `examples`, or a row without a block, fails. After a change of the format:
//! `cargo test write_the_examples -- --ignored`.

use statekeep::codec::cipher::Suite;
use statekeep::codec::sha256::Sha256Sum;
use statekeep::context::Timestamp;
use statekeep::format::checkpoint::Read;
use statekeep::format::checkpoint::State;
use statekeep::format::config::Config;
use statekeep::format::container;
use statekeep::format::container::DataKeys;
use statekeep::format::container::ObjectKind;
use statekeep::format::database;
use statekeep::format::database::DatabaseRecord;
use statekeep::format::database::Engine;
use statekeep::format::database::Method;
use statekeep::format::database::Verdict;
use statekeep::format::entry::AddedPack;
use statekeep::format::entry::AddedSnapshot;
use statekeep::format::entry::Change;
use statekeep::format::entry::Entry;
use statekeep::format::entry::PackBytes;
use statekeep::format::extents;
use statekeep::format::extents::Extent;
use statekeep::format::history::SeriesName;
use statekeep::format::history::Span;
use statekeep::format::key::Binding;
use statekeep::format::key::Credential;
use statekeep::format::key::Derivation;
use statekeep::format::key::Keyring;
use statekeep::format::key::Slot;
use statekeep::format::list::Child;
use statekeep::format::list::Children;
use statekeep::format::list::Flavour;
use statekeep::format::list::HOLE;
use statekeep::format::list::ListNode;
use statekeep::format::list::Stream;
use statekeep::format::list::StreamKind;
use statekeep::format::manifest::Figures;
use statekeep::format::manifest::Manifest;
use statekeep::format::manifest::Rules;
use statekeep::format::note::CopiedFrom;
use statekeep::format::note::Export;
use statekeep::format::note::HoldUntil;
use statekeep::format::note::Loss;
use statekeep::format::note::Lost;
use statekeep::format::note::Note;
use statekeep::format::note::Proof;
use statekeep::format::note::Replaced;
use statekeep::format::note::RepoFigures;
use statekeep::format::pack;
use statekeep::format::pack::ChunkKind;
use statekeep::format::pack::Codec;
use statekeep::format::pack::Encoding;
use statekeep::format::pack::Row;
use statekeep::format::tree;
use statekeep::format::tree::Attributes;
use statekeep::format::tree::Bundle;
use statekeep::format::tree::Class;
use statekeep::format::tree::Content;
use statekeep::format::tree::FileTime;
use statekeep::format::tree::Inner;
use statekeep::format::tree::Kind;
use statekeep::format::tree::Leaf;
use statekeep::format::tree::Node;
use statekeep::format::tree::TreeRoot;
use statekeep::format::wire::Reader;
use statekeep::id;
use statekeep::id::ChunkId;
use statekeep::id::PackId;
use statekeep::id::RepoId;
use statekeep::id::SlotHash;
use statekeep::id::SnapshotId;
use statekeep::id::WriterId;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

const MANIFEST_KEY: [u8; 32] = [5; 32];
const SNAPSHOT: SnapshotId = SnapshotId([1; 32]);

type Check = Box<dyn Fn(&[u8]) -> bool>;

/// One block: the bytes that are written today, and what any bytes of that name must decode to.
struct Example {
    name: &'static str,
    /// The fuzz target that takes such bytes.
    target: &'static str,
    encoded: Vec<u8>,
    /// Whether the bytes in the text must be exactly those.
    is_exact: bool,
    is_right: Check,
}

#[test]
fn the_examples_in_the_text_are_what_it_says() {
    let blocks = blocks();
    let examples = examples();

    for example in &examples {
        let Some(bytes) = blocks.get(example.name) else {
            panic!("docs/format.md has no block `{}`", example.name);
        };
        assert!((example.is_right)(bytes), "{}: another value", example.name);
        if example.is_exact {
            let wanted = id::hex(&example.encoded);
            assert_eq!(id::hex(bytes), wanted, "{}", example.name);
        }
    }
    for name in blocks.keys() {
        let is_known = examples.iter().any(|example| example.name == name);
        assert!(is_known, "nothing checks the block `{name}`");
    }
}

#[test]
#[ignore = "writes docs/format.md and fuzz/seeds"]
fn write_the_examples() {
    let mut text = fs::read_to_string(doc()).unwrap();
    for example in examples() {
        let start = format!("```hex {}\n", example.name);
        let at = text.find(&start).unwrap() + start.len();
        let end = at + text[at..].find("```").unwrap();
        text.replace_range(at..end, &lines(&example));

        let seeds = root().join("fuzz/seeds").join(example.target);
        fs::create_dir_all(&seeds).unwrap();
        fs::write(seeds.join(example.name), &example.encoded).unwrap();
    }
    fs::write(doc(), text).unwrap();
}

/// Returns the bytes of every hex block by name.
pub(crate) fn blocks() -> BTreeMap<String, Vec<u8>> {
    let text = fs::read_to_string(doc()).unwrap();
    let mut blocks = BTreeMap::new();
    for block in text.split("```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let (body, _) = rest.split_once("```").unwrap();
        let digits = body.lines().map(|line| line.split('#').next().unwrap());
        let digits: String = digits.flat_map(str::split_whitespace).collect();
        let bytes = id::from_hex(&digits).unwrap_or_else(|| panic!("{name} is not hex"));
        assert!(!bytes.is_empty(), "{name} is empty");
        let before = blocks.insert(name.to_string(), bytes);
        assert!(before.is_none(), "two blocks `{name}`");
    }
    blocks
}

/// Returns every example with the fuzz target that takes it.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let examples = examples().into_iter();
    examples.map(|e| (e.target, e.encoded)).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn doc() -> PathBuf {
    root().join("docs/format.md")
}

/// Breaks what consists of fields into lines of one field each, and everything into short lines.
fn lines(example: &Example) -> String {
    let bytes = &example.encoded;
    let head = match example.target {
        "config" | "key_slot" => 9,
        "manifest" | "entry" | "checkpoint" => 0,
        _ => bytes.len(),
    };
    let mut parts = vec![&bytes[..head]];
    let mut rest = &bytes[head..];
    while !rest.is_empty() {
        let mut reader = Reader::new(rest);
        let len = match reader.field() {
            // The checksum of a config is no field.
            Ok(Some(_)) if example.target != "config" || rest.len() > 16 => {
                rest.len() - reader.rest().len()
            }
            _ => rest.len(),
        };
        let (part, after) = rest.split_at(len);
        parts.push(part);
        rest = after;
    }
    let mut text = String::new();
    for part in parts.iter().flat_map(|part| part.chunks(40)) {
        writeln!(text, "{}", id::hex(part)).unwrap();
    }
    text
}

fn example<T: PartialEq + 'static>(
    (name, target): (&'static str, &'static str),
    value: T,
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Option<T> + 'static,
) -> Example {
    Example {
        name,
        target,
        encoded: encode(&value),
        is_exact: true,
        is_right: Box::new(move |bytes| decode(bytes).as_ref() == Some(&value)),
    }
}

fn examples() -> Vec<Example> {
    let mut examples = Vec::new();
    examples.extend(configs());
    examples.extend(key_slots());
    examples.extend(containers());
    examples.push(pack_table());
    examples.extend(lists());
    examples.extend([stream_reference(), scattered_chunk(), databases()]);
    examples.extend(tree_nodes());
    let decode = |bytes: &[u8]| Manifest::decode(bytes).ok();
    let name = ("manifest", "manifest");
    examples.push(example(name, manifest(), Manifest::encode, decode));
    let decode = |bytes: &[u8]| Entry::decode(&MANIFEST_KEY, bytes).ok();
    let name = ("entry", "entry");
    examples.push(example(name, log_entry(), Entry::encode, decode));
    let decode = |bytes: &[u8]| {
        let state = State::decode(&MANIFEST_KEY, bytes).ok()?;
        let read = Read::default();
        Some(State { read, ..state })
    };
    let name = ("checkpoint", "checkpoint");
    examples.push(example(name, checkpoint(), State::encode, decode));
    for (name, note) in notes() {
        let decode = |bytes: &[u8]| Note::decode(bytes).ok();
        examples.push(example((name, "note"), note, Note::encode, decode));
    }
    examples
}

fn plain_config() -> Config {
    Config {
        repo: RepoId([7; 16]),
        created_at: Timestamp(5),
        suite: Suite::Plain,
        public_secret: Some([1; 32]),
    }
}

fn encrypted_config() -> Config {
    Config {
        created_at: Timestamp(-1),
        suite: Suite::Aes256Gcm,
        public_secret: None,
        ..plain_config()
    }
}

fn configs() -> [Example; 2] {
    let decode = |bytes: &[u8]| Config::decode(bytes).ok();
    [
        ("config-plain", plain_config()),
        ("config-encrypted", encrypted_config()),
    ]
    .map(|(name, config)| example((name, "config"), config, Config::encode, decode))
}

fn key_slots() -> [Example; 2] {
    let config: &'static [u8] = encrypted_config().encode().leak();
    let binding = Binding {
        config,
        suite: Suite::Aes256Gcm,
    };
    let keyring = || Keyring {
        id_secret: [1; 32],
        generations: vec![(1, [2; 32]), (2, [3; 32])],
    };
    let secret = || Credential::Secret([5; 32].into());
    let passphrase = || Credential::Passphrase(b"correct".to_vec().into());
    let slow = Derivation::Passphrase {
        memory_kib: 64,
        passes: 1,
    };
    let credentials: [(_, fn() -> Credential, _); 2] = [
        ("key-secret", secret, Derivation::Secret),
        ("key-passphrase", passphrase, slow),
    ];
    credentials.map(|(name, credential, derivation)| {
        let label = ("desk".to_string(), Timestamp(9));
        let slot = Slot::seal(
            &keyring(),
            &credential(),
            derivation,
            label,
            [4; 32],
            binding,
        );
        let opens = move |bytes: &[u8]| {
            let slot = Slot::decode(bytes).ok()?;
            let opened = slot.unseal(&credential(), binding).ok()??;
            (opened == keyring()).then_some(slot)
        };
        example((name, "key_slot"), slot.unwrap(), Slot::encode, opens)
    })
}

fn containers() -> [Example; 2] {
    let plain_keys = DataKeys::new(Suite::Plain, vec![(1, [1; 32])]).unwrap();
    let generations = vec![(1, [1; 32]), (2, [2; 32])];
    let aes_keys = DataKeys::new(Suite::Aes256Gcm, generations).unwrap();
    [
        (
            "container-plain",
            plain_keys,
            ObjectKind::Slot,
            log_entry().encode(),
        ),
        (
            "container-aes",
            aes_keys,
            ObjectKind::Pack,
            b"hello".to_vec(),
        ),
    ]
    .map(|(name, keys, kind, plain)| {
        let seal_keys = keys.clone();
        let seal = move |plain: &Vec<u8>| container::seal(&seal_keys, kind, [9; 24], plain);
        let unseal = move |bytes: &[u8]| container::unseal(&keys, kind, bytes).ok();
        example((name, "container"), plain, seal, unseal)
    })
}

fn pack_table() -> Example {
    let encoding = |codec, kind, run_head| Encoding {
        codec,
        kind,
        run_head,
    };
    let rows = vec![
        Row {
            id: ChunkId([2; 32]),
            encoding: encoding(Codec::Raw, ChunkKind::Data, false),
            height: 0,
            plain_bytes: 9,
            stored_bytes: 9,
            bases: vec![],
        },
        Row {
            id: ChunkId([3; 32]),
            encoding: encoding(Codec::Zstd, ChunkKind::List, false),
            height: 0,
            plain_bytes: 300,
            stored_bytes: 40,
            bases: vec![],
        },
        Row {
            id: ChunkId([1; 32]),
            encoding: encoding(Codec::Delta, ChunkKind::Tree, true),
            height: 3,
            plain_bytes: 300_000,
            stored_bytes: 77,
            bases: vec![[2; 8], [6; 8]],
        },
    ];
    let decode = |bytes: &[u8]| {
        let tail = bytes.last_chunk().unwrap();
        let table_bytes = pack::table_bytes(tail, 126 + bytes.len() as u64).ok()?;
        assert_eq!(table_bytes, bytes.len() as u64);
        pack::decode_table(bytes).ok()
    };
    let name = ("pack-table", "pack_table");
    Example {
        is_exact: false,
        ..example(name, rows, |rows| pack::encode_table(rows), decode)
    }
}

fn lists() -> [Example; 3] {
    let child = |plain_bytes, id| Child {
        plain_bytes,
        id,
        mark: 0,
    };
    let cut = Children::Cut(vec![child(65_536, ChunkId([1; 32])), child(1 << 40, HOLE)]);
    let even = Children::Even {
        unit_bytes: 262_144,
        ids: vec![ChunkId([2; 32]), HOLE, ChunkId([3; 32])],
    };
    let marked = Children::Marked(vec![
        Child {
            mark: 7,
            ..child(70_000, ChunkId([4; 32]))
        },
        child(9, ChunkId([5; 32])),
    ]);
    let lists = [
        ("list-cut", 2, cut),
        ("list-marked", 1, marked),
        ("list-even", 1, even),
    ];
    lists.map(|(name, level, children)| {
        let node = ListNode { level, children };
        let decode = |bytes: &[u8]| ListNode::decode(bytes).ok();
        example((name, "list"), node, ListNode::encode, decode)
    })
}

fn stream_reference() -> Example {
    let stream = Stream {
        root: ChunkId([5; 32]),
        level: 1,
        flavour: Flavour::Cut,
        kind: StreamKind::Redb {
            extents_bytes: 300_000,
        },
    };
    let encode = |stream: &Stream| {
        let mut out = Vec::new();
        stream.put(&mut out);
        out
    };
    let decode = |bytes: &[u8]| {
        let mut reader = Reader::new(bytes);
        let stream = Stream::take(&mut reader).ok()?;
        reader.is_empty().then_some(stream)
    };
    example(("stream-redb", "list"), stream, encode, decode)
}

fn scattered_chunk() -> Example {
    let extent = |offset, bytes: &[u8]| (offset, bytes.to_vec());
    let extents = vec![extent(8192, b"hello"), extent(0, b"ab")];
    let encode = |extents: &Vec<(u64, Vec<u8>)>| {
        let extents: Vec<_> = extents
            .iter()
            .map(|(offset, bytes)| Extent {
                offset: *offset,
                bytes,
            })
            .collect();
        extents::encode(&extents)
    };
    let decode = |bytes: &[u8]| {
        let extents = extents::decode(bytes).ok()?.into_iter();
        Some(
            extents
                .map(|one| (one.offset, one.bytes.to_vec()))
                .collect(),
        )
    };
    example(("extents", "extents"), extents, encode, decode)
}

fn databases() -> Example {
    let records = vec![
        DatabaseRecord {
            path: b"data/history.db".to_vec(),
            captured_at: Timestamp(5),
            duration_us: 1500,
            page_bytes: 4096,
            pages: 70,
            version: 3_051_003,
            user_version: 7,
            wal: true,
            verdict: Verdict::Passed,
            ..DatabaseRecord::default()
        },
        DatabaseRecord {
            path: b"data/state.redb".to_vec(),
            engine: Engine::Redb,
            method: Method::Walk,
            captured_at: Timestamp(6),
            duration_us: 9,
            skew_us: 12,
            page_bytes: 4096,
            pages: 300,
            version: 3,
            ..DatabaseRecord::default()
        },
    ];
    let decode = |bytes: &[u8]| database::decode(bytes).ok();
    let name = ("databases", "databases");
    example(name, records, |records| database::encode(records), decode)
}

fn tree_nodes() -> [Example; 2] {
    let inner = Inner {
        level: 1,
        children: vec![
            (vec![], ChunkId([1; 32])),
            (b"a/x".to_vec(), ChunkId([2; 32])),
            (b"a-b".to_vec(), ChunkId([3; 32])),
        ],
    };
    let encode = |node: &Node| match node {
        Node::Leaf(leaf) => leaf.encode(),
        Node::Inner(inner) => inner.encode(),
    };
    [
        ("tree-inner", Node::Inner(inner)),
        ("tree-leaf", Node::Leaf(leaf())),
    ]
    .map(|(name, node)| {
        let decode = |bytes: &[u8]| Node::decode(bytes).ok();
        example((name, "tree_node"), node, encode, decode)
    })
}

fn tree_entry(path: &str, attributes: &Arc<Attributes>, kind: Kind) -> tree::Entry {
    tree::Entry {
        path: path.as_bytes().to_vec(),
        attributes: Arc::clone(attributes),
        modified: FileTime {
            seconds: if path == "a" { 100 } else { -5 },
            nanoseconds: 1,
        },
        kind,
    }
}

fn stream(size_bytes: u64, root: u8, level: u8, flavour: Flavour, kind: StreamKind) -> Kind {
    let root = ChunkId([root; 32]);
    Kind::File {
        size_bytes,
        content: Content::Stream(Stream {
            root,
            level,
            flavour,
            kind,
        }),
    }
}

fn leaf() -> Leaf {
    let plain = Arc::new(Attributes {
        mode: 0o755,
        ..Attributes::default()
    });
    let other = Arc::new(Attributes {
        mode: 0o640,
        uid: 1000,
        gid: u32::MAX,
        xattrs: vec![(b"user.a".to_vec(), vec![0, 1])],
    });
    let bundled = |size_bytes, class| Kind::File {
        size_bytes,
        content: Content::Bundled(class),
    };
    let even = Flavour::Even { unit_bytes: 4096 };
    let bundle = |id, files, class| Bundle {
        id: ChunkId([id; 32]),
        files,
        class,
    };
    let bytes = |text: &str| text.as_bytes().to_vec();
    Leaf {
        entries: vec![
            tree_entry("", &plain, Kind::Directory),
            tree_entry("a", &plain, Kind::Directory),
            tree_entry("a/.env", &other, bundled(5, Class::Secret)),
            tree_entry("a/empty", &other, bundled(0, Class::Ordinary)),
            tree_entry("a/file", &other, bundled(7, Class::Ordinary)),
            tree_entry(
                "a-big",
                &plain,
                stream(1 << 40, 0x13, 2, Flavour::Cut, StreamKind::File),
            ),
            tree_entry(
                "a-db",
                &plain,
                stream(8192, 0x14, 1, even, StreamKind::Sqlite),
            ),
            tree_entry(
                "b",
                &plain,
                Kind::Symlink {
                    target: bytes("../../etc"),
                },
            ),
            tree_entry(
                "c",
                &plain,
                Kind::HardLink {
                    path: bytes("a-big"),
                },
            ),
            tree_entry("d", &plain, Kind::Fifo),
            tree_entry("e", &plain, Kind::Socket),
            tree_entry("f", &plain, Kind::CharDevice { major: 1, minor: 3 }),
            tree_entry("g", &plain, Kind::BlockDevice { major: 8, minor: 1 }),
        ],
        bundles: vec![
            bundle(0x11, 2, Class::Ordinary),
            bundle(0x12, 1, Class::Secret),
        ],
    }
}

fn manifest() -> Manifest {
    Manifest {
        started_at: Timestamp(1_763_600_000_000_000_001),
        duration_ms: 12,
        host: "nas1".into(),
        profile: "homecore".into(),
        scope: "agents".into(),
        root_path: b"/opt/homecore".to_vec(),
        included: vec![b"rules".to_vec(), b"data".to_vec()],
        rules: Rules {
            taken: Some(vec!["rules/**".into()]),
            exclude: vec!["*.tmp".into()],
            secrets: vec![".env".into()],
            one_file_system: true,
            skip_cache_dirs: true,
        },
        partial: true,
        tree: TreeRoot {
            id: ChunkId([7; 32]),
            level: 2,
        },
        databases: Some(ChunkId([9; 32])),
        parent: Some(SnapshotId([8; 32])),
        without: Some([10; 16]),
        figures: Figures {
            files: 3,
            directories: 1,
            warnings: 9,
            ..Figures::default()
        },
        tags: vec!["before-upgrade".into(), "ü".into()],
        program: "statekeep 0.1.0".into(),
        app_version: "2.4.1".into(),
    }
}

/// A manifest of two fields, to keep what holds it short.
fn added_snapshot() -> AddedSnapshot {
    let mut manifest = Vec::new();
    let tree = TreeRoot {
        id: ChunkId([7; 32]),
        level: 0,
    };
    statekeep::format::wire::put_field(&mut manifest, 1, &tree.encode());
    statekeep::format::wire::put_field(&mut manifest, 2, &0_i64.to_le_bytes());
    assert_eq!(Manifest::decode(&manifest).unwrap().tree, tree);
    AddedSnapshot::new(&MANIFEST_KEY, manifest)
}

fn log_entry() -> Entry {
    Entry {
        previous: SlotHash([1; 32]),
        writer: WriterId([2; 16]),
        written_at: Timestamp(-3),
        change: Change {
            remove_snapshots: vec![SnapshotId([4; 32]), SnapshotId([5; 32])],
            add_snapshots: vec![added_snapshot()],
            add_packs: vec![AddedPack {
                id: PackId([6; 32]),
                bytes: PackBytes {
                    stored_bytes: 1 << 40,
                    table_bytes: 7,
                },
            }],
            drop_packs: vec![PackId([8; 32])],
            gone_packs: vec![PackId([9; 32])],
            notes: vec![Note::Tag(SnapshotId([10; 32]), "weekly".into())],
        },
    }
}

fn checkpoint() -> State {
    let mut state = State {
        position: 2,
        recent: vec![SlotHash([1; 32]), SlotHash([2; 32])],
        ..State::default()
    };
    let added = added_snapshot();
    state.snapshots.insert(added.id, added.manifest);
    let bytes = PackBytes {
        stored_bytes: 1000,
        table_bytes: 10,
    };
    state.packs.insert(PackId([3; 32]), bytes);
    state.dropped.insert(PackId([4; 32]), Timestamp(-5));
    let tag = Note::Tag(SnapshotId([10; 32]), "weekly".into());
    state.notes.apply(&tag);
    state.notes.apply(&Note::Unknown(1000, vec![1]));
    state
}

fn notes() -> [(&'static str, Note); 16] {
    let lost = Lost {
        packs: [PackId([2; 32])].into(),
        chunks: [ChunkId([3; 32]), ChunkId([4; 32])].into(),
    };
    let proof = Proof {
        at: Timestamp(6),
        result: "ok".into(),
    };
    let figures = RepoFigures {
        needed_bytes: 7,
        unneeded_bytes: 8,
        records: 9,
    };
    let export = Export {
        at: Timestamp(7),
        sha256: Sha256Sum([5; 32]),
        archive_bytes: 300,
        name: "app.tar.gz".into(),
    };
    let until = HoldUntil::Time(Timestamp(5));
    let loss = Loss {
        count: 3,
        paths: vec![b"a/b".to_vec()],
    };
    let name = SeriesName {
        host: "nas1".into(),
        profile: "homecore".into(),
        root_path: b"/opt".to_vec(),
    };
    let span = Span {
        last_day: 20_002,
        backups: 3,
        total_bytes: 1000,
        read_bytes: 500,
        new_bytes: 100,
        stored_bytes: 50,
    };
    [
        ("note-tag", Note::Tag(SNAPSHOT, "before-upgrade".into())),
        ("note-untag", Note::Untag(SNAPSHOT, "ü".into())),
        ("note-hold", Note::Hold(SNAPSHOT, HoldUntil::Released)),
        ("note-hold-until", Note::Hold(SNAPSHOT, until)),
        ("note-release", Note::Release(SNAPSHOT)),
        ("note-proof", Note::Proof(SNAPSHOT, proof)),
        ("note-damage", Note::Damage(lost.clone())),
        ("note-healed", Note::Healed(lost)),
        ("note-figures", Note::Figures(figures)),
        ("note-loss", Note::Loss(SNAPSHOT, loss)),
        ("note-history", Note::History(name, [(20_000, span)].into())),
        (
            "note-replaced",
            Note::Replaced(
                SNAPSHOT,
                Replaced {
                    at: Timestamp(6),
                    by: SnapshotId([5; 32]),
                    only: vec!["/data/*.db".into(), "ü".into()],
                },
            ),
        ),
        ("note-export", Note::Export(SNAPSHOT, export)),
        ("note-import", Note::Import(SNAPSHOT, Sha256Sum([6; 32]))),
        (
            "note-copied",
            Note::Copied(
                SNAPSHOT,
                CopiedFrom {
                    repo: RepoId([7; 16]),
                    snapshot: SnapshotId([8; 32]),
                },
            ),
        ),
        (
            "note-unknown",
            Note::Unknown(1000, b"from the future".to_vec()),
        ),
    ]
}
