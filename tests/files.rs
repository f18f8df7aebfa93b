//! Reading trees: what a walk lists, in which order, and what it never touches.

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use statekeep::disk::jail::{Jail, Replace};
use statekeep::disk::node::Attributes;
use statekeep::error::Error;
use statekeep::source::files::*;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn join(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path))
}

fn walk(root: &Path, options: WalkOptions) -> (Vec<Item>, Vec<Problem>) {
    let tree = Tree::open(root).unwrap();
    let (mut items, mut problems) = (Vec::new(), Vec::new());
    for found in Walk::open(&tree, options).unwrap() {
        match found {
            Ok(item) => items.push(item),
            Err(problem) => problems.push(problem),
        }
    }
    (items, problems)
}

/// The paths of a walk without problems.
fn paths(root: &Path, options: WalkOptions) -> Vec<String> {
    let (items, problems) = walk(root, options);
    assert_eq!(problems, []);
    let path = |item: Item| String::from_utf8_lossy(&item.path).into_owned();
    items.into_iter().map(path).collect()
}

fn tree_of(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        match file.ends_with('/') {
            true => fs::create_dir_all(path).unwrap(),
            false => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, file).unwrap();
            }
        }
    }
    dir
}

/// Runs as an ordinary user, which root becomes for the time being.
pub(crate) fn as_nobody<T>(test: impl FnOnce() -> T) -> T {
    if !rustix::process::geteuid().is_root() {
        return test();
    }
    struct Root;
    impl Drop for Root {
        fn drop(&mut self) {
            become_user(0);
        }
    }
    let _root_again = Root;
    become_user(65_534);
    test()
}

