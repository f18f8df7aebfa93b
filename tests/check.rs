//! Checks repositories that were damaged, or forged, by hand.

use crate::bench_repo::BenchRepo;
use crate::bench_repo::Part;
use crate::bench_repo::dir;
use crate::bench_repo::large;
use crate::bench_repo::noise;
use crate::bench_repo::small;
use statekeep::codec::zstd::Encoder;
use statekeep::error::Error;
use statekeep::error::Result;
use statekeep::format::container::ObjectKind;
use statekeep::format::container::Sealer;
use statekeep::format::entry::PackBytes;
use statekeep::format::list::Child;
use statekeep::format::list::Children;
use statekeep::format::list::ListNode;
use statekeep::format::manifest::Manifest;
use statekeep::format::pack::ChunkKind;
use statekeep::format::pack::Codec;
use statekeep::format::pack::Encoding;
use statekeep::format::pack::Row;
use statekeep::format::pack::encode_table;
use statekeep::format::tree::Content;
use statekeep::format::tree::Kind;
use statekeep::format::tree::Leaf;
use statekeep::id::ChunkId;
use statekeep::id::PackId;
use statekeep::id::SnapshotId;
use statekeep::ops::check::CheckReport;
use statekeep::ops::check::ReadData;
use statekeep::ops::check::check;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::repo::chunks::Scratch;
use statekeep::store::FaultyStore;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::Listed;
use statekeep::store::MemoryStore;
use statekeep::store::Method;
use statekeep::store::Put;
use statekeep::store::Store;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

type Snapshots = Vec<(SnapshotId, Manifest)>;

fn run(repo: &BenchRepo, snapshots: &Snapshots, read_data: ReadData) -> CheckReport {
    check(&repo.cx, repo.repo, &repo.packs(), snapshots, read_data).unwrap()
}

/// Two snapshots that share everything but `a` and `only-new`.
fn two_snapshots(repo: &BenchRepo) -> Snapshots {
    let mut shared = vec![dir(""), dir("d")];
    for number in 0..20 {
        shared.push(small(format!("d/{number:02}"), noise(1000, number)));
    }
    shared.push(large(
        "z",
        vec![Part::Bytes(noise(1 << 20, 77)), Part::Hole(1 << 20)],
    ));
    let (mut old, mut new) = (shared.clone(), shared);
    old.push(large("a", vec![Part::Bytes(noise(700_000, 1))]));
    new.push(large("a", vec![Part::Bytes(noise(700_000, 2))]));
    new.push(small("y/only-new", "new"));
    let manifests = [repo.snapshot(old), repo.snapshot(new)];
    manifests
        .map(|manifest| (repo.id(&manifest), manifest))
        .to_vec()
}

fn leaf_of(repo: &BenchRepo, manifest: &Manifest, path: &str) -> (Leaf, usize) {
    let found = statekeep::ops::inspect::find_entry(&repo.chunks, manifest, path.as_bytes());
    let (at, index) = found.unwrap().unwrap();
    (at.leaf, index)
}

fn stream_root(repo: &BenchRepo, manifest: &Manifest, path: &str) -> ChunkId {
    let (leaf, index) = leaf_of(repo, manifest, path);
    match &leaf.entries[index].kind {
        Kind::File {
            content: Content::Stream(stream),
            ..
        } => stream.root,
        other => panic!("{other:?}"),
    }
}

fn first_chunk(repo: &BenchRepo, manifest: &Manifest, path: &str) -> ChunkId {
    let root = stream_root(repo, manifest, path);
    let bytes = repo
        .chunks
        .read(&mut Scratch::default(), ChunkKind::List, &root)
        .unwrap();
    match ListNode::decode(&bytes).unwrap().children {
        Children::Cut(children) => children[0].id,
        other => panic!("{other:?}"),
    }
}

fn bundle_of(repo: &BenchRepo, manifest: &Manifest, path: &str) -> ChunkId {
    let (leaf, index) = leaf_of(repo, manifest, path);
    leaf.bundles[leaf.places()[index].unwrap().bundle].id
}

fn pack_of(repo: &BenchRepo, chunk: &ChunkId) -> PackId {
    repo.chunks.find(chunk)[0].pack
}

fn replace(store: &MemoryStore, pack: &PackId, bytes: Option<&[u8]>) -> Vec<u8> {
    let key = Key::pack(pack);
    let before = store.get(&key).unwrap().unwrap_or_default();
    store.delete(&key).unwrap();
    if let Some(bytes) = bytes {
        assert_eq!(store.put_new(&key, bytes).unwrap(), Put::Created);
    }
    before
}

