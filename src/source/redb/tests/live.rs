//! A database that another process is writing meanwhile.

use super::*;
use std::process::Child;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

const PATH: &str = "STATEKEEP_REDB_PATH";
const MODE: &str = "STATEKEEP_REDB_MODE";
const WRITER: &str = "source::redb::tests::live::writes_until_killed";
const ROW_COUNT: u64 = 20_000;
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// A writer without pause may win for a while; it is then said so.
const PASSES_MAX: u32 = 200;

/// Not a test: what the other process runs. Each commit keeps `sum` the sum over the first eight
/// bytes of all rows, and is acknowledged in a file when it has returned.
#[test]
#[ignore = "runs in a process of its own"]
fn writes_until_killed() {
    let Ok(path) = std::env::var(PATH) else {
        return;
    };
    let mode = std::env::var(MODE).unwrap();
    let acknowledged = File::create(format!("{path}.acknowledged")).unwrap();
    let mut database = ::redb::Database::create(path).unwrap();
    let mut state = 7;
    let (mut seq, mut sum) = (0u64, 0u64);
    loop {
        seq += 1;
        let rows_per_commit = if seq == 1 { ROW_COUNT } else { 20 };
        let mut write = database.begin_write().unwrap();
        write.set_quick_repair(mode == "quick" && seq % 3 == 0);
        write.set_two_phase_commit(mode == "mixed" && seq % 2 == 0);
        {
            let mut rows = write.open_table(ROWS).unwrap();
            let mut lists = write.open_multimap_table(LISTS).unwrap();
            for i in 0..rows_per_commit {
                let key = if seq == 1 {
                    i
                } else {
                    random(&mut state) % ROW_COUNT
                };
                let mut row = seq.to_le_bytes().to_vec();
                row.extend(bytes(seq ^ key, 100 + (random(&mut state) % 900) as usize));
                let old = rows.insert(key, &row[..]).unwrap();
                let old = old.map_or(0, |old| first_number(old.value()));
                sum = sum.wrapping_add(seq).wrapping_sub(old);
                lists.insert(key % 5, random(&mut state)).unwrap();
            }
            let mut meta = write.open_table(META).unwrap();
            meta.insert("seq", seq).unwrap();
            meta.insert("sum", sum).unwrap();
        }
        write.commit().unwrap();
        acknowledged.write_all_at(&seq.to_le_bytes(), 0).unwrap();
        if mode == "compact" && seq % 40 == 0 {
            database.compact().unwrap();
        }
        if mode != "hasty" {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn first_number(row: &[u8]) -> u64 {
    u64::from_le_bytes(*row.first_chunk().unwrap())
}

/// The other process.
struct Writer(Child);

impl Writer {
    fn start(scratch: &Scratch, mode: &str) -> Writer {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", WRITER, "--ignored", "--nocapture"])
            .env(PATH, scratch.database())
            .env(MODE, mode)
            .stdout(std::process::Stdio::null())
            .spawn();
        let writer = Writer(child.unwrap());
        while acknowledged(scratch) < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        writer
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn acknowledged(scratch: &Scratch) -> u64 {
    let file = File::open(scratch.path("database.redb.acknowledged"));
    let mut seq = [0; 8];
    let is_read = file.is_ok_and(|file| file.read_exact_at(&mut seq, 0).is_ok());
    if is_read { u64::from_le_bytes(seq) } else { 0 }
}

/// Has redb and the application's own rule check the image; returns how many commits it has.
fn check_image(capture: &Database, path: &Path) -> u64 {
    write_image(capture, path);
    let mut image = ::redb::Database::open(path).unwrap();
    assert!(image.check_integrity().unwrap());
    let read = image.begin_read().unwrap();
    let rows = read.open_table(ROWS).unwrap();
    let numbers = rows.iter().unwrap();
    let numbers = numbers.map(|row| first_number(row.unwrap().1.value()));
    let sum = numbers.fold(0u64, u64::wrapping_add);
    let meta = read.open_table(META).unwrap();
    assert_eq!(meta.get("sum").unwrap().unwrap().value(), sum);
    meta.get("seq").unwrap().unwrap().value()
}

/// Captures again and again; returns how often, and how often the writer was faster.
fn capture_beside(mode: &str) {
    let scratch = Scratch::new();
    let rounds = std::env::var("STATEKEEP_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let writer = Writer::start(&scratch, mode);
    let mut capture = scratch.open().unwrap();
    let (mut captured, mut busy, mut passes) = (0, 0, Vec::new());
    let end = Instant::now() + Duration::from_millis(1200 * rounds);
    while Instant::now() < end {
        let before = acknowledged(&scratch);
        match capture.capture(PASSES_MAX, u64::MAX, &mut || true) {
            Ok(()) => captured += 1,
            Err(Refusal::Busy { .. }) => {
                busy += 1;
                continue;
            }
            Err(refusal) => panic!("{mode}: {refusal}"),
        }
        passes.push(capture.facts().passes);
        let seq = check_image(&capture, &scratch.path("image.redb"));
        assert!(before <= seq, "{mode}: {seq} lacks commit {before}");
        if captured % 4 == 0 {
            capture = scratch.open().unwrap();
        }
    }
    assert!(captured > 0 || mode == "hasty", "{mode}: busy {busy} times");

    drop(writer);
    let mut capture = scratch.open().unwrap();
    capture.capture(1, u64::MAX, &mut || true).unwrap();
    let seq = check_image(&capture, &scratch.path("image.redb"));
    assert!(acknowledged(&scratch) <= seq, "{mode}: after a kill");
    if std::env::var("STATEKEEP_ROUNDS").is_ok() {
        let most = passes.iter().max();
        let figures =
            format!("{mode}: {captured} captured, {busy} busy, {seq} commits, {most:?}\n");
        let path = std::env::temp_dir().join("statekeep-redb-figures");
        let file = File::options().append(true).create(true).open(path);
        std::io::Write::write_all(&mut file.unwrap(), figures.as_bytes()).unwrap();
    }
}

#[test]
fn a_capture_beside_a_writer_holds_what_was_acknowledged() {
    capture_beside("plain");
}

#[test]
fn a_capture_beside_two_phase_commits_holds_what_was_acknowledged() {
    capture_beside("mixed");
}

#[test]
fn a_capture_beside_quick_repair_holds_what_was_acknowledged() {
    capture_beside("quick");
}

#[test]
fn a_capture_beside_compaction_holds_what_was_acknowledged() {
    capture_beside("compact");
}

#[test]
fn a_capture_beside_a_hasty_writer_is_right_or_given_up() {
    capture_beside("hasty");
}
