//! What is backed up: the paths asked for, as one root and what is included below it.

use crate::error::Error;
use crate::error::Result;
use crate::ops::backup::BackupOptions;
use crate::source::files::CacheDirs;
use crate::source::files::FileSystems;
use crate::source::files::Rules;
use crate::source::files::Tree;
use crate::source::files::Walk;
use crate::source::files::WalkOptions;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

/// An open source.
pub(super) struct Source {
    root: PathBuf,
    included: Vec<Vec<u8>>,
    pub(super) tree: Tree,
    pub(super) secrets: Rules,
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
        let mut root = first.clone();
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

    pub(super) fn root_bytes(&self) -> &[u8] {
        self.root.as_os_str().as_bytes()
    }

    pub(super) fn included(&self) -> &[Vec<u8>] {
        &self.included
    }

    pub(super) fn walk(&self) -> Result<Walk<'_>> {
        Walk::open(&self.tree, self.options.clone())
    }
}
