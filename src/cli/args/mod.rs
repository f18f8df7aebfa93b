//! The command line as types, one file for each group of commands. Help texts are short and
//! true; examples come first.
//!
//! Nothing is read here but the arguments: what the environment adds is in `environment`.

mod archive;
mod config;
mod copy;
mod every_day;
mod guard;
mod keep;
mod key;
mod look;
mod measure;
mod prove;
mod setup;

pub(super) use archive::DecryptArgs;
pub(super) use archive::ExportArgs;
pub(super) use archive::FormatArg;
pub(super) use archive::ImportArgs;
pub(super) use archive::LayoutArg;
pub(super) use archive::TrustArgs;
pub(super) use config::ConfigArgs;
pub(super) use config::ConfigCommand;
pub(super) use config::ConfigShowArgs;
pub(super) use config::ExampleName;
pub(super) use config::ProfileArgs;
pub(super) use config::ProfileCommand;
pub(super) use config::ProfileDetectArgs;
pub(super) use config::ProfileExampleArgs;
pub(super) use config::ProfileShowArgs;
pub(super) use copy::CopyArgs;
pub(super) use copy::ToKeyArgs;
pub(super) use every_day::BackupArgs;
pub(super) use every_day::CutsArg;
pub(super) use every_day::ListArgs;
pub(super) use every_day::RestoreArgs;
pub(super) use every_day::ShowArgs;
pub(super) use every_day::UndoArgs;
pub(super) use guard::GuardArgs;
pub(super) use guard::GuardCommand;
pub(super) use keep::ForgetArgs;
pub(super) use keep::GcArgs;
pub(super) use keep::HoldArgs;
pub(super) use keep::PruneArgs;
pub(super) use keep::SpaceArgs;
pub(super) use key::KeyAddArgs;
pub(super) use key::KeyArgs;
pub(super) use key::KeyCommand;
pub(super) use key::NewPasswordArgs;
pub(super) use look::CatArgs;
pub(super) use look::DiffArgs;
pub(super) use look::FindArgs;
pub(super) use look::LsArgs;
pub(super) use measure::ReportArgs;
pub(super) use measure::StatsArgs;
pub(super) use measure::StatsBy;
pub(super) use measure::StatusArgs;
pub(super) use measure::TuneArgs;
pub(super) use prove::CheckArgs;
pub(super) use prove::DrillArgs;
pub(super) use setup::CompletionsArgs;
pub(super) use setup::DemoApplicationArgs;
pub(super) use setup::DemoArgs;
pub(super) use setup::InitArgs;
pub(super) use setup::RepoArgs;
pub(super) use setup::Shell;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use std::ffi::OsString;
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
5 differences found · 10 no repository · 11 busy · 12 wrong key · 13 not found ·
14 confirmation needed · 15 application running · 16 no space · 17 store unreachable ·
18 format newer than this program · 19 copy failed, first repository fine · 20 overdue ·
130/143 interrupted, state safe";

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
    /// The repository, a directory or its name in the configuration [env: STATEKEEP_REPO]
    #[arg(short, long, global = true, value_name = "PATH|NAME")]
    pub repo: Option<OsString>,
    /// A profile of the configuration; may be repeated [env: STATEKEEP_PROFILE]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub profile: Vec<String>,
    /// All profiles of the configuration
    #[arg(long, global = true, conflicts_with = "profile")]
    pub all: bool,
    /// The configuration, instead of the one of this user or machine [env: STATEKEEP_CONFIG]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
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
    /// Print more, and on standard error what was decided and why
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
  statekeep backup -p homecore            a profile of the configuration
  statekeep backup --all
  statekeep backup --tag before-upgrade --exclude '*.tmp' --secret .env /srv/app")]
    Backup(BackupArgs),
    /// Am I safe? When everything was last backed up, what is overdue, what is wrong
    #[command(before_long_help = "\
