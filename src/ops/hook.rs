//! Runs programs that people configured beside an operation: without a shell, without input, in
//! a process group of their own, and not for ever; and one that takes the place of this program.

use crate::context::Context;
use crate::error::Result;
use std::ffi::OsString;
use std::io;
use std::io::Read;
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

/// Whoever sets this did not mean it for others (I9).
const PASSWORD: &str = "STATEKEEP_PASSWORD";
/// How much of an answer is kept.
const SAID_BYTES_MAX: usize = 4096;

/// A program and its arguments. No shell reads it.
pub type Argv = Vec<String>;

/// Where what a program prints goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Where what this program prints goes.
    Inherited,
    /// Standard error: standard output has a form.
    ToStandardError,
}

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

impl HookEnd {
    /// Returns what is wrong, if anything is.
    pub fn problem(&self) -> Option<String> {
        match self {
            HookEnd::Done => None,
            HookEnd::Failed(status) => Some(status.to_string()),
            HookEnd::TimedOut => Some("it took too long and was ended".to_string()),
            HookEnd::NotStarted(error) => Some(format!("it could not be started: {error}")),
        }
    }
}

/// Runs a program. What it prints goes to standard error, since standard output has a form.
pub fn run(cx: &Context, command: &[String], timeout: Duration) -> Result<HookEnd> {
    run_with(cx, command, &[], timeout)
}

/// Runs a program that finds these variables in its environment.
pub fn run_with(
    cx: &Context,
    command: &[String],
    variables: &[(&str, String)],
    timeout: Duration,
) -> Result<HookEnd> {
    let Some(mut prepared) = prepare(command) else {
        return Ok(HookEnd::NotStarted(io::ErrorKind::InvalidInput.into()));
    };
    let variables = variables.iter().map(|(name, value)| (name, value));
    match prepared.envs(variables).stdout(io::stderr()).spawn() {
        Ok(child) => wait(cx, child, timeout, &mut |_| {}),
        Err(error) => Ok(HookEnd::NotStarted(error)),
    }
}

/// Asks a program something, and returns the start of what it prints. Its complaints go nowhere: it
/// may be asked often.
pub fn ask(cx: &Context, command: &[String], timeout: Duration) -> Result<(HookEnd, String)> {
    let invalid = || HookEnd::NotStarted(io::ErrorKind::InvalidInput.into());
    let Some(mut prepared) = prepare(command) else {
        return Ok((invalid(), String::new()));
    };
    let started = prepared
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return Ok((HookEnd::NotStarted(error), String::new())),
    };
    let mut pipe = child.stdout.take();
    if let Some(pipe) = &pipe {
        // What it leaves running keeps the pipe open: nobody waits for its end.
        let set = rustix::fs::fcntl_setfl(pipe, rustix::fs::OFlags::NONBLOCK);
        if let Err(errno) = set {
            end(&mut child);
            return Ok((HookEnd::NotStarted(errno.into()), String::new()));
        }
    }
    let mut said = Vec::new();
    let mut drain = |_: &mut Child| {
        let mut buffer = [0; 4096];
        while let Some(Ok(len @ 1..)) = pipe.as_mut().map(|pipe| pipe.read(&mut buffer)) {
            said.extend_from_slice(&buffer[..len]);
            said.truncate(SAID_BYTES_MAX);
        }
    };
    let how = wait(cx, child, timeout, &mut drain)?;
    Ok((how, String::from_utf8_lossy(&said).trim().to_string()))
}

/// Runs a program as if it had been started instead of this one: it has the terminal, all streams
/// and as long as it takes. Whoever wants it to stop asks it to, and it decides how it ends.
pub fn attach(cx: &Context, command: &[OsString], output: Output) -> Result<HookEnd> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(HookEnd::NotStarted(io::ErrorKind::InvalidInput.into()));
    };
    let mut prepared = Command::new(program);
    prepared.args(arguments).env_remove(PASSWORD);
    if output == Output::ToStandardError {
        prepared.stdout(io::stderr());
    }
    let child = match prepared.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(HookEnd::NotStarted(error)),
    };
    let mut is_asked = false;
    let mut pass_on = |child: &mut Child| {
        // A terminal tells all processes itself; whoever tells only this one means both.
        if !is_asked && cx.check().is_err() {
            is_asked = true;
            let id = i32::try_from(child.id()).ok();
            if let Some(id) = id.and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
            }
        }
    };
    wait(&Context::new(), child, Duration::MAX, &mut pass_on)
}

/// Returns a program that is ready but for its output, unless there is none.
fn prepare(command: &[String]) -> Option<Command> {
    let (program, arguments) = command.split_first()?;
    let mut prepared = Command::new(program);
    prepared
        .args(arguments)
        .env_remove(PASSWORD)
        .stdin(Stdio::null())
        .process_group(0);
    Some(prepared)
}

/// Waits for the end of a program, and does something else meanwhile and once after.
fn wait(
    cx: &Context,
    mut child: Child,
    timeout: Duration,
    meanwhile: &mut dyn FnMut(&mut Child),
) -> Result<HookEnd> {
    let began = Instant::now();
    loop {
        let ended = child.try_wait();
        meanwhile(&mut child);
        match ended {
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

    #[test]
    fn an_answer_is_its_first_bytes_and_what_is_left_running_is_not_waited_for() {
        let ask = |script: &str| {
            let command = ["sh".into(), "-c".into(), script.to_string()];
            ask(&Context::new(), &command, Duration::from_secs(60)).unwrap()
        };

        let (end, said) = ask("echo ' 2.4.1 '; sleep 600 & ");
        assert!(matches!(end, HookEnd::Done) && said == "2.4.1", "{said}");
        let (end, said) = ask("head -c 200000 /dev/zero | tr '\\0' x; exit 3");
        assert_eq!(end.problem().unwrap(), "exit status: 3");
        assert_eq!(said.len(), SAID_BYTES_MAX);
    }

    #[test]
    fn a_program_that_has_the_place_of_this_one_is_asked_to_end() {
        let cx = Context::new();
        cx.cancel.store(true, Ordering::Relaxed);
        let script = "trap 'exit 7' TERM; while :; do sleep 0.01; done";
        let command = ["sh".into(), "-c".into(), script.into()];

        let end = attach(&cx, &command, Output::ToStandardError).unwrap();

        // Asked before it could set its trap, it ends by the signal.
        assert!(matches!(end, HookEnd::Failed(_)), "{end:?}");
        assert!(
            attach(&cx, &[], Output::Inherited)
                .unwrap()
                .problem()
                .is_some()
        );
    }

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
