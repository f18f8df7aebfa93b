//! The page: whole without anything else, harmless whatever names are in it, small whatever the
//! repository holds, and the same for the same state.
//!
//! `STATEKEEP_REPORT_DIR=/tmp/pages cargo test --test main report:: -- --ignored` makes a history
//! of real backups and writes pages of several states of it, to be looked at in a browser.

use crate::drill;
use crate::drill::ends;
use crate::oracle::Place;
use crate::oracle::stderr;
use crate::support;
use crate::support::Seeded;
use crate::support::TestClock;
use jiff::tz::TimeZone;
use rusqlite::Connection;
use statekeep::context::Context;
use statekeep::context::Timestamp;
use statekeep::disk::RealDisk;
use statekeep::format::history::SeriesName;
use statekeep::format::manifest::Figures;
use statekeep::format::manifest::Manifest;
use statekeep::format::note::Loss;
use statekeep::format::note::Note;
use statekeep::format::note::Proof;
use statekeep::id::SnapshotId;
use statekeep::ops::backup;
use statekeep::ops::keep::Policy;
use statekeep::ops::notes;
use statekeep::ops::prune;
use statekeep::ops::prune::Limits;
use statekeep::ops::prune::PruneOptions;
use statekeep::ops::report;
use statekeep::ops::report::ReportOptions;
use statekeep::ops::snapshots;
use statekeep::ops::snapshots::Snapshot;
use statekeep::ops::stats;
use statekeep::ops::stats::Detail;
use statekeep::ops::stats::FileKind;
use statekeep::ops::stats::FileStats;
use statekeep::ops::stats::SeriesStats;
use statekeep::ops::stats::StatsOptions;
use statekeep::ops::stats::StatsReport;
use statekeep::ops::stats::TableStats;
use statekeep::ops::status;
use statekeep::ops::status::StatusOptions;
use statekeep::repo::Repo;
use statekeep::repo::log::State;
use statekeep::store::DirStore;
use statekeep::store::MemoryStore;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

const HOUR_NS: i64 = 3600 * 1_000_000_000;
const NOW: i64 = 498_756 * HOUR_NS;
const HOSTILE: &str =
    "<script src=//evil.example>alert('1')</script>\"&--><b onload='x'>\u{202e}\n";

/// Fails unless every element is closed by its own end, in order, and nothing reaches outside.
fn assert_is_whole(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let body = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
    for part in body.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap();
        let name = tag.split([' ', '/']).find(|name| !name.is_empty()).unwrap();
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name), "{part}"),
            (false, true) => {}
            (false, false) if name == "meta" => {}
            (false, false) => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
    let known = [
        "html", "head", "meta", "title", "style", "body", "main", "header", "section", "article",
        "footer", "h1", "h2", "h3", "p", "ul", "li", "dl", "dt", "dd", "div", "details", "summary",
        "table", "thead", "tbody", "tr", "th", "td", "svg", "desc", "path", "rect", "text",
    ];
    for part in body.split('<').skip(1) {
        let name = part
            .trim_start_matches('/')
            .split([' ', '>', '/'])
            .next()
            .unwrap();
        assert!(known.contains(&name), "{name}");
    }
    for outside in [" src=", " href=", "url(", "@import", " style=", " on"] {
        let tags = body
            .split('<')
            .skip(1)
            .filter_map(|part| part.split_once('>'));
        for (tag, _) in tags {
            let is_quoted = |at: usize| tag[..at].matches('"').count() % 2 == 1;
            assert!(
                tag.match_indices(outside).all(|(at, _)| is_quoted(at)),
                "{tag}"
            );
        }
    }
    assert!(body.contains("default-src 'none'") || body.contains("default-src &#39;none&#39;"));
}

