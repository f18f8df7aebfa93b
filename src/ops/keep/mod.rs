//! Which snapshots a policy keeps, and why the others go. Pure: snapshots, policy, zone and time
//! in, one verdict for each snapshot out.
//!
//! Snapshots are judged series by series: a profile on a machine or, for paths given by hand, a
//! root on a machine. Rules count complete snapshots with a date that can be trusted, and count
//! back from the newest of these, never from the clock, so that a clock that jumps expires nothing.
//! `docs/decisions/0050-what-is-always-kept.md` says what is kept whatever the policy.

mod buckets;
mod policy;
#[cfg(test)]
mod tests;

pub use buckets::Unit;
pub use policy::Policy;
pub use policy::Within;

use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::format::note::HoldUntil;
use crate::format::note::Proof;
use crate::id::SnapshotId;
use crate::ops::keep::buckets::Buckets;
use crate::ops::snapshots::SAFETY_TAG;
use crate::ops::snapshots::Snapshot;
use crate::safeguard::Safeguard;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;

/// Clocks of several machines may differ by so much before a date counts as one of the future.
pub(super) const SKEW_NS: i64 = 5 * 60 * 1_000_000_000;
/// Safety copies are kept until the series has a complete snapshot so much younger.
const SAFETY_AGE_NS: i64 = 30 * 24 * 3600 * 1_000_000_000;

/// Why a snapshot is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// One of the newest, as many as the policy says.
    Last,
    /// The newest of its hour, day, week, month or year.
    Newest(Unit),
    /// Younger than the span of the policy.
    Within,
    /// It has a tag the policy names.
    Tag(String),
    /// The newest complete one of its series; always kept.
    Latest,
    /// Partial, and newer than the newest complete one; always kept.
    PartialLatest,
    /// The newest that was restored and checked; always kept.
    Proven,
    /// Somebody holds it; always kept.
    Held,
    /// Made before a restore or a migration, for going back; kept for a while.
    Safety,
    /// It is dated in the future, so its date says nothing; always kept.
    Future,
    /// It is dated before the snapshot it was made after, so its date says nothing; always kept.
    BeforeParent,
}

impl Rule {
    /// Returns true for a rule of the policy, false for what is kept whatever the policy.
    fn is_of_policy(&self) -> bool {
        matches!(
            self,
            Rule::Last | Rule::Newest(_) | Rule::Within | Rule::Tag(_)
        )
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Last => "last",
            Rule::Newest(unit) => unit.rule(),
            Rule::Within => "within",
            Rule::Tag(tag) => return write!(f, "tag {tag}"),
            Rule::Latest => "newest",
            Rule::PartialLatest => "partial, newer than the newest complete one",
            Rule::Proven => "last proven",
            Rule::Held => "held",
            Rule::Safety => "safety copy",
            Rule::Future => "dated in the future",
            Rule::BeforeParent => "dated before its parent",
        })
    }
}

/// Why a snapshot goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    /// It is partial, and a complete one is newer.
    Partial,
    /// This newer one stands for the same hour, day, week, month or year.
    Replaced(Unit, SnapshotId),
    /// It is older than all the policy reaches.
    Beyond,
}

impl fmt::Display for Goes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goes::Partial => f.write_str("partial, and a complete one is newer"),
            Goes::Replaced(unit, by) => write!(f, "{} is newer in its {}", by.short(), unit.noun()),
            Goes::Beyond => f.write_str("older than the policy reaches"),
        }
    }
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The snapshot.
    pub id: SnapshotId,
    /// The rules that keep it; none: it goes.
    pub rules: Vec<Rule>,
    /// Why it goes; `None`: it is kept.
    pub goes: Option<Goes>,
}

impl Verdict {
    /// Returns whether it is kept.
    pub fn is_kept(&self) -> bool {
        self.goes.is_none()
    }
}

/// What makes snapshots a series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// The machine.
    pub host: String,
    /// The profile; empty for paths given by hand.
    pub profile: String,
    /// The root of paths given by hand; empty for a profile, whose paths may change.
    pub root_path: Vec<u8>,
}

