//! Every key there is: what it may hold and what it is for. The check of a file, the suggestions
//! after a typing error and the JSON schema all read these tables, so they cannot disagree.

/// What a key may hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// The number of this format of the file.
    Version,
    Text,
    /// Text that names a repository: a path or a URL.
    Url,
    /// Relative to the file; `~` is the home directory.
    Path,
    /// The address of something on the web.
    Endpoint,
    /// The name of a header of HTTP.
    Header,
    Flag,
    /// A whole number from 1 on.
    Count,
    /// A whole number from 1 up to this one.
    UpTo(u32),
    Duration,
    Schedule,
    /// A program and its arguments.
    Argv,
    Argvs,
    /// Patterns of what is taken.
    Patterns,
    /// Patterns as in a `.gitignore`.
    Rules,
    Tags,
    Choice(&'static [&'static str]),
    /// A list of some of them.
    Choices(&'static [&'static str]),
    Table(&'static [Key]),
    /// Tables by names that people choose.
    Named(&'static [Key]),
    /// A list of tables.
    Tables(&'static [Key]),
    /// What must never stand here; the text says what does.
    Forbidden(&'static str),
}

/// A key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub name: &'static str,
    pub shape: Shape,
    /// Whether its table makes no sense without it.
    pub is_required: bool,
    /// One line for people.
    pub about: &'static str,
}

const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key {
        name,
        shape,
        is_required: false,
        about,
    }
}

const fn required(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key {
        name,
        shape,
        is_required: true,
        about,
    }
}

/// The whole file.
pub(super) const FILE: &[Key] = &[
    required("version", Shape::Version, "The version of this format: 1"),
    key("repo", Shape::Named(REPO), "Repositories by name"),
    key(
        "defaults",
        Shape::Table(DEFAULTS),
        "What profiles do not say themselves",
    ),
    key("profile", Shape::Named(PROFILE), "Applications by name"),
    key(
        "metrics-file",
        Shape::Path,
        "A file for Prometheus that every backup writes anew",
    ),
];

const NO_SECRETS: &str = "a secret does not stand in the configuration, which is copied, shown \
    and shared; password-file = \"FILE\" or password-command = [\"PROGRAM\", …] say where it is";

const REPO: &[Key] = &[
    required("url", Shape::Url, "Where it is: a directory"),
    key(
        "password-file",
        Shape::Path,
        "A file whose first line is the passphrase",
    ),
    key(
        "password-command",
        Shape::Argv,
        "A program that prints the passphrase",
    ),
    key("key-file", Shape::Path, "A key file or recovery kit"),
    key("password", Shape::Forbidden(NO_SECRETS), ""),
    key("passphrase", Shape::Forbidden(NO_SECRETS), ""),
    key("key", Shape::Forbidden(NO_SECRETS), ""),
];

/// Of the three ways to say what is kept, one is said.
pub(super) const RETENTION: [&str; 3] = ["keep", "retention", "keep-within"];

const ROOT: Key = required(
    "root",
    Shape::Path,
    "The directory all other paths are relative to",
);
const FILES: Key = key(
    "files",
    Shape::Patterns,
    "What is taken, by patterns of whole paths; everything without",
);
const DATABASES: Key = key(
    "databases",
    Shape::Patterns,
    "Databases, taken as well; those named without wildcards must be there",
);

/// What a profile says.
pub(super) const PROFILE: &[Key] = &[
    ROOT,
    FILES,
    DATABASES,
    key(
        "exclude",
        Shape::Rules,
        "What is left out, by patterns as in a .gitignore",
    ),
    key(
        "secrets",
        Shape::Rules,
        "What is never compressed together with other data",
    ),
    key("repo", Shape::Text, "The repository, by its name here"),
    key(
        "schedule",
        Shape::Schedule,
        "When to back up: minute hour day month weekday",
    ),
    key(
        "keep",
        Shape::Table(KEEP),
        "How many snapshots are kept, of which kind",
    ),
    key("retention", Shape::Count, "How many snapshots are kept"),
    key(
        "keep-within",
        Shape::Duration,
        "How far back all snapshots are kept",
    ),
    key(
        "on-shutdown",
        Shape::Flag,
        "Whether to back up when the service stops",
    ),
    key("tags", Shape::Tags, "Names for every snapshot"),
    key(
        "one-file-system",
        Shape::Flag,
        "Whether to stay on the file system of the root",
    ),
    key(
        "exclude-caches",
        Shape::Flag,
        "Whether to leave out what a CACHEDIR.TAG marks",
    ),
    key(
        "exact",
        Shape::Flag,
        "Whether to keep what SQLite has deleted, not overwritten",
    ),
    key(
        "database-cuts",
        Shape::Choice(&["groups", "small-groups", "large-groups", "content"]),
        "Where SQLite is cut",
    ),
    key(
        "compression",
        Shape::UpTo(19),
        "How hard to compress; statekeep tune compares",
    ),
    key(
        "delta-run",
        Shape::UpTo(64),
        "Deltas that lean on each other in a row; longer stores less and reads slower",
    ),
    key(
        "nice",
        Shape::Flag,
        "Whether backups let everything else go first",
    ),
    key("scope", Shape::Named(SCOPE), "Parts of the profile by name"),
    key(
        "restore",
        Shape::Table(RESTORE),
        "What a restore in place does beside",
    ),
    key("drill", Shape::Table(DRILL), "Rehearsals of a restore"),
    key(
        "before",
        Shape::Tables(HOOK),
        "Programs that run before a backup",
    ),
    key(
        "after",
        Shape::Tables(HOOK),
        "Programs that run after a backup",
    ),
    key(
        "ping",
        Shape::Endpoint,
        "An address that is told of every backup, as healthchecks.io has them",
    ),
    key(
        "ping-file",
        Shape::Path,
        "A file whose first line is that address",
    ),
    key(
        "webhook",
        Shape::Table(WEBHOOK),
        "An address that gets a document when something happened",
    ),
];
/// What may be said for all profiles.
pub(super) const DEFAULTS: &[Key] = PROFILE.split_at(1).1;

const KEEP: &[Key] = &[
    key("last", Shape::Count, "The newest so many"),
    key("hourly", Shape::Count, "The last of each of so many hours"),
    key("daily", Shape::Count, "The last of each of so many days"),
    key("weekly", Shape::Count, "The last of each of so many weeks"),
    key(
        "monthly",
        Shape::Count,
        "The last of each of so many months",
    ),
    key("yearly", Shape::Count, "The last of each of so many years"),
];

const SCOPE: &[Key] = &[FILES, DATABASES];

const RESTORE: &[Key] = &[
    key("stop", Shape::Argv, "Stops the application"),
    key("start", Shape::Argv, "Starts it"),
    key("running", Shape::Argv, "Exits 0 while it runs"),
    key("after", Shape::Argvs, "Run after it was restored"),
    key(
        "app-version",
        Shape::Argv,
        "Prints the version of the application",
    ),
    key(
        "on-version",
        Shape::Choice(&["refuse", "warn"]),
        "What to do with a snapshot of another version of the application",
    ),
];

const DRILL: &[Key] = &[
    key("schedule", Shape::Schedule, "When to rehearse"),
    key(
        "assert",
        Shape::Tables(ASSERT),
        "Queries and what they must answer",
    ),
];

const ASSERT: &[Key] = &[
    required(
        "database",
        Shape::Text,
        "The path of the database below the root",
    ),
    required("sql", Shape::Text, "A query that yields one value"),
    required("expect", Shape::Text, "The value, as text"),
];

const HOOK: &[Key] = &[
    required("command", Shape::Argv, "The program and its arguments"),
    key("timeout", Shape::Duration, "How long it may take"),
    key(
        "on-failure",
        Shape::Choice(&["abort", "warn"]),
        "What to do if it fails",
    ),
];

const NO_TOKEN: &str = "a secret does not stand in the configuration, which is copied, shown \
    and shared; token-file = \"FILE\", token-command = [\"PROGRAM\", …] or token-env = \"NAME\" \
    say where it is";

/// The ways to say where a token is, of which one is said.
pub(super) const TOKENS: [&str; 3] = ["token-file", "token-command", "token-env"];

const WEBHOOK: &[Key] = &[
    key("url", Shape::Endpoint, "The address"),
    key(
        "url-file",
        Shape::Path,
        "A file whose first line is the address",
    ),
    key(
        "on",
        Shape::Choices(&["success", "failure", "overdue"]),
        "What it is told of; failure and overdue without",
    ),
    key(
        "token-file",
        Shape::Path,
        "A file whose first line is a token for it",
    ),
    key(
        "token-command",
        Shape::Argv,
        "A program that prints the token",
    ),
    key(
        "token-env",
        Shape::Text,
        "A variable of the environment that holds the token",
    ),
    key(
        "header",
        Shape::Header,
        "The header the token stands in, alone; without it: Authorization, after Bearer",
    ),
    key(
        "timeout",
        Shape::Duration,
        "How long a delivery may take, retries included; 10s without, at most 1m",
    ),
    key("token", Shape::Forbidden(NO_TOKEN), ""),
    key("headers", Shape::Forbidden(NO_TOKEN), ""),
];

/// Returns the key of this name.
pub(super) fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.name == name)
}
