//! Runs programs that people configured beside an operation: without a shell, without input, in
//! a process group of their own, and not for ever.

use crate::context::Context;
use crate::error::Result;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// Between two looks whether a program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How a program ended.
#[derive(Debug)]
pub enum HookEnd {
    /// With success.
    Done,
    /// Without.
    Failed(ExitStatus),
    /// It took too long and was killed, with all it had started.
    TimedOut,
    /// It could not be started.
    NotStarted(io::Error),
}

/// Runs a program. What it prints goes to standard error, since standard output has a form.
pub fn run(cx: &Context, command: &[String], timeout: Duration) -> Result<HookEnd> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(HookEnd::NotStarted(io::ErrorKind::InvalidInput.into()));
    };
    let started = Command::new(program)
        .args(arguments)
        // Whoever sets this did not mean it for others (I9).
        .env_remove("STATEKEEP_PASSWORD")
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .process_group(0)
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return Ok(HookEnd::NotStarted(error)),
    };
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(HookEnd::Done),
            Ok(Some(status)) => return Ok(HookEnd::Failed(status)),
            Ok(None) => {}
            Err(error) => return Ok(HookEnd::NotStarted(error)),
        }
        if let Err(cancelled) = cx.check() {
            end(&mut child);
            return Err(cancelled);
        }
        if began.elapsed() >= timeout {
            end(&mut child);
            return Ok(HookEnd::TimedOut);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Ends a program and what it started.
fn end(child: &mut Child) {
    if let Ok(id) = i32::try_from(child.id())
        && let Some(group) = rustix::process::Pid::from_raw(id)
    {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    fn end_of(command: &[&str], timeout: Duration) -> HookEnd {
        let command: Vec<String> = command.iter().map(|word| word.to_string()).collect();
        run(&Context::new(), &command, timeout).unwrap()
    }

    #[test]
    fn a_program_ends_well_badly_late_or_not_at_all() {
        let long = Duration::from_secs(60);

        assert!(matches!(end_of(&["true"], long), HookEnd::Done));
        assert!(matches!(end_of(&["false"], long), HookEnd::Failed(_)));
        assert!(matches!(
            end_of(&["/no/such"], long),
            HookEnd::NotStarted(_)
        ));
        assert!(matches!(end_of(&[], long), HookEnd::NotStarted(_)));
        let late = end_of(&["sleep", "600"], Duration::ZERO);
        assert!(matches!(late, HookEnd::TimedOut), "{late:?}");
        let cx = Context::new();
        cx.cancel.store(true, Ordering::Relaxed);
        assert!(run(&cx, &["sleep".into(), "600".into()], long).is_err());
    }
}
