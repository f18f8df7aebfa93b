//! Writing trees: nothing leaves the root, nobody sees more than the final mode allows.

use crate::files::as_nobody;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use rustix::process::geteuid;
use statekeep::disk::jail::{Jail, Replace, TEMP_PREFIX};
use statekeep::disk::node::{Attributes, FileTime, Kind};
use statekeep::error::{Error, Result};
use statekeep::source::files::{Item, Tree, Walk, WalkOptions};
use std::fmt::Debug;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

fn attributes(mode: u32) -> Attributes {
    Attributes {
        mode,
        uid: geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: FileTime {
            secs: -5,
            nanos: 123_456_789,
        },
        xattrs: Vec::new(),
    }
}

fn write(jail: &Jail, path: &[u8], mode: u32, replace: Replace) -> Result<()> {
    let file = jail.begin_file(path)?;
    file.write_at(0, b"content")?;
    assert_eq!(file.finish(&attributes(mode), replace)?, []);
    Ok(())
}

#[track_caller]
fn assert_refused<T: Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
}

fn mode(path: impl AsRef<Path>) -> u32 {
    path.as_ref().symlink_metadata().unwrap().mode() & 0o7777
}

/// A jail beside a directory that nothing may touch.
struct Scene {
    dir: TempDir,
    jail: Jail,
    before: Vec<(Item, Vec<u8>)>,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir_all(outside.join("sub")).unwrap();
        fs::write(outside.join("canary"), "sings").unwrap();
        fs::set_permissions(outside.join("canary"), fs::Permissions::from_mode(0o640)).unwrap();
        let jail = Jail::open(&dir.path().join("root")).unwrap();
        let before = contents(&outside);
        Scene { dir, jail, before }
    }

    fn root(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn outside(&self, path: &str) -> PathBuf {
        self.dir.path().join("outside").join(path)
    }

    #[track_caller]
    fn assert_outside_is_untouched(&self) {
        assert_eq!(contents(&self.outside("")), self.before);
    }

    fn temp_files(&self) -> Vec<PathBuf> {
        let names = fs::read_dir(self.root("")).unwrap();
        let names = names.map(|entry| entry.unwrap().path());
        names
            .filter(|path| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with(TEMP_PREFIX)
            })
            .collect()
    }
}

fn contents(root: &Path) -> Vec<(Item, Vec<u8>)> {
    let tree = Tree::open(root).unwrap();
    let walk = Walk::open(&tree, WalkOptions::default()).unwrap();
    walk.map(|item| {
        let item = item.unwrap();
        let content = match item.stat.kind {
            Kind::File => tree
                .open_file(&item.path)
                .unwrap()
                .read_all(1000)
                .unwrap()
                .unwrap(),
            _ => Vec::new(),
        };
        (item, content)
    })
    .collect()
}

/// Every way to touch a path, each of which must be refused.
fn attack(jail: &Jail, path: &[u8]) {
    for replace in [Replace::Never, Replace::Existing] {
        let attributes = attributes(0o777);
        assert_refused(jail.make_dir(path, replace));
        assert_refused(jail.begin_file(path).map(drop));
        assert_refused(jail.make_symlink(path, b"x", &attributes, replace));
        assert_refused(jail.make_fifo(path, &attributes, replace));
        assert_refused(jail.make_device(path, Kind::CharDevice, (1, 3), &attributes, replace));
        assert_refused(jail.make_hard_link(path, b"inside", replace));
        assert_refused(jail.make_hard_link(b"new", path, replace));
        assert_refused(jail.set_attributes(path, &attributes));
        assert_refused(jail.remove(path));
        assert_refused(jail.set_aside(path));
        assert_refused(jail.rename(path, b"new"));
        assert_refused(jail.stat(path));
        assert_refused(jail.read_file(path).map(drop));
    }
}

