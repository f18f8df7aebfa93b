//! Whether what people own is safe: when each application was last backed up whole, whether that
//! is late, whether it was proven, and what is wrong.
//!
//! Reads the log, which the caller has, and below the roots of this machine the journal of a
//! restore that was interrupted; no pack. Judges by the latest time at which a backup can have been
//! made (`made`), so that no clock makes an old backup look young. `docs/status.md` has the rules.

mod due;
mod made;
mod words;

pub use due::Due;
pub use due::NextAfter;
pub use due::Rhythm;
pub use words::Unreadable;
pub use words::Verdict;
pub use words::headline;
pub use words::label;

use crate::context::Timestamp;
use crate::error::Error;
use crate::format::history::SeriesName;
use crate::format::manifest::Figures;
use crate::format::manifest::Manifest;
use crate::format::note::HoldUntil;
use crate::format::note::Proof;
use crate::id::SnapshotId;
use crate::ops::check::last;
use crate::ops::check::last::LastCheck;
use crate::ops::guard;
use crate::ops::in_place;
use crate::ops::keep;
use crate::ops::keep::Series;
use crate::ops::snapshots::Snapshot;
use crate::ops::stats;
use crate::ops::stats::Growth;
use crate::repo::Repo;
use crate::repo::log::State;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

/// An application that must be in the repository.
pub struct Expected<'a> {
    /// Its profile.
    pub profile: String,
    /// Where it is.
    pub root: PathBuf,
    /// When it is backed up.
    pub schedule: Option<Box<NextAfter<'a>>>,
    /// When a restore of it is rehearsed.
    pub drill_schedule: Option<Box<NextAfter<'a>>>,
}

/// What a repository is judged by.
#[derive(Default)]
pub struct StatusOptions<'a> {
    /// This machine.
    pub host: String,
    /// What must be in it. Whatever else is in it is told and not judged; if nothing must be,
    /// all of it is judged.
    pub expected: Vec<Expected<'a>>,
}

/// One repository.
#[derive(Debug, Clone, Default)]
pub struct RepoStatus {
    /// Its applications: those that are expected, in that order, then the others.
    pub series: Vec<SeriesStatus>,
    /// Snapshots in it.
    pub snapshots: u64,
    /// Packs in it.
    pub packs: u64,
    /// Bytes of all packs.
    pub pack_bytes: u64,
    /// Packs and chunks that are marked as lost.
    pub lost: u64,
    /// The last check of this machine, if it remembers one.
    pub check: Option<LastCheck>,
}

/// One application, or a root that is backed up by hand.
#[derive(Debug, Clone)]
pub struct SeriesStatus {
    /// Which.
    pub name: Series,
    /// Whether it counts for the verdict.
    pub is_judged: bool,
    /// Snapshots of it.
    pub snapshots: u64,
    /// The last good backup: complete, of all of it, and with a date that can be believed.
    pub last: Option<Made>,
    /// The last partial one, if it is newer.
    pub partial: Option<Made>,
    /// Snapshots that are dated in the future and do not count.
    pub future: u64,
    /// When the next one is due.
    pub due: Option<Due>,
    /// The last drill, and the snapshot it was of.
    pub proof: Option<(SnapshotId, Proof)>,
    /// When the next drill is due, if there is a schedule for it.
    pub drill_due: Option<Due>,
    /// Bytes of all files in the last backup.
    pub size_bytes: u64,
    /// What the last good one counted, and how many milliseconds it took.
    pub last_figures: Option<(Figures, u64)>,
    /// Its share of the packs: exact if it is alone, else by what its backups stored.
    pub stored_bytes: u64,
    /// What backups stored over time.
    pub growth: Growth,
    /// The way back of the last migration, while it is held.
    pub guard: Option<Guard>,
    /// What is wrong, the worst first.
    pub problems: Vec<Problem>,
}

/// A snapshot and when it was made at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Which.
    pub id: SnapshotId,
    /// When.
    pub at: Timestamp,
}

/// A snapshot to go back to if a migration turns out to be bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// Which, and since when.
    pub made: Made,
    /// How long it is held.
    pub until: HoldUntil,
}

/// Something that keeps an application from being safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// So many snapshots cannot be restored whole; whether the last backup is one of them.
    Damaged(u64, bool),
    /// The last drill failed, with this result.
    DrillFailed(String),
    /// There is no good backup.
    Never,
    /// All backups are dated in the future: the clock of this machine or theirs is wrong.
    Clock,
    /// The last good backup is too old.
    Overdue(Due),
    /// The last drill is too long ago, or there was none.
    DrillOverdue(Due),
    /// A restore in place was interrupted: what is there is neither old nor new.
    Unfinished,
    /// The last backup is partial.
    Partial,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// To be looked at.
    Warning,
    /// Something that should have happened did not.
    Overdue,
    /// What is stored is not all there.
    Damage,
}