#[test]
fn a_sound_repository_is_clean_and_nothing_is_written() {
    let repo = BenchRepo::new();
    let snapshots = two_snapshots(&repo);
    repo.store
        .put_new(&Key::pack(&PackId([9; 32])), b"of a running backup")
        .unwrap();
    let store = Arc::new(FaultyStore::new(repo.store.clone()));
    let counted = Repo::open(store.clone(), &[], None).unwrap();

    for (read_data, read) in [
        (ReadData::No, 0),
        (ReadData::Percent(10.0), 1),
        (ReadData::All, repo.packs().len()),
    ] {
        let report = check(&repo.cx, &counted, &repo.packs(), &snapshots, read_data).unwrap();

        assert!(report.is_clean(), "{:?}", report.problems);
        assert_eq!(report.packs, repo.packs().len() as u64);
        assert!(report.read_packs >= read as u64 && (read > 0) == (report.read_records > 0));
        assert_eq!((report.snapshots, report.orphans.count), (2, 1));
        assert_eq!(report.lists, 3, "shared nodes are read once");
    }
    let writes = [Method::PutNew, Method::Delete, Method::Sync];
    assert_eq!(writes.map(|method| store.calls(method)), [0; 3]);
}

/// What is done to a pack.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Delete,
    Truncate,
    FlipMagic,
    FlipVersion,
    FlipSalt,
    FlipRecords,
    FlipTable,
    FlipTail,
    Swap,
}

const HARMS: [Harm; 9] = [
    Harm::Delete,
    Harm::Truncate,
    Harm::FlipMagic,
    Harm::FlipVersion,
    Harm::FlipSalt,
    Harm::FlipRecords,
    Harm::FlipTable,
    Harm::FlipTail,
    Harm::Swap,
];

impl Harm {
    fn applied(self, bytes: &[u8], pack: &PackBytes, other: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = bytes.to_vec();
        let at = match self {
            Harm::Delete => return None,
            Harm::Truncate => {
                bytes.truncate(bytes.len() - 1);
                return Some(bytes);
            }
            Harm::Swap => return Some(other.to_vec()),
            Harm::FlipMagic => 3,
            Harm::FlipVersion => 9,
            Harm::FlipSalt => 20,
            Harm::FlipRecords => 70,
            Harm::FlipTable => bytes.len() - 16 - pack.table_bytes as usize,
            Harm::FlipTail => bytes.len() - 20,
        };
        bytes[at] ^= 0x10;
        Some(bytes)
    }
}

/// A pack to be harmed, and what that concerns.
struct Victim {
    what: &'static str,
    pack: PackId,
    snapshots: Vec<SnapshotId>,
    path: &'static str,
}

fn victims(repo: &BenchRepo, snapshots: &Snapshots) -> Vec<Victim> {
    let (old, new) = (&snapshots[0].1, &snapshots[1].1);
    let mut both = vec![snapshots[0].0, snapshots[1].0];
    both.sort();
    let first = vec![snapshots[0].0];
    let second = vec![snapshots[1].0];
    let victim = |what, chunk: ChunkId, snapshots: &Vec<SnapshotId>, path| Victim {
        what,
        pack: pack_of(repo, &chunk),
        snapshots: snapshots.clone(),
        path,
    };
    vec![
        victim("data", first_chunk(repo, old, "a"), &first, "a"),
        victim("data", first_chunk(repo, new, "z"), &both, "z"),
        victim("list", stream_root(repo, new, "a"), &second, "a"),
        victim(
            "data",
            bundle_of(repo, new, "y/only-new"),
            &second,
            "y/only-new",
        ),
        victim("data", bundle_of(repo, old, "d/05"), &both, "d/05"),
        victim("tree", new.tree.id, &second, ""),
    ]
}

#[test]
fn any_harm_to_any_pack_is_detected_and_attributed() {
    let repo = BenchRepo::new();
    let snapshots = two_snapshots(&repo);
    let other = pack_of(&repo, &first_chunk(&repo, &snapshots[1].1, "a"));
    let other = repo.store.get(&Key::pack(&other)).unwrap().unwrap();
    for victim in victims(&repo, &snapshots) {
        for harm in HARMS {
            let good = repo.store.get(&Key::pack(&victim.pack)).unwrap().unwrap();
            let bytes = repo.packs()[&victim.pack];
            let bad = harm.applied(&good, &bytes, &other);
            replace(&repo.store, &victim.pack, bad.as_deref());

            let quick = run(&repo, &snapshots, ReadData::No);
            let full = run(&repo, &snapshots, ReadData::All);
            replace(&repo.store, &victim.pack, Some(&good));

            assert_found(&full, &victim, harm);
            let is_small = bytes.stored_bytes < 65_536;
            match harm {
                // Who swaps packs of one length is found out by what is lost.
                Harm::Swap if bytes.stored_bytes == other.len() as u64 => {
                    assert!(!quick.is_clean());
                }
                // Only reading finds this, unless the table is in the same segment.
                Harm::FlipRecords if victim.what == "data" && !is_small => {
                    assert!(quick.is_clean());
                }
                _ => assert_found(&quick, &victim, harm),
            }
        }
    }
}