#[test]
fn paths_that_lead_upward_or_nowhere_are_refused_by_name() {
    let scene = Scene::new();
    write(&scene.jail, b"inside", 0o600, Replace::Never).unwrap();

    let paths: [&[u8]; 10] = [
        b"../outside/canary",
        b"..",
        b".",
        b"a/../../outside/canary",
        b"inside/..",
        b"/etc/passwd",
        b"//x",
        b"a//b",
        b"a/",
        b"a\0b",
    ];
    for path in paths {
        attack(&scene.jail, path);
        let error = scene.jail.begin_file(path).unwrap_err().to_string();
        assert!(error.contains(&*String::from_utf8_lossy(path)), "{error}");
    }

    assert_refused(scene.jail.begin_file(b"").map(drop));
    assert_refused(scene.jail.remove(b""));
    scene.assert_outside_is_untouched();
    assert_eq!(fs::read_dir(scene.root("")).unwrap().count(), 1);
}

#[test]
fn symlinks_on_the_way_are_refused_whoever_planted_them() {
    let scene = Scene::new();
    let jail = &scene.jail;
    write(jail, b"inside", 0o600, Replace::Never).unwrap();
    let outside = scene.outside("").into_os_string().into_encoded_bytes();

    // By the snapshot itself, in an earlier step (CVE-2025-45582).
    jail.make_symlink(b"evil", &outside, &attributes(0o777), Replace::Never)
        .unwrap();
    attack(jail, b"evil/canary");
    attack(jail, b"evil/sub/new");
    // By somebody else, before, also one that stays inside.
    symlink("../outside", scene.root("planted")).unwrap();
    symlink(".", scene.root("dot")).unwrap();
    attack(jail, b"planted/canary");
    attack(jail, b"dot/inside");
    // In a second run, and where a file is a parent.
    let again = Jail::open(&scene.root("")).unwrap();
    attack(&again, b"evil/canary");
    attack(&again, b"inside/below");

    scene.assert_outside_is_untouched();
}

#[test]
fn a_directory_swapped_for_a_symlink_between_calls_leads_nowhere() {
    let scene = Scene::new();
    let jail = &scene.jail;
    jail.make_dir(b"d", Replace::Never).unwrap();
    write(jail, b"d/canary", 0o644, Replace::Never).unwrap();
    let file = jail.begin_file(b"d/late").unwrap();

    fs::rename(scene.root("d"), scene.root("moved")).unwrap();
    symlink("../outside", scene.root("d")).unwrap();

    // What was begun ends where it was begun; the cache leads there too or is refused.
    file.finish(&attributes(0o777), Replace::Existing).unwrap();
    let _ = write(jail, b"d/canary", 0o777, Replace::Existing);
    let _ = jail.remove(b"d/canary");
    assert_refused(jail.set_attributes(b"d", &attributes(0o777)));
    // The jail replacing it itself forgets what it knew.
    jail.make_dir(b"d", Replace::Existing).unwrap();
    write(jail, b"d/fresh", 0o644, Replace::Never).unwrap();

    scene.assert_outside_is_untouched();
    assert!(scene.root("moved/late").exists());
    assert!(scene.root("d/fresh").exists());
}

#[test]
fn directories_the_jail_replaced_are_not_remembered() {
    let scene = Scene::new();
    let jail = &scene.jail;
    jail.make_dir(b"d", Replace::Never).unwrap();
    write(jail, b"d/x", 0o644, Replace::Never).unwrap();
    jail.remove(b"d/x").unwrap();

    jail.make_symlink(b"d", b"../outside", &attributes(0o777), Replace::Existing)
        .unwrap();
    attack_parents(jail);
    jail.remove(b"d").unwrap();
    jail.make_dir(b"d", Replace::Never).unwrap();
    write(jail, b"d/y", 0o644, Replace::Never).unwrap();

    assert!(scene.root("d/y").exists());
    scene.assert_outside_is_untouched();
}

fn attack_parents(jail: &Jail) {
    assert_refused(jail.begin_file(b"d/canary").map(drop));
    assert_refused(jail.make_dir(b"d/sub", Replace::Existing));
}

