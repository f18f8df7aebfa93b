//! Removes snapshots a policy does not keep, and gives back the space nobody needs any more.
//!
//! ```text
//! plan    judge ── mark what the others reach ── choose records ── packs to drop, packs to rewrite
//! apply   entry {−snapshots −packs} ── delete ── rewrite ── entry {+packs −packs} ── delete
//! ```
//! Backups of others go on all the while. An entry that removes something takes effect only on top
//! of the very state it was planned from; otherwise the plan is made again. What has to be deleted
//! anyway goes first and takes one slot, so this works on a full disk. A process that is killed
//! leaves packs in no entry before an entry, and packs that are dropped but there after it: the
//! next run finishes either (`docs/decisions/0051-order-of-a-prune.md`).

mod apply;
mod forget;
mod limits;
mod mark;
mod records;
mod rewrite;
#[cfg(test)]
mod tests;
mod thin;

pub use apply::PruneReport;
pub use apply::apply;
pub use forget::forget;
pub use limits::Limits;

use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::format::entry::PackBytes;
use crate::format::note::RepoFigures;
use crate::id::PackId;
use crate::id::SnapshotId;
use crate::ops::keep;
use crate::ops::keep::Policy;
use crate::ops::keep::Series;
use crate::ops::keep::Verdict;
use crate::ops::prune::limits::Work;
use crate::ops::prune::records::Records;
use crate::ops::snapshots;
use crate::ops::snapshots::Snapshot;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use crate::repo::log;
use crate::repo::log::State;
use crate::safeguard::Safeguard;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Packs in no entry are left alone so long: a backup that runs may be about to name them.
const ORPHAN_AGE_NS: i64 = 48 * 3600 * 1_000_000_000;

/// What to remove, and how much work may be spent on space.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// What is kept; `None` removes no snapshot and only gives back space.
    pub policy: Option<Policy>,
    /// Judges only the snapshots of this profile.
    pub profile: Option<String>,
    /// Judges only the snapshots of this machine.
    pub host: Option<String>,
    /// Whose calendar the policy means.
    pub zone: TimeZone,
    /// How far rewriting may go.
    pub limits: Limits,
    /// How long a dropped pack stays for readers that began before: none in a directory, where who
    /// has a file open keeps it.
    pub grace_ns: i64,
}

/// What would be done. Nothing was changed yet.
pub struct PrunePlan {
    state: Arc<State>,
    records: Records,
    work: Work,
    survey: log::SurveyReport,
    /// The snapshots that were judged, oldest first, each with its verdict.
    pub judged: Vec<(Snapshot, Verdict)>,
    /// How many snapshots stay, those that were not judged included.
    pub kept_count: u64,
    /// What is counted.
    pub figures: PruneFigures,
}

/// What a plan comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PruneFigures {
    /// Bytes of all packs of the log.
    pub stored_bytes: u64,
    /// Bytes of records that snapshots reach.
    pub named_bytes: u64,
    /// Bytes of records that are only bases of those.
    pub base_bytes: u64,
    /// Bytes of records nobody needs.
    pub unused_bytes: u64,
    /// Records, needed or not.
    pub records: u64,
    /// Packs of which nothing is needed.
    pub drop_packs: u64,
    /// Their bytes.
    pub drop_bytes: u64,
    /// Packs that are rewritten.
    pub rewrite_packs: u64,
    /// Their bytes.
    pub rewrite_bytes: u64,
    /// Bytes of records that are copied out of them.
    pub copy_bytes: u64,
    /// Records that are stored against another base.
    pub reencoded: u64,
    /// Packs in no entry that are older than any backup that could still name them.
    pub orphan_packs: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Packs that were dropped and are still there.
    pub leftover_packs: u64,
    /// Their bytes.
    pub leftover_bytes: u64,
    /// Packs whose table cannot be read. They stay.
    pub unreadable_packs: u64,
}

impl PrunePlan {
    /// Returns the snapshots that go.
    pub fn removed(&self) -> Vec<SnapshotId> {
        let gone = self.judged.iter().filter(|(_, verdict)| !verdict.is_kept());
        gone.map(|(snapshot, _)| snapshot.id).collect()
    }

    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let figures = &self.figures;
        self.removed().is_empty()
            && self.work.is_empty()
            && figures.orphan_packs + figures.leftover_packs == 0
    }
}

/// Makes a plan. Reads, and changes nothing.
pub fn plan(cx: &Context, repo: &Repo, options: &PruneOptions) -> Result<PrunePlan> {
    cx.progress.event(Event::Phase("read the log"));
    let state = repo.read_state(cx)?;
    plan_from(cx, repo, options, state, &Given::default())
}

/// Makes a plan from this state, or from a later one if packs of this one were deleted meanwhile.
fn plan_from(
    cx: &Context,
    repo: &Repo,
    options: &PruneOptions,
    mut state: Arc<State>,
    given: &Given,
) -> Result<PrunePlan> {
    loop {
        let position = state.position;
        match plan_with(cx, repo, options, state, given) {
            Err(error @ (Error::Missing { .. } | Error::Corrupt { .. })) => {
                state = repo.read_state(cx)?;
                // Each turn somebody else has made progress.
                if state.position == position {
                    return Err(error);
                }
            }
            result => return result,
        }
    }
}

