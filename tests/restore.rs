//! Restores snapshots that were built by hand, and looks into them.

use crate::bench_repo::BenchRepo;
use crate::bench_repo::CHUNK_BYTES;
use crate::bench_repo::New;
use crate::bench_repo::Part;
use crate::bench_repo::What;
use crate::bench_repo::dir;
use crate::bench_repo::hard_link;
use crate::bench_repo::large;
use crate::bench_repo::noise;
use crate::bench_repo::other;
use crate::bench_repo::small;
use crate::bench_repo::symlink;
use statekeep::context::Context;
use statekeep::context::Event;
use statekeep::context::Progress;
use statekeep::error::Error;
use statekeep::error::Result;
use statekeep::format::manifest::Manifest;
use statekeep::format::tree::Class;
use statekeep::format::tree::Kind;
use statekeep::ops::inspect;
use statekeep::ops::restore;
use statekeep::ops::restore::Compare;
use statekeep::ops::restore::Replace;
use statekeep::ops::restore::RestoreOptions;
use statekeep::ops::restore::RestorePlan;
use statekeep::ops::restore::RestoreReport;
use statekeep::ops::restore::Sparse;
use statekeep::repo::chunks::Chunks;
use statekeep::store::Key;
use statekeep::store::Store;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

fn plan(repo: &BenchRepo, manifest: &Manifest, options: &RestoreOptions) -> RestorePlan {
    restore::plan(&repo.cx, &repo.chunks, manifest, options).unwrap()
}

fn run(repo: &BenchRepo, manifest: &Manifest, options: &RestoreOptions) -> Result<RestoreReport> {
    run_with(&repo.cx, &repo.chunks, manifest, options)
}

fn run_with(
    cx: &Context,
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    options: &RestoreOptions,
) -> Result<RestoreReport> {
    let plan = restore::plan(cx, chunks, manifest, options)?;
    restore::apply(cx, chunks, manifest, options, &plan)
}

fn at(root: &Path, path: &[u8]) -> PathBuf {
    match path.is_empty() {
        true => root.to_path_buf(),
        false => root.join(OsStr::from_bytes(path)),
    }
}

fn bytes_of(what: &What) -> Vec<u8> {
    match what {
        What::Small(bytes, _) => bytes.clone(),
        What::Large(parts) => {
            let part = |part: &Part| match part {
                Part::Bytes(bytes) => bytes.clone(),
                Part::Hole(len) => vec![0; *len as usize],
            };
            parts.iter().flat_map(part).collect()
        }
        What::Other(_) => Vec::new(),
    }
}

/// Compares the target with what was wanted: kind, content, mode, time, attributes.
fn assert_is_there(root: &Path, nodes: &[New]) {
    for node in nodes {
        let path = at(root, &node.path);
        let name = path.display();
        if matches!(node.what, What::Other(Kind::Socket)) {
            assert!(fs::symlink_metadata(&path).is_err(), "{name}");
            continue;
        }
        let stat = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        match &node.what {
            What::Small(..) | What::Large(_) => {
                assert!(stat.is_file(), "{name}");
                assert!(fs::read(&path).unwrap() == bytes_of(&node.what), "{name}");
            }
            What::Other(Kind::Directory) => assert!(stat.is_dir(), "{name}"),
            What::Other(Kind::Symlink { target }) => {
                let now = fs::read_link(&path).unwrap();
                assert_eq!(now.as_os_str().as_bytes(), target, "{name}");
                continue;
            }
            What::Other(Kind::HardLink { path: first }) => {
                let first = fs::symlink_metadata(at(root, first)).unwrap();
                assert_eq!(
                    (stat.dev(), stat.ino()),
                    (first.dev(), first.ino()),
                    "{name}"
                );
                continue;
            }
            What::Other(Kind::Fifo) => assert!(stat.file_type().is_fifo(), "{name}"),
            What::Other(other) => panic!("{name}: {other:?}"),
        }
        assert_eq!(stat.mode() & 0o7777, node.mode, "{name}");
        assert_eq!(
            (stat.mtime(), stat.mtime_nsec()),
            (node.seconds, 123_456_789),
            "{name}"
        );
        for (key, value) in &node.xattrs {
            let mut now = [0; 64];
            let len = rustix::fs::lgetxattr(&path, &key[..], &mut now).unwrap();
            assert_eq!(&now[..len], value, "{name}");
        }
    }
}