#[test]
fn a_symlink_or_hard_link_at_the_final_name_is_replaced_not_written_through() {
    let scene = Scene::new();
    let jail = &scene.jail;
    for name in ["file", "fifo", "link", "hard", "dir", "attributes"] {
        symlink("../outside/canary", scene.root(name)).unwrap();
    }
    fs::hard_link(scene.outside("canary"), scene.root("shared")).unwrap();
    let before = contents(&scene.outside(""));
    write(jail, b"inside", 0o600, Replace::Never).unwrap();

    let all = attributes(0o777);
    assert_refused(jail.set_attributes(b"attributes", &all));
    assert_refused(jail.set_attributes(b"shared", &all));
    assert_refused(jail.make_dir(b"dir", Replace::Never));
    assert_refused(write(jail, b"file", 0o777, Replace::Never));
    assert_refused(jail.make_fifo(b"fifo", &all, Replace::Never));
    assert_refused(jail.make_symlink(b"link", b"x", &all, Replace::Never));
    assert_refused(jail.make_hard_link(b"hard", b"inside", Replace::Never));
    assert!(jail.read_file(b"file").unwrap().is_none());
    assert_eq!(jail.stat(b"file").unwrap().unwrap().kind, Kind::Symlink);
    assert_eq!(contents(&scene.outside("")), before);
    // A hard link to a symlink is one more symlink.
    jail.make_hard_link(b"copy", b"file", Replace::Never)
        .unwrap();
    assert_eq!(
        fs::read_link(scene.root("copy")).unwrap(),
        Path::new("../outside/canary")
    );

    write(jail, b"file", 0o777, Replace::Existing).unwrap();
    write(jail, b"shared", 0o777, Replace::Existing).unwrap();
    write(jail, b"copy", 0o777, Replace::Existing).unwrap();
    jail.make_fifo(b"fifo", &all, Replace::Existing).unwrap();
    jail.make_symlink(b"link", b"x", &all, Replace::Existing)
        .unwrap();
    jail.make_hard_link(b"hard", b"inside", Replace::Existing)
        .unwrap();
    jail.make_dir(b"dir", Replace::Existing).unwrap();
    jail.remove(b"attributes").unwrap();

    fs::remove_file(scene.root("shared")).unwrap();
    let (now, before) = (contents(&scene.outside("")), &scene.before);
    // The planted hard link changed the link count and with it the ctime of the canary.
    let visible = |(item, content): &(Item, Vec<u8>)| {
        let stat = item.stat;
        (
            item.path.clone(),
            stat.mode,
            stat.mtime,
            stat.inode,
            content.clone(),
        )
    };
    assert!(now.iter().map(visible).eq(before.iter().map(visible)));
    assert_eq!(scene.temp_files(), [] as [PathBuf; 0]);
    assert_eq!(mode(scene.root("fifo")), 0o777);
    assert_eq!(mode(scene.root("dir")), 0o700);
}

#[test]
fn files_and_directories_replace_each_other_only_when_nothing_is_lost() {
    let scene = Scene::new();
    let jail = &scene.jail;
    jail.make_dir(b"full", Replace::Never).unwrap();
    write(jail, b"full/x", 0o600, Replace::Never).unwrap();
    jail.make_dir(b"empty", Replace::Never).unwrap();
    write(jail, b"file", 0o600, Replace::Never).unwrap();

    jail.make_dir(b"full", Replace::Never).unwrap();
    assert_refused(write(jail, b"full", 0o600, Replace::Existing));
    assert_refused(write(jail, b"empty", 0o600, Replace::Never));
    assert_refused(jail.make_symlink(b"full", b"x", &attributes(0), Replace::Existing));
    assert_refused(jail.remove(b"full"));
    assert_refused(jail.make_dir(b"file", Replace::Never));
    write(jail, b"empty", 0o600, Replace::Existing).unwrap();
    jail.make_dir(b"file", Replace::Existing).unwrap();

    assert!(scene.root("full/x").is_file());
    assert!(scene.root("empty").is_file());
    assert!(scene.root("file").is_dir());
    assert_eq!(scene.temp_files(), [] as [PathBuf; 0]);
}

#[test]
fn what_is_set_aside_gets_its_name_back_unless_that_is_taken() {
    let scene = Scene::new();
    let jail = &scene.jail;
    jail.make_dir(b"d", Replace::Never).unwrap();
    let long = [b"d/", &[b'n'; 255][..]].concat();
    for path in [&b"file"[..], b"d/file", &long] {
        write(jail, path, 0o600, Replace::Never).unwrap();

        let aside = jail.set_aside(path).unwrap();
        assert_eq!(jail.stat(path).unwrap(), None);
        assert!(jail.stat(&aside).unwrap().is_some());
        jail.rename(&aside, path).unwrap();
        assert!(jail.stat(path).unwrap().is_some());

        let aside = jail.set_aside(path).unwrap();
        write(jail, path, 0o600, Replace::Never).unwrap();
        assert_refused(jail.rename(&aside, path));
        jail.remove(&aside).unwrap();
        assert!(jail.stat(path).unwrap().is_some());
    }
    assert_refused(jail.rename(b"file", b"d/new"));
    assert_refused(jail.rename(b"file", b".."));
    assert_refused(jail.rename(b"file", b"../outside/new"));
    scene.assert_outside_is_untouched();
}

