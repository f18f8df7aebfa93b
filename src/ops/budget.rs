//! Bounds what the threads of one operation hold in memory together.

use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Bytes that may be held at once by all threads together.
pub(super) struct Budget {
    free: Mutex<u64>,
    changed: Condvar,
    most: u64,
}

impl Budget {
    pub(super) fn new(most: u64) -> Budget {
        Budget {
            free: Mutex::new(most),
            changed: Condvar::new(),
            most,
        }
    }

    /// Waits until so many bytes may be held; gives them back when dropped. Invariant: nobody asks
    /// again while holding some.
    pub(super) fn take(&self, bytes: u64) -> Share<'_> {
        let bytes = bytes.min(self.most);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < bytes {
            let waited = self.changed.wait(free);
            free = waited.unwrap_or_else(PoisonError::into_inner);
        }
        *free -= bytes;
        Share {
            budget: self,
            bytes,
        }
    }
}

/// A part of the budget.
pub(super) struct Share<'b> {
    budget: &'b Budget,
    bytes: u64,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let free = self.budget.free.lock();
        *free.unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.budget.changed.notify_all();
    }
}