Examples:
  statekeep status                         all profiles of the configuration
  statekeep -r /mnt/backups status         whatever is in a repository
  statekeep status --json                  for monitoring; exit 20 when something is overdue
  statekeep status --notify                tell the webhooks what is overdue, once a day
  statekeep status --metrics FILE          and write a file for Prometheus")]
    Status(StatusArgs),
    /// List snapshots
    #[command(
        alias = "snapshots",
        before_long_help = "\
Examples:
  statekeep list
  statekeep list -p homecore
  statekeep list --json                    one document, for programs"
    )]
    List(ListArgs),
    /// Show one snapshot in full
    #[command(before_long_help = "\
Example:
  statekeep show latest")]
    Show(ShowArgs),
    /// Put a snapshot or an archive, or part of it, into a directory
    #[command(before_long_help = "\
Examples:
  statekeep restore latest --to ./app              show what would be done, and ask
  statekeep restore latest --to ./app --confirm    do it
  statekeep restore 7c41:config --to ./old --confirm
  statekeep restore '2 hours ago' --in-place       show what would be replaced, and ask
  statekeep restore backup.tar.gz --to ./app       an archive, without any repository")]
    Restore(RestoreArgs),
    /// Put back what the last restore in place replaced
    #[command(before_long_help = "\
Examples:
  statekeep undo                           show what would be put back, and ask
  statekeep undo -p homecore --confirm")]
    Undo(UndoArgs),
    /// Write a snapshot into an archive that other programs read
    #[command(before_long_help = "\
Examples:
  statekeep export latest                          a tar.gz here, and its SHA-256 beside it
  statekeep export latest:config -o config.zip
  statekeep export latest -o - --format tar | tar -t
  statekeep export latest --layout app             what the application itself would make
  statekeep export latest --encrypt -o /mnt/stick")]
    Export(ExportArgs),
    /// Take backups that exist already in, as snapshots of their own date
    #[command(before_long_help = "\
Examples:
  statekeep import hoziron-backup-20260605_020000.tar.gz --profile hoziron
  statekeep import /data/backups/default           every backup in a directory, old to new
  statekeep import backup.zip -n                   what it would do")]
    Import(ImportArgs),
    /// Run a migration with a way back: a snapshot before, checks after, a restore if it failed
    #[command(before_long_help = "\
Examples:
  statekeep guard -p chaos-cypher -- chaoscypher upgrade
  statekeep guard --path /srv/app --revision 2.4.1 -- /srv/app/migrate.sh
  statekeep guard status                   which snapshot is the way back, and what moved since
  statekeep guard rollback                 show what would be put back, and ask")]
    Guard(GuardArgs),
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
    /// Find files in all snapshots, and where their content changed
    #[command(before_long_help = "\
Examples:
  statekeep find app.toml                 a name, in any directory
  statekeep find '/rules/**/*.toml' -p homecore
  statekeep find .env --in latest --in '2 weeks ago'")]
    Find(FindArgs),
    /// Compare two snapshots, or a snapshot with what is there now: files, and rows of databases
    #[command(before_long_help = "\
Examples:
  statekeep diff latest                           what changed since the last backup
  statekeep diff latest~1 latest                  what changed between two backups
  statekeep diff yesterday latest --only '*.db' --rows
  statekeep diff latest -- config data/app.db     only these paths")]
    Diff(DiffArgs),
    /// Remove the snapshots a policy does not keep, and give their space back
    #[command(before_long_help = "\
Examples:
  statekeep prune -n --keep-last 3 --keep-daily 14      show what would go, and why
  statekeep prune --keep-hourly 24 --keep-daily 14 --keep-weekly 8 --keep-monthly 12
  statekeep prune --keep-within 30d --confirm")]
    Prune(PruneArgs),
    /// Remove snapshots by name
    #[command(before_long_help = "\
Example:
  statekeep forget 7c41e2 9a3f10                        their space is given back by gc")]
    Forget(ForgetArgs),
    /// Protect a snapshot from being removed
    #[command(before_long_help = "\
Examples:
  statekeep hold 7c41e2                                 until it is released
  statekeep hold latest --until 2027-06-30
  statekeep hold --release 7c41e2")]
    Hold(HoldArgs),
    /// Give back space that no snapshot needs
    #[command(before_long_help = "\
Examples:
  statekeep gc -n                          how much there is to give back
  statekeep gc --confirm")]
    Gc(GcArgs),
    /// Copy snapshots to another repository: only what is missing there, every byte verified
    #[command(before_long_help = "\