#[test]
fn what_is_written_can_be_read_back_whole() {
    let scene = Scene::new();
    let jail = &scene.jail;
    let name = b"\xff\xfe\n\x01";
    let mut wanted = attributes(0o640);
    wanted.xattrs = vec![(b"user.note".to_vec(), b"kept".to_vec())];
    let file = jail.begin_file(name).unwrap();
    file.write_at(1 << 20, b"middle").unwrap();
    file.set_len(5 << 20).unwrap();
    assert_eq!(scene.temp_files().len(), 1);
    let problems = file.finish(&wanted, Replace::Never).unwrap();
    jail.make_hard_link(b"hard", name, Replace::Never).unwrap();
    jail.make_hard_link(b"hard", name, Replace::Existing)
        .unwrap();
    let link = jail
        .make_symlink(b"link", b"any\xffwhere", &wanted, Replace::Never)
        .unwrap();
    let fifo = jail
        .make_fifo(b"fifo", &attributes(0o622), Replace::Never)
        .unwrap();
    drop(jail.begin_file(b"abandoned").unwrap());
    jail.sync().unwrap();

    let stat = jail.stat(name).unwrap().unwrap();
    assert_eq!(
        (stat.mode, stat.mtime, stat.links),
        (0o640, wanted.mtime, 2)
    );
    assert_eq!((stat.size_bytes, fifo), (5 << 20, vec![]));
    assert!(stat.blocks * 512 < 1 << 20, "the holes take space");
    let mut content = Vec::new();
    jail.read_file(name)
        .unwrap()
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    assert_eq!(&content[1 << 20..][..7], b"middle\0");
    let tree = Tree::open(&scene.root("")).unwrap();
    match problems.is_empty() {
        true => assert_eq!(tree.xattrs(name).unwrap(), wanted.xattrs),
        false => eprintln!("SKIPPED: this file system has no user attributes"),
    }
    assert_eq!(tree.read_link(b"link").unwrap(), b"any\xffwhere");
    assert_eq!(jail.stat(b"link").unwrap().unwrap().mtime, wanted.mtime);
    // Linux has no user attributes on symlinks.
    assert_eq!(
        link.iter().map(|problem| problem.code).collect::<Vec<_>>(),
        ["xattr"]
    );
    let fifo = jail.stat(b"fifo").unwrap().unwrap();
    assert_eq!((fifo.kind, fifo.mode), (Kind::Fifo, 0o622));
    assert!(jail.read_file(b"fifo").unwrap().is_none());
    assert_eq!(jail.stat(b"missing/too").unwrap(), None);
    jail.remove(b"missing/too").unwrap();
    assert_eq!(fs::read_dir(scene.root("")).unwrap().count(), 4);
}

