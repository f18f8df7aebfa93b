//! An application that keeps writing to its own SQLite database while it backs itself up, shows how
//! far it is, can be stopped, rehearses a restore, restores, and tidies up.
//!
//! `cargo run --example embed_sqlite -- DIRECTORY`

#![allow(clippy::print_stdout, reason = "an example says what it does")]

use rusqlite::Connection;
use statekeep::BackupOptions;
use statekeep::Context;
use statekeep::Error;
use statekeep::Event;
use statekeep::Keeper;
use statekeep::Place;
use statekeep::Policy;
use statekeep::Protection;
use statekeep::RestoreOptions;
use std::ops::ControlFlow;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// All that an application has to write: ten lines.
fn keep(cx: &Context, dir: &Path, app: &Path) -> statekeep::Result<()> {
    let protection = Protection::KeyFile(dir.join("backup.key"));
    let place = Place::new(dir.join("backups"), protection).with_cache(dir.join("cache"));
    let keeper = Keeper::open_or_create(cx, &place)?;
    let saved = keeper.backup(cx, &BackupOptions::of(app))?;
    println!("saved, with {} warnings", saved.warnings.len());
    println!("{} snapshots are there", keeper.list(cx)?.len());
    println!("{}", keeper.drill(cx, "latest", dir)?.result);
    keeper.restore(cx, "latest", &RestoreOptions::new(dir.join("restored")))?;
    let removed = keeper.prune(cx, &Policy::last(2))?.removed;
    println!("{} snapshots removed", removed.len());
    Ok(())
}

/// Commits one row after the other until it is told to end.
fn write(path: &Path, acknowledged: &AtomicU64, ends: &AtomicBool) -> rusqlite::Result<()> {
    let db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.execute_batch("CREATE TABLE IF NOT EXISTS visits (n INTEGER PRIMARY KEY, page TEXT)")?;
    while !ends.load(Ordering::Relaxed) {
        db.execute("INSERT INTO visits (page) VALUES ('home')", [])?;
        acknowledged.fetch_add(1, Ordering::Release);
    }
    Ok(())
}

/// Reports every phase, and how much of it was done.
fn watched() -> Context {
    Context::watched(|event| {
        if let Event::Phase(phase) = event {
            println!("  {phase} …");
        }
        // `ControlFlow::Break(())` here, from a button for example, stops the operation.
        ControlFlow::Continue(())
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("name a new directory")?;
    let dir = PathBuf::from(dir);
    let app = dir.join("app");
    std::fs::create_dir_all(&app)?;
    let (acknowledged, ends) = (AtomicU64::new(0), AtomicBool::new(false));

    std::thread::scope(|scope| -> Result<(), Box<dyn std::error::Error>> {
        let writer = scope.spawn(|| write(&app.join("visits.db"), &acknowledged, &ends));
        while acknowledged.load(Ordering::Acquire) < 100 && !writer.is_finished() {
            std::thread::yield_now();
        }
        let before = acknowledged.load(Ordering::Acquire);
        let kept = keep(&watched(), &dir, &app);
        let stopped = keep(&Context::watched(|_| ControlFlow::Break(())), &dir, &app);
        ends.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| "the writer panicked")??;
        kept?;
        println!("a stopped run ends with: {:?}", stopped.err());

        let restored = Connection::open(dir.join("restored/visits.db"))?;
        let rows: u32 = restored.query_row("SELECT count(*) FROM visits", [], |r| r.get(0))?;
        let rows = u64::from(rows);
        let after = acknowledged.load(Ordering::Acquire);
        println!("{before} commits before the backup, {rows} in it, {after} in all");
        match (before..=after).contains(&rows) {
            true => Ok(()),
            false => Err(Box::new(Error::corrupt("visits.db", "it lacks commits"))),
        }
    })
}
