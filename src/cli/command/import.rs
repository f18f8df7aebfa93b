//! `import`: takes archives and copies of databases in, as snapshots of their own date.
//!
//! Of several, each is for itself: one that is refused does not keep the others out, and the exit
//! code is that of the first failure.

use crate::cli::args::ImportArgs;
use crate::cli::command::DONE;
use crate::cli::command::WARNINGS;
use crate::cli::command::restore_archive;
use crate::cli::environment;
use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::error::Error;
use crate::error::Result;
use crate::ops::import;
use crate::ops::import::Candidate;
use crate::ops::import::ImportOptions;
use crate::ops::import::ImportReport;
use serde::Serialize;
use std::os::unix::ffi::OsStrExt;

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    imported: u64,
    known: u64,
    failed: u64,
    warnings: u64,
    archives: Vec<ArchiveBody>,
    exit: u8,
}

#[derive(Serialize)]
struct ArchiveBody {
    #[serde(flatten)]
    path: json::PathField,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    date_from: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plain_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// What became of all of them.
#[derive(Default)]
struct End {
    archives: Vec<ArchiveBody>,
    warnings: u64,
    first_failure: Option<Failure>,
}

/// Imports.
pub(super) fn run(session: &Session, args: ImportArgs) -> Outcome<u8> {
    let mut options = options(session, &args)?;
    let paths = args.archives.iter().map(|path| absolute(path));
    let paths: Vec<_> = paths.collect::<Outcome<_>>()?;
    let found = import::find(&paths)?;
    session.start("import")?;
    let files: Vec<_> = found.files.iter().map(|file| &*file.path).collect();
    options.passphrase = restore_archive::passphrase(session, &args.decrypt, &files)?;
    let repo = session.open_repo()?;
    let mut end = End::default();
    for path in &found.skipped {
        end.warnings += 1;
        let path = path.as_os_str().as_bytes();
        session
            .reporter
            .warn("skipped", path, "does not look like a backup");
    }
    for candidate in &found.files {
        match import::import(&session.cx, &repo, candidate, &options) {
            Ok(report) => {
                for warning in &report.warnings {
                    end.warnings += 1;
                    let (path, message) = (&warning.path, &warning.message);
                    session.reporter.warn(warning.code, path, message);
                }
                session.reporter.finish();
                tell(session, candidate, &report)?;
                end.archives.push(body(candidate, &report));
            }
            // Whatever is wrong with one file says nothing about the next.
            Err(error) if is_about_file(&error) && found.files.len() > 1 => {
                let failure = restore_archive::refusal_hint(error.into());
                let path = candidate.path.as_os_str().as_bytes();
                session.reporter.warn(failure.code, path, &failure.message);
                end.archives.push(failed_body(candidate, &failure));
                end.first_failure.get_or_insert(failure);
            }
            Err(error) => return Err(restore_archive::refusal_hint(error.into())),
        }
    }
    session.reporter.finish();
    conclude(session, end)
}

/// Sums up, and returns the exit code or the first failure.
fn conclude(session: &Session, end: End) -> Outcome<u8> {
    let exit = match (&end.first_failure, end.warnings) {
        (Some(failure), _) => failure.exit,
        (None, 0) => DONE,
        (None, _) => WARNINGS,
    };
    let archives = &end.archives;
    let count = |outcome| {
        archives
            .iter()
            .filter(|body| body.outcome == outcome)
            .count() as u64
    };
    let (imported, known, failed) = (count("imported"), count("known"), count("failed"));
    if session.output.is_json() {
        let summary = Summary {
            op: "import",
            status: match exit {
                DONE => "ok",
                WARNINGS => "partial",
                _ => "failed",
            },
            dry_run: session.global.dry_run,
            imported,
            known,
            failed,
            warnings: end.warnings,
            archives: end.archives,
            exit,
        };
        session.output.json(&json::document("summary", summary))?;
        return Ok(exit);
    }
    if !session.output.is_quiet && archives.len() > 1 {
        let line = format!("{imported} imported, {known} known already, {failed} failed");
        session.output.line(line)?;
    }
    match end.first_failure {
        Some(failure) => Err(failure),
        None => Ok(exit),
    }
}

fn options(session: &Session, args: &ImportArgs) -> Outcome<ImportOptions> {
    let is_good = |tag: &&String| {
        !tag.is_empty() && !tag.contains([':', ',']) && !tag.chars().any(char::is_control)
    };
    if let Some(tag) = args.tag.iter().find(|tag| !is_good(tag)) {
        let message = format!("{tag:?} is no name for a snapshot");
        return Err(Failure::usage(message).hint("letters, digits and dashes are best"));
    }
    let root = args.root.as_deref().map(absolute).transpose()?;
    Ok(ImportOptions {
        profile: match &session.profile_names()[..] {
            [] => None,
            [one] => Some((*one).to_string()),
            _ => {
                let message = "an archive becomes a backup of one profile, and several are named";
                return Err(Failure::usage(message).hint("-p NAME, once"));
            }
        },
        host: args.host.clone(),
        this_host: environment::host_name(),
        root_path: root.map(|root| root.as_os_str().as_bytes().to_vec()),
        tags: args.tag.clone(),
        limits: restore_archive::limits(&args.trust),
        passphrase: None,
        temp_dir: session.environment.temp_dir.clone(),
        dry_run: session.global.dry_run,
    })
}

/// Returns whether an error is one of the file, not of the repository or of this machine.
fn is_about_file(error: &Error) -> bool {
    match error {
        Error::Refused { .. } | Error::Corrupt { .. } | Error::WrongKey { .. } => true,
        Error::Io { .. } => !error.is_no_space(),
        _ => false,
    }
}

fn outcome(report: &ImportReport) -> (&'static str, Option<String>) {
    match report.outcome {
        import::Outcome::Imported(id) => ("imported", Some(id.to_string())),
        import::Outcome::Known(id) => ("known", Some(id.to_string())),
        import::Outcome::Planned => ("planned", None),
    }
}

fn body(candidate: &Candidate, report: &ImportReport) -> ArchiveBody {
    let (outcome, snapshot) = outcome(report);
    let is_new = outcome != "known";
    ArchiveBody {
        path: json::PathField::new(candidate.path.as_os_str().as_bytes()),
        outcome,
        snapshot,
        sha256: Some(report.sha256.to_string()),
        created_at: Some(text::rfc3339(report.created_at)),
        date_from: is_new.then(|| report.date_source.name()),
        files: is_new.then_some(report.files),
        plain_bytes: is_new.then_some(report.plain_bytes),
        stored_bytes: (outcome == "imported").then_some(report.stored_bytes),
        code: None,
        message: None,
    }
}

fn failed_body(candidate: &Candidate, failure: &Failure) -> ArchiveBody {
    ArchiveBody {
        path: json::PathField::new(candidate.path.as_os_str().as_bytes()),
        outcome: "failed",
        snapshot: None,
        sha256: None,
        created_at: None,
        date_from: None,
        files: None,
        plain_bytes: None,
        stored_bytes: None,
        code: Some(failure.code),
        message: Some(failure.message.clone()),
    }
}

fn tell(session: &Session, candidate: &Candidate, report: &ImportReport) -> Result<()> {
    let output = &session.output;
    if output.is_json() || output.is_quiet {
        return Ok(());
    }
    let name = candidate.path.file_name().unwrap_or_default().as_bytes();
    let name = text::path(name);
    let at = text::local_with_zone(report.created_at, &session.zone);
    let content = format!(
        "{} ({})",
        text::count(report.files, "file", "files"),
        text::size(report.plain_bytes)
    );
    match report.outcome {
        import::Outcome::Known(id) => output.line(format!(
            "{name}: is snapshot {} of {at} already",
            id.short()
        )),
        import::Outcome::Planned => {
            let source = report.date_source.name();
            output.line(format!(
                "{name}: would be a snapshot of {at} ({source}), {content}"
            ))
        }
        import::Outcome::Imported(id) => {
            let stored = text::size(report.stored_bytes);
            let id = id.short();
            output.line(format!(
                "{name}: snapshot {id} of {at}, {content}, stored {stored}"
            ))
        }
    }
}
