//! The sample application as its parent sees it: what it acknowledged, and how long its commits
//! took. Dropping ends it.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use std::io::BufRead;
use std::io::BufReader;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

/// Between two looks at whether something has happened.
const PAUSE: Duration = Duration::from_millis(5);
/// How long it may take to close its databases.
const PATIENCE: Duration = Duration::from_secs(5);

/// What happens while a commit is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// Nothing.
    Nothing,
    /// A backup.
    Backup,
    /// An archive is written.
    Archive,
}

/// What was heard of the application so far.
#[derive(Default)]
struct Heard {
    is_ready: AtomicBool,
    acked: AtomicU64,
    /// A `Beside` as a number.
    beside: AtomicU64,
    latencies_us: Mutex<[Vec<u64>; 3]>,
}

impl Heard {
    fn line(&self, line: &str) {
        let mut words = line.split(' ');
        let word = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|word| word.parse().ok());
        match (word, number(), number()) {
            ("ready", _, _) => self.is_ready.store(true, Ordering::Release),
            ("ack", Some(n), Some(took_us)) => {
                let beside = self.beside.load(Ordering::Relaxed) as usize;
                let mut all = self
                    .latencies_us
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                all[beside].push(took_us);
                self.acked.store(n, Ordering::Release);
            }
            _ => {}
        }
    }
}

/// The running application.
pub(super) struct Process {
    child: Child,
    heard: Arc<Heard>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts it and returns when its databases are there.
    pub(super) fn start(cx: &Context, mut command: Command) -> Result<Process> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for us: we end it, and then remove what it wrote.
            .process_group(0);
        let program = command.get_program().to_owned();
        let mut child = command.spawn().map_err(Error::io("run", program))?;
        let heard = Arc::new(Heard::default());
        let reader = child.stdout.take().map(|output| {
            let ears = Arc::clone(&heard);
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    ears.line(&line);
                }
            })
        });
        let mut process = Process {
            child,
            heard,
            reader,
        };
        while !process.heard.is_ready.load(Ordering::Acquire) {
            process.pause(cx)?;
        }
        Ok(process)
    }

    /// The greatest number known to be committed to both databases.
    pub(super) fn acked(&self) -> u64 {
        self.heard.acked.load(Ordering::Acquire)
    }

    /// Says what happens from now on.
    pub(super) fn beside(&self, what: Beside) {
        self.heard.beside.store(what as u64, Ordering::Relaxed);
    }

    /// Returns how long commits took beside this, sorted.
    pub(super) fn latencies_us(&self, beside: Beside) -> Vec<u64> {
        let all = self.heard.latencies_us.lock();
        let mut some = all.unwrap_or_else(PoisonError::into_inner)[beside as usize].clone();
        some.sort_unstable();
        some
    }

    /// Lets it work.
    pub(super) fn wait(&mut self, cx: &Context, time: Duration) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < time {
            self.pause(cx)?;
        }
        Ok(())
    }

    fn pause(&mut self, cx: &Context) -> Result<()> {
        cx.check()?;
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(Error::Refused {
                reason: format!("the sample application ended by itself: {status}"),
            });
        }
        thread::sleep(PAUSE);
        Ok(())
    }

    /// Lets it close its databases.
    pub(super) fn stop(mut self) {
        drop(self.child.stdin.take());
        let began = Instant::now();
        while began.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
