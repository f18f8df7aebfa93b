//! Files whose chunks lie anywhere in them: restored, shown, compared, checked, and forged.

use crate::bench_repo::BenchRepo;
use crate::bench_repo::New;
use crate::bench_repo::dir;
use crate::bench_repo::hard_link;
use crate::bench_repo::noise;
use crate::bench_repo::other;
use crate::bench_repo::small;
use statekeep::error::Error;
use statekeep::error::Result;
use statekeep::format::database;
use statekeep::format::database::DatabaseRecord;
use statekeep::format::extents;
use statekeep::format::extents::Extent;
use statekeep::format::list::Child;
use statekeep::format::list::Children;
use statekeep::format::list::Flavour;
use statekeep::format::list::HOLE;
use statekeep::format::list::ListNode;
use statekeep::format::list::Stream;
use statekeep::format::list::StreamKind;
use statekeep::format::manifest::Manifest;
use statekeep::format::pack::ChunkKind;
use statekeep::format::tree::Content;
use statekeep::format::tree::Kind;
use statekeep::id::ChunkId;
use statekeep::ops::check::CheckReport;
use statekeep::ops::check::ReadData;
use statekeep::ops::check::check;
use statekeep::ops::inspect;
use statekeep::ops::restore;
use statekeep::ops::restore::Compare;
use statekeep::ops::restore::Replace;
use statekeep::ops::restore::RestoreOptions;
use statekeep::ops::restore::RestoreReport;
use statekeep::ops::restore::Sparse;
use statekeep::store::Key;
use statekeep::store::Store;
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

type Piece = (u64, Vec<u8>);

/// Returns the plain bytes of a chunk.
fn chunk(pieces: &[Piece]) -> Vec<u8> {
    let extents: Vec<Extent<'_>> = pieces
        .iter()
        .map(|(offset, bytes)| Extent {
            offset: *offset,
            bytes,
        })
        .collect();
    extents::encode(&extents)
}

/// Stores chunks and lists of two levels above them; an empty chunk is a hole of a page.
fn children(repo: &BenchRepo, chunks: &[Vec<u8>]) -> (ChunkId, u64) {
    repo.pack(|put| {
        let child = |plain: &Vec<u8>| match plain.is_empty() {
            true => Child {
                mark: 0,
                plain_bytes: 4096,
                id: HOLE,
            },
            false => Child {
                mark: 0,
                plain_bytes: plain.len() as u64,
                id: put(ChunkKind::Data, plain, None),
            },
        };
        let node = |level, children: Vec<Child>| {
            let plain_bytes = children.iter().map(|child| child.plain_bytes).sum();
            let children = Children::Cut(children);
            let node = ListNode { level, children }.encode();
            let id = put(ChunkKind::List, &node, None);
            Child {
                plain_bytes,
                id,
                mark: 0,
            }
        };
        let lists: Vec<Child> = chunks
            .chunks(5)
            .map(|part| node(1, part.iter().map(child).collect()))
            .collect();
        let root = node(2, lists);
        (root.id, root.plain_bytes)
    })
}

fn kind(root: ChunkId, extents_bytes: u64, size_bytes: u64) -> Kind {
    let content = Content::Stream(Stream {
        root,
        level: 2,
        flavour: Flavour::Cut,
        kind: StreamKind::Redb { extents_bytes },
    });
    Kind::File {
        size_bytes,
        content,
    }
}

fn scattered(repo: &BenchRepo, path: &str, chunks: &[Vec<u8>], size_bytes: u64) -> New {
    let (root, extents_bytes) = children(repo, chunks);
    other(path, kind(root, extents_bytes, size_bytes))
}

const PAGES: u64 = 3000;

