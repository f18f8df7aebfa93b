//! Why a command ends without success: a stable code, an exit code, words, and the next step.
//!
//! `classify` is the one place that maps errors of the library to codes. Codes are only ever added.

use crate::error::Error;
use rustix::io::Errno;
use std::error::Error as _;
use std::io;

/// How standard output is named in errors.
pub(super) const STDOUT: &str = "standard output";

/// The end of a command that did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    /// Stable; for programs.
    pub code: &'static str,
    /// The exit code.
    pub exit: u8,
    /// What is wrong, and why.
    pub message: String,
    /// What to do next, if whoever failed knows it.
    pub hint: Option<String>,
    /// What the cause suggests.
    pub cause_hint: Option<&'static str>,
    /// Whether standard output carries it already.
    pub is_told: bool,
}

/// What a command of the CLI returns.
pub(super) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// Returns a failure without a hint.
    pub(super) fn new(code: &'static str, exit: u8, message: impl Into<String>) -> Failure {
        Failure {
            code,
            exit,
            message: message.into(),
            hint: None,
            cause_hint: None,
            is_told: false,
        }
    }

    /// Says that standard output carries it already.
    pub(super) fn told(mut self) -> Failure {
        self.is_told = true;
        self
    }

    /// Returns the failure of a command line or a setting that makes no sense.
    pub(super) fn usage(message: impl Into<String>) -> Failure {
        Failure::new("usage", 2, message)
    }

    /// Adds the next step.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the next step: what is known of the command goes before what the cause suggests.
    pub(super) fn next_step(&self) -> Option<&str> {
        self.hint.as_deref().or(self.cause_hint)
    }

    /// Adds the next step unless there is one.
    pub(super) fn or_hint(self, hint: impl FnOnce() -> String) -> Failure {
        match self.hint {
            Some(_) => self,
            None => self.hint(hint()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let (code, exit) = classify(&error);
        Failure {
            cause_hint: cause_hint(&error),
            ..Failure::new(code, exit, chain(&error))
        }
    }
}

/// Returns what to do about a machine that fails; everything else is said where it is known.
fn cause_hint(error: &Error) -> Option<&'static str> {
    let source = match error {
        Error::CopyFailed { source, .. } => return cause_hint(source),
        Error::Io { source, .. } => source,
        _ => return None,
    };
    let errno = source.raw_os_error().map(Errno::from_raw_os_error);
    match (source.kind(), errno) {
        _ if error.is_no_space() => {
            Some("make room there and run it again: what is saved is not hurt")
        }
        (_, Some(Errno::MFILE | Errno::NFILE)) => {
            Some("allow more open files (ulimit -n) and run it again")
        }
        (io::ErrorKind::FileTooLarge, _) => {
            Some("files may not be so long here: see ulimit -f, and which file system it is")
        }
        (io::ErrorKind::OutOfMemory, _) => Some("allow more memory and run it again"),
        (io::ErrorKind::NotFound, _) => Some("see that it exists and that its disk is mounted"),
        (io::ErrorKind::PermissionDenied, _) => Some("run it as a user who may do that"),
        (io::ErrorKind::ReadOnlyFilesystem, _) => Some("mount it so that it can be written to"),
        (io::ErrorKind::BrokenPipe, _) => None,
        (_, Some(_)) => Some(
            "see the log of the system, as the disk or the way to it failed; then run it again, \
             and statekeep check",
        ),
        (_, None) => None,
    }
}

/// Returns the stable code and the exit code of an error.
fn classify(error: &Error) -> (&'static str, u8) {
    match error {
        Error::Io { path, source, .. }
            if source.kind() == io::ErrorKind::BrokenPipe && path.as_os_str() == STDOUT =>
        {
            // As if SIGPIPE had ended the process.
            ("broken-pipe", 141)
        }
        Error::Io { .. } | Error::CopyFailed { .. } if error.is_no_space() => ("no-space", 16),
        Error::CopyFailed { .. } => ("copy-failed", 19),
        Error::Io { .. } => ("io", 1),
        Error::Corrupt { .. } => ("damaged", 4),
        Error::Missing { .. } => ("missing", 4),
        Error::RolledBack { .. } => ("rolled-back", 4),
        Error::Store { .. } => ("store-unreachable", 17),
        Error::NoRepo { .. } => ("no-repo", 10),
        Error::RepoExists { .. } => ("repo-exists", 1),
        Error::Busy { .. } => ("busy", 11),
        Error::WrongKey { .. } => ("wrong-key", 12),
        Error::NotFound { .. } => ("not-found", 13),
        Error::TooNew { .. } => ("too-new", 18),
        Error::Ambiguous { .. } => ("ambiguous", 2),
        Error::Refused { .. } => ("refused", 2),
        Error::Running { .. } => ("app-running", 15),
        // Which signal it was is known to `run`.
        Error::Cancelled => ("interrupted", 130),
    }
}

