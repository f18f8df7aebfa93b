//! Databases that are written to while they are backed up, judged after restore (I11, I12).
//!
//! CI runs a short slice. The long run:
//! `STATEKEEP_CYCLES=200 cargo test --release live:: -- --include-ignored --nocapture`
//! runs so many cycles of every profile. `STATEKEEP_KEEP=DIR` keeps what failed.

use crate::oracle;
use crate::oracle::Place;
use crate::oracle::Source;
use crate::oracle::judge;
use crate::support::Seeded;
use crate::writers::Engine;
use crate::writers::Habit;
use crate::writers::PATIENCE;
use crate::writers::Spec;
use crate::writers::Writer;
use crate::writers::twin_of;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

fn cycles(default: u64) -> u64 {
    std::env::var("STATEKEEP_CYCLES").map_or(default, |text| text.parse().unwrap())
}

/// What went wrong, by kind: a run goes on, so that it can say how often.
#[derive(Default)]
struct Tally {
    cycles: u64,
    faults: BTreeMap<&'static str, Vec<String>>,
}

impl Tally {
    fn note(&mut self, kind: &'static str, fault: Result<(), String>) {
        if let Err(fault) = fault {
            let fault = format!("cycle {}: {fault}", self.cycles);
            self.faults.entry(kind).or_default().push(fault);
        }
    }

    /// Says what went wrong how often, and returns it.
    fn finish(self, name: &str) -> Vec<String> {
        eprintln!("{name}: {} cycles", self.cycles);
        let said = self.faults.iter().map(|(kind, faults)| {
            let first: String = faults[0].lines().take(2).collect();
            format!("{name}: {kind}: {} faults, first {first}", faults.len())
        });
        let said: Vec<_> = said.collect();
        said.iter().for_each(|line| eprintln!("  {line}"));
        said
    }
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// One application under one repository, for as many cycles as are wanted.
struct Run {
    name: &'static str,
    /// Before their place: dropped in this order, no writer finds its directory gone.
    writers: Vec<Writer>,
    place: Place,
    specs: Vec<Spec>,
    random: Seeded,
    tally: Tally,
    /// The greatest numbers that are known to be committed and to have been tried.
    acked: u64,
    tried: u64,
}

impl Run {
    /// `specs` all write to the one database that the first of them names.
    fn new(name: &'static str, seed: u64, specs: impl Fn(&Path) -> Vec<Spec>) -> Run {
        let place = Place::new();
        let specs = specs(&place.path("app"));
        let mut run = Run {
            name,
            writers: vec![],
            place,
            specs,
            random: Seeded::new(seed),
            tally: Tally::default(),
            acked: 0,
            tried: 0,
        };
        run.start_writers();
        run.wait_for_work();
        run
    }

    fn start_writers(&mut self) {
        self.writers = self.specs.iter().map(Writer::start).collect();
    }

    fn kill_writers(&mut self) {
        self.writers.iter_mut().for_each(Writer::kill);
        self.listen();
        self.writers.clear();
    }

    fn listen(&mut self) {
        for writer in &self.writers {
            self.acked = self.acked.max(writer.acked());
            self.tried = self.tried.max(writer.tried());
        }
    }

