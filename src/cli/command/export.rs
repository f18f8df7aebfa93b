//! `export`: writes a snapshot, or part of it, into a file that other programs read.
//!
//! With `-o -` the data goes to standard output, and all words, JSON too, to standard error.

use crate::cli::args::ExportArgs;
use crate::cli::args::FormatArg;
use crate::cli::args::LayoutArg;
use crate::cli::command::DONE;
use crate::cli::command::WARNINGS;
use crate::cli::command::restore::exactly;
use crate::cli::credentials;
use crate::cli::credentials::PasswordSource;
use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::failure::STDOUT;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::disk::output::Existing;
use crate::error::Result;
use crate::ops::archive::Format;
use crate::ops::export;
use crate::ops::export::Databases;
use crate::ops::export::Export;
use crate::ops::export::ExportOptions;
use crate::ops::export::ExportReport;
use crate::ops::export::Layout;
use crate::ops::export::Shape;
use crate::ops::snapshots::split_path;
use crate::repo::chunks::Chunks;
use serde::Serialize;
use std::io;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use zeroize::Zeroizing;

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    snapshot: String,
    format: String,
    #[serde(flatten)]
    path: Option<json::PathField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    files: u64,
    plain_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive_bytes: Option<u64>,
    partial: bool,
    encrypted: bool,
    recorded: bool,
    warnings: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    exit: u8,
}

/// What became of it.
struct End<'e> {
    report: Option<&'e ExportReport>,
    is_recorded: bool,
    warnings: u64,
    exit: u8,
}

/// Exports.
pub(super) fn run(session: &Session, args: ExportArgs) -> Outcome<u8> {
    let is_stream = args.output.as_deref() == Some(Path::new("-"));
    if is_stream {
        if io::stdout().is_terminal() {
            let message = "an archive is nothing to show on a terminal";
            return Err(Failure::usage(message).hint("give a file: -o FILE, or a pipe"));
        }
        session.output.give_stdout_to_data();
    }
    let (reference, path) = split_path(args.reference.as_bytes());
    let mut options = options(session, &args, path)?;
    session.start("export")?;
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let snapshot = session.resolve(&snapshots, reference)?;
    options.passphrase = passphrase(session, &args)?;
    let chunks = Chunks::open_following(&session.cx, &repo, &state.packs)?;
    let (id, manifest) = (snapshot.id, &snapshot.manifest);
    let export = export::prepare(&session.cx, &chunks, id, manifest, &options)?;
    chunks.save_index();
    for warning in &export.warnings {
        session
            .reporter
            .warn(warning.code, &warning.path, &warning.message);
    }
    let warnings = export.warnings.len() as u64;
    let file = match is_stream {
        true => None,
        false => Some(file_path(args.output.as_deref(), &export)?),
    };
    if session.global.dry_run {
        session.reporter.finish();
        let exit = exit_code(warnings, true);
        tell(session, &export, file.as_deref(), &End::dry(warnings, exit))?;
        return Ok(exit);
    }
    let existing = match args.overwrite {
        true => Existing::Replace,
        false => Existing::Keep,
    };
    let report = match &file {
        Some(path) => export::to_file(&session.cx, &chunks, &export, path, existing)
            .map_err(|error| refused_hint(error.into()))?,
        None => {
            let mut stdout = io::stdout();
            export::to_stream(&session.cx, &chunks, &export, &mut stdout, STDOUT)?
        }
    };
    session.reporter.finish();
    let recorded = export::record(&session.cx, &repo, &export, &report);
    if let Err(error) = &recorded {
        let message =
            format!("the archive is fine, but the repository does not know of it: {error}");
        session.reporter.warn("not-recorded", b"", &message);
    }
    let warnings = warnings + u64::from(recorded.is_err());
    let exit = exit_code(warnings, recorded.is_ok());
    let end = End {
        report: Some(&report),
        is_recorded: recorded.is_ok(),
        warnings,
        exit,
    };
    tell(session, &export, file.as_deref(), &end)?;
    Ok(exit)
}

impl End<'_> {
    fn dry(warnings: u64, exit: u8) -> End<'static> {
        End {
            report: None,
            is_recorded: false,
            warnings,
            exit,
        }
    }
}

fn exit_code(warnings: u64, is_recorded: bool) -> u8 {
    match (warnings, is_recorded) {
        (0, true) => DONE,
        _ => WARNINGS,
    }
}

fn options(session: &Session, args: &ExportArgs, path: Option<&[u8]>) -> Outcome<ExportOptions> {
    let named = match args.layout {
        LayoutArg::App => None,
        LayoutArg::Snapshot => args.output.as_deref().and_then(format_of),
    };
    let given = args.format.map(|format| match format {
        FormatArg::TarGz => Format::TarGz,
        FormatArg::TarZst => Format::TarZst,
        FormatArg::Tar => Format::Tar,
        FormatArg::Zip => Format::Zip,
    });
    let mut options = ExportOptions {
        format: given.or(named),
        layout: match args.layout {
            LayoutArg::App => Layout::App,
            LayoutArg::Snapshot => Layout::Snapshot,
        },
        only: args.only.clone(),
        databases: match args.compact {
            true => Databases::Compacted,
            false => Databases::AsTheyAre,
        },
        version: args.app_version.clone(),
        passphrase: None,
        temp_dir: session.environment.temp_dir.clone(),
    };
    match path {
        None | Some(b"") => {}
        Some(_) if !args.only.is_empty() => {
            let message = "a path behind the snapshot and --only contradict each other";
            return Err(Failure::usage(message).hint("give one of them"));
        }
        Some(path) => options.only.push(exactly(path)?),
    }
    Ok(options)
}