fn assert_found(report: &CheckReport, victim: &Victim, harm: Harm) {
    let what = format!("{} {harm:?} {:?}", victim.what, report.problems);
    assert_eq!(report.problems.len(), 1, "{what}");
    let problem = &report.problems[0];
    assert_eq!(problem.object, format!("packs/{}", victim.pack), "{what}");
    assert_eq!(problem.snapshots, victim.snapshots, "{what}");
    let path = victim.path.as_bytes().to_vec();
    assert!(problem.paths.sample.contains(&path), "{what}");
    assert!(problem.paths.count > 0 && !problem.message.is_empty());
}

#[test]
fn packs_of_one_length_that_changed_places_are_told_by_their_hashes() {
    let repo = BenchRepo::new();
    let old = vec![dir(""), large("a", vec![Part::Bytes(noise(300_000, 1))])];
    let new = vec![dir(""), large("a", vec![Part::Bytes(noise(300_000, 2))])];
    let manifests = [repo.snapshot(old), repo.snapshot(new)];
    let packs = [0, 1].map(|i| pack_of(&repo, &first_chunk(&repo, &manifests[i], "a")));
    let snapshots: Snapshots = manifests
        .map(|manifest| (repo.id(&manifest), manifest))
        .to_vec();
    let objects = packs.map(|pack| repo.store.get(&Key::pack(&pack)).unwrap().unwrap());
    assert_eq!(objects[0].len(), objects[1].len());
    replace(&repo.store, &packs[0], Some(&objects[1]));
    replace(&repo.store, &packs[1], Some(&objects[0]));

    let report = run(&repo, &snapshots, ReadData::All);

    let mut named: Vec<_> = report
        .problems
        .iter()
        .map(|one| one.object.clone())
        .collect();
    let mut wanted = packs.map(|pack| format!("packs/{pack}"));
    named.sort();
    wanted.sort();
    assert_eq!(named, wanted);
    // Every chunk is still somewhere.
    assert!(report.problems.iter().all(|one| one.snapshots.is_empty()));
}

#[test]
fn several_lost_packs_are_all_reported_and_the_rest_can_be_opened() {
    let repo = BenchRepo::new();
    let snapshots = two_snapshots(&repo);
    let (old, new) = (&snapshots[0].1, &snapshots[1].1);
    let lost = [
        pack_of(&repo, &first_chunk(&repo, old, "a")),
        pack_of(&repo, &bundle_of(&repo, new, "y/only-new")),
    ];
    lost.iter()
        .for_each(|pack| drop(replace(&repo.store, pack, None)));

    let report = run(&repo, &snapshots, ReadData::No);

    let named: Vec<_> = report.problems.iter().map(|one| &one.object[..]).collect();
    assert_eq!(report.problems.len(), 3, "{named:?}");
    for pack in lost {
        assert!(named.contains(&&format!("packs/{pack}")[..]), "{named:?}");
    }
    let chunks = report
        .problems
        .iter()
        .find(|one| one.object == "chunks")
        .unwrap();
    assert_eq!(chunks.snapshots.len(), 2);
    let mut paths = chunks.paths.sample.clone();
    paths.sort();
    assert_eq!(paths, [&b"a"[..], b"d/18", b"d/19", b"y/only-new"]);
    let chunks = Chunks::open(repo.repo, &repo.packs()).unwrap();
    assert_eq!(chunks.unreadable_packs().len(), 2);
    let mut out = Vec::new();
    statekeep::ops::inspect::cat(
        &repo.cx,
        &chunks,
        new,
        b"z",
        std::path::Path::new("/tmp"),
        &mut out,
    )
    .unwrap();
    assert_eq!(out.len(), 2 << 20);
}

