//! Applications under test: processes of their own that commit to databases and say so.
//!
//! A writer is this test binary, started again with its role in the environment. It prints
//! `try <n>` before it commits number n and `ack <n> <microseconds>` after commit returned, so
//! that whoever reads its output knows what a backup must hold. It ends when its input closes.

mod redb_app;
mod sqlite_app;

pub(crate) use redb_app::RedbApp;
pub(crate) use redb_app::ledger_of as redb_ledger_of;
pub(crate) use sqlite_app::SqliteApp;
pub(crate) use sqlite_app::digest_of as sqlite_digest_of;
pub(crate) use sqlite_app::twin_of;

use serde::Deserialize;
use serde::Serialize;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

/// Where a writer finds its role.
pub(crate) const VARIABLE: &str = "STATEKEEP_WRITER";
/// How long nothing may happen before a test says that something is stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const ACCOUNTS: u64 = 40;
pub(crate) const MONEY: u64 = ACCOUNTS * 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Engine {
    Sqlite,
    Redb,
}

/// What a writer does besides writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Habit {
    /// SQLite: checkpoints of every kind, now and then.
    Checkpoints,
    /// SQLite: VACUUM now and then, with another page size where that is possible.
    Vacuum,
    /// SQLite: tables and indexes come and go.
    Schema,
    /// SQLite: a table of FTS5.
    Search,
    /// SQLite: the lock is never let go.
    Exclusive,
    /// SQLite: stops inside a transaction whose pages have spilled into the file.
    Spill,
    /// SQLite: each commit is one transaction over two attached databases.
    Attached,
    /// redb: commits of two phases.
    TwoPhase,
    /// redb: the state of the allocator is part of each commit.
    QuickRepair,
    /// redb: one commit of three is not durable.
    Soft,
    /// redb: persistent savepoints.
    Savepoints,
}

/// One writer: what it writes to, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) engine: Engine,
    pub(crate) path: PathBuf,
    /// The database of the same process that follows the first one, number by number.
    pub(crate) second: Option<(Engine, PathBuf)>,
    pub(crate) seed: u64,
    pub(crate) journal: String,
    pub(crate) page_bytes: u32,
    pub(crate) checkpoint_pages: u32,
    /// How many rows of about 1.6 KiB there are at most.
    pub(crate) rows: u64,
    pub(crate) pause_us: u64,
    /// Ends after so many commits; without, it goes on.
    pub(crate) commits: Option<u64>,
    pub(crate) habits: Vec<Habit>,
}

impl Spec {
    pub(crate) fn sqlite(path: &Path, journal: &str) -> Spec {
        Spec {
            engine: Engine::Sqlite,
            path: path.to_path_buf(),
            second: None,
            seed: 1,
            journal: journal.into(),
            page_bytes: 4096,
            checkpoint_pages: 60,
            rows: 1500,
            pause_us: 200,
            commits: None,
            habits: vec![],
        }
    }

    pub(crate) fn redb(path: &Path) -> Spec {
        Spec {
            engine: Engine::Redb,
            ..Spec::sqlite(path, "")
        }
    }

    pub(crate) fn with(mut self, habits: &[Habit]) -> Spec {
        self.habits.extend(habits);
        self
    }

    pub(crate) fn has(&self, habit: Habit) -> bool {
        self.habits.contains(&habit)
    }
}

/// A link of the chain of commits: who holds it has seen every commit before it.
pub(crate) fn link(previous: &[u8], n: u64, digest: u64) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(previous)
        .update(&n.to_le_bytes())
        .update(&digest.to_le_bytes());
    hasher.finalize().as_bytes().to_vec()
}

/// One row in the sum over all rows that each commit records.
pub(crate) fn weight(table: &str, key: u64, parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(table.as_bytes()).update(&key.to_le_bytes());
    for part in parts {
        hasher
            .update(&(part.len() as u64).to_le_bytes())
            .update(part);
    }
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().unwrap())
}

/// A database that can commit the next number.
pub(crate) enum App {
    Sqlite(SqliteApp),
    Redb(RedbApp),
}

impl App {
    pub(crate) fn open(spec: &Spec) -> App {
        match spec.engine {
            Engine::Sqlite => App::Sqlite(SqliteApp::open(spec)),
            Engine::Redb => App::Redb(RedbApp::open(spec)),
        }
    }

    fn last(&self) -> u64 {
        match self {
            App::Sqlite(app) => app.last(),
            App::Redb(app) => app.last(),
        }
    }

    /// Commits one number. Returns it, and whether it is durable.
    pub(crate) fn commit(&mut self, attempt: &mut dyn FnMut(u64)) -> (u64, bool) {
        match self {
            App::Sqlite(app) => (app.commit(attempt), true),
            App::Redb(app) => app.commit(attempt),
        }
    }
}

pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // The parent is gone: so is the reason to go on.
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Returns a flag that is set when the input ends: when whoever started this process is gone.
pub(crate) fn watch_input() -> Arc<AtomicBool> {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = ended.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        flag.store(true, Ordering::Relaxed);
    });
    ended
}