/// The raw system call: it changes this thread only.
fn become_user(uid: u32) {
    let root = rustix::process::Uid::ROOT;
    let uid = rustix::process::Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(root, uid, root).unwrap();
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(&b"ab-.0 \x01\xff~"[..]);
    prop::collection::vec(byte, 1..4)
        .prop_filter("not a name", |name| !matches!(&name[..], b"." | b".."))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn order_is_that_of_whole_paths_with_the_slash_lowest(
        files in prop::collection::vec(prop::collection::vec(name(), 1..4), 0..24)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = vec![Vec::new()];
        for file in files {
            // Where a file is in the way of a directory or the reverse, the first one stays.
            let path = file.join(&b'/');
            let parent = join(dir.path(), &path).parent().unwrap().to_path_buf();
            if fs::create_dir_all(parent).is_ok() {
                let _ = fs::write(join(dir.path(), &path), "");
            }
            for end in 1..=file.len() {
                expected.push(file[..end].join(&b'/'));
            }
        }
        expected.retain(|path| join(dir.path(), path).symlink_metadata().is_ok());
        expected.sort_by_key(|path| {
            path.iter().map(|&byte| if byte == b'/' { 0 } else { byte }).collect::<Vec<_>>()
        });
        expected.dedup();

        let (items, problems) = walk(dir.path(), WalkOptions::default());

        prop_assert_eq!(problems, []);
        prop_assert_eq!(items.into_iter().map(|item| item.path).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_missing_or_unsuitable_root_is_an_error() {
    let dir = tree_of(&["file"]);

    for path in ["missing", "file"] {
        let error = Tree::open(&dir.path().join(path)).unwrap_err();
        assert!(matches!(error, Error::Io { .. }));
    }
}

#[test]
fn trees_deeper_than_the_open_directories_and_the_longest_path_are_walked() {
    let dir = tempfile::tempdir().unwrap();
    let jail = Jail::open(dir.path()).unwrap();
    let mut expected = vec![Vec::new()];
    let mut after = Vec::new();
    let mut path = Vec::new();
    for depth in 0..150 {
        // Every level has a file that comes after the directory.
        let name = |end: &str| format!("{}{end}", "x".repeat(60));
        let prefix = [&path[..], if depth == 0 { b"" } else { b"/" }].concat();
        path = [&prefix[..], name("d").as_bytes()].concat();
        jail.make_dir(&path, Replace::Never).unwrap();
        let file = [&prefix[..], name("e").as_bytes()].concat();
        let new = jail.begin_file(&file).unwrap();
        new.write_at(0, b"deep").unwrap();
        let attributes = Attributes {
            mode: 0o600,
            ..Default::default()
        };
        new.finish(&attributes, Replace::Never).unwrap();
        expected.push(path.clone());
        after.push(file);
    }
    expected.extend(after.into_iter().rev());
    assert!(9000 < path.len());

    let (items, problems) = walk(dir.path(), WalkOptions::default());
    let (some, _) = walk(
        dir.path(),
        WalkOptions {
            include: vec![path.clone()],
            ..Default::default()
        },
    );

    assert_eq!(problems, []);
    assert!(items.iter().map(|item| &item.path).eq(&expected));
    assert_eq!(some.len(), 151);
    let tree = Tree::open(dir.path()).unwrap();
    let deepest = &expected[151];
    let content = tree.open_file(deepest).unwrap().read_all(100).unwrap();
    assert_eq!(content, Some(b"deep".to_vec()));
    assert_eq!(tree.xattrs(&path), Ok(Vec::new()));
}

#[test]
fn special_files_and_symlinks_are_listed_but_never_opened_or_followed() {
    let dir = tree_of(&["d/file", "outside"]);
    let root = dir.path().join("d");
    rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    symlink(".", root.join("loop")).unwrap();
    symlink("round", root.join("round")).unwrap();
    symlink("..", root.join("up")).unwrap();

    let (items, problems) = walk(&root, WalkOptions::default());

    assert_eq!(problems, []);
    let kinds: Vec<_> = items
        .iter()
        .map(|item| (&item.path[..], item.stat.kind))
        .collect();
    let expected: [(&[u8], Kind); 6] = [
        (b"", Kind::Directory),
        (b"fifo", Kind::Fifo),
        (b"file", Kind::File),
        (b"loop", Kind::Symlink),
        (b"round", Kind::Symlink),
        (b"up", Kind::Symlink),
    ];
    assert_eq!(kinds, expected);
    let tree = Tree::open(&root).unwrap();
    assert_eq!(tree.read_link(b"up"), Ok(b"..".to_vec()));
    assert_eq!(tree.read_link(b"file").unwrap_err().code, "vanished");
    assert_eq!(tree.open_file(b"fifo").unwrap_err().code, "changed");
    for path in [&b"up/outside"[..], b"loop/file", b"round", b"../outside"] {
        assert!(tree.open_file(path).is_err());
        assert!(tree.xattrs(path).is_err() || path == b"round");
    }
    for path in [&b"fifo"[..], b"round", b"file", b""] {
        assert_eq!(tree.xattrs(path), Ok(Vec::new()));
    }
}

#[test]
fn an_unreadable_directory_is_a_problem_and_the_walk_goes_on() {
    let dir = tree_of(&["a/inside", "b"]);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(dir.path().join("b"), fs::Permissions::from_mode(0o000)).unwrap();
    if !rustix::process::geteuid().is_root() {
        fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o000)).unwrap();
    }

    let (items, problems) = as_nobody(|| walk(dir.path(), WalkOptions::default()));
    let file = as_nobody(|| Tree::open(dir.path()).unwrap().open_file(b"b").unwrap_err());

    let listed: Vec<_> = items.iter().map(|item| &item.path[..]).collect();
    assert_eq!(listed, [&b""[..], b"a", b"b"]);
    assert_eq!(
        (&problems[0].path[..], problems[0].code),
        (&b"a"[..], "denied")
    );
    assert_eq!(problems.len(), 1);
    assert_eq!(file.code, "denied");
    fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn what_vanishes_or_changes_kind_during_the_walk_is_a_problem() {
    let dir = tree_of(&["a", "b", "c/inside", "d"]);
    let tree = Tree::open(dir.path()).unwrap();
    let mut walk = Walk::open(&tree, WalkOptions::default()).unwrap();
    let mut next = || walk.next().unwrap().map(|item| item.path);

    assert_eq!(next(), Ok(b"".to_vec()));
    assert_eq!(next(), Ok(b"a".to_vec()));
    fs::remove_file(dir.path().join("b")).unwrap();
    assert_eq!(next().unwrap_err().code, "vanished");
    assert_eq!(next(), Ok(b"c".to_vec()));
    fs::rename(dir.path().join("c"), dir.path().join("e")).unwrap();
    symlink("e", dir.path().join("c")).unwrap();
    assert_eq!(next().unwrap_err().code, "vanished");
    assert_eq!(next(), Ok(b"d".to_vec()));
    assert_eq!(walk.next(), None);
}

#[test]
fn hard_links_are_told_by_inode_and_count() {
    let dir = tree_of(&["a"]);
    fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();

    let (items, _) = walk(dir.path(), WalkOptions::default());

    assert_eq!(items[1].stat.inode, items[2].stat.inode);
    assert_eq!(items[1].stat.links, 2);
}

#[test]
fn includes_list_what_leads_to_them_and_what_is_below() {
    let files = [
        "a/b/x",
        "a/b/y",
        "a/c",
        "a.b",
        "d/e/f/z",
        "d/other",
        "link-target/q",
    ];
    let dir = tree_of(&files);
    symlink("link-target", dir.path().join("link")).unwrap();
    let options = |include: &[&str]| WalkOptions {
        include: include
            .iter()
            .map(|path| path.as_bytes().to_vec())
            .collect(),
        exclude: Rules::parse(&["b", "y"]).unwrap(),
        ..Default::default()
    };

    let listed = paths(dir.path(), options(&["d/e", "a/b", "a/b/x", "d/e"]));
    assert_eq!(
        listed,
        ["", "a", "a/b", "a/b/x", "d", "d/e", "d/e/f", "d/e/f/z"]
    );
    assert_eq!(paths(dir.path(), options(&["a.b"])), ["", "a.b"]);
    let everything = paths(dir.path(), options(&[""]));
    assert_eq!(everything, paths(dir.path(), options(&[])));

    let (items, problems) = walk(
        dir.path(),
        options(&["missing/x", "link/q", "a.b/x", "a/c"]),
    );
    assert_eq!(items.len(), 3);
    let problems: Vec<_> = problems.iter().map(|problem| &problem.path[..]).collect();
    assert_eq!(problems, [&b"a.b"[..], b"link", b"missing"]);

    let tree = Tree::open(dir.path()).unwrap();
    for path in ["../x", "/etc", "a//b"] {
        assert!(matches!(
            Walk::open(&tree, options(&[path])),
            Err(Error::Refused { .. })
        ));
    }
}

#[test]
fn excluded_directories_are_not_entered() {
    let dir = tree_of(&["keep/a.o", "keep/a.c", "skip/in/deep", "x.o", "keep.o"]);
    let exclude = Rules::parse(&["skip/", "*.o", "!keep.o", "!skip/in/deep"]).unwrap();

    let listed = paths(
        dir.path(),
        WalkOptions {
            exclude,
            ..Default::default()
        },
    );

    assert_eq!(listed, ["", "keep", "keep/a.c", "keep.o"]);
}

#[test]
fn caches_are_listed_without_their_content_if_the_tag_is_real() {
    let files = [
        "real/CACHEDIR.TAG",
        "real/a",
        "real/b/c",
        "fake/CACHEDIR.TAG",
        "fake/a",
    ];
    let dir = tree_of(&files);
    let signature = "Signature: 8a477f597d28d172789f06886806bc55\n# by somebody\n";
    fs::write(dir.path().join("real/CACHEDIR.TAG"), signature).unwrap();

    let skipped = paths(dir.path(), WalkOptions::default());
    let entered = paths(
        dir.path(),
        WalkOptions {
            cache_dirs: CacheDirs::Enter,
            ..Default::default()
        },
    );

    let fake = ["", "fake", "fake/CACHEDIR.TAG", "fake/a"];
    assert_eq!(
        skipped,
        [&fake[..], &["real", "real/CACHEDIR.TAG"]].concat()
    );
    assert_eq!(entered.len(), 9);
}

#[test]
fn mount_points_are_listed_empty_unless_asked_for() {
    let device = |path| {
        let stat = rustix::fs::stat(path).ok()?;
        Some(stat.st_dev)
    };
    if device("/dev") == device("/dev/pts") || device("/dev/pts").is_none() {
        eprintln!("SKIPPED: no mount point to test with at /dev/pts");
        return;
    }
    let ptmx = |file_systems, include: &[&str]| {
        let include = include
            .iter()
            .map(|path| path.as_bytes().to_vec())
            .collect();
        let (items, _) = walk(
            Path::new("/dev"),
            WalkOptions {
                include,
                file_systems,
                ..Default::default()
            },
        );
        let has = |path: &[u8]| items.iter().any(|item| item.path == path);
        (has(b"pts"), has(b"pts/ptmx"))
    };

    assert_eq!(ptmx(FileSystems::One, &[]), (true, false));
    assert_eq!(ptmx(FileSystems::One, &["pts"]), (true, true));
    assert_eq!(ptmx(FileSystems::All, &[]), (true, true));
}

#[test]
fn content_is_read_in_pieces_or_at_once_and_changes_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(join(dir.path(), b"\xff\n"), &content).unwrap();
    let tree = Tree::open(dir.path()).unwrap();

    let mut reader = tree.open_file(b"\xff\n").unwrap();
    let (mut read, mut buffer) = (Vec::new(), vec![0; 30_000]);
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => break,
            len => read.extend_from_slice(&buffer[..len]),
        }
    }

    assert!(read == content);
    assert!(reader.read_all(400_000).unwrap().as_ref() == Some(&content));
    assert_eq!(reader.read_all(399_999), Ok(None));
    assert!(reader.stat_again().unwrap().same_content(reader.stat()));
    let file = fs::OpenOptions::new()
        .append(true)
        .open(join(dir.path(), b"\xff\n"))
        .unwrap();
    file.write_at(b"grown", 0).unwrap();
    assert!(!reader.stat_again().unwrap().same_content(reader.stat()));
    assert_eq!(reader.read_all(400_000), Ok(None));
    assert_eq!(reader.read_all(500_000).unwrap().unwrap().len(), 400_005);
}

