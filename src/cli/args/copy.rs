//! Arguments of the command between two repositories.

use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// `copy`
#[derive(Debug, Args)]
pub(in crate::cli) struct CopyArgs {
    /// Ids, latest, dates, tag:NAME [default: all snapshots, with -p those of the profile]
    #[arg(value_name = "REF")]
    pub references: Vec<OsString>,
    /// The repository to copy to, a directory or its name in the configuration
    #[arg(long, value_name = "PATH|NAME")]
    pub to: OsString,
    #[command(flatten)]
    pub key: ToKeyArgs,
}

/// What opens the repository that is copied to. The global options and the environment are for the
/// one that is copied from.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(in crate::cli) struct ToKeyArgs {
    /// Open it with the passphrase in this file
    #[arg(long, value_name = "FILE")]
    pub to_password_file: Option<PathBuf>,
    /// Open it with the passphrase that this program prints, run without a shell
    #[arg(long, value_name = "COMMAND")]
    pub to_password_command: Option<OsString>,
    /// Open it with this key file or recovery kit
    #[arg(long, value_name = "FILE")]
    pub to_key_file: Option<PathBuf>,
}
