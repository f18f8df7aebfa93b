//! The `statekeep` command: arguments in, words or JSON out, an exit code at the end.
//!
//! The only layer that prints, reads the environment, or knows clap. Commands are in `command`,
//! one file each; what they do is done by `ops`.

mod args;
mod choice;
mod command;
mod credentials;
mod environment;
mod explain;
mod failure;
mod json;
mod memory;
mod notify;
mod output;
mod progress;
mod session;
mod signals;
mod terminal;
mod text;

use crate::cli::args::Cli;
use crate::cli::args::Global;
use crate::cli::args::ProgressStyle;
use crate::cli::args::When;
use crate::cli::environment::Environment;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::output::Form;
use crate::cli::output::Output;
use crate::cli::progress::Reporter;
use crate::cli::session::Session;
use crate::cli::signals::Signals;
use crate::context::Context;
use clap::Parser;
use clap::error::ErrorKind;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::ffi::OsString;
use std::io;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::OnceLock;

/// Databases are open all at once, each with its logs: what is usual for the first limit is too
/// little for a home directory.
fn raise_file_limit() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    // With less, some databases are refused and said to be.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
}

/// Runs the command with these arguments, the first of which is the name of the program.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    raise_file_limit();
    let mut cx = Context::new();
    let signals = Signals::watch(&cx.cancel);
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(end_of_parse(&arguments, &error)),
    };
    let form = match cli.global.json {
        true => Form::Json,
        false => Form::Text,
    };
    let environment = Environment::of_process();
    let has_color = environment
        .as_ref()
        .is_ok_and(|environment| has_color(cli.global.color, environment));
    let output = Arc::new(Output::new(form, cli.global.quiet, has_color));
    let fail = |mut failure: Failure| {
        if let (Ok(signals), "interrupted") = (&signals, failure.code) {
            failure.exit = signals.exit_code();
            failure = failure.or_hint(|| {
                "nothing is half done: run it again, and what is stored is not stored twice".into()
            });
        }
        output.failure(&failure);
        ExitCode::from(failure.exit)
    };
    let environment = match environment {
        Ok(environment) => environment,
        Err(failure) => return fail(failure),
    };
    let style = progress_style(&cli.global, &environment);
    let reporter = Arc::new(Reporter::new(output.clone(), style));
    cx.progress = reporter.clone();
    let session = Session {
        cx,
        global: cli.global,
        environment,
        output: output.clone(),
        reporter: reporter.clone(),
        arguments: arguments.into_iter().skip(1).collect(),
        zone: TimeZone::system(),
        config: OnceLock::new(),
    };
    let exit = command::run(&session, cli.command);
    reporter.finish();
    match exit.and_then(|exit| Ok(output.flush().map(|()| exit)?)) {
        Ok(exit) => ExitCode::from(exit),
        Err(failure) => fail(failure),
    }
}

/// Tells what the parser has to say: help, the version, or what is wrong with the arguments.
fn end_of_parse(arguments: &[OsString], error: &clap::Error) -> u8 {
    // The arguments make no sense as a whole, so this is all that can be known.
    let options = arguments.iter().skip(1).take_while(|a| *a != "--");
    let form = match options.into_iter().any(|argument| argument == "--json") {
        true => Form::Json,
        false => Form::Text,
    };
    let has_color =
        Environment::of_process().is_ok_and(|environment| has_color(When::Auto, &environment));
    let output = Output::new(form, false, has_color);
    match told(&output, error) {
        Ok(()) => 0,
        Err(failure) => {
            output.failure(&failure);
            failure.exit
        }
    }
}

fn told(output: &Output, error: &clap::Error) -> Outcome<()> {
    let text = error.render().to_string();
    match (error.kind(), output.form) {
        (ErrorKind::DisplayVersion, Form::Json) => command::meta::version(output)?,
        (ErrorKind::DisplayHelp, Form::Json) => {
            #[derive(Serialize)]
            struct Help {
                text: String,
            }
            output.json(&json::document("help", Help { text }))?;
        }
        (ErrorKind::DisplayVersion | ErrorKind::DisplayHelp, Form::Text) => {
            output.raw(text.as_bytes())?;
        }
        _ => {
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let text = text.replace("\n\nFor more information, try '--help'.", "");
            return Err(Failure::usage(text.trim_end()).hint("statekeep --help"));
        }
    }
    Ok(output.flush()?)
}

fn has_color(when: When, environment: &Environment) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            !environment.no_color && !environment.is_dumb_terminal && io::stderr().is_terminal()
        }
    }
}

fn progress_style(global: &Global, environment: &Environment) -> ProgressStyle {
    match (global.progress, global.json, global.quiet) {
        (ProgressStyle::Auto, true, _) => ProgressStyle::Json,
        (ProgressStyle::Auto, false, true) => ProgressStyle::None,
        (ProgressStyle::Auto, false, false) => {
            match io::stderr().is_terminal() && !environment.is_dumb_terminal {
                true => ProgressStyle::Bar,
                false => ProgressStyle::Plain,
            }
        }
        (style, _, _) => style,
    }
}
