//! Arguments of `guard`.

use clap::Args;
use clap::Subcommand;
use std::ffi::OsString;
use std::path::PathBuf;

/// `guard`
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub(in crate::cli) struct GuardArgs {
    /// Something else than a migration
    #[command(subcommand)]
    pub command: Option<GuardCommand>,
    /// What is backed up, instead of a profile; may be repeated
    #[arg(long = "path", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// What the migration starts from [default: the user_version of the first SQLite database]
    #[arg(long, value_name = "TEXT")]
    pub revision: Option<String>,
    /// The migration, without a shell
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub migration: Vec<OsString>,
}

/// `guard …`
#[derive(Debug, Clone, Copy, Subcommand)]
pub(in crate::cli) enum GuardCommand {
    /// Name the snapshot before the last migration, and what moved since
    #[command(before_long_help = "\
Example:
  statekeep guard status -p chaos-cypher")]
    Status,
    /// Put back what was there before the last migration
    #[command(before_long_help = "\
Examples:
  statekeep guard rollback                 show what would be put back, and ask
  statekeep guard rollback --confirm")]
    Rollback,
}
