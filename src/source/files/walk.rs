//! Lists the nodes of a tree, every directory before what is in it, in the order of whole paths
//! compared bytewise with '/' below every other byte.
//!
//! The names of each directory on the way are held in memory, sorted; the nodes are not. Reading
//! content and attributes is left to `Tree`.
//!
//! Invariant: every directory is reached from the root by `openat` without following a symlink,
//! and one that was closed meanwhile is used again only if it is the same one.

use crate::disk::beneath;
use crate::disk::jail::STAGE_NAME;
use crate::disk::node::Kind;
use crate::disk::node::Problem;
use crate::disk::node::Stat;
use crate::error::Error;
use crate::error::Result;
use crate::source::files::Fit;
use crate::source::files::Patterns;
use crate::source::files::Rules;
use crate::source::files::Tree;
use rustix::fd::AsFd;
use rustix::fd::OwnedFd;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RawDir;
use rustix::io::Errno;

/// Directories held open at once; those further up are opened again when their turn comes.
const OPEN_MAX: usize = 64;
const DIRENT_BYTES: usize = 32 * 1024;
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
/// From <https://bford.info/cachedir/>.
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// A node that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Relative to the root, empty for the root itself.
    pub path: Vec<u8>,
    pub stat: Stat,
}

/// What to do about directories marked as caches by a `CACHEDIR.TAG`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheDirs {
    /// List only the directory and the tag.
    #[default]
    Skip,
    Enter,
}

/// What to do about mount points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileSystems {
    /// List them, but nothing in them, unless they are included by name.
    #[default]
    One,
    All,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct WalkOptions {
    /// Paths to start from; everything if there are none. They and the directories above them are
    /// listed whatever the rules say.
    pub include: Vec<Vec<u8>>,
    /// What to take if there are no paths to start from; everything without. Other directories
    /// than those on the way are not opened.
    pub patterns: Option<Patterns>,
    pub exclude: Rules,
    pub cache_dirs: CacheDirs,
    pub file_systems: FileSystems,
}

/// Iterates over a tree. A problem never ends the walk.
#[derive(Debug)]
pub struct Walk<'a> {
    tree: &'a Tree,
    options: WalkOptions,
    /// The directories from the root to the current one.
    levels: Vec<Level>,
    path: Vec<u8>,
    next: Next,
    dirents: Vec<u8>,
}

/// What is due before the current directory is read on.
#[derive(Debug, Clone, Copy)]
enum Next {
    Root,
    Enter(Scope),
    Name,
}

/// How much of a directory is to be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Everything on this device, or on all.
    Whole { device: Option<u64> },
    /// What leads to included paths.
    Part,
    /// What fits the patterns, on this device or on all.
    Way { device: Option<u64> },
}

impl Scope {
    /// Returns the device to stay on.
    fn device(self) -> Option<u64> {
        match self {
            Scope::Whole { device } | Scope::Way { device } => device,
            Scope::Part => None,
        }
    }
}

#[derive(Debug)]
struct Level {
    dir: Option<OwnedFd>,
    stat: Stat,
    scope: Scope,
    path_bytes: usize,
    names: Names,
    next: usize,
}

