//! The application whose files are restored: whether it runs, and stopping and starting it.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::ops::command;
use crate::ops::command::Argv;
use crate::ops::in_place::running;
use crate::ops::in_place::running::User;
use std::path::Path;
use std::time::Duration;

/// Between two looks at whether an application has ended.
const PAUSE: Duration = Duration::from_millis(100);
/// Looks until it has to have ended: half a minute.
const LOOKS_MAX: u32 = 300;

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
    pub(super) fn says_it_runs(&self) -> Result<bool> {
        self.running.as_deref().map_or(Ok(false), command::succeeds)
    }

    /// Stops it if it runs and can be stopped, and fails if it goes on. Returns whether it was
    /// stopped.
    pub(super) fn stop(&self, cx: &Context, root: &Path, databases: &[Vec<u8>]) -> Result<bool> {
        let runs = self.says_it_runs()? || refuse_if_used(root, databases).is_err();
        let Some(stop) = self.stop.as_ref().filter(|_| runs) else {
            return match self.says_it_runs()? {
                true => Err(self.still_runs()),
                false => refuse_if_used(root, databases).map(|()| false),
            };
        };
        command::must_succeed(stop)?;
        for look in 0..LOOKS_MAX {
            cx.check()?;
            let ended = !self.says_it_runs()? && refuse_if_used(root, databases).is_ok();
            if ended {
                return Ok(true);
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
    pub(super) fn after(&self) -> Vec<String> {
        // A migration that failed is no ground for the next one.
        let mut failed = self.after.iter().map(|argv| command::must_succeed(argv));
        failed
            .find_map(Result::err)
            .map(|error| error.to_string())
            .into_iter()
            .collect()
    }

    /// Starts it again, and returns what failed.
    pub(super) fn start(&self) -> Option<String> {
        let started = self.start.as_deref().map_or(Ok(()), command::must_succeed);
        started.err().map(|error| error.to_string())
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