/// What an earlier attempt leaves to the next one.
#[derive(Default)]
struct Given {
    /// Packs it stored, verified, that no entry names yet.
    own: BTreeMap<PackId, PackBytes>,
    /// The snapshots somebody agreed to remove: others stay.
    agreed: Option<BTreeSet<SnapshotId>>,
}

fn plan_with(
    cx: &Context,
    repo: &Repo,
    options: &PruneOptions,
    state: Arc<State>,
    given: &Given,
) -> Result<PrunePlan> {
    let all = snapshots::of_state(&state)?;
    let now = cx.clock.now();
    let is_judged = |snapshot: &Snapshot| {
        let series = Series::of(snapshot);
        options.policy.is_some()
            && options
                .profile
                .as_ref()
                .is_none_or(|profile| *profile == series.profile)
            && options
                .host
                .as_ref()
                .is_none_or(|host| *host == series.host)
    };
    let (judged, others): (Vec<Snapshot>, Vec<Snapshot>) = all.into_iter().partition(is_judged);
    let mut verdicts = match &options.policy {
        Some(policy) => keep::judge(&judged, policy, &options.zone, now)?,
        None => Vec::new(),
    };
    if let Some(agreed) = &given.agreed
        && Safeguard::AgreedOnly.holds()
    {
        // Who agreed to a plan agreed to no other: what it did not name stays for the next time.
        let spared = |verdict: &&mut Verdict| !agreed.contains(&verdict.id);
        verdicts
            .iter_mut()
            .filter(spared)
            .for_each(|v| v.goes = None);
    }
    let keeps = |(snapshot, verdict): &(&Snapshot, &Verdict)| {
        verdict.is_kept().then_some(&snapshot.manifest).cloned()
    };
    let mut kept: Vec<_> = judged
        .iter()
        .zip(&verdicts)
        .filter_map(|pair| keeps(&pair))
        .collect();
    kept.extend(others.iter().map(|snapshot| snapshot.manifest.clone()));

    cx.progress.event(Event::Phase("mark"));
    let own: BTreeMap<PackId, PackBytes> = given
        .own
        .iter()
        .filter(|(id, _)| !state.packs.contains_key(id))
        .map(|(id, bytes)| (*id, *bytes))
        .collect();
    let mut packs = state.packs.clone();
    packs.extend(&own);
    let chunks = Chunks::open(repo, &packs)?;
    let mut records = Records::read(cx, &chunks, &state.packs, &own, &state.notes.lost)?;
    mark::mark(cx, &chunks, &kept, &mut records)?;
    chunks.save_index();
    let work = limits::work(&mut records, &options.limits)?;
    let before = now.0.saturating_sub(orphan_age_ns());
    let survey = log::survey(
        cx,
        repo.store(),
        &repo.log_keys(),
        Arc::clone(&state),
        before,
    )?;
    let figures = figures(&records, &work, &survey);
    Ok(PrunePlan {
        state,
        records,
        work,
        survey,
        kept_count: kept.len() as u64,
        judged: judged.into_iter().zip(verdicts).collect(),
        figures,
    })
}

fn orphan_age_ns() -> i64 {
    match Safeguard::OrphansOld.holds() {
        true => ORPHAN_AGE_NS,
        false => 0,
    }
}

fn figures(records: &Records, work: &Work, survey: &log::SurveyReport) -> PruneFigures {
    let mut figures = PruneFigures {
        records: records.entries().len() as u64,
        reencoded: work.reencode.len() as u64,
        ..PruneFigures::default()
    };
    for entry in records.entries() {
        let bytes = u64::from(entry.stored_bytes);
        match (entry.is_named(), entry.is_kept()) {
            (true, _) => figures.named_bytes += bytes,
            (false, true) => figures.base_bytes += bytes,
            (false, false) => figures.unused_bytes += bytes,
        }
        let is_rewritten = work.rewrite.contains(&entry.pack);
        figures.copy_bytes += bytes * u64::from(is_rewritten && entry.is_copied());
    }
    for (at, pack) in (0_u32..).zip(&records.packs) {
        figures.unreadable_packs += u64::from(pack.is_unreadable);
        if pack.is_own {
            continue;
        }
        let bytes = pack.bytes.stored_bytes;
        figures.stored_bytes += bytes;
        if work.drop.contains(&at) {
            figures.drop_packs += 1;
            figures.drop_bytes += bytes;
        } else if work.rewrite.contains(&at) {
            figures.rewrite_packs += 1;
            figures.rewrite_bytes += bytes;
        }
    }
    figures.orphan_packs = survey.orphans.len() as u64;
    figures.orphan_bytes = survey.orphans.iter().map(|pack| pack.stored_bytes).sum();
    figures.leftover_packs = survey.dropped.len() as u64;
    figures.leftover_bytes = survey.dropped.iter().map(|pack| pack.stored_bytes).sum();
    figures
}

impl PruneFigures {
    /// Returns what the log remembers of it.
    fn note(&self) -> RepoFigures {
        RepoFigures {
            needed_bytes: self.named_bytes + self.base_bytes,
            unneeded_bytes: self.unused_bytes,
            records: self.records,
        }
    }
}
