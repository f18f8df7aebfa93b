//! What lies below a directory and is not in a snapshot: both are walked in the same order.

use crate::context::Context;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::tree::Entry;
use crate::format::tree::path_order;
use crate::ops::restore::run;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::tree::Leaves;
use crate::source::files::CacheDirs;
use crate::source::files::FileSystems;
use crate::source::files::Item;
use crate::source::files::Rules;
use crate::source::files::Tree;
use crate::source::files::Walk;
use crate::source::files::WalkOptions;
use std::cmp::Ordering;

/// Calls `visit` with what a walk finds and the snapshot lacks. Returns whether all of the snapshot
/// could be read: otherwise `visit` may have been told something that is in it.
pub(in crate::ops) fn visit(
    cx: &Context,
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    tree: &Tree,
    options: WalkOptions,
    visit: &mut dyn FnMut(Item),
) -> Result<bool> {
    let mut entries = Entries {
        leaves: Leaves::begin(chunks, &manifest.tree),
        scratch: Scratch::default(),
        leaf: Vec::new().into_iter(),
        is_whole: true,
    };
    let mut ahead: Option<Entry> = None;
    for item in Walk::open(tree, options)? {
        cx.check()?;
        // What cannot be looked at is in nobody's way.
        let Ok(item) = item else { continue };
        let is_behind = |entry: &Entry| path_order(&entry.path, &item.path) == Ordering::Less;
        while ahead.as_ref().is_none_or(is_behind) {
            ahead = entries.next()?;
            if ahead.is_none() {
                break;
            }
        }
        let is_there = ahead.as_ref().is_some_and(|entry| entry.path == item.path);
        if !is_there && !item.path.is_empty() {
            visit(item);
        }
    }
    Ok(entries.is_whole)
}

/// The entries of a snapshot, one by one.
struct Entries<'a> {
    leaves: Leaves<'a>,
    scratch: Scratch,
    leaf: std::vec::IntoIter<Entry>,
    is_whole: bool,
}

impl Entries<'_> {
    fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Ok(Some(entry));
            }
            match self.leaves.next(&mut self.scratch) {
                Ok(Some(at)) => self.leaf = at.leaf.entries.into_iter(),
                Ok(None) => return Ok(None),
                Err(error) if run::is_fatal(&error) => return Err(error),
                Err(_) => self.is_whole = false,
            }
            self.leaves.inner.clear();
            self.scratch.touched.clear();
        }
    }
}

/// Returns the options of a walk that leaves nothing out.
pub(in crate::ops) fn everything(include: Vec<Vec<u8>>) -> WalkOptions {
    WalkOptions {
        include,
        patterns: None,
        exclude: Rules::default(),
        cache_dirs: CacheDirs::Enter,
        file_systems: FileSystems::All,
    }
}
