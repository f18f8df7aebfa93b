//! Signals: the first asks the operation to stop at a safe point, the second ends the process.
//! One that would end it for a file that gets too long is taken: the write fails and is told.

use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;
use signal_hook::consts::SIGXFSZ;
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

const EXIT_INTERRUPTED: u8 = 130;
const EXIT_TERMINATED: u8 = 143;

/// Which signal came.
pub(super) struct Signals {
    last: Arc<AtomicUsize>,
}

impl Signals {
    /// Has signals set this flag from now on.
    pub(super) fn watch(cancel: &Arc<AtomicBool>) -> io::Result<Signals> {
        let last = Arc::new(AtomicUsize::new(0));
        for (signal, exit) in [(SIGINT, EXIT_INTERRUPTED), (SIGTERM, EXIT_TERMINATED)] {
            // Order: handlers run in this order, so the first signal finds the flag unset.
            flag::register_conditional_shutdown(signal, i32::from(exit), cancel.clone())?;
            let number = usize::try_from(signal).unwrap_or_default();
            flag::register_usize(signal, last.clone(), number)?;
            flag::register(signal, cancel.clone())?;
        }
        // Not ignored, which programs that are started would inherit: nobody reads the flag.
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(Signals { last })
    }

    /// Returns the exit code of an operation that was asked to stop.
    pub(super) fn exit_code(&self) -> u8 {
        match i32::try_from(self.last.load(Ordering::Relaxed)) {
            Ok(SIGTERM) => EXIT_TERMINATED,
            _ => EXIT_INTERRUPTED,
        }
    }
}
