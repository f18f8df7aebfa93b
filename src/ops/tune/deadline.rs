//! A context that is cancelled when time is up.
//!
//! Whatever works long reports what it did; each report looks at the clock. So no thread waits, and
//! a clock of a test decides as well as that of the machine.

use crate::context::Clock;
use crate::context::Context;
use crate::context::Event;
use crate::context::Progress;
use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The time until which everything has to be done.
pub(super) struct Deadline {
    /// What to work with.
    pub cx: Context,
    at: Timestamp,
    budget: Duration,
}

struct Watch {
    clock: Arc<dyn Clock>,
    at: Timestamp,
    outer: Arc<AtomicBool>,
    own: Arc<AtomicBool>,
    progress: Arc<dyn Progress>,
}

impl Progress for Watch {
    fn event(&self, event: Event) {
        if self.outer.load(Ordering::Relaxed) || self.clock.now() >= self.at {
            self.own.store(true, Ordering::Relaxed);
        }
        // What a backup of a replay has to say is of no interest, but that there is one is.
        if let Event::Done { .. } = event {
            self.progress.event(event);
        }
    }
}

impl Deadline {
    pub(super) fn new(cx: &Context, began: Timestamp, budget: Duration) -> Deadline {
        let budget_ns = i64::try_from(budget.as_nanos()).unwrap_or(i64::MAX);
        let at = Timestamp(began.0.saturating_add(budget_ns));
        let own = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            clock: Arc::clone(&cx.clock),
            at,
            outer: Arc::clone(&cx.cancel),
            own: Arc::clone(&own),
            progress: Arc::clone(&cx.progress),
        };
        let cx = Context {
            progress: Arc::new(watch),
            cancel: own,
            ..cx.clone()
        };
        Deadline { cx, at, budget }
    }

    /// Fails once time is up.
    pub(super) fn check(&self) -> Result<()> {
        let nothing = Event::Done { files: 0, bytes: 0 };
        self.cx.progress.event(nothing);
        self.cx.check()
    }

    /// Returns the time that is left.
    pub(super) fn left_ns(&self) -> i64 {
        self.at.since_ns(self.cx.clock.now()).max(0)
    }

    /// Tells what ended the work if it was neither an error nor whoever waits for it.
    pub(super) fn explain(&self, outer: &Context, error: Error) -> Error {
        let is_over = matches!(error, Error::Cancelled) && outer.check().is_ok();
        match is_over {
            true => Error::Refused {
                reason: format!(
                    "{} s are too short for one backup by every setting; nothing was found out",
                    self.budget.as_secs_f64()
                ),
            },
            false => error,
        }
    }
}
