//! Says what a restore would do, by reading only.
//!
//! Counts and a few examples of each, whatever the size of the tree; `apply` walks again.

use crate::context::Context;
use crate::disk::beneath;
use crate::error::Error;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::format::tree::TreeRoot;
use crate::ops::Tally;
use crate::ops::inspect;
use crate::ops::restore::Replace;
use crate::ops::restore::RestoreOptions;
use crate::ops::restore::apply::below_lost;
use crate::ops::restore::apply::size_bytes;
use crate::ops::restore::compare;
use crate::ops::restore::run;
use crate::ops::restore::select::Only;
use crate::ops::restore::select::SelectedLeaf;
use crate::ops::restore::select::Selection;
use crate::ops::restore::select::Step;
use crate::ops::restore::sidecars;
use crate::ops::restore::surplus;
use crate::ops::restore::target;
use crate::ops::restore::target::State;
use crate::ops::restore::target::Target;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::tree::LeafAt;
use crate::source::files::Walk;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;

/// Unfinished files of an earlier run that are removed at once.
const LEFTOVERS_MAX: usize = 10_000;

/// What a restore would do.
#[derive(Debug, Clone, Default)]
pub struct RestorePlan {
    tree: TreeRoot,
    target: PathBuf,
    leftovers: Vec<Vec<u8>>,
    /// Logs beside restored databases, removed or in the way.
    logs: BTreeSet<Vec<u8>>,
    /// What is not there yet.
    pub create: Tally,
    /// What differs and is replaced.
    pub replace: Tally,
    /// What only gets other attributes.
    pub update: Tally,
    /// What is as it should be.
    pub equal: Tally,
    /// What differs and may not be replaced.
    pub conflicts: Tally,
    /// How many of them are logs that SQLite would replay into a restored database.
    pub conflicting_logs: u64,
    /// Logs beside restored SQLite databases, which belong to what was there before.
    pub remove: Tally,
    /// What is in the target and not in the snapshot. It stays.
    pub kept: Tally,
    /// What cannot be restored because the snapshot is damaged or makes no sense there.
    pub lost: Tally,
    /// Bytes to write; holes count in full.
    pub write_bytes: u64,
    /// Bytes the file system of the target has room for.
    pub free_bytes: u64,
}

impl RestorePlan {
    /// Returns whether the target has room for it. Holes may make it need less.
    pub fn has_room(&self) -> bool {
        self.write_bytes <= self.free_bytes
    }

    pub(super) fn tree(&self) -> &TreeRoot {
        &self.tree
    }

    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    pub(super) fn leftovers(&self) -> &[Vec<u8>] {
        &self.leftovers
    }

    /// Returns how many nodes `apply` goes through and how many bytes it writes.
    pub(super) fn total(&self) -> (u64, u64) {
        let all = [&self.create, &self.replace, &self.update, &self.equal];
        (all.iter().map(|tally| tally.count).sum(), self.write_bytes)
    }
}

impl fmt::Display for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "restore to {}", self.target.display())?;
        for (what, tally) in [
            ("create", &self.create),
            ("replace", &self.replace),
            ("set attributes of", &self.update),
            ("leave equal", &self.equal),
            ("remove (logs of databases before)", &self.remove),
            ("keep (not in the snapshot)", &self.kept),
            ("in the way", &self.conflicts),
            ("lost", &self.lost),
        ] {
            if tally.count > 0 {
                writeln!(f, "{what}: {} ({} bytes)", tally.count, tally.bytes)?;
            }
        }
        let (needed, free) = (self.write_bytes, self.free_bytes);
        writeln!(f, "write: {needed} bytes, {free} bytes free")
    }
}

