//! Arguments of the commands that set up, and of those about the program itself.

use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// `init`
#[derive(Debug, Args)]
pub(in crate::cli) struct InitArgs {
    /// Where; the same as -r
    pub path: Option<OsString>,
    /// Do not encrypt: whoever can read the repository can read every backup in it
    #[arg(long, conflicts_with_all = ["password_file", "password_command", "key_file"])]
    pub plain: bool,
}

/// `repo`
#[derive(Debug, Args)]
pub(in crate::cli) struct RepoArgs {
    #[command(subcommand)]
    pub command: RepoCommand,
}

/// What to do with the repository.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RepoCommand {
    /// Show what it is
    Info,
}

/// `demo`
#[derive(Debug, Args)]
pub(in crate::cli) struct DemoArgs {
    /// Keep everything in this directory, new or empty [default: a temporary one, removed]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How many backups
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = within(1..=100))]
    pub backups: u64,
    /// About how large the application is
    #[arg(
        long,
        value_name = "MIB",
        hide = true,
        default_value_t = 48,
        value_parser = within(1..=4096)
    )]
    pub size_mib: u64,
}

/// `demo-application`
#[derive(Debug, Args)]
pub(in crate::cli) struct DemoApplicationArgs {
    /// Where it lives
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Judge what is there instead of making it
    #[arg(long)]
    pub judge: bool,
    /// About how large it is
    #[arg(long, value_name = "MIB", default_value_t = 48)]
    pub size_mib: u64,
}

/// `completions`
#[derive(Debug, Args)]
pub(in crate::cli) struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Shells there are completions for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

fn within(range: RangeInclusive<u64>) -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(range)
}
