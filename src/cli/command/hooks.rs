//! Programs of a profile beside a backup, and what they are told about it.

use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::session::Session;
use crate::config::Hook;
use crate::config::OnFailure;
use crate::context::Context;
use crate::ops::hook;
use crate::ops::hook::HookEnd;

/// What programs find in their environment. The names are none that this program reads: whoever
/// starts it again in a hook gets what the arguments say.
#[derive(Default)]
pub(super) struct HookFacts<'a> {
    /// `before` or `after`.
    pub when: &'static str,
    /// The profile.
    pub profile: &'a str,
    /// The part of it, if only one is backed up.
    pub scope: &'a str,
    /// Afterwards: the exit code so far.
    pub exit: Option<u8>,
    /// Afterwards: the snapshot that was saved, if one was.
    pub snapshot: Option<String>,
}

impl HookFacts<'_> {
    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("STATEKEEP_HOOK", self.when.to_string()),
            ("STATEKEEP_HOOK_PROFILE", self.profile.to_string()),
            ("STATEKEEP_HOOK_SCOPE", self.scope.to_string()),
        ];
        if let Some(exit) = self.exit {
            variables.push(("STATEKEEP_HOOK_EXIT", exit.to_string()));
            let snapshot = self.snapshot.clone().unwrap_or_default();
            variables.push(("STATEKEEP_HOOK_SNAPSHOT", snapshot));
        }
        variables
    }
}

/// Runs programs one after the other and returns whether there was a warning.
pub(super) fn run_hooks(
    session: &Session,
    cx: &Context,
    hooks: &[Hook],
    facts: &HookFacts<'_>,
) -> Outcome<bool> {
    let variables = facts.variables();
    let mut warned = false;
    for Hook {
        command,
        timeout,
        on_failure,
    } in hooks
    {
        let shown = command.join(" ");
        let wrong = match hook::run_with(cx, command, &variables, *timeout)? {
            HookEnd::Done => continue,
            HookEnd::Failed(status) => format!("{shown} failed: {status}"),
            HookEnd::TimedOut => format!("{shown} took longer than {} s", timeout.as_secs()),
            HookEnd::NotStarted(error) => format!("cannot run {shown}: {error}"),
        };
        match on_failure {
            OnFailure::Abort => {
                let hint = "on-failure = \"warn\" would go on";
                return Err(Failure::new("hook-failed", 1, wrong).hint(hint));
            }
            OnFailure::Warn => {
                session.reporter.warn("hook-failed", b"", &wrong);
                warned = true;
            }
        }
    }
    Ok(warned)
}