/// Returns a mode that shuts out everybody but the superuser, or else who runs the test, who has to
/// compare.
fn shut(reader_mode: u32) -> u32 {
    match rustix::process::geteuid().is_root() {
        true => 0o000,
        false => reader_mode,
    }
}

/// One of every kind.
fn menagerie() -> Vec<New> {
    let mut nodes = vec![
        dir("").mode(0o750),
        dir("etc"),
        dir("etc/closed").mode(shut(0o700)),
        small("etc/closed/inside", "x").mode(0o400),
        small("etc/empty", ""),
        small("etc/readonly", "abc").mode(0o400),
        small("etc/nothing", "secret").mode(shut(0o400)),
        small("etc/tool", "#!").mode(0o4755),
        small(b"etc/\xff\xfe", "not utf-8"),
        symlink("etc/link", "../../outside"),
        symlink("dangling", "/nowhere"),
        hard_link("hard", "etc/tool"),
        hard_link("link-to-link", "etc/link"),
        other("pipe", Kind::Fifo),
        other("socket", Kind::Socket),
        large("big", vec![Part::Bytes(noise(9 << 20, 1))]),
        large("odd", vec![Part::Bytes(noise(CHUNK_BYTES * 2 + 77, 2))]).mode(0o444),
        large(
            "sparse",
            vec![
                Part::Hole(3 << 20),
                Part::Bytes(noise(CHUNK_BYTES, 3)),
                Part::Bytes(vec![0; 4 * CHUNK_BYTES]),
                Part::Bytes(noise(10, 4)),
                Part::Hole((5 << 20) + 1),
            ],
        ),
        large("hole", vec![Part::Hole(1 << 20)]),
    ];
    nodes[3].what = What::Small(b"classified".to_vec(), Class::Secret);
    nodes[5].xattrs = vec![(b"user.note".to_vec(), b"kept".to_vec())];
    let mut deep = String::from("deep");
    for level in 0..40 {
        nodes.push(dir(&deep));
        deep = format!("{deep}/level-{level}");
    }
    nodes.push(small(&deep, "at the end"));
    for number in 0..50 {
        nodes.push(small(
            format!("file-{number:02}"),
            noise(number * 300, number as u64),
        ));
    }
    nodes
}

#[test]
fn every_kind_round_trips_byte_and_mode_identical() {
    let repo = BenchRepo::new();
    let nodes = menagerie();
    let manifest = repo.snapshot(nodes.clone());
    let temp = tempfile::tempdir().unwrap();
    let options = RestoreOptions::new(temp.path().join("new/target"));

    let planned = plan(&repo, &manifest, &options);
    assert!(!options.target.exists());
    let report = run(&repo, &manifest, &options).unwrap();

    assert_is_there(&options.target, &nodes);
    assert_eq!(planned.create.count, nodes.len() as u64);
    assert!(planned.has_room());
    assert_eq!(report.failures.count, 0, "{:?}", report.failures);
    assert_eq!(report.warnings.count, 1, "{:?}", report.warnings);
    assert_eq!(report.warnings.sample[0].code, "socket");
    assert_eq!(report.bytes, planned.write_bytes);
    let sparse = fs::metadata(options.target.join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 2 << 20, "{}", sparse.blocks());
    assert_eq!(
        fs::metadata(options.target.join("hole")).unwrap().blocks(),
        0
    );

    // A second run finds everything as it is and writes nothing.
    let again = plan(&repo, &manifest, &options);
    let report = run(&repo, &manifest, &options).unwrap();
    assert_eq!(
        (again.write_bytes, again.conflicts.count),
        (0, 0),
        "{again}"
    );
    assert_eq!(again.create.sample, [b"socket"]);
    assert_eq!((report.files, report.bytes, report.others), (0, 0, 0));
    assert_is_there(&options.target, &nodes);
}

