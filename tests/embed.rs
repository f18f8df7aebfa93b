//! The library as an application has it that embeds it: silent, without anything shared between
//! two repositories, stopped at any event without harm, and honest about how far it is.

use crate::support;
use rusqlite::Connection;
use statekeep::BackupOptions;
use statekeep::Context;
use statekeep::Error;
use statekeep::Event;
use statekeep::Keeper;
use statekeep::Place;
use statekeep::Policy;
use statekeep::Protection;
use statekeep::ReadData;
use statekeep::RestoreOptions;
use statekeep::context::Timestamp;
use statekeep::ops::restore::Replace;
use statekeep::store::Folder;
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use tempfile::TempDir;

/// Set in a process of its own, see `silent_process`.
const PATH: &str = "STATEKEEP_EMBED_PATH";

/// Makes an application with a database in use, a large file and many small ones.
fn make_app(dir: &Path, seed: u64) -> (PathBuf, Connection) {
    let app = dir.join("app");
    fs::create_dir_all(app.join("rules")).unwrap();
    let mut random = support::Seeded::new(seed);
    for number in 0..60 {
        let text = random.text(40);
        fs::write(app.join(format!("rules/{number}.toml")), text).unwrap();
    }
    fs::write(app.join("large.bin"), random.bytes(3 << 20)).unwrap();
    let db = Connection::open(app.join("app.db")).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE t (x);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000)
         INSERT INTO t SELECT 'row ' || i FROM n; PRAGMA wal_checkpoint(TRUNCATE)",
    )
    .unwrap();
    (app, db)
}

fn place(dir: &Path) -> Place {
    let protection = Protection::KeyFile(dir.join("keys/backup.key"));
    Place::new(dir.join("repo"), protection).with_cache(dir.join("cache"))
}

