//! `status` for programs.

use crate::cli::command::status::Told;
use crate::cli::json;
use crate::cli::json::PathField;
use crate::cli::text;
use crate::context::Timestamp;
use crate::format::note::HoldUntil;
use crate::ops::status::Due;
use crate::ops::status::Gravity;
use crate::ops::status::Made;
use crate::ops::status::RepoStatus;
use crate::ops::status::Rhythm;
use crate::ops::status::SeriesStatus;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::os::unix::ffi::OsStrExt;

#[derive(Serialize)]
pub(super) struct Body<'t> {
    verdict: &'static str,
    message: &'t str,
    time: String,
    repositories: Vec<RepoBody<'t>>,
    exit: u8,
}

#[derive(Serialize)]
struct RepoBody<'t> {
    name: String,
    #[serde(flatten)]
    path: PathField,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<json::FailureBody<'t>>,
    #[serde(flatten)]
    status: Option<StatusBody>,
}

#[derive(Serialize)]
struct StatusBody {
    snapshot_count: u64,
    pack_count: u64,
    pack_bytes: u64,
    lost_count: u64,
    check: Option<CheckBody>,
    profiles: Vec<SeriesBody>,
}

#[derive(Serialize)]
struct CheckBody {
    at: String,
    read_percent: u8,
    problem_count: u64,
}

#[derive(Serialize)]
struct SeriesBody {
    profile: String,
    host: String,
    /// Of what is backed up by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<PathField>,
    judged: bool,
    safe: bool,
    snapshot_count: u64,
    future_snapshot_count: u64,
    last_backup: Option<MadeBody>,
    partial_backup: Option<MadeBody>,
    due: Option<DueBody>,
    proof: Option<ProofBody>,
    drill_due: Option<DueBody>,
    total_bytes: u64,
    stored_share_bytes: u64,
    growth_day_bytes: Option<u64>,
    growth_days: u64,
    guard: Option<GuardBody>,
    problems: Vec<ProblemBody>,
}

#[derive(Serialize)]
struct MadeBody {
    snapshot: String,
    at: String,
    age_seconds: i64,
}

#[derive(Serialize)]
struct DueBody {
    by: &'static str,
    at: String,
    late_at: String,
}

#[derive(Serialize)]
struct ProofBody {
    snapshot: String,
    at: String,
    passed: bool,
    result: String,
}

#[derive(Serialize)]
struct GuardBody {
    #[serde(flatten)]
    made: MadeBody,
    held_until: Option<String>,
}

#[derive(Serialize)]
struct ProblemBody {
    code: &'static str,
    gravity: &'static str,
    message: String,
}

/// Returns the document.
pub(super) fn body<'t>(told: &'t Told<'_>) -> Body<'t> {
    let repositories = told.places.iter().map(|place| RepoBody {
        name: place.name(),
        path: PathField::new(place.target.path.as_os_str().as_bytes()),
        error: place.status.as_ref().err().map(json::failure_body),
        status: place.status.as_ref().ok().map(|one| repo(one, told.now)),
    });
    Body {
        verdict: told.verdict.code(),
        message: &told.headline,
        time: text::rfc3339(told.now),
        repositories: repositories.collect(),
        exit: told.exit,
    }
}

fn repo(status: &RepoStatus, now: Timestamp) -> StatusBody {
    StatusBody {
        snapshot_count: status.snapshots,
        pack_count: status.packs,
        pack_bytes: status.pack_bytes,
        lost_count: status.lost,
        check: status.check.map(|check| CheckBody {
            at: text::rfc3339(check.at),
            read_percent: check.read_percent,
            problem_count: check.problems,
        }),
        profiles: status.series.iter().map(|one| series(one, now)).collect(),
    }
}

fn series(one: &SeriesStatus, now: Timestamp) -> SeriesBody {
    SeriesBody {
        profile: one.name.profile.clone(),
        host: one.name.host.clone(),
        root: match one.name.root_path.is_empty() {
            true => None,
            false => Some(PathField::new(&one.name.root_path)),
        },
        judged: one.is_judged,
        safe: one.problems.is_empty(),
        snapshot_count: one.snapshots,
        future_snapshot_count: one.future,
        last_backup: one.last.map(|made| made_body(made, now)),
        partial_backup: one.partial.map(|made| made_body(made, now)),
        due: one.due.map(due),
        proof: one.proof.as_ref().map(|(id, proof)| ProofBody {
            snapshot: id.to_string(),
            at: text::rfc3339(proof.at),
            passed: proof.passed(),
            result: proof.result.clone(),
        }),
        drill_due: one.drill_due.map(due),
        total_bytes: one.size_bytes,
        stored_share_bytes: one.stored_bytes,
        growth_day_bytes: one.growth.day_bytes,
        growth_days: one.growth.days,
        guard: one.guard.map(|guard| GuardBody {
            made: made_body(guard.made, now),
            held_until: match guard.until {
                HoldUntil::Time(time) => Some(text::rfc3339(time)),
                HoldUntil::Released => None,
            },
        }),
        problems: one
            .problems
            .iter()
            .map(|problem| ProblemBody {
                code: problem.code(),
                gravity: match problem.gravity() {
                    Gravity::Damage => "damage",
                    Gravity::Overdue => "overdue",
                    Gravity::Warning => "warning",
                },
                message: problem.words(one, now, &TimeZone::UTC),
            })
            .collect(),
    }
}

fn made_body(made: Made, now: Timestamp) -> MadeBody {
    MadeBody {
        snapshot: made.id.to_string(),
        at: text::rfc3339(made.at),
        age_seconds: now.since_ns(made.at) / 1_000_000_000,
    }
}

fn due(due: Due) -> DueBody {
    DueBody {
        by: match due.rhythm {
            Rhythm::Schedule => "schedule",
            Rhythm::Habit => "habit",
            Rhythm::Default => "default",
        },
        at: text::rfc3339(due.at),
        late_at: text::rfc3339(due.late_at),
    }
}
