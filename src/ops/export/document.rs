//! MANIFEST.json: what is in an archive, for people, other programs, and our own import.
//!
//! One object; the files come last, one on each line. Its fields are described in `docs/export.md`
//! and are only ever added to. It says nothing of the run that made the archive, so that the same
//! snapshot gives the same bytes.

use crate::format::manifest::Manifest;
use crate::format::tree::FileTime;
use crate::id::SnapshotId;
use crate::ops::archive::Kind;
use crate::ops::archive::Member;
use crate::ops::archive::manifest::MANIFEST_TYPE;
use crate::ops::archive::manifest::RootRow;
use crate::ops::export::layout::App;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// The program, as manifests name it.
pub(super) const PROGRAM: &str = concat!("statekeep ", env!("CARGO_PKG_VERSION"));

/// Everything but the files.
#[derive(Debug, Serialize)]
struct Head {
    v: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    snapshot: String,
    timestamp: String,
    scope: String,
    /// Of the application, if somebody said it.
    version: Option<String>,
    application: String,
    host: String,
    root: RootRow,
    partial: bool,
    compacted: bool,
    only: Vec<String>,
    /// What wrote the snapshot.
    program: String,
    /// What wrote the archive.
    exporter: &'static str,
}

/// One file.
#[derive(Debug, Serialize)]
struct FileRow<'a> {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    mode: String,
    uid: u32,
    gid: u32,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_b64: Option<String>,
    /// It is no member, for this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<&'a str>,
}

/// What the head says beyond the snapshot's own manifest.
pub(super) struct About<'a> {
    pub id: SnapshotId,
    pub app: Option<App>,
    pub version: Option<&'a str>,
    pub only: &'a [String],
    pub compacted: bool,
}

/// Returns what of an application a snapshot holds, in the words of Hoziron if it is for it.
pub(super) fn scope(manifest: &Manifest, app: Option<App>) -> String {
    match (&*manifest.scope, app) {
        ("", _) => "full".to_string(),
        ("agents", Some(App::Hoziron)) => "agents-only".to_string(),
        (scope, _) => scope.to_string(),
    }
}

/// Returns the start of the document, up to the files.
pub(super) fn head(manifest: &Manifest, about: &About<'_>, root: Option<RootRow>) -> Vec<u8> {
    let started_at = FileTime {
        seconds: manifest.started_at.0.div_euclid(1_000_000_000),
        nanoseconds: match about.app {
            // The applications have whole seconds.
            Some(_) => 0,
            None => u32::try_from(manifest.started_at.0.rem_euclid(1_000_000_000)).unwrap_or(0),
        },
    };
    let snapshot = about.id.to_string();
    let head = Head {
        v: 1,
        kind: MANIFEST_TYPE,
        id: match about.app {
            Some(_) => uuid(&snapshot),
            None => snapshot.clone(),
        },
        snapshot,
        timestamp: time(started_at),
        scope: scope(manifest, about.app),
        version: (about.version.map(str::to_string))
            .or_else(|| Some(manifest.app_version.clone()).filter(|version| !version.is_empty())),
        application: manifest.profile.clone(),
        host: manifest.host.clone(),
        root: root.unwrap_or_else(|| RootRow {
            path: String::from_utf8_lossy(&manifest.root_path).into_owned(),
            path_b64: base64_unless_utf8(&manifest.root_path),
            mode: None,
            uid: None,
            gid: None,
            mtime: None,
        }),
        partial: manifest.partial,
        compacted: about.compacted,
        only: about.only.to_vec(),
        program: manifest.program.clone(),
        exporter: PROGRAM,
    };
    // Invariant: no map with keys other than strings, so this cannot fail.
    let mut text = serde_json::to_string_pretty(&head).unwrap_or_default();
    text.truncate(text.trim_end_matches('}').trim_end().len());
    text.push_str(",\n  \"files\": [");
    text.into_bytes()
}

