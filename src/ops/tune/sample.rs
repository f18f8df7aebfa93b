//! What of the history is replayed, so that it is done in time and fits on the disk.
//!
//! Neighbours, because what changes from one snapshot to the next is what a backup costs; the
//! newest ones, because the next will be like them. If all files are too much, some of them in all
//! these snapshots, chosen by the hash of their path.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::StreamKind;
use crate::format::tree::Content;
use crate::format::tree::Kind;
use crate::id::SnapshotId;
use crate::ops::backup::BackupOptions;
use crate::ops::backup::Source;
use crate::ops::inspect;
use crate::ops::snapshots::Snapshot;
use crate::ops::tune::Subject;
use crate::repo::chunks::Chunks;
use crate::source::files;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of files that are replayed for each second there is. About a dozen ways store all of them
/// and restore them.
const BYTES_PER_SECOND: u64 = 5 << 20;
/// Snapshots for each second there is, if they are small.
const SNAPSHOTS_PER_SECOND: f64 = 0.75;
/// Bytes of files, summed over all steps, for each second there is: they are compared each time.
const STEP_BYTES_PER_SECOND: u64 = 40 << 20;
/// More snapshots show nothing that fewer do not.
const SNAPSHOTS_MAX: u64 = 97;
/// Files that are named one by one.
const FILES_MAX: usize = 1000;

/// What is there to take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub budget: Duration,
    pub bytes_max: u64,
}

/// What is replayed.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Snapshots, oldest first; none for what is there now.
    pub snapshots: Vec<SnapshotId>,
    /// Snapshots there are.
    pub snapshot_count: u64,
    /// Patterns of the files that are replayed; empty for all.
    pub only: Vec<String>,
    /// Their bytes in the newest snapshot.
    pub bytes: u64,
    /// Bytes of all files in it.
    pub total_bytes: u64,
    /// The largest file that is left out, with its length.
    pub left_out: Option<(Vec<u8>, u64)>,
    /// Whether there are SQLite databases among them.
    pub has_sqlite: bool,
    /// Patterns of what is never compressed together with others.
    pub secrets: Vec<String>,
}

/// A file of the newest snapshot.
struct Candidate {
    path: Vec<u8>,
    bytes: u64,
    is_sqlite: bool,
}

/// Chooses.
pub(super) fn choose(cx: &Context, subject: Subject<'_>, limits: Limits) -> Result<Sample> {
    let seconds = limits.budget.as_secs();
    let in_time = BYTES_PER_SECOND.saturating_mul(seconds.max(1));
    let bytes_max = in_time.min(limits.bytes_max);
    match subject {
        Subject::Paths(paths) => of_paths(cx, paths, bytes_max),
        Subject::Snapshots { chunks, snapshots } => {
            let mut sample = of_newest(cx, chunks, snapshots, bytes_max)?;
            let by_count = (limits.budget.as_secs_f64() * SNAPSHOTS_PER_SECOND) as u64;
            let by_bytes = STEP_BYTES_PER_SECOND.saturating_mul(seconds) / sample.bytes.max(1);
            let count = 1 + by_count.min(by_bytes).max(1);
            let count = count.min(SNAPSHOTS_MAX) as usize;
            let newest = &snapshots[snapshots.len().saturating_sub(count)..];
            sample.snapshots = newest.iter().map(|snapshot| snapshot.id).collect();
            sample.snapshot_count = snapshots.len() as u64;
            Ok(sample)
        }
    }
}

fn of_newest(
    cx: &Context,
    chunks: &Chunks<'_>,
    snapshots: &[Snapshot],
    bytes_max: u64,
) -> Result<Sample> {
    let newest = snapshots.last().ok_or_else(|| Error::NotFound {
        what: "a snapshot to replay".to_string(),
    })?;
    let mut all = Vec::new();
    inspect::ls(cx, chunks, &newest.manifest, b"", &mut |entry| {
        if let Kind::File {
            size_bytes,
            content,
        } = &entry.kind
        {
            let is_sqlite = matches!(content, Content::Stream(stream)
                if matches!(stream.kind, StreamKind::Sqlite));
            all.push(Candidate {
                path: entry.path.clone(),
                bytes: *size_bytes,
                is_sqlite,
            });
        }
        Ok(())
    })?;
    let total_bytes = all.iter().map(|file| file.bytes).sum();
    let mut sample = Sample {
        total_bytes,
        bytes: total_bytes,
        has_sqlite: all.iter().any(|file| file.is_sqlite),
        secrets: newest.manifest.rules.secrets.clone(),
        ..Sample::default()
    };
    if total_bytes > bytes_max {
        some(&mut sample, all, bytes_max)?;
    }
    Ok(sample)
}

