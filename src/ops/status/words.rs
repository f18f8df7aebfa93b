//! The verdict, and what is wrong, in words for people.

use crate::context::Timestamp;
use crate::ops::keep::Series;
use crate::ops::status::Due;
use crate::ops::status::Gravity;
use crate::ops::status::Problem;
use crate::ops::status::RepoStatus;
use crate::ops::status::Rhythm;
use crate::ops::status::SeriesStatus;
use crate::ops::words;
use jiff::tz::TimeZone;

const SECOND_NS: i64 = 1_000_000_000;

/// A repository that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// What it is called.
    pub name: String,
    /// Why.
    pub message: String,
}

/// What it comes to, the worst that is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All is well.
    Safe,
    /// Something is to be looked at.
    Warnings,
    /// Something is overdue.
    Overdue,
    /// Not everything could be looked at.
    Unknown,
    /// Something stored is lost.
    Damaged,
}

impl Verdict {
    /// Returns the verdict about several repositories.
    pub fn of(repos: &[RepoStatus], unreadable: &[Unreadable]) -> Verdict {
        let worst = repos.iter().filter_map(RepoStatus::gravity).max();
        // One that nothing is expected in may be empty, as long as there is something somewhere.
        let is_empty = !repos.is_empty() && repos.iter().all(|repo| repo.series.is_empty());
        let worst = worst.max(is_empty.then_some(Gravity::Overdue));
        let verdict = worst.map_or(Verdict::Safe, |gravity| match gravity {
            Gravity::Warning => Verdict::Warnings,
            Gravity::Overdue => Verdict::Overdue,
            Gravity::Damage => Verdict::Damaged,
        });
        let unknown = (!unreadable.is_empty()).then_some(Verdict::Unknown);
        verdict.max(unknown.unwrap_or(Verdict::Safe))
    }

    /// Returns a stable name.
    pub fn code(self) -> &'static str {
        match self {
            Verdict::Safe => "safe",
            Verdict::Warnings => "warnings",
            Verdict::Overdue => "overdue",
            Verdict::Unknown => "unknown",
            Verdict::Damaged => "damaged",
        }
    }
}

/// Returns the one sentence that matters.
pub fn headline(repos: &[RepoStatus], unreadable: &[Unreadable], now: Timestamp) -> String {
    let all = repos.iter().flat_map(|repo| &repo.series);
    let judged: Vec<&SeriesStatus> = all.filter(|one| one.is_judged).collect();
    let mut wrong: Vec<(Gravity, String)> = Vec::new();
    for repo in repos.iter().filter(|repo| repo.has_damage()) {
        wrong.push((Gravity::Damage, repo.damage_words()));
    }
    for one in &judged {
        if let Some(worst) = one.worst() {
            wrong.push((
                worst.gravity(),
                worst.headline(&one.name, one.age_words(now), now),
            ));
        }
    }
    wrong.sort_by_key(|(gravity, _)| std::cmp::Reverse(*gravity));
    let others = |count: usize| match count {
        0 => String::new(),
        count => format!(" And {} more below.", count),
    };
    let unknown = unreadable.first().map(|one| {
        let name = words::safe(&one.name);
        format!("NOT KNOWN: repository {name} cannot be looked at.")
    });
    match (wrong.first(), unknown) {
        (Some((Gravity::Damage, text)), unknown) => {
            let rest = wrong.len() - 1 + usize::from(unknown.is_some());
            format!("{text}{}", others(rest))
        }
        (_, Some(unknown)) => format!("{unknown}{}", others(wrong.len() + unreadable.len() - 1)),
        (Some((_, text)), None) => format!("{text}{}", others(wrong.len() - 1)),
        (None, None) => safe(&judged, now),
    }
}

fn safe(judged: &[&SeriesStatus], now: Timestamp) -> String {
    let newest = judged
        .iter()
        .filter_map(|one| one.last)
        .max_by_key(|made| made.at);
    let Some(newest) = newest else {
        return "NOTHING is backed up here yet.".to_string();
    };
    let ago = words::ago(now.since_ns(newest.at).max(0) / SECOND_NS);
    match judged {
        [one] => format!("{} is safe. Last backup {ago}.", label(&one.name)),
        [_, _] => format!("Both profiles are safe. Newest backup {ago}."),
        _ => format!(
            "All {} profiles are safe. Newest backup {ago}.",
            judged.len()
        ),
    }
}

/// Returns what an application is called.
pub fn label(name: &Series) -> String {
    match name.profile.is_empty() {
        true => words::path(&name.root_path),
        false => words::safe(&name.profile),
    }
}

impl RepoStatus {
    /// Returns what is lost in all of it.
    pub fn damage_words(&self) -> String {
        match (self.lost, self.check) {
            (0, Some(check)) => {
                let objects = words::count(check.problems, "object", "objects");
                format!("DAMAGE: the last check found {objects} to be wrong.")
            }
            (lost, _) => {
                let parts = words::count(lost, "pack or chunk is", "packs or chunks are");
                format!("DAMAGE: {parts} lost in the repository.")
            }
        }
    }
}

impl SeriesStatus {
    /// Returns the worst problem; of several that are as bad, the first.
    pub fn worst(&self) -> Option<&Problem> {
        let gravity = self.gravity()?;
        self.problems
            .iter()
            .find(|problem| problem.gravity() == gravity)
    }

