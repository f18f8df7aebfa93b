//! Following the log: a prune moves records to other packs and deletes the old ones, and whoever
//! was about to read one of those looks where it is now.
//!
//! Only for readers. A writer names the packs it relied on in a draft, which the log judges by one
//! state (I4); it plans again instead.

use crate::context::Context;
use crate::error::Result;
use crate::format::entry::PackBytes;
use crate::id::PackId;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::PackEntry;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Looks at the log that find it where it was. Where much is damaged, each chunk would cost one.
const VAIN_LOOKS_MAX: u32 = 64;

/// How far the log was followed.
pub(super) struct Follow {
    cx: Context,
    /// How often the packs changed.
    changes: AtomicU64,
    /// Held while the log is read: of several threads that miss the same pack, one reads.
    vain_looks: Mutex<u32>,
}

impl<'r> Chunks<'r> {
    /// Opens the chunks of these packs for reading. When one of them turns out to be gone, the log
    /// is read again, and what it says by then counts.
    pub fn open_following(
        cx: &Context,
        repo: &'r Repo,
        packs: &BTreeMap<PackId, PackBytes>,
    ) -> Result<Chunks<'r>> {
        let mut chunks = Chunks::open(repo, packs)?;
        chunks.follow = Some(Follow {
            cx: cx.clone(),
            changes: AtomicU64::new(0),
            vain_looks: Mutex::new(0),
        });
        Ok(chunks)
    }

    /// Returns what to compare with later.
    pub(super) fn log_seen(&self) -> u64 {
        let changes = self.follow.as_ref().map(|follow| &follow.changes);
        changes.map_or(0, |changes| changes.load(Ordering::Acquire))
    }

    /// Returns whether the packs are others than those seen, after a look at the log if need be.
    pub(super) fn log_moved(&self, seen: &mut u64) -> bool {
        let Some(follow) = &self.follow else {
            return false;
        };
        let mut vain_looks = follow
            .vain_looks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let changes = follow.changes.load(Ordering::Acquire);
        if changes != *seen {
            *seen = changes;
            return true;
        }
        if *vain_looks >= VAIN_LOOKS_MAX {
            return false;
        }
        // A log that cannot be read says nothing new; that a chunk is missing is what to tell.
        if !matches!(self.take_packs_of_log(follow), Ok(true)) {
            *vain_looks += 1;
            return false;
        }
        *seen = changes + 1;
        follow.changes.store(*seen, Ordering::Release);
        true
    }

    /// Goes over to the packs that the log names now. Returns whether they are others.
    fn take_packs_of_log(&self, follow: &Follow) -> Result<bool> {
        let state = self.repo.read_state(&follow.cx)?;
        {
            let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
            if packs.keys().len() == state.packs.len()
                && packs.keys().all(|pack| state.packs.contains_key(pack))
            {
                return Ok(false);
            }
            packs.retain(|pack, _| state.packs.contains_key(pack));
            for (pack, bytes) in &state.packs {
                packs.entry(*pack).or_insert(PackEntry {
                    bytes: *bytes,
                    opener: None,
                });
            }
        }
        self.index
            .retain_packs(&|pack| state.packs.contains_key(pack));
        self.load_missing_tables()?;
        Ok(true)
    }
}
