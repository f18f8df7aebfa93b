//! A pass in a process of its own: what its memory was is told by nobody else's.

use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::ops::tune::pass::Pass;
use crate::ops::tune::pass::PassDone;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

/// Between two looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(2);

/// Has a program run a pass: it gets the pass on its input and prints what came of it. Ends it once
/// the context is cancelled.
pub fn run_apart(cx: &Context, mut command: Command, pass: &Pass) -> Result<PassDone> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C is for us: we end it, and then remove what it wrote.
        .process_group(0);
    let program = command.get_program().to_owned();
    let failed = |source| Error::io("run", &program)(source);
    let mut child = command.spawn().map_err(failed)?;
    let ended = talk(cx, &mut child, pass);
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    ended.map_err(|error| match error {
        Ended::Stopped(error) => error,
        Ended::Failed(error) => failed(error),
    })
}

enum Ended {
    Stopped(Error),
    Failed(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Failed(error)
    }
}

fn talk(cx: &Context, child: &mut Child, pass: &Pass) -> Result<PassDone, Ended> {
    if let Some(mut input) = child.stdin.take() {
        let pass = serde_json::to_vec(pass).map_err(io::Error::from)?;
        input.write_all(&pass)?;
    }
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        cx.progress.event(Event::Done { files: 0, bytes: 0 });
        cx.check().map_err(Ended::Stopped)?;
        thread::sleep(PAUSE);
    };
    // Both are far shorter than what a pipe holds.
    let mut text = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut text)?;
    }
    if status.success() {
        return Ok(serde_json::from_str(&text).map_err(io::Error::from)?);
    }
    let mut why = String::new();
    if let Some(mut errors) = child.stderr.take() {
        errors.read_to_string(&mut why)?;
    }
    let first = why.lines().next().unwrap_or("it ended early");
    Err(Ended::Failed(io::Error::other(first.to_string())))
}

/// Is the other side: reads a pass, runs it, and writes what came of it. Ends with its parent.
pub fn be_child(cx: &Context, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let io = |source: io::Error| Error::io("talk to", "the process that asked")(source);
    let mut text = Vec::new();
    input.read_to_end(&mut text).map_err(io)?;
    let pass: Pass = serde_json::from_slice(&text).map_err(|error| io(error.into()))?;
    let done = super::pass::run(cx, &pass)?;
    let text = serde_json::to_vec(&done).map_err(|error| io(error.into()))?;
    output.write_all(&text).map_err(io)
}
