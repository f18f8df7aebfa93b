//! Arguments of `key`.

use clap::Args;
use clap::Subcommand;
use std::ffi::OsString;
use std::path::PathBuf;

/// `key`
#[derive(Debug, Args)]
pub(in crate::cli) struct KeyArgs {
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeyCommand {
    /// List what opens the repository
    #[command(before_long_help = "\
Example:
  statekeep key list")]
    List,
    /// Add a passphrase, or a key file
    #[command(before_long_help = "\
Examples:
  statekeep key add --new-password-file ~/pass
  statekeep key add --new-key-file /mnt/stick/backups.key --label stick")]
    Add(KeyAddArgs),
    /// Remove a key
    #[command(before_long_help = "\
Example:
  statekeep key remove 1b0be2b18f806ac0    a name that `key list` tells")]
    Remove(KeyRemoveArgs),
    /// Replace the passphrase given by another
    #[command(before_long_help = "\
Example:
  statekeep --password-file ~/old key change-password --new-password-file ~/new")]
    ChangePassword(NewPasswordArgs),
    /// Write the recovery kit again
    #[command(before_long_help = "\
Example:
  statekeep key export -o /mnt/stick/kit.txt")]
    Export(KeyExportArgs),
    /// Test whether a key file or recovery kit opens the repository
    #[command(before_long_help = "\
Example:
  statekeep key verify /mnt/stick/kit.txt")]
    Verify(KeyFileArgs),
    /// Keep a key file or recovery kit as this user's key file for the repository
    #[command(before_long_help = "\
Example:
  statekeep -r /mnt/backups key import /mnt/stick/kit.txt")]
    Import(KeyFileArgs),
    /// Encrypt from now on with a new key, which only the keys given hold
    #[command(before_long_help = "\
Example:
  statekeep key rotate                     asks first
What is stored stays readable with the keys that remain. All other keys are removed: those of
the key file and passphrase used for this command stay.")]
    Rotate,
}

/// `key add`
#[derive(Debug, Args)]
pub(in crate::cli) struct KeyAddArgs {
    /// What to call it
    #[arg(long, default_value = "", hide_default_value = true)]
    pub label: String,
    /// Make a new key file here instead of adding a passphrase
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["new_password_file", "new_password_command"]
    )]
    pub new_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub password: NewPasswordArgs,
}

/// Where a new passphrase comes from; asked for on the terminal otherwise.
#[derive(Debug, Args)]
pub(in crate::cli) struct NewPasswordArgs {
    /// Read the new passphrase from this file
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
    /// Run this program, without a shell, for the new passphrase
    #[arg(long, value_name = "COMMAND", conflicts_with = "new_password_file")]
    pub new_password_command: Option<OsString>,
}

/// `key remove`
#[derive(Debug, Args)]
pub(in crate::cli) struct KeyRemoveArgs {
    /// Its name, or the start of it, as listed
    pub name: String,
}

/// `key export`
#[derive(Debug, Args)]
pub(in crate::cli) struct KeyExportArgs {
    /// Where to; `-` for standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `key verify`, `key import`
#[derive(Debug, Args)]
pub(in crate::cli) struct KeyFileArgs {
    /// The key file or recovery kit
    pub file: PathBuf,
}
