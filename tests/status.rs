//! Whether what people own is safe: never said of what is not, and said of what is.

use crate::drill;
use crate::drill::ends;
use crate::oracle::Place;
use crate::oracle::stderr;
use crate::support;
use serde_json::Value;
use statekeep::context::Timestamp;
use statekeep::error::Result;
use statekeep::format::manifest::Manifest;
use statekeep::format::note::HoldUntil;
use statekeep::format::note::Loss;
use statekeep::format::note::Proof;
use statekeep::id::SnapshotId;
use statekeep::ops::snapshots;
use statekeep::ops::snapshots::Snapshot;
use statekeep::ops::status;
use statekeep::ops::status::Expected;
use statekeep::ops::status::Problem;
use statekeep::ops::status::RepoStatus;
use statekeep::ops::status::StatusOptions;
use statekeep::ops::status::Verdict;
use statekeep::repo::Repo;
use statekeep::repo::log::State;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::Listed;
use statekeep::store::MemoryStore;
use statekeep::store::Put;
use statekeep::store::Store;
use std::fs;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

const HOUR_NS: i64 = 3600 * 1_000_000_000;
/// Noon of a day in 2026, in hours since 1970.
const NOW: i64 = 498_756;

/// A repository about which a test makes up what the log says.
struct Told {
    repo: Repo,
    state: State,
    snapshots: Vec<Snapshot>,
}

impl Told {
    /// Backups of `app`, so many hours ago, oldest first, each made after the one before.
    fn with_ages(ages: &[i64]) -> Told {
        let mut told = Told {
            repo: support::create(Arc::new(MemoryStore::new()), true, None),
            state: State::default(),
            snapshots: Vec::new(),
        };
        for (number, age) in ages.iter().enumerate() {
            let id = |number: usize| SnapshotId([number as u8 + 1; 32]);
            let manifest = Manifest {
                started_at: Timestamp((NOW - age) * HOUR_NS),
                host: "host".into(),
                profile: "app".into(),
                parent: number.checked_sub(1).map(id),
                ..Manifest::default()
            };
            told.snapshots.push(Snapshot {
                id: id(number),
                manifest,
                tags: Vec::new(),
                hold: None,
                proof: None,
                replaced: None,
            });
        }
        told
    }

    fn judged(&self, options: &StatusOptions<'_>) -> RepoStatus {
        let now = Timestamp(NOW * HOUR_NS);
        status::status(&self.repo, &self.state, &self.snapshots, options, now)
    }

    /// Returns the codes of what is wrong, if the application is backed up every so many hours.
    fn codes(&self, every_hours: Option<i64>) -> Vec<&'static str> {
        let status = self.judged(&expecting("app", every_hours));
        let problems = status.series[0].problems.iter();
        problems.map(Problem::code).collect()
    }
}

fn expecting(profile: &str, every_hours: Option<i64>) -> StatusOptions<'static> {
    let schedule = every_hours.map(|hours| {
        let next = move |after: Timestamp| {
            let interval_ns = hours * HOUR_NS;
            Some(Timestamp((after.0 / interval_ns + 1) * interval_ns))
        };
        Box::new(next) as Box<status::NextAfter<'static>>
    });
    StatusOptions {
        host: "host".into(),
        expected: vec![Expected {
            profile: profile.into(),
            root: "/nowhere".into(),
            schedule,
            drill_schedule: None,
        }],
    }
}

#[test]
fn what_is_late_by_more_than_the_grace_is_overdue() {
    let table = [
        (vec![1], Some(24), vec![]),
        (vec![35], Some(24), vec!["overdue"]),
        // Due at midnight, twelve hours ago.
        (vec![13], Some(24), vec!["overdue"]),
        (vec![2], Some(1), vec!["overdue"]),
        (vec![1], Some(1), vec![]),
        (vec![40], None, vec![]),
        (vec![50], None, vec!["overdue"]),
        (vec![4, 3, 2, 1], None, vec![]),
        (vec![34, 33, 32, 31], None, vec!["overdue"]),
        // Whoever backs up once a week is not late after five days.
        (vec![600, 450, 290, 120], None, vec![]),
        (vec![], Some(24), vec!["never"]),
        (vec![], None, vec!["never"]),
    ];
    for (ages, every_hours, codes) in table {
        let told = Told::with_ages(&ages);
        assert_eq!(told.codes(every_hours), codes, "{ages:?} {every_hours:?}");
    }
}

