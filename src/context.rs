//! What an operation needs from the outside: time, randomness, a place to report to, a way to stop.
//!
//! Everything here can be replaced, so that tests are deterministic and an embedding application
//! decides what is shown. Nothing here prints or reads the environment.

use crate::error::Error;
use crate::error::Result;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// A point in time: nanoseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Returns the nanoseconds from `earlier` to this point, negative if it is later.
    pub fn since_ns(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Returns the time now.
    fn now(&self) -> Timestamp;
}

/// Yields unpredictable bytes.
pub trait Random: Send + Sync {
    /// Fills the buffer. A failure is fatal to the operation: no key may be made without it.
    fn fill(&self, buffer: &mut [u8]) -> Result<()>;
}

/// What an operation says while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A phase began, for example `read` or `restore`.
    Phase(&'static str),
    /// So much is to be done in this phase, as far as known.
    Total {
        /// Files, or whatever the phase counts: packs, snapshots.
        files: u64,
        /// Bytes; 0 if the phase counts none.
        bytes: u64,
    },
    /// So much more was done.
    Done {
        /// Files since the last event.
        files: u64,
        /// Bytes since the last event.
        bytes: u64,
    },
    /// Something is wrong with a source; the operation goes on.
    Warning {
        /// A stable name for what it is.
        code: &'static str,
        /// Where, relative to the root; empty if nowhere.
        path: Vec<u8>,
        /// What exactly, in words.
        message: String,
    },
}

/// Receives events from any thread.
pub trait Progress: Send + Sync {
    /// Takes one event. Must be quick: it is called on the hot path.
    fn event(&self, event: Event);
}

/// The outside world as one value, cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for keys, salts and names.
    pub random: Arc<dyn Random>,
    /// Where events go.
    pub progress: Arc<dyn Progress>,
    /// Set from anywhere to stop the operation at the next safe point.
    pub cancel: Arc<AtomicBool>,
}

impl Context {
    /// Returns the context of a real run that reports to nobody.
    pub fn new() -> Context {
        Context {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            progress: Arc::new(Silent),
            cancel: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Returns the context of a real run that calls this with every event, from any thread, and
    /// stops at the next safe point once it was told to. Stopping is for good: the next run takes
    /// a new context.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use statekeep::{BackupOptions, Context, Error, Keeper, Place, Protection};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::write(dir.path().join("a"), "a")?;
    /// let place = Place::new(dir.path().join("backups"), Protection::Plain);
    /// let keeper = Keeper::open_or_create(&Context::new(), &place)?;
    /// let cx = Context::watched(|_event| ControlFlow::Break(()));
    /// let stopped = keeper.backup(&cx, &BackupOptions::of(dir.path().join("a")));
    /// assert!(matches!(stopped, Err(Error::Cancelled)));
    /// assert!(keeper.list(&Context::new())?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn watched(watcher: impl Fn(&Event) -> ControlFlow<()> + Send + Sync + 'static) -> Context {
        let cancel = Arc::new(AtomicBool::new(false));
        let watched = Watched {
            watcher,
            cancel: Arc::clone(&cancel),
        };
        Context {
            progress: Arc::new(watched),
            cancel,
            ..Context::new()
        }
    }

    /// Fails once the caller has asked to stop.
    pub fn check(&self) -> Result<()> {
        match self.cancel.load(Ordering::Relaxed) {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    /// Returns random bytes.
    pub fn random_bytes<const N: usize>(&self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes)?;
        Ok(bytes)
    }
}

impl Default for Context {
    fn default() -> Context {
        Context::new()
    }
}

/// The clock of the machine.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let ns = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_nanos()).unwrap_or(i64::MAX),
        };
        Timestamp(ns)
    }
}

/// The random generator of the operating system.
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        getrandom::fill(buffer).map_err(|error| Error::Io {
            action: "read",
            path: "the system's random generator".into(),
            source: error.into(),
        })
    }
}

/// Reports to a function, and stops when it says so.
struct Watched<F> {
    watcher: F,
    cancel: Arc<AtomicBool>,
}

impl<F: Fn(&Event) -> ControlFlow<()> + Send + Sync> Progress for Watched<F> {
    fn event(&self, event: Event) {
        if (self.watcher)(&event).is_break() {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }
}

/// Reports to nobody.
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event) {}
}