impl Problem {
    /// Returns how bad it is.
    pub fn gravity(&self) -> Gravity {
        match self {
            Problem::Damaged(..) | Problem::DrillFailed(_) => Gravity::Damage,
            Problem::Never | Problem::Clock | Problem::Overdue(_) | Problem::DrillOverdue(_) => {
                Gravity::Overdue
            }
            Problem::Unfinished | Problem::Partial => Gravity::Warning,
        }
    }
}

impl SeriesStatus {
    /// Returns the worst that is wrong.
    pub fn gravity(&self) -> Option<Gravity> {
        self.problems.iter().map(Problem::gravity).max()
    }
}

impl RepoStatus {
    /// Returns the worst that is wrong with what is judged.
    pub fn gravity(&self) -> Option<Gravity> {
        let judged = self.series.iter().filter(|one| one.is_judged);
        let worst = judged.filter_map(SeriesStatus::gravity).max();
        worst.max(self.has_damage().then_some(Gravity::Damage))
    }

    /// Returns whether something is lost or was found damaged, whatever it belongs to.
    pub fn has_damage(&self) -> bool {
        self.lost > 0 || self.check.is_some_and(|check| check.problems > 0)
    }
}

/// Judges a repository.
pub fn status(
    repo: &Repo,
    state: &State,
    snapshots: &[Snapshot],
    options: &StatusOptions<'_>,
    now: Timestamp,
) -> RepoStatus {
    let facts = Facts {
        state,
        made: made::made_at(snapshots, &state.notes.imports),
        options,
        now,
    };
    let mut groups: BTreeMap<Series, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        groups
            .entry(Series::of(snapshot))
            .or_default()
            .push(snapshot);
    }
    let mut series = Vec::new();
    for expected in &options.expected {
        let name = Series {
            host: options.host.clone(),
            profile: expected.profile.clone(),
            root_path: Vec::new(),
        };
        let members = groups.remove(&name).unwrap_or_default();
        series.push(facts.series(name, &members, Some(expected)));
    }
    for (name, members) in groups {
        series.push(facts.series(name, &members, None));
    }
    let pack_bytes = state.packs.values().map(|pack| pack.stored_bytes).sum();
    share(&mut series, pack_bytes);
    let lost = &state.notes.lost;
    RepoStatus {
        series,
        snapshots: snapshots.len() as u64,
        packs: state.packs.len() as u64,
        pack_bytes,
        lost: (lost.packs.len() + lost.chunks.len()) as u64,
        check: last::remembered(repo),
    }
}

/// Shares the packs out by what the backups of each stored: which record belongs to whom is known
/// to `stats`, which reads them.
fn share(series: &mut [SeriesStatus], pack_bytes: u64) {
    let stored = |one: &SeriesStatus| {
        let spans = one.growth.spans.iter();
        spans
            .map(|(_, span)| u128::from(span.stored_bytes))
            .sum::<u128>()
    };
    let total: u128 = series.iter().map(stored).sum();
    for one in series {
        let part = stored(one) * u128::from(pack_bytes) / total.max(1);
        one.stored_bytes = u64::try_from(part).unwrap_or(u64::MAX);
    }
}

struct Facts<'f> {
    state: &'f State,
    made: HashMap<SnapshotId, Timestamp>,
    options: &'f StatusOptions<'f>,
    now: Timestamp,
}

