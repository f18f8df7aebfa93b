//! Backups while the source, the store or the program itself does what nobody expects.

use crate::support;
use crate::support::Seeded;
use statekeep::chunker::NameHasher;
use statekeep::context::Context;
use statekeep::context::Event;
use statekeep::context::Progress;
use statekeep::context::Random;
use statekeep::error::Error;
use statekeep::error::Result;
use statekeep::format::tree::Class;
use statekeep::id::RepoId;
use statekeep::ops::backup;
use statekeep::ops::backup::BackupOptions;
use statekeep::ops::backup::BackupReport;
use statekeep::repo::Access;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::repo::log;
use statekeep::repo::tree::Leaves;
use statekeep::store::FaultyStore;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::MemoryStore;
use statekeep::store::Method;
use statekeep::store::Repeat;
use statekeep::store::Store;
use statekeep::store::StoreFault;
use statekeep::store::When;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::thread::ThreadId;
use std::time::Duration;
use tempfile::TempDir;

fn memory_repo() -> (Arc<dyn Store>, Repo) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = support::create(Arc::clone(&store), true, None);
    (store, repo)
}

/// Does something once, at the first byte that is read of a large file.
struct AtFirstRead(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Progress for AtFirstRead {
    fn event(&self, event: Event) {
        if matches!(
            event,
            Event::Done {
                files: 0,
                bytes: 1..
            }
        ) && let Some(act) = self.0.lock().unwrap().take()
        {
            act();
        }
    }
}

fn at_first_read(act: impl FnOnce() + Send + 'static) -> Context {
    Context {
        progress: Arc::new(AtFirstRead(Mutex::new(Some(Box::new(act))))),
        ..support::context()
    }
}

/// Backs up while `act` is done at the first byte that is read of a large file.
fn backup_while(repo: &Repo, root: &Path, act: impl FnOnce() + Send + 'static) -> BackupReport {
    backup::backup(&at_first_read(act), repo, &support::options(root)).unwrap()
}

fn assert_holds_what_is_there(repo: &Repo, report: &BackupReport, root: &Path) {
    let found = support::model_in(repo, &report.snapshot.unwrap()).unwrap();
    let there = support::model_of(root);
    let differs = |path: &&Vec<u8>| found.get(*path) != there.get(*path);
    let wrong: Vec<_> = there.keys().chain(found.keys()).filter(differs).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn write_links(root: &Path, content: &[u8]) {
    fs::write(root.join("a"), content).unwrap();
    for name in ["b", "c", "d"] {
        fs::hard_link(root.join("a"), root.join(name)).unwrap();
    }
}

#[test]
fn names_of_a_file_whose_first_name_vanished_keep_its_content() {
    for content in [&b"kept"[..], &Seeded::new(1).bytes(3_000_000)] {
        let dir = TempDir::new().unwrap();
        write_links(dir.path(), content);
        fs::write(dir.path().join("z"), vec![1; 100_000]).unwrap();
        let (_, repo) = memory_repo();
        let first = dir.path().join("a");

        let report = backup_while(&repo, dir.path(), || fs::remove_file(first).unwrap());

        assert_eq!(report.warnings.len(), 1);
        assert_holds_what_is_there(&repo, &report, dir.path());
    }
}

#[test]
fn names_of_a_file_whose_first_name_was_replaced_keep_its_content() {
    let dir = TempDir::new().unwrap();
    write_links(dir.path(), b"kept");
    fs::write(dir.path().join("z"), vec![1; 100_000]).unwrap();
    let (_, repo) = memory_repo();
    let root = dir.path().to_path_buf();

    let report = backup_while(&repo, dir.path(), move || {
        fs::write(root.join("new"), "another file").unwrap();
        fs::rename(root.join("new"), root.join("a")).unwrap();
    });

    assert_holds_what_is_there(&repo, &report, dir.path());
}

#[test]
fn files_that_grow_before_they_are_read_do_not_burst_their_bundle() {
    let dir = TempDir::new().unwrap();
    let names: Vec<_> = (0..300).map(|i| dir.path().join(format!("f{i}"))).collect();
    names.iter().for_each(|name| fs::write(name, "").unwrap());
    fs::write(dir.path().join("z"), vec![1; 100_000]).unwrap();
    let (_, repo) = memory_repo();

    let report = backup_while(&repo, dir.path(), move || {
        for (i, name) in names.iter().enumerate() {
            fs::write(name, Seeded::new(i as u64).bytes(65_536)).unwrap();
        }
    });

    assert_holds_what_is_there(&repo, &report, dir.path());
}

/// Returns names that end no leaf, so that what they stand for ends up in one.
fn names_of_one_leaf(repo: &Repo, count: usize) -> Vec<String> {
    let hasher = NameHasher::new(repo.secrets().cut_key());
    let names = (0..).map(|i: u64| i.to_string());
    let is_cut = |name: &String| hasher.hash(name.as_bytes()) & 0x1ff == 0;
    names.filter(|name| !is_cut(name)).take(count).collect()
}

#[test]
fn long_targets_of_many_links_do_not_burst_a_leaf() {
    let dir = TempDir::new().unwrap();
    let (_, repo) = memory_repo();
    for name in names_of_one_leaf(&repo, 4500) {
        let target = format!("{name}/{}", "x".repeat(4000));
        symlink(target, dir.path().join(name)).unwrap();
    }

    let report = support::backup(&repo, dir.path()).unwrap();

    assert_holds_what_is_there(&repo, &report, dir.path());
}

#[test]
fn large_extended_attributes_of_many_files_do_not_burst_a_leaf() {
    let dir = TempDir::new().unwrap();
    let (_, repo) = memory_repo();
    let names = names_of_one_leaf(&repo, 4500);
    let value_of = |name: &str| Seeded::new(name.parse().unwrap()).bytes(3900);
    for name in &names {
        let path = dir.path().join(name);
        fs::write(&path, name).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(&path, "user.large", &value_of(name), flags).is_err() {
            eprintln!("skipped: no large extended attributes here");
            return;
        }
    }

    // Twice: what was taken from its bundle must be found again.
    for _ in 0..2 {
        let report = support::backup(&repo, dir.path()).unwrap();

        assert_holds_what_is_there(&repo, &report, dir.path());
        let state = repo.read_state(&support::context()).unwrap();
        let chunks = Chunks::open(&repo, &state.packs).unwrap();
        let mut leaves = Leaves::begin(&chunks, &report.manifest.tree);
        let mut count = 0;
        while let Some(at) = leaves.next(&mut Default::default()).unwrap() {
            for entry in at
                .leaf
                .entries
                .iter()
                .filter(|entry| !entry.path.is_empty())
            {
                let value = value_of(&String::from_utf8_lossy(&entry.path));
                assert!(entry.attributes.xattrs == [(b"user.large".to_vec(), value)]);
                count += 1;
            }
        }
        assert_eq!(count, names.len());
    }
}

/// Files of the kernel say they are 4096 bytes long, and are not.
#[test]
fn a_file_that_is_shorter_than_it_says_reads_back_after_an_unchanged_backup() {
    let path = Path::new("/sys/kernel/fscaps");
    let Ok(content) = fs::read(path) else {
        eprintln!("skipped: there is no such file here");
        return;
    };
    let cache = TempDir::new().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = support::create(store, true, Some(cache.path()));
    for _ in 0..3 {
        let id = support::backup(&repo, path).unwrap().snapshot.unwrap();

        let found = support::model_in(&repo, &id).unwrap();

        assert_eq!(found[&b"fscaps"[..]].2, content);
    }
}

/// An interrupted backup, others who go on meanwhile, and the memory of the log that moves on.
#[test]
fn an_interrupted_backup_that_was_overtaken_stores_anew_and_succeeds() {
    let (dir, other, cache) = (
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
    );
    fs::write(dir.path().join("f"), Seeded::new(9).bytes(40 << 20)).unwrap();
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    support::create(Arc::clone(&memory), true, Some(cache.path()));
    let store = Arc::new(FaultyStore::new(Arc::clone(&memory)));
    let (method, when) = (Some(Method::PutNew), When::Before);
    store.fail(StoreFault {
        method,
        after_calls: 1,
        when,
        repeat: Repeat::Sticky,
    });
    let repo = support::open(Arc::clone(&store) as Arc<dyn Store>, Some(cache.path())).unwrap();
    assert!(support::backup(&repo, dir.path()).is_err());
    store.heal();
    let foreign = support::open(Arc::clone(&memory), None).unwrap();
    support::backup(&foreign, other.path()).unwrap();
    repo.read_state(&support::context()).unwrap();
    let puts = store.calls(Method::PutNew);

    let report = support::backup(&repo, dir.path()).unwrap();

    assert_holds_what_is_there(&repo, &report, dir.path());
    assert!(
        store.calls(Method::PutNew) - puts <= 4,
        "one scan is enough"
    );
}

/// What the backup itself found unreadable must not be named again as if it were there.
#[test]
fn a_damaged_tree_node_is_stored_again() {
    let (dir, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for i in 0..50 {
        fs::write(dir.path().join(format!("f{i}")), Seeded::new(i).text(500)).unwrap();
    }
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = support::create(Arc::clone(&store), true, Some(cache.path()));
    let first = support::backup(&repo, dir.path()).unwrap();
    let state = repo.read_state(&support::context()).unwrap();
    let chunks = Chunks::open(&repo, &state.packs).unwrap();
    let record = chunks.find(&first.manifest.tree.id)[0];
    let key = Key::pack(&record.pack);
    let mut object = store.get(&key).unwrap().unwrap();
    object[64 + record.offset as usize] ^= 1;
    store.delete(&key).unwrap();
    store.put_new(&key, &object).unwrap();
    let repo = support::open(store, Some(cache.path())).unwrap();
    assert!(support::model_in(&repo, &first.snapshot.unwrap()).is_err());

    for _ in 0..2 {
        // All of it lies in one segment, so no byte of the old pack can be read any more.
        let healed = support::backup(&repo, dir.path()).unwrap();

        assert_holds_what_is_there(&repo, &healed, dir.path());
    }
}

struct PanicsElsewhere(ThreadId);

impl Random for PanicsElsewhere {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        assert_eq!(
            thread::current().id(),
            self.0,
            "a panic that the test wants"
        );
        Context::new().random.fill(buffer)
    }
}

/// Runs a backup that panics somewhere; it must end all the same.
fn ends(dir: &TempDir, context: impl FnOnce() -> Context + Send + 'static) {
    let root = dir.path().to_path_buf();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        let (_, repo) = memory_repo();
        let run = || backup::backup(&context(), &repo, &support::options(&root));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        ended.send(!matches!(outcome, Ok(Ok(_)))).unwrap();
    });

    assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(true));
}