/// Returns the error and its causes, each once.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io_error(kind: io::ErrorKind, path: &str) -> Error {
        Error::io("write", path)(io::Error::from(kind))
    }

    #[test]
    fn every_error_has_its_exit_code() {
        let text = String::new;
        let table = [
            (io_error(io::ErrorKind::StorageFull, "/x"), "no-space", 16),
            (io_error(io::ErrorKind::QuotaExceeded, "/x"), "no-space", 16),
            (io_error(io::ErrorKind::StorageFull, STDOUT), "no-space", 16),
            (io_error(io::ErrorKind::PermissionDenied, "/x"), "io", 1),
            (io_error(io::ErrorKind::BrokenPipe, "/x"), "io", 1),
            (
                io_error(io::ErrorKind::BrokenPipe, STDOUT),
                "broken-pipe",
                141,
            ),
            (Error::corrupt("packs/3f", "cut"), "damaged", 4),
            (Error::Missing { object: text() }, "missing", 4),
            (Error::RolledBack { reason: text() }, "rolled-back", 4),
            (
                Error::Store {
                    action: "list",
                    object: text(),
                    reason: text(),
                },
                "store-unreachable",
                17,
            ),
            (Error::NoRepo { location: text() }, "no-repo", 10),
            (Error::RepoExists { location: text() }, "repo-exists", 1),
            (
                Error::Busy {
                    what: text(),
                    reason: text(),
                },
                "busy",
                11,
            ),
            (Error::WrongKey { reason: text() }, "wrong-key", 12),
            (Error::NotFound { what: text() }, "not-found", 13),
            (
                Error::TooNew {
                    object: text(),
                    reason: text(),
                },
                "too-new",
                18,
            ),
            (
                Error::Ambiguous {
                    what: text(),
                    candidates: text(),
                },
                "ambiguous",
                2,
            ),
            (Error::Refused { reason: text() }, "refused", 2),
            (
                Error::Running {
                    what: text(),
                    reason: text(),
                },
                "app-running",
                15,
            ),
            (Error::Cancelled, "interrupted", 130),
        ];
        for (error, code, exit) in table {
            assert_eq!(classify(&error), (code, exit), "{error:?}");
        }
    }

    #[test]
    fn a_copy_that_failed_has_a_code_of_its_own_unless_there_was_no_room() {
        let full = io_error(io::ErrorKind::StorageFull, "/x");
        let cut = Error::corrupt("packs/3f", "cut");
        let table = [(full, ("no-space", 16)), (cut, ("copy-failed", 19))];
        for (source, codes) in table {
            let failed = Error::CopyFailed {
                location: "/copy".to_string(),
                source: Box::new(source),
            };
            assert_eq!(classify(&failed), codes);
        }
    }

    #[test]
    fn a_failing_machine_is_told_with_what_to_do_about_it() {
        let failed = |errno: Errno| Failure::from(Error::io("sync", "/x")(errno.into()));
        for errno in [
            Errno::IO,
            Errno::NOSPC,
            Errno::MFILE,
            Errno::FBIG,
            Errno::ROFS,
        ] {
            assert!(failed(errno).next_step().is_some(), "{errno:?}");
        }
        assert_eq!(failed(Errno::IO).hint("known").next_step(), Some("known"));
        assert_eq!(failed(Errno::PIPE).next_step(), None);
    }

    #[test]
    fn a_cause_is_told_once() {
        let failure = Failure::from(io_error(io::ErrorKind::PermissionDenied, "/x"));

        assert_eq!(failure.message, "cannot write /x: permission denied");
    }
}
