//! `restore ARCHIVE`: puts an archive into a directory, without any repository.

use crate::cli::args::DecryptArgs;
use crate::cli::args::RestoreArgs;
use crate::cli::args::TrustArgs;
use crate::cli::command::DONE;
use crate::cli::command::WARNINGS;
use crate::cli::command::restore::refuse_if_used;
use crate::cli::command::restore::tally;
use crate::cli::credentials;
use crate::cli::credentials::PasswordSource;
use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::terminal::Terminal;
use crate::cli::text;
use crate::codec::sha256::Sha256Sum;
use crate::context::Event;
use crate::disk::jail::Replace;
use crate::error::Error;
use crate::ops::archive::Archive;
use crate::ops::archive::bytes;
use crate::ops::archive::bytes::Passphrase;
use crate::ops::archive::checksum;
use crate::ops::archive::listing;
use crate::ops::archive::listing::Limits;
use crate::ops::archive::listing::OutsideLinks;
use crate::ops::archive::listing::Sums;
use crate::ops::archive::place;
use crate::ops::archive::place::PlacePlan;
use crate::ops::archive::unpack::Unpacked;
use serde::Serialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

/// Paths named of each kind.
const EXAMPLES: usize = 5;
const DECRYPT_HINT: &str = "--decrypt-password-file FILE or --decrypt-password-command COMMAND";

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    archive: json::PathField,
    sha256: String,
    verified: bool,
    target: json::PathField,
    plan: PlanBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<DoneBody>,
    exit: u8,
}

#[derive(Serialize)]
struct PlanBody {
    create_files: u64,
    replace_files: u64,
    removed_files: u64,
    equal_files: u64,
    write_bytes: u64,
    free_bytes: u64,
}

#[derive(Serialize)]
struct DoneBody {
    files: u64,
    others: u64,
    written_bytes: u64,
    warnings: u64,
}

/// What was given.
struct Given<'g> {
    archive: &'g Path,
    sha256: Sha256Sum,
    has_sum: bool,
    target: PathBuf,
}

/// Returns the path, if what is meant is a file. A file that just happens to be called like a
/// snapshot counts only if it is an archive; with a slash in it, it is no snapshot.
pub(super) fn archive_path(reference: &OsStr) -> Option<PathBuf> {
    let path = PathBuf::from(reference);
    let is_path = reference.as_bytes().contains(&b'/');
    // One that cannot be opened, for want of a passphrase too, is told by whoever opens it.
    let is_meant = || is_path || !matches!(Archive::open(&path, None), Ok(None));
    (path.is_file() && is_meant()).then_some(path)
}

/// Returns the passphrase for files of which some may be encrypted, if any is.
pub(super) fn passphrase(
    session: &Session,
    args: &DecryptArgs,
    paths: &[&Path],
) -> Outcome<Option<Passphrase>> {
    let mut encrypted = None;
    for path in paths {
        // What is no file, or cannot be read, is told by whoever reads it.
        if bytes::is_encrypted(path).unwrap_or(false) {
            encrypted = Some(path);
            break;
        }
    }
    let Some(path) = encrypted else {
        return Ok(None);
    };
    let source = match (&args.decrypt_password_file, &args.decrypt_password_command) {
        (Some(file), _) => Some(PasswordSource::File(file)),
        (None, Some(command)) => Some(PasswordSource::Command(command)),
        (None, None) => None,
    };
    let password = match (source, Terminal::open()) {
        (Some(source), _) => credentials::read_password(&session.cx, &source)?,
        (None, Some(terminal)) => {
            let name = text::path(path.as_os_str().as_bytes());
            terminal.ask_secret(&session.cx, &format!("Passphrase of {name}: "))?
        }
        (None, None) => {
            let name = path.display();
            let message = format!(
                "{name} is encrypted; no passphrase is given, and there is no terminal to ask at"
            );
            return Err(Failure::new("wrong-key", 12, message).hint(DECRYPT_HINT));
        }
    };
    credentials::as_text(&password).map(Some)
}

/// Returns what is refused.
pub(super) fn limits(args: &TrustArgs) -> Limits {
    let mut limits = Limits::default();
    if args.no_verify {
        limits.sums = Sums::Ignored;
    }
    if args.outside_links {
        limits.outside = OutsideLinks::Kept;
    }
    if args.any_ratio {
        limits.ratio_max = u64::MAX;
    }
    limits
}

/// Names the option that lets a refused archive in, if it is harmless.
pub(super) fn refusal_hint(failure: Failure) -> Failure {
    let message = &failure.message;
    let hint = match failure.code {
        "refused" if message.contains("may lead out") => "--outside-links keeps such symlinks",
        "refused" if message.contains("far more than its length") => {
            "if you know what it is: --any-ratio"
        }
        "refused" if message.contains("more than a gigabyte of memory") => {
            "if you know what it is, decrypt it first: age -d -o FILE.tar.gz FILE.tar.gz.age"
        }
        "wrong-key" if message.contains("for a key") => {
            "decrypt it first: age -d -i KEY -o FILE.tar.gz FILE.tar.gz.age"
        }
        "wrong-key" if message.contains("the passphrase does not open") => DECRYPT_HINT,
        "damaged" if message.contains("its SHA-256 is") || message.contains("manifest") => {
            "take another copy of it; --no-verify takes it as it is"
        }
        _ => return failure,
    };
    failure.or_hint(|| hint.to_string())
}