/// So many hourly snapshots of several applications, with names that mean harm.
fn made_up(count: usize) -> (Vec<Snapshot>, StatsReport) {
    let name = |number: usize| format!("{HOSTILE}{}", number % 7);
    let snapshot = |number: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(number as u64).to_le_bytes());
        Snapshot {
            id: SnapshotId(id),
            manifest: Manifest {
                started_at: Timestamp(NOW - (count - number) as i64 * HOUR_NS),
                host: "host".into(),
                profile: name(number),
                root_path: HOSTILE.into(),
                figures: Figures {
                    total_bytes: 500 << 20,
                    new_bytes: 3 << 20,
                    stored_bytes: 100_000 + number as u64 % 1000,
                    ..Figures::default()
                },
                ..Manifest::default()
            },
            tags: vec![HOSTILE.into()],
            hold: None,
            proof: number.is_multiple_of(3).then(|| Proof {
                at: Timestamp(NOW),
                result: format!("failed: {HOSTILE}"),
            }),
            replaced: None,
        }
    };
    let snapshots: Vec<Snapshot> = (0..count).map(snapshot).collect();
    let manifests = || snapshots.iter().map(|one| &one.manifest);
    let series = |number: usize| SeriesName::of(&snapshots[number.min(count - 1)].manifest);
    let stats = StatsReport {
        series: (0..count.min(7))
            .map(|number| SeriesStats {
                name: series(number),
                stored_bytes: number as u64,
                growth: stats::growth(manifests(), &Default::default(), &|one| {
                    *one == series(number)
                }),
                ..SeriesStats::default()
            })
            .collect(),
        files: (0..1000u64)
            .map(|number| FileStats {
                series: series(0),
                path: HOSTILE.repeat(40).into(),
                kind: FileKind::Sqlite,
                size_bytes: number,
                versions: number,
                alone_bytes: 1 << 30,
            })
            .collect(),
        tables: vec![TableStats {
            name: HOSTILE.into(),
            database: HOSTILE.into(),
            stored_bytes: 1,
            ..TableStats::default()
        }],
        growth: stats::growth(manifests(), &Default::default(), &|_| true),
        ..StatsReport::default()
    };
    (snapshots, stats)
}

fn page(snapshots: &[Snapshot], stats: StatsReport, policy: Policy) -> String {
    let repo = support::create(Arc::new(MemoryStore::new()), true, None);
    let (state, options) = (State::default(), StatusOptions::default());
    let judged = status::status(&repo, &state, snapshots, &options, Timestamp(NOW));
    let profiles = (0..7).map(|number| (format!("{HOSTILE}{number}"), policy.clone()));
    let options = ReportOptions {
        name: HOSTILE.into(),
        policies: profiles.collect(),
    };
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let report = report::gather(judged, stats, snapshots, &options, &zone, Timestamp(NOW));
    report::render(&report)
}

fn policy() -> Policy {
    Policy {
        last: 3,
        daily: 14,
        weekly: 8,
        monthly: 12,
        ..Policy::default()
    }
}

#[test]
fn ten_thousand_snapshots_make_a_small_page() {
    let (snapshots, stats) = made_up(10_000);

    let page = page(&snapshots, stats, policy());

    assert_is_whole(&page);
    assert!(page.len() < 600_000, "{}", page.len());
}

#[test]
fn the_same_state_makes_the_same_page_whatever_it_holds() {
    for count in [1, 2, 3, 60, 400] {
        let make = || {
            let (snapshots, stats) = made_up(count);
            page(&snapshots, stats, policy())
        };

        let first = make();

        assert_is_whole(&first);
        assert_eq!(first, make(), "{count}");
        assert!(!first.contains("<script") && !first.contains('\u{202e}'));
    }
}

#[test]
fn a_repository_without_anything_makes_a_page_that_says_so() {
    let page = page(&[], StatsReport::default(), policy());

    assert_is_whole(&page);
    assert!(page.contains("NOTHING is backed up here yet."));
}

#[test]
fn dates_that_are_far_off_make_no_more_bars() {
    let (mut snapshots, _) = made_up(5);
    snapshots[0].manifest.started_at = Timestamp(i64::MAX);
    snapshots[1].manifest.started_at = Timestamp(i64::MIN);
    let manifests = snapshots.iter().map(|one| &one.manifest);
    let growth = stats::growth(manifests, &Default::default(), &|_| true);
    let stats = StatsReport {
        series: vec![SeriesStats {
            growth,
            ..SeriesStats::default()
        }],
        ..StatsReport::default()
    };

    let page = page(&snapshots, stats, policy());

    assert_is_whole(&page);
    assert!(page.len() < 200_000, "{}", page.len());
}

