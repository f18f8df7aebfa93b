//! Tells which rows of a table differ, given the pages on which they may.
//!
//! Rows of both sides meet by their key: the number of the row, or the values at the front of the
//! record that are declared the key. What has met and is alike is forgotten at once, so memory
//! grows with the difference. Only sums of records are kept.

use crate::ops::diff::sqlite::Fault;
use crate::ops::diff::sqlite::pages::Changes;
use crate::ops::diff::sqlite::pages::PageSet;
use crate::ops::diff::sqlite::trees::Found;
use crate::ops::diff::sqlite::trees::Node;
use crate::ops::diff::sqlite::trees::Side;
use crate::source::sqlite::btree;
use crate::source::sqlite::btree::Cell;
use crate::source::sqlite::btree::Damage;
use crate::source::sqlite::btree::Page;
use crate::source::sqlite::btree::TreeKind;
use crate::source::sqlite::btree::Value;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Rows that wait for the other side at most.
const WAITING_MAX: usize = 500_000;
/// Longer keys are kept as their sums.
const KEY_BYTES_MAX: usize = 64;
/// What is read of a record to find its key; the rest is only summed up.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// By what a row is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// Its number.
    Rowid(i64),
    /// The values of its key, as text.
    Values(Box<str>),
    /// The sum of a long key.
    Sum([u8; 16]),
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowChange {
    Added,
    Removed,
    Changed,
}

/// The rows of one table that differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowDiff {
    pub added: u64,
    pub removed: u64,
    pub changed: u64,
    /// The first of them, sorted; as many as were asked for.
    pub examples: Vec<(RowKey, RowChange)>,
}

impl RowDiff {
    /// Returns true if no row differs.
    pub fn is_empty(&self) -> bool {
        (self.added, self.removed, self.changed) == (0, 0, 0)
    }
}

/// In which order pages are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As they lie in the file: each chunk is read once, and rows that moved wait longer.
    Pages,
    /// As the rows follow each other: few wait, and pages are read from anywhere.
    Rows,
}

/// One side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Before,
    After,
}

/// Compares the rows of one table.
pub(super) struct Matcher<'m, 'i, 'a> {
    pub before: &'m mut Side<'i, 'a>,
    pub after: &'m mut Side<'i, 'a>,
    pub changes: &'m Changes,
    /// Pages that were looked at on either side.
    pub reached: &'m mut PageSet,
    pub key_columns: usize,
    pub examples_max: usize,
    waiting: BTreeMap<Key, (Which, [u8; 16])>,
    /// The side that has no more rows: what comes of the other meets only what waits.
    done: Option<Which>,
    diff: RowDiff,
}

/// A key while it waits. Values are sorted as bytes, which is any order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Rowid(i64),
    Values(Box<[u8]>),
    Sum([u8; 16]),
}

impl<'m, 'i, 'a> Matcher<'m, 'i, 'a> {
    pub(super) fn new(
        before: &'m mut Side<'i, 'a>,
        after: &'m mut Side<'i, 'a>,
        changes: &'m Changes,
        reached: &'m mut PageSet,
        key_columns: usize,
        examples_max: usize,
    ) -> Self {
        Matcher {
            before,
            after,
            changes,
            reached,
            key_columns,
            examples_max,
            waiting: BTreeMap::new(),
            done: None,
            diff: RowDiff::default(),
        }
    }

    /// Compares what was found.
    pub(super) fn compare(mut self, found: &Found, order: Order) -> Result<RowDiff, Fault> {
        match order {
            Order::Pages => self.by_pages(found)?,
            Order::Rows => self.by_rows(found)?,
        }
        self.done = None;
        self.parts_of_shared(&found.shared)?;
        let waiting = std::mem::take(&mut self.waiting);
        waiting
            .into_iter()
            .for_each(|(key, (which, _))| self.alone(key, which));
        self.diff.examples.sort();
        Ok(self.diff)
    }