#[test]
fn filled_files_take_their_room() {
    let repo = BenchRepo::new();
    let nodes = vec![dir(""), large("sparse", vec![Part::Hole(3 << 20)])];
    let manifest = repo.snapshot(nodes.clone());
    let temp = tempfile::tempdir().unwrap();
    let mut options = RestoreOptions::new(temp.path());
    options.sparse = Sparse::Filled;

    run(&repo, &manifest, &options).unwrap();

    assert_is_there(temp.path(), &nodes);
    let stat = fs::metadata(temp.path().join("sparse")).unwrap();
    assert!(3 << 20 <= stat.blocks() * 512);
}

#[test]
fn a_hostile_tree_writes_nothing_outside_the_target() {
    let repo = BenchRepo::new();
    let temp = tempfile::tempdir().unwrap();
    let outside = temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "mine").unwrap();
    let to = outside.as_os_str().as_bytes();
    let victim = [to, b"/victim"].concat();
    // An entry below a symlink of the same snapshot, a hard link to what a symlink leads to, one
    // to what the snapshot lacks, a link to a link, and a file below a file.
    let nodes = vec![
        dir(""),
        symlink("a", to),
        small("a/evil", "evil"),
        hard_link("b", "a/victim"),
        hard_link("c", "aa"),
        hard_link("d", "b"),
        small("e", "file"),
        small("e/below", "evil"),
        large("e/large", vec![Part::Bytes(noise(100_000, 9))]),
        dir("e/dir"),
        symlink("f", &victim),
        small("good", "good"),
    ];
    let manifest = repo.snapshot(nodes);

    for replace in [Replace::Never, Replace::Changed] {
        let mut options = RestoreOptions::new(temp.path().join("target"));
        options.replace = replace;
        let report = run(&repo, &manifest, &options).unwrap();

        let failed: Vec<_> = report
            .failures
            .sample
            .iter()
            .map(|one| &one.path[..])
            .collect();
        let mut sorted = failed.clone();
        sorted.sort_unstable();
        let wanted: [&[u8]; 7] = [
            b"a/evil", b"b", b"c", b"d", b"e/below", b"e/dir", b"e/large",
        ];
        assert_eq!(sorted, wanted, "{:?}", report.failures);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "mine");
        assert_eq!(fs::metadata(outside.join("victim")).unwrap().nlink(), 1);
        assert_eq!(
            fs::read_to_string(options.target.join("good")).unwrap(),
            "good"
        );
        assert_eq!(
            fs::read_to_string(options.target.join("e")).unwrap(),
            "file"
        );
    }
}