impl Facts<'_> {
    fn series(
        &self,
        name: Series,
        members: &[&Snapshot],
        expected: Option<&Expected<'_>>,
    ) -> SeriesStatus {
        let mut counted: Vec<(Made, &Manifest)> = members
            .iter()
            .filter(|one| self.is_backup(one))
            .map(|one| (self.made(one), &one.manifest))
            .collect();
        counted.sort_by_key(|(made, _)| (made.at, made.id));
        let believed = |at: Timestamp| at.since_ns(self.now) <= keep::SKEW_NS;
        let future = counted
            .iter()
            .filter(|(made, _)| !believed(made.at))
            .count();
        counted.retain(|(made, _)| believed(made.at));
        let mut complete = counted.iter().filter(|(_, manifest)| !manifest.partial);
        let times: Vec<Timestamp> = complete.clone().map(|(made, _)| made.at).collect();
        let last = complete.next_back();
        let newest = counted.last();
        let partial = newest.filter(|(_, manifest)| manifest.partial);
        let proof = self.proof(members);
        let drill_due = expected.and_then(|expected| {
            let schedule = expected.drill_schedule.as_deref()?;
            let passed = proof.as_ref().filter(|(_, proof)| proof.passed());
            let since = passed
                .map(|(_, proof)| proof.at)
                .or(times.first().copied())?;
            due::due(&[since], Some(schedule))
        });
        let mut status = SeriesStatus {
            is_judged: self.options.expected.is_empty() || expected.is_some(),
            snapshots: members.len() as u64,
            last: last.map(|(made, _)| *made),
            partial: partial.map(|(made, _)| *made),
            future: future as u64,
            due: due::due(&times, expected.and_then(|one| one.schedule.as_deref())),
            proof,
            drill_due,
            last_figures: last.map(|(_, manifest)| (manifest.figures, manifest.duration_ms)),
            size_bytes: newest.map_or(0, |(_, manifest)| manifest.figures.total_bytes),
            stored_bytes: 0,
            growth: self.growth(&name, members),
            guard: self.guard(members),
            problems: Vec::new(),
            name,
        };
        status.problems = self.problems(&status, members, expected);
        status
    }

    fn made(&self, snapshot: &Snapshot) -> Made {
        let (id, date) = (snapshot.id, snapshot.manifest.started_at);
        let at = self.made.get(&id).copied().unwrap_or(date);
        Made { id, at }
    }

    /// Returns whether a snapshot is a backup of all of it: none of a part, none that an archive
    /// dates, and none of what a restore was about to replace.
    fn is_backup(&self, snapshot: &Snapshot) -> bool {
        let is_import = self.state.notes.imports.contains_key(&snapshot.id);
        snapshot.manifest.scope.is_empty()
            && !is_import
            && !snapshot.is_safety_copy()
            && snapshot.replaced.is_none()
    }

    fn proof(&self, members: &[&Snapshot]) -> Option<(SnapshotId, Proof)> {
        let proofs = members
            .iter()
            .filter_map(|one| Some((one.id, one.proof.clone()?)));
        let believed = proofs.filter(|(_, proof)| proof.at.since_ns(self.now) <= keep::SKEW_NS);
        believed.max_by_key(|(id, proof)| (proof.at, *id))
    }

    fn growth(&self, name: &Series, members: &[&Snapshot]) -> Growth {
        let is_it = |series: &SeriesName| {
            series.host == name.host
                && series.profile == name.profile
                && (!series.profile.is_empty() || series.root_path == name.root_path)
        };
        let manifests = members.iter().map(|one| &one.manifest);
        stats::growth(manifests, &self.state.notes.history, &is_it)
    }

    fn guard(&self, members: &[&Snapshot]) -> Option<Guard> {
        let is_way_back = |one: &&&Snapshot| {
            one.tags.iter().any(|tag| tag == guard::TAG) && keep::is_held(one, self.now)
        };
        let held = members.iter().filter(is_way_back);
        let held = held.filter_map(|one| {
            let (made, until) = (self.made(one), one.hold?);
            Some(Guard { made, until })
        });
        held.max_by_key(|guard| (guard.made.at, guard.made.id))
    }

    fn problems(
        &self,
        status: &SeriesStatus,
        members: &[&Snapshot],
        expected: Option<&Expected<'_>>,
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        let losses = &self.state.notes.losses;
        let damaged = members.iter().filter(|one| losses.contains_key(&one.id));
        let damaged = damaged.count() as u64;
        if damaged > 0 {
            let is_last = status
                .last
                .is_some_and(|made| losses.contains_key(&made.id));
            problems.push(Problem::Damaged(damaged, is_last));
        }
        if let Some((_, proof)) = status.proof.as_ref().filter(|(_, proof)| !proof.passed()) {
            problems.push(Problem::DrillFailed(proof.result.clone()));
        }
        match (status.last, status.due) {
            (None, _) if status.future > 0 => problems.push(Problem::Clock),
            (None, _) => problems.push(Problem::Never),
            (Some(_), Some(due)) if due.late_at < self.now => problems.push(Problem::Overdue(due)),
            (Some(_), _) => {}
        }
        if let Some(due) = status.drill_due.filter(|due| due.late_at < self.now) {
            problems.push(Problem::DrillOverdue(due));
        }
        let newest = members.last().map(|one| &one.manifest);
        let own = newest.filter(|_| status.name.host == self.options.host);
        let root = own.map(|manifest| Path::new(OsStr::from_bytes(&manifest.root_path)));
        let root = expected.map(|one| &*one.root).or(root);
        if root.is_some_and(is_unfinished) {
            problems.push(Problem::Unfinished);
        }
        if status.partial.is_some() {
            problems.push(Problem::Partial);
        }
        problems
    }
}

fn is_unfinished(root: &Path) -> bool {
    match in_place::unfinished(root) {
        Ok(snapshot) => snapshot.is_some(),
        // A root that cannot be looked into says nothing; a journal that is damaged does.
        Err(Error::Io { .. }) => false,
        Err(_) => true,
    }
}
