//! `ls` and `cat`: files in a snapshot.

use crate::cli::args::CatArgs;
use crate::cli::args::LsArgs;
use crate::cli::command::DONE;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::json::PathField;
use crate::cli::session::Session;
use crate::cli::text;
use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::id::SnapshotId;
use crate::ops::inspect;
use crate::ops::snapshots::split_path;
use crate::repo::chunks::Chunks;
use serde::Serialize;
use std::os::unix::ffi::OsStrExt;

#[derive(Serialize)]
struct EntryBody {
    #[serde(flatten)]
    path: PathField,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    mode: String,
    uid: u32,
    gid: u32,
    modified_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<PathField>,
}

/// Lists files.
pub(super) fn ls(session: &Session, args: &LsArgs) -> Outcome<u8> {
    let (reference, path) = split_path(args.reference.as_bytes());
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let snapshot = session.resolve(&snapshots, reference)?;
    let chunks = Chunks::open_following(&session.cx, &repo, &state.packs)?;
    let path = path.unwrap_or_default();
    let result = match session.output.is_json() {
        true => ls_json(session, &snapshot.id, &mut |visit| {
            inspect::ls(&session.cx, &chunks, &snapshot.manifest, path, visit)
        }),
        false => {
            let mut print = |entry: &Entry| session.output.line(row(entry, session));
            inspect::ls(&session.cx, &chunks, &snapshot.manifest, path, &mut print)
                .map_err(Failure::from)
        }
    };
    chunks.save_index();
    result.map(|()| DONE)
}

type Visit<'a> = &'a mut dyn FnMut(&Entry) -> Result<()>;

/// Writes one document piece by piece, however many entries there are. If the walk fails in the
/// middle the document still ends well, says `"complete":false`, and carries the error.
fn ls_json(
    session: &Session,
    snapshot: &SnapshotId,
    walk: &mut dyn FnMut(Visit<'_>) -> Result<()>,
) -> Outcome<()> {
    let output = &session.output;
    let version = json::VERSION;
    let mut separator = "";
    let mut begun = false;
    let begin =
        format!("{{\"v\":{version},\"type\":\"files\",\"snapshot\":\"{snapshot}\",\"items\":[");
    let walked = walk(&mut |entry| {
        if !begun {
            output.raw(begin.as_bytes())?;
            begun = true;
        }
        let body = json::line(&entry_body(entry));
        output.raw(separator.as_bytes())?;
        output.raw(body.trim_end().as_bytes())?;
        separator = ",";
        Ok(())
    });
    match (walked, begun) {
        (Ok(()), _) => {
            if !begun {
                output.raw(begin.as_bytes())?;
            }
            output.raw(b"],\"complete\":true}\n")?;
            Ok(())
        }
        (Err(error), false) => Err(error.into()),
        (Err(error), true) => {
            let failure = Failure::from(error);
            let body = json::line(&json::failure_body(&failure));
            output.raw(b"],\"complete\":false,\"error\":")?;
            output.raw(body.trim_end().as_bytes())?;
            output.raw(b"}\n")?;
            Err(failure.told())
        }
    }
}

fn entry_body(entry: &Entry) -> EntryBody {
    let attributes = &entry.attributes;
    let (kind, size_bytes, target) = match &entry.kind {
        Kind::Directory => ("directory", None, None),
        Kind::File { size_bytes, .. } => ("file", Some(*size_bytes), None),
        Kind::Symlink { target } => ("symlink", None, Some(target)),
        Kind::HardLink { path } => ("hardlink", None, Some(path)),
        Kind::Fifo => ("fifo", None, None),
        Kind::Socket => ("socket", None, None),
        Kind::CharDevice { .. } => ("char-device", None, None),
        Kind::BlockDevice { .. } => ("block-device", None, None),
    };
    EntryBody {
        path: PathField::new(&entry.path),
        kind,
        size_bytes,
        mode: format!("{:04o}", attributes.mode),
        uid: attributes.uid,
        gid: attributes.gid,
        modified_at: text::rfc3339(modified(entry)),
        target: target.map(|target| PathField::new(target)),
    }
}

fn modified(entry: &Entry) -> Timestamp {
    let seconds_ns = entry.modified.seconds.saturating_mul(1_000_000_000);
    Timestamp(seconds_ns.saturating_add(i64::from(entry.modified.nanoseconds)))
}

fn row(entry: &Entry, session: &Session) -> String {
    let (letter, size, rest) = match &entry.kind {
        Kind::Directory => ('d', String::new(), "/".to_string()),
        Kind::File { size_bytes, .. } => ('-', text::size(*size_bytes), String::new()),
        Kind::Symlink { target } => ('l', String::new(), format!(" -> {}", text::path(target))),
        Kind::HardLink { path } => ('h', String::new(), format!(" = {}", text::path(path))),
        Kind::Fifo => ('p', String::new(), String::new()),
        Kind::Socket => ('s', String::new(), String::new()),
        Kind::CharDevice { major, minor } => ('c', format!("{major}, {minor}"), String::new()),
        Kind::BlockDevice { major, minor } => ('b', format!("{major}, {minor}"), String::new()),
    };
    let path = match &entry.path[..] {
        b"" => ".".to_string(),
        path => text::path(path),
    };
    let time = text::local(modified(entry), &session.zone);
    let mode = entry.attributes.mode;
    format!("{letter}{mode:04o}  {size:>10}  {time}  {path}{rest}")
}

/// Writes one file to standard output.
pub(super) fn cat(session: &Session, args: &CatArgs) -> Outcome<u8> {
    if session.output.is_json() {
        return Err(Failure::usage(
            "cat writes the file itself and has no JSON form",
        ));
    }
    let (reference, path) = split_path(args.reference.as_bytes());
    let path = path.filter(|path| !path.is_empty()).ok_or_else(|| {
        let example = format!("{}:PATH", String::from_utf8_lossy(reference));
        Failure::usage("no file is named").hint(session.command_hint(&format!("cat {example}")))
    })?;
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let snapshot = session.resolve(&snapshots, reference)?;
    let chunks = Chunks::open_following(&session.cx, &repo, &state.packs)?;
    let mut writer = session.output.writer();
    let temp_dir = &session.environment.temp_dir;
    let written = inspect::cat(
        &session.cx,
        &chunks,
        &snapshot.manifest,
        path,
        temp_dir,
        &mut writer,
    );
    chunks.save_index();
    written.map_err(name_stdout)?;
    Ok(DONE)
}

/// The operation does not know where its output goes.
fn name_stdout(error: Error) -> Error {
    match error {
        Error::Io {
            action: "write",
            path,
            source,
        } if path.as_os_str() == "the output" => {
            Error::io("write", crate::cli::failure::STDOUT)(source)
        }
        error => error,
    }
}
