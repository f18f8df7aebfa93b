//! `demo`: shows backups of a sample application that writes meanwhile, and their restore.
//!
//! The hidden `demo-application` is that application: the program starts itself with it.

mod body;
mod picture;

use crate::cli::args::DemoApplicationArgs;
use crate::cli::args::DemoArgs;
use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::command::WARNINGS;
use crate::cli::command::demo::picture::Picture;
use crate::cli::environment;
use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::error::Error;
use crate::error::Result;
use crate::id;
use crate::ops::demo;
use crate::ops::demo::DemoOptions;
use crate::ops::demo::DemoReport;
use crate::ops::demo::Judged;
use crate::ops::demo::Origin;
use crate::ops::demo::Role;
use crate::ops::demo::Step;
use std::fs;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The directory of a demo; removed in the end, whatever end that is, unless it is to be kept.
struct Ground {
    dir: PathBuf,
    is_kept: bool,
}

impl Drop for Ground {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Shows it.
pub(super) fn run(session: &Session, args: &DemoArgs) -> Outcome<u8> {
    if session.global.dry_run {
        return Err(Failure::usage("a demo has no dry run").hint("it touches nothing of yours"));
    }
    session.start("demo")?;
    let program = std::env::current_exe().map_err(Error::io("find", "this program"))?;
    let ground = ground(session, args)?;
    let application = |role: Role, dir: &Path| {
        let mut command = Command::new(&program);
        command.arg("demo-application").arg(dir);
        match role {
            Role::Serve => command.arg("--size-mib").arg(args.size_mib.to_string()),
            Role::Judge => command.arg("--judge"),
        };
        command
    };
    let options = DemoOptions {
        dir: &ground.dir,
        backups: args.backups,
        host: environment::host_name(),
        application: &application,
    };
    let mut picture = Picture::new(args.backups);
    tell_lines(session, vec![picture::FIRST_LINE.to_string()])?;
    let mut tell = |step: Step<'_>| tell(session, &mut picture, &step);
    let report = demo::demo(&session.cx, &options, &mut tell);
    let report = report.map_err(|error| match (error, ground.is_kept) {
        (Error::Cancelled, false) => {
            Failure::from(Error::Cancelled).hint("nothing of the demo is left behind")
        }
        (error, _) => error.into(),
    })?;
    session.reporter.finish();
    let exit = exit_code(&report);
    let kept_dir = ground.is_kept.then_some(ground.dir.as_path());
    match session.output.is_json() {
        true => {
            let summary = body::summary(&report, kept_dir, exit);
            session.output.json(&json::document("summary", summary))?;
        }
        false => tell_lines(session, picture::last_lines(kept_dir))?,
    }
    Ok(exit)
}

/// Is the sample application, or judges a copy of it.
pub(super) fn application(session: &Session, args: &DemoApplicationArgs) -> Outcome<u8> {
    let mut output = session.output.writer();
    match args.judge {
        true => demo::application::judge(&args.dir, &mut output)?,
        false => demo::application::serve(
            &session.cx,
            &args.dir,
            args.size_mib,
            io::stdin(),
            &mut output,
        )?,
    }
    Ok(DONE)
}

fn ground(session: &Session, args: &DemoArgs) -> Outcome<Ground> {
    if let Some(dir) = &args.dir {
        let dir = absolute(dir)?;
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let mut entries = fs::read_dir(&dir).map_err(Error::io("list", &dir))?;
        if entries.next().is_some() {
            let message = format!("{} is not empty", dir.display());
            return Err(Failure::new("refused", 2, message).hint("name a directory that is new"));
        }
        return Ok(Ground { dir, is_kept: true });
    }
    let mut base = session.environment.temp_dir.as_path();
    // The one is often memory, the other is a disk.
    if base == Path::new("/tmp") && Path::new("/var/tmp").is_dir() {
        base = Path::new("/var/tmp");
    }
    let name = id::hex(&session.cx.random_bytes::<6>()?);
    let dir = base.join(format!("statekeep-demo-{name}"));
    let made = DirBuilder::new().mode(0o700).create(&dir);
    made.map_err(Error::io("create", &dir))?;
    Ok(Ground {
        dir,
        is_kept: false,
    })
}

fn exit_code(report: &DemoReport) -> u8 {
    let is_snapshot = |judged: &&Judged| judged.origin == Origin::Snapshot;
    let mut snapshots = report.judged.iter().filter(is_snapshot);
    let is_warned = report.rounds.iter().any(|round| !round.warnings.is_empty());
    match (snapshots.any(|judged| !judged.faults.is_empty()), is_warned) {
        (true, _) => DAMAGE,
        (false, true) => WARNINGS,
        (false, false) => DONE,
    }
}

/// Tells a step as soon as it was taken.
fn tell(session: &Session, picture: &mut Picture, step: &Step<'_>) -> Result<()> {
    if let Step::Round(round) = step {
        for warning in &round.warnings {
            let (code, path) = (warning.code, &warning.path);
            session.reporter.warn(code, path, &warning.message);
        }
    }
    let output = &session.output;
    match (output.is_json(), step) {
        (false, step) => tell_lines(session, picture.lines(step)),
        (true, Step::Round(round)) => {
            output.json(&json::document("backup", body::backup_body(round)))
        }
        (true, Step::Judged(judged)) => {
            output.json(&json::document("restore", body::restore_body(judged)))
        }
        (true, Step::Ready(_) | Step::Written { .. }) => Ok(()),
    }
}

/// A picture that grows: each line is shown at once.
fn tell_lines(session: &Session, lines: Vec<String>) -> Result<()> {
    let output = &session.output;
    if output.is_json() || output.is_quiet {
        return Ok(());
    }
    for line in lines {
        output.line(line)?;
    }
    output.flush()
}
