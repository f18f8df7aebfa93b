//! How two states of a SQLite database differ: schema, and rows by table.
//!
//! The cost follows the change. Chunks tell which pages can differ; of the trees, pages that are
//! the same in both are passed by unless something changed hangs below them (`trees`); rows are
//! compared by the sums of their records (`rows`). Where most pages moved, as after a VACUUM, both
//! states are put together in private files and all rows are compared in their own order.
//!
//! A row counts as changed if its stored record is another one. Invariant: nothing is told of a
//! database that contradicts itself; it is `NotUnderstood`, and compared as the file it is.

mod image;
mod pages;
mod rows;
mod schema;
mod trees;

pub use rows::RowChange;
pub use rows::RowDiff;
pub use rows::RowKey;
pub use schema::SchemaChange;

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::Stream;
use crate::ops::diff::sqlite::image::Image;
use crate::ops::diff::sqlite::pages::Changes;
use crate::ops::diff::sqlite::pages::PageSet;
use crate::ops::diff::sqlite::rows::Matcher;
use crate::ops::diff::sqlite::rows::Order;
use crate::ops::diff::sqlite::schema::Schema;
use crate::ops::diff::sqlite::trees::Reach;
use crate::ops::diff::sqlite::trees::Roots;
use crate::ops::diff::sqlite::trees::Side;
use crate::repo::chunks::Chunks;
use crate::source::sqlite::btree::Damage;
use crate::source::sqlite::btree::TreeKind;
use crate::source::sqlite::key_columns;
use std::collections::BTreeSet;
use std::path::Path;

/// A database, as a snapshot has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub stream: Stream,
    pub size_bytes: u64,
}

/// How two states of a database differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseDiff {
    /// By schema and rows.
    Understood(TableDiffs),
    /// Only that they do; why not more is said.
    NotUnderstood(String),
}

/// How the tables of a database differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableDiffs {
    /// The application's own version before and after.
    pub user_version: (i32, i32),
    /// What of the schema differs.
    pub schema: Vec<SchemaChange>,
    /// Tables with rows that differ, by name; those that came and went too.
    pub tables: Vec<TableDiff>,
    /// Pages that differ, or moved.
    pub changed_pages: u64,
    /// Bytes of chunks that were read to find out.
    pub read_bytes: u64,
}

/// How one table differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDiff {
    pub name: String,
    pub rows: RowDiff,
}

impl TableDiffs {
    /// Returns true if neither schema nor rows differ: pages may all the same.
    pub fn is_empty(&self) -> bool {
        self.schema.is_empty()
            && self.tables.is_empty()
            && self.user_version.0 == self.user_version.1
    }
}

/// Why a comparison ended.
#[derive(Debug)]
enum Fault {
    /// The database contradicts itself.
    Damage(Damage),
    /// More rows differ, or moved, than can wait for each other.
    TooMany,
    /// What is known of a row before and after are not the same things: a table got another key.
    OtherKind,
    /// The repository could not be read.
    Store(Error),
}

impl From<Damage> for Fault {
    fn from(damage: Damage) -> Fault {
        Fault::Damage(damage)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Store(error)
    }
}

/// Compares two states.
pub(super) fn compare(
    cx: &Context,
    chunks: &Chunks<'_>,
    before: &Stored,
    after: &Stored,
    room: &Path,
    examples_max: usize,
) -> Result<DatabaseDiff> {
    let compared = (|| {
        let mut old = Image::open(cx, chunks, room, before)?;
        let mut new = Image::open(cx, chunks, room, after)?;
        let changes = pages::compare(&mut old, &mut new)?;
        let mut comparison = Comparison {
            before: Side::new(&mut old),
            after: Side::new(&mut new),
            reached: PageSet::new(changes.changed.page_count()),
            changes,
            examples_max,
            order: Order::Pages,
        };
        comparison.run()
    })();
    match compared {
        Ok(diffs) => Ok(DatabaseDiff::Understood(diffs)),
        Err(Fault::Damage(damage)) => Ok(DatabaseDiff::NotUnderstood(damage.0.to_string())),
        Err(Fault::OtherKind) => Ok(DatabaseDiff::NotUnderstood("a tree is of two kinds".into())),
        Err(Fault::TooMany) => Ok(DatabaseDiff::NotUnderstood(
            "more rows differ than can be told apart".into(),
        )),
        Err(Fault::Store(error)) => Err(error),
    }
}

struct Comparison<'i, 'a> {
    before: Side<'i, 'a>,
    after: Side<'i, 'a>,
    changes: Changes,
    reached: PageSet,
    examples_max: usize,
    order: Order,
}

impl Comparison<'_, '_> {
    fn run(&mut self) -> Result<TableDiffs, Fault> {
        if self.most_pages_differ() {
            self.put_together()?;
        }
        let old = schema::read(&mut self.before, &mut self.reached)?;
        let new = schema::read(&mut self.after, &mut self.reached)?;
        let mut tables = self.tables(&old, &new, Reach::Guided)?;
        if self.is_unexplained() {
            // Rows may go on in pages that changed while their own did not. Indexes have such
            // records too, which explain some.
            self.indexes(&old, &new)?;
            if self.is_unexplained() {
                tables = self.tables(&old, &new, Reach::All)?;
            }
        }
        let layouts = (&self.before.image.layout, &self.after.image.layout);
        Ok(TableDiffs {
            user_version: (layouts.0.user_version, layouts.1.user_version),
            schema: schema::compare(&old, &new),
            tables,
            changed_pages: match self.changes.are_comparable {
                true => self.changes.changed.len(),
                false => u64::from(self.page_count()),
            },
            read_bytes: self.before.image.read_bytes + self.after.image.read_bytes,
        })
    }

