//! The application whose files are restored: whether it runs, and stopping and starting it.

use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::ops::hook;
use crate::ops::hook::Argv;
use crate::ops::hook::HookEnd;
use crate::ops::in_place::running;
use crate::ops::in_place::running::User;
use std::path::Path;
use std::time::Duration;

/// Between two looks at whether an application has ended.
const PAUSE: Duration = Duration::from_millis(100);
/// Looks until it has to have ended: half a minute.
const LOOKS_MAX: u32 = 300;
/// For whoever says whether it runs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For what stops or starts it.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(600);

/// Commands of an application, each a program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Application {
    /// Succeeds while the application runs.
    pub running: Option<Argv>,
    /// Stops it.
    pub stop: Option<Argv>,
    /// Starts it again.
    pub start: Option<Argv>,
    /// What is run once everything is in place, before it is started: a migration, say.
    pub after: Vec<Argv>,
}

impl Application {
    /// Returns whether its own command says that it runs.
    pub(super) fn says_it_runs(&self, cx: &Context) -> Result<bool> {
        let Some(running) = &self.running else {
            return Ok(false);
        };
        match hook::ask(cx, running, ANSWER_TIMEOUT)?.0 {
            HookEnd::Done => Ok(true),
            HookEnd::Failed(_) => Ok(false),
            // No answer is no reason to think that nobody is there.
            end => Err(failed(running, &end.problem().unwrap_or_default())),
        }
    }

    /// Stops it if it runs and can be stopped, and fails if it goes on. Returns whether it was
    /// stopped. What was asked to stop and did not in time is started again.
    pub(super) fn stop(&self, cx: &Context, root: &Path, databases: &[Vec<u8>]) -> Result<bool> {
        let says_so = self.says_it_runs(cx)?;
        let used = refuse_if_used(root, databases);
        match &self.stop {
            Some(stop) if says_so || used.is_err() => {
                must_succeed(cx, stop, COMMAND_TIMEOUT)?;
                self.wait_for_end(cx, root, databases).inspect_err(|_| {
                    tell(cx, self.start());
                })?;
                Ok(true)
            }
            _ if says_so => Err(self.still_runs()),
            _ => used.map(|()| false),
        }
    }

    fn wait_for_end(&self, cx: &Context, root: &Path, databases: &[Vec<u8>]) -> Result<()> {
        for look in 0..LOOKS_MAX {
            cx.check()?;
            if !self.says_it_runs(cx)? && refuse_if_used(root, databases).is_ok() {
                return Ok(());
            }
            if look + 1 < LOOKS_MAX {
                std::thread::sleep(PAUSE);
            }
        }
        refuse_if_used(root, databases).and(Err(self.still_runs()))
    }

    fn still_runs(&self) -> Error {
        let running = self.running.as_deref().unwrap_or_default().join(" ");
        Error::Running {
            what: "the application".to_string(),
            reason: format!("`{running}` says so"),
        }
    }

    /// Runs what is to be run afterwards, and returns what failed.
    pub(super) fn after(&self, cx: &Context) -> Option<String> {
        // A migration that failed is no ground for the next one.
        let mut after = self.after.iter();
        let failed = after.find_map(|argv| must_succeed(cx, argv, Duration::MAX).err());
        failed.map(|error| error.to_string())
    }

    /// Starts it again, and returns what failed. Whoever interrupts a restore does not mean this.
    pub(super) fn start(&self) -> Option<String> {
        let start = self.start.as_ref()?;
        let started = must_succeed(&Context::new(), start, COMMAND_TIMEOUT);
        started.err().map(|error| error.to_string())
    }
}

/// Says what went wrong beside an error that is told anyway.
pub(super) fn tell(cx: &Context, failed: Option<String>) {
    if let Some(message) = failed {
        cx.progress.event(Event::Warning {
            code: "aftermath",
            path: Vec::new(),
            message,
        });
    }
}

fn must_succeed(cx: &Context, argv: &Argv, timeout: Duration) -> Result<()> {
    match hook::run(cx, argv, timeout)?.problem() {
        None => Ok(()),
        Some(problem) => Err(failed(argv, &problem)),
    }
}

fn failed(argv: &Argv, problem: &str) -> Error {
    Error::Refused {
        reason: format!("`{}` failed: {problem}", argv.join(" ")),
    }
}

/// Fails while somebody has a database open.
pub(super) fn refuse_if_used(root: &Path, databases: &[Vec<u8>]) -> Result<()> {
    let users = running::users(root, databases);
    match users.into_iter().find(|user| user.is_database) {
        None => Ok(()),
        Some(User {
            pid, name, path, ..
        }) => Err(Error::Running {
            what: match pid {
                0 => name,
                pid => format!("{name} (process {pid})"),
            },
            reason: format!("it has {} open", String::from_utf8_lossy(&path)),
        }),
    }
}
