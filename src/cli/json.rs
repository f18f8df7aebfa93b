//! The shapes of JSON that more than one command writes, and how values are written.
//!
//! Every object begins with `v` and `type`. Fields are structs, not maps, so their order is fixed.

use crate::cli::failure::Failure;
use crate::cli::text;
use crate::context::Timestamp;
use crate::format::database::DatabaseRecord;
use crate::format::database::Engine;
use crate::format::database::Method;
use crate::format::database::Verdict;
use crate::format::note::HoldUntil;
use crate::format::note::Loss;
use crate::id::SnapshotId;
use crate::ops::snapshots::Snapshot;
use serde::Serialize;

/// The version of every shape here: raised when a field changes its meaning or goes away.
pub(super) const VERSION: u32 = 1;

/// An object with its version and type.
#[derive(Debug, Serialize)]
pub(super) struct Document<T> {
    v: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    body: T,
}

/// Returns an object of this type.
pub(super) fn document<T: Serialize>(kind: &'static str, body: T) -> Document<T> {
    Document {
        v: VERSION,
        kind,
        body,
    }
}

/// Returns a value as one line.
pub(super) fn line(value: &impl Serialize) -> String {
    // Invariant: no map with keys other than strings is ever written, so this cannot fail.
    let mut line = serde_json::to_string(value).unwrap_or_else(|_| "null".to_string());
    line.push('\n');
    line
}

/// A path: as text, and in full beside it if it is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PathField {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
}

impl PathField {
    /// Returns the fields of a path.
    pub(super) fn new(bytes: &[u8]) -> PathField {
        PathField {
            path: String::from_utf8_lossy(bytes).into_owned(),
            path_b64: std::str::from_utf8(bytes).err().map(|_| base64(bytes)),
        }
    }
}

/// The first line of an operation.
#[derive(Debug, Serialize)]
pub(super) struct Start {
    op: &'static str,
    time: String,
}

/// Returns the first line of an operation.
pub(super) fn start(op: &'static str, now: Timestamp) -> Document<Start> {
    let time = text::rfc3339(now);
    document("start", Start { op, time })
}

/// A problem with a source.
#[derive(Debug, Serialize)]
pub(super) struct WarningLine<'a> {
    code: &'a str,
    #[serde(flatten)]
    path: PathField,
    message: &'a str,
}

/// Returns a problem with a source.
pub(super) fn warning<'a>(
    code: &'a str,
    path: &[u8],
    message: &'a str,
) -> Document<WarningLine<'a>> {
    let path = PathField::new(path);
    document(
        "warning",
        WarningLine {
            code,
            path,
            message,
        },
    )
}

/// How a command failed.
#[derive(Debug, Serialize)]
pub(super) struct FailureBody<'a> {
    code: &'a str,
    exit: u8,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

/// Returns how a command failed, to be put into another document.
pub(super) fn failure_body(failure: &Failure) -> FailureBody<'_> {
    FailureBody {
        code: failure.code,
        exit: failure.exit,
        message: &failure.message,
        hint: failure.next_step(),
    }
}

/// Returns the last line of a command that failed.
pub(super) fn failure(failure: &Failure) -> Document<FailureBody<'_>> {
    document("error", failure_body(failure))
}

/// A snapshot.
#[derive(Debug, Serialize)]
pub(super) struct SnapshotBody {
    id: String,
    created_at: String,
    seconds: f64,
    host: String,
    profile: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    root: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_b64: Option<String>,
    included: Vec<PathField>,
    partial: bool,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<HoldBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<ProofBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    #[serde(flatten)]
    figures: FiguresBody,
    program: String,
}

