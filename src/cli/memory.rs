//! What this machine remembers of each profile: how its last backup ended, and what others were
//! told. In the cache: whoever deletes it is told again, and loses no more than two figures.

use crate::cli::session::Session;
use crate::context::Timestamp;
use crate::disk;
use crate::disk::RealDisk;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// Of what the last backups came to.
pub(super) const RUNS: &str = "runs";
/// Of what webhooks were told.
pub(super) const TOLD: &str = "told";

const VERSION: u32 = 1;
/// After so long it is told again.
const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;

/// How a backup of a profile ended, be there a snapshot of it or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastRun {
    version: u32,
    at_ns: i64,
    /// Its exit code.
    pub exit: u8,
}

impl LastRun {
    /// Returns a run that ended now.
    pub(super) fn new(at: Timestamp, exit: u8) -> LastRun {
        LastRun {
            version: VERSION,
            at_ns: at.0,
            exit,
        }
    }

    /// Returns when it ended.
    pub(super) fn at(&self) -> Timestamp {
        Timestamp(self.at_ns)
    }
}

/// What a webhook was told last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    version: u32,
    at_ns: i64,
    codes: Vec<String>,
}

impl Told {
    /// Returns that these problems were told now.
    pub(super) fn new(at: Timestamp, codes: &[&str]) -> Told {
        Told {
            version: VERSION,
            at_ns: at.0,
            codes: codes.iter().map(|code| code.to_string()).collect(),
        }
    }

    /// Returns whether these problems need not be told: they were, less than a day ago.
    pub(super) fn covers(&self, now: Timestamp, codes: &[&str]) -> bool {
        let age_ns = now.since_ns(Timestamp(self.at_ns));
        self.version == VERSION && self.codes == codes && (0..DAY_NS).contains(&age_ns)
    }
}

/// Remembers. Failing to costs what the header says.
pub(super) fn remember(session: &Session, kind: &str, profile: &str, what: &impl Serialize) {
    let Some((path, bytes)) = path(session, kind, profile).zip(serde_json::to_vec(what).ok())
    else {
        return;
    };
    if let Some(dir) = path.parent() {
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    }
    let _ = disk::replace_cache(&RealDisk, &path, &bytes);
}

/// Returns what is remembered.
pub(super) fn recall<T: DeserializeOwned>(
    session: &Session,
    kind: &str,
    profile: &str,
) -> Option<T> {
    let bytes = std::fs::read(path(session, kind, profile)?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Forgets.
pub(super) fn forget(session: &Session, kind: &str, profile: &str) {
    if let Some(path) = path(session, kind, profile) {
        let _ = std::fs::remove_file(path);
    }
}

/// Names of profiles are names of files: `config::check` sees to that.
fn path(session: &Session, kind: &str, profile: &str) -> Option<PathBuf> {
    let dir = session.environment.cache_dir.as_ref()?;
    Some(dir.join(kind).join(profile))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_told_again_after_a_day_and_when_it_changes() {
        let now = Timestamp(100 * DAY_NS);
        let told = |ago_ns: i64| Told::new(Timestamp(now.0 - ago_ns), &["overdue"]);

        assert!(told(0).covers(now, &["overdue"]));
        assert!(told(DAY_NS - 1).covers(now, &["overdue"]));
        assert!(!told(DAY_NS).covers(now, &["overdue"]));
        assert!(!told(0).covers(now, &["overdue", "drill-overdue"]));
        // The clock was ahead when it was told.
        assert!(!told(-1).covers(now, &["overdue"]));
    }
}
