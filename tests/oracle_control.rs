//! The controls of the oracle: what it must condemn, and what it must pass.

use crate::oracle::judge;
use crate::oracle::with_suffix;
use crate::writers::Engine;
use crate::writers::Habit;
use crate::writers::Spec;
use crate::writers::Writer;
use rusqlite::Connection;
use std::fs;
use tempfile::TempDir;

/// An oracle that passes plain copies of live files proves nothing.
#[test]
fn the_oracle_condemns_plain_copies_of_live_files() {
    let dir = TempDir::new().unwrap();
    let wal = Spec {
        rows: 6000,
        ..Spec::sqlite(&dir.path().join("app.db"), "wal").with(&[Habit::Checkpoints])
    };
    let rollback = Spec {
        path: dir.path().join("rollback.db"),
        journal: "delete".into(),
        ..wal.clone()
    };
    let redb = Spec {
        rows: 12_000,
        ..Spec::redb(&dir.path().join("app.redb"))
    };
    for spec in [wal, rollback, redb] {
        let mut writer = Writer::start(&Spec {
            pause_us: 0,
            ..spec.clone()
        });
        writer.wait_acked(20);
        let condemned = (1..=300).find_map(|copy| {
            let to = TempDir::new_in(dir.path()).unwrap();
            let to = to.path().join("copy");
            let floor = writer.acked();
            fs::copy(&spec.path, &to).unwrap();
            let _ = fs::copy(with_suffix(&spec.path, "-wal"), with_suffix(&to, "-wal"));
            match judge(spec.engine, &to) {
                Ok(newest) if floor <= newest => None,
                Ok(newest) => Some((copy, format!("{newest}, not {floor}"))),
                Err(fault) => Some((copy, fault)),
            }
        });
        let (copy, fault) = condemned.expect("a copy that is torn");
        let fault = fault.lines().next().unwrap_or_default();
        eprintln!("{}: copy {copy} is condemned: {fault}", spec.journal);
    }
}

/// Without its log, a database that a killed writer left is older than what it acknowledged; with
/// an older log it is something that never was. SQLite's own check finds neither.
#[test]
fn the_oracle_condemns_a_lost_log_and_a_stale_one() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("app.db");
    let wal = with_suffix(&path, "-wal");
    let mut spec = Spec::sqlite(&path, "wal");
    spec.commits = Some(30);
    spec.checkpoint_pages = 0;
    let mut writer = Writer::start(&spec);
    writer.wait_idle();
    writer.kill();
    let stale = fs::read(&wal).unwrap();
    spec.checkpoint_pages = 40;
    let mut writer = Writer::start(&spec);
    writer.wait_idle();
    writer.kill();
    let copy = |name: &str| {
        let to = dir.path().join(name);
        fs::copy(&path, &to).unwrap();
        to
    };

    let (whole, lost, old) = (copy("whole"), copy("lost"), copy("old"));
    fs::copy(&wal, with_suffix(&whole, "-wal")).unwrap();
    fs::write(with_suffix(&old, "-wal"), stale).unwrap();

    assert_eq!(judge(Engine::Sqlite, &whole), Ok(60));
    for path in [lost, old] {
        let judged = judge(Engine::Sqlite, &path);
        assert!(judged.as_ref().is_ok_and(|n| *n < 60) || judged.is_err());
    }
}

/// An oracle that condemns what is right hides what is wrong.
#[test]
fn the_oracle_passes_what_sqlite_itself_copies_out_of_live_files() {
    for journal in ["wal", "delete"] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("app.db");
        let habits = [Habit::Checkpoints, Habit::Schema, Habit::Search];
        let mut writer = Writer::start(&Spec::sqlite(&path, journal).with(&habits));
        for copy in 0..5 {
            let floor = writer.acked() + 5;
            writer.wait_acked(floor);
            let to = dir.path().join(format!("copy {copy}"));
            let conn = Connection::open(&path).unwrap();
            conn.busy_timeout(std::time::Duration::from_secs(60))
                .unwrap();
            conn.execute("VACUUM INTO ?1", [to.to_str().unwrap()])
                .unwrap();
            let judged = judge(Engine::Sqlite, &to);
            assert!(judged.as_ref().is_ok_and(|n| floor <= *n), "{judged:?}");
        }
    }
}

#[test]
fn the_oracle_passes_what_killed_writers_of_redb_left() {
    for habits in [
        &[][..],
        &[Habit::Soft],
        &[Habit::Savepoints],
        &[Habit::TwoPhase, Habit::QuickRepair, Habit::Savepoints],
    ] {
        let dir = TempDir::new().unwrap();
        let spec = Spec::redb(&dir.path().join("app.redb")).with(habits);
        for _ in 0..2 {
            let mut writer = Writer::start(&spec);
            writer.wait_acked(writer.acked().max(1) + 40);
            writer.kill();
            let (acked, tried) = (writer.acked(), writer.tried());
            let judged = judge(Engine::Redb, &spec.path);
            let fits = judged.as_ref().is_ok_and(|n| (acked..=tried).contains(n));
            assert!(fits, "{habits:?}: {acked}, {tried}, {judged:?}");
        }
    }
}