/// Until when a snapshot may not be removed.
#[derive(Debug, Serialize)]
struct HoldBody {
    /// Absent: until it is released.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

/// The last time a snapshot was restored and checked.
#[derive(Debug, Serialize)]
struct ProofBody {
    at: String,
    result: String,
}

/// What a backup counted.
#[derive(Debug, Serialize)]
pub(super) struct FiguresBody {
    files: u64,
    new_files: u64,
    changed_files: u64,
    directories: u64,
    total_bytes: u64,
    read_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    warnings: u64,
}

impl From<&crate::format::manifest::Figures> for FiguresBody {
    fn from(figures: &crate::format::manifest::Figures) -> FiguresBody {
        FiguresBody {
            files: figures.files,
            new_files: figures.new_files,
            changed_files: figures.changed_files,
            directories: figures.directories,
            total_bytes: figures.total_bytes,
            read_bytes: figures.read_bytes,
            new_bytes: figures.new_bytes,
            stored_bytes: figures.stored_bytes,
            warnings: figures.warnings,
        }
    }
}

impl From<&Snapshot> for SnapshotBody {
    fn from(snapshot: &Snapshot) -> SnapshotBody {
        let manifest = &snapshot.manifest;
        let root = PathField::new(&manifest.root_path);
        SnapshotBody {
            id: snapshot.id.to_string(),
            created_at: text::rfc3339(manifest.started_at),
            seconds: seconds(manifest.duration_ms),
            host: manifest.host.clone(),
            profile: manifest.profile.clone(),
            scope: manifest.scope.clone(),
            root: root.path,
            root_b64: root.path_b64,
            included: manifest
                .included
                .iter()
                .map(|p| PathField::new(p))
                .collect(),
            partial: manifest.partial,
            tags: snapshot.tags.clone(),
            hold: snapshot.hold.map(|hold| HoldBody {
                until: match hold {
                    HoldUntil::Time(time) => Some(text::rfc3339(time)),
                    HoldUntil::Released => None,
                },
            }),
            proof: snapshot.proof.as_ref().map(|proof| ProofBody {
                at: text::rfc3339(proof.at),
                result: proof.result.clone(),
            }),
            parent: manifest.parent.map(|id| id.to_string()),
            figures: (&manifest.figures).into(),
            program: manifest.program.clone(),
        }
    }
}

/// What of a snapshot is lost.
#[derive(Debug, Serialize)]
pub(super) struct LossBody {
    snapshot: String,
    path_count: u64,
    paths: Vec<PathField>,
}

/// Returns what of a snapshot is lost.
pub(super) fn loss(snapshot: &SnapshotId, loss: &Loss) -> LossBody {
    LossBody {
        snapshot: snapshot.to_string(),
        path_count: loss.count,
        paths: loss.paths.iter().map(|path| PathField::new(path)).collect(),
    }
}

/// A database in a snapshot.
#[derive(Debug, Serialize)]
pub(super) struct DatabaseBody {
    #[serde(flatten)]
    path: PathField,
    engine: &'static str,
    method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured_at: Option<String>,
    held_seconds: f64,
    skew_seconds: f64,
    page_bytes: u64,
    pages: u64,
    version: u64,
    user_version: i32,
    application_id: i32,
    wal: bool,
    wal_growth_bytes: u64,
    check: &'static str,
}

impl From<&DatabaseRecord> for DatabaseBody {
    fn from(record: &DatabaseRecord) -> DatabaseBody {
        let is_captured = record.method != Method::PlainFiles;
        DatabaseBody {
            path: PathField::new(&record.path),
            engine: match record.engine {
                Engine::Sqlite => "sqlite",
                Engine::Redb => "redb",
                Engine::Sled => "sled",
            },
            method: match record.method {
                Method::Transaction => "transaction",
                Method::Walk => "walk",
                Method::PrivateCopy => "private-copy",
                Method::PlainFiles => "plain-files",
            },
            captured_at: is_captured.then(|| text::rfc3339(record.captured_at)),
            held_seconds: record.duration_us as f64 / 1e6,
            skew_seconds: record.skew_us as f64 / 1e6,
            page_bytes: record.page_bytes,
            pages: record.pages,
            version: record.version,
            // SQLite has them as signed numbers.
            user_version: record.user_version.cast_signed(),
            application_id: record.application_id.cast_signed(),
            wal: record.wal,
            wal_growth_bytes: record.wal_growth_bytes,
            check: match record.verdict {
                Verdict::Unchecked => "none",
                Verdict::Passed => "passed",
                Verdict::Failed => "failed",
            },
        }
    }
}

/// Returns milliseconds as seconds.
pub(super) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Returns base64 as RFC 4648 has it, padded.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            match digit <= group.len() {
                true => out.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize])),
                false => out.push('='),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        let table = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in table {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe]), "//4=");
    }

    #[test]
    fn a_path_that_is_not_utf8_is_there_in_full_beside() {
        assert_eq!(
            line(&warning("changed", b"a\xff", "again")),
            "{\"v\":1,\"type\":\"warning\",\"code\":\"changed\",\
             \"path\":\"a\u{fffd}\",\"path_b64\":\"Yf8=\",\"message\":\"again\"}\n"
        );
        assert_eq!(
            line(&PathField::new("ü\n".as_bytes())),
            "{\"path\":\"ü\\n\"}\n"
        );
    }

    #[test]
    fn a_failure_has_its_codes_and_its_hint_only_if_there_is_one() {
        let bare = Failure::new("busy", 11, "x");
        let hinted = Failure::usage("y").hint("z");

        assert_eq!(
            line(&failure(&bare)),
            "{\"v\":1,\"type\":\"error\",\"code\":\"busy\",\"exit\":11,\"message\":\"x\"}\n"
        );
        assert!(line(&failure(&hinted)).contains("\"hint\":\"z\""));
    }
}