#[test]
fn no_clock_makes_an_old_backup_look_young() {
    // One dated in the future does not count, and hides nothing.
    assert_eq!(Told::with_ages(&[100, -50]).codes(Some(24)), ["overdue"]);
    assert_eq!(Told::with_ages(&[-50]).codes(Some(24)), ["clock"]);
    // What was made before an old one is as old, whatever its date says.
    assert_eq!(Told::with_ages(&[1, 100]).codes(Some(24)), ["overdue"]);
    // A backup with a right clock settles it.
    assert!(Told::with_ages(&[-50, 100, 1]).codes(Some(24)).is_empty());
}

#[test]
fn only_whole_backups_of_this_machine_count() {
    let spoil = [
        (|one: &mut Snapshot| one.manifest.partial = true) as fn(&mut Snapshot),
        |one| one.manifest.scope = "agents".into(),
        |one| one.manifest.host = "another".into(),
        |one| one.tags.push("pre-restore".into()),
    ];
    for (number, spoil) in spoil.into_iter().enumerate() {
        let mut told = Told::with_ages(&[100, 1]);
        spoil(&mut told.snapshots[1]);

        let codes = told.codes(Some(24));

        assert_eq!(codes[0], "overdue", "{number}");
        assert_eq!(codes.contains(&"partial"), number == 0);
    }
    let mut imported = Told::with_ages(&[100, 1]);
    let id = imported.snapshots[1].id;
    let sum = statekeep::codec::sha256::Sha256Sum([0; 32]);
    imported.state.notes.imports.insert(id, sum);
    assert_eq!(imported.codes(Some(24)), ["overdue"]);
}

#[test]
fn of_several_things_the_worst_is_the_verdict() {
    let mut told = Told::with_ages(&[300, 100]);
    let id = told.snapshots[0].id;
    let proof = |result: &str, hours: i64| Proof {
        at: Timestamp((NOW - hours) * HOUR_NS),
        result: result.into(),
    };
    let verdict = |told: &Told| {
        let status = told.judged(&expecting("app", Some(24)));
        Verdict::of(&[status], &[])
    };
    assert_eq!(verdict(&told), Verdict::Overdue);

    told.snapshots[0].proof = Some(proof("failed: x", 9));
    assert_eq!(told.codes(Some(24)), ["drill-failed", "overdue"]);
    // One that passed later stands for it.
    told.snapshots[1].proof = Some(proof("ok", 8));
    assert_eq!(told.codes(Some(24)), ["overdue"]);

    told.state.notes.losses.insert(id, Loss::default());
    assert_eq!(told.codes(Some(24)), ["damaged", "overdue"]);
    assert_eq!(verdict(&told), Verdict::Damaged);
    let headline = {
        let status = told.judged(&expecting("app", Some(24)));
        status::headline(&[status], &[], Timestamp(NOW * HOUR_NS))
    };
    assert_eq!(
        headline,
        "DAMAGE: 1 older snapshot of app cannot be restored whole."
    );
}

#[test]
fn what_is_not_expected_is_told_and_not_judged() {
    let told = Told::with_ages(&[5000]);
    let mut with_fresh = Told::with_ages(&[5000, 1]);
    with_fresh.snapshots[1].manifest.profile = "web".into();

    let everything = told.judged(&StatusOptions::default());
    let configured = with_fresh.judged(&expecting("web", None));

    assert_eq!(Verdict::of(&[everything], &[]), Verdict::Overdue);
    let empty = || Told::with_ages(&[]).judged(&StatusOptions::default());
    assert_eq!(Verdict::of(&[empty()], &[]), Verdict::Overdue);
    // The verdict says what the headline says: that the second repository is empty harms nobody.
    let fresh = with_fresh.judged(&expecting("web", None));
    assert_eq!(Verdict::of(&[fresh, empty()], &[]), Verdict::Safe);
    assert_eq!(configured.series.len(), 2);
    assert_eq!(Verdict::of(&[configured], &[]), Verdict::Safe);
}