#[test]
fn a_panic_in_any_thread_ends_the_backup() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("f"), vec![1; 3_000_000]).unwrap();

    ends(&dir, || {
        at_first_read(|| panic!("a panic that the test wants"))
    });
    ends(&dir, || Context {
        random: Arc::new(PanicsElsewhere(thread::current().id())),
        ..support::context()
    });
}

#[test]
fn everything_below_a_secret_directory_is_secret() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("private/deep")).unwrap();
    fs::write(dir.path().join("private/deep/key"), "k").unwrap();
    fs::write(dir.path().join("private.txt"), "public").unwrap();
    let (_, repo) = memory_repo();
    for pattern in ["private/", "private", "/private/"] {
        let options = BackupOptions {
            secrets: vec![pattern.to_string()],
            ..support::options(dir.path())
        };

        let report = backup::backup(&support::context(), &repo, &options).unwrap();

        let state = repo.read_state(&support::context()).unwrap();
        let chunks = Chunks::open(&repo, &state.packs).unwrap();
        let mut leaves = Leaves::begin(&chunks, &report.manifest.tree);
        let at = leaves.next(&mut Default::default()).unwrap().unwrap();
        let of = |path: &[u8]| {
            let entry = at.leaf.entries.iter().find(|entry| entry.path == path);
            entry.unwrap().class()
        };
        assert_eq!(of(b"private/deep/key"), Some(Class::Secret), "{pattern}");
        assert_eq!(of(b"private.txt"), Some(Class::Ordinary), "{pattern}");
    }
}