#[test]
#[ignore = "a process that other tests start"]
fn child() {
    let Ok(text) = std::env::var(VARIABLE) else {
        return;
    };
    let spec: Spec = serde_json::from_str(&text).unwrap();
    let ended = watch_input();
    let mut first = App::open(&spec);
    let mut second = spec.second.as_ref().map(|(engine, path)| {
        App::open(&Spec {
            engine: *engine,
            path: path.clone(),
            ..spec.clone()
        })
    });
    // A newline first: the harness has begun the line.
    say("\nready");
    let mut left = spec.commits.unwrap_or(u64::MAX);
    while left > 0 && !ended.load(Ordering::Relaxed) {
        step(&mut first, second.as_mut());
        std::thread::sleep(Duration::from_micros(spec.pause_us));
        left -= 1;
    }
    if let (App::Sqlite(app), true) = (&mut first, spec.has(Habit::Spill)) {
        app.spill();
        say("spilled");
    }
    if spec.commits.is_some() {
        say("idle");
    }
    while !ended.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn step(first: &mut App, second: Option<&mut App>) {
    let began = Instant::now();
    let mut attempt = |n| say(&format!("try {n}"));
    let Some(second) = second else {
        let (n, durable) = first.commit(&mut attempt);
        let word = if durable { "ack" } else { "soft" };
        return say(&format!("{word} {n} {}", began.elapsed().as_micros()));
    };
    // A process that died between the two has one of them behind.
    if first.last() == second.last() {
        first.commit(&mut attempt);
    }
    let (n, _) = second.commit(&mut |_| ());
    say(&format!("ack {n} {}", began.elapsed().as_micros()));
}

#[derive(Default)]
struct Heard {
    acked: AtomicU64,
    tried: AtomicU64,
    ready: AtomicBool,
    idle: AtomicBool,
    spilled: AtomicBool,
    latencies_us: Mutex<Vec<u64>>,
}

impl Heard {
    fn line(&self, line: &str) {
        let mut words = line.split(' ');
        let word = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|word| word.parse().ok());
        match (word, number()) {
            ("ready", _) => self.ready.store(true, Ordering::Release),
            ("idle", _) => self.idle.store(true, Ordering::Release),
            ("spilled", _) => self.spilled.store(true, Ordering::Release),
            ("try", Some(n)) => _ = self.tried.fetch_max(n, Ordering::Release),
            ("ack", Some(n)) => {
                self.acked.fetch_max(n, Ordering::Release);
                self.latencies_us.lock().unwrap().extend(number());
            }
            _ => {}
        }
    }
}

/// A writer as the test that started it sees it. Dropping kills.
pub(crate) struct Writer {
    child: Child,
    heard: Arc<Heard>,
    reader: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts a writer and returns when its database is open.
    pub(crate) fn start(spec: &Spec) -> Writer {
        Writer::start_with(spec, |_| ())
    }

    /// Starts a writer whose command is changed first: another user, say.
    pub(crate) fn start_with(spec: &Spec, change: impl FnOnce(&mut Command)) -> Writer {
        let role = serde_json::to_string(spec).unwrap();
        Writer::begin("writers::child", &role, change)
    }

    /// Starts this test of the binary as a writer with this role.
    pub(crate) fn begin(test: &str, role: &str, change: impl FnOnce(&mut Command)) -> Writer {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--ignored", "--nocapture"])
            .arg("--test-threads=1")
            .env(VARIABLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let heard = Arc::new(Heard::default());
        let (out, ears) = (child.stdout.take().unwrap(), heard.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                ears.line(&line);
            }
        });
        let mut writer = Writer {
            child,
            heard,
            reader: Some(reader),
        };
        writer.until("ready", |heard| heard.ready.load(Ordering::Acquire));
        writer
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn until(&mut self, what: &str, done: impl Fn(&Heard) -> bool) {
        let began = Instant::now();
        while !done(&self.heard) {
            assert!(self.is_running(), "a writer died before it was {what}");
            assert!(began.elapsed() < PATIENCE, "a writer is never {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The greatest number known to be durable: a lower bound at any moment.
    pub(crate) fn acked(&self) -> u64 {
        self.heard.acked.load(Ordering::Acquire)
    }

    /// The greatest number whose commit has begun, as far as was heard.
    pub(crate) fn tried(&self) -> u64 {
        self.heard.tried.load(Ordering::Acquire)
    }

    pub(crate) fn wait_acked(&mut self, n: u64) {
        self.until("that far", |heard| n <= heard.acked.load(Ordering::Acquire));
    }

    pub(crate) fn wait_idle(&mut self) {
        self.until("idle", |heard| heard.idle.load(Ordering::Acquire));
    }

    pub(crate) fn wait_spilled(&mut self) {
        self.until("spilled", |heard| heard.spilled.load(Ordering::Acquire));
    }

    pub(crate) fn take_latencies_us(&self) -> Vec<u64> {
        std::mem::take(&mut self.heard.latencies_us.lock().unwrap())
    }

    /// SIGKILL. Everything it said has been heard when this returns.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.join();
    }

    /// Lets it finish its commits and close its database.
    pub(crate) fn stop_when_idle(mut self) {
        self.wait_idle();
        self.stop();
    }

    /// Lets it close its database.
    pub(crate) fn stop(mut self) {
        drop(self.child.stdin.take());
        self.join();
    }

    fn join(&mut self) {
        self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.kill();
    }
}
