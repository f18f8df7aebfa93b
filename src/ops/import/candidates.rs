//! Which files are to be imported, in the order of their dates: each backup is then compared with
//! the one before it.

use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::ops::archive::bytes::AGE_SUFFIX;
use crate::ops::archive::checksum::SUM_SUFFIX;
use crate::ops::import::date;
use std::ffi::OsStr;
use std::path::Path;
use std::path::PathBuf;

/// How the names of files end that are taken from a directory.
const ENDINGS: [&str; 8] = [
    ".tar.gz", ".tgz", ".tar.zst", ".tar", ".zip", ".db", ".sqlite", ".redb",
];

/// A file to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The file.
    pub path: PathBuf,
    /// The date in its name.
    pub named_at: Option<Timestamp>,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    /// Files to import.
    pub files: Vec<Candidate>,
    /// Files in directories that do not look like backups.
    pub skipped: Vec<PathBuf>,
}

impl Candidate {
    fn new(path: PathBuf) -> Candidate {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let named_at = date::in_name(&name);
        Candidate { path, named_at }
    }
}

/// Finds the files that are meant: those given, and what lies in the directories given. What lies
/// deeper is not looked at.
pub fn find(paths: &[PathBuf]) -> Result<Candidates> {
    let mut found = Candidates::default();
    for path in paths {
        let metadata = std::fs::metadata(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound {
                what: format!("{}", path.display()),
            },
            _ => Error::io("read", path)(source),
        })?;
        match metadata.is_dir() {
            true => find_in(path, &mut found)?,
            false => found.files.push(Candidate::new(path.clone())),
        }
    }
    let mut dated = Vec::new();
    for candidate in found.files {
        dated.push((date::of_file(&candidate)?.at, candidate));
    }
    dated.sort_by(|a, b| (a.0, &a.1.path).cmp(&(b.0, &b.1.path)));
    dated.dedup_by(|a, b| a.1.path == b.1.path);
    found.files = dated.into_iter().map(|(_, candidate)| candidate).collect();
    found.skipped.sort();
    Ok(found)
}

fn find_in(dir: &Path, found: &mut Candidates) -> Result<()> {
    let before = found.files.len();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        let path = entry.path();
        let is_file = entry
            .file_type()
            .map_err(Error::io("read", &path))?
            .is_file();
        let name = entry.file_name();
        match (is_file, is_backup(&name)) {
            (true, true) => found.files.push(Candidate::new(path)),
            // The sum of another file is no file of its own.
            _ if name.to_string_lossy().ends_with(SUM_SUFFIX) => {}
            _ => found.skipped.push(path),
        }
    }
    match found.files.len() == before {
        true => Err(Error::NotFound {
            what: format!("a backup in {}", dir.display()),
        }),
        false => Ok(()),
    }
}

fn is_backup(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(AGE_SUFFIX).unwrap_or(&name);
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_its_backups_from_old_to_new() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "app_20260602_000000.db",
            "app_20260601_000000.db",
            "app_20260601_000000.db.sha256",
            "notes.txt",
        ] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }

        let found = find(&[dir.path().to_path_buf()]).unwrap();

        let names = |paths: Vec<&PathBuf>| -> Vec<String> {
            let names = paths.into_iter().map(|path| path.file_name().unwrap());
            names
                .map(|name| name.to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(
            names(found.files.iter().map(|file| &file.path).collect()),
            ["app_20260601_000000.db", "app_20260602_000000.db"]
        );
        assert_eq!(names(found.skipped.iter().collect()), ["notes.txt"]);
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(
            find(&[empty.path().to_path_buf()]),
            Err(Error::NotFound { .. })
        ));
    }
}
