//! Makes one segment of several, without the records of packs that are no longer live.
//!
//! It holds one block per input and one write buffer, whatever the size. When to merge, and taking
//! the inputs out of use, is the caller's part.

use super::block::Block;
use super::record::Entry;
use super::record::ordinal;
use super::record::set_ordinal;
use super::record::sort_key;
use super::segment::Segment;
use super::state::Table;
use super::writer::Writer;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// With 4, no fewer tables had to be looked into among 10⁶ entries.
const WEIGHT_RATIO: u64 = 2;

/// Why there is no merged segment.
pub(super) enum Failure {
    /// This input cannot be read.
    Damaged(Arc<Segment>),
    /// The output cannot be written.
    Write(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Write(error)
    }
}

/// Returns where the tables to be merged begin, if any are. Every table, of the given weights in
/// descending order, must weigh `WEIGHT_RATIO` times as much as all lighter ones together, which
/// makes the number of tables logarithmic and the writing of an entry too.
pub(super) fn plan(weights: &[u64]) -> Option<usize> {
    let is_due = |&at: &usize| weights[at] < WEIGHT_RATIO * weights[at + 1..].iter().sum::<u64>();
    (0..weights.len()).find(is_due)
}

/// Writes what is live in the inputs into a new segment. A pack is live in one input at most.
pub(super) fn merge(dir: &Path, inputs: &[Table]) -> Result<Segment, Failure> {
    let mut packs: Vec<_> = inputs.iter().flat_map(Table::live_packs).copied().collect();
    packs.sort_unstable();
    let mut cursors = Vec::new();
    for table in inputs {
        let renumber = |(pack, is_live): (_, &bool)| match is_live {
            true => packs.binary_search(pack).ok(),
            false => None,
        };
        let live = table.segment.packs.iter().zip(&table.live);
        cursors.push(Cursor {
            segment: &table.segment,
            ordinals: (live.map(renumber))
                .map(|at| at.and_then(|at| u32::try_from(at).ok()))
                .collect(),
            block: Block::new(),
            block_next: 0,
            entry_next: 0,
            head: None,
        });
    }

    let entry_count_max = inputs.iter().map(|table| table.segment.entry_count).sum();
    let mut writer = Writer::create(dir, entry_count_max)?;
    for cursor in &mut cursors {
        cursor.advance()?;
    }
    loop {
        let heads = cursors
            .iter_mut()
            .filter_map(|cursor| Some((cursor.head?, cursor)));
        let Some((entry, cursor)) = heads.min_by(|(a, _), (b, _)| sort_key(a).cmp(sort_key(b)))
        else {
            break;
        };
        writer.push(&entry)?;
        cursor.advance()?;
    }
    Ok(writer.finish(packs)?)
}

/// A place in an input.
struct Cursor<'a> {
    segment: &'a Arc<Segment>,
    /// The pack's place in the output, by its place in the input; nothing if it is not live.
    ordinals: Vec<Option<u32>>,
    block: Block,
    block_next: u64,
    entry_next: usize,
    head: Option<Entry>,
}

impl Cursor<'_> {
    /// Moves to the next live entry, renumbered for the output.
    fn advance(&mut self) -> Result<(), Failure> {
        loop {
            while let Some(entry) = self.block.entries().get(self.entry_next) {
                self.entry_next += 1;
                let at = ordinal(entry) as usize;
                if let Some(ordinal) = self.ordinals.get(at).copied().flatten() {
                    let mut entry = *entry;
                    set_ordinal(&mut entry, ordinal);
                    self.head = Some(entry);
                    return Ok(());
                }
            }
            self.head = None;
            if self.block_next == self.segment.block_count() {
                return Ok(());
            }
            self.segment
                .read(self.block_next, &mut self.block)
                .map_err(|_| Failure::Damaged(Arc::clone(self.segment)))?;
            self.block_next += 1;
            self.entry_next = 0;
        }
    }
}
