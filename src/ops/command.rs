//! Runs programs that a configuration names: argument vectors, never a shell.

use crate::error::Error;
use crate::error::Result;
use std::process::Command;
use std::process::Stdio;

/// A program and its arguments.
pub type Argv = Vec<String>;

/// How much of what a program said is told when it fails.
const TOLD_BYTES_MAX: usize = 400;

/// Runs a program to its end; it reads nothing. Returns whether it was successful, and fails only
/// if it could not be run.
pub(super) fn succeeds(argv: &[String]) -> Result<bool> {
    Ok(run(argv)?.is_none())
}

/// Runs a program to its end and fails unless it was successful.
pub(super) fn must_succeed(argv: &[String]) -> Result<()> {
    match run(argv)? {
        None => Ok(()),
        Some(said) => Err(Error::Refused {
            reason: format!("`{}` failed: {said}", argv.join(" ")),
        }),
    }
}

/// Returns how a program failed, if it did.
fn run(argv: &[String]) -> Result<Option<String>> {
    let Some((program, arguments)) = argv.split_first() else {
        let reason = "a command without a program".to_string();
        return Err(Error::Refused { reason });
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = command.output().map_err(Error::io("run", program))?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let mut start = said.len().saturating_sub(TOLD_BYTES_MAX);
    while !said.is_char_boundary(start) {
        start += 1;
    }
    let said = &said[start..];
    let colon = if said.is_empty() { "" } else { ": " };
    Ok(Some(format!("{}{colon}{said}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&str]) -> Argv {
        words.iter().map(|word| word.to_string()).collect()
    }

    #[test]
    fn a_failure_tells_the_end_of_what_was_said() {
        assert!(must_succeed(&argv(&["true"])).is_ok());
        assert!(!succeeds(&argv(&["false"])).unwrap());
        let failed = must_succeed(&argv(&["sh", "-c", "echo no such unit >&2; exit 5"]));
        let said = failed.unwrap_err().to_string();
        assert!(said.contains("exit status: 5: no such unit"), "{said}");
        let error = must_succeed(&argv(&["/no/such/program"])).unwrap_err();
        assert!(error.to_string().contains("cannot run /no/such/program"));
        assert!(must_succeed(&[]).is_err());
    }
}
