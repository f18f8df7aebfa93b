//! Looks what an application keeps in a directory: its databases by their content, its secrets by
//! name and mode, and what is hardly worth a backup. Nothing is changed, and nothing is decided:
//! what comes of it is for people to read and correct.

use crate::context::Context;
use crate::error::Result;
use crate::format::database::Engine;
use crate::ops::backup::BackupOptions;
use crate::ops::backup::Finder;
use crate::ops::backup::Sniffed;
use crate::ops::backup::Source;
use crate::source::files::Kind;
use crate::source::sled::CONF;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

/// Paths remembered for the layout, at most two names deep.
const SHALLOW_MAX: usize = 10_000;
/// Larger files are no secrets, whatever their mode.
const SECRET_BYTES_MAX: u64 = 64 << 10;
/// If more than this part of all files is private, being private says nothing.
const PRIVATE_SHARE: usize = 4;

/// Directories that are made again, by their name, and what they are.
const JUNK_ANYWHERE: [(&str, &str); 4] = [
    ("node_modules", "packages that can be installed again"),
    ("__pycache__", "made again by Python"),
    (".cache", "a cache"),
    (".venv", "packages that can be installed again"),
];
/// Directories that look like what their name says.
const JUNK_DIRECTORIES: [(&str, &str); 9] = [
    ("cache", "a cache"),
    ("caches", "caches"),
    ("tmp", "temporary files"),
    ("temp", "temporary files"),
    ("log", "logs"),
    ("logs", "logs"),
    ("backup", "older backups"),
    ("backups", "older backups"),
    ("crash-dumps", "memory of crashed programs"),
];
/// Ends of names, and what such files are.
const JUNK_FILES: [(&str, &str); 9] = [
    (".log", "logs"),
    (".tmp", "temporary files"),
    (".bak", "older copies"),
    (".old", "older copies"),
    (".pre_restore", "older copies"),
    (".gguf", "model files, which can be downloaded again"),
    (".safetensors", "model files, which can be downloaded again"),
    (".onnx", "model files, which can be downloaded again"),
    (".pid", "numbers of running processes"),
];
const SECRET_NAMES: [&str; 9] = [
    ".env",
    "keys.db",
    "secrets.db",
    "secrets.toml",
    "secrets.yaml",
    "secrets.json",
    "credentials.json",
    "id_rsa",
    "id_ed25519",
];
const SECRET_ENDS: [&str; 6] = [".key", ".pem", ".p12", ".pfx", ".kdbx", ".jks"];

/// An application whose layout is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Application {
    /// State in redb, history in SQLite, rules in TOML.
    HomeCore,
    /// Three SQLite databases and a tree of agents.
    Hoziron,
    /// A SQLite database for each knowledge base.
    ChaosCypher,
}

/// What was found. Paths are relative to the root; those that are not UTF-8 are not told.
#[derive(Debug, Clone, Default)]
pub struct Detected {
    /// The application it is.
    pub application: Option<Application>,
    /// Databases by path.
    pub databases: Vec<FoundDatabase>,
    /// Files with secrets by path.
    pub secrets: Vec<String>,
    /// What is hardly worth a backup.
    pub junk: Vec<Junk>,
    /// Every path of at most two names.
    pub shallow: BTreeSet<String>,
    /// Files looked at.
    pub files: u64,
    /// How large they are.
    pub total_bytes: u64,
    /// Paths that could not be read.
    pub unreadable: Vec<String>,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDatabase {
    /// Where it is.
    pub path: String,
    /// What it is; `None` if it looks like one that was encrypted.
    pub engine: Option<Engine>,
}

/// Something hardly worth a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Junk {
    /// The pattern that leaves it out.
    pub pattern: String,
    /// What it is.
    pub why: &'static str,
    /// How much it leaves out.
    pub total_bytes: u64,
}

/// Returns all that is in a directory, as a backup of it without a profile would see it.
pub(super) fn whole(root: &Path) -> Result<Source> {
    Source::open(&BackupOptions {
        paths: vec![root.to_path_buf()],
        one_file_system: true,
        skip_cache_dirs: true,
        ..BackupOptions::default()
    })
}

/// Looks into a directory.
pub fn detect(cx: &Context, root: &Path) -> Result<Detected> {
    let source = whole(root)?;
    let finder = Finder::new(&source, &[]);
    let mut detected = Detected::default();
    let mut junk: BTreeMap<String, Junk> = BTreeMap::new();
    let (mut private, mut named) = (Vec::new(), BTreeSet::new());
    let mut repos = Repos::default();
    for found in source.walk()? {
        cx.check()?;
        let item = match found {
            Ok(item) => item,
            Err(problem) => {
                let path = String::from_utf8_lossy(&problem.path).into_owned();
                detected.unreadable.push(path);
                continue;
            }
        };
        let Ok(path) = String::from_utf8(item.path) else {
            continue;
        };
        if path.split('/').count() <= 2 && detected.shallow.len() < SHALLOW_MAX {
            detected.shallow.insert(path.clone());
        }
        let stat = item.stat;
        repos.look(&path, stat.kind);
        if stat.kind != Kind::File {
            continue;
        }
        detected.files += 1;
        detected.total_bytes += stat.size_bytes;
        if let Some((pattern, why)) = junk_of(&path) {
            let total_bytes = 0;
            junk.entry(pattern.clone())
                .or_insert(Junk {
                    pattern,
                    why,
                    total_bytes,
                })
                .total_bytes += stat.size_bytes;
            continue;
        }
        if let Some(database) = database(&source, &finder, &path, &stat) {
            detected.databases.push(database);
        } else if stat.mode & 0o077 == 0 && stat.size_bytes <= SECRET_BYTES_MAX {
            private.push(path.clone());
        }
        if is_secret_name(&path) {
            named.insert(path);
        }
    }
    if private.len() * PRIVATE_SHARE <= usize::try_from(detected.files).unwrap_or(usize::MAX) {
        named.extend(private);
    }
    // What SQLite keeps beside a database goes where the database goes.
    let is_sidecar = |path: &String| {
        ["-wal", "-shm", "-journal"]
            .iter()
            .any(|e| path.ends_with(e))
    };
    detected.secrets = named.into_iter().filter(|path| !is_sidecar(path)).collect();
    detected.junk = junk.into_values().collect();
    repos.leave_out(&mut detected);
    detected.application = application(&detected);
    Ok(detected)
}

