//! Settings as types: what a configuration says, checked, with defaults and paths resolved.

use crate::config::schedule::Schedule;
use crate::ops::backup::DatabaseCuts;
use crate::ops::notify::Endpoint;
use crate::ops::notify::Event;
use crate::repo::writer::Effort;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A program and its arguments. No shell reads it.
pub type Argv = Vec<String>;

/// What a configuration says.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The file; `None` if there is none.
    pub path: Option<PathBuf>,
    /// Repositories by name.
    pub repos: BTreeMap<String, RepoSettings>,
    /// The repository of whoever names none.
    pub default_repo: Option<String>,
    /// Applications by name.
    pub profiles: BTreeMap<String, Profile>,
    /// The file for Prometheus that backups write.
    pub metrics_file: Option<PathBuf>,
    /// Every value that counts, by its key, in order.
    pub settings: Vec<Setting>,
}

/// One value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The whole key, for example `profile.app.keep`.
    pub key: String,
    /// The value as TOML.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An option of the command line.
    Flag(&'static str),
    /// A variable of the environment.
    Environment(&'static str),
    /// A line of a configuration file.
    File(PathBuf, usize),
    /// Nobody said anything else.
    Default,
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoSettings {
    /// Its name.
    pub name: String,
    /// The directory.
    pub path: PathBuf,
    /// Where its passphrase comes from.
    pub password: Option<PasswordOrigin>,
    /// A key file or recovery kit.
    pub key_file: Option<PathBuf>,
}

/// Where a passphrase comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordOrigin {
    /// The first line of a file.
    File(PathBuf),
    /// What a program prints.
    Command(Argv),
}

/// An application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// The directory that all patterns are relative to.
    pub root: PathBuf,
    /// Patterns of what is taken; `None` for everything.
    pub files: Option<Vec<String>>,
    /// Patterns of databases, taken as well.
    pub databases: Vec<String>,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// Patterns of what is never compressed with other data.
    pub secrets: Vec<String>,
    /// Parts of it, by name.
    pub scopes: BTreeMap<String, Scope>,
    /// The name of its repository.
    pub repo: Option<String>,
    /// When it is backed up.
    pub schedule: Option<Schedule>,
    /// What is kept; `None` if nothing is said.
    pub keep: Option<Keep>,
    /// Whether it is backed up when the service stops.
    pub on_shutdown: bool,
    /// Names for every snapshot.
    pub tags: Vec<String>,
    /// Whether to stay on the file system of the root.
    pub one_file_system: bool,
    /// Whether to leave out what a `CACHEDIR.TAG` marks.
    pub exclude_caches: bool,
    /// Whether free pages of SQLite databases are kept.
    pub exact: bool,
    /// Where SQLite databases are cut.
    pub database_cuts: DatabaseCuts,
    /// How hard to compress, and how far deltas lean on each other.
    pub effort: Effort,
    /// Whether backups let everything else go first.
    pub nice: bool,
    /// What a restore in place does beside.
    pub restore: RestoreSettings,
    /// Rehearsals of a restore.
    pub drill: DrillSettings,
    /// Programs that run before a backup.
    pub before: Vec<Hook>,
    /// Programs that run after it.
    pub after: Vec<Hook>,
    /// What is told of every backup.
    pub ping: Option<EndpointOrigin>,
    /// What gets a document when something happened.
    pub webhook: Option<Webhook>,
}

/// A part of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Patterns of what is taken; `None` for everything.
    pub files: Option<Vec<String>>,
    /// Patterns of databases, taken as well.
    pub databases: Vec<String>,
}

/// Which snapshots are kept. What is `None` keeps none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// The newest so many.
    pub last: Option<u32>,
    /// The last of each of so many hours.
    pub hourly: Option<u32>,
    /// The last of each of so many days.
    pub daily: Option<u32>,
    /// The last of each of so many weeks.
    pub weekly: Option<u32>,
    /// The last of each of so many months.
    pub monthly: Option<u32>,
    /// The last of each of so many years.
    pub yearly: Option<u32>,
    /// All that are younger.
    pub within: Option<Duration>,
}

/// What a restore in place does beside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestoreSettings {
    /// Stops the application.
    pub stop: Option<Argv>,
    /// Starts it.
    pub start: Option<Argv>,
    /// Exits 0 while it runs.
    pub running: Option<Argv>,
    /// Run one after the other when it was restored.
    pub after: Vec<Argv>,
    /// Prints the version of the application.
    pub app_version: Option<Argv>,
    /// What to do with a snapshot of another version.
    pub on_version: OnVersion,
}

/// What to do with a snapshot of another version of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnVersion {
    /// Restore nothing.
    Refuse,
    /// Say so and go on.
    #[default]
    Warn,
}

/// Rehearsals of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DrillSettings {
    /// When.
    pub schedule: Option<Schedule>,
    /// What must hold of the restored databases.
    pub asserts: Vec<Assert>,
}

/// A query and what it must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assert {
    /// The path of the database below the root.
    pub database: String,
    /// A query that yields one value.
    pub sql: String,
    /// The value, as text.
    pub expect: String,
}

/// A program that runs beside a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The program.
    pub command: Argv,
    /// How long it may take.
    pub timeout: Duration,
    /// What to do if it fails or takes longer.
    pub on_failure: OnFailure,
}

/// What to do if a program fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// Give up.
    #[default]
    Abort,
    /// Say so and go on.
    Warn,
}

/// Where an address comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointOrigin {
    /// The configuration itself.
    Said(Endpoint),
    /// The first line of a file.
    File(PathBuf),
}

/// Something that gets a document when something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its address.
    pub endpoint: EndpointOrigin,
    /// What it is told of.
    pub on: Vec<Event>,
    /// What proves to it who tells.
    pub token: Option<TokenOrigin>,
    /// The header of the token, if it stands there alone.
    pub header: Option<String>,
    /// How long a delivery may take.
    pub timeout: Duration,
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenOrigin {
    /// The first line of a file.
    File(PathBuf),
    /// What a program prints.
    Command(Argv),
    /// A variable of the environment.
    Variable(String),
}