#[test]
fn a_delta_is_lost_with_its_base() {
    let repo = BenchRepo::new();
    let base_bytes = noise(400_000, 5);
    let mut changed = base_bytes.clone();
    changed[1000] ^= 1;
    let base = repo.pack(|put| put(ChunkKind::Data, &base_bytes, None));
    repo.pack(|put| put(ChunkKind::Data, &changed, Some(&base)));
    let manifest = repo.snapshot(vec![dir(""), large("delta", vec![Part::Bytes(changed)])]);
    assert_eq!(
        repo.chunks.find(&first_chunk(&repo, &manifest, "delta"))[0].height,
        1
    );
    let snapshots = vec![(repo.id(&manifest), manifest)];
    let pack = pack_of(&repo, &base);
    let good = replace(&repo.store, &pack, None);

    let gone = run(&repo, &snapshots, ReadData::No);
    let mut bad = good.clone();
    bad[500] ^= 1;
    replace(&repo.store, &pack, Some(&bad));
    let flipped = run(&repo, &snapshots, ReadData::All);

    for report in [gone, flipped] {
        assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
        assert_eq!(report.problems[0].object, format!("packs/{pack}"));
        assert_eq!(report.problems[0].snapshots, [snapshots[0].0]);
        assert_eq!(report.problems[0].paths.sample, [b"delta"]);
    }
}

/// Seals a pack with whatever rows.
fn forge(repo: &BenchRepo, rows: &[Row], records: &[Vec<u8>]) -> PackId {
    let keys = repo.repo.secrets().data_keys();
    let mut sealer = Sealer::begin(keys, ObjectKind::Pack, [rows.len() as u8; 24], 0);
    records.iter().for_each(|record| sealer.push(record));
    let table = encode_table(rows);
    sealer.push(&table);
    let object = sealer.finish();
    let id = PackId(*blake3::hash(&object).as_bytes());
    let bytes = PackBytes {
        stored_bytes: object.len() as u64,
        table_bytes: table.len() as u64,
    };
    repo.add_pack(&id, &object, bytes);
    id
}

fn delta(repo: &BenchRepo, plain: &[u8], base: &[u8], height: u8) -> (Row, Vec<u8>) {
    let id = |plain: &[u8]| repo.repo.secrets().chunk_id(ChunkKind::Data, plain);
    let record = Encoder::new(3).delta(plain, base).to_vec();
    let row = Row {
        id: id(plain),
        encoding: Encoding {
            codec: Codec::Delta,
            kind: ChunkKind::Data,
            run_head: false,
        },
        height,
        plain_bytes: plain.len() as u32,
        stored_bytes: record.len() as u32,
        bases: vec![id(base).0[..8].try_into().unwrap()],
    };
    (row, record)
}

#[test]
fn heights_that_do_not_fall_are_refused() {
    let (x, y) = (noise(1000, 1), noise(1000, 2));
    // Two chunks that lean on each other, and one that claims to be no higher than its base.
    // Who leans on one of them cannot be read either.
    for (heights, lost) in [((1, 1), 2), ((2, 1), 1), ((1, 2), 1)] {
        let repo = BenchRepo::new();
        let (row_x, record_x) = delta(&repo, &x, &y, heights.0);
        let (row_y, record_y) = delta(&repo, &y, &x, heights.1);
        let ids = [row_x.id, row_y.id];
        forge(&repo, &[row_x, row_y], &[record_x, record_y]);
        let snapshots = ids.map(|id| {
            let mut leaf = repo.leaf(&[dir(""), small("f", noise(1000, 3))]);
            leaf.bundles[0].id = id;
            let manifest = repo.tree(&[leaf]);
            (repo.id(&manifest), manifest)
        });

        let unneeded = run(&repo, &Vec::new(), ReadData::No);
        let report = run(&repo, &snapshots.to_vec(), ReadData::No);
        let chunks = repo.reopen();

        // A prune may leave such a record behind, when its base goes and comes back higher up.
        assert!(unneeded.is_clean(), "{:?}", unneeded.problems);
        assert_eq!(unneeded.broken_records, lost);
        let hurt = report
            .problems
            .iter()
            .flat_map(|problem| &problem.snapshots);
        let hurt: BTreeSet<SnapshotId> = hurt.copied().collect();
        assert_eq!(hurt.len(), 2, "{:?}", report.problems);
        for id in ids {
            let read = chunks.read(&mut Scratch::default(), ChunkKind::Data, &id);
            let refused = matches!(read, Err(Error::Missing { .. } | Error::Corrupt { .. }));
            assert!(refused, "{read:?}");
        }
    }
}