    fn by_pages(&mut self, found: &Found) -> Result<(), Fault> {
        let numbers = |nodes: &[Node]| {
            let mut numbers: Vec<u32> = nodes.iter().map(|node| node.number).collect();
            numbers.sort_unstable();
            numbers
        };
        let (before, after) = (numbers(&found.before), numbers(&found.after));
        let (mut olds, mut news) = (before.iter().peekable(), after.iter().peekable());
        while let Some(number) = [olds.peek(), news.peek()]
            .into_iter()
            .flatten()
            .min()
            .copied()
        {
            self.note_end(olds.peek().is_none(), news.peek().is_none());
            if olds.next_if_eq(&number).is_some() {
                self.page(Which::Before, *number)?;
            }
            if news.next_if_eq(&number).is_some() {
                self.page(Which::After, *number)?;
            }
        }
        Ok(())
    }

    fn by_rows(&mut self, found: &Found) -> Result<(), Fault> {
        let mut olds = found.before.iter().peekable();
        let mut news = found.after.iter().peekable();
        let mut is_old_next = true;
        let is_table = found.kind == Some(TreeKind::Table);
        loop {
            self.note_end(olds.peek().is_none(), news.peek().is_none());
            let is_before = match (olds.peek(), news.peek()) {
                (Some(old), Some(new)) if is_table => old.after <= new.after,
                (Some(_), Some(_)) => is_old_next,
                (old, _) => old.is_some(),
            };
            is_old_next = !is_old_next;
            let (which, node) = match is_before {
                true => (Which::Before, olds.next()),
                false => (Which::After, news.next()),
            };
            let Some(node) = node else {
                return Ok(());
            };
            if is_table {
                self.flush(node.after);
            }
            self.page(which, node.number)?;
        }
    }

    fn note_end(&mut self, is_old_done: bool, is_new_done: bool) {
        self.done = match (is_old_done, is_new_done) {
            (true, false) => Some(Which::Before),
            (false, true) => Some(Which::After),
            _ => None,
        };
    }

    /// No row up to this number comes any more: those that wait have met nobody.
    fn flush(&mut self, until: i64) {
        let Some(next) = until.checked_add(1) else {
            return;
        };
        let later = self.waiting.split_off(&Key::Rowid(next));
        let past = std::mem::replace(&mut self.waiting, later);
        past.into_iter()
            .for_each(|(key, (which, _))| self.alone(key, which));
    }

    fn page(&mut self, which: Which, number: u32) -> Result<(), Fault> {
        let mut bytes = Vec::new();
        self.reached.insert(number);
        let side = self.side(which);
        side.read(number, &mut bytes)?;
        let layout = side.image.layout;
        let page = Page::parse(&layout, number, &bytes)?;
        for index in 0..page.cell_count() {
            if page.is_leaf || page.kind == TreeKind::Index {
                self.row(which, page.kind, &page.cell(index)?)?;
            }
        }
        Ok(())
    }

    /// Looks for records of unchanged pages that go on in changed ones.
    fn parts_of_shared(&mut self, shared: &[u32]) -> Result<(), Fault> {
        let (mut numbers, mut bytes) = (shared.to_vec(), Vec::new());
        numbers.sort_unstable();
        for number in numbers {
            self.before.read(number, &mut bytes)?;
            let layout = self.before.image.layout;
            let page = Page::parse(&layout, number, &bytes)?;
            for index in 0..page.cell_count() {
                let cell = page.cell(index)?;
                if cell.overflow != 0 && self.goes_on_in_changed(&cell)? {
                    self.row(Which::Before, page.kind, &cell)?;
                    self.row(Which::After, page.kind, &cell)?;
                }
            }
        }
        Ok(())
    }

    fn goes_on_in_changed(&mut self, cell: &Cell<'_>) -> Result<bool, Fault> {
        let (mut number, mut page) = (cell.overflow, Vec::new());
        let mut left = cell.payload_bytes - cell.local.len() as u64;
        while left > 0 {
            if self.changes.changed.has(number) {
                return Ok(true);
            }
            self.before.read(number, &mut page)?;
            let (next, content) = btree::overflow(&self.before.image.layout, &page)?;
            left = left.saturating_sub(content.len() as u64);
            number = next;
        }
        Ok(false)
    }