Examples:
  statekeep copy --to /mnt/stick/backups                all snapshots
  statekeep copy --to offsite -p homecore -n            what would be copied, and how much is read
  statekeep copy --to offsite latest --to-password-file ~/offsite.pass")]
    Copy(CopyArgs),
    /// Verify the repository, and mend it; or verify an archive
    #[command(before_long_help = "\
Examples:
  statekeep check                       all that is needed is there
  statekeep check --read-data=10%       and a part of it reads; ten times is everything
  statekeep check latest --read-data    all that one snapshot needs reads
  statekeep check --repair              mark what is lost; the next backup stores it again
  statekeep check backup.tar.gz         is this archive still what was exported?")]
    Check(CheckArgs),
    /// Figures: what is stored, what it costs, and how fast it grows
    #[command(before_long_help = "\
Examples:
  statekeep stats                         the repository and its profiles
  statekeep stats --by snapshot           what each alone costs: forgetting it frees that much
  statekeep stats --by table -p homecore  which tables the databases are made of
  statekeep stats latest --by file        what one snapshot is made of")]
    Stats(StatsArgs),
    /// Write verdict, figures and charts into one HTML page, to read offline, print and pass on
    #[command(before_long_help = "\
Examples:
  statekeep report                         into a new file here
  statekeep report -o /srv/www/backups.html --overwrite")]
    Report(ReportArgs),
    /// Replay what was backed up under other settings, and say which would pay
    #[command(before_long_help = "\
Examples:
  statekeep tune                          the newest snapshots, for a minute
  statekeep tune -p homecore --budget 10m --apply
  statekeep tune /srv/app                 what is there now, without a repository")]
    Tune(TuneArgs),
    /// One backup or restore of a replay
    #[command(hide = true)]
    TunePass,
    /// Rehearse a restore: restore a snapshot aside, check its databases, note the proof
    #[command(before_long_help = "\
Examples:
  statekeep drill                          the latest snapshot
  statekeep drill 7c41 --scratch /mnt/big  where there is room for all of it
  statekeep drill -p homecore -n           what would be done")]
    Drill(DrillArgs),
    /// Make a repository, its key file and its recovery kit
    #[command(before_long_help = "\
Examples:
  statekeep init /mnt/backups                              key file and recovery kit
  statekeep init /mnt/backups --password-file ~/pass       a passphrase opens it as well
  statekeep init /mnt/backups --plain                      not encrypted at all")]
    Init(InitArgs),
    /// The keys that open the repository
    #[command(before_long_help = "\
Examples:
  statekeep key list
  statekeep key add --new-password-file ~/pass
  statekeep key export -o ~/kit.txt         the recovery kit again")]
    Key(KeyArgs),
    /// The repository itself
    #[command(before_long_help = "\
Example:
  statekeep -r /mnt/backups repo info")]
    Repo(RepoArgs),
    /// Applications: what belongs to each
    #[command(before_long_help = "\
Examples:
  statekeep profile detect /srv/app       print a profile for what is there
  statekeep profile example homecore      print one of an application that is known
  statekeep profile list")]
    Profile(ProfileArgs),
    /// The configuration file
    #[command(before_long_help = "\
Examples:
  statekeep config check                  is everything in it right?
  statekeep config show --origin          which values count, and who says so")]
    Config(ConfigArgs),
    /// What is wrong with the setup, and what to type: changes nothing
    #[command(before_long_help = "\
Examples:
  statekeep doctor                         all profiles and their repositories
  statekeep -r /mnt/backups doctor         one repository
  statekeep doctor --json                  one document; exit 0 also with warnings")]
    Doctor,
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
    #[command(before_long_help = "\
Examples:
  statekeep completions bash > ~/.local/share/bash-completion/completions/statekeep
  statekeep completions zsh > ~/.zfunc/_statekeep
  statekeep completions fish > ~/.config/fish/completions/statekeep.fish")]
    Completions(CompletionsArgs),
    /// Print the manual page
    #[command(before_long_help = "\
Example:
  statekeep man > ~/.local/share/man/man1/statekeep.1")]
    Man,
    /// Print the version
    Version,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
