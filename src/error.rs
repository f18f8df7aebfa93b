//! The one error type of the library: facts that some caller acts on differently.
//!
//! Problems of a *source* (a file that vanished) are not errors: operations collect them as
//! warnings and mark the snapshot partial. Problems of the *store* end the operation.

use std::io;
use std::path::Path;
use std::path::PathBuf;

/// The result of nearly everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operating system call failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: "read", "sync".
        action: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A stored object is not what was written.
    #[error("{object} is damaged: {reason}")]
    Corrupt {
        /// The object by name, for example `packs/3f…`.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An object that must be there is not.
    #[error("{object} is missing from the repository")]
    Missing {
        /// The object by name.
        object: String,
    },
    /// The store failed; whether a write took effect may be unknown.
    #[error("the store failed to {action} {object}: {reason}")]
    Store {
        /// What was tried, as a verb.
        action: &'static str,
        /// The object by name.
        object: String,
        /// What the store said.
        reason: String,
    },
    /// There is no repository at this place.
    #[error("there is no repository at {location}")]
    NoRepo {
        /// Where it was looked for.
        location: String,
    },
    /// There is a repository at this place already.
    #[error("there is already a repository at {location}")]
    RepoExists {
        /// Where it is.
        location: String,
    },
    /// No key slot opens with the key or passphrase given.
    #[error("wrong key: {reason}")]
    WrongKey {
        /// Which key was tried, and on what.
        reason: String,
    },
    /// The object was written by a newer program.
    #[error("{object} needs a newer statekeep: {reason}")]
    TooNew {
        /// The object by name.
        object: String,
        /// What is not understood.
        reason: String,
    },
    /// Nothing has this name.
    #[error("{what} not found")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// More than one thing has this name.
    #[error("{what} is ambiguous: {candidates}")]
    Ambiguous {
        /// What was asked for.
        what: String,
        /// What it could mean.
        candidates: String,
    },
    /// The repository shows an older state than this machine has seen before.
    #[error("the repository went back in time: {reason}")]
    RolledBack {
        /// What was seen before and what is there now.
        reason: String,
    },
    /// Somebody else holds what is needed, or others kept winning the race for it.
    #[error("{what} is busy: {reason}")]
    Busy {
        /// What is held.
        what: String,
        /// By whom.
        reason: String,
    },
    /// The request contradicts itself or the state of the target.
    #[error("{reason}")]
    Refused {
        /// Why it is not done.
        reason: String,
    },
    /// The application has what would be replaced.
    #[error("{what} is running: {reason}")]
    Running {
        /// The application, or what it has open.
        what: String,
        /// How that was seen.
        reason: String,
    },
    /// The repository that was copied to failed; the one that was copied from is as it was.
    #[error("the copy to {location} failed, the first repository is as it was")]
    CopyFailed {
        /// Where it was copied to.
        location: String,
        /// What failed there.
        source: Box<Error>,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Cancelled,
}

impl Error {
    /// Returns a closure for `map_err` on system calls.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }

    /// Returns the error of an object whose bytes are wrong.
    pub fn corrupt(object: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Corrupt {
            object: object.into(),
            reason: reason.into(),
        }
    }

    /// Returns true if the cause is a full disk or an exhausted quota.
    pub fn is_no_space(&self) -> bool {
        match self {
            Error::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            Error::CopyFailed { source, .. } => source.is_no_space(),
            _ => false,
        }
    }
}