    fn row(&mut self, which: Which, kind: TreeKind, cell: &Cell<'_>) -> Result<(), Fault> {
        let (sum, head) = self.read(which, kind, cell)?;
        let key = match kind {
            TreeKind::Table => Key::Rowid(cell.rowid),
            TreeKind::Index => key(&head, self.key_columns, sum),
        };
        let is_last = self.done.is_some_and(|done| done != which);
        match self.waiting.entry(key) {
            Entry::Vacant(vacant) if is_last => {
                let key = vacant.into_key();
                self.alone(key, which);
            }
            Entry::Vacant(vacant) => {
                vacant.insert((which, sum));
            }
            Entry::Occupied(met) if met.get().0 == which => {
                return Err(Damage("two rows of a table have the same key").into());
            }
            Entry::Occupied(met) => {
                let (key, (_, other)) = met.remove_entry();
                if other != sum {
                    self.diff.changed += 1;
                    self.example(key, RowChange::Changed);
                }
            }
        }
        match self.waiting.len() > WAITING_MAX {
            true => Err(Fault::TooMany),
            false => Ok(()),
        }
    }

    /// Reads a record: its sum, and the front of it if its key is there.
    fn read(
        &mut self,
        which: Which,
        kind: TreeKind,
        cell: &Cell<'_>,
    ) -> Result<([u8; 16], Vec<u8>), Fault> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(cell.local);
        let mut head = match kind {
            TreeKind::Table => Vec::new(),
            TreeKind::Index => cell.local.to_vec(),
        };
        let mut left = cell.payload_bytes - cell.local.len() as u64;
        let (mut number, mut page) = (cell.overflow, Vec::new());
        while left > 0 {
            self.reached.insert(number);
            let side = self.side(which);
            side.read(number, &mut page)?;
            let (next, content) = btree::overflow(&side.image.layout, &page)?;
            let content = &content[..content
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX))];
            hasher.update(content);
            if kind == TreeKind::Index && head.len() < HEAD_BYTES_MAX {
                head.extend_from_slice(content);
            }
            left -= content.len() as u64;
            number = next;
        }
        let mut sum = [0; 16];
        hasher.finalize_xof().fill(&mut sum);
        Ok((sum, head))
    }

    fn side(&mut self, which: Which) -> &mut Side<'i, 'a> {
        match which {
            Which::Before => &mut *self.before,
            Which::After => &mut *self.after,
        }
    }

    fn alone(&mut self, key: Key, which: Which) {
        let change = match which {
            Which::Before => {
                self.diff.removed += 1;
                RowChange::Removed
            }
            Which::After => {
                self.diff.added += 1;
                RowChange::Added
            }
        };
        self.example(key, change);
    }

    fn example(&mut self, key: Key, change: RowChange) {
        if self.diff.examples.len() >= self.examples_max {
            return;
        }
        let layout = &self.before.image.layout;
        let key = match key {
            Key::Rowid(number) => RowKey::Rowid(number),
            Key::Sum(sum) => RowKey::Sum(sum),
            Key::Values(record) => {
                let values = btree::values(&record, usize::MAX).unwrap_or_default();
                let texts = values.iter().map(|value| match value {
                    Value::Null => "NULL".to_string(),
                    Value::Integer(number) => number.to_string(),
                    Value::Real(number) => number.to_string(),
                    Value::Text(text) => layout.text(text),
                    Value::Blob(bytes) => format!("x'{}'", crate::id::hex(bytes)),
                });
                RowKey::Values(texts.collect::<Vec<_>>().join(", ").into())
            }
        };
        self.diff.examples.push((key, change));
    }
}

/// Returns the key of a record: its first values, or its sum if they are not at hand. Then a row
/// whose other values change counts as one that went and one that came.
fn key(record: &[u8], columns: usize, sum: [u8; 16]) -> Key {
    let Ok(key) = btree::first_values(record, columns) else {
        return Key::Sum(sum);
    };
    if key.len() <= KEY_BYTES_MAX {
        return Key::Values(key.into());
    }
    let mut sum = [0; 16];
    blake3::Hasher::new()
        .update(&key)
        .finalize_xof()
        .fill(&mut sum);
    Key::Sum(sum)
}
