//! `version`, `completions`, `man`: about the program itself. None needs a repository.

use crate::cli::args::Cli;
use crate::cli::args::CompletionsArgs;
use crate::cli::args::Shell;
use crate::cli::command::DONE;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::failure::STDOUT;
use crate::cli::json;
use crate::cli::output::Output;
use crate::cli::session::Session;
use crate::error::Error;
use crate::error::Result;
use clap::CommandFactory;
use serde::Serialize;

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

/// Prints the version.
pub(in crate::cli) fn version(output: &Output) -> Result<()> {
    match output.is_json() {
        true => output.json(&json::document("version", Version { version: VERSION })),
        false => output.line(format!("statekeep {VERSION}")),
    }
}

/// Prints shell completions.
pub(super) fn completions(session: &Session, args: &CompletionsArgs) -> Outcome<u8> {
    refuse_json(session)?;
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    // The generator cannot report a failed write, so it gets memory.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown_command(), "statekeep", &mut script);
    session.output.raw(&script)?;
    Ok(DONE)
}

/// Returns the command line without the commands that are not for people: completions would offer
/// them.
fn shown_command() -> clap::Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|each| !each.is_hide_set());
    clap::Command::new("statekeep")
        .version(VERSION)
        .disable_help_subcommand(true)
        .args(all.get_arguments().cloned())
        .subcommands(shown.cloned())
}

/// Prints the manual page, all commands in one.
pub(super) fn man(session: &Session) -> Outcome<u8> {
    refuse_json(session)?;
    let mut writer = session.output.writer();
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let write_error = Error::io("write", STDOUT);
    let written = clap_mangen::Man::new(command.clone()).render(&mut writer);
    let written = written.and_then(|()| {
        for subcommand in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            let page = clap_mangen::Man::new(subcommand.clone());
            page.render_synopsis_section(&mut writer)?;
            page.render_description_section(&mut writer)?;
            page.render_options_section(&mut writer)?;
        }
        Ok(())
    });
    written.map_err(write_error)?;
    Ok(DONE)
}

fn refuse_json(session: &Session) -> Outcome<()> {
    match session.output.is_json() {
        true => Err(Failure::usage(
            "this is for a program of its own and has no JSON form",
        )),
        false => Ok(()),
    }
}