/// A file of pages, some short, some missing, and large ones in pieces; and its chunks, in an order
/// that has nothing to do with where things lie.
fn database() -> (Vec<u8>, Vec<Vec<u8>>) {
    let size_bytes = (PAGES * 4096 + 100) as usize;
    let mut pieces: Vec<Piece> = Vec::new();
    for page in 0..2000_u64 {
        let len = match page % 7 {
            0 => continue,
            1 => 1,
            2 => 4095,
            _ => 4096,
        };
        pieces.push((page * 4096, noise(len, page)));
    }
    pieces.push((2100 * 4096, noise(1 << 20, 9001)));
    pieces.push((2100 * 4096 + (1 << 20), noise(70_000, 9002)));
    pieces.push((2500 * 4096, vec![0; 4096]));
    pieces.push((PAGES * 4096, noise(100, 9003)));
    let mut file = vec![0; size_bytes];
    for (offset, bytes) in &pieces {
        file[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    pieces.sort_by_key(|(offset, _)| *blake3::hash(&offset.to_le_bytes()).as_bytes());
    (file, pieces.chunks(60).map(chunk).collect())
}

fn run(repo: &BenchRepo, manifest: &Manifest, options: &RestoreOptions) -> Result<RestoreReport> {
    let plan = restore::plan(&repo.cx, &repo.chunks, manifest, options)?;
    restore::apply(&repo.cx, &repo.chunks, manifest, options, &plan)
}

fn cat(repo: &BenchRepo, manifest: &Manifest, path: &str) -> (Result<u64>, Vec<u8>) {
    let temp = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    let path = path.as_bytes();
    let read = inspect::cat(
        &repo.cx,
        &repo.chunks,
        manifest,
        path,
        temp.path(),
        &mut out,
    );
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    (read, out)
}

fn check_all(repo: &BenchRepo, manifest: &Manifest, read_data: ReadData) -> CheckReport {
    let snapshots = [(repo.id(manifest), manifest.clone())];
    check(&repo.cx, repo.repo, &repo.packs(), &snapshots, read_data).unwrap()
}

fn flip(path: &Path, offset: u64) {
    let stat = fs::metadata(path).unwrap();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    file.set_modified(stat.modified().unwrap()).unwrap();
}

#[test]
fn scattered_files_round_trip() {
    let repo = BenchRepo::new();
    let (file, chunks) = database();
    let len = file.len() as u64;
    let manifest = repo.snapshot(vec![
        dir(""),
        scattered(&repo, "db", &chunks, len),
        hard_link("link", "db"),
        scattered(&repo, "none", &[], 10_000),
    ]);
    let temp = tempfile::tempdir().unwrap();
    let mut options = RestoreOptions::new(temp.path());
    for sparse in [Sparse::Holes, Sparse::Filled] {
        options.target = temp.path().join(format!("{sparse:?}"));
        options.sparse = sparse;

        let report = run(&repo, &manifest, &options).unwrap();

        assert_eq!(report.failures.count, 0, "{:?}", report.failures);
        assert_eq!(report.bytes, len + 10_000);
        assert!(fs::read(options.target.join("db")).unwrap() == file);
        assert!(fs::read(options.target.join("none")).unwrap() == [0; 10_000]);
        let taken = fs::metadata(options.target.join("db")).unwrap().blocks() * 512;
        assert_eq!(taken < len, sparse == Sparse::Holes, "{taken}");
        assert_eq!(run(&repo, &manifest, &options).unwrap().files, 0);
    }
    for name in ["db", "link"] {
        let (read, out) = cat(&repo, &manifest, name);
        assert_eq!(read.unwrap(), len);
        assert!(out == file, "{name}");
    }
    assert_eq!(cat(&repo, &manifest, "none").1, [0; 10_000]);
    for read_data in [ReadData::No, ReadData::Percent(30.0), ReadData::All] {
        let report = check_all(&repo, &manifest, read_data);
        assert!(report.is_clean(), "{:?}", report.problems);
    }
}

#[test]
fn comparing_content_finds_changes_in_extents_behind_short_ones_and_between() {
    let repo = BenchRepo::new();
    let (file, chunks) = database();
    let manifest = repo.snapshot(vec![
        dir(""),
        scattered(&repo, "db", &chunks, file.len() as u64),
    ]);
    let temp = tempfile::tempdir().unwrap();
    let mut options = RestoreOptions::new(temp.path());
    run(&repo, &manifest, &options).unwrap();
    options.compare = Compare::Content;
    options.replace = Replace::Changed;
    let path = temp.path().join("db");

    let same = run(&repo, &manifest, &options).unwrap();
    assert_eq!((same.files, same.equal), (0, 1));
    for offset in [3 * 4096, 4096 + 1, 2 * 4096 + 4095, 0, 2999 * 4096 + 7] {
        flip(&path, offset);
        let planned = restore::plan(&repo.cx, &repo.chunks, &manifest, &options).unwrap();

        let report = run(&repo, &manifest, &options).unwrap();

        assert_eq!((planned.replace.count, report.files), (1, 1), "{offset}");
        assert!(fs::read(&path).unwrap() == file);
    }
}

/// Forged files.
fn forged(repo: &BenchRepo) -> Vec<(&'static str, Kind)> {
    let page = |number: u64| (number * 4096, noise(4096, number));
    let of = |chunks: &[Vec<u8>], size_bytes| {
        let (root, extents_bytes) = children(repo, chunks);
        kind(root, extents_bytes, size_bytes)
    };
    let size = 10 * 4096;
    let good = chunk(&[page(3), page(1)]);
    let mut cut = chunk(&[page(1), page(4)]);
    cut.pop();
    let mut long = chunk(&[page(1), page(4)]);
    long.push(0);
    let (root, listed) = children(repo, &[good.clone(), chunk(&[page(7)])]);
    let over = (4096, noise(4097, 5));
    let huge = (1 << 62, vec![1]);
    vec![
        ("over each other", of(&[chunk(&[over, page(2)])], size)),
        (
            "over another chunk's",
            of(&[good.clone(), chunk(&[page(2), page(3)])], size),
        ),
        ("twice", of(&[good.clone(), good.clone()], size)),
        ("beyond the end", of(&[chunk(&[page(10)])], size)),
        ("over the end", of(&[chunk(&[page(9)])], size - 1)),
        ("far beyond", of(&[good.clone(), chunk(&[huge])], size)),
        ("not at a block", of(&[chunk(&[(512, vec![1; 10])])], size)),
        ("cut", of(&[good.clone(), cut], size)),
        ("too long", of(&[good.clone(), long], size)),
        ("no extents", of(&[noise(8192, 3)], size)),
        ("a hole", of(&[good, vec![]], size)),
        ("less than listed", kind(root, listed - 1, size)),
        ("more than listed", kind(root, listed + 1, size)),
        ("far more", kind(root, u64::MAX, size)),
        ("nothing is listed", kind(HOLE, 5, size)),
    ]
}

#[test]
fn forged_extents_are_refused_and_publish_nothing() {
    let repo = BenchRepo::new();
    for (name, kind) in forged(&repo) {
        let manifest = repo.snapshot(vec![dir(""), other("db", kind), small("good", "good")]);
        let temp = tempfile::tempdir().unwrap();
        for compare in [Compare::Stat, Compare::Content] {
            let mut options = RestoreOptions::new(temp.path().join("target"));
            options.compare = compare;

            let report = run(&repo, &manifest, &options).unwrap();

            assert_eq!(report.failures.count, 1, "{name}: {:?}", report.failures);
            let failure = &report.failures.sample[0];
            assert_eq!((&failure.path[..], failure.code), (&b"db"[..], "damaged"));
            let there = fs::read_dir(&options.target).unwrap();
            let there: Vec<_> = there.map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(there, ["good"], "{name}");
        }
        let (read, out) = cat(&repo, &manifest, "db");
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{name}");
        assert!(out.is_empty(), "{name}");
        let report = check_all(&repo, &manifest, ReadData::All);
        assert!(!report.is_clean(), "{name}");
        for problem in report.problems {
            assert_eq!(problem.paths.sample, [b"db"], "{name}");
            assert_eq!(problem.snapshots, [repo.id(&manifest)], "{name}");
        }
    }
}

#[test]
fn comparing_a_file_with_forged_extents_leaves_it_as_it_is() {
    let repo = BenchRepo::new();
    for (name, kind) in forged(&repo) {
        let manifest = repo.snapshot(vec![dir(""), other("db", kind.clone())]);
        let temp = tempfile::tempdir().unwrap();
        let Kind::File { size_bytes, .. } = kind else {
            panic!("{name}");
        };
        let before = vec![0; size_bytes as usize];
        let path = temp.path().join("db");
        fs::write(&path, &before).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 123_456_789);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
        let mut options = RestoreOptions::new(temp.path());
        options.compare = Compare::Content;
        options.replace = Replace::Changed;

        let report = run(&repo, &manifest, &options).unwrap();

        assert!(report.failures.count == 1 || report.files == 0, "{name}");
        assert!(fs::read(&path).unwrap() == before, "{name}");
    }
}

#[test]
fn a_file_that_says_it_is_enormous_takes_no_room() {
    let repo = BenchRepo::new();
    let size = 1 << 62;
    let near = (4096, vec![1; 4096]);
    let far = (size - 4096, vec![2; 4096]);
    let manifest = repo.snapshot(vec![
        dir(""),
        scattered(&repo, "db", &[chunk(&[near, far])], size),
        small("good", "good"),
    ]);
    let temp = tempfile::tempdir().unwrap();
    let options = RestoreOptions::new(temp.path().join("target"));

    let planned = restore::plan(&repo.cx, &repo.chunks, &manifest, &options).unwrap();
    let report = run(&repo, &manifest, &options).unwrap();

    assert!(!planned.has_room());
    // What a file system can do differs; none may be filled.
    match fs::metadata(options.target.join("db")) {
        Ok(stat) => assert!(stat.len() == size && stat.blocks() < 1000),
        Err(_) => assert_eq!(report.failures.count, 1, "{:?}", report.failures),
    }
    assert!(options.target.join("good").exists());
    assert!(check_all(&repo, &manifest, ReadData::All).is_clean());
}

#[test]
fn records_of_databases_are_checked_and_told_apart_from_paths() {
    let repo = BenchRepo::new();
    let tree = repo.snapshot(vec![dir(""), small("f", "f")]);
    let with = |plain: &[u8]| Manifest {
        databases: Some(repo.pack(|put| put(ChunkKind::Data, plain, None))),
        ..tree.clone()
    };
    let record = DatabaseRecord {
        path: b"f".to_vec(),
        ..DatabaseRecord::default()
    };
    let good = with(&database::encode(&[record]));
    let bad = with(b"\x01\x05garbage");
    let newer = with(&[2, 0]);
    let id = |manifest: &Manifest| manifest.databases.unwrap();

    assert!(check_all(&repo, &good, ReadData::No).is_clean());
    for (manifest, object) in [
        (&bad, format!("chunk {}", id(&bad))),
        (&newer, format!("chunk {}", id(&newer))),
    ] {
        let snapshots = [
            (repo.id(&good), good.clone()),
            (repo.id(manifest), manifest.clone()),
        ];
        let report = check(&repo.cx, repo.repo, &repo.packs(), &snapshots, ReadData::No).unwrap();

        assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
        let problem = &report.problems[0];
        assert_eq!(problem.object, object);
        assert_eq!(problem.snapshots, [repo.id(manifest)]);
        assert_eq!(problem.paths.sample, [b"(database records)"]);
    }
    let pack = repo.chunks.find(&id(&good))[0].pack;
    repo.store.delete(&Key::pack(&pack)).unwrap();
    let report = check_all(&repo, &good, ReadData::No);
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert_eq!(report.problems[0].object, format!("packs/{pack}"));
    assert_eq!(report.problems[0].snapshots, [repo.id(&good)]);
    assert_eq!(report.problems[0].paths.sample, [b"(database records)"]);
}