    fn most_pages_differ(&self) -> bool {
        let half = u64::from(self.page_count()) / 2;
        !self.changes.are_comparable || self.changes.changed.len() > half
    }

    fn page_count(&self) -> u32 {
        self.before
            .image
            .page_count
            .max(self.after.image.page_count)
    }

    /// From now on pages are read in any order.
    fn put_together(&mut self) -> Result<(), Fault> {
        self.before.image.put_together()?;
        self.after.image.put_together()?;
        self.order = Order::Rows;
        Ok(())
    }

    fn is_unexplained(&mut self) -> bool {
        self.changes.unexplained.subtract(&self.reached);
        !self.changes.unexplained.is_empty()
    }

    fn tables(
        &mut self,
        old: &Schema,
        new: &Schema,
        reach: Reach,
    ) -> Result<Vec<TableDiff>, Fault> {
        let of = |schema: &Schema| {
            let names = schema
                .iter()
                .filter(|((kind, _), object)| kind == "table" && object.root > 0);
            names
                .map(|((_, name), _)| name.clone())
                .collect::<BTreeSet<String>>()
        };
        let mut tables = Vec::new();
        for name in of(old).union(&of(new)) {
            let key = ("table".to_string(), name.clone());
            let objects = [old.get(&key), new.get(&key)];
            let [before, after] = objects.map(|object| object.map_or(0, |object| object.root));
            let sql = objects.map(|object| object.map_or("", |object| &object.sql[..]));
            let roots = Roots { before, after };
            let rows = match self.table(name, sql, roots, reach) {
                // It was made anew: nothing of it stayed.
                Err(Fault::OtherKind) => {
                    let mut gone = self.table(name, sql, Roots { after: 0, ..roots }, reach)?;
                    let come = self.table(name, sql, Roots { before: 0, ..roots }, reach)?;
                    gone.added = come.added;
                    gone.examples.extend(come.examples);
                    gone
                }
                rows => rows?,
            };
            if !rows.is_empty() || before == 0 || after == 0 {
                let name = name.clone();
                tables.push(TableDiff { name, rows });
            }
        }
        Ok(tables)
    }

    /// Compares one table; again, with everything put together, if too many rows moved.
    fn table(
        &mut self,
        name: &str,
        sql: [&str; 2],
        roots: Roots,
        reach: Reach,
    ) -> Result<RowDiff, Fault> {
        match (self.rows(name, sql, roots, reach), self.order) {
            (Err(Fault::TooMany), Order::Pages) => {
                self.put_together()?;
                self.before.begin_again();
                self.after.begin_again();
                self.rows(name, sql, roots, reach)
            }
            (rows, _) => rows,
        }
    }

    fn rows(
        &mut self,
        name: &str,
        sql: [&str; 2],
        roots: Roots,
        reach: Reach,
    ) -> Result<RowDiff, Fault> {
        let (before, after, changes) = (&mut self.before, &mut self.after, &self.changes);
        let found = trees::find(before, after, changes, &mut self.reached, roots, reach)?;
        let is_empty = [&found.before, &found.after]
            .iter()
            .all(|nodes| nodes.is_empty());
        if is_empty && found.shared.is_empty() {
            return Ok(RowDiff::default());
        }
        let columns = match found.kind {
            Some(TreeKind::Index) => {
                // Of a table that is on one side only, that side tells.
                let [old, new] = match roots {
                    Roots { after: 0, .. } => [sql[0], sql[0]],
                    Roots { before: 0, .. } => [sql[1], sql[1]],
                    _ => sql,
                };
                let columns = key_columns(name, new).unwrap_or(usize::MAX);
                if old != new && key_columns(name, old) != Some(columns) {
                    return Err(Fault::OtherKind);
                }
                columns
            }
            _ => 0,
        };
        let (reached, examples) = (&mut self.reached, self.examples_max);
        let matcher = Matcher::new(before, after, changes, reached, columns, examples);
        matcher.compare(&found, self.order)
    }

    /// Looks where records of indexes go on. What they say is in their tables.
    fn indexes(&mut self, old: &Schema, new: &Schema) -> Result<(), Fault> {
        let is_index = |kind: &str, root: u32| kind == "index" && root > 0;
        let names: BTreeSet<&String> = old
            .iter()
            .chain(new)
            .filter(|((kind, _), object)| is_index(kind, object.root))
            .map(|((_, name), _)| name)
            .collect();
        for name in names {
            let key = ("index".to_string(), name.clone());
            let root = |schema: &Schema| schema.get(&key).map_or(0, |object| object.root);
            let (before, after) = (root(old), root(new));
            let roots = Roots { before, after };
            match self.rows("", ["", ""], roots, Reach::Guided) {
                // Then all leaves are searched, which explains it as well.
                Err(Fault::TooMany | Fault::OtherKind) => {}
                rows => drop(rows?),
            }
        }
        Ok(())
    }
}