    /// Waits until any of the writers commits: one without a pause can keep the others out for as
    /// long as it likes.
    fn wait_for_work(&mut self) {
        let acked = |writers: &[Writer]| writers.iter().map(Writer::acked).max().unwrap();
        let next = acked(&self.writers) + 5;
        let began = Instant::now();
        while acked(&self.writers) < next {
            let all_run = self.writers.iter_mut().all(Writer::is_running);
            assert!(all_run, "{}: a writer died", self.name);
            assert!(began.elapsed() < PATIENCE, "{}: no commits", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn cycle(&mut self) {
        self.tally.cycles += 1;
        match self.random.below(10) {
            0 | 1 => {
                self.kill_writers();
                self.backup_at_rest();
                self.start_writers();
            }
            2 | 3 => {
                let mut backup = self.place.spawn_backup();
                std::thread::sleep(Duration::from_micros(self.random.below(60_000)));
                backup.kill().unwrap();
                backup.wait().unwrap();
                // A dead backup must not be in the way of the application.
                self.wait_for_work();
                self.backup();
            }
            _ => self.backup(),
        }
        self.wait_for_work();
    }

    /// A backup after which the source must be what it was.
    fn backup_at_rest(&mut self) {
        let before = Source::look(&self.place.path("app"));
        self.backup();
        let after = Source::look(&self.place.path("app"));
        let same = match before == after {
            true => Ok(()),
            false => Err(format!("{before:?} became {after:?}")),
        };
        self.tally.note("source", same);
    }

    fn backup(&mut self) {
        self.listen();
        let floor = self.acked;
        let output = self.place.backup();
        self.listen();
        let fine = match output.status.code() {
            Some(0) => Ok(()),
            code => Err(format!("exit {code:?}: {}", oracle::stderr(&output))),
        };
        self.tally.note("exit", fine);
        let path = self.specs[0].path.clone();
        self.tally.note("owner", oracle::sidecars_belong(&path));
        let target = self.place.restore("latest");
        let judged = self.judge(target.path(), floor);
        if judged.is_err() {
            keep(target.path(), self.name, self.tally.cycles);
        }
        self.tally.note("content", judged.map(|_| ()));
    }

    /// Returns the newest number restored.
    fn judge(&mut self, target: &Path, floor: u64) -> Result<u64, String> {
        let left = oracle::sidecars_in(target);
        let clean = match left.is_empty() {
            true => Ok(()),
            false => Err(format!("restored {left:?}")),
        };
        self.tally.note("sidecars", clean);
        let engine = self.specs[0].engine;
        let file = target.join(self.specs[0].path.file_name().unwrap());
        let newest = judge(engine, &file)?;
        if newest < floor {
            return Err(format!("holds {newest}, but {floor} was acknowledged"));
        }
        // What was tried before the backup ended may not have been heard yet.
        let began = Instant::now();
        while self.tried < newest && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
            self.listen();
        }
        match newest <= self.tried {
            true => Ok(newest),
            false => Err(format!("holds {newest}, but only {} was tried", self.tried)),
        }
    }

    fn finish(mut self, default: u64) -> Vec<String> {
        for _ in 0..cycles(default) {
            self.cycle();
        }
        self.kill_writers();
        let check = self.place.run(&["check", "--read-data"]);
        assert!(check.status.success(), "{}", oracle::stderr(&check));
        self.tally.finish(self.name)
    }
}

fn keep(dir: &Path, name: &str, cycle: u64) {
    let Some(to) = std::env::var_os("STATEKEEP_KEEP") else {
        return;
    };
    let to = Path::new(&to).join(format!("{name}-{cycle}"));
    fs::create_dir_all(&to).unwrap();
    for name in oracle::names_in(dir) {
        fs::copy(dir.join(&name), to.join(&name)).unwrap();
    }
}

fn sqlite(dir: &Path, journal: &str, habits: &[Habit]) -> Spec {
    Spec {
        rows: 6000,
        ..Spec::sqlite(&dir.join("app.db"), journal).with(habits)
    }
}

#[test]
fn live_wal_with_two_writers_that_checkpoint_restores_a_prefix() {
    let run = Run::new("wal", 1, |dir| {
        let habits = [Habit::Checkpoints, Habit::Schema, Habit::Search];
        let first = sqlite(dir, "wal", &habits);
        let second = Spec {
            seed: 2,
            ..first.clone()
        };
        vec![first, second]
    });
    assert_none(&run.finish(5));
}

#[test]
fn live_wal_that_only_grows_restores_a_prefix() {
    let run = Run::new("wal that grows", 2, |dir| {
        vec![Spec {
            checkpoint_pages: 0,
            ..sqlite(dir, "wal", &[Habit::Schema])
        }]
    });
    assert_none(&run.finish(3));
}

#[test]
fn live_wal_of_extreme_page_sizes_restores_a_prefix() {
    let mut faults = vec![];
    for page_bytes in [512, 65_536] {
        let run = Run::new("wal, page size", u64::from(page_bytes), |dir| {
            vec![Spec {
                page_bytes,
                ..sqlite(dir, "wal", &[Habit::Checkpoints, Habit::Vacuum])
            }]
        });
        faults.extend(run.finish(2));
    }
    assert_none(&faults);
}

#[test]
fn live_rollback_journals_restore_a_prefix() {
    let mut faults = vec![];
    for (seed, journal) in [(3, "delete"), (4, "truncate"), (5, "persist")] {
        let run = Run::new(journal, seed, |dir| {
            let habits = [Habit::Vacuum, Habit::Schema, Habit::Search];
            vec![sqlite(dir, journal, &habits)]
        });
        faults.extend(run.finish(2));
    }
    assert_none(&faults);
}

#[test]
fn live_rollback_writer_without_pause_restores_a_prefix() {
    let run = Run::new("delete, no pause", 6, |dir| {
        let first = Spec {
            pause_us: 0,
            ..sqlite(dir, "delete", &[])
        };
        let second = Spec {
            seed: 9,
            ..first.clone()
        };
        vec![first, second]
    });
    assert_none(&run.finish(3));
}

#[test]
fn live_redb_restores_a_prefix() {
    let kinds: [(&str, &[Habit]); 4] = [
        ("redb", &[]),
        ("redb, soft", &[Habit::Soft]),
        ("redb, savepoints", &[Habit::Savepoints]),
        (
            "redb, two phases",
            &[Habit::TwoPhase, Habit::QuickRepair, Habit::Savepoints],
        ),
    ];
    let mut faults = vec![];
    for (seed, (name, habits)) in (10..).zip(kinds) {
        let run = Run::new(name, seed, |dir| {
            vec![Spec {
                rows: 12_000,
                pause_us: 0,
                ..Spec::redb(&dir.join("app.redb")).with(habits)
            }]
        });
        faults.extend(run.finish(2));
    }
    assert_none(&faults);
}

/// Every snapshot of a series, at its end: none may depend on what came later.
#[test]
fn every_snapshot_of_a_live_series_restores_a_longer_prefix() {
    for (name, engine) in [("app.db", Engine::Sqlite), ("app.redb", Engine::Redb)] {
        let mut run = Run::new("series", 20, |dir| {
            let habits = [Habit::Checkpoints, Habit::Savepoints];
            vec![Spec {
                engine,
                ..Spec::sqlite(&dir.join(name), "wal").with(&habits)
            }]
        });
        let mut floors = vec![];
        for _ in 0..cycles(5) {
            run.listen();
            floors.push(run.acked);
            let output = run.place.backup();
            assert_eq!(output.status.code(), Some(0), "{}", oracle::stderr(&output));
            run.wait_for_work();
        }
        run.kill_writers();
        let mut newest = 0;
        let snapshots = run.place.snapshots();
        assert_eq!(snapshots.len(), floors.len());
        for (snapshot, floor) in snapshots.iter().zip(floors) {
            assert_eq!(snapshot["partial"], false);
            let target = run.place.restore(snapshot["id"].as_str().unwrap());
            let n = run.judge(target.path(), floor).unwrap();
            assert!(newest <= n, "{n} after {newest}");
            newest = n;
        }
        assert_none(&run.tally.finish("series"));
    }
}

/// Two databases of one application, where the second follows the first.
fn pair_is_never_ahead(
    first: (Engine, &str),
    second: (Engine, &str),
    journal: &str,
) -> Vec<String> {
    let place = Place::new();
    let spec = Spec {
        engine: first.0,
        second: Some((second.0, place.app(second.1))),
        rows: 600,
        ..Spec::sqlite(&place.app(first.1), journal)
    };
    let mut writer = Writer::start(&spec);
    let mut tally = Tally::default();
    let (mut acked, mut random) = (0, Seeded::new(30));
    for _ in 0..cycles(2) {
        tally.cycles += 1;
        writer.wait_acked(writer.acked() + 5);
        if random.below(4) == 0 {
            writer.kill();
        }
        acked = acked.max(writer.acked());
        let output = place.backup();
        let fine = match output.status.code() {
            Some(0) => Ok(()),
            code => Err(format!("exit {code:?}: {}", oracle::stderr(&output))),
        };
        tally.note("exit", fine);
        tally.note("content", judge_pair(&place, first, second, acked));
        if !writer.is_running() {
            writer = Writer::start(&spec);
        }
    }
    tally.finish(&format!("{first:?} then {second:?}, {journal}"))
}

fn judge_pair(
    place: &Place,
    first: (Engine, &str),
    second: (Engine, &str),
    acked: u64,
) -> Result<(), String> {
    let target = place.restore("latest");
    let a = judge(first.0, &target.path().join(first.1))?;
    let b = judge(second.0, &target.path().join(second.1))?;
    match acked <= b && b <= a {
        true => Ok(()),
        false => Err(format!("{acked} acknowledged, first has {a}, second {b}")),
    }
}

fn pairs_are_never_ahead(first: &str, second: &str) {
    let (sqlite, redb) = (Engine::Sqlite, Engine::Redb);
    let faults: Vec<String> = [
        (sqlite, sqlite, "wal"),
        (sqlite, sqlite, "delete"),
        (sqlite, redb, "wal"),
        (redb, sqlite, "wal"),
        (redb, redb, ""),
    ]
    .into_iter()
    .flat_map(|(a, b, journal)| pair_is_never_ahead((a, first), (b, second), journal))
    .collect();
    assert_none(&faults);
}

#[test]
fn live_pair_restores_no_second_without_its_first_when_the_first_sorts_first() {
    pairs_are_never_ahead("a.db", "b.db");
}

#[test]
fn live_pair_restores_no_second_without_its_first_when_the_first_sorts_last() {
    pairs_are_never_ahead("b.db", "a.db");
}

/// Returns the newest number of a database that commits together with another.
fn newest_of_twin(path: &Path) -> u64 {
    let conn = rusqlite::Connection::open(path).unwrap();
    oracle::is_sound(&conn).unwrap();
    let sql = "SELECT coalesce(max(n), 0), count(*) FROM follower";
    let row = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
    let (newest, count): (i64, i64) = row.unwrap();
    assert_eq!(newest, count, "gaps");
    newest as u64
}

#[test]
fn live_attached_databases_restore_what_was_committed_to_both() {
    for journal in ["delete", "persist", "wal"] {
        let place = Place::new();
        let path = place.app("app.db");
        let spec = Spec {
            rows: 300,
            ..Spec::sqlite(&path, journal).with(&[Habit::Attached])
        };
        let mut writer = Writer::start(&spec);
        let (mut acked, mut random) = (0, Seeded::new(31));
        for cycle in 0..cycles(4) {
            writer.wait_acked(writer.acked() + 5);
            if random.below(3) == 0 {
                writer.kill();
            }
            acked = acked.max(writer.acked());

            let output = place.backup();

            assert_eq!(output.status.code(), Some(0), "{}", oracle::stderr(&output));
            let target = place.restore("latest");
            let a = judge(Engine::Sqlite, &target.path().join("app.db")).unwrap();
            let b = newest_of_twin(&twin_of(&target.path().join("app.db")));
            let case = format!("{journal}, cycle {cycle}: {acked} acknowledged, {a} and {b}");
            // With write-ahead logs each file commits for itself, one after the other.
            let together = if journal == "wal" {
                b <= a && a <= b + 1
            } else {
                a == b
            };
            assert!(acked <= b && together, "{case}");
            if !writer.is_running() {
                writer = Writer::start(&spec);
            }
        }
    }
}
