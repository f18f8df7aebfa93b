//! `doctor`: what is wrong with the setup, why that matters, and what to type.
//!
//! Changes neither a repository nor what is backed up. One file for each concern; what is known
//! without a repository comes first, so that a repository that cannot be opened hides nothing.

mod repository;
mod setup;
mod sources;

use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::command::status;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// Works, and could be better.
    Warning,
    /// Backups or restores do not work, or will not.
    Problem,
}

/// What one test found.
#[derive(Serialize)]
struct Finding {
    level: Level,
    /// A stable name of the test.
    check: &'static str,
    /// What was tested.
    at: String,
    message: String,
    /// Why it matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    /// What to type.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// The exit code if nothing worse is found.
    #[serde(skip)]
    exit: u8,
}

impl Finding {
    fn ok(check: &'static str, at: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding {
            level: Level::Ok,
            check,
            at: at.into(),
            message: message.into(),
            why: None,
            hint: None,
            exit: DONE,
        }
    }

    fn warning(check: &'static str, at: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding {
            level: Level::Warning,
            ..Finding::ok(check, at, message)
        }
    }

    fn problem(
        check: &'static str,
        at: impl Into<String>,
        message: impl Into<String>,
        exit: u8,
    ) -> Finding {
        Finding {
            level: Level::Problem,
            exit,
            ..Finding::ok(check, at, message)
        }
    }

    fn failed(check: &'static str, at: impl Into<String>, failure: Failure) -> Finding {
        Finding {
            hint: failure.hint,
            ..Finding::problem(check, at, failure.message, failure.exit)
        }
    }

    fn because(mut self, why: &'static str) -> Finding {
        self.why = Some(why);
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Finding {
        self.hint = Some(hint.into());
        self
    }
}

#[derive(Serialize)]
struct Body {
    status: &'static str,
    version: &'static str,
    problem_count: u64,
    warning_count: u64,
    findings: Vec<Finding>,
    exit: u8,
}

/// Tests everything and tells what was found.
pub(super) fn run(session: &Session) -> Outcome<u8> {
    let mut findings = Vec::new();
    setup::config(session, &mut findings)?;
    setup::cache(session, &mut findings);
    match session
        .config()
        .and_then(|_| status::places(session, status::Meant::Named))
    {
        // A configuration with faults was told already.
        Err(failure) if failure.code == "config" => {}
        Err(failure) => findings.push(Finding::failed("repository", "repository", failure)),
        Ok(places) => {
            for place in &places {
                repository::look(session, place, &mut findings);
                session.cx.check()?;
            }
            for profile in session.tested_profiles()? {
                sources::look(session, profile, &mut findings)?;
            }
            setup::timer(session, &mut findings)?;
        }
    }
    session.reporter.finish();
    tell(session, findings)
}

fn tell(session: &Session, findings: Vec<Finding>) -> Outcome<u8> {
    let count = |level| findings.iter().filter(|one| one.level == level).count() as u64;
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    let exits = findings.iter().map(|one| one.exit);
    // What is lost comes before what does not work.
    let exit = match exits.clone().any(|exit| exit == DAMAGE) {
        true => DAMAGE,
        false => exits.clone().find(|exit| *exit != DONE).unwrap_or(DONE),
    };
    let output = &session.output;
    if output.is_json() {
        let body = Body {
            status: match (problems, warnings) {
                (0, 0) => "ok",
                (0, _) => "warnings",
                _ => "problems",
            },
            version: env!("CARGO_PKG_VERSION"),
            problem_count: problems,
            warning_count: warnings,
            findings,
            exit,
        };
        output.json(&json::document("doctor", body))?;
        return Ok(exit);
    }
    for finding in &findings {
        let level = match finding.level {
            Level::Ok if output.is_quiet => continue,
            Level::Ok => "ok     ",
            Level::Warning => "WARNING",
            Level::Problem => "PROBLEM",
        };
        let (at, message) = (text::safe(&finding.at), text::safe(&finding.message));
        output.line(format!("{level}  {at}: {message}"))?;
        if let Some(why) = finding.why {
            output.line(format!("         {why}"))?;
        }
        if let Some(hint) = &finding.hint {
            output.line(format!("  hint: {}", text::safe(hint)))?;
        }
    }
    if !output.is_quiet {
        output.line(match (problems, warnings) {
            (0, 0) => "All is well.".to_string(),
            (problems, warnings) => format!(
                "{}, {}.",
                text::count(problems, "problem", "problems"),
                text::count(warnings, "warning", "warnings")
            ),
        })?;
    }
    Ok(exit)
}