impl Series {
    /// Returns the series of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Series {
        let manifest = &snapshot.manifest;
        Series {
            host: manifest.host.clone(),
            profile: manifest.profile.clone(),
            root_path: match manifest.profile.is_empty() {
                true => manifest.root_path.clone(),
                false => Vec::new(),
            },
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.profile.is_empty() {
            true => write!(f, "{}", String::from_utf8_lossy(&self.root_path))?,
            false => write!(f, "{}", self.profile)?,
        }
        write!(f, " on {}", self.host)
    }
}

/// Judges every snapshot; the verdicts are in the order of the snapshots. Refuses a policy that
/// keeps nothing, and one that by its own rules keeps nothing of a series: that is a typo.
pub fn judge(
    snapshots: &[Snapshot],
    policy: &Policy,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<Vec<Verdict>> {
    policy.check()?;
    let times: HashMap<SnapshotId, Timestamp> = snapshots
        .iter()
        .map(|snapshot| (snapshot.id, snapshot.manifest.started_at))
        .collect();
    let mut series: BTreeMap<Series, Vec<usize>> = BTreeMap::new();
    for (index, snapshot) in snapshots.iter().enumerate() {
        series.entry(Series::of(snapshot)).or_default().push(index);
    }
    let mut verdicts: Vec<Option<Verdict>> = vec![None; snapshots.len()];
    for (name, mut members) in series {
        members.sort_by_key(|&index| {
            let snapshot = &snapshots[index];
            std::cmp::Reverse((snapshot.manifest.started_at, snapshot.id))
        });
        let newest_first: Vec<&Snapshot> = members.iter().map(|&index| &snapshots[index]).collect();
        let judged = judge_series(&newest_first, policy, zone, now, &times);
        refuse_typo(&name, &newest_first, &judged)?;
        for (index, verdict) in members.into_iter().zip(judged) {
            verdicts[index] = Some(verdict);
        }
    }
    Ok(verdicts.into_iter().flatten().collect())
}

fn judge_series(
    newest_first: &[&Snapshot],
    policy: &Policy,
    zone: &TimeZone,
    now: Timestamp,
    times: &HashMap<SnapshotId, Timestamp>,
) -> Vec<Verdict> {
    let mut rules: Vec<Vec<Rule>> = newest_first
        .iter()
        .map(|snapshot| untrusted(snapshot, now, times).into_iter().collect())
        .collect();
    let trusted: Vec<usize> = (0..rules.len())
        .filter(|&at| rules[at].is_empty())
        .collect();
    let is_counted = |at: &usize| is_backup(newest_first[*at]);
    let counted: Vec<usize> = trusted.iter().copied().filter(is_counted).collect();
    let started_at = |at: usize| newest_first[at].manifest.started_at;

    for &at in counted.iter().take(policy.last as usize) {
        rules[at].push(Rule::Last);
    }
    let starts: Vec<Timestamp> = counted.iter().map(|&at| started_at(at)).collect();
    let buckets = Buckets::new(&starts, policy, zone);
    for (place, unit) in buckets.kept() {
        rules[counted[place]].push(Rule::Newest(unit));
    }
    if let (Some(within), Some(&newest)) = (&policy.within, starts.first()) {
        let since = within.before(newest, zone);
        for &at in counted.iter().filter(|&&at| since <= started_at(at)) {
            rules[at].push(Rule::Within);
        }
    }
    for (snapshot, rules) in newest_first.iter().zip(&mut rules) {
        let tags = policy.tags.iter().filter(|tag| snapshot.tags.contains(tag));
        rules.extend(tags.map(|tag| Rule::Tag(tag.clone())));
    }
    always(newest_first, &trusted, now, &mut rules);

    let mut replaced = vec![None; newest_first.len()];
    for (place, (unit, by)) in buckets.replaced().into_iter().enumerate() {
        if let (Some(unit), Some(&at)) = (unit, counted.get(place)) {
            replaced[at] = Some(Goes::Replaced(unit, newest_first[counted[by]].id));
        }
    }
    let verdict = |((snapshot, rules), replaced): ((&&Snapshot, Vec<Rule>), Option<Goes>)| {
        let goes = rules.is_empty().then(|| match snapshot.manifest.partial {
            true => Goes::Partial,
            false => replaced.unwrap_or(Goes::Beyond),
        });
        Verdict {
            id: snapshot.id,
            rules,
            goes,
        }
    };
    let judged = newest_first.iter().zip(rules).zip(replaced);
    judged.map(verdict).collect()
}

/// Returns why the date of a snapshot says nothing about its age.
fn untrusted(
    snapshot: &Snapshot,
    now: Timestamp,
    times: &HashMap<SnapshotId, Timestamp>,
) -> Option<Rule> {
    let started_at = snapshot.manifest.started_at;
    if started_at.since_ns(now) > SKEW_NS && Safeguard::FutureStays.holds() {
        return Some(Rule::Future);
    }
    // A clock that went back dates what is newest as if it were old.
    let parent = snapshot.manifest.parent.and_then(|id| times.get(&id));
    let is_before = parent.is_some_and(|parent| parent.since_ns(started_at) > SKEW_NS);
    (is_before && Safeguard::BackdatedStays.holds()).then_some(Rule::BeforeParent)
}

/// Returns whether a policy counts a snapshot: it is complete, and it was made to go back to.
fn is_backup(snapshot: &Snapshot) -> bool {
    let is_complete = !snapshot.manifest.partial || !Safeguard::PartialCountsNot.holds();
    is_complete && !snapshot.is_safety_copy()
}

/// Adds what is kept whatever the policy.
fn always(newest_first: &[&Snapshot], trusted: &[usize], now: Timestamp, rules: &mut [Vec<Rule>]) {
    let is_counted = |at: &&usize| is_backup(newest_first[**at]);
    let newest = trusted.iter().find(is_counted).copied();
    if let Some(newest) = newest.filter(|_| Safeguard::NewestStays.holds()) {
        rules[newest].push(Rule::Latest);
    }
    let newer = trusted.iter().take_while(|&&at| Some(at) != newest);
    for &at in newer.filter(|&&at| newest_first[at].manifest.partial) {
        rules[at].push(Rule::PartialLatest);
    }
    let is_proven = |one: &&Snapshot| one.proof.as_ref().is_some_and(Proof::passed);
    if let Some(at) = newest_first.iter().position(is_proven)
        && Safeguard::ProvenStays.holds()
    {
        rules[at].push(Rule::Proven);
    }
    let newest_at = newest.map(|at| newest_first[at].manifest.started_at);
    for (snapshot, rules) in newest_first.iter().zip(rules) {
        if is_held(snapshot, now) {
            rules.push(Rule::Held);
        }
        let age_ns = newest_at.map_or(0, |at| at.since_ns(snapshot.manifest.started_at));
        let is_young = age_ns < SAFETY_AGE_NS && Safeguard::SafetyStays.holds();
        if is_young && snapshot.tags.iter().any(|tag| is_safety_tag(tag)) {
            rules.push(Rule::Safety);
        }
    }
}

/// Returns whether somebody holds a snapshot at this time.
pub fn is_held(snapshot: &Snapshot, now: Timestamp) -> bool {
    match snapshot.hold.filter(|_| Safeguard::HeldStays.holds()) {
        None => false,
        Some(HoldUntil::Released) => true,
        Some(HoldUntil::Time(until)) => now < until,
    }
}

/// Returns whether a tag marks a copy that was made to go back to.
pub fn is_safety_tag(tag: &str) -> bool {
    tag == SAFETY_TAG || tag.starts_with("pre-migration")
}

/// A policy that keeps nothing by itself of what could be kept names what is not there.
fn refuse_typo(series: &Series, newest_first: &[&Snapshot], judged: &[Verdict]) -> Result<()> {
    let is_kept = |verdict: &Verdict| verdict.rules.iter().any(Rule::is_of_policy);
    let goes = judged.iter().filter(|verdict| !verdict.is_kept()).count();
    let has_complete = newest_first.iter().any(|one| is_backup(one));
    let is_sound = judged.iter().any(is_kept) || !Safeguard::TypoRefused.holds();
    if goes == 0 || !has_complete || is_sound {
        return Ok(());
    }
    Err(Error::Refused {
        reason: format!(
            "the policy keeps none of the {} snapshots of {series}; is a tag misspelt?",
            newest_first.len()
        ),
    })
}