/// Repositories of this very program: a backup of one into itself would grow for ever.
#[derive(Default)]
struct Repos {
    /// Directories with something in them that every repository has, by how much of it.
    parts: BTreeMap<String, usize>,
}

impl Repos {
    const PARTS: [(&str, Kind); 3] = [
        ("config", Kind::File),
        ("log", Kind::Directory),
        ("packs", Kind::Directory),
    ];

    fn look(&mut self, path: &str, kind: Kind) {
        if let Some((dir, name)) = path.rsplit_once('/')
            && Repos::PARTS.contains(&(name, kind))
        {
            *self.parts.entry(dir.to_string()).or_default() += 1;
        }
    }

    fn leave_out(self, detected: &mut Detected) {
        let found = self
            .parts
            .into_iter()
            .filter(|(_, parts)| *parts == Repos::PARTS.len());
        for (repo, _) in found {
            let within = format!("{repo}/");
            detected
                .databases
                .retain(|found| !found.path.starts_with(&within));
            detected.secrets.retain(|path| !path.starts_with(&within));
            detected
                .junk
                .retain(|junk| !junk.pattern.starts_with(&within));
            detected.junk.push(Junk {
                pattern: format!("{within}**"),
                why: "a repository of backups",
                total_bytes: 0,
            });
        }
    }
}

fn database(
    source: &Source,
    finder: &Finder<'_>,
    path: &str,
    stat: &crate::source::files::Stat,
) -> Option<FoundDatabase> {
    let of = |path: &str, engine| {
        let path = path.to_string();
        Some(FoundDatabase { path, engine })
    };
    if let Some(dir) = path.as_bytes().strip_suffix(CONF)
        && source.is_sled(dir.strip_suffix(b"/").unwrap_or(dir))
    {
        return of(path.strip_suffix("/conf")?, Some(Engine::Sled));
    }
    match finder.sniff(path.as_bytes(), stat).ok()? {
        Sniffed::Sqlite => of(path, Some(Engine::Sqlite)),
        Sniffed::Redb => of(path, Some(Engine::Redb)),
        Sniffed::Opaque => of(path, None),
        Sniffed::Other => None,
    }
}

/// Returns the pattern that leaves a path out, and what it is.
fn junk_of(path: &str) -> Option<(String, &'static str)> {
    let names: Vec<&str> = path.split('/').collect();
    let (name, dirs) = names.split_last()?;
    for (depth, dir) in dirs.iter().enumerate() {
        if let Some((junk, why)) = JUNK_ANYWHERE.iter().find(|(junk, _)| junk == dir) {
            return Some((format!("{junk}/"), why));
        }
        let lower = dir.to_lowercase();
        if let Some((_, why)) = JUNK_DIRECTORIES.iter().find(|(junk, _)| *junk == lower) {
            // A name with a wildcard in it is not worth the trouble.
            let pattern = dirs[..=depth].join("/");
            return (!pattern.contains(['*', '?', '[', ']', '{', '}', '\\', '!']))
                .then(|| (format!("{pattern}/**"), *why));
        }
    }
    let end = JUNK_FILES.iter().find(|(end, _)| name.ends_with(end));
    end.map(|(end, why)| (format!("*{end}"), *why))
}

fn is_secret_name(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    SECRET_NAMES.contains(&name)
        || name.starts_with(".env.") && !name.ends_with(".example")
        || SECRET_ENDS.iter().any(|end| name.ends_with(end))
}

fn application(detected: &Detected) -> Option<Application> {
    let has = |path: &str| detected.shallow.contains(path);
    let has_knowledge = || {
        let mut databases = detected.databases.iter();
        databases.any(|database| {
            let inner = database.path.strip_prefix("databases/");
            let name = inner.and_then(|path| path.strip_suffix("/app.db"));
            name.is_some_and(|name| !name.contains('/'))
        })
    };
    match () {
        () if has("data/state.redb") && (has("data/history.db") || has("rules")) => {
            Some(Application::HomeCore)
        }
        () if has("data/hoziron.db") => Some(Application::Hoziron),
        () if has_knowledge() => Some(Application::ChaosCypher),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_and_secrets_are_told_by_their_names() {
        let junk = [
            ("a/node_modules/x/y.js", Some("node_modules/")),
            ("logs/app.txt", Some("logs/**")),
            ("a/Logs/app.txt", Some("a/Logs/**")),
            ("app.log", Some("*.log")),
            ("data/app.db", None),
            ("backups.md", None),
        ];
        for (path, pattern) in junk {
            let found = junk_of(path).map(|(pattern, _)| pattern);
            assert_eq!(found.as_deref(), pattern, "{path}");
        }
        for (path, is_secret) in [
            (".env", true),
            ("a/.env.production", true),
            (".env.example", false),
            ("tls/server.key", true),
            ("keys.db", true),
            ("keyboard.db", false),
        ] {
            assert_eq!(is_secret_name(path), is_secret, "{path}");
        }
    }
}