    /// Returns the state of an application in one word.
    pub fn state_word(&self) -> &'static str {
        match self.worst() {
            _ if !self.is_judged => "other",
            None => "safe",
            Some(Problem::Damaged(..)) => "DAMAGED",
            Some(Problem::DrillFailed(_)) => "UNPROVEN",
            Some(Problem::Never) => "NEVER",
            Some(Problem::Clock) => "CLOCK",
            Some(Problem::Overdue(_)) => "OVERDUE",
            Some(Problem::DrillOverdue(_)) => "DRILL DUE",
            Some(Problem::Unfinished) => "UNFINISHED",
            Some(Problem::Partial) => "PARTIAL",
        }
    }

    fn age_words(&self, now: Timestamp) -> Option<String> {
        let last = self.last?;
        Some(words::ago(now.since_ns(last.at).max(0) / SECOND_NS))
    }
}

impl Problem {
    /// Returns a stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Problem::Damaged(..) => "damaged",
            Problem::DrillFailed(_) => "drill-failed",
            Problem::Never => "never",
            Problem::Clock => "clock",
            Problem::Overdue(_) => "overdue",
            Problem::DrillOverdue(_) => "drill-overdue",
            Problem::Unfinished => "unfinished-restore",
            Problem::Partial => "partial",
        }
    }

    fn headline(&self, name: &Series, last: Option<String>, now: Timestamp) -> String {
        let name = label(name);
        let last = last.unwrap_or_default();
        match self {
            Problem::Damaged(_, true) => {
                format!("DAMAGE: the last backup of {name} cannot be restored whole.")
            }
            Problem::Damaged(count, false) => {
                let count = words::count(*count, "older snapshot", "older snapshots");
                format!("DAMAGE: {count} of {name} cannot be restored whole.")
            }
            Problem::DrillFailed(_) => format!("DAMAGE: the last drill of {name} failed."),
            Problem::Never => format!("{name} has NO good backup."),
            Problem::Clock => format!("{name} cannot be judged: a clock is WRONG."),
            Problem::Overdue(due) => {
                let late = words::ago(now.since_ns(due.at).max(0) / SECOND_NS);
                match due.rhythm {
                    Rhythm::Schedule => {
                        format!("{name} is OVERDUE: due {late}, last good backup {last}.")
                    }
                    _ => format!("{name} is OVERDUE: last good backup {last}."),
                }
            }
            Problem::DrillOverdue(_) => format!("{name} is OVERDUE for a drill."),
            Problem::Unfinished => format!("WARNING: a restore of {name} was interrupted."),
            Problem::Partial => format!("WARNING: the last backup of {name} is partial."),
        }
    }

    /// Returns what exactly is wrong.
    pub fn words(&self, status: &SeriesStatus, now: Timestamp, zone: &TimeZone) -> String {
        let when = |at: Timestamp| {
            let ago = words::ago(now.since_ns(at) / SECOND_NS);
            format!("{} ({ago})", words::local_with_zone(at, zone))
        };
        let last = |none: &str| status.last.map_or(none.to_string(), |made| when(made.at));
        match self {
            Problem::Damaged(count, is_last) => format!(
                "{} cannot be restored whole, {}",
                words::count(*count, "snapshot", "snapshots"),
                if *is_last {
                    "the last one among them"
                } else {
                    "the last one is whole"
                },
            ),
            Problem::DrillFailed(result) => format!("the last drill: {}", words::safe(result)),
            Problem::Never if status.partial.is_some() => {
                "all backups of it are partial".to_string()
            }
            Problem::Never if status.snapshots > 0 => {
                "there are only parts of it, safety copies or imports".to_string()
            }
            Problem::Never => format!("there is no backup of it from {}", status.name.host),
            Problem::Clock => {
                let count = words::count(status.future, "backup is", "backups are");
                format!("{count} dated in the future: set the clocks, then back up")
            }
            Problem::Overdue(due) => match due.rhythm {
                Rhythm::Schedule => format!(
                    "due {} by its schedule; last good backup {}",
                    when(due.at),
                    last("never")
                ),
                Rhythm::Habit => format!(
                    "last good backup {}; by its habit one was due until {}",
                    last("never"),
                    when(due.at)
                ),
                Rhythm::Default => format!(
                    "last good backup {}, and no schedule says how often there is one",
                    last("never")
                ),
            },
            Problem::DrillOverdue(due) => format!("a drill was due {}", when(due.at)),
            Problem::Unfinished => {
                "a restore in place was interrupted: what is there is neither old nor new; the \
                 same restore again finishes it"
                    .to_string()
            }
            Problem::Partial => {
                let partial = status
                    .partial
                    .map_or_else(String::new, |made| when(made.at));
                format!(
                    "the backup of {partial} is partial; last good one {}",
                    last("never")
                )
            }
        }
    }
}

impl Due {
    /// Returns when it is due, in few words: `in 20 h`.
    pub fn short(&self, now: Timestamp) -> String {
        match self.rhythm {
            Rhythm::Schedule => {
                let seconds = now.since_ns(self.at) / SECOND_NS;
                match seconds {
                    ..=0 => words::age(seconds),
                    late => format!("{} late", words::age(late)),
                }
            }
            Rhythm::Habit | Rhythm::Default => "no schedule".to_string(),
        }
    }
}