/// Restores from an archive.
pub(super) fn run(session: &Session, args: &RestoreArgs, path: &Path) -> Outcome<u8> {
    let Some(to) = &args.to else {
        return Err(Failure::usage("an archive is restored into a directory").hint("--to DIR"));
    };
    let target = absolute(to)?;
    session.start("restore")?;
    let prepared = prepare(session, args, path, target);
    let (archive, listing, plan, given) = prepared.map_err(refusal_hint)?;
    session.reporter.finish();
    if !session.output.is_json() && (!session.output.is_quiet || !session.global.yes) {
        for line in plan_lines(&given, &plan) {
            session.output.line(line)?;
        }
    }
    if session.global.dry_run {
        tell(session, &given, &plan, None)?;
        return Ok(DONE);
    }
    let replace = match args.overwrite {
        true => Replace::Existing,
        false => Replace::Never,
    };
    let in_the_way = plan.replace.count + plan.remove.count;
    if in_the_way > 0 && replace == Replace::Never {
        let number = text::count(in_the_way, "path is", "paths are");
        let message = format!(
            "{number} in {} already, and nothing is replaced",
            to.display()
        );
        let failure = Failure::new("refused", 2, message);
        return Err(failure.hint("add --overwrite, or restore into another directory"));
    }
    if in_the_way > 0 {
        refuse_if_used(&databases(&listing), &given.target)?;
    }
    session.confirm("Go on?")?;
    let done = place::apply(&session.cx, &archive, &listing, &plan, replace)?;
    session.reporter.finish();
    for problem in &done.problems {
        session
            .reporter
            .warn(problem.code, &problem.path, &problem.message);
    }
    tell(session, &given, &plan, Some(&done))?;
    Ok(exit_code(&done))
}

/// Returns the paths of databases whose users show by locks alone. Others show by what is open.
fn databases(listing: &listing::Listing) -> Vec<Vec<u8>> {
    let databases = listing.members.iter().filter(|listed| listed.is_sqlite);
    databases.map(|listed| listed.member.path.clone()).collect()
}

type Prepared<'g> = (Archive, listing::Listing, PlacePlan, Given<'g>);

fn prepare<'g>(
    session: &Session,
    args: &RestoreArgs,
    path: &'g Path,
    target: PathBuf,
) -> Outcome<Prepared<'g>> {
    let passphrase = passphrase(session, &args.decrypt, &[path])?;
    let Some(archive) = Archive::open(path, passphrase.as_ref())? else {
        let message = format!("{} is a file, and no archive", path.display());
        let hint = "a snapshot is named by its id, latest, a date or tag:NAME";
        return Err(Failure::new("refused", 2, message).hint(hint));
    };
    session.cx.progress.event(Event::Phase("verify"));
    let limits = limits(&args.trust);
    let sha256 = archive.sha256()?;
    let has_sum = match limits.sums {
        Sums::Verified => checksum::check_beside(path, &sha256)?,
        Sums::Ignored => false,
    };
    let listing = listing::list(&session.cx, &archive, &limits)?;
    let plan = place::plan(&listing, &target, &args.only)?;
    if plan.write_bytes > plan.free_bytes && !session.global.dry_run {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        return Err(Error::io("restore into", &target)(full).into());
    }
    let given = Given {
        archive: path,
        sha256,
        has_sum,
        target,
    };
    Ok((archive, listing, plan, given))
}

fn exit_code(done: &Unpacked) -> u8 {
    match done.problems.is_empty() {
        true => DONE,
        false => WARNINGS,
    }
}

fn plan_lines(given: &Given<'_>, plan: &PlacePlan) -> Vec<String> {
    let shown = |path: &Path| text::path(path.as_os_str().as_bytes());
    let mut lines = vec![
        format!(
            "Plan: put archive {} into {}",
            shown(given.archive),
            shown(&given.target)
        ),
        format!("  sha256    {}", given.sha256),
    ];
    if given.has_sum {
        lines.push("            as the file beside it says".to_string());
    }
    tally(&mut lines, "create", &plan.create, 0);
    tally(&mut lines, "replace", &plan.replace, EXAMPLES);
    tally(&mut lines, "unchanged", &plan.equal, 0);
    tally(&mut lines, "remove", &plan.remove, EXAMPLES);
    lines.push(format!(
        "  space     {} needed, {} free",
        text::size(plan.write_bytes),
        text::size(plan.free_bytes)
    ));
    lines
}

fn tell(
    session: &Session,
    given: &Given<'_>,
    plan: &PlacePlan,
    done: Option<&Unpacked>,
) -> Outcome<()> {
    let output = &session.output;
    let exit = done.map_or(DONE, exit_code);
    if output.is_json() {
        let summary = Summary {
            op: "restore",
            status: if exit == DONE { "ok" } else { "partial" },
            dry_run: done.is_none(),
            archive: json::PathField::new(given.archive.as_os_str().as_bytes()),
            sha256: given.sha256.to_string(),
            verified: given.has_sum,
            target: json::PathField::new(given.target.as_os_str().as_bytes()),
            plan: PlanBody {
                create_files: plan.create.count,
                replace_files: plan.replace.count,
                removed_files: plan.remove.count,
                equal_files: plan.equal.count,
                write_bytes: plan.write_bytes,
                free_bytes: plan.free_bytes,
            },
            done: done.map(|done| DoneBody {
                files: done.files,
                others: done.others,
                written_bytes: done.bytes,
                warnings: done.problems.len() as u64,
            }),
            exit,
        };
        output.json(&json::document("summary", summary))?;
        return Ok(());
    }
    match done {
        None => output.line("Nothing was changed (dry run).")?,
        Some(_) if output.is_quiet => {}
        Some(done) => {
            let files = text::count(done.files, "file", "files");
            output.line(format!("Restored {files} ({})", text::size(done.bytes)))?;
        }
    }
    Ok(())
}