/// Says what restoring a snapshot would do. Writes nothing.
pub fn plan(
    cx: &Context,
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    options: &RestoreOptions,
) -> Result<RestorePlan> {
    let only = Only::parse(&options.only)?;
    let mut plan = RestorePlan {
        tree: manifest.tree,
        target: options.target.clone(),
        free_bytes: free_bytes(&options.target)?,
        ..RestorePlan::default()
    };
    let target = match std::fs::symlink_metadata(&options.target) {
        Ok(_) if options.target.is_dir() => Some(Target::open(&options.target)?),
        Ok(_) => {
            let target = options.target.display();
            let reason = format!("{target} is not a directory");
            return Err(Error::Refused { reason });
        }
        Err(_) => None,
    };
    let mut planner = Planner {
        chunks,
        options,
        only: &only,
        target: target.as_ref(),
        scratch: Scratch::default(),
        plan: &mut plan,
    };
    let mut selection = Selection::begin(chunks, &manifest.tree, &only);
    let mut scratch = Scratch::default();
    loop {
        cx.check()?;
        match selection.next(&mut scratch) {
            Ok(Some(selected)) => planner.leaf(&manifest.tree, &selected)?,
            Ok(None) => break,
            Err(error) if run::is_fatal(&error) => return Err(error),
            Err(error) => {
                let path = format!(
                    "{} … ({})",
                    String::from_utf8_lossy(selection.last_path()),
                    below_lost(error)
                );
                planner.plan.lost.add(path.as_bytes(), 0);
            }
        }
    }
    if !only.is_everything() && plan.create.count + plan.replace.count + plan.equal.count == 0 {
        check_any(&plan, options)?;
    }
    if let Some(target) = &target {
        count_kept(cx, chunks, manifest, target, &mut plan)?;
    }
    Ok(plan)
}

fn check_any(plan: &RestorePlan, options: &RestoreOptions) -> Result<()> {
    match plan.update.count + plan.conflicts.count + plan.lost.count {
        0 => Err(Error::NotFound {
            what: format!("anything that matches {}", options.only.join(", ")),
        }),
        _ => Ok(()),
    }
}

struct Planner<'p> {
    chunks: &'p Chunks<'p>,
    options: &'p RestoreOptions,
    only: &'p Only,
    target: Option<&'p Target>,
    scratch: Scratch,
    plan: &'p mut RestorePlan,
}

