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
