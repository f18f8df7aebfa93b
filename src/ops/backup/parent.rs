//! The snapshot a backup compares with, walked in step with the source.

use crate::error::Error;
use crate::error::Result;
use crate::format::tree::Entry;
use crate::format::tree::Leaf;
use crate::format::tree::Place;
use crate::format::tree::TreeRoot;
use crate::format::tree::path_order;
use crate::id::ChunkId;
use crate::ops::backup::bundle::OldPlace;
use crate::ops::backup::seen::Fingerprint;
use crate::ops::backup::seen::SeenReader;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::tree::InnerAt;
use crate::repo::tree::LeafAt;
use crate::repo::tree::Leaves;
use std::cmp::Ordering;
use std::path::Path;

/// What the parent has under a path.
pub(super) struct Old {
    pub entry: Entry,
    /// Where the content of a small file is.
    pub place: Option<OldPlace>,
    /// What the node looked like, if that proves anything.
    pub fingerprint: Option<Fingerprint>,
}

/// The entries of the parent, in order.
pub(super) struct Parent<'a> {
    leaves: Option<Leaves<'a>>,
    scratch: Scratch,
    seen: Option<SeenReader>,
    leaf: Leaf,
    places: Vec<Option<Place>>,
    next: usize,
    /// First path and id of every leaf read so far and not passed by.
    known_leaves: Vec<(Vec<u8>, ChunkId)>,
    inner: Vec<InnerAt>,
}

impl<'a> Parent<'a> {
    /// Begins with this tree, or with nothing.
    pub(super) fn begin(
        chunks: &'a Chunks<'a>,
        tree: Option<&TreeRoot>,
        seen_path: Option<&Path>,
    ) -> Parent<'a> {
        let seen = tree
            .zip(seen_path)
            .and_then(|(tree, path)| SeenReader::open(path, tree));
        Parent {
            leaves: tree.map(|tree| Leaves::begin(chunks, tree)),
            scratch: Scratch::default(),
            seen,
            leaf: Leaf::default(),
            places: Vec::new(),
            next: 0,
            known_leaves: Vec::new(),
            inner: Vec::new(),
        }
    }

    /// Returns what the parent has under this path. Paths must ascend from call to call.
    pub(super) fn find(&mut self, path: &[u8]) -> Result<Option<Old>> {
        loop {
            if self.next == self.leaf.entries.len() && !self.next_leaf()? {
                return Ok(None);
            }
            let Some(entry) = self.leaf.entries.get(self.next) else {
                continue;
            };
            match path_order(&entry.path, path) {
                Ordering::Greater => return Ok(None),
                Ordering::Less => {
                    self.take();
                }
                Ordering::Equal => return Ok(Some(self.take())),
            }
        }
    }

    fn take(&mut self) -> Old {
        let entry = self.leaf.entries[self.next].clone();
        let place = self.places[self.next].and_then(|place| {
            let bundle = *self.leaf.bundles.get(place.bundle)?;
            Some(OldPlace {
                bundle,
                offset: place.offset,
            })
        });
        let fingerprint = self.seen.as_mut().and_then(SeenReader::next);
        self.next += 1;
        Old {
            entry,
            place,
            fingerprint,
        }
    }

    fn next_leaf(&mut self) -> Result<bool> {
        let Some(leaves) = &mut self.leaves else {
            return Ok(false);
        };
        let next = match leaves.next(&mut self.scratch) {
            Ok(next) => next,
            // The rest of a damaged parent is as good as absent: everything is read again, and
            // what it lost is stored again. `check` is who reports it.
            Err(Error::Missing { .. } | Error::Corrupt { .. }) => {
                self.leaves = None;
                self.seen = None;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.inner.append(&mut leaves.inner);
        let Some(LeafAt { id, leaf }) = next else {
            return Ok(false);
        };
        if let Some(first) = leaf.entries.first() {
            self.known_leaves.push((first.path.clone(), id));
        }
        self.places = leaf.places();
        self.leaf = leaf;
        self.next = 0;
        Ok(true)
    }

    /// Returns the leaf of the parent to which a leaf that begins with this path is likened.
    pub(super) fn leaf_at(&mut self, first_path: &[u8]) -> Option<ChunkId> {
        let after = self
            .known_leaves
            .partition_point(|(path, _)| path_order(path, first_path) != Ordering::Greater);
        let at = after.max(1) - 1;
        let found = self.known_leaves.get(at).map(|(_, id)| *id);
        self.known_leaves.drain(..at.min(self.known_leaves.len()));
        found
    }

    /// Returns the inner node of the parent to which one that begins with this path is likened.
    pub(super) fn inner_at(&self, level: u8, first_path: &[u8]) -> Option<ChunkId> {
        let before = |inner: &&InnerAt| {
            inner.level == level && path_order(&inner.first_path, first_path) != Ordering::Greater
        };
        self.inner.iter().rev().find(before).map(|inner| inner.id)
    }
}
