//! The sample application: a process of its own that keeps readings in SQLite, devices in redb and
//! rules in TOML, commits without a pause worth the name, and says what it has committed.
//!
//! A commit has a number. It goes to SQLite, then to redb, and is acknowledged when both returned;
//! both databases keep a ledger of the numbers whose links are hashes of all links before. So a
//! restored state can be judged without anything else: by what it says of itself.

mod devices;
mod history;
mod rules;

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::ops::demo::application::devices::Devices;
use crate::ops::demo::application::history::History;
use crate::ops::demo::application::rules::Rules;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

pub(super) use devices::FILE as DEVICES_FILE;
pub(super) use history::FILE as HISTORY_FILE;
pub(super) use rules::RULES;

/// A commit begins this long after the one before, if that one has ended.
const PACE: Duration = Duration::from_millis(4);
/// So many commits after a rule was edited, the next one is.
const COMMITS_PER_EDIT: u64 = 150;

/// A link of a ledger: the hash of all commits up to its own.
type Link = [u8; 32];

/// What one commit changes.
struct Work {
    /// The number of the commit.
    n: u64,
    /// The session that it updates.
    session: u64,
    /// The device that it updates.
    device: u64,
    /// The readings that it adds.
    readings: u64,
    link: Link,
}

/// Unpredictable enough for sample data, and the same in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

/// Makes the application below a directory and runs it until its input ends. Says `ready`, then
/// `ack N MICROSECONDS` after each commit.
pub fn serve(
    cx: &Context,
    dir: &Path,
    size_mib: u64,
    mut input: impl Read + Send + 'static,
    output: &mut dyn Write,
) -> Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    // The other end of the input is held by whoever started us: it closes when they die.
    thread::spawn(move || {
        let _ = input.read_to_end(&mut Vec::new());
        flag.store(true, Ordering::Relaxed);
    });
    let mut application = Application::create(dir, size_mib)?;
    say(output, "ready")?;
    while !ended.load(Ordering::Relaxed) {
        cx.check()?;
        let began = Instant::now();
        let n = application.commit()?;
        let took = began.elapsed();
        say(output, &format!("ack {n} {}", took.as_micros()))?;
        thread::sleep(PACE.saturating_sub(took));
    }
    Ok(())
}

/// Says what a copy of the application's directory holds: `history N`, `devices N`, `rules N`,
/// and a line `fault WHAT` for everything that is wrong with it.
pub fn judge(dir: &Path, output: &mut dyn Write) -> Result<()> {
    let history = history::judge(dir);
    let devices = devices::judge(dir);
    let mut faults = Vec::new();
    if let (Ok(history), Ok(devices)) = (&history, &devices)
        && !history.starts_with(devices)
    {
        faults.push(match devices.len() > history.len() {
            true => "redb holds commits that SQLite lacks".to_string(),
            false => "the two ledgers differ".to_string(),
        });
    }
    for (name, ledger) in [("history", history), ("devices", devices)] {
        match ledger {
            Ok(ledger) => say(output, &format!("{name} {}", ledger.len()))?,
            Err(fault) => faults.push(fault),
        }
    }
    match rules::judge(dir) {
        Ok(count) => say(output, &format!("rules {count}"))?,
        Err(fault) => faults.push(fault),
    }
    for fault in faults {
        say(output, &format!("fault {}", fault.replace('\n', " ")))?;
    }
    Ok(())
}

fn say(output: &mut dyn Write, line: &str) -> Result<()> {
    let written = writeln!(output, "{line}").and_then(|()| output.flush());
    written.map_err(Error::io("write", "standard output"))
}

/// The running application.
struct Application {
    history: History,
    devices: Devices,
    rules: Rules,
    dice: Dice,
    n: u64,
    link: Link,
}

impl Application {
    fn create(dir: &Path, size_mib: u64) -> Result<Application> {
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let mut dice = Dice(1);
        Ok(Application {
            rules: Rules::create(dir, &mut dice)?,
            history: History::create(dir, size_mib, &mut dice)?,
            devices: Devices::create(dir, size_mib, &mut dice)?,
            dice,
            n: 0,
            link: [0; 32],
        })
    }

    fn commit(&mut self) -> Result<u64> {
        let n = self.n + 1;
        let mut work = Work {
            n,
            session: self.dice.below(self.history.sessions()),
            device: self.dice.below(self.devices.count()),
            readings: 1 + self.dice.below(8),
            link: [0; 32],
        };
        work.link = link(&self.link, &work);
        if n.is_multiple_of(COMMITS_PER_EDIT) {
            self.rules.edit(n, &mut self.dice)?;
        }
        self.history.commit(&work, &mut self.dice)?;
        self.devices.commit(&work, &mut self.dice)?;
        (self.n, self.link) = (n, work.link);
        Ok(n)
    }
}

fn link(previous: &Link, work: &Work) -> Link {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous);
    for number in [work.n, work.session, work.device, work.readings] {
        hasher.update(&number.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Returns a closure that turns the error of an engine into ours.
fn failed<E>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    let to_error = Error::io(action, path);
    move |error| to_error(std::io::Error::other(error))
}