#[test]
fn holes_are_found_and_dense_files_are_one_range() {
    let dir = tree_of(&["dense", "empty"]);
    let file = fs::File::create(dir.path().join("sparse")).unwrap();
    file.write_at(&[1; 4096], 1 << 20).unwrap();
    file.write_at(&[2; 10], 8 << 20).unwrap();
    file.set_len(20 << 20).unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::File::create(dir.path().join("hole"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let ranges = |path: &[u8]| {
        let reader = tree.open_file(path).unwrap();
        let mut ranges = Vec::new();
        let mut offset = 0;
        while let Some(range) = reader.next_data(offset).unwrap() {
            offset = range.end;
            ranges.push(range);
        }
        ranges
    };

    assert_eq!(ranges(b"dense"), vec![0..5; 1]);
    assert_eq!(ranges(b"empty"), []);
    let sparse = ranges(b"sparse");
    if sparse.first() == Some(&(0..20 << 20)) {
        eprintln!("SKIPPED: this file system has no holes");
        return;
    }
    assert_eq!(ranges(b"hole"), []);
    assert_eq!(sparse.len(), 2);
    assert!(sparse[0].contains(&(1 << 20)) && sparse[1].contains(&(8 << 20)));
    assert!(sparse[1].end < 9 << 20);
}

#[test]
fn extended_attributes_are_sorted_and_whole() {
    let dir = tree_of(&["file", "d/"]);
    let file = dir.path().join("file");
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::setxattr(path, name, value, XattrFlags::empty())
    };
    if set(&file, "user.z", b"last").is_err() {
        eprintln!("SKIPPED: this file system has no user attributes");
        return;
    }
    let long = vec![7; 2000];
    set(&file, "user.a", &long).unwrap();
    set(&file, "user.empty", b"").unwrap();
    set(&dir.path().join("d"), "user.d", b"dir").unwrap();
    let tree = Tree::open(dir.path()).unwrap();

    let xattrs = tree.xattrs(b"file").unwrap();

    let pair = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
    let expected = [
        pair("user.a", &long),
        pair("user.empty", b""),
        pair("user.z", b"last"),
    ];
    assert_eq!(xattrs, expected);
    assert_eq!(tree.open_file(b"file").unwrap().xattrs().unwrap(), xattrs);
    assert_eq!(tree.xattrs(b"d").unwrap(), [pair("user.d", b"dir")]);
}
