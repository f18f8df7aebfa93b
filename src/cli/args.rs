//! The command line as types. Help texts are short and true; examples come first.
//!
//! Nothing is read here but the arguments: what the environment adds is in `environment`.

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  statekeep -r /mnt/backups init                 make a repository, with a key and a recovery kit
  statekeep -r /mnt/backups backup /srv/app      back up a directory
  statekeep -r /mnt/backups list                 what is there
  statekeep -r /mnt/backups restore latest --to ./app --confirm
Put STATEKEEP_REPO=/mnt/backups into the environment to leave out -r.";

const CODES: &str = "\
Exit codes: 0 done · 1 failed · 2 wrong usage · 3 finished with warnings · 4 damage found ·
10 no repository · 11 busy · 12 wrong key · 13 not found · 14 confirmation needed · 16 no space ·
17 store unreachable · 18 format newer than this program · 130/143 interrupted, state safe";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "statekeep",
    version,
    about = "Incremental backups of the state of running applications",
    before_long_help = EXAMPLES,
    after_long_help = CODES,
    propagate_version = false,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// The repository, a directory [env: STATEKEEP_REPO]
    #[arg(short, long, global = true, value_name = "PATH")]
    pub repo: Option<OsString>,
    /// Read the passphrase from this file [env: STATEKEEP_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Run this program, without a shell, for the passphrase [env: STATEKEEP_PASSWORD_COMMAND]
    #[arg(
        long,
        global = true,
        value_name = "COMMAND",
        conflicts_with = "password_file"
    )]
    pub password_command: Option<OsString>,
    /// Open with this key file or recovery kit [env: STATEKEEP_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Show what would be done, and do nothing
    #[arg(short = 'n', long, global = true)]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(short, long, visible_alias = "confirm", global = true)]
    pub yes: bool,
    /// Write JSON to standard output, and nothing else
    #[arg(long, global = true)]
    pub json: bool,
    /// Print only errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// How to show progress
    #[arg(long, global = true, value_name = "HOW", default_value = "auto")]
    pub progress: ProgressStyle,
    /// When to use colour (NO_COLOR is honoured)
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: When,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressStyle {
    /// A bar on a terminal, otherwise a line a minute
    Auto,
    /// A bar
    Bar,
    /// A line a minute
    Plain,
    /// JSON lines, at most two a second
    Json,
    /// Nothing
    None,
}

/// When colour is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Back up files and directories
    #[command(before_long_help = "\
Examples:
  statekeep backup /srv/app
  statekeep backup --tag before-upgrade --exclude '*.tmp' --secret .env /srv/app")]
    Backup(BackupArgs),
    /// List snapshots
    #[command(alias = "snapshots")]
    List(ListArgs),
    /// Show one snapshot in full
    Show(ShowArgs),
    /// Put a snapshot, or part of it, into a directory
    #[command(before_long_help = "\
Examples:
  statekeep restore latest --to ./app              show what would be done, and ask
  statekeep restore latest --to ./app --confirm    do it
  statekeep restore 7c41:config --to ./old --confirm")]
    Restore(RestoreArgs),
    /// List files in a snapshot
    #[command(before_long_help = "\
Examples:
  statekeep ls latest
  statekeep ls '2 days ago:config'")]
    Ls(LsArgs),
    /// Write one file of a snapshot to standard output
    #[command(before_long_help = "\
Example:
  statekeep cat latest:config/app.toml")]
    Cat(CatArgs),
    /// Verify the repository
    Check(CheckArgs),
    /// Make a repository, its key file and its recovery kit
    #[command(before_long_help = "\
Examples:
  statekeep init /mnt/backups                              key file and recovery kit
  statekeep init /mnt/backups --password-file ~/pass       a passphrase opens it as well
  statekeep init /mnt/backups --plain                      not encrypted at all")]
    Init(InitArgs),
    /// The keys that open the repository
    Key(KeyArgs),
    /// The repository itself
    Repo(RepoArgs),
    /// Show backups of a sample application that writes meanwhile, and their restore
    #[command(before_long_help = "\
Examples:
  statekeep demo
  statekeep demo --dir ./demo --backups 4          keep everything there, to play on with it")]
    Demo(DemoArgs),
    /// The sample application of the demo
    #[command(hide = true)]
    DemoApplication(DemoApplicationArgs),
    /// Print shell completions
    Completions(CompletionsArgs),
    /// Print the manual page
    Man,
    /// Print the version
    Version,
}

/// `init`
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Where; the same as -r
    pub path: Option<OsString>,
    /// Do not encrypt: whoever can read the repository can read every backup in it
    #[arg(long, conflicts_with_all = ["password_file", "password_command", "key_file"])]
    pub plain: bool,
}

