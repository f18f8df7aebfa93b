//! Arguments of the commands about archives.

use clap::Args;
use clap::ValueEnum;
use std::ffi::OsString;
use std::path::PathBuf;

/// `export`
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// A snapshot, or a path in it
    #[arg(value_name = "REF[:PATH]")]
    pub reference: OsString,
    /// Into this file or directory, or - for standard output [default: a name made of the time]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The format [default: that of the file name, else tar.gz]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<FormatArg>,
    /// The shape: as in the snapshot, or what the application itself makes
    #[arg(long, value_name = "LAYOUT", default_value = "snapshot")]
    pub layout: LayoutArg,
    /// Only what matches this pattern
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,
    /// Vacuum the SQLite databases that are exported
    #[arg(long)]
    pub compact: bool,
    /// Encrypt with a passphrase, in the age format
    #[arg(long)]
    pub encrypt: bool,
    /// Encrypt with the passphrase in this file
    #[arg(long, value_name = "FILE")]
    pub encrypt_password_file: Option<PathBuf>,
    /// Encrypt with the passphrase that this program prints
    #[arg(long, value_name = "COMMAND", conflicts_with = "encrypt_password_file")]
    pub encrypt_password_command: Option<OsString>,
    /// Say in the manifest which version of the application it was
    #[arg(long, value_name = "VERSION")]
    pub app_version: Option<String>,
    /// Replace the file if there is one
    #[arg(long)]
    pub overwrite: bool,
}

/// The format of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum FormatArg {
    #[value(name = "tar.gz", alias = "tgz")]
    TarGz,
    #[value(name = "tar.zst")]
    TarZst,
    Tar,
    Zip,
}

/// The shape of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LayoutArg {
    App,
    Snapshot,
}

/// `import`
#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArgs {
    /// Archives, single databases, or directories of them
    #[arg(value_name = "ARCHIVE", required = true)]
    pub archives: Vec<PathBuf>,
    /// As backups of this machine [default: what the archive says, else this one]
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// As backups of this directory [default: what the archive says]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Give the snapshots this name, beside import:FILE
    #[arg(long, value_name = "NAME")]
    pub tag: Vec<String>,
    #[command(flatten)]
    pub trust: TrustArgs,
    #[command(flatten)]
    pub decrypt: DecryptArgs,
}

/// What an encrypted archive opens with.
#[derive(Debug, Args)]
pub(in crate::cli) struct DecryptArgs {
    /// Encrypted archives: the passphrase is in this file [default: asked for]
    #[arg(long, value_name = "FILE")]
    pub decrypt_password_file: Option<PathBuf>,
    /// Encrypted archives: this program prints the passphrase
    #[arg(long, value_name = "COMMAND", conflicts_with = "decrypt_password_file")]
    pub decrypt_password_command: Option<OsString>,
}

/// What is believed of an archive.
#[derive(Debug, Args)]
pub(in crate::cli) struct TrustArgs {
    /// Archives: do not compare with the SHA-256 beside it and with its manifest
    #[arg(long)]
    pub no_verify: bool,
    /// Archives: keep symlinks that lead out of the tree
    #[arg(long)]
    pub outside_links: bool,
    /// Archives: accept that it unpacks to more than 200 times its length
    #[arg(long)]
    pub any_ratio: bool,
}
