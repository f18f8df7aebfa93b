//! Arguments of `config` and `profile`.

use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;
use std::path::PathBuf;

/// `config`
#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    /// Test everything in it: keys, paths, permissions, repositories
    #[command(before_long_help = "\
Examples:
  statekeep config check
  statekeep config check -c ./new.toml     before it is used")]
    Check,
    /// Show the values that count, after flags, environment, file and defaults
    #[command(before_long_help = "\
Example:
  statekeep config show --origin")]
    Show(ConfigShowArgs),
    /// Print which file is used, or where one would be looked for
    #[command(before_long_help = "\
Example:
  $EDITOR $(statekeep config path)")]
    Path,
    /// Print a JSON schema of the file, for editors
    #[command(before_long_help = "\
Example:
  statekeep config schema > statekeep.schema.json")]
    Schema,
}

/// `config show`
#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigShowArgs {
    /// Say where each value comes from
    #[arg(long)]
    pub origin: bool,
}

/// `profile`
#[derive(Debug, Args)]
pub(in crate::cli) struct ProfileArgs {
    #[command(subcommand)]
    pub command: ProfileCommand,
}

/// What to do with profiles.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ProfileCommand {
    /// List the profiles of the configuration
    #[command(before_long_help = "\
Example:
  statekeep profile list")]
    List,
    /// Show one profile in full
    #[command(before_long_help = "\
Example:
  statekeep profile show homecore")]
    Show(ProfileShowArgs),
    /// Look into a directory and print a profile for it
    #[command(before_long_help = "\
Examples:
  statekeep profile detect /srv/app                            look at it first
  statekeep profile detect /srv/app >> $(statekeep config path)
It changes nothing. Databases are told by their content.")]
    Detect(ProfileDetectArgs),
    /// Print the profile of an application that is known
    #[command(before_long_help = "\
Example:
  statekeep profile example homecore")]
    Example(ProfileExampleArgs),
}

/// `profile show`
#[derive(Debug, Args)]
pub(in crate::cli) struct ProfileShowArgs {
    /// The profile; the same as -p
    pub name: Option<String>,
}

/// `profile detect`
#[derive(Debug, Args)]
pub(in crate::cli) struct ProfileDetectArgs {
    /// The directory of the application
    pub path: PathBuf,
}

/// `profile example`
#[derive(Debug, Args)]
pub(in crate::cli) struct ProfileExampleArgs {
    /// The application
    pub name: ExampleName,
}

/// Applications that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ExampleName {
    #[value(name = "homecore")]
    HomeCore,
    Hoziron,
    ChaosCypher,
}
