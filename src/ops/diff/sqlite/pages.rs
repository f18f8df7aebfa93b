//! Which pages of two images differ, without reading what they share.

use crate::ops::diff::sqlite::Fault;
use crate::ops::diff::sqlite::image::Image;
use crate::source::sqlite::btree;
use crate::source::sqlite::btree::Damage;
use crate::source::sqlite::btree::Page;
use crate::source::sqlite::btree::TreeKind;
use std::ops::Range;

/// A set of page numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct PageSet {
    words: Vec<u64>,
    page_count: u32,
}

impl PageSet {
    /// Returns an empty set with room for so many.
    pub(super) fn new(page_count: u32) -> PageSet {
        PageSet {
            words: vec![0; page_count as usize / 64 + 1],
            page_count,
        }
    }

    /// Returns the greatest page it has room for.
    pub(super) fn page_count(&self) -> u32 {
        self.page_count
    }

    /// Adds a page; returns false if it was there.
    pub(super) fn insert(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, 1_u64 << (number % 64));
        match self.words.get_mut(word) {
            Some(word) => {
                let is_new = *word & bit == 0;
                *word |= bit;
                is_new
            }
            None => false,
        }
    }

    pub(super) fn remove(&mut self, number: u32) {
        if let Some(word) = self.words.get_mut(number as usize / 64) {
            *word &= !(1 << (number % 64));
        }
    }

    pub(super) fn has(&self, number: u32) -> bool {
        let word = self.words.get(number as usize / 64);
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    pub(super) fn len(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Leaves out what another set has.
    pub(super) fn subtract(&mut self, other: &PageSet) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
    }
}

/// How two images differ.
pub(super) struct Changes {
    /// Pages that are not the same in both, or not there in one.
    pub changed: PageSet,
    /// Those among them that may hold a row of an unchanged page of a tree: the rest of a record,
    /// or a page of a table. Whatever walk explains one takes it out; none may be left.
    pub unexplained: PageSet,
    /// The first row of every changed page of a table, sorted: where it hangs in its tree.
    pub rows: Vec<i64>,
    /// Whether the pages of both stand for the same at all.
    pub are_comparable: bool,
}

impl Changes {
    /// Returns whether a row of a changed page is in this range, the first bound not included.
    pub(super) fn has_row(&self, after: i64, until: i64) -> bool {
        let first = self.rows.partition_point(|row| *row <= after);
        // The least row number of all is after nothing.
        let first = if after == i64::MIN { 0 } else { first };
        self.rows.get(first).is_some_and(|row| *row <= until)
    }
}

/// Compares two images.
pub(super) fn compare<'a>(before: &mut Image<'a>, after: &mut Image<'a>) -> Result<Changes, Fault> {
    let page_count = before.page_count.max(after.page_count);
    let mut changes = Changes {
        changed: PageSet::new(page_count),
        unexplained: PageSet::new(page_count),
        rows: Vec::new(),
        are_comparable: before.layout.page_bytes == after.layout.page_bytes
            && before.layout.usable_bytes == after.layout.usable_bytes,
    };
    if !changes.are_comparable {
        return Ok(changes);
    }
    let page_bytes = u64::from(before.layout.page_bytes);
    let (mut old, mut new) = (Vec::new(), Vec::new());
    let mut next = 1;
    for range in differing(before, after) {
        let first = (range.start / page_bytes) as u32 + 1;
        let end = range.end.div_ceil(page_bytes).min(u64::from(u32::MAX)) as u32;
        for number in first.max(next)..=end.min(page_count) {
            if number > before.page_count || number > after.page_count {
                changes.changed.insert(number);
                continue;
            }
            before.read(number, &mut old)?;
            after.read(number, &mut new)?;
            if old != new {
                // Most of them are read again, in the order of trees.
                before.keep(number, &old)?;
                after.keep(number, &new)?;
                note(&mut changes, before, number, [&old, &new]);
            }
        }
        next = end.saturating_add(1);
    }
    changes.rows.sort_unstable();
    changes.rows.dedup();
    for image in [before, after] {
        free_pages(image, &mut changes.unexplained)?;
    }
    Ok(changes)
}

fn note(changes: &mut Changes, before: &Image<'_>, number: u32, sides: [&Vec<u8>; 2]) {
    changes.changed.insert(number);
    let layout = &before.layout;
    if layout.is_reserved(number) {
        return;
    }
    let tables = sides.map(|bytes| {
        let page = Page::parse(layout, number, bytes).ok()?;
        (page.kind == TreeKind::Table).then_some(page)
    });
    let rows = tables.iter().flatten().filter_map(Page::first_rowid);
    changes.rows.extend(rows);
    // A record that goes on begins with the number of the next page, which is this at most.
    let most = before.page_count >> 24;
    let may_go_on = |bytes: &&Vec<u8>| bytes.first().is_some_and(|&first| u32::from(first) <= most);
    if tables.iter().all(Option::is_some) || sides.iter().all(may_go_on) {
        changes.unexplained.insert(number);
    }
}

/// Returns the ranges of bytes that are not in the same chunk at the same place in both.
fn differing(before: &Image<'_>, after: &Image<'_>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let (mut old, mut new) = (before.runs.iter().peekable(), after.runs.iter().peekable());
    let mut add = |start: u64, end: u64| match ranges.last_mut() {
        Some(last) if last.end >= start => last.end = last.end.max(end),
        _ => ranges.push(start..end),
    };
    loop {
        match (old.peek(), new.peek()) {
            (Some(a), Some(b)) if a == b => {
                old.next();
                new.next();
            }
            (Some(a), Some(b)) if a.start < b.start || a.start == b.start && a.end <= b.end => {
                add(a.start, a.end);
                old.next();
            }
            (_, Some(b)) => {
                add(b.start, b.end);
                new.next();
            }
            (Some(a), None) => {
                add(a.start, a.end);
                old.next();
            }
            (None, None) => return ranges,
        }
    }
}

/// Takes the free pages of an image out of a set: no row is on them.
fn free_pages(image: &mut Image<'_>, set: &mut PageSet) -> Result<(), Fault> {
    let mut seen = PageSet::new(image.page_count);
    let (mut trunk, mut page) = (image.layout.first_trunk, Vec::new());
    while trunk != 0 {
        if !seen.insert(trunk) {
            return Err(Damage("its free list goes in a circle").into());
        }
        image.read(trunk, &mut page)?;
        let (next, leaves) = btree::trunk(&image.layout, &page)?;
        set.remove(trunk);
        leaves.iter().for_each(|leaf| set.remove(*leaf));
        trunk = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_added_and_not_taken_out() {
        let mut set = PageSet::new(130);
        let mut other = PageSet::new(130);

        assert!(set.insert(1) && set.insert(64) && set.insert(130) && !set.insert(64));
        assert!(!set.insert(1000));
        other.insert(64);
        set.subtract(&other);
        set.remove(1);

        assert!(set.has(130) && !set.has(64) && !set.has(1) && !set.has(9999));
        assert_eq!((set.len(), set.is_empty()), (1, false));
    }

    #[test]
    fn rows_are_found_between_their_bounds() {
        let changes = Changes {
            changed: PageSet::default(),
            unexplained: PageSet::default(),
            rows: vec![i64::MIN, 5, 9],
            are_comparable: true,
        };

        assert!(
            changes.has_row(i64::MIN, 4) && changes.has_row(4, 5) && changes.has_row(8, i64::MAX)
        );
        assert!(!changes.has_row(5, 8) && !changes.has_row(9, i64::MAX));
    }
}
