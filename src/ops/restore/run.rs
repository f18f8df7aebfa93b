//! What all threads of one restore share: the target, the counters, the problems, the way to stop.

use crate::context::Context;
use crate::context::Event;
use crate::disk::jail;
use crate::disk::node::Problem;
use crate::error::Error;
use crate::error::Result;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::format::tree::TreeRoot;
use crate::ops::budget::Budget;
use crate::ops::restore::Compare;
use crate::ops::restore::Replace;
use crate::ops::restore::RestoreOptions;
use crate::ops::restore::RestoreReport;
use crate::ops::restore::select::Only;
use crate::ops::restore::sidecars;
use crate::ops::restore::target::State;
use crate::ops::restore::target::Target;
use crate::repo::chunks::Chunks;
use crate::safeguard::Safeguard;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Plain bytes of chunks that all threads together hold on their way to the disk.
const HELD_BYTES_MAX: u64 = 48 << 20;
/// Too many open files, in this process and on the machine.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// One restore under way.
pub(super) struct Run<'a> {
    pub cx: &'a Context,
    pub chunks: &'a Chunks<'a>,
    pub options: &'a RestoreOptions,
    pub target: &'a Target,
    /// What is compared with, if that is not the target: see `stage`.
    pub against: Option<&'a Target>,
    pub root: &'a TreeRoot,
    pub only: &'a Only,
    pub budget: Budget,
    report: Mutex<RestoreReport>,
    fatal: Mutex<Option<Error>>,
}

impl<'a> Run<'a> {
    pub(super) fn begin(
        cx: &'a Context,
        chunks: &'a Chunks<'a>,
        options: &'a RestoreOptions,
        target: &'a Target,
        root: &'a TreeRoot,
        only: &'a Only,
    ) -> Run<'a> {
        Run {
            cx,
            chunks,
            options,
            target,
            against: None,
            root,
            only,
            budget: Budget::new(HELD_BYTES_MAX),
            report: Mutex::default(),
            fatal: Mutex::new(None),
        }
    }

    /// Fails once the restore has to stop.
    pub(super) fn check(&self) -> Result<()> {
        match lock(&self.fatal).is_some() {
            true => Err(Error::Cancelled),
            false => self.cx.check(),
        }
    }

    /// Keeps the error for the end if it concerns one entry only. Another one stops everybody.
    pub(super) fn fail(&self, path: &[u8], error: Error) -> Result<()> {
        if is_fatal(&error) {
            lock(&self.fatal).get_or_insert(error);
            return Err(Error::Cancelled);
        }
        let code = match error {
            Error::Corrupt { .. } | Error::Missing { .. } => "damaged",
            Error::TooNew { .. } => "too-new",
            Error::Refused { .. } => "refused",
            _ => "failed",
        };
        let mut message = error.to_string();
        if let Error::Io { source, .. } = &error {
            message = format!("{message}: {source}");
        }
        self.failure(Problem::new(path, code, message));
        Ok(())
    }

    /// Notes something that was not restored.
    pub(super) fn failure(&self, problem: Problem) {
        if !Safeguard::FailureTold.holds() {
            return;
        }
        self.tell(&problem);
        lock(&self.report).failures.add(problem);
    }

    /// Notes what is not as it was.
    pub(super) fn warn(&self, problems: Vec<Problem>) {
        for problem in problems {
            self.tell(&problem);
            lock(&self.report).warnings.add(problem);
        }
    }

    fn tell(&self, problem: &Problem) {
        self.cx.progress.event(Event::Warning {
            code: problem.code,
            path: problem.path.clone(),
            message: problem.message.clone(),
        });
    }

    /// Counts.
    pub(super) fn count(&self, count: impl FnOnce(&mut RestoreReport)) {
        count(&mut lock(&self.report));
    }

    /// Says that so many bytes are written.
    pub(super) fn progress(&self, files: u64, bytes: u64) {
        self.cx.progress.event(Event::Done { files, bytes });
    }

    /// Returns what tells whether an entry is there already.
    pub(super) fn compared(&self) -> &'a Target {
        self.against.unwrap_or(self.target)
    }

    /// Returns how an entry that is no hard link compares with what is there.
    pub(super) fn state(&self, entry: &Entry) -> Result<State> {
        let state = self.compared().compare(entry)?;
        Ok(match (self.against, state) {
            // What is staged takes the place of a file as a whole.
            (Some(_), State::Attributes | State::Xattrs) => State::Different,
            (_, state) => state,
        })
    }

    /// Returns whether a node in this state is left as it is.
    pub(super) fn is_done(&self, state: State) -> bool {
        match state {
            State::Equal => true,
            // Where nothing may be replaced, nothing that has the right content is touched.
            State::Xattrs => self.options.replace == Replace::Never,
            State::Absent | State::Attributes | State::Different => false,
        }
    }

    /// Returns what the jail may do about a node that is in the way.
    pub(super) fn replace(&self) -> jail::Replace {
        match self.options.replace {
            Replace::Never => jail::Replace::Never,
            Replace::Changed => jail::Replace::Existing,
        }
    }

    pub(super) fn compares_content(&self, kind: &Kind) -> bool {
        compares_content(self.options, kind)
    }

    /// Returns what was done, or what stopped it.
    pub(super) fn finish(self) -> Result<RestoreReport> {
        self.cx.check()?;
        match into_inner(self.fatal) {
            Some(error) => Err(error),
            None => Ok(into_inner(self.report)),
        }
    }
}

/// Returns whether the bytes of a file decide whether it is as it was.
pub(super) fn compares_content(options: &RestoreOptions, kind: &Kind) -> bool {
    options.compare == Compare::Content || sidecars::is_database(kind)
}

/// Returns whether an error would meet every other entry too.
pub(super) fn is_fatal(error: &Error) -> bool {
    match error {
        Error::Cancelled | Error::Store { .. } => true,
        Error::Io { source, .. } => {
            let is_read_only = source.kind() == io::ErrorKind::ReadOnlyFilesystem;
            let out_of_files = matches!(source.raw_os_error(), Some(EMFILE | ENFILE));
            error.is_no_space() || is_read_only || out_of_files
        }
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
