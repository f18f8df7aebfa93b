//! An application with its own redb database that backs itself up, without a pause for its writers.
//!
//! `cargo run --example embed_redb -- REPOSITORY`

#![allow(clippy::print_stdout, reason = "an example says what it did")]

use redb::TableDefinition;
use statekeep::BackupOptions;
use statekeep::Context;
use statekeep::Keeper;
use statekeep::Place;
use statekeep::Protection;
use statekeep::ops::backup::Holder;
use statekeep::source::redb::Tracked;
use std::error::Error;
use std::fs::OpenOptions;
use std::sync::Arc;

const VISITS: TableDefinition<&str, u64> = TableDefinition::new("visits");

fn main() -> Result<(), Box<dyn Error>> {
    let place = std::env::args()
        .nth(1)
        .ok_or("name a directory for the repository")?;
    let app = std::env::temp_dir().join(format!("embed-redb-{}", std::process::id()));
    std::fs::create_dir_all(&app)?;
    let path = app.join("visits.redb");

    // The wrapper is a luxury: it tells whether anything was written since the last backup.
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false);
    let backend = redb::backends::FileBackend::new(file.open(&path)?)?;
    let (backend, tracker) = Tracked::new(backend);
    let database = Arc::new(redb::Database::builder().create_with_backend(backend)?);

    let cx = Context::new();
    let keeper = Keeper::open_or_create(&cx, &Place::new(place, Protection::Plain))?;
    let holder: Holder = database.clone();
    let options = BackupOptions {
        holders: vec![(path, holder)],
        ..BackupOptions::of(&app)
    };
    for count in 0..4 {
        if count != 2 {
            let transaction = database.begin_write()?;
            transaction.open_table(VISITS)?.insert("home", count)?;
            transaction.commit()?;
        }
        if tracker.take_changes().is_empty() {
            println!("nothing was written since the last backup");
            continue;
        }
        let report = keeper.backup(&cx, &options)?;
        let snapshot = report.snapshot.ok_or("nothing was saved")?;
        println!("snapshot {snapshot}, {} warnings", report.warnings.len());
    }
    drop(options);
    drop(database);
    std::fs::remove_dir_all(app)?;
    Ok(())
}
