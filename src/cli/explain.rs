//! What `-v` adds: which file, repository and key were chosen, and why a backup read what it read.
//!
//! On standard error, one calm line for each decision, so that results and JSON stay what they are.

use crate::cli::choice::Target;
use crate::cli::session::Opened;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::Origin;
use crate::format::database::Method;
use crate::ops::backup::BackupReport;

impl Session {
    /// Says what was decided, to those who asked.
    pub(super) fn explain(&self, words: impl FnOnce() -> String) {
        if self.global.verbose {
            self.output
                .remark(format!("  decided: {}", text::safe(&words())));
        }
    }

    /// Says which repository it is, who said so, and what opened it.
    pub(super) fn explain_opened(&self, target: &Target<'_>, opened: &Opened) {
        self.explain(|| {
            let by = match opened {
                Opened::Plain => "it is not encrypted",
                Opened::KeyFile(_) => "a key file opens it",
                Opened::Password(_) => "a passphrase opens it",
            };
            let who = origin(&target.origin);
            format!("repository {}, from {who}; {by}", target.path.display())
        });
    }

    /// Says what a backup leaned on, and how each database was read.
    pub(super) fn explain_backup(&self, report: &BackupReport) {
        self.explain(|| match &report.manifest.parent {
            Some(parent) => format!(
                "parent snapshot {}: what did not change since is not read again",
                parent.short()
            ),
            None => "no parent snapshot: everything is read".to_string(),
        });
        for record in &report.databases {
            self.explain(|| {
                let why = match record.method {
                    Method::Transaction => "read within one transaction of its engine",
                    Method::Walk => "its committed pages were read, as of one moment",
                    Method::PrivateCopy => "read from a private copy, which its engine opened",
                    Method::PlainFiles => "copied as plain files: its engine could not be asked",
                };
                format!("database {}: {why}", text::path(&record.path))
            });
        }
    }
}

/// Returns who said something, in words.
fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Flag(name) => name.to_string(),
        Origin::Environment(name) => format!("${name}"),
        Origin::File(path, line) => format!("{}:{line}", path.display()),
        Origin::Default => "the configuration".to_string(),
    }
}