#[test]
fn symlinks_planted_in_the_target_lead_nowhere() {
    let repo = BenchRepo::new();
    let temp = tempfile::tempdir().unwrap();
    let (outside, target) = (temp.path().join("outside"), temp.path().join("target"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "mine").unwrap();
    fs::create_dir(&target).unwrap();
    std::os::unix::fs::symlink(&outside, target.join("dir")).unwrap();
    std::os::unix::fs::symlink(outside.join("file"), target.join("file")).unwrap();
    let nodes = vec![
        dir(""),
        dir("dir"),
        small("dir/file", "new"),
        small("file", "new"),
    ];
    let manifest = repo.snapshot(nodes.clone());
    let mut options = RestoreOptions::new(&target);

    let refused = run(&repo, &manifest, &options).unwrap_err();
    assert!(refused.to_string().contains("dir, file"), "{refused}");
    options.replace = Replace::Changed;
    run(&repo, &manifest, &options).unwrap();

    assert_is_there(&target, &nodes);
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "mine");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn a_tree_that_lies_in_two_steps_writes_nothing_outside() {
    let repo = BenchRepo::new();
    let temp = tempfile::tempdir().unwrap();
    let outside = temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let to = outside.as_os_str().as_bytes();
    let first = repo.snapshot(vec![dir(""), symlink("a", to)]);
    let second = repo.snapshot(vec![dir(""), dir("a"), small("a/file", "evil")]);
    // The parent of this file is in no leaf at all.
    let third = repo.snapshot(vec![dir(""), small("a/file", "evil")]);
    let mut options = RestoreOptions::new(temp.path().join("target"));

    run(&repo, &first, &options).unwrap();
    let report = run(&repo, &third, &options).unwrap();
    assert_eq!(report.failures.count, 1, "{:?}", report.failures);
    options.replace = Replace::Changed;
    let report = run(&repo, &third, &options).unwrap();
    assert_eq!(report.failures.count, 1, "{:?}", report.failures);
    run(&repo, &second, &options).unwrap();

    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(
        fs::symlink_metadata(options.target.join("a"))
            .unwrap()
            .is_dir()
    );
}

#[test]
fn only_brings_what_was_asked_for_and_the_way_to_it() {
    let repo = BenchRepo::new();
    let nodes = vec![
        dir(""),
        dir("a").mode(0o700),
        dir("a/b").mode(0o711),
        small("a/b/rules.toml", "r"),
        small("a/b/other", "o"),
        dir("c"),
        small("c/x", "x"),
        dir("keep"),
        dir("keep/all"),
        small("keep/all/1", "1"),
        hard_link("z", "c/x"),
        hard_link("zz", "c/x"),
    ];
    let manifest = repo.snapshot(nodes.clone());
    let temp = tempfile::tempdir().unwrap();
    let mut options = RestoreOptions::new(temp.path().join("target"));
    options.only = ["*.toml", "/keep", "/z*"].map(String::from).to_vec();

    let report = run(&repo, &manifest, &options).unwrap();

    let wanted = |node: &&New| {
        let path = String::from_utf8_lossy(&node.path).into_owned();
        ["", "a", "a/b", "a/b/rules.toml"].contains(&&path[..]) || path.starts_with("keep")
    };
    let wanted: Vec<New> = nodes.iter().filter(wanted).cloned().collect();
    assert_is_there(&options.target, &wanted);
    assert!(!options.target.join("a/b/other").exists());
    assert!(!options.target.join("c").exists());
    // The first name was not asked for: one copy with both names.
    assert_eq!(fs::read_to_string(options.target.join("z")).unwrap(), "x");
    let inode = |name| fs::metadata(options.target.join(name)).unwrap().ino();
    assert_eq!(inode("z"), inode("zz"));
    assert_eq!(report.failures.count, 0);

    options.only = vec!["nothing-like-this".into()];
    let error = restore::plan(&repo.cx, &repo.chunks, &manifest, &options).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    options.only = vec!["[".into()];
    let error = restore::plan(&repo.cx, &repo.chunks, &manifest, &options).unwrap_err();
    assert!(error.to_string().starts_with("pattern \"[\""), "{error}");
}

#[test]
fn only_leaves_directories_alone_that_exist_and_only_lead_there() {
    let repo = BenchRepo::new();
    let manifest = repo.snapshot(vec![
        dir("").mode(0o700),
        dir("a").mode(0o700),
        small("a/f", "f"),
    ]);
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("a")).unwrap();
    fs::set_permissions(temp.path().join("a"), fs::Permissions::from_mode(0o705)).unwrap();
    let mut options = RestoreOptions::new(temp.path());
    options.only = vec!["a/f".into()];

    run(&repo, &manifest, &options).unwrap();

    assert_eq!(
        fs::metadata(temp.path().join("a")).unwrap().mode() & 0o7777,
        0o705
    );
}

#[test]
fn never_replacing_refuses_before_anything_is_written() {
    let repo = BenchRepo::new();
    let nodes = vec![
        dir(""),
        small("a", "a"),
        small("b", "b"),
        small("c", "c"),
        dir("d"),
    ];
    let manifest = repo.snapshot(nodes.clone());
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("b"), "another").unwrap();
    fs::write(temp.path().join("stays"), "mine").unwrap();
    let mut options = RestoreOptions::new(temp.path());

    let planned = plan(&repo, &manifest, &options);
    let error = run(&repo, &manifest, &options).unwrap_err();

    assert_eq!(planned.conflicts.sample, [b"b"]);
    assert_eq!(planned.kept.sample, [b"stays"]);
    assert!(matches!(error, Error::Refused { .. }));
    let mut names: Vec<_> = fs::read_dir(temp.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["b", "stays"]);

    options.replace = Replace::Changed;
    let planned = plan(&repo, &manifest, &options);
    assert_eq!((planned.replace.count, planned.create.count), (1, 3));
    run(&repo, &manifest, &options).unwrap();
    assert_is_there(temp.path(), &nodes);
    assert_eq!(
        fs::read_to_string(temp.path().join("stays")).unwrap(),
        "mine"
    );
}