/// Takes what fits, in the order of the hashes of their paths.
fn some(sample: &mut Sample, mut all: Vec<Candidate>, bytes_max: u64) -> Result<()> {
    all.sort_by_cached_key(|file| *blake3::hash(&file.path).as_bytes());
    (sample.bytes, sample.has_sqlite) = (0, false);
    for file in all {
        // A pattern is text.
        let path = String::from_utf8(file.path.clone()).ok();
        let fits = sample.bytes + file.bytes <= bytes_max && sample.only.len() < FILES_MAX;
        match path.filter(|_| fits) {
            Some(path) => {
                sample.only.push(pattern(&path));
                sample.bytes += file.bytes;
                sample.has_sqlite |= file.is_sqlite;
            }
            None if sample
                .left_out
                .as_ref()
                .is_none_or(|(_, b)| file.bytes > *b) =>
            {
                sample.left_out = Some((file.path, file.bytes));
            }
            None => {}
        }
    }
    match (sample.only.is_empty(), &sample.left_out) {
        (true, Some((_, bytes))) => Err(too_much(*bytes, bytes_max)),
        _ => Ok(()),
    }
}

fn too_much(bytes: u64, bytes_max: u64) -> Error {
    let seconds = (bytes / BYTES_PER_SECOND + 1).next_multiple_of(30);
    Error::Refused {
        reason: format!(
            "{} MiB are too much to replay: there are time and room for {} MiB; \
             --budget {seconds}s would be enough time",
            bytes >> 20,
            bytes_max >> 20
        ),
    }
}

/// Returns a pattern that means one path and nothing else.
fn pattern(path: &str) -> String {
    let mut pattern = String::from('/');
    for c in path.chars() {
        if matches!(
            c,
            '*' | '?' | '[' | ']' | '{' | '}' | '\\' | ' ' | '!' | '#'
        ) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// What is there now is taken as a whole, for a backup takes it so.
fn of_paths(cx: &Context, paths: &[PathBuf], bytes_max: u64) -> Result<Sample> {
    let options = BackupOptions {
        paths: paths.to_vec(),
        ..BackupOptions::default()
    };
    let source = Source::open(&options)?;
    let mut total_bytes = 0;
    for item in source.walk()? {
        cx.check()?;
        let Ok(item) = item else { continue };
        if item.stat.kind == files::Kind::File {
            total_bytes += item.stat.size_bytes;
        }
    }
    match total_bytes > bytes_max {
        true => Err(too_much(total_bytes, bytes_max)),
        false => Ok(Sample {
            bytes: total_bytes,
            total_bytes,
            // Nobody knows before the first backup.
            has_sqlite: true,
            ..Sample::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::files::Rules;

    #[test]
    fn a_pattern_means_one_path_and_nothing_else() {
        for path in ["a", "a b", "d/[x]*", "!a", "#a", "d/\\?{b}", "é"] {
            let rules = Rules::parse(&[pattern(path)]).unwrap();
            assert!(rules.exclude(path.as_bytes(), files::Kind::File), "{path}");
            for other in ["x/a", "dd/[x]*", "d/xy", "b", "d/q"] {
                assert!(
                    !rules.exclude(other.as_bytes(), files::Kind::File),
                    "{path} {other}"
                );
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_the_largest_of_it_is_told() {
        let file = |number: u64| Candidate {
            path: format!("f{number}").into_bytes(),
            bytes: number * 10,
            is_sqlite: number == 9,
        };
        let mut sample = Sample::default();

        some(&mut sample, (1..10).map(file).collect(), 85).unwrap();

        assert!(sample.bytes <= 85 && sample.bytes > 50, "{}", sample.bytes);
        assert_eq!(sample.left_out.unwrap().1, 90);
        assert!(!sample.has_sqlite);
        let nothing = some(&mut Sample::default(), vec![file(9)], 85);
        assert!(matches!(nothing, Err(Error::Refused { .. })));
    }
}
