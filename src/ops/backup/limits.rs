//! What a backup may take from the machine: who goes first, how much memory.
//!
//! Threads that encode and store can be idle: they run when nobody else wants to. The thread that
//! reads databases never is while it holds them: a writer that waits for a lock of ours would wait
//! for everybody else as well (`docs/decisions/0065-tuning.md`).

use crate::ops::thread_count;
use crate::repo::writer::Effort;

/// What a backup takes beside packs and threads that encode: the program, segments of packs that
/// bases were read from, what waits. Measured, as below.
const BASE_BYTES: u64 = 30 << 20;
/// Packs that are there at once: one is filled while another one is made durable.
const PACKS: u64 = 2;
/// Contexts, bases and buffers of one thread that encodes.
const THREAD_BYTES: u64 = 7 << 19;
/// Packs are no shorter, or there would be very many of them.
const PACK_BYTES_MIN: u64 = 3 << 20;

/// Less memory than this is not enough for any backup.
pub const MEMORY_BYTES_MIN: u64 = 40 << 20;

/// Whether others go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// Like everybody.
    #[default]
    Normal,
    /// Processor and disk are used when nobody else wants them, where the system can do that.
    Idle,
}

/// How many threads encode, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub threads: usize,
    pub effort: Effort,
}

impl Limits {
    /// Returns what fits into so many bytes. Packs become shorter before threads become fewer:
    /// shorter packs cost a few files, fewer threads cost time.
    pub(super) fn of(effort: Effort, memory_bytes: Option<u64>) -> Limits {
        // One waits for a base while another one encodes.
        let cores = thread_count().max(2);
        let Some(memory_bytes) = memory_bytes else {
            return Limits {
                threads: cores,
                effort,
            };
        };
        let left = memory_bytes.saturating_sub(BASE_BYTES);
        let for_threads = THREAD_BYTES.saturating_mul(cores as u64);
        let for_packs = left.saturating_sub(for_threads) / PACKS;
        let pack_bytes = for_packs.clamp(PACK_BYTES_MIN, effort.pack_bytes.max(PACK_BYTES_MIN));
        let left = left.saturating_sub(PACKS * pack_bytes);
        let threads = usize::try_from(left / THREAD_BYTES).unwrap_or(cores);
        Limits {
            threads: threads.clamp(1, cores),
            effort: Effort {
                pack_bytes,
                ..effort
            },
        }
    }
}

impl Priority {
    /// Makes the calling thread, and those it starts from now on, what this says. A system that
    /// cannot is none that must not be backed up.
    pub(super) fn apply(self) {
        if self == Priority::Idle {
            idle();
        }
    }
}

/// Lets everybody else go first. The kernel takes the class of input and output from this too, for
/// schedulers that know classes.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "no crate here has this call")]
fn idle() {
    #[repr(C)]
    struct Parameters {
        priority: i32,
    }
    unsafe extern "C" {
        fn sched_setscheduler(thread: i32, policy: i32, parameters: *const Parameters) -> i32;
    }
    /// `SCHED_IDLE` of `sched(7)`.
    const IDLE: i32 = 5;
    // Safety: the call only reads the parameters, which live until it returns; 0 is the caller.
    let result = unsafe { sched_setscheduler(0, IDLE, &Parameters { priority: 0 }) };
    if result != 0 {
        let _ = rustix::process::setpriority_process(None, 19);
    }
}

#[cfg(not(target_os = "linux"))]
fn idle() {
    let _ = rustix::process::setpriority_process(None, 19);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_memory_means_shorter_packs_and_then_fewer_threads() {
        let of = |mib: u64| Limits::of(Effort::default(), Some(mib << 20));
        let all = Limits::of(Effort::default(), None);
        let mut last = of(8);

        assert_eq!((last.threads, last.effort.pack_bytes), (1, PACK_BYTES_MIN));
        for mib in 9..1000 {
            let now = of(mib);
            assert!(now.threads >= last.threads, "{mib} MiB");
            assert!(now.effort.pack_bytes >= last.effort.pack_bytes, "{mib} MiB");
            if mib << 20 >= MEMORY_BYTES_MIN {
                let bytes =
                    BASE_BYTES + PACKS * now.effort.pack_bytes + THREAD_BYTES * now.threads as u64;
                assert!(bytes <= mib << 20, "{mib} MiB: {bytes}");
            }
            last = now;
        }
        assert_eq!(last, all);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_idle_thread_is_idle_and_so_are_those_it_starts() {
        let policy = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let after_name = stat.rsplit(')').next().unwrap();
            after_name.split_whitespace().nth(38).unwrap().to_string()
        };
        let before = policy();

        let (own, child) = std::thread::scope(|scope| {
            let idle = scope.spawn(|| {
                Priority::Idle.apply();
                let child = std::thread::scope(|scope| scope.spawn(policy).join().unwrap());
                (policy(), child)
            });
            idle.join().unwrap()
        });

        assert_eq!((&*own, &*child), ("5", "5"));
        assert_eq!(policy(), before);
    }
}
