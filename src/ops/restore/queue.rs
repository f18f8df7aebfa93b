//! The queue between the thread that walks the tree and those that write.
//!
//! Two lanes: whoever takes goes for the inner one first, so that a large file that was begun is
//! finished before another one is opened. Only the walker waits for room; a worker whose work does
//! not fit does it itself, so nobody waits for each other.

use std::collections::VecDeque;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// A queue with two lanes.
pub(super) struct Queue<T> {
    lanes: Mutex<Lanes<T>>,
    changed: Condvar,
    len_max: usize,
}

struct Lanes<T> {
    outer: VecDeque<T>,
    inner: VecDeque<T>,
    /// Workers that may still add to the inner lane.
    busy: usize,
    closed: bool,
}

impl<T> Queue<T> {
    /// Returns an empty queue with room for so many in each lane.
    pub(super) fn new(len_max: usize) -> Queue<T> {
        Queue {
            lanes: Mutex::new(Lanes {
                outer: VecDeque::new(),
                inner: VecDeque::new(),
                busy: 0,
                closed: false,
            }),
            changed: Condvar::new(),
            len_max,
        }
    }

    /// Adds to the outer lane; waits for room. Does nothing once the queue is closed.
    pub(super) fn push(&self, item: T) {
        let mut lanes = self.lock();
        while lanes.outer.len() >= self.len_max && !lanes.closed {
            lanes = self.wait(lanes);
        }
        if !lanes.closed {
            lanes.outer.push_back(item);
            self.changed.notify_all();
        }
    }

    /// Adds to the inner lane, or gives the item back if there is no room.
    pub(super) fn offer(&self, item: T) -> Option<T> {
        let mut lanes = self.lock();
        if lanes.inner.len() >= self.len_max {
            return Some(item);
        }
        lanes.inner.push_back(item);
        self.changed.notify_all();
        None
    }

    /// Takes the next item; `None` when there will be none. Whoever has one may add to the inner
    /// lane as long as it holds the second value.
    pub(super) fn take(&self) -> Option<(T, Busy<'_, T>)> {
        let mut lanes = self.lock();
        loop {
            let item = lanes.inner.pop_front();
            if let Some(item) = item.or_else(|| lanes.outer.pop_front()) {
                lanes.busy += 1;
                self.changed.notify_all();
                return Some((item, Busy { queue: self }));
            }
            if lanes.closed && lanes.busy == 0 {
                return None;
            }
            lanes = self.wait(lanes);
        }
    }

    /// Says that nothing more will be pushed.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Drops what is queued.
    pub(super) fn clear(&self) {
        let dropped = {
            let mut lanes = self.lock();
            lanes.closed = true;
            let outer = std::mem::take(&mut lanes.outer);
            (outer, std::mem::take(&mut lanes.inner))
        };
        drop(dropped);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Lanes<T>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, lanes: MutexGuard<'a, Lanes<T>>) -> MutexGuard<'a, Lanes<T>> {
        let waited = self.changed.wait(lanes);
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

/// An item that is being dealt with. Ends even if that panics: others wait for it.
pub(super) struct Busy<'q, T> {
    queue: &'q Queue<T>,
}

impl<T> Drop for Busy<'_, T> {
    fn drop(&mut self) {
        self.queue.lock().busy -= 1;
        self.queue.changed.notify_all();
    }
}
