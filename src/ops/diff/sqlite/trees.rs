//! Which pages of two trees hold rows that may differ.
//!
//! Level by level from the roots down. A page that both trees have and that is the same in both is
//! opened only if a changed page may hang below it, which the first row of that page tells. In the
//! trees of indexes rows tell nothing, since their order is their own; their inner pages are all
//! opened, and they are few.

use crate::ops::diff::sqlite::Fault;
use crate::ops::diff::sqlite::image::Image;
use crate::ops::diff::sqlite::pages::Changes;
use crate::ops::diff::sqlite::pages::PageSet;
use crate::source::sqlite::btree::Damage;
use crate::source::sqlite::btree::Page;
use crate::source::sqlite::btree::TreeKind;
use std::collections::HashMap;

/// No tree is deeper: SQLite gives up at twenty.
const DEPTH_MAX: u8 = 20;
/// A page belongs to one tree or one record, and is looked at a few times in each of two walks.
const LOOKS_MAX: u64 = 8;

/// How far pages that are the same in both are trusted to have nothing changed below them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// By the rows of changed pages.
    Guided,
    /// Not at all: every page of the trees is wanted.
    All,
}

/// A database with how much may still be read of it.
pub(super) struct Side<'i, 'a> {
    pub image: &'i mut Image<'a>,
    budget: u64,
}

impl<'i, 'a> Side<'i, 'a> {
    pub(super) fn new(image: &'i mut Image<'a>) -> Side<'i, 'a> {
        let mut side = Side { image, budget: 0 };
        side.begin_again();
        side
    }

    /// Allows as much as for a whole comparison.
    pub(super) fn begin_again(&mut self) {
        self.budget = u64::from(self.image.page_count) * LOOKS_MAX + 1024;
    }

    /// Reads a page. Links that go in circles come to an end here.
    pub(super) fn read(&mut self, number: u32, page: &mut Vec<u8>) -> Result<(), Fault> {
        let left = self.budget.checked_sub(1);
        self.budget = left.ok_or(Damage("its pages refer to each other in a circle"))?;
        self.image.read(number, page)
    }
}

/// The root of a tree on each side; zero where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Roots {
    pub before: u32,
    pub after: u32,
}

/// A page of a tree, and which rows can be below it: after the first number, up to the second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub number: u32,
    pub after: i64,
    pub until: i64,
}

/// What was found on each side, in the order of the trees.
#[derive(Default)]
pub(super) struct Found {
    /// Pages with rows, of which nothing is known on the other side.
    pub before: Vec<Node>,
    pub after: Vec<Node>,
    /// Pages with rows that are the same in both. Only a full walk names them.
    pub shared: Vec<u32>,
    pub kind: Option<TreeKind>,
}

/// Finds the pages with rows that may differ.
pub(super) fn find(
    before: &mut Side<'_, '_>,
    after: &mut Side<'_, '_>,
    changes: &Changes,
    reached: &mut PageSet,
    roots: Roots,
    reach: Reach,
) -> Result<Found, Fault> {
    let old = height(before, roots.before)?;
    let new = height(after, roots.after)?;
    let kinds = [old, new].map(|found| found.map(|(kind, _)| kind));
    let kind = match kinds {
        [Some(a), Some(b)] if a != b => return Err(Fault::OtherKind),
        [a, b] => a.or(b),
    };
    let level_of = |found: Option<(TreeKind, u8)>| found.map_or(0, |(_, level)| level);
    let mut found = Found {
        kind,
        ..Found::default()
    };
    let is_open = reach == Reach::All || kind == Some(TreeKind::Index);
    let (mut olds, mut news) = (Vec::new(), Vec::new());
    let mut level = level_of(old).max(level_of(new));
    loop {
        olds.extend(
            old.filter(|(_, of)| *of == level)
                .map(|_| root(roots.before)),
        );
        news.extend(
            new.filter(|(_, of)| *of == level)
                .map(|_| root(roots.after)),
        );
        let shared = shared(&olds, &news, changes, |node| {
            level > 0 && (is_open || changes.has_row(node.after, node.until))
        });
        if level == 0 {
            let is_new = |node: &Node| !shared.contains_key(&node.number);
            if reach == Reach::All {
                let both = olds.iter().filter(|node| !is_new(node));
                found.shared.extend(both.map(|node| node.number));
            }
            found.before.extend(olds.into_iter().filter(is_new));
            found.after.extend(news.into_iter().filter(is_new));
            return Ok(found);
        }
        let wanted = |nodes: Vec<Node>| {
            let is_wanted = |node: &Node| *shared.get(&node.number).unwrap_or(&true);
            nodes.into_iter().filter(is_wanted).collect::<Vec<_>>()
        };
        let is_new = |node: &Node| !shared.contains_key(&node.number);
        if kind == Some(TreeKind::Index) {
            // Their inner pages hold rows too.
            found.before.extend(olds.iter().copied().filter(is_new));
            found.after.extend(news.iter().copied().filter(is_new));
            if reach == Reach::All {
                let both = olds.iter().filter(|node| !is_new(node));
                found.shared.extend(both.map(|node| node.number));
            }
        }
        olds = children(before, wanted(olds), kind, reached)?;
        news = children(after, wanted(news), kind, reached)?;
        level -= 1;
    }
}