/// `backup`
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Files and directories
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Leave out what matches this pattern
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Keep what matches this pattern apart from other data
    #[arg(long, value_name = "GLOB")]
    pub secret: Vec<String>,
    /// Give the snapshot this name
    #[arg(long, value_name = "NAME")]
    pub tag: Vec<String>,
    /// Say it was this machine
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Stay on the file system of each path
    #[arg(short = 'x', long)]
    pub one_file_system: bool,
    /// Leave out directories marked by a CACHEDIR.TAG
    #[arg(long)]
    pub exclude_caches: bool,
    /// Keep what SQLite databases have deleted but not overwritten
    #[arg(long)]
    pub exact: bool,
    /// Cut SQLite databases into even groups of pages, or by content if they are vacuumed often
    #[arg(long, value_name = "HOW", default_value = "groups")]
    pub database_cuts: CutsArg,
}

/// Where databases are cut.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum CutsArg {
    Groups,
    Content,
}

/// `list`
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only the newest N; 0 for all [default: 20, with --json all]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Only those with this tag
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
    /// Only those of this machine
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
}

/// `show`
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// An id, latest, latest~2, a date, "2 days ago", tag:NAME
    #[arg(value_name = "REF")]
    pub reference: String,
}

/// `ls`
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// A snapshot, or a path in it
    #[arg(value_name = "REF[:PATH]")]
    pub reference: OsString,
}

/// `cat`
#[derive(Debug, Args)]
pub(super) struct CatArgs {
    /// A file in a snapshot
    #[arg(value_name = "REF:PATH")]
    pub reference: OsString,
}

/// `restore`
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// A snapshot, or a path in it
    #[arg(value_name = "REF[:PATH]")]
    pub reference: OsString,
    /// Into this directory, which takes the place of the snapshot's root
    #[arg(long, value_name = "DIR", conflicts_with = "in_place")]
    pub to: Option<PathBuf>,
    /// Back where it came from (not possible yet)
    #[arg(long, hide = true)]
    pub in_place: bool,
    /// Only what matches this pattern
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,
    /// Replace what differs; what the snapshot lacks stays
    #[arg(long)]
    pub overwrite: bool,
}

/// `check`
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Read and verify stored data too: all of it, or this part
    #[arg(
        long,
        value_name = "P%",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "100%",
        value_parser = parse_percent
    )]
    pub read_data: Option<f64>,
}

/// `key`
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// List what opens the repository
    List,
    /// Add a passphrase, or a key file
    Add(KeyAddArgs),
    /// Remove a key
    Remove(KeyRemoveArgs),
    /// Replace the passphrase given by another
    ChangePassword(NewPasswordArgs),
    /// Write the recovery kit again
    Export(KeyExportArgs),
    /// Test whether a key file or recovery kit opens the repository
    Verify(KeyFileArgs),
    /// Keep a key file or recovery kit as this user's key file for the repository
    Import(KeyFileArgs),
    /// Encrypt from now on with a new key, which only the keys given hold
    #[command(before_long_help = "\
What is stored stays readable with the keys that remain. All other keys are removed: those of
the key file and passphrase used for this command stay.")]
    Rotate,
}

/// `key add`
#[derive(Debug, Args)]
pub(super) struct KeyAddArgs {
    /// What to call it
    #[arg(long, default_value = "")]
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
pub(super) struct NewPasswordArgs {
    /// Read the new passphrase from this file
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
    /// Run this program, without a shell, for the new passphrase
    #[arg(long, value_name = "COMMAND", conflicts_with = "new_password_file")]
    pub new_password_command: Option<OsString>,
}

/// `key remove`
#[derive(Debug, Args)]
pub(super) struct KeyRemoveArgs {
    /// Its name, or the start of it, as listed
    pub name: String,
}

/// `key export`
#[derive(Debug, Args)]
pub(super) struct KeyExportArgs {
    /// Where to; `-` for standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `key verify`, `key import`
#[derive(Debug, Args)]
pub(super) struct KeyFileArgs {
    /// The key file or recovery kit
    pub file: PathBuf,
}

/// `repo`
#[derive(Debug, Args)]
pub(super) struct RepoArgs {
    #[command(subcommand)]
    pub command: RepoCommand,
}

/// What to do with the repository.
#[derive(Debug, Subcommand)]
pub(super) enum RepoCommand {
    /// Show what it is
    Info,
}

/// `demo`
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
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
pub(super) struct DemoApplicationArgs {
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
pub(super) struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Shells there are completions for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
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

fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("a percentage above 0 and up to 100, like 10%".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_percentage_is_above_zero_and_at_most_all() {
        assert_eq!(parse_percent("10%"), Ok(10.0));
        assert_eq!(parse_percent("0.5"), Ok(0.5));
        for bad in ["0", "101%", "-1", "x", "", "NaN", "inf"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }
}
