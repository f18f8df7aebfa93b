//! `check ARCHIVE`: is this file still what was exported? Against what lies in it and beside it,
//! and against the repository that it came from, if there is one at hand.

use crate::cli::args::CheckArgs;
use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::command::WARNINGS;
use crate::cli::command::restore_archive;
use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::error::Error;
use crate::ops::archive::bytes::Bytes;
use crate::ops::archive::findings::Finding;
use crate::ops::archive::findings::Findings;
use crate::ops::archive::listing::Limits;
use crate::ops::archive::verify;
use crate::ops::archive::verify::Verified;
use crate::ops::export::against;
use crate::ops::export::against::OriginSource;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use serde::Serialize;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    archive: json::PathField,
    format: &'static str,
    encrypted: bool,
    sha256: String,
    archive_bytes: u64,
    files: u64,
    plain_bytes: u64,
    /// Whether the sum of a file beside it was compared.
    sum_compared: bool,
    /// Whose manifest it was compared with: `own`, `application`, `none`.
    manifest: &'static str,
    repository: RepositoryBody,
    problem_count: u64,
    problems: Vec<ProblemBody>,
    seconds: f64,
    exit: u8,
}

#[derive(Serialize)]
struct RepositoryBody {
    compared: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    /// How it is known: `exported`, `imported`, `manifest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    known_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct ProblemBody {
    /// Empty for the archive itself.
    #[serde(flatten)]
    path: json::PathField,
    message: String,
}

/// What came of comparing with the repository.
#[derive(Default)]
struct Against {
    snapshot: Option<String>,
    source: Option<OriginSource>,
    is_compared: bool,
    /// Why it was not compared.
    reason: Option<String>,
    /// Whether that is worth a warning: somebody named a repository.
    is_wanted: bool,
    findings: Findings,
}

/// Checks an archive.
pub(super) fn run(session: &Session, args: &CheckArgs, path: &Path) -> Outcome<u8> {
    if args.read_data.is_some() {
        let message = "an archive is read to its end anyway";
        return Err(Failure::usage(message).hint("leave --read-data out"));
    }
    session.start("check")?;
    let started_at = session.cx.clock.now();
    let path = absolute(path)?;
    let verified = verify(session, args, &path).map_err(restore_archive::refusal_hint)?;
    let against = match verified.findings.count {
        0 => compare(session, &verified)?,
        _ => Against {
            reason: Some("it is damaged already".to_string()),
            ..Against::default()
        },
    };
    session.reporter.finish();
    if let (Some(reason), true) = (&against.reason, against.is_wanted) {
        let path = path.as_os_str().as_bytes();
        session.reporter.warn("not-compared", path, reason);
    }
    let has_own_word = has_manifest(&verified) || verified.has_sum || against.is_compared;
    if !has_own_word {
        let message = "nothing says what it should be: no sum beside it, no sums in it";
        let path = path.as_os_str().as_bytes();
        session.reporter.warn("not-compared", path, message);
    }
    let exit = match verified.findings.count + against.findings.count {
        0 if against.is_wanted && !against.is_compared || !has_own_word => WARNINGS,
        0 => DONE,
        _ => DAMAGE,
    };
    let took_ns = session.cx.clock.now().since_ns(started_at);
    let took_ms = u64::try_from(took_ns / 1_000_000).unwrap_or(0);
    tell(session, &path, &verified, &against, took_ms, exit)?;
    Ok(exit)
}

fn verify(session: &Session, args: &CheckArgs, path: &Path) -> Outcome<Verified> {
    let passphrase = restore_archive::passphrase(session, &args.decrypt, &[path])?;
    let mut limits = Limits::default();
    if args.any_ratio {
        limits.ratio_max = u64::MAX;
    }
    let bytes = Bytes::open(path, passphrase.as_ref())?;
    Ok(verify::verify(&session.cx, bytes, &limits)?)
}

fn has_manifest(verified: &Verified) -> bool {
    let manifest = verified.listing.manifest.as_ref();
    manifest.is_some_and(|manifest| manifest.is_own() || manifest.has_sums())
}

/// Compares with the repository. One that somebody names must open; without any, nothing is
/// compared.
fn compare(session: &Session, verified: &Verified) -> Outcome<Against> {
    let is_named = session.global.repo.is_some();
    let not_compared = |reason: String, is_wanted| Against {
        reason: Some(reason),
        is_wanted,
        ..Against::default()
    };
    if let Err(failure) = session.target(None) {
        return match is_named {
            true => Err(failure),
            false => Ok(not_compared(failure.message, false)),
        };
    }
    let repo = match session.open_repo() {
        Err(failure) if is_named => return Err(failure),
        Err(failure) => {
            let reason = format!("the repository does not open: {}", failure.message);
            return Ok(not_compared(reason, true));
        }
        Ok(repo) => repo,
    };
    compare_with(session, &repo, verified)
}