/// A context that writes down every event, and stops at one of them.
fn recorded(stop_at: usize) -> (Context, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let count = AtomicUsize::new(0);
    let cx = Context::watched(move |event| {
        seen.lock().unwrap().push(event.clone());
        match count.fetch_add(1, Ordering::Relaxed) == stop_at {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    (cx, events)
}

/// A phase, with the files and bytes that were announced, if they were, and those that were done.
type Phase = (&'static str, Option<[u64; 2]>, [u64; 2]);

/// Returns what was told of each phase.
fn phases(events: &[Event]) -> Vec<Phase> {
    let mut phases = Vec::new();
    for event in events {
        match event {
            Event::Phase(name) => phases.push((*name, None, [0, 0])),
            Event::Total { files, bytes } => {
                phases.last_mut().unwrap().1 = Some([*files, *bytes]);
            }
            Event::Done { files, bytes } => {
                let Some((_, _, done)) = phases.last_mut() else {
                    panic!("{event:?} before any phase");
                };
                done[0] += files;
                done[1] += bytes;
            }
            _ => {}
        }
    }
    phases
}

fn everything(dir: &Path) {
    let (app, db) = make_app(dir, 1);
    let cx = Context::new();
    let keeper = Keeper::open_or_create(&cx, &place(dir)).unwrap();
    let options = BackupOptions::of(&app);
    for round in 0..3 {
        db.execute("INSERT INTO t VALUES (?1)", [round]).unwrap();
        let saved = keeper.backup(&cx, &options).unwrap();
        assert!(saved.warnings.is_empty(), "{:?}", saved.warnings);
    }
    assert_eq!(keeper.list(&cx).unwrap().len(), 3);
    assert!(keeper.drill(&cx, "latest", dir).unwrap().passed());
    let target = RestoreOptions::new(dir.join("restored"));
    let restored = keeper.restore(&cx, "latest~1", &target).unwrap();
    assert_eq!(restored.failures.count, 0);
    let pruned = keeper.prune(&cx, &Policy::last(1)).unwrap();
    assert_eq!(pruned.removed.len(), 2);
    assert!(keeper.check(&cx, ReadData::All).unwrap().is_clean());
    // Also what fails is silent.
    let elsewhere = Place::new(dir.join("nothing"), Protection::Plain);
    let missing = Keeper::open(&elsewhere).err();
    assert!(matches!(missing, Some(Error::NoRepo { .. })), "{missing:?}");
    let found = keeper.restore(&cx, "nonsense", &target).err();
    assert!(matches!(found, Some(Error::NotFound { .. })), "{found:?}");
}

/// Not a test: everything once, in a process whose whole output the test sees.
#[test]
#[ignore = "runs in a process of its own"]
fn silent_process() {
    if let Ok(path) = std::env::var(PATH) {
        everything(Path::new(&path));
    }
}

#[test]
fn an_operation_prints_nothing() {
    let dir = TempDir::new().unwrap();

    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embed::silent_process", "--ignored"])
        .args(["--nocapture", "--test-threads=1"])
        .env(PATH, dir.path())
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&output.stdout);
    let of_harness = |line: &&str| {
        line.is_empty() || line.starts_with("running 1 test") || line.starts_with("test ")
    };
    let rest: Vec<&str> = said.lines().filter(|line| !of_harness(line)).collect();
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("1 passed"), "{said}");
    assert!(rest.is_empty(), "{rest:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// Each keeper has its own time, its own events and its own flag to stop.
#[test]
fn two_repositories_in_two_threads_share_nothing() {
    let began = Arc::new(std::sync::Barrier::new(2));
    let run = |seed: u64, stops: bool| {
        let began = Arc::clone(&began);
        std::thread::spawn(move || {
            let dir = TempDir::new().unwrap();
            let (app, _db) = make_app(dir.path(), seed);
            let (mut cx, events) = recorded(usize::MAX);
            let year = Timestamp((30 + seed as i64) * 365 * 24 * 3600 * 1_000_000_000);
            cx.clock = Arc::new(support::TestClock::at(year));
            let keeper = Keeper::open_or_create(&cx, &place(dir.path())).unwrap();
            began.wait();
            for _ in 0..5 {
                if stops {
                    let stopped = Context::watched(|_| ControlFlow::Break(()));
                    let options = BackupOptions::of(&app);
                    let result = keeper.backup(&stopped, &options).err();
                    assert!(matches!(result, Some(Error::Cancelled)), "{result:?}");
                }
                keeper.backup(&cx, &BackupOptions::of(&app)).unwrap();
            }
            let times = keeper.list(&cx).unwrap().into_iter();
            let times = times.map(|one| one.manifest.started_at);
            let others = times.filter(|time| time.since_ns(year).abs() > 1_000_000_000);
            assert_eq!(others.count(), 0);
            let events = events.lock().unwrap();
            let backups = |event: &&Event| **event == Event::Phase("read");
            // The first one looks for databases, and may begin again once it knows them.
            (5..=6).contains(&events.iter().filter(backups).count())
        })
    };

    let (one, other) = (run(1, true), run(2, false));

    assert!(one.join().unwrap());
    assert!(other.join().unwrap());
}

#[test]
fn a_backup_stopped_at_any_event_leaves_a_clean_repository() {
    let dir = TempDir::new().unwrap();
    let (app, db) = make_app(dir.path(), 3);
    let quiet = Context::new();
    let keeper = Keeper::open_or_create(&quiet, &place(dir.path())).unwrap();
    let options = BackupOptions::of(&app);
    let mut random = support::Seeded::new(4);
    let (mut stop_at, mut saved, mut stopped) = (0, 0, 0);
    loop {
        // Something new each time, so that each has something to store.
        fs::write(app.join("large.bin"), random.bytes(3 << 20)).unwrap();
        db.execute("INSERT INTO t VALUES (?1)", [stop_at as i64])
            .unwrap();
        let (cx, events) = recorded(stop_at);

        let result = keeper.backup(&cx, &options);

        match result {
            Ok(_) => saved += 1,
            Err(Error::Cancelled) => stopped += 1,
            Err(error) => panic!("event {stop_at}: {error}"),
        }
        assert_eq!(keeper.list(&quiet).unwrap().len(), saved, "event {stop_at}");
        let report = keeper.check(&quiet, ReadData::No).unwrap();
        assert!(report.is_clean(), "event {stop_at}: {report:?}");
        if events.lock().unwrap().len() <= stop_at {
            break;
        }
        stop_at += 1;
    }
    assert!(stopped > 0 && stop_at > 4, "{stopped} of {stop_at}");
    // What the stopped ones stored is in the way of nobody.
    let saved = keeper.backup(&quiet, &options).unwrap();
    let target = dir.path().join("restored");
    support::restore(keeper.repo(), &saved, &target);
    assert_eq!(contents(&target), contents(&app));
    assert!(keeper.check(&quiet, ReadData::All).unwrap().is_clean());
}

/// Returns the files below a directory but those of the database, which is compared by its rows.
fn contents(root: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let model = support::model_of(root).into_iter();
    let files = model.filter(|(path, node)| node.1 == "file" && !path.starts_with(b"app.db"));
    let mut files: BTreeMap<_, _> = files.map(|(path, node)| (path, node.2)).collect();
    if let Ok(db) = Connection::open(root.join("app.db")) {
        let sql = "SELECT count(*) || ' ' || max(rowid) FROM t";
        let rows: Result<String, _> = db.query_row(sql, [], |row| row.get(0));
        files.extend(rows.map(|rows| (b"app.db".to_vec(), rows.into_bytes())));
    }
    files
}

#[test]
fn a_restore_stopped_at_any_event_publishes_nothing_by_halves() {
    let dir = TempDir::new().unwrap();
    let (app, _db) = make_app(dir.path(), 5);
    let quiet = Context::new();
    let keeper = Keeper::open_or_create(&quiet, &place(dir.path())).unwrap();
    keeper.backup(&quiet, &BackupOptions::of(&app)).unwrap();
    let whole = contents(&app);
    let target = dir.path().join("restored");
    let options = RestoreOptions::new(&target);
    let (cx, events) = recorded(usize::MAX);
    keeper.restore(&cx, "latest", &options).unwrap();
    let count = events.lock().unwrap().len();
    let nodes = support::model_of(&target).len();
    // Most events are alike: all of the first and the last, and some between.
    let step = (count / 8).max(1);
    let between = (6..count.saturating_sub(6)).step_by(step);
    let stops = (0..count.min(6)).chain(between).chain(count - 6..count);
    for stop_at in stops {
        fs::remove_dir_all(&target).unwrap();
        let (cx, _) = recorded(stop_at);

        let result = keeper.restore(&cx, "latest", &options);

        let is_stopped = matches!(result, Err(Error::Cancelled));
        assert!(is_stopped || result.is_ok(), "event {stop_at}: {result:?}");
        let there = match target.exists() {
            true => support::model_of(&target),
            false => BTreeMap::new(),
        };
        for (path, (_, kind, bytes)) in there {
            let is_temp = path
                .split(|&b| b == b'/')
                .any(|name| name.starts_with(b"."));
            if kind == "file" && !is_temp && path != b"app.db" {
                assert!(
                    whole[&path] == bytes,
                    "event {stop_at}: {path:?} is there in part"
                );
            }
        }
        // The next run takes up where this one ended, and leaves nothing of it behind.
        keeper.restore(&quiet, "latest", &options).unwrap();
        assert_eq!(support::model_of(&target).len(), nodes, "event {stop_at}");
        assert!(contents(&target) == whole, "event {stop_at}");
    }
}

#[test]
fn what_progress_tells_adds_up() {
    let dir = TempDir::new().unwrap();
    let (app, db) = make_app(dir.path(), 6);
    fs::hard_link(app.join("large.bin"), app.join("rules/same.bin")).unwrap();
    let keeper = Keeper::open_or_create(&Context::new(), &place(dir.path())).unwrap();
    let options = BackupOptions::of(&app);
    keeper.backup(&Context::new(), &options).unwrap();
    for is_changed in [false, true] {
        if is_changed {
            db.execute("UPDATE t SET x = 'changed' WHERE rowid = 1", [])
                .unwrap();
            fs::write(app.join("rules/1.toml"), "x = 1").unwrap();
        }
        let (cx, events) = recorded(usize::MAX);
        let figures = keeper.backup(&cx, &options).unwrap().manifest.figures;
        let told = phases(&events.lock().unwrap());
        let (name, total, done) = *told.last().unwrap();
        assert_eq!(name, "read");
        assert_eq!(done, [figures.files, figures.total_bytes], "{told:?}");
        // Before anything was read, the last backup says how much it will be, about.
        let total = total.unwrap();
        assert_eq!(total[0], figures.files);
        assert!(total[1].abs_diff(figures.total_bytes) < 100, "{told:?}");
        assert!(figures.new_bytes <= figures.total_bytes);
    }
    let (cx, events) = recorded(usize::MAX);
    let mut target = RestoreOptions::new(dir.path().join("restored"));
    target.replace = Replace::Changed;
    keeper.restore(&cx, "latest", &target).unwrap();
    keeper.check(&cx, ReadData::All).unwrap();
    for (name, total, done) in phases(&events.lock().unwrap()) {
        if let Some(total) = total {
            assert_eq!(done[0], total[0], "files of {name}");
            assert!(total[1] == 0 || done[1] == total[1], "bytes of {name}");
        }
    }
}

#[test]
fn nothing_new_is_made_where_a_repository_was() {
    let dir = TempDir::new().unwrap();
    let (cx, place) = (Context::new(), place(dir.path()));
    let Protection::KeyFile(key) = &place.protection else {
        unreachable!()
    };
    let keeper = Keeper::open_or_create(&cx, &place).unwrap();
    let id = keeper.repo().id();
    let mode = fs::metadata(key).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(Keeper::open(&place).unwrap().repo().id(), id);

    // As when its disk is not mounted.
    fs::rename(&place.repo, dir.path().join("away")).unwrap();
    let refused = Keeper::open_or_create(&cx, &place).err();
    assert!(
        matches!(refused, Some(Error::Refused { .. })),
        "{refused:?}"
    );
    assert!(!place.repo.exists());
    fs::rename(dir.path().join("away"), &place.repo).unwrap();

    // Without its key it opens for nobody, and the key of another one is named as such.
    fs::rename(key, dir.path().join("kept.key")).unwrap();
    let missing = Keeper::open_or_create(&cx, &place).err();
    assert!(
        matches!(missing, Some(Error::WrongKey { .. })),
        "{missing:?}"
    );
    let other = Place::new(dir.path().join("other"), Protection::KeyFile(key.clone()));
    Keeper::create(&cx, &other).unwrap();
    let wrong = Keeper::open(&place).err().unwrap().to_string();
    assert!(wrong.contains("is for repository"), "{wrong}");
}

/// A crash anywhere between the key and its final name: the next run goes on.
#[test]
fn a_creation_that_was_cut_off_is_finished_by_the_next_run() {
    let dir = TempDir::new().unwrap();
    let (cx, place) = (Context::new(), place(dir.path()));
    let Protection::KeyFile(key) = &place.protection else {
        unreachable!()
    };
    let pending = key.with_extension("key.new");
    let keeper = Keeper::open_or_create(&cx, &place).unwrap();
    let id = keeper.repo().id();

    // After the repository, before the name.
    fs::rename(key, &pending).unwrap();
    assert_eq!(Keeper::open_or_create(&cx, &place).unwrap().repo().id(), id);
    assert!(key.exists() && !pending.exists());
    // After the key, before the repository.
    fs::rename(key, &pending).unwrap();
    fs::remove_dir_all(&place.repo).unwrap();
    assert_eq!(Keeper::open_or_create(&cx, &place).unwrap().repo().id(), id);
    assert!(key.exists() && !pending.exists());
}

#[test]
fn many_who_create_at_once_get_the_same_repository() {
    let dir = TempDir::new().unwrap();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let keeper = Keeper::open_or_create(&Context::new(), &place(dir.path()));
                    keeper.unwrap().repo().id()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });

    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let keeper = Keeper::open(&place(dir.path())).unwrap();
    assert_eq!(keeper.repo().keys().unwrap().len(), 1);
    assert_eq!(keeper.repo().store().list(Folder::Keys).unwrap().len(), 1);
}

#[test]
fn a_passphrase_opens_what_it_made_and_plain_needs_none() {
    let dir = TempDir::new().unwrap();
    let cx = Context::new();
    let with = |text: &str| Place::new(dir.path().join("p"), Protection::passphrase(text));
    Keeper::open_or_create(&cx, &with("correct horse")).unwrap();

    Keeper::open_or_create(&cx, &with("correct horse")).unwrap();
    let wrong = Keeper::open_or_create(&cx, &with("battery")).err();
    assert!(matches!(wrong, Some(Error::WrongKey { .. })), "{wrong:?}");
    let plain = Place::new(dir.path().join("q"), Protection::Plain);
    Keeper::open_or_create(&cx, &plain).unwrap();
    // A key was asked for, and whoever forged the directory may not be believed.
    let forged = Place::new(dir.path().join("q"), Protection::passphrase("x"));
    assert!(Keeper::open(&forged).is_err());
}

/// The lines that `docs/embed.md` shows, as an application would have them.
#[allow(dead_code, reason = "that it compiles is the claim")]
fn lines_of_the_document() -> statekeep::Result<()> {
    let cx = Context::new();
    let protection = Protection::KeyFile("/etc/app/backup.key".into());
    let place = Place::new("/var/backups/app", protection).with_cache("/var/cache/app");
    let keeper = Keeper::open_or_create(&cx, &place)?;
    let saved = keeper.backup(&cx, &BackupOptions::of("/srv/app"))?;
    let snapshots = keeper.list(&cx)?;
    let proof = keeper.drill(&cx, "latest", "/var/tmp")?;
    keeper.restore(&cx, "latest", &RestoreOptions::new("/srv/restored"))?;
    keeper.prune(&cx, &Policy::last(7))?;
    drop((saved, snapshots, proof));
    Ok(())
}

#[test]
fn the_document_shows_lines_that_compile_and_there_are_no_more_than_ten() {
    let text = include_str!("../docs/embed.md");
    let block = text.split("```rust\n").nth(1).unwrap();
    let lines: Vec<&str> = block.split("```").next().unwrap().lines().collect();
    let ours = include_str!("embed.rs");

    for line in &lines {
        assert!(ours.contains(&format!("    {line}\n")), "{line}");
    }
    assert!(lines.len() <= 10, "{}", lines.len());
}