#[test]
fn a_dry_run_changes_nothing() {
    let (dir, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::write(dir.path().join("f"), Seeded::new(9).bytes(20 << 20)).unwrap();
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    support::create(Arc::clone(&memory), true, Some(cache.path()));
    let store = Arc::new(FaultyStore::new(Arc::clone(&memory)));
    let repo = support::open(Arc::clone(&store) as Arc<dyn Store>, Some(cache.path())).unwrap();
    let options = BackupOptions {
        dry_run: true,
        ..support::options(dir.path())
    };

    let report = backup::backup(&support::context(), &repo, &options).unwrap();

    assert!(report.snapshot.is_none());
    assert!(report.manifest.figures.stored_bytes > 20 << 20);
    assert_eq!(store.calls(Method::PutNew), 0);
    assert!(memory.list(Folder::Packs).unwrap().is_empty());
    let left = fs::read_dir(repo.cache_dir().unwrap()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name != "unfinished"), "{left:?}");
}

/// Slots a backup did not read are trimmed while it runs: nobody knows what they dropped.
#[test]
fn a_backup_that_was_skipped_over_stores_anew_and_succeeds() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("f"), Seeded::new(9).bytes(1 << 20)).unwrap();
    let (store, repo) = memory_repo();
    let foreign = support::open(store, None).unwrap();

    let report = backup_while(&repo, dir.path(), move || {
        let (cx, keys) = (support::context(), foreign.log_keys());
        let mut state = foreign.read_state(&cx).unwrap();
        for i in 0..1020 {
            state = match foreign.append(&cx, state, log::Draft::default()).unwrap() {
                log::Outcome::Committed(state) => state,
                other => panic!("{other:?}"),
            };
            if i == 1010 || i == 1019 {
                log::checkpoint(&cx, foreign.store(), &keys, Arc::clone(&state)).unwrap();
            }
        }
        log::trim(&cx, foreign.store(), &keys, i64::MAX).unwrap();
    });

    assert_holds_what_is_there(&repo, &report, dir.path());
}