#[test]
fn the_command_writes_a_page_for_its_owner_and_replaces_nothing_unasked() {
    let place = drill::place("keep = { last = 2 }\n");
    fs::write(place.app("<img src=x onerror=alert(1)>"), vec![7; 400_000]).unwrap();
    ends(&place.run(&["backup", "-p", "app"]), 0);
    ends(&place.run(&["drill"]), 0);

    ends(&place.run(&["report", "-o", "page.html", "-n"]), 0);
    assert!(!place.path("page.html").exists());
    ends(&place.run(&["report", "-o", "page.html"]), 0);

    let path = place.path("page.html");
    let page = fs::read_to_string(&path).unwrap();
    assert_is_whole(&page);
    assert!(page.contains("app is safe."));
    assert!(
        page.contains("&lt;img src=x onerror=alert(1)&gt;"),
        "{page}"
    );
    assert!(page.contains("ok: 4 files"));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = place.run(&["report", "-o", "page.html"]);
    ends(&again, 2);
    assert!(stderr(&again).contains("--overwrite"));
    assert_eq!(fs::read_to_string(&path).unwrap(), page);
    ends(&place.run(&["report", "-o", "page.html", "--overwrite"]), 0);
    let piped = place.run(&["report", "-o", "-"]);
    ends(&piped, 0);
    assert_is_whole(&String::from_utf8(piped.stdout).unwrap());
    ends(&place.run(&["report", "-o", "no/such/dir.html"]), 1);
    ends(&place.run(&["report", "-p", "nobody", "-o", "-"]), 13);
}

#[test]
fn an_empty_repository_has_a_page() {
    let place = Place::new();

    let output = place.run(&["report", "-o", "page.html", "--json"]);

    ends(&output, 0);
    let text = String::from_utf8(output.stdout).unwrap();
    let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(summary["verdict"], "overdue", "{text}");
    assert_is_whole(&fs::read_to_string(place.path("page.html")).unwrap());
}

/// Real backups of live databases at made-up times.
struct History {
    place: TempDir,
    repo: Repo,
    random: Seeded,
    now: Timestamp,
}

impl History {
    fn new() -> History {
        let place = TempDir::new().unwrap();
        let store = DirStore::create(Arc::new(RealDisk), &place.path().join("repo")).unwrap();
        let cache = place.path().join("cache");
        History {
            repo: support::create(Arc::new(store), true, Some(&cache)),
            random: Seeded::new(1),
            now: Timestamp(Context::new().clock.now().0 + 24 * HOUR_NS),
            place,
        }
    }

    fn context(&self) -> Context {
        Context {
            clock: Arc::new(TestClock::at(self.now)),
            ..Context::new()
        }
    }

