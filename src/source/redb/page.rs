//! Reads one page of a redb tree: how much of it is used, and which pages it leads to.
//!
//! Works on bytes alone; comparing them with their checksum is for the caller, who does so before
//! following a link. Whatever the bytes are, nothing here panics.
//!
//! ```text
//! leaf    type 1 | unused u8 | count u16 | ends of keys u32.. | ends of values u32.. |
//!         keys | values (no ends where all have one width)
//! branch  type 2 | unused u8 | count u16 | 4 unused | count + 1 checksums u128 |
//!         count + 1 page numbers u64 | ends of keys u32.. (as above) | keys
//! table   type u8 | rows u64 | root? u8, root 32 | width? u8, key width u32 |
//!         width? u8, value width u32 | key alignment u32 | value alignment u32 | names of types
//! ```

use super::layout::u32_at;
use super::layout::u64_at;
use super::layout::u128_at;
use super::refusal::Unknown;
use crate::safeguard::Safeguard;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const LEAF: u8 = 1;
const BRANCH: u8 = 2;
const NORMAL_TABLE: u8 = 3;
const MULTIMAP_TABLE: u8 = 4;
const INLINE_LIST: u8 = 1;
const TREE_OF_LIST: u8 = 3;
const SAVEPOINT_VERSION: u8 = 3;
const SAVEPOINTS: &[u8] = b"persistent_savepoints";
/// The tree identities that all others are derived from.
const USER_TREE: u64 = 8;
const SYSTEM_TREE: u64 = 40;

/// What the values in the leaves of a tree are, hence where more roots stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Plain,
    UserTables,
    SystemTables,
    Savepoints,
    /// With the width of an element.
    Lists(Option<u32>),
}

/// What one must know of a tree to read its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    key_bytes: Option<u32>,
    value_bytes: Option<u32>,
    values: Values,
    /// Stays the same for a tree as long as the names that lead to it do.
    tree: u64,
}

impl Shape {
    pub(super) fn user_tables() -> Shape {
        Shape::tables(Values::UserTables, USER_TREE)
    }

    pub(super) fn system_tables() -> Shape {
        Shape::tables(Values::SystemTables, SYSTEM_TREE)
    }

    fn tables(values: Values, tree: u64) -> Shape {
        Shape {
            key_bytes: None,
            value_bytes: None,
            values,
            tree,
        }
    }

    /// Returns true if a leaf leads nowhere, so that its values need not be read.
    pub(super) fn is_plain(&self) -> bool {
        self.values == Values::Plain
    }
}

/// A page as its parent knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) checksum: u128,
    pub(super) shape: Shape,
    /// How many pages lead to it, nested trees included.
    pub(super) depth: u8,
}

impl Link {
    /// Reads a root.
    pub(super) fn at(bytes: &[u8], at: usize, shape: Shape) -> Option<Link> {
        Some(Link {
            number: u64_at(bytes, at)?,
            checksum: u128_at(bytes, at + 8)?,
            shape,
            depth: 0,
        })
    }
}

/// What the first bytes of a page tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    /// Length of what the checksum covers; what follows is garbage.
    pub(super) used_bytes: u64,
    /// Hash of the tree and the first key; `None` for branches.
    pub(super) identity: Option<u64>,
}

/// Why a page cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    Malformed,
    Unknown(Unknown),
}

/// Returns what the first bytes of a page tell, or `None` if they are too few or nonsense.
pub(super) fn summarize(head: &[u8], shape: &Shape) -> Option<Summary> {
    match *head.first()? {
        LEAF => {
            let leaf = Leaf::new(head, shape)?;
            let used_bytes = leaf.value_end(leaf.count)?;
            let start = usize::try_from(leaf.key_end(0)?).ok()?;
            let end = usize::try_from(leaf.key_end(1)?).ok()?.min(head.len());
            let first_key = head.get(start..end)?;
            Some(Summary {
                used_bytes,
                identity: Some(xxh3_64_with_seed(first_key, shape.tree)),
            })
        }
        BRANCH => Some(Summary {
            used_bytes: branch_bytes(head, shape)?,
            identity: None,
        }),
        _ => None,
    }
}

/// Returns true if the page is a branch.
pub(super) fn is_branch(head: &[u8]) -> bool {
    head.first() == Some(&BRANCH)
}

