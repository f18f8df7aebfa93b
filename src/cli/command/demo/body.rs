//! What `demo` writes for programs.

use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::json;
use crate::ops::demo::DemoReport;
use crate::ops::demo::Judged;
use crate::ops::demo::Latency;
use crate::ops::demo::Origin;
use crate::ops::demo::Round;
use serde::Serialize;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[derive(Serialize)]
pub(super) struct BackupBody {
    number: u64,
    snapshot: String,
    acknowledged_commits: u64,
    app_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    seconds: f64,
    targz_bytes: u64,
    targz_seconds: f64,
    warnings: u64,
}

#[derive(Serialize)]
pub(super) struct RestoreBody<'a> {
    origin: &'static str,
    number: u64,
    acknowledged_commits: u64,
    sqlite_commits: u64,
    redb_commits: u64,
    seconds: f64,
    ok: bool,
    faults: &'a [String],
}

#[derive(Serialize)]
pub(super) struct Summary {
    op: &'static str,
    status: &'static str,
    backups: u64,
    seconds: f64,
    stored_bytes: u64,
    targz_seconds: f64,
    targz_bytes: u64,
    commits_alone: LatencyBody,
    commits_during_backups: LatencyBody,
    commits_during_targz: LatencyBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    dir: Option<json::PathField>,
    exit: u8,
}

#[derive(Serialize)]
pub(super) struct LatencyBody {
    commits: u64,
    p50_seconds: f64,
    p99_seconds: f64,
}

/// Returns the last line.
pub(super) fn summary(report: &DemoReport, kept_dir: Option<&Path>, exit: u8) -> Summary {
    let together = report.together();
    Summary {
        op: "demo",
        status: match exit {
            DONE => "ok",
            DAMAGE => "damaged",
            _ => "partial",
        },
        backups: report.rounds.len() as u64,
        seconds: together.backup_time.as_secs_f64(),
        stored_bytes: together.stored_bytes,
        targz_seconds: together.archive_time.as_secs_f64(),
        targz_bytes: together.archive_bytes,
        commits_alone: (&report.latencies.alone).into(),
        commits_during_backups: (&report.latencies.during_backups).into(),
        commits_during_targz: (&report.latencies.during_archives).into(),
        dir: kept_dir.map(|dir| json::PathField::new(dir.as_os_str().as_bytes())),
        exit,
    }
}

/// Returns a backup and the archive beside it.
pub(super) fn backup_body(round: &Round) -> BackupBody {
    BackupBody {
        number: round.number,
        snapshot: round.snapshot.to_string(),
        acknowledged_commits: round.acked,
        app_bytes: round.app_bytes,
        new_bytes: round.new_bytes,
        stored_bytes: round.stored_bytes,
        seconds: round.backup_time.as_secs_f64(),
        targz_bytes: round.archive_bytes,
        targz_seconds: round.archive_time.as_secs_f64(),
        warnings: round.warnings.len() as u64,
    }
}

/// Returns what came back.
pub(super) fn restore_body(judged: &Judged) -> RestoreBody<'_> {
    RestoreBody {
        origin: match judged.origin {
            Origin::Snapshot => "snapshot",
            Origin::Archive => "targz",
        },
        number: judged.round,
        acknowledged_commits: judged.acked,
        sqlite_commits: judged.history,
        redb_commits: judged.devices,
        seconds: judged.time.as_secs_f64(),
        ok: judged.faults.is_empty(),
        faults: &judged.faults,
    }
}

impl From<&Latency> for LatencyBody {
    fn from(latency: &Latency) -> LatencyBody {
        LatencyBody {
            commits: latency.commits,
            p50_seconds: latency.p50_us as f64 / 1e6,
            p99_seconds: latency.p99_us as f64 / 1e6,
        }
    }
}
