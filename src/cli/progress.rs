//! Shows how far an operation is: a bar, a line a minute, JSON lines, or nothing.
//!
//! Counting is two atomic additions; only a caller that finds the next drawing due takes the lock.
//! Drawing never fails an operation: who cannot be told of progress is told the result.

use crate::cli::args::ProgressStyle;
use crate::cli::json;
use crate::cli::output::Output;
use crate::cli::text;
use crate::context::Event;
use crate::context::Progress;
use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle as BarStyle;
use serde::Serialize;
use std::collections::HashSet;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

/// Warnings remembered: at least as many as a report repeats.
const WARNINGS_MAX: usize = 10_000;

/// Shows progress until it is finished.
pub(super) struct Reporter {
    output: Arc<Output>,
    /// Never `Auto`.
    style: ProgressStyle,
    began: Instant,
    files: AtomicU64,
    bytes: AtomicU64,
    next_ms: AtomicU64,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    phase: &'static str,
    total_files: u64,
    total_bytes: u64,
    bar: Option<ProgressBar>,
    warning_count: u64,
    /// The first ones, so that none of them is told twice.
    warnings: HashSet<(String, Vec<u8>, String)>,
}

#[derive(Serialize)]
struct ProgressLine {
    phase: &'static str,
    done_bytes: u64,
    total_bytes: u64,
    files_done: u64,
    files_total: u64,
    seconds: f64,
}

impl Reporter {
    /// Returns what shows progress in this way, which must be decided.
    pub(super) fn new(output: Arc<Output>, style: ProgressStyle) -> Reporter {
        let interval = interval(style);
        Reporter {
            output,
            style,
            began: Instant::now(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            next_ms: AtomicU64::new(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)),
            shown: Mutex::default(),
        }
    }

    /// Tells about a problem with a source, unless it was told of already. An operation may tell
    /// of it at once, in its report, or both.
    pub(super) fn warn(&self, code: &str, path: &[u8], message: &str) {
        let mut shown = self.lock();
        let warning = (code.to_string(), path.to_vec(), message.to_string());
        if shown.warnings.contains(&warning) {
            return;
        }
        if shown.warnings.len() < WARNINGS_MAX {
            shown.warnings.insert(warning);
        }
        shown.warning_count += 1;
        if self.output.is_json() {
            let _ = self.output.json(&json::warning(code, path, message));
            return;
        }
        let message = text::safe(message);
        let line = match path {
            [] => format!("warning[{code}]: {message}"),
            path => format!("warning[{code}]: {}: {message}", text::path(path)),
        };
        match &shown.bar {
            Some(bar) => bar.suspend(|| self.output.remark(line)),
            None => self.output.remark(line),
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = self.lock().bar.take() {
            bar.finish_and_clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw_if_due(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = self.next_ms.load(Ordering::Relaxed);
        let interval = u64::try_from(interval(self.style).as_millis()).unwrap_or(u64::MAX);
        if now < due {
            return;
        }
        // Of several threads that find it due, one draws.
        let next = now.saturating_add(interval);
        let won = self
            .next_ms
            .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
        if won.is_ok() {
            self.draw(now);
        }
    }

    fn draw(&self, elapsed_ms: u64) {
        let mut shown = self.lock();
        let (files, bytes) = (
            self.files.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        );
        match self.style {
            ProgressStyle::Auto | ProgressStyle::None => {}
            ProgressStyle::Bar => {
                let bar = shown.bar.get_or_insert_with(new_bar).clone();
                bar.set_length(shown.total_bytes.max(bytes));
                bar.set_position(bytes);
                bar.set_message(sentence(&shown, files, bytes));
            }
            ProgressStyle::Plain => self.output.remark(sentence(&shown, files, bytes)),
            ProgressStyle::Json => {
                let line = ProgressLine {
                    phase: shown.phase,
                    done_bytes: bytes,
                    total_bytes: shown.total_bytes,
                    files_done: files,
                    files_total: shown.total_files,
                    seconds: json::seconds(elapsed_ms),
                };
                let line = json::document("progress", line);
                match self.output.is_json() {
                    true => drop(self.output.json(&line)),
                    false => drop(io::stderr().write_all(json::line(&line).as_bytes())),
                }
            }
        }
    }
}

impl Progress for Reporter {
    fn event(&self, event: Event) {
        match event {
            Event::Phase(phase) => {
                let mut shown = self.lock();
                shown.phase = phase;
                (shown.total_files, shown.total_bytes) = (0, 0);
                self.files.store(0, Ordering::Relaxed);
                self.bytes.store(0, Ordering::Relaxed);
            }
            Event::Total { files, bytes } => {
                let mut shown = self.lock();
                (shown.total_files, shown.total_bytes) = (files, bytes);
            }
            Event::Done { files, bytes } => {
                self.files.fetch_add(files, Ordering::Relaxed);
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Event::Warning {
                code,
                path,
                message,
            } => return self.warn(code, &path, &message),
        }
        self.draw_if_due();
    }
}

fn interval(style: ProgressStyle) -> Duration {
    match style {
        ProgressStyle::Bar => Duration::from_millis(100),
        ProgressStyle::Json => Duration::from_millis(500),
        ProgressStyle::Plain => Duration::from_secs(60),
        ProgressStyle::Auto | ProgressStyle::None => Duration::MAX,
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
    match BarStyle::with_template("[{bar:30}] {msg}") {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

fn sentence(shown: &Shown, files: u64, bytes: u64) -> String {
    let mut text = match shown.phase {
        "" => "working:".to_string(),
        phase => format!("{phase}:"),
    };
    match shown.total_bytes {
        0 => text.push_str(&format!(" {}", text::size(bytes))),
        total => {
            let percent = text::percent(bytes.min(total), total);
            let (done, total) = (text::size(bytes), text::size(total));
            text.push_str(&format!(" {done} of {total} ({percent})"));
        }
    }
    match shown.total_files {
        0 => text.push_str(&format!(", {}", text::count(files, "file", "files"))),
        total => text.push_str(&format!(", {files} of {total} files")),
    }
    match shown.warning_count {
        0 => {}
        1 => text.push_str(", 1 warning"),
        many => text.push_str(&format!(", {many} warnings")),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_tells_what_is_known() {
        let mut shown = Shown {
            phase: "read",
            ..Shown::default()
        };
        assert_eq!(sentence(&shown, 1, 2048), "read: 2 KiB, 1 file");

        shown.total_bytes = 4096;
        shown.total_files = 49;
        shown.warning_count = 1;
        assert_eq!(
            sentence(&shown, 31, 2048),
            "read: 2 KiB of 4 KiB (50.0 %), 31 of 49 files, 1 warning"
        );
    }
}