#[test]
fn the_way_back_of_a_migration_is_told_while_it_is_held() {
    let mut told = Told::with_ages(&[9]);
    told.snapshots[0].tags.push("pre-migration".into());
    let guard = |told: &Told| told.judged(&expecting("app", None)).series[0].guard;
    assert_eq!(guard(&told), None);

    told.snapshots[0].hold = Some(HoldUntil::Time(Timestamp((NOW + 5) * HOUR_NS)));
    assert_eq!(guard(&told).unwrap().made.id, told.snapshots[0].id);
    told.snapshots[0].hold = Some(HoldUntil::Time(Timestamp((NOW - 5) * HOUR_NS)));
    assert_eq!(guard(&told), None);
}

/// Counts what is asked of it, and what of packs.
#[derive(Default)]
struct Counting {
    store: MemoryStore,
    calls: AtomicUsize,
    pack_calls: AtomicUsize,
}

impl Counting {
    fn count(&self, folder: Folder) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let of_packs = usize::from(folder == Folder::Packs);
        self.pack_calls.fetch_add(of_packs, Ordering::Relaxed);
    }
}

impl Store for Counting {
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<Put> {
        self.count(key.folder());
        self.store.put_new(key, bytes)
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        self.count(key.folder());
        self.store.get(key)
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        self.count(key.folder());
        self.store.get_range(key, range)
    }

    fn stored_bytes(&self, key: &Key) -> Result<Option<u64>> {
        self.count(key.folder());
        self.store.stored_bytes(key)
    }

    fn list(&self, folder: Folder) -> Result<Vec<Listed>> {
        self.count(folder);
        self.store.list(folder)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.count(key.folder());
        self.store.delete(key)
    }

    fn sync(&self, folder: Folder) -> Result<()> {
        self.count(folder);
        self.store.sync(folder)
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

#[test]
fn judging_reads_the_log_and_no_pack() {
    let store = Arc::new(Counting::default());
    let dir = tempfile::tempdir().unwrap();
    let (app, cache) = (dir.path().join("app"), dir.path().join("cache"));
    fs::create_dir(&app).unwrap();
    let repo = support::create(store.clone(), true, Some(&cache));
    for number in 0..20 {
        fs::write(app.join("file"), number.to_string()).unwrap();
        support::backup(&repo, &app).unwrap();
    }
    // What this machine remembers of the log is up to date then.
    repo.read_state(&support::context()).unwrap();
    let before = store.calls.load(Ordering::Relaxed);
    store.pack_calls.store(0, Ordering::Relaxed);

    let repo = support::open(store.clone(), Some(&cache)).unwrap();
    let cx = support::context();
    let (state, all) = snapshots::list(&cx, &repo).unwrap();
    let options = StatusOptions::default();
    let judged = status::status(&repo, &state, &all, &options, cx.clock.now());

    assert_eq!(judged.snapshots, 20);
    assert_eq!(Verdict::of(&[judged], &[]), Verdict::Safe);
    assert_eq!(store.pack_calls.load(Ordering::Relaxed), 0);
    let calls = store.calls.load(Ordering::Relaxed) - before;
    assert!(calls < 10, "{calls} calls");
}

fn json(place: &Place, args: &[&str]) -> Value {
    let output = place.run(args);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}{}", stderr(&output));
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["exit"], output.status.code().unwrap(), "{text}");
    value
}

#[test]
fn a_profile_is_safe_once_it_is_backed_up_and_proven_once_it_is_drilled() {
    let place = drill::place("schedule = \"0 0 * * *\"\n");
    let never = json(&place, &["status", "--json"]);
    assert_eq!(never["exit"], 20);
    assert_eq!(never["message"], "app has NO good backup.");

    ends(&place.run(&["backup", "-p", "app"]), 0);
    ends(&place.run(&["drill"]), 0);
    ends(&place.run(&["check", "--read-data"]), 0);
    let safe = json(&place, &["status", "--json"]);

    assert_eq!(safe["verdict"], "safe");
    let repo = &safe["repositories"][0];
    assert_eq!(repo["check"]["read_percent"], 100);
    let app = &repo["profiles"][0];
    assert_eq!(app["problems"], serde_json::json!([]));
    assert_eq!(app["proof"]["passed"], true);
    assert_eq!(app["due"]["by"], "schedule");
    assert_eq!(app["stored_share_bytes"], repo["pack_bytes"]);
    let said = place.run(&["status"]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.starts_with("app is safe. Last backup "), "{said}");
    assert!(said.contains("all data read"), "{said}");
}