/// Appends the pages that a page leads to, in the order of their keys.
pub(super) fn follow(bytes: &[u8], parent: &Link, links: &mut Vec<Link>) -> Result<(), Unread> {
    let depth = parent.depth.saturating_add(1);
    if is_branch(bytes) {
        let count = usize::from(count(bytes).ok_or(Unread::Malformed)?);
        let numbers_at = 8 + 16 * (count + 1);
        for i in 0..=count {
            let number = u64_at(bytes, numbers_at + 8 * i).ok_or(Unread::Malformed)?;
            let checksum = u128_at(bytes, 8 + 16 * i).ok_or(Unread::Malformed)?;
            let shape = parent.shape;
            links.push(Link {
                number,
                checksum,
                shape,
                depth,
            });
        }
    } else if !parent.shape.is_plain() {
        let leaf = Leaf::new(bytes, &parent.shape).ok_or(Unread::Malformed)?;
        for i in 0..leaf.count {
            let (key, value) = leaf.row(i).ok_or(Unread::Malformed)?;
            let link = root_in(key, value, &parent.shape)?;
            links.extend(link.map(|link| Link { depth, ..link }));
        }
    }
    Ok(())
}

fn count(head: &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(*head.get(2..)?.first_chunk()?)).filter(|&count| count > 0)
}

fn branch_bytes(head: &[u8], shape: &Shape) -> Option<u64> {
    let count = usize::from(count(head)?);
    let ends_at = 8 + 24 * (count + 1);
    let used_bytes = match shape.key_bytes {
        Some(width) => ends_at as u64 + u64::from(width) * count as u64,
        None => u64::from(u32_at(head, ends_at + 4 * (count - 1))?),
    };
    // The links must be covered by the checksum.
    (ends_at as u64 <= used_bytes).then_some(used_bytes)
}

struct Leaf<'a> {
    bytes: &'a [u8],
    count: usize,
    key_bytes: Option<u32>,
    value_bytes: Option<u32>,
    value_ends_at: usize,
    keys_at: usize,
}

impl<'a> Leaf<'a> {
    fn new(bytes: &'a [u8], shape: &Shape) -> Option<Leaf<'a>> {
        let count = usize::from(count(bytes)?);
        let ends_bytes = |width: Option<u32>| if width.is_none() { 4 * count } else { 0 };
        let value_ends_at = 4 + ends_bytes(shape.key_bytes);
        Some(Leaf {
            bytes,
            count,
            key_bytes: shape.key_bytes,
            value_bytes: shape.value_bytes,
            value_ends_at,
            keys_at: value_ends_at + ends_bytes(shape.value_bytes),
        })
    }

    /// Returns where the first `count` keys end.
    fn key_end(&self, count: usize) -> Option<u64> {
        self.end(count, self.keys_at as u64, self.key_bytes, 4)
    }

    /// Returns where the first `count` values end.
    fn value_end(&self, count: usize) -> Option<u64> {
        let start = self.key_end(self.count)?;
        self.end(count, start, self.value_bytes, self.value_ends_at)
    }

    fn end(&self, count: usize, start: u64, width: Option<u32>, ends_at: usize) -> Option<u64> {
        let end = match (width, count) {
            (Some(width), _) => start + u64::from(width) * count as u64,
            (None, 0) => start,
            (None, _) => u64::from(u32_at(self.bytes, ends_at + 4 * (count - 1))?),
        };
        // The ends must be covered by the checksum.
        (start <= end).then_some(end)
    }

    fn row(&self, i: usize) -> Option<(&'a [u8], &'a [u8])> {
        let key = self.slice(self.key_end(i)?..self.key_end(i + 1)?)?;
        let value = self.slice(self.value_end(i)?..self.value_end(i + 1)?)?;
        Some((key, value))
    }

    fn slice(&self, range: Range<u64>) -> Option<&'a [u8]> {
        let start = usize::try_from(range.start).ok()?;
        self.bytes.get(start..usize::try_from(range.end).ok()?)
    }
}

/// Returns the root that stands in a row of a leaf, if one does.
fn root_in(key: &[u8], value: &[u8], leaf: &Shape) -> Result<Option<Link>, Unread> {
    let tree = xxh3_64_with_seed(key, leaf.tree);
    match leaf.values {
        Values::Plain => Ok(None),
        Values::UserTables => table_root(tree, value, false),
        Values::SystemTables => table_root(tree, value, key == SAVEPOINTS),
        Values::Savepoints => savepoint_root(tree, value),
        Values::Lists(element_bytes) => match value.first() {
            Some(&INLINE_LIST) => Ok(None),
            Some(&TREE_OF_LIST) => {
                // The elements are the keys, in a tree without values.
                let shape = Shape {
                    key_bytes: element_bytes,
                    value_bytes: Some(0),
                    values: Values::Plain,
                    tree,
                };
                Link::at(value, 1, shape).ok_or(Unread::Malformed).map(Some)
            }
            Some(&other) => Err(Unread::Unknown(Unknown::List(other))),
            None => Err(Unread::Malformed),
        },
    }
}