#[test]
fn devices_need_root_and_are_a_problem_without() {
    let scene = Scene::new();
    fs::set_permissions(scene.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(scene.root(""), fs::Permissions::from_mode(0o777)).unwrap();
    let make = |path: &[u8]| {
        let attributes = attributes(0o600);
        scene
            .jail
            .make_device(path, Kind::CharDevice, (1, 3), &attributes, Replace::Never)
    };

    let problems = as_nobody(|| make(b"nobody")).unwrap();

    assert_eq!(problems[0].code, "device");
    assert!(!scene.root("nobody").exists());
    if !geteuid().is_root() || !make(b"null").unwrap().is_empty() {
        eprintln!("SKIPPED: may not make devices");
        return;
    }
    assert_eq!(scene.jail.stat(b"null").unwrap().unwrap().rdev, (1, 3));
}

#[test]
fn another_owner_is_set_by_root_and_a_problem_for_others() {
    let scene = Scene::new();
    fs::set_permissions(scene.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(scene.root(""), fs::Permissions::from_mode(0o777)).unwrap();
    let theirs = Attributes {
        uid: 1234,
        gid: 4321,
        ..attributes(0o6755)
    };
    let finish = |path: &[u8], attributes: &Attributes| {
        let file = scene.jail.begin_file(path).unwrap();
        let problems = file.finish(attributes, Replace::Never).unwrap();
        let stat = scene.jail.stat(path).unwrap().unwrap();
        let codes: Vec<_> = problems.iter().map(|problem| problem.code).collect();
        (codes, stat.uid, stat.mode)
    };

    let (codes, uid, mode) = as_nobody(|| finish(b"nobody", &theirs));
    assert_eq!((codes, mode), (vec!["owner", "mode"], 0o755));
    assert_ne!(uid, 1234);
    // "Leave the owner" must not pass for having set it.
    let nobody = Attributes {
        uid: u32::MAX,
        ..theirs.clone()
    };
    let (codes, _, mode) = finish(b"all-ones", &nobody);
    assert_eq!((codes, mode), (vec!["owner", "mode"], 0o755));
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root gives files away");
        return;
    }
    assert_eq!(finish(b"root", &theirs), (vec![], 1234, 0o6755));
    fs::create_dir(scene.root("d")).unwrap();
    assert_eq!(scene.jail.set_attributes(b"d", &theirs).unwrap(), []);
    assert_eq!(mode_of(&scene, "d"), (1234, 4321, 0o6755));
}

fn mode_of(scene: &Scene, path: &str) -> (u32, u32, u32) {
    let stat = scene.jail.stat(path.as_bytes()).unwrap().unwrap();
    (stat.uid, stat.gid, stat.mode)
}

/// Owner, one named user, group, mask, others.
fn acl(permissions: [u8; 5]) -> Vec<u8> {
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions) in [1, 2, 4, 0x10, 0x20].into_iter().zip(permissions) {
        let id: u32 = if tag == 2 { 1234 } else { u32::MAX };
        acl.extend([tag, 0, permissions, 0]);
        acl.extend(id.to_le_bytes());
    }
    acl
}

#[test]
fn acls_are_restored_but_neither_inherited_nor_wider_than_the_mode() {
    let scene = Scene::new();
    let set = |name| {
        let wide = acl([7, 7, 7, 7, 7]);
        rustix::fs::setxattr(scene.root(""), name, &wide, XattrFlags::empty())
    };
    if set(DEFAULT).is_err() {
        eprintln!("SKIPPED: this file system has no ACLs");
        return;
    }
    let tree = Tree::open(&scene.root("")).unwrap();
    let finish = |path: &[u8], mode, value: Option<Vec<u8>>| {
        let mut attributes = attributes(mode);
        attributes
            .xattrs
            .extend(value.map(|value| (ACCESS.into(), value)));
        let file = scene.jail.begin_file(path).unwrap();
        assert_eq!(
            fs::metadata(&scene.temp_files()[0]).unwrap().mode() & 0o177,
            0
        );
        let problems = file.finish(&attributes, Replace::Never).unwrap();
        let stat = scene.jail.stat(path).unwrap().unwrap();
        (problems.len(), stat.mode, tree.xattrs(path).unwrap())
    };

    assert_eq!(finish(b"none", 0o640, None), (0, 0o640, vec![]));
    let fitting = acl([6, 6, 0, 4, 0]);
    let (problems, mode, xattrs) = finish(b"own", 0o640, Some(fitting.clone()));
    assert_eq!((problems, mode), (0, 0o640));
    assert_eq!(xattrs, [(ACCESS.as_bytes().to_vec(), fitting)]);
    for hostile in [
        acl([6, 7, 7, 7, 7]),
        acl([6, 6, 4, 4, 4]),
        vec![2, 0, 0, 0],
        vec![],
    ] {
        assert_eq!(finish(b"wide", 0o640, Some(hostile)), (1, 0o640, vec![]));
        scene.jail.remove(b"wide").unwrap();
    }
    scene.jail.make_dir(b"d", Replace::Never).unwrap();
    assert_eq!(
        scene.jail.set_attributes(b"d", &attributes(0o750)).unwrap(),
        []
    );
    assert_eq!(tree.xattrs(b"d"), Ok(vec![]));
    assert_eq!(scene.jail.stat(b"d").unwrap().unwrap().mode, 0o750);
}