fn compare_with(session: &Session, repo: &Repo, verified: &Verified) -> Outcome<Against> {
    let (state, snapshots) = session.snapshots(repo)?;
    let mut against = Against {
        is_wanted: true,
        ..Against::default()
    };
    let Some(origin) = against::origin(&state, verified) else {
        against.reason = Some("the repository does not know it".to_string());
        return Ok(against);
    };
    against.snapshot = Some(origin.snapshot.to_string());
    against.source = Some(origin.source);
    let found = snapshots.iter().find(|found| found.id == origin.snapshot);
    let Some(snapshot) = found else {
        let id = origin.snapshot.short();
        against.reason = Some(format!("snapshot {id} is not in the repository any more"));
        return Ok(against);
    };
    let chunks = Chunks::open(repo, &state.packs)?;
    let temp_dir = &session.environment.temp_dir;
    let (cx, manifest) = (&session.cx, &snapshot.manifest);
    match against::compare(cx, &chunks, snapshot.id, manifest, verified, temp_dir) {
        Ok(findings) => {
            against.is_compared = true;
            against.findings = findings;
        }
        // The repository is what is damaged, and `check` tells about it.
        Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) => {
            let reason = format!("the snapshot cannot be read: {error}");
            against.reason = Some(reason);
        }
        Err(error) => return Err(error.into()),
    }
    chunks.save_index();
    Ok(against)
}

fn source_name(source: OriginSource) -> &'static str {
    match source {
        OriginSource::Exported => "exported",
        OriginSource::Imported => "imported",
        OriginSource::Manifest => "manifest",
    }
}

fn tell(
    session: &Session,
    path: &Path,
    verified: &Verified,
    against: &Against,
    took_ms: u64,
    exit: u8,
) -> Outcome<()> {
    if session.output.is_json() {
        let summary = summary(path, verified, against, took_ms, exit);
        session.output.json(&json::document("summary", summary))?;
        return Ok(());
    }
    let problem_count = verified.findings.count + against.findings.count;
    let all = verified.findings.first.iter();
    let name = text::path(path.as_os_str().as_bytes());
    for finding in all.chain(&against.findings.first) {
        let shown = match finding.path.is_empty() {
            true => name.clone(),
            false => text::path(&finding.path),
        };
        let message = text::safe(&finding.message);
        session
            .output
            .line(format!("DAMAGED  {shown}: {message}"))?;
    }
    if session.output.is_quiet {
        return Ok(());
    }
    for line in lines(&name, verified, against, took_ms) {
        session.output.line(line)?;
    }
    session.output.line(match (problem_count, exit) {
        (0, DONE) => "No problems found".to_string(),
        (0, _) => "No problems found, but not everything could be compared".to_string(),
        (count, _) => format!("{} found", text::count(count, "problem", "problems")),
    })?;
    Ok(())
}

fn summary(path: &Path, verified: &Verified, against: &Against, took_ms: u64, exit: u8) -> Summary {
    let all = verified.findings.first.iter();
    let all = all.chain(&against.findings.first);
    let body = |finding: &Finding| ProblemBody {
        path: json::PathField::new(&finding.path),
        message: finding.message.clone(),
    };
    Summary {
        op: "check",
        status: match exit {
            DONE => "ok",
            WARNINGS => "partial",
            _ => "damaged",
        },
        archive: json::PathField::new(path.as_os_str().as_bytes()),
        format: verified.format.map_or("db", |format| format.extension()),
        encrypted: verified.is_encrypted,
        sha256: verified.sha256.to_string(),
        archive_bytes: verified.file_bytes,
        files: verified.files(),
        plain_bytes: verified.listing.plain_bytes,
        sum_compared: verified.has_sum,
        manifest: manifest_name(verified),
        repository: RepositoryBody {
            compared: against.is_compared,
            snapshot: against.snapshot.clone(),
            known_by: against.source.map(source_name),
            reason: against.reason.clone(),
        },
        problem_count: verified.findings.count + against.findings.count,
        problems: all.map(body).collect(),
        seconds: json::seconds(took_ms),
        exit,
    }
}

fn manifest_name(verified: &Verified) -> &'static str {
    match &verified.listing.manifest {
        Some(manifest) if manifest.is_own() => "own",
        Some(_) => "application",
        None => "none",
    }
}

fn lines(name: &str, verified: &Verified, against: &Against, took_ms: u64) -> Vec<String> {
    let format = verified
        .format
        .map_or("no archive", |format| format.extension());
    let mut lines = vec![
        format!(
            "Checked {name} ({format}), {} ({}), in {}",
            text::count(verified.files(), "file", "files"),
            text::size(verified.listing.plain_bytes),
            text::duration(took_ms)
        ),
        format!("  sha256      {}", verified.sha256),
        format!(
            "  beside it   {}",
            match verified.has_sum {
                true => "a sum, compared",
                false => "no sum",
            }
        ),
        format!(
            "  manifest    {}",
            match (manifest_name(verified), has_manifest(verified)) {
                ("own", _) => "every file compared, nothing more and nothing less",
                ("application", true) => "of the application, its sums compared",
                ("application", false) => "of the application, without sums",
                _ => "none",
            }
        ),
    ];
    let snapshot = against.snapshot.as_deref().unwrap_or_default();
    let snapshot = snapshot.get(..8).unwrap_or_default();
    lines.push(
        match (against.is_compared, &against.source, &against.reason) {
            (true, Some(OriginSource::Exported), _) => {
                format!("  repository  the export of snapshot {snapshot}, compared with it")
            }
            (true, Some(OriginSource::Imported), _) => {
                format!("  repository  snapshot {snapshot} was made of it, compared with it")
            }
            (true, ..) => format!(
                "  repository  compared with snapshot {snapshot}; not an export that is noted there"
            ),
            (false, _, reason) => {
                let reason = reason.as_deref().unwrap_or_default();
                format!("  repository  not compared: {}", text::safe(reason))
            }
        },
    );
    lines
}