#[test]
fn lengths_that_do_not_agree_are_found() {
    let repo = BenchRepo::new();
    let nodes = [dir(""), small("a", "four"), small("b", "and five")];
    let mut leaf = repo.leaf(&nodes);
    leaf.bundles[0].id = repo.pack(|put| put(ChunkKind::Data, b"too short", None));
    let short_bundle = repo.tree(&[leaf]);
    let mut leaf = repo.leaf(&[dir(""), large("l", vec![Part::Bytes(noise(300_000, 3))])]);
    if let Kind::File { size_bytes, .. } = &mut leaf.entries[1].kind {
        *size_bytes += 1;
    }
    let long_file = repo.tree(&[leaf]);
    let mut leaf = repo.leaf(&[dir(""), large("m", vec![Part::Bytes(noise(300_000, 4))])]);
    let id = repo.pack(|put| put(ChunkKind::Data, b"not 300,000 bytes", None));
    let child = Child {
        mark: 0,
        plain_bytes: 300_000,
        id,
    };
    let node = ListNode {
        level: 1,
        children: Children::Cut(vec![child]),
    };
    let list = repo.pack(|put| put(ChunkKind::List, &node.encode(), None));
    if let Kind::File {
        content: Content::Stream(stream),
        ..
    } = &mut leaf.entries[1].kind
    {
        stream.root = list;
    }
    let short_chunk = repo.tree(&[leaf]);
    // Leaves in the wrong order.
    let leaves = [
        repo.leaf(&[dir(""), small("b", "b")]),
        repo.leaf(&[small("a", "a")]),
    ];
    let ids = leaves
        .each_ref()
        .map(|leaf| repo.pack(|put| put(ChunkKind::Tree, &leaf.encode(), None)));
    let children = vec![(Vec::new(), ids[0]), (b"aa".to_vec(), ids[1])];
    let inner = statekeep::format::tree::Inner { level: 1, children };
    let mut disorder = short_chunk.clone();
    disorder.tree.id = repo.pack(|put| put(ChunkKind::Tree, &inner.encode(), None));
    disorder.tree.level = 1;

    for (manifest, paths, object) in [
        (short_bundle, vec!["a", "b"], "chunk"),
        (long_file, vec!["l"], "list"),
        (short_chunk, vec!["m"], "chunk"),
        (disorder, vec!["", "aa"], "tree node"),
    ] {
        let snapshots = vec![(repo.id(&manifest), manifest)];
        let report = run(&repo, &snapshots, ReadData::No);

        assert!(!report.is_clean());
        let mut found = Vec::new();
        for problem in &report.problems {
            assert!(problem.object.starts_with(object), "{problem:?}");
            assert_eq!(problem.snapshots, [snapshots[0].0]);
            found.extend(problem.paths.sample.clone());
        }
        found.sort();
        assert_eq!(
            found,
            paths.iter().map(|path| path.as_bytes()).collect::<Vec<_>>()
        );
    }
}

/// A store whose listings lack everything.
struct Forgetful(Arc<MemoryStore>);

impl Store for Forgetful {
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<Put> {
        self.0.put_new(key, bytes)
    }
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        self.0.get(key)
    }
    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        self.0.get_range(key, range)
    }
    fn stored_bytes(&self, key: &Key) -> Result<Option<u64>> {
        self.0.stored_bytes(key)
    }
    fn list(&self, _: Folder) -> Result<Vec<Listed>> {
        Ok(Vec::new())
    }
    fn delete(&self, key: &Key) -> Result<()> {
        self.0.delete(key)
    }
    fn sync(&self, folder: Folder) -> Result<()> {
        self.0.sync(folder)
    }
    fn location(&self) -> String {
        self.0.location()
    }
}

#[test]
fn a_listing_that_lacks_a_pack_is_not_believed() {
    let repo = BenchRepo::new();
    let snapshots = two_snapshots(&repo);
    let store = Arc::new(Forgetful(repo.store.clone()));
    let forgetful = Repo::open(store, &[], None).unwrap();

    let report = check(
        &repo.cx,
        &forgetful,
        &repo.packs(),
        &snapshots,
        ReadData::No,
    )
    .unwrap();

    assert!(report.is_clean(), "{:?}", report.problems);
}

#[test]
fn a_cancelled_check_stops() {
    let mut repo = BenchRepo::new();
    let snapshots = two_snapshots(&repo);
    repo.cx.cancel = Arc::new(true.into());

    let result = check(
        &repo.cx,
        repo.repo,
        &repo.packs(),
        &snapshots,
        ReadData::All,
    );

    assert!(matches!(result, Err(Error::Cancelled)));
}