fn root(number: u32) -> Node {
    Node {
        number,
        after: i64::MIN,
        until: i64::MAX,
    }
}

/// Returns what a tree is of and how many levels it has above its leaves.
fn height(side: &mut Side<'_, '_>, root: u32) -> Result<Option<(TreeKind, u8)>, Fault> {
    if root == 0 {
        return Ok(None);
    }
    let (mut number, mut bytes) = (root, Vec::new());
    for level in 0..DEPTH_MAX {
        side.read(number, &mut bytes)?;
        let page = Page::parse(&side.image.layout, number, &bytes)?;
        if page.is_leaf {
            return Ok(Some((page.kind, level)));
        }
        let first = page.children()?.first().map(|(child, _)| *child);
        number = first.ok_or(Damage("an inner page of a tree has nothing below it"))?;
    }
    Err(Damage("a tree is too deep").into())
}

/// Returns the pages that are in both lists and the same, and whether each is to be opened. One
/// answer for both sides, or the pages below would be found on one only.
fn shared(
    olds: &[Node],
    news: &[Node],
    changes: &Changes,
    is_wanted: impl Fn(&Node) -> bool,
) -> HashMap<u32, bool> {
    if !changes.are_comparable {
        return HashMap::new();
    }
    let unchanged = news.iter().filter(|node| !changes.changed.has(node.number));
    let unchanged: HashMap<u32, &Node> = unchanged.map(|node| (node.number, node)).collect();
    let both = olds.iter().filter_map(|old| {
        let new = unchanged.get(&old.number)?;
        Some((old.number, is_wanted(old) || is_wanted(new)))
    });
    both.collect()
}

fn children(
    side: &mut Side<'_, '_>,
    nodes: Vec<Node>,
    kind: Option<TreeKind>,
    reached: &mut PageSet,
) -> Result<Vec<Node>, Fault> {
    let (mut children, mut bytes) = (Vec::new(), Vec::new());
    for node in nodes {
        side.read(node.number, &mut bytes)?;
        reached.insert(node.number);
        let page = Page::parse(&side.image.layout, node.number, &bytes)?;
        if page.is_leaf || Some(page.kind) != kind {
            return Err(Damage("a tree has leaves at several levels").into());
        }
        let mut after = node.after;
        for (number, most) in page.children()? {
            if number < 2 || number > side.image.page_count {
                return Err(Damage("a tree has a page behind the end").into());
            }
            let until = most.unwrap_or(node.until);
            children.push(Node {
                number,
                after,
                until,
            });
            after = until;
        }
        // Each page hangs in one place: more of them than there are would never end.
        if children.len() > side.image.page_count as usize {
            return Err(Damage("a tree has more pages than there are").into());
        }
    }
    Ok(children)
}