#[test]
fn a_repository_that_cannot_be_read_hides_no_other() {
    let place = drill::place("");
    ends(&place.run(&["backup", "-p", "app"]), 0);
    let config = place.path("two.toml");
    let text = format!(
        "version = 1\nrepo.main.url = {:?}\nrepo.offsite.url = {:?}\n\
         [profile.app]\nroot = {:?}\nrepo = \"main\"\n",
        place.path("repo"),
        place.path("unmounted"),
        place.path("app"),
    );
    fs::write(&config, text).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_statekeep"));
    command.arg("-c").arg(&config).args(["status", "--json"]);
    command.env("HOME", place.path(""));
    command.env_remove("STATEKEEP_REPO");
    command.env("STATEKEEP_CACHE_DIR", place.path("cache"));
    let output = command.output().unwrap();

    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["verdict"], "unknown", "{value}");
    assert_eq!(value["repositories"][0]["profiles"][0]["safe"], true);
    assert_eq!(value["repositories"][1]["error"]["code"], "no-repo");
    // Whoever is told to make a new one loses sight of the one that is not mounted.
    let hint = value["repositories"][1]["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("mounted"), "{hint}");
    assert_eq!(output.status.code(), Some(17));
}

#[test]
fn a_restore_that_was_interrupted_is_told() {
    let place = drill::place("");
    ends(&place.run(&["backup", "-p", "app"]), 0);
    let id = place.snapshots()[0]["id"].as_str().unwrap().to_string();
    let dir = place.app(".statekeep-restore");
    fs::create_dir(&dir).unwrap();
    let journal = serde_json::json!({
        "version": 1, "phase": "Publishing", "snapshot": id, "safety": null,
        "only": [], "logs": [], "removes": [], "files": [],
    });
    fs::write(dir.join("journal"), journal.to_string()).unwrap();

    let value = json(&place, &["status", "--json"]);

    assert_eq!(value["exit"], 3, "{value}");
    let problems = &value["repositories"][0]["profiles"][0]["problems"];
    assert_eq!(problems[0]["code"], "unfinished-restore");
}

#[test]
fn names_that_are_nowhere_are_refused() {
    let place = drill::place("");
    ends(&place.run(&["backup", "-p", "app"]), 0);

    ends(&place.run(&["status", "-p", "app"]), 0);
    ends(&place.run(&["status", "-p", "ap"]), 13);
}

#[test]
fn what_one_profile_takes_does_not_depend_on_who_asks() {
    let place = drill::place("");
    ends(&place.run(&["backup", "-p", "app"]), 0);
    fs::create_dir(place.path("web")).unwrap();
    fs::write(place.path("web/large"), vec![3; 100_000]).unwrap();
    ends(&place.run(&["backup", "web"]), 0);

    let all = json(&place, &["status", "--json"]);
    let one = json(&place, &["status", "-p", "app", "--json"]);

    let profiles = |value: &Value| value["repositories"][0]["profiles"].clone();
    assert_eq!(profiles(&all).as_array().unwrap().len(), 2);
    assert_eq!(profiles(&one).as_array().unwrap().len(), 1);
    let share = |value: &Value| profiles(value)[0]["stored_share_bytes"].clone();
    assert_eq!(share(&all), share(&one));
    assert!(share(&one).as_u64() < one["repositories"][0]["pack_bytes"].as_u64());
}

#[test]
fn without_a_configuration_every_root_is_judged() {
    let place = Place::new();
    ends(&place.run(&["status"]), 20);
    fs::write(place.app("a"), "x").unwrap();
    ends(&place.backup(), 0);

    let value = json(&place, &["status", "--json"]);

    assert_eq!(value["verdict"], "safe");
    assert_eq!(value["repositories"][0]["profiles"][0]["judged"], true);
}