#[test]
fn a_full_directory_in_the_way_is_never_replaced() {
    let repo = BenchRepo::new();
    let manifest = repo.snapshot(vec![dir(""), small("a", "a"), small("e", "e")]);
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("a")).unwrap();
    fs::write(temp.path().join("a/mine"), "mine").unwrap();
    fs::create_dir(temp.path().join("e")).unwrap();
    let mut options = RestoreOptions::new(temp.path());
    options.replace = Replace::Changed;

    let planned = plan(&repo, &manifest, &options);
    let report = run(&repo, &manifest, &options).unwrap();

    assert_eq!(
        (&planned.conflicts.sample, planned.replace.count),
        (&vec![b"a".to_vec()], 1)
    );
    assert_eq!(report.failures.sample[0].path, b"a");
    assert_eq!(
        fs::read_to_string(temp.path().join("a/mine")).unwrap(),
        "mine"
    );
    assert_eq!(fs::read_to_string(temp.path().join("e")).unwrap(), "e");
}

#[test]
fn wrong_modes_are_set_without_writing_content() {
    let repo = BenchRepo::new();
    let nodes = vec![
        dir(""),
        small("a", "a").mode(0o600),
        large("b", vec![Part::Bytes(noise(100_000, 5))]).mode(0o600),
    ];
    let manifest = repo.snapshot(nodes.clone());
    let temp = tempfile::tempdir().unwrap();
    let mut options = RestoreOptions::new(temp.path());
    run(&repo, &manifest, &options).unwrap();
    for name in ["a", "b"] {
        let mode = fs::Permissions::from_mode(0o666);
        fs::set_permissions(temp.path().join(name), mode).unwrap();
    }
    let inode = fs::metadata(temp.path().join("b")).unwrap().ino();
    options.replace = Replace::Changed;

    let planned = plan(&repo, &manifest, &options);
    let report = run(&repo, &manifest, &options).unwrap();

    assert_eq!(
        (planned.update.count, planned.write_bytes, report.files),
        (2, 0, 0)
    );
    assert_eq!(fs::metadata(temp.path().join("b")).unwrap().ino(), inode);
    assert_is_there(temp.path(), &nodes);
}

#[test]
fn comparing_content_finds_what_size_and_time_hide() {
    let repo = BenchRepo::new();
    let nodes = menagerie();
    let manifest = repo.snapshot(nodes.clone());
    let temp = tempfile::tempdir().unwrap();
    let mut options = RestoreOptions::new(temp.path());
    run(&repo, &manifest, &options).unwrap();
    for name in ["big", "etc/tool", "sparse"] {
        let path = temp.path().join(name);
        let stat = fs::metadata(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, stat.permissions()).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(stat.modified().unwrap()).unwrap();
    }

    assert_eq!(plan(&repo, &manifest, &options).conflicts.count, 0);
    options.compare = Compare::Content;
    options.replace = Replace::Changed;
    let planned = plan(&repo, &manifest, &options);
    let report = run(&repo, &manifest, &options).unwrap();

    assert_eq!(planned.replace.count, 3, "{:?}", planned.replace);
    assert_eq!(report.files, 3);
    assert_is_there(temp.path(), &nodes);
}

/// Stops the restore after so many bytes.
struct Stopper {
    cancel: Arc<AtomicBool>,
    left: AtomicU64,
}

