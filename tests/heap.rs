//! Counts the bytes a thread has on the heap, so that a test can say how much decoding may take.
//!
//! What libraries written in C allocate is not seen.
#![allow(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::cell::Cell;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Returns the most bytes that `work` held at once, beyond those held before.
pub(crate) fn peak_bytes(work: impl FnOnce()) -> usize {
    let before = HELD.get();
    PEAK.set(before);

    work();

    usize::try_from(PEAK.get() - before).unwrap_or(0)
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: isize) {
    // A thread that ends has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// Safety: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // Safety: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // Safety: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // Safety: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes.cast_signed() - layout.size().cast_signed());
        // Safety: as above.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[test]
fn the_peak_of_a_thread_is_counted() {
    let peak = peak_bytes(|| {
        drop(vec![1_u8; 1 << 20]);
        drop(vec![1_u8; 3 << 20]);
    });

    assert!((3 << 20..4 << 20).contains(&peak), "{peak}");
}