/// Returns the row of an entry; `sum` is that of its content.
pub(super) fn row(
    member: &Member,
    sum: Option<String>,
    left_out: Option<&str>,
    is_first: bool,
) -> Vec<u8> {
    let (kind, size_bytes, target) = match &member.kind {
        Kind::Directory => ("directory", None, None),
        Kind::File(size_bytes) => ("file", Some(*size_bytes), None),
        Kind::Symlink(target) => ("symlink", None, Some(target)),
        Kind::HardLink(path) => ("hard-link", None, Some(path)),
        Kind::Fifo => ("fifo", None, None),
        Kind::CharDevice(..) | Kind::BlockDevice(..) => ("device", None, None),
    };
    let row = FileRow {
        path: String::from_utf8_lossy(&member.path).into_owned(),
        path_b64: base64_unless_utf8(&member.path),
        kind,
        size_bytes,
        mode: octal(member.mode),
        uid: member.uid,
        gid: member.gid,
        mtime: time(member.modified),
        sha256: sum,
        target: target.map(|target| String::from_utf8_lossy(target).into_owned()),
        target_b64: target.and_then(|target| base64_unless_utf8(target)),
        left_out,
    };
    let comma = if is_first { "" } else { "," };
    // Invariant: as above.
    let text = serde_json::to_string(&row).unwrap_or_default();
    format!("{comma}\n    {text}").into_bytes()
}

/// Returns the end of the document.
pub(super) fn tail() -> &'static [u8] {
    b"\n  ]\n}\n"
}

/// Returns a mode as `chmod` takes it.
pub(super) fn octal(mode: u32) -> String {
    format!("{:04o}", mode & 0o7777)
}

/// Returns a time as RFC 3339 has it, or in seconds if it has not.
pub(super) fn time(time: FileTime) -> String {
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or(0);
    match jiff::Timestamp::new(time.seconds, nanoseconds) {
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => time.seconds.to_string(),
    }
}

/// Returns bytes in base64, if they are not text.
pub(super) fn base64_unless_utf8(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes)
        .err()
        .map(|_| STANDARD.encode(bytes))
}

/// Returns the first half of an id in the shape that ids of the applications have.
fn uuid(id: &str) -> String {
    let part = |range| id.get(range).unwrap_or_default();
    let parts = [
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32),
    ];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Timestamp;
    use crate::ops::archive::manifest::path_bytes;

    #[test]
    fn the_document_is_json_and_has_the_fields_of_the_applications() {
        let manifest = Manifest {
            started_at: Timestamp(1_780_000_000_123_000_000),
            profile: "hoziron".into(),
            root_path: b"/srv/\xff".to_vec(),
            partial: true,
            scope: "agents".into(),
            app_version: "2.1".into(),
            ..Manifest::default()
        };
        let about = About {
            id: SnapshotId([0xa1; 32]),
            app: Some(App::Hoziron),
            version: None,
            only: &[],
            compacted: false,
        };
        let member = Member {
            path: b"a\xff".to_vec(),
            kind: Kind::File(3),
            mode: 0o600,
            uid: 0,
            gid: 0,
            modified: FileTime::default(),
            xattrs: Vec::new(),
        };
        let text = [
            head(&manifest, &about, None),
            row(&member, Some("00".into()), None, true),
            row(&member, None, Some("socket"), false),
            tail().to_vec(),
        ];

        let value: serde_json::Value = serde_json::from_slice(&text.concat()).unwrap();

        assert_eq!(value["id"], "a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1");
        assert_eq!(value["timestamp"], "2026-05-28T20:26:40Z");
        assert_eq!(
            (&value["scope"], &value["version"]),
            (&"agents-only".into(), &"2.1".into())
        );
        assert_eq!(value["partial"], true);
        assert_eq!(value["files"][0]["mode"], "0600");
        let encoded = value["files"][0]["path_b64"].as_str();
        assert_eq!(path_bytes("a\u{fffd}", encoded).unwrap(), b"a\xff");
        assert_eq!(value["files"][1]["left_out"], "socket");
    }
}
