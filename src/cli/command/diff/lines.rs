//! Differences for people: one line each, what came or went with a directory in one.

use crate::cli::output::Output;
use crate::cli::text;
use crate::disk::beneath;
use crate::error::Result;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::ops::diff;
use crate::ops::diff::Change;
use crate::ops::diff::DatabaseDiff;
use crate::ops::diff::DiffReport;
use crate::ops::diff::Difference;
use crate::ops::diff::RowChange;
use crate::ops::diff::RowDiff;
use crate::ops::diff::RowKey;
use crate::ops::diff::SchemaChange;
use crate::ops::diff::TableDiffs;

/// Longer keys of rows are cut.
const KEY_CHARS_MAX: usize = 48;

/// Tells differences as they are found.
pub(super) struct Lines<'o> {
    output: &'o Output,
    is_verbose: bool,
    /// A directory that came or went, while what is in it follows.
    whole: Option<Whole>,
}

struct Whole {
    path: Vec<u8>,
    change: Change,
    files: u64,
    file_bytes: u64,
}

impl<'o> Lines<'o> {
    pub(super) fn new(output: &'o Output, is_verbose: bool) -> Lines<'o> {
        Lines {
            output,
            is_verbose,
            whole: None,
        }
    }

    /// Tells one difference.
    pub(super) fn difference(&mut self, difference: &Difference) -> Result<()> {
        let entry = difference.after.as_ref().or(difference.before.as_ref());
        let Some(entry) = entry else {
            return Ok(());
        };
        if let Some(whole) = &mut self.whole
            && whole.change == difference.change
            && beneath::is_within(&difference.path, &whole.path)
        {
            whole.files += u64::from(entry.kind != Kind::Directory);
            whole.file_bytes += size(entry);
            return Ok(());
        }
        self.end_whole()?;
        let is_whole = matches!(difference.change, Change::Added | Change::Removed);
        if is_whole && entry.kind == Kind::Directory && !self.is_verbose {
            self.whole = Some(Whole {
                path: difference.path.clone(),
                change: difference.change,
                files: 0,
                file_bytes: 0,
            });
            return Ok(());
        }
        self.output.line(line(difference, entry))?;
        match &difference.database {
            Some(DatabaseDiff::Understood(tables)) => {
                for line in database_lines(tables, self.is_verbose) {
                    self.output.line(line)?;
                }
            }
            Some(DatabaseDiff::NotUnderstood(why)) => {
                let why = text::safe(why);
                self.output.line(format!("    compared as a file: {why}"))?;
            }
            None => {}
        }
        Ok(())
    }

    /// Tells how much it was in all.
    pub(super) fn finish(mut self, report: &DiffReport) -> Result<()> {
        self.end_whole()?;
        if self.output.is_quiet {
            return Ok(());
        }
        let touched = match report.touched {
            0 => String::new(),
            count => format!("; {} only touched", text::count(count, "file", "files")),
        };
        if report.differences() == 0 {
            return self.output.line(format!("No differences{touched}"));
        }
        let parts = [
            (report.added, "added"),
            (report.removed, "removed"),
            (report.changed, "changed"),
            (report.attributes, "with other attributes"),
            (report.types, "of another type"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> = parts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        self.output.line(format!("{}{touched}", parts.join(", ")))
    }

    fn end_whole(&mut self) -> Result<()> {
        let Some(whole) = self.whole.take() else {
            return Ok(());
        };
        let path = text::path(&whole.path);
        let files = text::count(whole.files, "file", "files");
        let size = text::size(whole.file_bytes);
        let sign = sign(whole.change);
        let inside = match whole.files {
            0 => String::new(),
            _ => format!("  {files}, {size}"),
        };
        self.output.line(format!("{sign} {path}/{inside}"))
    }
}

/// `+`, `-`, `~` for content, `a` for attributes, `t` for the type.
fn sign(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Content => '~',
        Change::Attributes => 'a',
        Change::Type => 't',
    }
}

fn size(entry: &Entry) -> u64 {
    match entry.kind {
        Kind::File { size_bytes, .. } => size_bytes,
        _ => 0,
    }
}

fn line(difference: &Difference, entry: &Entry) -> String {
    let slash = if entry.kind == Kind::Directory {
        "/"
    } else {
        ""
    };
    let path = match &difference.path[..] {
        b"" => ".".to_string(),
        path => text::path(path),
    };
    let mut line = format!("{} {path}{slash}", sign(difference.change));
    match (&difference.before, &difference.after, difference.change) {
        (Some(before), Some(after), Change::Attributes) => {
            let (old, new) = (&before.attributes, &after.attributes);
            let names = diff::attributes_that_differ(old, new).join(", ");
            line.push_str(&format!("  {names}"));
            if old.mode != new.mode {
                line.push_str(&format!(" {:04o} → {:04o}", old.mode, new.mode));
            }
        }
        (Some(before), Some(after), Change::Type) => {
            let (old, new) = (diff::type_of(&before.kind), diff::type_of(&after.kind));
            line.push_str(&format!("  {old} → {new}"));
        }
        (Some(before), Some(after), Change::Content) if size(before) != size(after) => {
            let (old, new) = (text::size(size(before)), text::size(size(after)));
            match old == new {
                true => line.push_str(&format!("  {new}")),
                false => line.push_str(&format!("  {old} → {new}")),
            }
        }
        _ if matches!(entry.kind, Kind::File { .. }) => {
            line.push_str(&format!("  {}", text::size(size(entry))));
        }
        _ => {}
    }
    line
}

fn database_lines(tables: &TableDiffs, is_verbose: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if tables.user_version.0 != tables.user_version.1 {
        let (old, new) = tables.user_version;
        lines.push(format!("    user_version {old} → {new}"));
    }
    for change in &tables.schema {
        lines.extend(schema_lines(change, is_verbose));
    }
    for table in &tables.tables {
        if !table.rows.is_empty() {
            let name = text::safe(&table.name);
            lines.push(format!("    {name}: {}", row_counts(&table.rows)));
            lines.extend(table.rows.examples.iter().map(example_line));
        }
    }
    if tables.is_empty() {
        let pages = text::count(tables.changed_pages, "page", "pages");
        lines.push(format!("    no row and no schema differs, {pages} do"));
    }
    lines
}

fn schema_lines(change: &SchemaChange, is_verbose: bool) -> Vec<String> {
    let what = match (&change.before, &change.after) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    let (kind, name) = (text::safe(&change.kind), text::safe(&change.name));
    let mut lines = vec![format!("    {kind} {name} {what}")];
    let is_changed = what == "changed";
    let mut declared = |sign: char, sql: &Option<String>| {
        let sql = sql.iter().filter(|_| is_verbose || is_changed);
        for line in sql.flat_map(|sql| sql.lines()) {
            lines.push(format!("      {sign} {}", text::safe(line)));
        }
    };
    declared('-', &change.before);
    declared('+', &change.after);
    lines
}

fn row_counts(rows: &RowDiff) -> String {
    let counts = [
        (rows.added, "added"),
        (rows.removed, "removed"),
        (rows.changed, "changed"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let all = rows.added + rows.removed + rows.changed;
    format!(
        "{} {}",
        if all == 1 { "row" } else { "rows" },
        counts.join(", ")
    )
}

fn example_line((key, change): &(RowKey, RowChange)) -> String {
    let sign = match change {
        RowChange::Added => '+',
        RowChange::Removed => '-',
        RowChange::Changed => '~',
    };
    let key = match key {
        RowKey::Rowid(number) => format!("rowid {number}"),
        RowKey::Values(values) => text::safe(values),
        RowKey::Sum(_) => "(a long key)".to_string(),
    };
    match key.chars().count() > KEY_CHARS_MAX {
        false => format!("      {sign} {key}"),
        true => {
            let start: String = key.chars().take(KEY_CHARS_MAX).collect();
            format!("      {sign} {start}…")
        }
    }
}