impl Progress for Stopper {
    fn event(&self, event: Event) {
        if let Event::Done { bytes, .. } = event {
            let left = self.left.load(Ordering::Relaxed).saturating_sub(bytes);
            self.left.store(left, Ordering::Relaxed);
            if left == 0 {
                self.cancel.store(true, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn a_cancelled_restore_leaves_no_half_file_and_is_taken_up_again() {
    let repo = BenchRepo::new();
    let nodes = menagerie();
    let manifest = repo.snapshot(nodes.clone());
    for stop in [1, 100_000, 3 << 20, 8 << 20, 12 << 20] {
        let temp = tempfile::tempdir().unwrap();
        let options = RestoreOptions::new(temp.path());
        let mut cx = repo.cx.clone();
        cx.cancel = Arc::default();
        cx.progress = Arc::new(Stopper {
            cancel: cx.cancel.clone(),
            left: stop.into(),
        });

        let stopped = run_with(&cx, &repo.chunks, &manifest, &options);

        assert!(
            matches!(stopped, Err(Error::Cancelled)),
            "{stop}: {stopped:?}"
        );
        for node in &nodes {
            let path = at(temp.path(), &node.path);
            if matches!(node.what, What::Small(..) | What::Large(_)) && path.exists() {
                assert_is_there(temp.path(), std::slice::from_ref(node));
            }
        }
        let leftovers = fs::read_dir(temp.path()).unwrap();
        let is_temp = |name: &OsStr| name.as_bytes().starts_with(b".statekeep-");
        assert!(!leftovers.flatten().any(|entry| is_temp(&entry.file_name())));
        // What a killed process would leave.
        fs::write(temp.path().join(".statekeep-0123456789abcdef"), "half").unwrap();
        let report = run(&repo, &manifest, &options).unwrap();
        assert_eq!(report.failures.count, 0, "{:?}", report.failures);
        assert_is_there(temp.path(), &nodes);
        assert!(!temp.path().join(".statekeep-0123456789abcdef").exists());
    }
}

#[test]
fn damage_in_one_chunk_loses_only_the_files_that_need_it() {
    let repo = BenchRepo::new();
    let nodes = menagerie();
    let manifest = repo.snapshot(nodes.clone());
    let contents: BTreeMap<Vec<u8>, Vec<u8>> = nodes
        .iter()
        .map(|node| (node.path.clone(), bytes_of(&node.what)))
        .collect();
    let mut lost_somewhere = 0;
    for pack in repo.packs().keys() {
        let key = Key::pack(pack);
        let good = repo.store.get(&key).unwrap().unwrap();
        let mut bad = good.clone();
        bad[100] ^= 4;
        let replace = |bytes: &[u8]| {
            repo.store.delete(&key).unwrap();
            repo.store.put_new(&key, bytes).unwrap();
        };
        let chunks = repo.reopen();
        replace(&bad);
        let temp = tempfile::tempdir().unwrap();
        let options = RestoreOptions::new(temp.path());

        let planned = restore::plan(&repo.cx, &chunks, &manifest, &options).unwrap();
        let report = restore::apply(&repo.cx, &chunks, &manifest, &options, &planned).unwrap();

        replace(&good);
        let failed: Vec<_> = report
            .failures
            .sample
            .iter()
            .map(|one| one.path.clone())
            .collect();
        lost_somewhere += usize::from(report.failures.count > 0 && planned.lost.count == 0);
        for node in &nodes {
            let path = at(temp.path(), &node.path);
            let is_file = matches!(node.what, What::Small(..) | What::Large(_));
            if is_file && planned.lost.count == 0 {
                let is_there = fs::read(&path).is_ok_and(|now| now == contents[&node.path]);
                assert_eq!(is_there, !failed.contains(&node.path), "{}", path.display());
            } else if is_file && path.exists() {
                assert!(fs::read(&path).unwrap() == contents[&node.path]);
            }
        }
        assert!(report.failures.count > 0);
    }
    assert!(lost_somewhere > 8, "{lost_somewhere}");
}

#[test]
fn a_failing_store_ends_the_restore() {
    use statekeep::store::FaultyStore;
    use statekeep::store::Method;
    use statekeep::store::Repeat;
    use statekeep::store::StoreFault;
    use statekeep::store::When;
    let repo = BenchRepo::new();
    let manifest = repo.snapshot(menagerie());
    let faulty = Arc::new(FaultyStore::new(repo.store.clone()));
    let other = statekeep::repo::Repo::open(faulty.clone(), &[], None).unwrap();
    let chunks = Chunks::open(&other, &repo.packs()).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let options = RestoreOptions::new(temp.path());
    let planned = restore::plan(&repo.cx, &chunks, &manifest, &options).unwrap();
    faulty.fail(StoreFault {
        method: Some(Method::GetRange),
        after_calls: 20,
        when: When::Before,
        repeat: Repeat::Sticky,
    });

    let error = restore::apply(&repo.cx, &chunks, &manifest, &options, &planned).unwrap_err();

    assert!(matches!(error, Error::Store { .. }), "{error}");
    faulty.heal();
    run_with(&repo.cx, &chunks, &manifest, &options).unwrap();
    assert_is_there(temp.path(), &menagerie());
}

#[test]
fn ls_and_cat_show_what_is_in_a_snapshot() {
    let repo = BenchRepo::new();
    let nodes = menagerie();
    let manifest = repo.snapshot(nodes.clone());
    let list = |path: &str| {
        let mut paths = Vec::new();
        let mut visit = |entry: &statekeep::format::tree::Entry| {
            paths.push(String::from_utf8_lossy(&entry.path).into_owned());
            Ok(())
        };
        inspect::ls(
            &repo.cx,
            &repo.chunks,
            &manifest,
            path.as_bytes(),
            &mut visit,
        )
        .map(|()| paths)
    };
    let cat = |path: &[u8]| {
        let mut out = Vec::new();
        let temp_dir = Path::new("/tmp");
        let cat = inspect::cat(&repo.cx, &repo.chunks, &manifest, path, temp_dir, &mut out);
        cat.map(|len| (len, out))
    };

    assert_eq!(list("").unwrap().len(), nodes.len());
    assert_eq!(
        list("/etc/closed/").unwrap(),
        ["etc/closed", "etc/closed/inside"]
    );
    assert!(
        list("nowhere")
            .unwrap_err()
            .to_string()
            .contains("\"nowhere\"")
    );
    for node in &nodes {
        if matches!(node.what, What::Small(..) | What::Large(_)) {
            let (len, out) = cat(&node.path).unwrap();
            assert!(out == bytes_of(&node.what) && len == out.len() as u64);
        }
    }
    assert_eq!(cat(b"hard").unwrap().1, b"#!");
    assert!(matches!(cat(b"etc"), Err(Error::Refused { .. })));
    assert!(matches!(cat(b"etc/none"), Err(Error::NotFound { .. })));
    let found = inspect::find_entry(&repo.chunks, &manifest, b"etc/tool")
        .unwrap()
        .unwrap();
    assert_eq!(found.0.leaf.entries[found.1].path, b"etc/tool");
}

#[test]
fn a_backup_restores_and_checks_clean() {
    use crate::support;
    use statekeep::ops::check::ReadData;
    use statekeep::ops::check::check;
    let temp = tempfile::tempdir().unwrap();
    let (source, target) = (temp.path().join("source"), temp.path().join("target"));
    fs::create_dir_all(source.join("deep/er")).unwrap();
    for number in 0..300_u64 {
        let bytes = noise(number as usize * 97, number);
        fs::write(source.join(format!("deep/{number:03}")), bytes).unwrap();
    }
    fs::write(source.join("deep/er/big"), noise(5 << 20, 8)).unwrap();
    std::os::unix::fs::symlink("deep/er", source.join("link")).unwrap();
    let store = Arc::new(statekeep::store::MemoryStore::new());
    let repo = support::create(store, false, None);
    let first = support::backup(&repo, &source).unwrap();
    fs::write(source.join("deep/er/big"), noise(5 << 20, 9)).unwrap();
    fs::remove_file(source.join("deep/007")).unwrap();
    let second = support::backup(&repo, &source).unwrap();
    let cx = support::context();
    let state = repo.read_state(&cx).unwrap();
    let chunks = Chunks::open(&repo, &state.packs).unwrap();

    let mut options = RestoreOptions::new(&target);
    run_with(&cx, &chunks, &second.manifest, &options).unwrap();
    let now = support::model_of(&target);
    options.target = temp.path().join("first");
    run_with(&cx, &chunks, &first.manifest, &options).unwrap();
    let snapshots: Vec<_> = [first, second]
        .into_iter()
        .map(|report| (report.snapshot.unwrap(), report.manifest))
        .collect();
    let report = check(&cx, &repo, &state.packs, &snapshots, ReadData::All).unwrap();

    assert!(now == support::model_of(&source));
    assert!(options.target.join("deep/007").exists());
    assert!(report.is_clean(), "{:?}", report.problems);
}
