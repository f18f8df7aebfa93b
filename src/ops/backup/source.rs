//! What is backed up: the paths asked for, as one root and what is included below it.

use crate::disk::beneath;
use crate::disk::jail::JOURNAL_NAME;
use crate::disk::jail::STAGE_NAME;
use crate::error::Error;
use crate::error::Result;
use crate::ops::backup::BackupOptions;
use crate::source::files::CacheDirs;
use crate::source::files::FileSystems;
use crate::source::files::Kind;
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
pub(super) struct Source {
    root: PathBuf,
    included: Vec<Vec<u8>>,
    pub(super) tree: Tree,
    secrets: Rules,
    options: WalkOptions,
}

impl Source {
    /// Opens what the options ask for. A path that is not there is an error: a backup of nothing
    /// must not look like one.
    pub(super) fn open(options: &BackupOptions) -> Result<Source> {
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
        let mut included: Vec<Vec<u8>> = paths.iter().map(below).collect();
        included.sort();
        included.dedup();
        if included.iter().any(Vec::is_empty) {
            included.clear();
        }
        let walk = WalkOptions {
            include: included.clone(),
            patterns: None,
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
        let mut tops = tops.iter().filter(|top| beneath::is_within(path, top));
        tops.any(|top| {
            let below = top.len() + 1..path.len();
            let mut ends = below.filter(|&end| path[end] == b'/');
            let rules = &self.options.exclude;
            path == top
                || !rules.exclude(path, Kind::File)
                    && !ends.any(|end| rules.exclude(&path[..end], Kind::Directory))
        })
    }

    pub(super) fn included(&self) -> &[Vec<u8>] {
        &self.included
    }

    /// Returns whether all of a directory is asked for, whatever the rules leave out.
    pub(super) fn includes(&self, dir: &[u8]) -> bool {
        let mut included = self.included.iter();
        self.included.is_empty() || included.any(|top| beneath::is_within(dir, top))
    }

    /// Walks one directory that is asked for.
    pub(super) fn walk_below(&self, dir: &[u8]) -> Result<Walk<'_>> {
        let mut options = self.options.clone();
        if !dir.is_empty() {
            options.include = vec![dir.to_vec()];
        }
        Walk::open(&self.tree, options)
    }

    pub(super) fn walk(&self) -> Result<Walk<'_>> {
        Walk::open(&self.tree, self.options.clone())
    }
}