impl<'a> Walk<'a> {
    /// Begins a walk.
    pub fn open(tree: &'a Tree, options: WalkOptions) -> Result<Walk<'a>> {
        for path in options.include.iter().filter(|path| !path.is_empty()) {
            beneath::check_path(path).map_err(|reason| {
                let path = String::from_utf8_lossy(path);
                let reason = format!("cannot include \"{path}\": {reason}");
                Error::Refused { reason }
            })?;
        }
        Ok(Walk {
            tree,
            options,
            levels: Vec::new(),
            path: Vec::new(),
            next: Next::Root,
            dirents: Vec::with_capacity(DIRENT_BYTES),
        })
    }

    fn root(&mut self) -> Result<Item, Problem> {
        let stat = beneath::fstat(self.tree.beneath.root());
        let stat = stat.map_err(|errno| self.problem("read", errno))?;
        self.next = Next::Enter(self.scope(&stat));
        Ok(self.item(stat))
    }

    /// Reads the names of the directory that was listed last.
    fn enter(&mut self, scope: Scope) -> Result<(), Problem> {
        let error = |errno| Problem::read(&self.path, "open the directory", errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = self.levels.last().and_then(|level| level.dir.as_ref());
        let opened = match parent {
            None => beneath::quietly(|flags| self.tree.beneath.open(&self.path, flags), flags),
            Some(parent) => {
                let (_, name) = beneath::split(&self.path);
                let open = |flags| rustix::fs::openat(parent, name, flags, Mode::empty());
                beneath::quietly(open, flags)
            }
        };
        let dir = opened.map_err(error)?;
        let stat = beneath::fstat(&dir).map_err(error)?;
        if let Some(own) = scope.device()
            && own != stat.device
        {
            // Mounted between the look and the opening.
            return Ok(());
        }
        let mut names = Names::default();
        let result = match scope {
            Scope::Part => {
                self.included_names(&mut names);
                Ok(())
            }
            Scope::Whole { .. } | Scope::Way { .. } => names.read(&dir, &mut self.dirents),
        };
        names.sort();
        if self.options.cache_dirs == CacheDirs::Skip
            && scope != Scope::Part
            && names.find(CACHE_TAG)
            && is_cache(&dir)
        {
            names = Names::default();
            names.push(CACHE_TAG);
        }
        self.levels.push(Level {
            dir: Some(dir),
            stat,
            scope,
            path_bytes: self.path.len(),
            names,
            next: 0,
        });
        if let Some(far) = self.levels.len().checked_sub(OPEN_MAX + 1) {
            self.levels[far].dir = None;
        }
        result.map_err(|errno| self.problem("list the directory", errno))
    }

    /// Looks at the next name in the current directory; `None` if it is to be left out.
    fn look(&mut self) -> Option<Result<Item, Problem>> {
        let level = self.levels.last_mut()?;
        self.path.truncate(level.path_bytes);
        if level.dir.is_none() {
            match reopen(self.tree, &self.path, level) {
                Ok(dir) => level.dir = Some(dir),
                Err(errno) => {
                    level.next = level.names.len();
                    return Some(Err(self.problem("open the directory again", errno)));
                }
            }
        }
        let above = level.scope;
        let name = level.names.get(level.next);
        level.next += 1;
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        let is_way = matches!(above, Scope::Way { .. });
        if is_way && fit(&self.options, &self.path, Kind::Directory) == Fit::Nothing {
            return None;
        }
        let dir = level.dir.as_ref()?;
        let stat = match beneath::lstat(dir, name) {
            Ok(stat) => stat,
            Err(errno) => return Some(Err(self.problem("read", errno))),
        };
        let scope = match above {
            Scope::Whole { .. } | Scope::Way { .. }
                if self.options.exclude.exclude(&self.path, stat.kind) =>
            {
                return None;
            }
            Scope::Whole { .. } => above,
            Scope::Way { device } => match fit(&self.options, &self.path, stat.kind) {
                Fit::Whole => Scope::Whole { device },
                Fit::Way => above,
                Fit::Nothing => return None,
            },
            Scope::Part => self.scope(&stat),
        };
        if scope == Scope::Part && !stat.is_dir() {
            return Some(Err(self.problem("enter", Errno::NOTDIR)));
        }
        let is_mount = scope.device().is_some_and(|own| own != stat.device);
        if stat.is_dir() && !is_mount {
            self.next = Next::Enter(scope);
        }
        Some(Ok(self.item(stat)))
    }

    /// Returns how much of the current path is to be listed, if not all of its parent is.
    fn scope(&self, stat: &Stat) -> Scope {
        let include = &self.options.include;
        let device = (self.options.file_systems == FileSystems::One).then_some(stat.device);
        let mut above = include.iter();
        match include.is_empty() {
            true if fit(&self.options, &self.path, stat.kind) == Fit::Whole => {
                Scope::Whole { device }
            }
            true => Scope::Way { device },
            false if above.any(|top| beneath::is_within(&self.path, top)) => {
                Scope::Whole { device }
            }
            false => Scope::Part,
        }
    }

    /// Collects the names in the current directory that lead to included paths.
    fn included_names(&self, names: &mut Names) {
        for path in &self.options.include {
            if beneath::is_within(path, &self.path) {
                let rest = &path[self.path.len()..];
                let rest = rest.strip_prefix(b"/").unwrap_or(rest);
                let name = rest.split(|byte| *byte == b'/').next().unwrap_or(rest);
                names.push(name);
            }
        }
    }

    fn item(&self, stat: Stat) -> Item {
        let path = self.path.clone();
        Item { path, stat }
    }

    fn problem(&self, action: &str, errno: Errno) -> Problem {
        Problem::read(&self.path, action, errno)
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Item, Problem>;

    fn next(&mut self) -> Option<Result<Item, Problem>> {
        match std::mem::replace(&mut self.next, Next::Name) {
            Next::Root => return Some(self.root()),
            Next::Enter(scope) => {
                if let Err(problem) = self.enter(scope) {
                    return Some(Err(problem));
                }
            }
            Next::Name => {}
        }
        loop {
            let level = self.levels.last()?;
            if level.next == level.names.len() {
                self.levels.pop();
            } else if let Some(found) = self.look() {
                return Some(found);
            }
        }
    }
}

fn fit(options: &WalkOptions, path: &[u8], kind: Kind) -> Fit {
    match &options.patterns {
        None => Fit::Whole,
        Some(patterns) => patterns.fit(path, kind),
    }
}

fn reopen(tree: &Tree, path: &[u8], level: &Level) -> Result<OwnedFd, Errno> {
    let dir = tree
        .beneath
        .open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let stat = beneath::fstat(&dir)?;
    match (stat.device, stat.inode) == (level.stat.device, level.stat.inode) {
        true => Ok(dir),
        false => Err(Errno::STALE),
    }
}

fn is_cache(dir: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let is_file = beneath::lstat(dir, CACHE_TAG).is_ok_and(|stat| stat.kind == Kind::File);
    let mut start = [0; CACHE_SIGNATURE.len()];
    is_file
        && rustix::fs::openat(dir, CACHE_TAG, flags, Mode::empty())
            .and_then(|tag| rustix::io::pread(tag, &mut start, 0))
            .is_ok_and(|len| &start[..len] == CACHE_SIGNATURE)
}

/// The names in a directory, in one buffer.
#[derive(Debug, Default)]
struct Names {
    bytes: Vec<u8>,
    /// Where each starts and how long it is.
    spans: Vec<(usize, u16)>,
}

impl Names {
    /// Adds the names of an open directory; on an error those that came before it.
    fn read(&mut self, dir: &OwnedFd, dirents: &mut Vec<u8>) -> Result<(), Errno> {
        let mut entries = RawDir::new(dir.as_fd(), dirents.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    // What a restore is about to put in place is no content of anybody.
                    name if name == STAGE_NAME.as_bytes() => {}
                    name => self.push(name),
                },
                Err(Errno::INTR) => {}
                // The directory was removed while it was open.
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn push(&mut self, name: &[u8]) {
        let len = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.spans.push((self.bytes.len(), len));
        self.bytes.extend_from_slice(name);
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.spans.sort_unstable_by_key(|&span| slice(bytes, span));
        self.spans
            .dedup_by(|a, b| slice(bytes, *a) == slice(bytes, *b));
    }

    fn find(&self, name: &[u8]) -> bool {
        let search = self
            .spans
            .binary_search_by_key(&name, |&span| slice(&self.bytes, span));
        search.is_ok()
    }

    fn get(&self, index: usize) -> &[u8] {
        slice(&self.bytes, self.spans[index])
    }

    fn len(&self) -> usize {
        self.spans.len()
    }
}

fn slice(bytes: &[u8], (start, len): (usize, u16)) -> &[u8] {
    &bytes[start..start + usize::from(len)]
}
