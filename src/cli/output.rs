//! Where words go: results to standard output, remarks and errors to standard error.
//!
//! With `--json` standard output carries JSON lines and nothing else. Every write to standard
//! output can fail and says so: a full disk is an error, a closed pipe ends the command quietly.

use crate::cli::failure::Failure;
use crate::cli::failure::STDOUT;
use crate::cli::json;
use crate::cli::text;
use crate::error::Error;
use crate::error::Result;
use serde::Serialize;
use std::io;
use std::io::BufWriter;
use std::io::Stdout;
use std::io::Write;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// Bytes kept back before they are written.
const BUFFER_BYTES: usize = 64 << 10;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Both outputs of the process, shared by threads.
pub(super) struct Output {
    /// How results are written.
    pub form: Form,
    /// Whether remarks are unwanted.
    pub is_quiet: bool,
    /// Whether standard error takes colour.
    pub has_color: bool,
    stdout: Mutex<BufWriter<Stdout>>,
    /// Whether standard output is taken by data, so that words go to standard error.
    is_taken: AtomicBool,
}

impl Output {
    /// Returns the outputs.
    pub(super) fn new(form: Form, is_quiet: bool, has_color: bool) -> Output {
        Output {
            form,
            is_quiet,
            has_color,
            stdout: Mutex::new(BufWriter::with_capacity(BUFFER_BYTES, io::stdout())),
            is_taken: AtomicBool::new(false),
        }
    }

    /// Returns true if results are for programs.
    pub(super) fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// Writes a line for people.
    pub(super) fn line(&self, line: impl AsRef<str>) -> Result<()> {
        debug_assert!(self.form == Form::Text, "standard output is for JSON");
        if self.is_taken.load(Ordering::Relaxed) {
            self.remark(line);
            return Ok(());
        }
        writeln!(self.lock(), "{}", line.as_ref()).map_err(Error::io("write", STDOUT))
    }

    /// Writes a line of JSON, at once: somebody may be waiting for it.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<()> {
        let line = json::line(value);
        if self.is_taken.load(Ordering::Relaxed) {
            let written = io::stderr().write_all(line.as_bytes());
            return written.map_err(Error::io("write", "standard error"));
        }
        let mut out = self.lock();
        let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
        written.map_err(Error::io("write", STDOUT))
    }

    /// Writes bytes as they are.
    pub(super) fn raw(&self, bytes: &[u8]) -> Result<()> {
        let written = self.lock().write_all(bytes);
        written.map_err(Error::io("write", STDOUT))
    }

    /// Writes what was kept back. A result that was not flushed was not given.
    pub(super) fn flush(&self) -> Result<()> {
        self.lock().flush().map_err(Error::io("write", STDOUT))
    }

    /// Says that standard output carries data from now on: words and JSON go to standard error.
    pub(super) fn give_stdout_to_data(&self) {
        self.is_taken.store(true, Ordering::Relaxed);
    }

    /// Returns a writer to standard output.
    pub(super) fn writer(&self) -> Writer<'_> {
        Writer { output: self }
    }

    /// Writes a remark to standard error. One that cannot be written is lost.
    pub(super) fn remark(&self, line: impl AsRef<str>) {
        if !self.is_quiet {
            let _ = writeln!(io::stderr(), "{}", line.as_ref());
        }
    }

    /// Tells about the end of a command that did not succeed.
    pub(super) fn failure(&self, failure: &Failure) {
        if failure.code == "broken-pipe" || failure.is_told {
            return;
        }
        if self.is_json() && self.json(&json::failure(failure)).is_ok() {
            return;
        }
        let (start, end) = if self.has_color {
            ("\x1b[1;31m", "\x1b[0m")
        } else {
            ("", "")
        };
        // What was printed before the error comes before it on a terminal too.
        let _ = self.flush();
        let mut text = format!(
            "{start}error[{}]{end}: {}\n",
            failure.code,
            text::safe_lines(&failure.message)
        );
        if let Some(hint) = failure.next_step() {
            text.push_str(&format!("  hint: {}\n", text::safe_lines(hint)));
        }
        let _ = io::stderr().write_all(text.as_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, BufWriter<Stdout>> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Standard output as something to write to.
pub(super) struct Writer<'o> {
    output: &'o Output,
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.lock().flush()
    }
}