/// The umask belongs to the process, so every one gets a process of its own.
#[test]
fn modes_are_exact_under_every_umask() {
    const VARIABLE: &str = "STATEKEEP_TEST_UMASK";
    let Ok(umask) = std::env::var(VARIABLE) else {
        for umask in ["000", "022", "077", "777"] {
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "jail::modes_are_exact_under_every_umask"])
                .env(VARIABLE, umask)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&status.stdout);
            assert!(
                status.status.success() && text.contains("1 passed"),
                "{umask}: {text}"
            );
        }
        return;
    };
    let open = fs::Permissions::from_mode(0o777);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::set_permissions(first.path(), open.clone()).unwrap();
    fs::set_permissions(second.path(), open).unwrap();
    let umask = u32::from_str_radix(&umask, 8).unwrap();
    rustix::process::umask(Mode::from_raw_mode(umask));

    check_modes(&first.path().join("new"));
    as_nobody(|| check_modes(&second.path().join("new")));
}

fn check_modes(root: &Path) {
    let jail = Jail::open(root).unwrap();
    assert_eq!(mode(root), 0o700);
    jail.make_dir(b"d", Replace::Never).unwrap();
    assert_eq!(mode(root.join("d")), 0o700);
    for wanted in [
        0, 0o400, 0o444, 0o600, 0o640, 0o644, 0o755, 0o777, 0o4755, 0o1777,
    ] {
        let mut attributes = attributes(wanted);
        attributes.xattrs = vec![(b"user.x".to_vec(), b"y".to_vec())];
        let path = format!("d/{wanted:o}");
        let file = jail.begin_file(path.as_bytes()).unwrap();
        let temp = fs::read_dir(root.join("d"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let temp = temp
            .into_iter()
            .find(|path| path.to_str().unwrap().contains(TEMP_PREFIX));
        let temp = temp.unwrap();
        assert_eq!(mode(&temp) & !0o600, 0, "begun");
        file.write_at(0, b"content").unwrap();
        assert_eq!(mode(&temp) & !0o600, 0, "written");

        let problems = file.finish(&attributes, Replace::Never).unwrap();

        assert_eq!(mode(root.join(&path)), wanted);
        let without_xattrs = problems
            .iter()
            .all(|problem| problem.message.contains("supported"));
        assert!(without_xattrs, "{problems:?}");
        let dir = format!("dir-{wanted:o}");
        jail.make_dir(dir.as_bytes(), Replace::Never).unwrap();
        jail.set_attributes(dir.as_bytes(), &attributes).unwrap();
        assert_eq!(mode(root.join(&dir)), wanted);
        // Some could not be removed with the temporary directory, by others than root.
        jail.remove(dir.as_bytes()).unwrap();
        let fifo = format!("fifo-{wanted:o}");
        jail.make_fifo(fifo.as_bytes(), &self::attributes(wanted), Replace::Never)
            .unwrap();
        assert_eq!(mode(root.join(&fifo)), wanted);
    }
    assert_eq!(jail.set_attributes(b"", &attributes(0o755)).unwrap(), []);
    assert_eq!(mode(root), 0o755);
}

#[test]
fn many_threads_write_into_more_directories_than_are_remembered() {
    let scene = Scene::new();
    let jail = &scene.jail;

    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for index in 0..100 {
                    let dir = format!("d{}", index % 50);
                    jail.make_dir(dir.as_bytes(), Replace::Never).unwrap();
                    let path = format!("{dir}/{thread}-{index}");
                    write(jail, path.as_bytes(), 0o644, Replace::Never).unwrap();
                }
            });
        }
    });

    let files = contents(&scene.root(""));
    assert_eq!(files.len(), 1 + 50 + 400);
    assert!(
        files
            .iter()
            .all(|(item, content)| item.stat.is_dir() || content == b"content")
    );
}

#[test]
fn a_fifo_in_the_way_neither_hangs_nor_is_opened() {
    let scene = Scene::new();
    let fifo = scene.root("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();

    assert!(scene.jail.read_file(b"fifo").unwrap().is_none());
    assert_refused(scene.jail.set_attributes(b"fifo", &attributes(0o777)));
    write(&scene.jail, b"fifo", 0o600, Replace::Existing).unwrap();

    assert!(fifo.is_file());
}
