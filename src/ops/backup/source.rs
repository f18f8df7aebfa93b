//! What is backed up: the paths asked for, as one root and what is included below it.

use crate::disk::beneath;
use crate::disk::jail::JOURNAL_NAME;
use crate::disk::jail::STAGE_NAME;
use crate::error::Error;
use crate::error::Result;
use crate::ops::backup::BackupOptions;
use crate::ops::backup::databases;
use crate::source::files::CacheDirs;
use crate::source::files::FileSystems;
use crate::source::files::Fit;
use crate::source::files::Kind;
use crate::source::files::Patterns;
use crate::source::files::Problem;
use crate::source::files::Rules;
use crate::source::files::Tree;
use crate::source::files::Walk;
use crate::source::files::WalkOptions;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

/// An open source.
pub(in crate::ops) struct Source {
    root: PathBuf,
    included: Vec<Vec<u8>>,
    pub(super) tree: Tree,
    secrets: Rules,
    /// What is named without wildcards, and has to be there.
    named: Vec<Named>,
    options: WalkOptions,
}

/// A path that the options name.
struct Named {
    path: Vec<u8>,
    /// Whether it is to be a database.
    is_database: bool,
}

impl Source {
    /// Opens what the options ask for. A path that is not there is an error: a backup of nothing
    /// must not look like one.
    pub(in crate::ops) fn open(options: &BackupOptions) -> Result<Source> {
        let mut paths = Vec::new();
        for path in &options.paths {
            paths.push(path.canonicalize().map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => Error::NotFound {
                    what: format!("source {}", path.display()),
                },
                _ => Error::Io {
                    action: "find",
                    path: path.clone(),
                    source,
                },
            })?);
        }
        let Some(first) = paths.first() else {
            let reason = "there is nothing to back up: name a path".to_string();
            return Err(Error::Refused { reason });
        };
        let mut root = match &options.root {
            Some(root) => root.canonicalize().map_err(Error::io("find", root))?,
            None => first.clone(),
        };
        while !paths.iter().all(|path| path.starts_with(&root)) || !root.is_dir() {
            root.pop();
        }
        let below = |path: &PathBuf| {
            let path = path.strip_prefix(&root).unwrap_or(Path::new(""));
            path.as_os_str().as_bytes().to_vec()
        };
        let patterns = patterns(options, &paths, &root)?;
        let mut included: Vec<Vec<u8>> = paths.iter().map(below).collect();
        included.sort();
        included.dedup();
        if included.iter().any(Vec::is_empty) {
            included.clear();
        }
        let walk = WalkOptions {
            include: included.clone(),
            patterns,
            exclude: Rules::parse(&options.exclude)?,
            cache_dirs: match options.skip_cache_dirs {
                true => CacheDirs::Skip,
                false => CacheDirs::Enter,
            },
            file_systems: match options.one_file_system {
                true => FileSystems::One,
                false => FileSystems::All,
            },
        };
        let tree = Tree::open(&root)?;
        let secrets = Rules::parse(&options.secrets)?;
        Ok(Source {
            root,
            included,
            tree,
            secrets,
            named: named(options)?,
            options: walk,
        })
    }

    /// Returns what is wrong with the source as a whole: a restore in place that was interrupted
    /// left neither its old state nor its new one (I8).
    pub(super) fn problem(&self) -> Option<Problem> {
        let journal = self.root.join(STAGE_NAME).join(JOURNAL_NAME);
        let message = "a restore in place was interrupted here: run it again to finish it";
        let is_there = journal.symlink_metadata().is_ok();
        is_there.then(|| Problem::new(b"", "unfinished-restore", message.to_string()))
    }

    /// Returns what is wrong with paths that are named without wildcards: not there, or not what
    /// was said. `is_database` tells what was recognised as one.
    pub(super) fn missing(&self, is_database: &dyn Fn(&[u8]) -> bool) -> Vec<Problem> {
        let named = self.named.iter();
        let named = named.filter(|named| !self.leaves_out(&named.path, 0));
        let problems = named.filter_map(|named| {
            let problem = |code, message: &str| Problem {
                path: named.path.clone(),
                code,
                message: message.to_string(),
            };
            let stat = match self.tree.stat(&named.path) {
                Ok(Some(stat)) => stat,
                Ok(None) => return Some(problem("missing", "it is asked for by name and absent")),
                Err(problem) => return Some(problem),
            };
            match stat.kind {
                _ if !named.is_database || is_database(&named.path) => None,
                // The first thing SQLite makes of a database.
                Kind::File if stat.size_bytes == 0 => None,
                Kind::Symlink => Some(problem(
                    "no-database",
                    "it is a symlink, and the database it leads to is not in the backup",
                )),
                _ => Some(problem(
                    "no-database",
                    "by its content it is no database; it is stored as the files it is",
                )),
            }
        });
        problems.collect()
    }

    /// Returns whether a directory is a sled database.
    pub(in crate::ops) fn is_sled(&self, dir: &[u8]) -> bool {
        databases::is_sled(self, dir)
    }

    pub(super) fn root_bytes(&self) -> &[u8] {
        self.root.as_os_str().as_bytes()
    }

    /// Returns where a path of the source is, for those who open it by name.
    pub(super) fn absolute(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }

    /// Returns whether a pattern names the file or a directory it lies in.
    pub(super) fn is_secret(&self, path: &[u8]) -> bool {
        let secrets = &self.secrets;
        let mut ends = (0..path.len()).filter(|&end| path[end] == b'/');
        let mut lies_in = || ends.any(|end| secrets.exclude(&path[..end], Kind::Directory));
        !secrets.is_empty() && (secrets.exclude(path, Kind::File) || lies_in())
    }

    /// Returns whether a pattern leaves a file out that the paths asked for lead to.
    pub(super) fn excludes(&self, path: &[u8]) -> bool {
        let included = &self.included;
        let is_included =
            included.is_empty() || included.iter().any(|top| beneath::is_within(path, top));
        is_included && !self.wants(path)
    }

    /// Returns whether the paths asked for lead to a file and no pattern leaves it out. Other
    /// reasons not to come there are for the walk.
    pub(super) fn wants(&self, path: &[u8]) -> bool {
        let whole = [Vec::new()];
        let tops = match self.included.is_empty() {
            true => &whole[..],
            false => &self.included,
        };
        if !self.fits(path, Kind::File) {
            return false;
        }
        let mut tops = tops.iter().filter(|top| beneath::is_within(path, top));
        tops.any(|top| path == top || !self.leaves_out(path, top.len() + 1))
    }

    /// Returns whether a pattern leaves out a file or a directory above it that is longer than
    /// this.
    fn leaves_out(&self, path: &[u8], from: usize) -> bool {
        let mut ends = (from..path.len()).filter(|&end| path[end] == b'/');
        let rules = &self.options.exclude;
        rules.exclude(path, Kind::File)
            || ends.any(|end| rules.exclude(&path[..end], Kind::Directory))
    }

    pub(super) fn included(&self) -> &[Vec<u8>] {
        &self.included
    }

    /// Returns whether all of a directory is asked for, whatever the rules leave out.
    pub(super) fn includes(&self, dir: &[u8]) -> bool {
        let mut included = self.included.iter();
        match self.included.is_empty() {
            true => self.fits(dir, Kind::Directory),
            false => included.any(|top| beneath::is_within(dir, top)),
        }
    }

    fn fits(&self, path: &[u8], kind: Kind) -> bool {
        let patterns = self.options.patterns.as_ref();
        patterns.is_none_or(|patterns| patterns.fit(path, kind) == Fit::Whole)
    }

    /// Walks one directory that is asked for.
    pub(super) fn walk_below(&self, dir: &[u8]) -> Result<Walk<'_>> {
        let mut options = self.options.clone();
        options.patterns = None;
        if !dir.is_empty() {
            options.include = vec![dir.to_vec()];
        }
        Walk::open(&self.tree, options)
    }

    pub(in crate::ops) fn walk(&self) -> Result<Walk<'_>> {
        Walk::open(&self.tree, self.options.clone())
    }
}

/// Returns what the options take of the one root they name; `None` for all of it.
fn patterns(options: &BackupOptions, paths: &[PathBuf], root: &Path) -> Result<Option<Patterns>> {
    if options.files.is_none() && options.databases.is_empty() {
        return Ok(None);
    }
    if paths != [root] {
        let reason = "patterns of files and databases need one directory to be relative to";
        return Err(Error::Refused {
            reason: reason.to_string(),
        });
    }
    taken(options)
        .map(|taken| Patterns::parse(&taken))
        .transpose()
}

/// Returns patterns of what is taken. Without patterns of files it is everything, databases
/// included.
pub(super) fn taken(options: &BackupOptions) -> Option<Vec<String>> {
    let files = options.files.as_ref()?;
    Some(files.iter().chain(&options.databases).cloned().collect())
}

fn named(options: &BackupOptions) -> Result<Vec<Named>> {
    let files = options.files.as_deref().unwrap_or_default();
    let mut named = Vec::new();
    for (patterns, is_database) in [(&options.databases[..], true), (files, false)] {
        for path in Patterns::parse(patterns)?.literals() {
            if !named.iter().any(|other: &Named| other.path == path) {
                named.push(Named { path, is_database });
            }
        }
    }
    Ok(named)
}