/// Returns the format that the name of a file asks for.
fn format_of(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".age").unwrap_or(&name);
    let is_tgz = name.ends_with(".tgz");
    let all = [Format::TarGz, Format::TarZst, Format::Tar, Format::Zip];
    let named = all.into_iter().find(|format| {
        name.strip_suffix(format.extension())
            .is_some_and(|stem| stem.ends_with('.'))
    });
    named.or(is_tgz.then_some(Format::TarGz))
}

/// Returns the file to write: a directory gets the usual name.
fn file_path(given: Option<&Path>, export: &Export<'_>) -> Outcome<PathBuf> {
    let given = given.unwrap_or(Path::new("."));
    let path = absolute(given)?;
    let is_dir = path.is_dir() || given.as_os_str().as_bytes().ends_with(b"/");
    Ok(match is_dir {
        true => path.join(export.file_name()),
        false => path,
    })
}

fn passphrase(session: &Session, args: &ExportArgs) -> Outcome<Option<Zeroizing<String>>> {
    let source = match (&args.encrypt_password_file, &args.encrypt_password_command) {
        (Some(file), _) => Some(PasswordSource::File(file)),
        (None, Some(command)) => Some(PasswordSource::Command(command)),
        (None, None) => None,
    };
    let password = match (source, args.encrypt) {
        (Some(source), _) => credentials::read_password(&session.cx, &source)?,
        (None, true) => session
            .ask_new_password()
            .map_err(|failure| match failure.hint {
                Some(_) => failure
                    .hint("--encrypt-password-file FILE or --encrypt-password-command COMMAND"),
                None => failure,
            })?,
        (None, false) => return Ok(None),
    };
    credentials::as_text(&password).map(Some)
}

fn refused_hint(failure: Failure) -> Failure {
    match failure.code {
        "refused" => failure.or_hint(|| "--overwrite replaces it; or give another: -o FILE".into()),
        _ => failure,
    }
}

fn tell(session: &Session, export: &Export<'_>, path: Option<&Path>, end: &End<'_>) -> Result<()> {
    let output = &session.output;
    if output.is_json() {
        let summary = Summary {
            op: "export",
            status: if end.exit == DONE { "ok" } else { "partial" },
            dry_run: end.report.is_none(),
            snapshot: export.id.to_string(),
            format: shape_name(export).to_string(),
            path: path.map(|path| json::PathField::new(path.as_os_str().as_bytes())),
            sha256: end.report.map(|report| report.sha256.to_string()),
            files: export.files,
            plain_bytes: export.plain_bytes,
            archive_bytes: end.report.map(|report| report.archive_bytes),
            partial: export.is_partial(),
            encrypted: !export.is_reproducible(),
            recorded: end.is_recorded,
            warnings: end.warnings,
            seconds: end.report.map(|report| json::seconds(report.duration_ms)),
            exit: end.exit,
        };
        return output.json(&json::document("summary", summary));
    }
    if output.is_quiet {
        return Ok(());
    }
    let what = format!(
        "{} ({}) of snapshot {}",
        text::count(export.files, "file", "files"),
        text::size(export.plain_bytes),
        export.id.short()
    );
    let name = path.map_or("standard output".to_string(), |path| {
        text::path(path.as_os_str().as_bytes())
    });
    match end.report {
        None => {
            output.line(format!(
                "Dry run: nothing was written. An export would put {what}"
            ))?;
            output.line(format!("  into {name}"))?;
        }
        Some(report) => {
            let took = text::duration(report.duration_ms);
            output.line(format!("Exported {what} in {took}"))?;
            output.line(format!("  {name}  {}", text::size(report.archive_bytes)))?;
            output.line(format!("  sha256 {}", report.sha256))?;
        }
    }
    if export.is_partial() {
        output.line("  PARTIAL   this snapshot lacks what could not be read")?;
    }
    Ok(())
}

fn shape_name(export: &Export<'_>) -> &'static str {
    match export.shape {
        Shape::Archive(format) => format.extension(),
        Shape::Bare => "db",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_tells_the_format() {
        for (name, format) in [
            ("a.tar.gz", Some(Format::TarGz)),
            ("a.tgz", Some(Format::TarGz)),
            ("a.tar.zst.age", Some(Format::TarZst)),
            ("A.ZIP", Some(Format::Zip)),
            ("x/a.tar", Some(Format::Tar)),
            ("zip", None),
            ("a.db", None),
        ] {
            assert_eq!(format_of(Path::new(name)), format, "{name}");
        }
    }
}
