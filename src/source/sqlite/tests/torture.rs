//! Captures while other processes commit, check-point and restart their log. Every image must be
//! sound, keep the sum of the accounts, and hold each commit acknowledged before the pin.
//!
//! `STATEKEEP_ROUNDS` sets how many captures there are in each mode.

use super::*;
use std::env;
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Instant;

const WRITERS: u64 = 2;
const ACCOUNTS: i64 = 200;
const TASK: &str = "STATEKEEP_SQLITE_WRITER";

/// A process that commits until it is ended.
struct Writer {
    child: Child,
    acknowledged: PathBuf,
}

impl Writer {
    fn start(place: &Place, number: u64, mode: &str) -> Writer {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "source::sqlite::tests::torture::writer_child"])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .env(TASK, format!("{number} {mode} {}", place.path.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Writer {
            child,
            acknowledged: acknowledged(&place.path, number),
        }
    }

    /// Returns the number of the last commit that the writer knows to be done.
    fn last_commit(&self) -> i64 {
        match fs::read(&self.acknowledged) {
            Ok(bytes) if bytes.len() == 8 => i64::from_le_bytes(bytes.try_into().unwrap()),
            _ => 0,
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn acknowledged(path: &Path, number: u64) -> PathBuf {
    sidecar(path, &format!(".acknowledged-{number}"))
}

#[test]
#[ignore = "a writer for the other tests, which start it"]
fn writer_child() {
    let Ok(task) = env::var(TASK) else {
        return;
    };
    let mut parts = task.splitn(3, ' ');
    let number: u64 = parts.next().unwrap().parse().unwrap();
    let mode = parts.next().unwrap().to_owned();
    let path = PathBuf::from(parts.next().unwrap());
    let connection = Connection::open(&path).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    connection
        .execute_batch(&format!(
            "pragma journal_mode={mode}; pragma synchronous=off; pragma wal_autocheckpoint=60;
             pragma cache_size=20"
        ))
        .unwrap();
    let out = fs::File::create(acknowledged(&path, number)).unwrap();
    let started = Instant::now();
    let mut random = number + 1;
    let mut below = |limit: u64| {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (random >> 33) % limit
    };
    let mut commit = 0i64;
    while started.elapsed() < Duration::from_secs(600) {
        let mut work = String::from("begin immediate;");
        for _ in 0..1 + below(10) {
            let (from, to, amount) = (below(200), below(200), below(50));
            work += &format!(
                "update accounts set v = v - {amount} where id = {from};
                 update accounts set v = v + {amount} where id = {to};
                 insert into churn values(null, randomblob({}));
                 delete from churn where id % 97 = {};",
                [50, 700, 9000][below(3) as usize],
                below(97)
            );
        }
        work += &format!(
            "update ledger set n = {} where writer = {number};",
            commit + 1
        );
        let ending = if below(8) == 0 { "rollback" } else { "commit" };
        work += ending;
        if connection.execute_batch(&work).is_err() {
            let _ = connection.execute_batch("rollback");
            continue;
        }
        if ending == "commit" {
            commit += 1;
            out.write_all_at(&commit.to_le_bytes(), 0).unwrap();
        }
        if mode != "wal" {
            // Whoever waits for a lock looks for it now and then only, and would starve.
            thread::sleep(Duration::from_millis(below(5)));
        }
        if below(20) == 0 {
            let kind = ["passive", "restart", "truncate", "full"][below(4) as usize];
            let _ = connection.execute_batch(&format!("pragma wal_checkpoint({kind})"));
        }
    }
}

fn bank(mode: &str) -> Place {
    let place = Place::new();
    let application = place.application();
    application
        .execute_batch(&format!(
            "pragma page_size=1024; pragma journal_mode={mode};
             create table accounts(id integer primary key, v int);
             create table ledger(writer integer primary key, n int);
             create table churn(id integer primary key, b blob); create index ci on churn(b);
             begin;
             with recursive c(x) as (select 0 union all select x + 1 from c where x < 199)
               insert into accounts select x, 1000 from c;
             insert into ledger values(0, 0), (1, 0);
             insert into churn select null, randomblob(id * 20) from accounts;
             commit"
        ))
        .unwrap();
    place
}

fn start_writers(place: &Place, mode: &str) -> Vec<Writer> {
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let _ = fs::remove_file(acknowledged(&place.path, number));
            Writer::start(place, number, mode)
        })
        .collect();
    let begun = Instant::now();
    while writers.iter().any(|writer| writer.last_commit() == 0) {
        assert!(begun.elapsed() < Duration::from_secs(60), "no writer began");
        thread::sleep(Duration::from_millis(5));
    }
    writers
}

/// Checks an image against the numbers of commits that must be in it.
fn check(image: &[u8], known: &[i64], what: &str) {
    let (_directory, copy) = opened(image);
    let sum = number(&copy, "select sum(v) from accounts");
    assert_eq!(sum, ACCOUNTS * 1000, "{what}");
    for (writer, known) in known.iter().enumerate() {
        let query = format!("select n from ledger where writer = {writer}");
        assert!(
            *known <= number(&copy, &query),
            "{what}: a commit is missing"
        );
    }
}

fn torture(mode: &str, rounds: u32) {
    let place = bank(mode);
    let writers = start_writers(&place, mode);

    let mut source = Database::open(&place.path, Duration::from_secs(20)).unwrap();
    for round in 0..rounds {
        let what = format!("{mode}, round {round}");
        let known: Vec<_> = writers.iter().map(Writer::last_commit).collect();
        source
            .pin()
            .unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
        let free = if round % 2 == 0 {
            FreeLeaves::Zeroed
        } else {
            FreeLeaves::Exact
        };
        source.prepare(free).unwrap();
        let mut image = vec![0; source.facts().image_bytes() as usize];
        for (index, group) in image.chunks_mut(32 << 10).enumerate() {
            source.read_at((index * (32 << 10)) as u64, group).unwrap();
            if mode == "wal" {
                // Time for the writers to do their worst.
                thread::sleep(Duration::from_micros(300));
            }
        }
        assert!(!source.facts().free_list_damaged, "{what}");
        source.unpin();

        check(&image, &known, &what);
    }
    let total: i64 = writers.iter().map(Writer::last_commit).sum();
    assert!(
        i64::from(rounds) < total,
        "the writers hardly wrote: {total}"
    );
}

fn rounds(default: u32) -> u32 {
    env::var("STATEKEEP_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(default)
}

#[test]
fn writers_with_a_log_never_tear_an_image() {
    torture("wal", rounds(20));
}

#[test]
fn writers_with_a_journal_never_tear_an_image() {
    for mode in ["delete", "truncate", "persist"] {
        torture(mode, rounds(12));
    }
}

#[test]
fn killed_writers_leave_what_can_be_captured() {
    for mode in ["wal", "delete", "truncate", "persist"] {
        for round in 0..rounds(2) {
            let what = format!("{mode}, round {round}");
            let place = bank(mode);
            let mut writers = start_writers(&place, mode);
            thread::sleep(Duration::from_millis(u64::from(round * 7 % 40)));
            for writer in &mut writers {
                writer.child.kill().unwrap();
            }
            for writer in &mut writers {
                writer.child.wait().unwrap();
            }
            let known: Vec<_> = writers.iter().map(Writer::last_commit).collect();

            let mut source = place.source();
            match source.pin() {
                Ok(()) => {}
                Err(Refusal::NeedsCopy {
                    why: Obstacle::HotJournal,
                }) if mode != "wal" => {
                    source = Database::open_copy(&place.path, &place.room(), PATIENCE).unwrap();
                }
                Err(refusal) => panic!("{what}: {refusal}"),
            }
            let image = capture(&mut source, FreeLeaves::Zeroed);

            check(&image, &known, &what);
        }
    }
}

#[test]
fn index_that_may_only_be_read_will_do_while_a_writer_keeps_it() {
    // Nothing is denied to the superuser.
    if rustix::process::geteuid().is_root() {
        return;
    }
    let place = bank("wal");
    let writers = start_writers(&place, "wal");
    let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o444);
    fs::set_permissions(sidecar(&place.path, "-shm"), read_only).unwrap();

    for round in 0..rounds(5) {
        let known: Vec<_> = writers.iter().map(Writer::last_commit).collect();
        let mut source = place.source();
        let image = capture(&mut source, FreeLeaves::Zeroed);

        check(&image, &known, &format!("round {round}"));
    }
}
