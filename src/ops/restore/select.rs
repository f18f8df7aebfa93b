//! Walks the entries of a tree that are to be restored, in order, leaf by leaf.
//!
//! A directory that is chosen brings all that is below it. One that only leads to something chosen
//! is an ancestor. An entry below something that is no directory is never restored: only a forged
//! tree has such entries.

use crate::disk::beneath;
use crate::disk::node;
use crate::error::Error;
use crate::error::Result;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::format::tree::Leaf;
use crate::format::tree::TreeRoot;
use crate::id::ChunkId;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::tree::LeafAt;
use crate::repo::tree::Leaves;
use crate::source::files::Rules;

/// What was asked for.
#[derive(Debug)]
pub(in crate::ops) struct Only {
    /// `None` for everything.
    rules: Option<Rules>,
}

impl Only {
    pub(in crate::ops) fn parse(patterns: &[String]) -> Result<Only> {
        let rules = match patterns.is_empty() {
            true => None,
            false => Some(Rules::parse(patterns).map_err(|error| match error {
                Error::Refused { reason } => Error::Refused {
                    reason: reason.replacen("exclude pattern", "pattern", 1),
                },
                other => other,
            })?),
        };
        Ok(Only { rules })
    }

    pub(in crate::ops) fn is_everything(&self) -> bool {
        self.rules.is_none()
    }

    /// Returns whether an entry is to be restored for its own sake or for a directory above it.
    pub(in crate::ops) fn wants(&self, path: &[u8], kind: &Kind) -> bool {
        let Some(rules) = &self.rules else {
            return true;
        };
        let kind = match kind {
            Kind::Directory => node::Kind::Directory,
            _ => node::Kind::File,
        };
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let mut above = slashes.map(|(end, _)| &path[..end]);
        above.any(|dir| rules.exclude(dir, node::Kind::Directory)) || rules.exclude(path, kind)
    }
}

/// What is to be done about an entry.
#[derive(Debug)]
pub(in crate::ops) enum Step {
    /// It is to be restored: its place in the leaf.
    Wanted(usize),
    /// This directory leads to the entries that follow.
    Ancestor(Entry),
    /// It lies below something that is no directory.
    Impossible(usize),
}

/// A leaf with at least one step.
#[derive(Debug)]
pub(in crate::ops) struct SelectedLeaf {
    pub id: ChunkId,
    pub leaf: Leaf,
    pub steps: Vec<Step>,
}

impl SelectedLeaf {
    pub(in crate::ops) fn entry<'a>(&'a self, step: &'a Step) -> &'a Entry {
        match step {
            Step::Wanted(index) | Step::Impossible(index) => &self.leaf.entries[*index],
            Step::Ancestor(entry) => entry,
        }
    }
}

/// The walk.
pub(in crate::ops) struct Selection<'a> {
    leaves: Leaves<'a>,
    only: &'a Only,
    /// Directories on the way to here that are not wanted so far.
    above: Vec<Entry>,
    /// The last entry that is no directory.
    last_other: Option<Vec<u8>>,
    last_path: Vec<u8>,
}

impl<'a> Selection<'a> {
    pub(in crate::ops) fn begin(
        chunks: &'a Chunks<'a>,
        root: &TreeRoot,
        only: &'a Only,
    ) -> Selection<'a> {
        Selection {
            leaves: Leaves::begin(chunks, root),
            only,
            above: Vec::new(),
            last_other: None,
            last_path: Vec::new(),
        }
    }

    /// Returns the path after which something could not be read, for people.
    pub(in crate::ops) fn last_path(&self) -> &[u8] {
        &self.last_path
    }

    /// Returns the next leaf that has something wanted. After an error the walk can go on: what
    /// could not be read is skipped.
    pub(in crate::ops) fn next(&mut self, scratch: &mut Scratch) -> Result<Option<SelectedLeaf>> {
        while let Some(LeafAt { id, leaf }) = self.leaves.next(scratch)? {
            self.leaves.inner.clear();
            scratch.touched.clear();
            let mut steps = Vec::with_capacity(leaf.entries.len());
            for (index, entry) in leaf.entries.iter().enumerate() {
                self.take(index, entry, &mut steps);
            }
            if let Some(last) = leaf.entries.last() {
                self.last_path.clone_from(&last.path);
            }
            if !steps.is_empty() {
                return Ok(Some(SelectedLeaf { id, leaf, steps }));
            }
        }
        Ok(None)
    }

    fn take(&mut self, index: usize, entry: &Entry, steps: &mut Vec<Step>) {
        let above = &mut self.above;
        above.retain(|dir| beneath::is_within(&entry.path, &dir.path));
        let is_dir = entry.kind == Kind::Directory;
        let other = self.last_other.as_deref();
        let is_impossible = other.is_some_and(|other| beneath::is_within(&entry.path, other));
        match self.only.wants(&entry.path, &entry.kind) {
            true if is_impossible => steps.push(Step::Impossible(index)),
            true => {
                steps.extend(above.drain(..).map(Step::Ancestor));
                steps.push(Step::Wanted(index));
            }
            false if is_dir && !is_impossible => above.push(entry.clone()),
            false => {}
        }
        if !is_dir && !is_impossible {
            self.last_other = Some(entry.path.clone());
        }
    }
}
