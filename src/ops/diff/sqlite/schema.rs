//! The schema of a database in a snapshot, and how two of them differ.

use crate::ops::diff::sqlite::Fault;
use crate::ops::diff::sqlite::pages::PageSet;
use crate::ops::diff::sqlite::trees::Side;
use crate::source::sqlite::btree;
use crate::source::sqlite::btree::Cell;
use crate::source::sqlite::btree::Damage;
use crate::source::sqlite::btree::Page;
use crate::source::sqlite::btree::TreeKind;
use crate::source::sqlite::btree::Value;
use std::collections::BTreeMap;

/// No schema is longer: all of it is kept in memory.
const SCHEMA_BYTES_MAX: u64 = 32 << 20;
const DEPTH_MAX: usize = 20;

/// What a schema names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    /// The first page of its tree; zero if it has none.
    pub root: u32,
    /// How it was declared; empty if SQLite made it by itself.
    pub sql: String,
}

/// What a schema names, by kind and name: tables, indexes, views and triggers.
pub(super) type Schema = BTreeMap<(String, String), Object>;

/// Something in a schema that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaChange {
    /// `table`, `index`, `view` or `trigger`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// How it was declared before; `None` if it was not there.
    pub before: Option<String>,
    /// How it is declared after; `None` if it is not there any more.
    pub after: Option<String>,
}

/// Reads the schema: the table whose tree begins on the first page.
pub(super) fn read(side: &mut Side<'_, '_>, reached: &mut PageSet) -> Result<Schema, Fault> {
    let mut schema = Schema::new();
    if side.image.page_count == 0 {
        return Ok(schema);
    }
    let mut left = SCHEMA_BYTES_MAX;
    let mut ahead = vec![(1, 0)];
    let mut bytes = Vec::new();
    while let Some((number, depth)) = ahead.pop() {
        side.read(number, &mut bytes)?;
        reached.insert(number);
        let layout = side.image.layout;
        let page = Page::parse(&layout, number, &bytes)?;
        if page.kind == TreeKind::Index || depth > DEPTH_MAX {
            return Err(Damage("its schema is no table").into());
        }
        let children = page.children()?.into_iter().rev();
        ahead.extend(children.map(|(child, _)| (child, depth + 1)));
        if !page.is_leaf {
            continue;
        }
        for index in 0..page.cell_count() {
            let cell = page.cell(index)?;
            let rest = left.checked_sub(cell.payload_bytes);
            left = rest.ok_or(Damage("its schema is impossibly long"))?;
            let record = record(side, &cell, reached)?;
            let values = btree::values(&record, 5)?;
            let text = |at: usize| match values.get(at) {
                Some(Value::Text(text)) => layout.text(text),
                _ => String::new(),
            };
            let root = match values.get(3) {
                Some(Value::Integer(root)) => u32::try_from(*root).unwrap_or(0),
                _ => 0,
            };
            let object = Object { root, sql: text(4) };
            schema.insert((text(0), text(1)), object);
        }
    }
    Ok(schema)
}

fn record(
    side: &mut Side<'_, '_>,
    cell: &Cell<'_>,
    reached: &mut PageSet,
) -> Result<Vec<u8>, Fault> {
    let (mut record, mut page) = (cell.local.to_vec(), Vec::new());
    let mut number = cell.overflow;
    while (record.len() as u64) < cell.payload_bytes {
        side.read(number, &mut page)?;
        reached.insert(number);
        let (next, content) = btree::overflow(&side.image.layout, &page)?;
        record.extend_from_slice(content);
        number = next;
    }
    record.truncate(usize::try_from(cell.payload_bytes).unwrap_or(usize::MAX));
    Ok(record)
}

/// Returns what differs, sorted by kind and name.
pub(super) fn compare(before: &Schema, after: &Schema) -> Vec<SchemaChange> {
    let sql = |object: &Object| object.sql.clone();
    let mut names: Vec<&(String, String)> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let changes = names.into_iter().filter_map(|name| {
        let (old, new) = (before.get(name).map(sql), after.get(name).map(sql));
        (old != new).then(|| SchemaChange {
            kind: name.0.clone(),
            name: name.1.clone(),
            before: old,
            after: new,
        })
    });
    changes.collect()
}