/// Version (1), savepoint (8), transaction (8), root? (1), root.
fn savepoint_root(tree: u64, record: &[u8]) -> Result<Option<Link>, Unread> {
    match (record.first(), record.get(17)) {
        (Some(&SAVEPOINT_VERSION), Some(0)) => Ok(None),
        (Some(&SAVEPOINT_VERSION), Some(_)) => {
            let shape = Shape::tables(Values::UserTables, tree);
            let link = Link::at(record, 18, shape);
            link.ok_or(Unread::Malformed).map(Some)
        }
        (Some(&version), Some(_)) => Err(Unread::Unknown(Unknown::Savepoint(version))),
        _ => Err(Unread::Malformed),
    }
}

fn table_root(tree: u64, definition: &[u8], is_savepoints: bool) -> Result<Option<Link>, Unread> {
    let number = |at: usize| u32_at(definition, at).ok_or(Unread::Malformed);
    let byte = |at: usize| definition.get(at).copied().ok_or(Unread::Malformed);
    let width = |at: usize| Ok((byte(at)? != 0).then_some(number(at + 1)?));
    let (value_bytes, values) = match byte(0)? {
        NORMAL_TABLE if is_savepoints && Safeguard::SavepointsRead.holds() => {
            (width(47)?, Values::Savepoints)
        }
        NORMAL_TABLE => (width(47)?, Values::Plain),
        MULTIMAP_TABLE => (None, Values::Lists(width(47)?)),
        // Leaving an unknown kind out would look like success.
        other => return Err(Unread::Unknown(Unknown::Table(other))),
    };
    if (number(52)?, number(56)?) != (1, 1) {
        return Err(Unread::Unknown(Unknown::Alignment));
    }
    let shape = Shape {
        key_bytes: width(42)?,
        value_bytes,
        values,
        tree,
    };
    let link = Link::at(definition, 10, shape).ok_or(Unread::Malformed)?;
    Ok((byte(9)? != 0).then_some(link))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shapes() -> impl Strategy<Value = Shape> {
        let width = || prop_oneof![Just(None), (0..40u32).prop_map(Some), Just(Some(u32::MAX))];
        let values = prop_oneof![
            Just(Values::Plain),
            Just(Values::UserTables),
            Just(Values::SystemTables),
            Just(Values::Savepoints),
            Just(Values::Lists(None)),
            Just(Values::Lists(Some(8))),
        ];
        (width(), width(), values).prop_map(|(key_bytes, value_bytes, values)| Shape {
            key_bytes,
            value_bytes,
            values,
            tree: 1,
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            kind in 0..4u8,
            count in 0..6u16,
            ends in prop::collection::vec(0..200u32, 0..12),
            mut rest: Vec<u8>,
            shape in shapes(),
        ) {
            let mut page = vec![kind, 0];
            page.extend(count.to_le_bytes());
            page.extend(ends.iter().flat_map(|end| end.to_le_bytes()));
            page.append(&mut rest);
            let number = 0;
            let checksum = 0;
            let link = Link { number, checksum, shape, depth: 0 };
            let mut links = Vec::new();

            let summary = summarize(&page, &shape);
            let is_read = follow(&page, &link, &mut links).is_ok();

            prop_assert!(summary.is_none_or(|summary| summary.used_bytes >= 4));
            prop_assert!(!is_read || links.len() <= usize::from(count) + 1);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let mut table = vec![0; 60];
        (table[52], table[56]) = (1, 1);
        let mut aligned = table.clone();
        (aligned[0], aligned[52]) = (NORMAL_TABLE, 8);
        for (values, value, unknown) in [
            (Values::UserTables, table, Unknown::Table(0)),
            (Values::UserTables, aligned, Unknown::Alignment),
            (Values::Savepoints, vec![2; 50], Unknown::Savepoint(2)),
            (Values::Lists(None), vec![2; 33], Unknown::List(2)),
        ] {
            let leaf = Shape::tables(values, 1);

            assert_eq!(
                root_in(b"key", &value, &leaf),
                Err(Unread::Unknown(unknown))
            );
        }
    }
}
