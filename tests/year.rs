//! A year of hourly backups, thinned every day: what it costs and what restoring from it costs.
//!
//! `TMPDIR=/dev/shm cargo test --test main year:: -- --ignored --nocapture` takes minutes and prints
//! the table of `docs/decisions/0053-thinning-by-trees.md`. `STATEKEEP_YEAR_HOURS` makes it shorter,
//! `STATEKEEP_YEAR_ROWS` smaller (each group of pages changes as often), and
//! `STATEKEEP_YEAR_LAZY=1` shows what it would be without rewriting.
//! Time is simulated, the data is not: two SQLite databases of which 0.2 % of the rows change an hour.

use crate::support;
use crate::support::Seeded;
use jiff::tz::TimeZone;
use rusqlite::Connection;
use statekeep::context::Context;
use statekeep::context::Timestamp;
use statekeep::disk::RealDisk;
use statekeep::format::manifest::Manifest;
use statekeep::ops::backup;
use statekeep::ops::keep::Policy;
use statekeep::ops::prune;
use statekeep::ops::prune::Limits;
use statekeep::ops::prune::PruneOptions;
use statekeep::ops::restore;
use statekeep::ops::restore::RestoreOptions;
use statekeep::ops::snapshots;
use statekeep::ops::snapshots::Snapshot;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::repo::reach::Reach;
use statekeep::store::DirStore;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tempfile::TempDir;

const HOUR_NS: i64 = 3600 * 1_000_000_000;
/// Rows of each database, unless told.
const ROWS: u64 = 8_000;

struct Year {
    place: TempDir,
    repo: Repo,
    random: Seeded,
    start: Timestamp,
    rows: u64,
    next_row: u64,
    limits: Limits,
}

impl Year {
    fn new() -> Year {
        let place = TempDir::new().unwrap();
        let store = DirStore::create(Arc::new(RealDisk), &place.path().join("repo")).unwrap();
        let cache = place.path().join("cache");
        let repo = support::create(Arc::new(store), false, Some(&cache));
        std::fs::create_dir(place.path().join("app")).unwrap();
        let rows = std::env::var("STATEKEEP_YEAR_ROWS").map_or(ROWS, |rows| rows.parse().unwrap());
        let mut year = Year {
            rows,
            place,
            repo,
            random: Seeded::new(1),
            start: Timestamp(Context::new().clock.now().0 + 24 * HOUR_NS),
            next_row: rows,
            limits: match std::env::var_os("STATEKEEP_YEAR_LAZY") {
                None => Limits::default(),
                Some(_) => Limits {
                    repack_bytes_max: 0,
                    ..Limits::default()
                },
            },
        };
        let kv = year.open("kv.db");
        kv.execute_batch("create table kv(k integer primary key, v text, at integer); begin")
            .unwrap();
        let ts = year.open("ts.db");
        ts.execute_batch(
            "create table ts(id integer primary key, device int, value text, at integer);
             create index ts_device on ts(device, at); begin",
        )
        .unwrap();
        for row in 0..rows {
            let text = year.text();
            kv.execute("insert into kv values(?,?,0)", (row as i64, text))
                .unwrap();
            year.add_sample(&ts, row);
        }
        kv.execute_batch("commit").unwrap();
        ts.execute_batch("commit").unwrap();
        year
    }

    fn app(&self) -> PathBuf {
        self.place.path().join("app")
    }

    fn open(&self, name: &str) -> Connection {
        let connection = Connection::open(self.app().join(name)).unwrap();
        connection
            .execute_batch("pragma journal_mode=wal; pragma synchronous=off")
            .unwrap();
        connection
    }

    fn text(&mut self) -> String {
        let text = self.random.text(400);
        String::from_utf8(text).unwrap()
    }

    fn add_sample(&mut self, ts: &Connection, row: u64) {
        let (device, value) = (self.random.below(300) as i64, self.random.below(5000));
        let value = format!("{}.{:02}", value / 100, value % 100);
        let row = row as i64;
        ts.execute("insert into ts values(?,?,?,?)", (row, device, value, row))
            .unwrap();
    }

    fn change(&mut self, kv: &Connection, ts: &Connection) {
        kv.execute_batch("begin").unwrap();
        ts.execute_batch("begin").unwrap();
        for _ in 0..self.rows / 500 {
            let (row, text) = (self.random.below(self.rows) as i64, self.text());
            kv.execute("update kv set v=? where k=?", (text, row))
                .unwrap();
            let next = self.next_row;
            self.add_sample(ts, next);
            let first = (next - self.rows) as i64;
            ts.execute("delete from ts where id=?", [first]).unwrap();
            self.next_row += 1;
        }
        kv.execute_batch("commit").unwrap();
        ts.execute_batch("commit").unwrap();
    }

    fn context(&self, hour: i64) -> Context {
        Context {
            clock: Arc::new(support::TestClock::at(Timestamp(
                self.start.0 + hour * HOUR_NS,
            ))),
            ..Context::new()
        }
    }

    fn back_up(&self, hour: i64) {
        let options = support::options(&self.app());
        backup::backup(&self.context(hour), &self.repo, &options).unwrap();
    }

    fn prune(&self, hour: i64) -> (f64, u64) {
        let options = PruneOptions {
            policy: Some(Policy {
                hourly: 24,
                daily: 14,
                weekly: 8,
                monthly: 12,
                ..Policy::default()
            }),
            profile: None,
            host: None,
            zone: TimeZone::UTC,
            limits: self.limits,
            grace_ns: 0,
        };
        let cx = self.context(hour);
        let began = Instant::now();
        let plan = prune::plan(&cx, &self.repo, &options).unwrap();
        let report = prune::apply(&cx, &self.repo, &options, plan).unwrap();
        (began.elapsed().as_secs_f64(), report.written_bytes)
    }