    fn backup(&mut self, profile: &str, rows: u64) {
        let root = self.place.path().join(profile);
        fs::create_dir_all(root.join("config")).unwrap();
        let db = Connection::open(root.join("state.db")).unwrap();
        db.execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA synchronous = off;
            CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, at INTEGER, text TEXT);
            CREATE TABLE IF NOT EXISTS devices (id INTEGER PRIMARY KEY, state TEXT);
            CREATE INDEX IF NOT EXISTS events_at ON events (at); BEGIN",
        )
        .unwrap();
        for row in 0..rows {
            let text = String::from_utf8(self.random.text(120)).unwrap();
            let at = self.random.below(1000) as i64;
            let event = (at, &text);
            db.execute("INSERT INTO events (at, text) VALUES (?, ?)", event)
                .unwrap();
            let device = (row as i64 % 50, text);
            db.execute("INSERT OR REPLACE INTO devices VALUES (?, ?)", device)
                .unwrap();
        }
        db.execute_batch("COMMIT").unwrap();
        fs::write(root.join("config/app.toml"), self.random.text(900)).unwrap();
        let options = backup::BackupOptions {
            profile: profile.into(),
            ..support::options(&root)
        };
        backup::backup(&self.context(), &self.repo, &options).unwrap();
    }

    fn page(&self, path: PathBuf, change: &dyn Fn(&mut State, &mut Vec<Snapshot>), late_ns: i64) {
        let cx = self.context();
        let (state, mut all) = snapshots::list(&cx, &self.repo).unwrap();
        let mut state = (*state).clone();
        change(&mut state, &mut all);
        let now = Timestamp(self.now.0 + late_ns);
        let options = StatusOptions {
            host: "host".into(),
            expected: Vec::new(),
        };
        let judged = status::status(&self.repo, &state, &all, &options, now);
        let manifests: Vec<_> = all
            .iter()
            .map(|one| (one.id, one.manifest.clone()))
            .collect();
        let options = StatsOptions {
            files: Detail::Count,
            tables: Detail::Count,
        };
        let room = self.place.path();
        let stats = stats::stats(&cx, &self.repo, &state, &manifests, options, room).unwrap();
        let policies = ["homecore", "hoziron"].map(|name| (name.to_string(), policy()));
        let options = ReportOptions {
            name: "main".into(),
            policies: policies.into(),
        };
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let report = report::gather(judged, stats, &all, &options, &zone, now);
        fs::write(path, report::render(&report)).unwrap();
    }
}

#[test]
#[ignore = "writes pages to be looked at"]
fn pages_to_look_at() {
    let Some(dir) = std::env::var_os("STATEKEEP_REPORT_DIR") else {
        eprintln!("SKIPPED: STATEKEEP_REPORT_DIR says where the pages go");
        return;
    };
    let dir = Path::new(&dir);
    fs::create_dir_all(dir).unwrap();
    let keep = |_: &mut State, _: &mut Vec<Snapshot>| {};
    let (snapshots, stats) = made_up(10_000);
    fs::write(dir.join("many.html"), page(&snapshots, stats, policy())).unwrap();
    let mut history = History::new();
    history.page(dir.join("empty.html"), &keep, 0);
    history.backup("homecore", 4000);
    history.page(dir.join("one.html"), &keep, 600 * 1_000_000_000);
    for hour in 1..400 {
        history.now = Timestamp(history.now.0 + HOUR_NS);
        history.backup("homecore", 30 + hour % 50);
        if hour % 6 == 0 {
            history.backup("hoziron", if hour < 10 { 3000 } else { 40 });
        }
        if hour % 24 == 0 {
            history.backup("chaos-cypher", 60);
            let (_, all) = snapshots::list(&history.context(), &history.repo).unwrap();
            let newest = all.last().unwrap().id;
            let proof = Proof {
                at: history.now,
                result: "ok: 2 files, 1 database, 12034 rows in 0.4 s".into(),
            };
            let note = [Note::Proof(newest, proof)];
            notes::add(&history.context(), &history.repo, &[newest].into(), &note).unwrap();
        }
        if hour == 300 {
            history.page(dir.join("all.html"), &keep, 600 * 1_000_000_000);
            let options = PruneOptions {
                policy: Some(policy()),
                profile: None,
                host: None,
                zone: TimeZone::UTC,
                limits: Limits::default(),
                grace_ns: 0,
            };
            let cx = history.context();
            let plan = prune::plan(&cx, &history.repo, &options).unwrap();
            prune::apply(&cx, &history.repo, &options, plan).unwrap();
        }
    }
    history.page(dir.join("pruned.html"), &keep, 600 * 1_000_000_000);
    let damage = |state: &mut State, all: &mut Vec<Snapshot>| {
        let count = all.len();
        let loss = Loss {
            count: 2,
            paths: Vec::new(),
        };
        state.notes.losses.insert(all[count - 1].id, loss);
        all[count - 2].proof = Some(Proof {
            at: history.now,
            result: "failed: database state.db: row 17 missing from index events_at".into(),
        });
        all[count - 3].manifest.partial = true;
    };
    history.page(dir.join("damage.html"), &damage, 80 * HOUR_NS);
}
