//! A backup that is one database: a copy of the file, with the log beside it if there is one.

use crate::disk::jail::Jail;
use crate::disk::jail::Replace;
use crate::disk::node::Attributes;
use crate::disk::node::FileTime;
use crate::disk::node::Problem;
use crate::error::Error;
use crate::error::Result;
use crate::ops::archive::bytes::AGE_SUFFIX;
use crate::ops::archive::bytes::Bytes;
use crate::ops::archive::read_error;
use crate::source;
use crate::source::sqlite;
use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

const BUFFER_BYTES: usize = 256 << 10;
/// Logs of SQLite, in which newer content may be. The index of the log is made again.
const LOGS: [&str; 2] = ["-wal", "-journal"];

/// What was copied.
pub(super) struct Copied {
    pub bytes: u64,
    pub problems: Vec<Problem>,
}

/// Copies a database into the jail, or only looks at it without one. Anything else is refused.
pub(super) fn copy(bytes: &Bytes, jail: Option<&Jail>) -> Result<Copied> {
    let path = bytes.path();
    let mut head = Vec::new();
    let most = sqlite::MAGIC.len().max(source::redb::MAGIC.len()) as u64;
    let read = bytes.reader().take(most).read_to_end(&mut head);
    read.map_err(Error::io("read", path))?;
    if !head.starts_with(&sqlite::MAGIC[..]) && !head.starts_with(&source::redb::MAGIC[..]) {
        let path = path.display();
        let reason = format!("{path} is neither a tar or zip nor a SQLite or redb database");
        return Err(Error::Refused { reason });
    }
    let mut copied = Copied {
        bytes: bytes.len(),
        problems: Vec::new(),
    };
    let Some(jail) = jail else {
        return Ok(copied);
    };
    let place = place(path);
    for (end, _) in place.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        jail.make_dir(&place[..end], Replace::Never)?;
    }
    let before = bytes.sha256()?;
    let mut content = bytes.reader();
    copy_file(&mut content, path, jail, &place, &mut copied)?;
    if bytes.sha256()? != before {
        return Err(Error::corrupt(
            path.display().to_string(),
            "it changed while it was read",
        ));
    }
    for suffix in LOGS {
        let mut log = path.as_os_str().to_os_string();
        log.push(suffix);
        let log = PathBuf::from(log);
        let log_place = [&place[..], suffix.as_bytes()].concat();
        match File::open(&log) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            file => {
                let mut file = file.map_err(Error::io("open", &log))?;
                copy_file(&mut file, &log, jail, &log_place, &mut copied)?;
            }
        }
    }
    Ok(copied)
}

/// Copies a content; its attributes are those of the file at `path`.
fn copy_file(
    content: &mut dyn Read,
    path: &Path,
    jail: &Jail,
    place: &[u8],
    copied: &mut Copied,
) -> Result<()> {
    let metadata = std::fs::metadata(path).map_err(Error::io("read", path))?;
    let copy = jail.begin_file(place)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut offset = 0;
    loop {
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => {
                copy.write_at(offset, &buffer[..len])?;
                offset += len as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(&path.display().to_string())(error)),
        }
    }
    let attributes = Attributes {
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: FileTime {
            secs: metadata.mtime(),
            nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
        },
        xattrs: Vec::new(),
    };
    let problems = copy.finish(&attributes, Replace::Never)?;
    copied.problems.extend(problems);
    Ok(())
}

/// Returns where a database belongs. Chaos Cypher keeps backups of `databases/NAME/app.db` as
/// `backups/NAME/app_….db`, and before migrations as `backups/pre-….db`.
fn place(path: &Path) -> Vec<u8> {
    let file = name(Some(path)).unwrap_or(b"database");
    let file = file.strip_suffix(AGE_SUFFIX.as_bytes()).unwrap_or(file);
    let is_named = file.starts_with(b"app_") || file.starts_with(b"pre-");
    if !is_named || !file.ends_with(b".db") {
        return file.to_vec();
    }
    let dir = path.parent();
    match (name(dir), name(dir.and_then(Path::parent))) {
        (Some(database), Some(b"backups")) => [b"databases/", database, b"/app.db"].concat(),
        _ => b"app.db".to_vec(),
    }
}

fn name(path: Option<&Path>) -> Option<&[u8]> {
    path.and_then(Path::file_name).map(OsStrExt::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_goes_to_where_its_application_has_the_database() {
        let of = |path: &str| String::from_utf8(place(Path::new(path))).unwrap();

        let wanted = "databases/default/app.db";
        assert_eq!(of("/data/backups/default/app_20260601_143022.db"), wanted);
        assert_eq!(of("/tmp/app_20260601_143022.db"), "app.db");
        assert_eq!(of("/data/backups/pre-8f3a-20260601T143022Z.db"), "app.db");
        assert_eq!(of("/tmp/app_20260601_143022.db.age"), "app.db");
        assert_eq!(of("/x/state.redb"), "state.redb");
        assert_eq!(of("mine.db"), "mine.db");
    }
}