    fn restore(&self, cx: &Context, snapshot: &Snapshot, target: &Path) -> f64 {
        let began = Instant::now();
        let state = self.repo.read_state(cx).unwrap();
        let chunks = Chunks::open(&self.repo, &state.packs).unwrap();
        let options = RestoreOptions::new(target);
        let plan = restore::plan(cx, &chunks, &snapshot.manifest, &options).unwrap();
        restore::apply(cx, &chunks, &snapshot.manifest, &options, &plan).unwrap();
        began.elapsed().as_secs_f64() * 1000.0
    }

    /// Returns how many records the deepest and the average chunk of a snapshot stand on.
    fn depth(&self, manifest: &Manifest, cx: &Context) -> (usize, f64) {
        let state = self.repo.read_state(cx).unwrap();
        let chunks = Chunks::open(&self.repo, &state.packs).unwrap();
        let (mut deepest, mut sum, mut count) = (0, 0, 0);
        let mut visit = |_, id: &_| {
            let depth = chunks.chain(&chunks.find(id)[0])?.len();
            deepest = deepest.max(depth);
            (sum, count) = (sum + depth, count + 1);
            Ok(())
        };
        Reach::begin(&chunks)
            .visit(cx, manifest, &mut visit)
            .unwrap();
        (deepest, sum as f64 / f64::from(count))
    }

    /// Returns what the bytes of all packs are, in MB: named whole and delta, mere bases whole and
    /// delta, records nobody needs.
    fn bytes(&self, snapshots: &[Snapshot], cx: &Context) -> [f64; 5] {
        let state = self.repo.read_state(cx).unwrap();
        let chunks = Chunks::open(&self.repo, &state.packs).unwrap();
        let (mut named, mut needed) = (BTreeSet::new(), BTreeMap::new());
        let mut reach = Reach::begin(&chunks);
        for snapshot in snapshots {
            let mut visit = |_, id: &_| {
                let record = chunks.find(id)[0];
                named.insert((record.pack, record.offset));
                for record in chunks.chain(&record)? {
                    needed.insert((record.pack, record.offset), record);
                }
                Ok(())
            };
            reach.visit(cx, &snapshot.manifest, &mut visit).unwrap();
        }
        let mut sums = [0.0; 5];
        for (place, record) in &needed {
            let is_delta = record.bases.first().is_some();
            let kind = usize::from(is_delta) + if named.contains(place) { 0 } else { 2 };
            sums[kind] += f64::from(record.stored_bytes) / 1e6;
        }
        for pack in state.packs.keys() {
            let rows = chunks.table(pack).unwrap();
            let found = statekeep::repo::chunks::records(*pack, &rows);
            let unneeded = found
                .iter()
                .filter(|r| !needed.contains_key(&(r.pack, r.offset)));
            sums[4] += unneeded.map(|r| f64::from(r.stored_bytes)).sum::<f64>() / 1e6;
        }
        sums
    }

    fn report(&self, hour: i64, pruned: (f64, u64)) {
        let cx = self.context(hour);
        let (state, all) = snapshots::list(&cx, &self.repo).unwrap();
        let stored: u64 = state.packs.values().map(|pack| pack.stored_bytes).sum();
        let target = TempDir::new_in(self.place.path()).unwrap();
        let (oldest, newest) = (&all[0], &all[all.len() - 1]);
        let new_ms = self.restore(&cx, newest, &target.path().join("new"));
        let old_ms = self.restore(&cx, oldest, &target.path().join("old"));
        let mut restored = Connection::open(target.path().join("old/kv.db")).unwrap();
        let check = restored.transaction().unwrap();
        let verdict: String =
            (check.query_row("pragma quick_check", [], |row| row.get(0))).unwrap();
        assert_eq!(verdict, "ok");
        let (new_depth, old_depth) = (
            self.depth(&newest.manifest, &cx),
            self.depth(&oldest.manifest, &cx),
        );
        let bytes = self.bytes(&all, &cx).map(|mb| format!("{mb:.2}"));
        eprintln!(
            "| {} | {} | {:.2} | {} | {} | {} | {new_ms:.0} / {old_ms:.0} | {} ({:.1}) / {} ({:.1}) | {:.2} s, {:.2} |",
            hour / 24,
            all.len(),
            stored as f64 / 1e6,
            bytes.join(" "),
            state.packs.len(),
            state.position,
            new_depth.0,
            new_depth.1,
            old_depth.0,
            old_depth.1,
            pruned.0,
            pruned.1 as f64 / 1e6,
        );
    }
}

#[test]
#[ignore = "minutes"]
fn a_thinned_year_stays_flat() {
    let hours = std::env::var("STATEKEEP_YEAR_HOURS");
    let hours: i64 = hours.map_or(365 * 24, |hours| hours.parse().unwrap());
    let mut year = Year::new();
    let (kv, ts) = (year.open("kv.db"), year.open("ts.db"));
    eprintln!(
        "| day | snapshots | MB | whole, delta, mere bases whole, delta, unused | packs | slots | restore new / old, ms | deepest (mean) new / old \
         | last prune, MB written |\n|---|---|---|---|---|---|---|---|---|"
    );
    for hour in 0..hours {
        if hour > 0 {
            year.change(&kv, &ts);
        }
        year.back_up(hour);
        if hour % 24 == 23 {
            let pruned = year.prune(hour);
            if hour == 23 || hour % (30 * 24) == 30 * 24 - 1 || hour + 1 == hours {
                year.report(hour, pruned);
            }
        }
    }
}
