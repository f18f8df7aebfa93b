//! Export: a snapshot, or part of it, as one file that other programs read.
//!
//! Everything is read twice (`docs/decisions/0055-exports-read-twice.md`). `prepare` reads it for
//! the manifest, which comes first and has the sum of every file; so a snapshot that is damaged is
//! found out before anything is written. `write` reads it again. The same snapshot and the same
//! program give the same bytes, except where a passphrase is asked for.

pub mod against;
mod compact;
mod content;
mod document;
mod layout;
mod output;
mod survey;
mod walk;

pub(super) use compact::PrivateDir;
pub use layout::App;
pub use layout::Layout;
pub use layout::Shape;
pub use output::ExportReport;
pub use output::record;
pub use output::to_file;
pub use output::to_stream;

use crate::context::Context;
use crate::disk::node::Problem;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::id::SnapshotId;
use crate::ops::archive::Format;
use crate::repo::chunks::Chunks;
use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// What to export, and how.
#[derive(Default)]
pub struct ExportOptions {
    /// The format; `None` for what is usual: a tar.gz, or what the application has.
    pub format: Option<Format>,
    /// The shape.
    pub layout: Layout,
    /// Patterns of what is exported; empty means everything.
    pub only: Vec<String>,
    /// What is done to SQLite databases.
    pub databases: Databases,
    /// The version of the application, for the manifest.
    pub version: Option<String>,
    /// What the file is encrypted with.
    pub passphrase: Option<Zeroizing<String>>,
    /// Where private copies may be for a while, if the repository has no cache.
    pub temp_dir: PathBuf,
}

/// What is done to SQLite databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Databases {
    /// Nothing.
    #[default]
    AsTheyAre,
    /// They are vacuumed.
    Compacted,
}

/// An export that can be written: everything was read once and is sound.
pub struct Export<'a> {
    manifest: &'a Manifest,
    options: &'a ExportOptions,
    /// The snapshot.
    pub id: SnapshotId,
    /// What is written.
    pub shape: Shape,
    /// The application whose layout it is.
    pub app: Option<App>,
    /// Files in it.
    pub files: u64,
    /// Other members: directories, links.
    pub others: u64,
    /// Plain bytes of all files.
    pub plain_bytes: u64,
    /// What the archive cannot hold, or says in another way.
    pub warnings: Vec<Problem>,
    /// Whether it holds anything that not everybody could read.
    pub is_private: bool,
    document: Option<Document>,
    /// The entry that is written as it is.
    bare: Option<Vec<u8>>,
    compacted: HashMap<Vec<u8>, (u64, PathBuf)>,
    /// Where compacted copies are; removed in the end.
    _private: Option<PrivateDir>,
}

/// The manifest of an archive, in a file without a name.
struct Document {
    file: File,
    size_bytes: u64,
    /// What it is called there.
    name: String,
    /// Whether it takes the place of a file of the snapshot.
    replaces: bool,
    uid: u32,
    gid: u32,
}

impl Export<'_> {
    /// Returns the usual name of the file.
    pub fn file_name(&self) -> String {
        let name = layout::file_name(self.manifest, &self.id, self.app, self.shape);
        match self.options.passphrase {
            Some(_) => format!("{name}.age"),
            None => name,
        }
    }

    /// Returns whether the snapshot lacks something that could not be read.
    pub fn is_partial(&self) -> bool {
        self.manifest.partial
    }

    /// Returns whether the same export comes out the same every time.
    pub fn is_reproducible(&self) -> bool {
        self.options.passphrase.is_none()
    }

    fn replaced(&self) -> Option<&[u8]> {
        let document = self.document.as_ref();
        let replaced = document.filter(|document| document.replaces);
        replaced.map(|document| document.name.as_bytes())
    }
}

/// Reads everything that is asked for and makes the manifest. Nothing is written but private copies
/// of databases that are to be compacted.
pub fn prepare<'a>(
    cx: &Context,
    chunks: &Chunks<'_>,
    id: SnapshotId,
    manifest: &'a Manifest,
    options: &'a ExportOptions,
) -> Result<Export<'a>> {
    survey::survey(cx, chunks, id, manifest, options)
}