impl Planner<'_> {
    fn leaf(&mut self, root: &TreeRoot, selected: &SelectedLeaf) -> Result<()> {
        for step in &selected.steps {
            let entry = selected.entry(step);
            let (state, bytes, is_database) = match step {
                Step::Impossible(_) => {
                    self.plan.lost.add(&entry.path, 0);
                    continue;
                }
                Step::Ancestor(_) => match self.compare(entry)? {
                    // One that exists is left alone.
                    State::Equal | State::Attributes | State::Xattrs => continue,
                    state => (state, 0, false),
                },
                Step::Wanted(_) => match &entry.kind {
                    Kind::HardLink { path } => self.link(root, entry, path)?,
                    kind => {
                        let is_database = sidecars::is_database(kind);
                        (self.compare(entry)?, size_bytes(entry), is_database)
                    }
                },
            };
            let state = match (step, state) {
                (Step::Wanted(index), State::Equal | State::Attributes | State::Xattrs)
                    if run::compares_content(self.options, &entry.kind)
                        && !self.same_content(selected, *index)? =>
                {
                    State::Different
                }
                _ => state,
            };
            let is_restored = self.tally(entry, state, bytes)?;
            if is_restored && is_database {
                self.logs(root, &entry.path)?;
            }
        }
        Ok(())
    }

    /// Counts the logs beside a database: they are removed, or in the way.
    fn logs(&mut self, root: &TreeRoot, database: &[u8]) -> Result<()> {
        let Some(target) = self.target else {
            return Ok(());
        };
        for stale in sidecars::stale(self.chunks, root, self.only, target, database)? {
            if self.options.replace == Replace::Changed {
                self.plan.remove.add(&stale.path, stale.bytes);
            } else {
                self.plan.conflicts.add(&stale.path, stale.bytes);
                self.plan.conflicting_logs += 1;
            }
            self.plan.logs.insert(stale.path);
        }
        Ok(())
    }

    /// Returns whether nothing is in the way that is never replaced.
    fn tally(&mut self, entry: &Entry, state: State, bytes: u64) -> Result<bool> {
        let replaces = self.options.replace == Replace::Changed;
        let is_dir = entry.kind == Kind::Directory;
        let blocked = state == State::Different && self.is_full_dir(&entry.path)?;
        let plan = &mut *self.plan;
        let tally = match state {
            State::Absent => &mut plan.create,
            State::Equal => &mut plan.equal,
            State::Xattrs if !replaces => &mut plan.equal,
            State::Xattrs => &mut plan.update,
            State::Attributes if is_dir || replaces => &mut plan.update,
            State::Different if replaces && !blocked => &mut plan.replace,
            State::Attributes | State::Different => &mut plan.conflicts,
        };
        tally.add(&entry.path, bytes);
        if matches!(state, State::Absent | State::Different) {
            plan.write_bytes = plan.write_bytes.saturating_add(bytes);
        }
        Ok(!blocked)
    }

    fn compare(&self, entry: &Entry) -> Result<State> {
        match self.target {
            Some(target) => target.compare(entry),
            None => Ok(State::Absent),
        }
    }

    /// Compares a hard link, or the copy that takes its place when its first name is not wanted.
    /// Tells whether it is a name of a database, too.
    fn link(&mut self, root: &TreeRoot, entry: &Entry, first: &[u8]) -> Result<(State, u64, bool)> {
        let mut is_database = false;
        let found = inspect::find_in(self.chunks, &mut self.scratch, root, first);
        if let Ok(Some((LeafAt { leaf, .. }, index))) = found {
            let target = &leaf.entries[index];
            is_database = sidecars::is_database(&target.kind);
            if !self.only.wants(first, &target.kind) {
                let mut copy = target.clone();
                copy.path.clone_from(&entry.path);
                return Ok((self.compare(&copy)?, size_bytes(&copy), is_database));
            }
        }
        match self.target {
            Some(target) => Ok((target.compare_link(&entry.path, first)?, 0, is_database)),
            None => Ok((State::Absent, 0, is_database)),
        }
    }

    fn same_content(&mut self, selected: &SelectedLeaf, index: usize) -> Result<bool> {
        let entry = &selected.leaf.entries[index];
        let (Kind::File { .. }, Some(target)) = (&entry.kind, self.target) else {
            return Ok(true);
        };
        let same = match entry.class() {
            None => compare::stream_matches(self.chunks, &mut self.scratch, target, entry),
            Some(_) => {
                let at = LeafAt {
                    id: selected.id,
                    leaf: selected.leaf.clone(),
                };
                inspect::small_content(self.chunks, &mut self.scratch, &at, index).and_then(
                    |wanted| {
                        let now = target.jail.read_file(&entry.path)?;
                        Ok(now.is_some_and(|now| compare::reads_as(&now, 0, &wanted)))
                    },
                )
            }
        };
        match same {
            // What is damaged cannot be compared; writing it will say so.
            Err(Error::Corrupt { .. } | Error::Missing { .. }) => Ok(true),
            same => same,
        }
    }

    /// Returns whether a directory that is not empty is at the path: it is never replaced.
    fn is_full_dir(&self, path: &[u8]) -> Result<bool> {
        let Some(target) = self.target else {
            return Ok(false);
        };
        if !target.stat(path)?.is_some_and(|stat| stat.is_dir()) {
            return Ok(false);
        }
        let mut walk = Walk::open(target.tree(), surplus::everything(vec![path.to_vec()]))?;
        let below = |item: &Result<_, _>| match item {
            Ok(crate::source::files::Item { path: found, .. }) => {
                found.len() > path.len() && beneath::is_within(found, path)
            }
            Err(_) => true,
        };
        Ok(walk.any(|item| below(&item)))
    }
}

/// Counts what is in the target and not in the snapshot.
fn count_kept(
    cx: &Context,
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    target: &Target,
    plan: &mut RestorePlan,
) -> Result<()> {
    let everywhere = surplus::everything(Vec::new());
    let tree = target.tree();
    surplus::visit(cx, chunks, manifest, tree, everywhere, &mut |item| {
        if plan.logs.contains(&item.path) {
            return;
        }
        if target::is_leftover(&item.path) && plan.leftovers.len() < LEFTOVERS_MAX {
            plan.leftovers.push(item.path);
        } else {
            let is_file = item.stat.kind == crate::disk::node::Kind::File;
            let bytes = if is_file { item.stat.size_bytes } else { 0 };
            plan.kept.add(&item.path, bytes);
        }
    })?;
    Ok(())
}

/// Returns what is free where the target is or will be.
fn free_bytes(target: &Path) -> Result<u64> {
    let mut place = target;
    loop {
        let shown = if place.as_os_str().is_empty() {
            Path::new(".")
        } else {
            place
        };
        match rustix::fs::statvfs(shown) {
            Ok(stat) => return Ok(stat.f_bavail.saturating_mul(stat.f_frsize)),
            Err(rustix::io::Errno::NOENT) if place.parent().is_some() => {
                place = place.parent().unwrap_or(Path::new("."));
            }
            Err(errno) => return Err(Error::io("look at", target)(errno.into())),
        }
    }
}
