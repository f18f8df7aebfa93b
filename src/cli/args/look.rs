//! Arguments of the commands that look inside snapshots.

use clap::Args;
use std::ffi::OsString;

/// `ls`
#[derive(Debug, Args)]
pub(in crate::cli) struct LsArgs {
    /// A snapshot, or a path in it
    #[arg(value_name = "REF[:PATH]")]
    pub reference: OsString,
}

/// `cat`
#[derive(Debug, Args)]
pub(in crate::cli) struct CatArgs {
    /// A file in a snapshot
    #[arg(value_name = "REF:PATH")]
    pub reference: OsString,
}

/// `find`
#[derive(Debug, Args)]
pub(in crate::cli) struct FindArgs {
    /// What to look for, as in `exclude`: a name at any depth, or a path from the root
    #[arg(value_name = "PATTERN", required = true)]
    pub patterns: Vec<String>,
    /// Only in this snapshot; may be repeated [default: all that are meant]
    #[arg(long = "in", value_name = "REF")]
    pub references: Vec<OsString>,
}

/// `diff`
#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// A snapshot, or a path in it
    #[arg(value_name = "REF[:PATH]")]
    pub before: OsString,
    /// The snapshot to compare it with [default: what is there now]
    #[arg(value_name = "REF2")]
    pub after: Option<OsString>,
    /// Only what fits this pattern; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub only: Vec<String>,
    /// Name so many rows of each table that differ
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = 0,
        default_missing_value = "10"
    )]
    pub rows: u16,
    /// Only these paths, and what is below them
    #[arg(value_name = "PATH", last = true)]
    pub paths: Vec<OsString>,
}
