//! Vacuumed copies of databases, in a directory that nobody else may enter.

use crate::error::Error;
use crate::error::Result;
use crate::ops::export::content::Contents;
use crate::ops::export::content::Source;
use crate::ops::scratch::remove_tree;
use crate::source::private;
use crate::source::sqlite;
use std::fs;
use std::fs::File;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

const BUFFER_BYTES: usize = 256 << 10;

/// A directory of its owner alone, removed in the end.
pub(in crate::ops) struct PrivateDir(PathBuf);

impl PrivateDir {
    pub(in crate::ops) fn create(room: &Path) -> Result<PrivateDir> {
        fs::create_dir_all(room).map_err(Error::io("create", room))?;
        let made = private::create_directory(room);
        made.map(PrivateDir)
            .map_err(Error::io("create a directory in", room))
    }

    pub(in crate::ops) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // What stays has a name that tells what it is, and the next backup removes it.
        let _ = remove_tree(&self.0);
    }
}

/// Makes a vacuumed copy and returns its length and where it is; the inner error says why SQLite
/// cannot.
pub(super) fn compact(
    contents: &mut Contents<'_>,
    source: &Source,
    private: &PrivateDir,
    number: usize,
) -> Result<Result<(u64, PathBuf), String>> {
    let image = private.path().join(format!("{number}.image"));
    let copy = private.path().join(format!("{number}.db"));
    let file = File::create_new(&image).map_err(Error::io("create", &image))?;
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
    contents.write(source, &image.display().to_string(), &mut file)?;
    file.flush().map_err(Error::io("write", &image))?;
    drop(file);
    let vacuumed = sqlite::vacuum_into(&image, &copy);
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = image.clone().into_os_string();
        name.push(suffix);
        let _ = fs::remove_file(name);
    }
    if let Err(why) = vacuumed {
        let _ = fs::remove_file(&copy);
        return Ok(Err(why));
    }
    let size_bytes = fs::metadata(&copy).map_err(Error::io("read", &copy))?.len();
    Ok(Ok((size_bytes, copy)))
}
