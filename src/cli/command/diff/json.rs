//! Differences for programs: one document, written as they are found.

use crate::cli::command::diff::After;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::json::PathField;
use crate::cli::session::Session;
use crate::error::Result;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::ops::diff;
use crate::ops::diff::Change;
use crate::ops::diff::DatabaseDiff;
use crate::ops::diff::DiffReport;
use crate::ops::diff::Difference;
use crate::ops::diff::RowChange;
use crate::ops::diff::RowKey;
use crate::ops::diff::SchemaChange;
use crate::ops::diff::TableDiff;
use crate::ops::snapshots::Snapshot;
use crate::source::files::Problem;
use serde::Serialize;

#[derive(Serialize)]
struct DifferenceBody<'d> {
    #[serde(flatten)]
    path: PathField,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<SideBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<SideBody>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<DatabaseBody<'d>>,
}

#[derive(Serialize)]
struct SideBody {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    mode: String,
    uid: u32,
    gid: u32,
}

#[derive(Serialize)]
#[serde(untagged)]
enum DatabaseBody<'d> {
    Understood {
        understood: bool,
        user_version_before: i32,
        user_version_after: i32,
        schema: Vec<SchemaBody<'d>>,
        tables: Vec<TableBody<'d>>,
        changed_pages: u64,
        read_bytes: u64,
    },
    NotUnderstood {
        understood: bool,
        reason: &'d str,
    },
}

#[derive(Serialize)]
struct SchemaBody<'d> {
    kind: &'d str,
    name: &'d str,
    #[serde(skip_serializing_if = "Option::is_none")]
    before_sql: Option<&'d str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_sql: Option<&'d str>,
}

#[derive(Serialize)]
struct TableBody<'d> {
    name: &'d str,
    rows_added: u64,
    rows_removed: u64,
    rows_changed: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rows: Vec<RowBody<'d>>,
}

#[derive(Serialize)]
struct RowBody<'d> {
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rowid: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'d str>,
}

#[derive(Serialize)]
struct WarningBody<'d> {
    code: &'d str,
    #[serde(flatten)]
    path: PathField,
    message: &'d str,
}

#[derive(Serialize)]
struct SummaryBody {
    added: u64,
    removed: u64,
    changed: u64,
    attributes: u64,
    types: u64,
    touched: u64,
    added_bytes: u64,
    removed_bytes: u64,
    database_read_bytes: u64,
}

type Visit<'a> = &'a mut dyn FnMut(&Difference) -> Result<()>;

/// Writes the document. If the comparison fails in the middle it still ends well, says
/// `"complete":false`, and carries the error.
pub(super) fn write(
    session: &Session,
    before: &Snapshot,
    after: After<'_>,
    warnings: &[Problem],
    compare: &mut dyn FnMut(Visit<'_>) -> Result<DiffReport>,
) -> Outcome<DiffReport> {
    let output = &session.output;
    let warnings: Vec<WarningBody<'_>> = warnings.iter().map(WarningBody::from).collect();
    let live = match after {
        After::Snapshot(snapshot) => format!("\"after\":\"{}\"", snapshot.id),
        After::Live(_) => "\"after\":null".to_string(),
    };
    let begin = format!(
        "{{\"v\":{},\"type\":\"diff\",\"before\":\"{}\",{live},\"warnings\":{},\"items\":[",
        json::VERSION,
        before.id,
        json::line(&warnings).trim_end()
    );
    let (mut begun, mut separator) = (false, "");
    let compared = compare(&mut |difference| {
        if !begun {
            output.raw(begin.as_bytes())?;
            begun = true;
        }
        output.raw(separator.as_bytes())?;
        output.raw(json::line(&body(difference)).trim_end().as_bytes())?;
        separator = ",";
        Ok(())
    });
    match (compared, begun) {
        (Ok(report), _) => {
            if !begun {
                output.raw(begin.as_bytes())?;
            }
            let summary = json::line(&SummaryBody::from(&report));
            let end = format!("],\"summary\":{},\"complete\":true}}\n", summary.trim_end());
            output.raw(end.as_bytes())?;
            Ok(report)
        }
        (Err(error), false) => Err(error.into()),
        (Err(error), true) => {
            let failure = Failure::from(error);
            let body = json::line(&json::failure_body(&failure));
            let end = format!("],\"complete\":false,\"error\":{}}}\n", body.trim_end());
            output.raw(end.as_bytes())?;
            Err(failure.told())
        }
    }
}

impl<'d> From<&'d Problem> for WarningBody<'d> {
    fn from(problem: &'d Problem) -> WarningBody<'d> {
        WarningBody {
            code: problem.code,
            path: PathField::new(&problem.path),
            message: &problem.message,
        }
    }
}

impl From<&DiffReport> for SummaryBody {
    fn from(report: &DiffReport) -> SummaryBody {
        SummaryBody {
            added: report.added,
            removed: report.removed,
            changed: report.changed,
            attributes: report.attributes,
            types: report.types,
            touched: report.touched,
            added_bytes: report.added_bytes,
            removed_bytes: report.removed_bytes,
            database_read_bytes: report.database_bytes,
        }
    }
}

fn body(difference: &Difference) -> DifferenceBody<'_> {
    let attributes = match (&difference.before, &difference.after) {
        (Some(before), Some(after)) => {
            diff::attributes_that_differ(&before.attributes, &after.attributes)
        }
        _ => Vec::new(),
    };
    DifferenceBody {
        path: PathField::new(&difference.path),
        change: match difference.change {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Content => "content",
            Change::Attributes => "attributes",
            Change::Type => "type",
        },
        before: difference.before.as_ref().map(side),
        after: difference.after.as_ref().map(side),
        attributes,
        database: difference.database.as_ref().map(database),
    }
}

fn side(entry: &Entry) -> SideBody {
    SideBody {
        kind: diff::type_of(&entry.kind),
        size_bytes: match entry.kind {
            Kind::File { size_bytes, .. } => Some(size_bytes),
            _ => None,
        },
        mode: format!("{:04o}", entry.attributes.mode),
        uid: entry.attributes.uid,
        gid: entry.attributes.gid,
    }
}

fn database(diff: &DatabaseDiff) -> DatabaseBody<'_> {
    match diff {
        DatabaseDiff::Understood(tables) => DatabaseBody::Understood {
            understood: true,
            user_version_before: tables.user_version.0,
            user_version_after: tables.user_version.1,
            schema: tables.schema.iter().map(schema).collect(),
            tables: tables.tables.iter().map(table).collect(),
            changed_pages: tables.changed_pages,
            read_bytes: tables.read_bytes,
        },
        DatabaseDiff::NotUnderstood(reason) => DatabaseBody::NotUnderstood {
            understood: false,
            reason,
        },
    }
}

fn schema(change: &SchemaChange) -> SchemaBody<'_> {
    SchemaBody {
        kind: &change.kind,
        name: &change.name,
        before_sql: change.before.as_deref(),
        after_sql: change.after.as_deref(),
    }
}

fn table(table: &TableDiff) -> TableBody<'_> {
    let rows = table.rows.examples.iter().map(|(key, change)| RowBody {
        change: match change {
            RowChange::Added => "added",
            RowChange::Removed => "removed",
            RowChange::Changed => "changed",
        },
        rowid: match key {
            RowKey::Rowid(number) => Some(*number),
            _ => None,
        },
        key: match key {
            RowKey::Values(values) => Some(values),
            _ => None,
        },
    });
    TableBody {
        name: &table.name,
        rows_added: table.rows.added,
        rows_removed: table.rows.removed,
        rows_changed: table.rows.changed,
        rows: rows.collect(),
    }
}