#[test]
fn an_encrypted_repository_without_a_key_is_not_made() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (cx, access) = (support::context(), Access::Encrypted(Vec::new()));

    let made = Repo::create(&cx, Arc::clone(&store), RepoId([5; 16]), access, None);

    assert!(matches!(made, Err(Error::Refused { .. })));
    assert!(store.get(&Key::config()).unwrap().is_none());
}

#[test]
fn of_several_roots_only_what_leads_there_and_lies_there_is_kept() {
    let dir = TempDir::new().unwrap();
    for path in [
        "x/1",
        "x/y/2",
        "x-y/sub/3",
        "x-y/other/4",
        "z/5",
        "z/6",
        "x.y",
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "content").unwrap();
    }
    let roots = ["z/5", "x-y/sub", "x", "x/y"];
    let options = BackupOptions {
        paths: roots.iter().map(|root| dir.path().join(root)).collect(),
        ..support::options(dir.path())
    };
    let (_, repo) = memory_repo();
    for _ in 0..2 {
        let report = backup::backup(&support::context(), &repo, &options).unwrap();

        let found = support::model_in(&repo, &report.snapshot.unwrap()).unwrap();
        let paths: Vec<_> = found
            .keys()
            .map(|path| String::from_utf8_lossy(path))
            .collect();
        let wanted = "|x|x-y|x-y/sub|x-y/sub/3|x/1|x/y|x/y/2|z|z/5";
        assert_eq!(paths.join("|"), wanted);
        assert_eq!(report.warnings, []);
    }
}
