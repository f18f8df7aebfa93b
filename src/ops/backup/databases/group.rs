//! Holding several databases at one instant.
//!
//! An application that writes to one database and then to another must never find the second write
//! without the first in a backup (I11 across databases). So all are pinned, and then each is asked
//! whether it is still what was pinned: if all are, there was an instant, the one after the last
//! pin, at which all of them were exactly this. Where writers never leave such an instant, what was
//! pinned last is taken and the skew is told.

use crate::context::Context;
use crate::context::Timestamp;
use crate::error::Result;
use crate::format::database::Method;
use crate::ops::backup::Holder;
use crate::ops::backup::databases::gate::Looks;
use crate::source;
use crate::source::files::Stat;
use crate::source::files::Tree;
use crate::source::sqlite;
use std::thread;
use std::time::Duration;

/// How long an instant is sought at which all databases are as they were pinned.
const SETTLE_NS: i64 = 500_000_000;
/// How long a busy database is waited for while others are not held.
const PATIENCE_NS: i64 = 10_000_000_000;
/// Between two tries; long for a lock, short for a person.
const PAUSE: Duration = Duration::from_millis(20);
/// Walks over a redb file before it counts as too busy.
const PASSES_MAX: u32 = 300;

/// An open database that is to be captured.
pub(super) struct Member {
    pub path: Vec<u8>,
    pub looks: Looks,
    pub stat: Stat,
    pub method: Method,
    pub handle: Handle,
    /// The handle by which this very process has it open.
    pub holder: Option<Holder>,
    /// When the state that is held was pinned.
    pub pinned_at: Option<Timestamp>,
    /// When a private copy was begun, if that is what is held.
    pub copied_at: Option<Timestamp>,
}

/// A database as its engine knows it.
pub(super) enum Handle {
    Sqlite(Box<sqlite::Database>),
    Redb(Box<source::redb::Database>),
}

/// Why a database cannot be captured through its engine.
#[derive(Debug)]
pub(super) enum Refusal {
    Sqlite(sqlite::Refusal),
    Redb(source::redb::Refusal),
}

/// What came of pinning.
pub(super) enum Pinned {
    /// All are held; so many microseconds apart at most.
    Together { skew_us: u64 },
    /// A database that was taken for unchanged is not; it has to be a member too.
    Moved { path: Vec<u8> },
}

impl Member {
    fn pin(&mut self, cx: &Context, spool_bytes_max: u64) -> Result<(), Refusal> {
        self.pinned_at = None;
        match &mut self.handle {
            Handle::Sqlite(database) => database.pin().map_err(Refusal::Sqlite)?,
            Handle::Redb(database) => {
                let mut go_on = || cx.check().is_ok();
                // Held or not, what is captured is the same; it only takes more passes.
                let held = self.holder.as_ref().and_then(|holder| holder.hold().ok());
                database.set_held(held.is_some());
                let captured = database.capture(PASSES_MAX, spool_bytes_max, &mut go_on);
                drop(held);
                captured.map_err(Refusal::Redb)?;
            }
        }
        // However often a copy is looked at, it stays that of its moment.
        self.pinned_at = Some(self.copied_at.unwrap_or_else(|| cx.clock.now()));
        Ok(())
    }

    fn unpin(&mut self) {
        if let Handle::Sqlite(database) = &mut self.handle {
            database.unpin();
            self.pinned_at = None;
        }
    }

    fn is_newest(&mut self, tree: &Tree) -> bool {
        // A copy knows nothing of what became of its original.
        let is_current =
            self.method != Method::PrivateCopy || self.looks.is_still(tree, &self.path);
        self.pinned_at.is_some()
            && is_current
            && match &mut self.handle {
                Handle::Sqlite(database) => database.is_newest(),
                Handle::Redb(database) => database.is_newest().unwrap_or(false),
            }
    }

    /// What takes longest to pin is pinned first.
    fn rank(&self) -> u8 {
        match self.handle {
            Handle::Redb(_) => 0,
            Handle::Sqlite(_) => 1,
        }
    }
}

impl Refusal {
    /// Whether it is only locked by somebody.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Refusal::Sqlite(sqlite::Refusal::Busy { .. }))
    }

    /// Whether its path led to another file by then.
    pub(super) fn is_changed(&self) -> bool {
        matches!(self, Refusal::Sqlite(sqlite::Refusal::Changed))
    }

    /// Returns a word for programs and the reason for people.
    pub(super) fn describe(&self) -> (&'static str, String) {
        match self {
            Refusal::Sqlite(refusal) => (refusal.code(), refusal.to_string()),
            Refusal::Redb(refusal) => (refusal.code(), refusal.to_string()),
        }
    }
}

/// Pins all members, and takes those out that refuse. `idle` are databases that look as they did
/// when they were captured last.
pub(super) fn pin(
    cx: &Context,
    tree: &Tree,
    members: &mut Vec<Member>,
    idle: &[(Vec<u8>, Looks)],
    spool_bytes_max: u64,
    refused: &mut Vec<(Member, Refusal)>,
) -> Result<Pinned> {
    members.sort_by_key(Member::rank);
    let began = cx.clock.now();
    let elapsed = || cx.clock.now().since_ns(began);
    let mut settling_since = None;
    'again: loop {
        cx.check()?;
        let mut next = 0;
        while next < members.len() {
            let member = &mut members[next];
            next += 1;
            if member.is_newest(tree) {
                continue;
            }
            match member.pin(cx, spool_bytes_max) {
                Ok(()) => {}
                // Whoever has it locked may wait for one that we hold: let go of all of them.
                Err(refusal) if refusal.is_busy() && (0..PATIENCE_NS).contains(&elapsed()) => {
                    members.iter_mut().for_each(Member::unpin);
                    thread::sleep(PAUSE);
                    continue 'again;
                }
                Err(refusal) => {
                    cx.check()?;
                    next -= 1;
                    refused.push((members.remove(next), refusal));
                }
            }
        }
        for (path, looks) in idle {
            if !looks.is_still(tree, path) {
                return Ok(Pinned::Moved { path: path.clone() });
            }
        }
        if members.len() + idle.len() < 2 || members.iter_mut().all(|member| member.is_newest(tree))
        {
            return Ok(Pinned::Together { skew_us: 0 });
        }
        let since = *settling_since.get_or_insert_with(|| cx.clock.now());
        // A clock that was set back says nothing about how long it took.
        if !(0..=SETTLE_NS).contains(&cx.clock.now().since_ns(since)) {
            let first = members.iter().filter_map(|member| member.pinned_at).min();
            let skew_ns = first.map_or(0, |first| cx.clock.now().since_ns(first));
            let skew_us = u64::try_from(skew_ns / 1000).unwrap_or(0).max(1);
            return Ok(Pinned::Together { skew_us });
        }
    }
}
