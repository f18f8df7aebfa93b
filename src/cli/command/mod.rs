//! The commands, one file each. A command reads its options, calls an operation, and tells the
//! outcome; it returns the exit code of a success, which may be one with warnings.

mod backup;
mod check;
mod check_archive;
mod config;
mod copy;
mod demo;
mod diff;
mod doctor;
mod drill;
mod export;
mod files;
mod find;
mod forget;
mod guard;
mod hold;
mod hooks;
mod import;
mod in_place;
mod init;
mod key;
pub(super) mod meta;
mod profile;
mod prune;
mod repo;
mod report;
mod restore;
mod restore_archive;
mod show;
mod snapshots;
mod stats;
mod status;
mod tune;

use crate::cli::args::Command;
use crate::cli::failure::Outcome;
use crate::cli::session::Session;

/// Done, nothing to remark.
const DONE: u8 = 0;
/// Finished with warnings.
const WARNINGS: u8 = 3;
/// Finished, and found damage.
const DAMAGE: u8 = 4;

/// Something is overdue.
const OVERDUE: u8 = 20;
/// Finished, and found differences.
const DIFFERENT: u8 = 5;

/// Runs a command.
pub(super) fn run(session: &Session, command: Command) -> Outcome<u8> {
    match command {
        Command::Backup(args) => backup::run(session, &args),
        Command::Status(args) => status::run(session, &args),
        Command::List(args) => snapshots::list(session, &args),
        Command::Show(args) => show::run(session, &args),
        Command::Restore(args) if args.in_place => in_place::run(session, &args),
        Command::Restore(args) => restore::run(session, &args),
        Command::Undo(args) => in_place::undo(session, &args),
        Command::Export(args) => export::run(session, args),
        Command::Import(args) => import::run(session, args),
        Command::Guard(args) => guard::run(session, &args),
        Command::Ls(args) => files::ls(session, &args),
        Command::Cat(args) => files::cat(session, &args),
        Command::Find(args) => find::run(session, &args),
        Command::Diff(args) => diff::run(session, &args),
        Command::Prune(args) => prune::run(session, &args),
        Command::Forget(args) => forget::run(session, &args),
        Command::Hold(args) => hold::run(session, &args),
        Command::Gc(args) => prune::gc(session, &args),
        Command::Copy(args) => copy::run(session, &args),
        Command::Check(args) => check::run(session, &args),
        Command::Stats(args) => stats::run(session, &args),
        Command::Report(args) => report::run(session, &args),
        Command::Tune(args) => tune::run(session, &args),
        Command::TunePass => tune::pass(session),
        Command::Drill(args) => drill::run(session, &args),
        Command::Init(args) => init::run(session, &args),
        Command::Key(args) => key::run(session, args.command),
        Command::Repo(_) => repo::info(session),
        Command::Profile(args) => profile::run(session, &args.command),
        Command::Config(args) => config::run(session, &args.command),
        Command::Doctor => doctor::run(session),
        Command::Demo(args) => demo::run(session, &args),
        Command::DemoApplication(args) => demo::application(session, &args),
        Command::Completions(args) => meta::completions(session, &args),
        Command::Man => meta::man(session),
        Command::Version => {
            meta::version(&session.output)?;
            Ok(DONE)
        }
    }
}
