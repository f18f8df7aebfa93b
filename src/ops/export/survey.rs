//! The first pass: reads everything, sums it up, and writes the manifest.
//!
//! What it keeps in memory does not grow with the snapshot: the manifest goes into a file without a
//! name.

use crate::codec::sha256::Summing;
use crate::context::Context;
use crate::context::Event;
use crate::disk;
use crate::disk::node::Problem;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::StreamKind;
use crate::format::manifest::Manifest;
use crate::format::tree::Content;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::id::SnapshotId;
use crate::ops::archive;
use crate::ops::archive::Format;
use crate::ops::archive::manifest::MANIFEST_NAME;
use crate::ops::archive::manifest::RootRow;
use crate::ops::export::App;
use crate::ops::export::Databases;
use crate::ops::export::Document;
use crate::ops::export::Export;
use crate::ops::export::ExportOptions;
use crate::ops::export::Layout;
use crate::ops::export::Shape;
use crate::ops::export::compact;
use crate::ops::export::compact::PrivateDir;
use crate::ops::export::content::Contents;
use crate::ops::export::content::Source;
use crate::ops::export::document;
use crate::ops::export::document::About;
use crate::ops::export::walk::Met;
use crate::ops::export::walk::Walk;
use crate::ops::inspect;
use crate::ops::restore::select::Only;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

/// Problems kept; the others are only sent as events.
const WARNINGS_MAX: usize = 10_000;
const ROWS_BUFFER_BYTES: usize = 256 << 10;
/// What others need to read a file, and to read and enter a directory.
const READ: u32 = 0o004;
const READ_AND_ENTER: u32 = 0o005;

pub(super) fn survey<'a>(
    cx: &Context,
    chunks: &Chunks<'_>,
    id: SnapshotId,
    manifest: &'a Manifest,
    options: &'a ExportOptions,
) -> Result<Export<'a>> {
    let only = Only::parse(&options.only)?;
    let app = match options.layout {
        Layout::Snapshot => None,
        Layout::App => Some(App::of(chunks, manifest)?),
    };
    let shape = shape(app, options)?;
    cx.progress.event(Event::Phase("verify"));
    let figures = &manifest.figures;
    let (files, bytes) = (figures.files, figures.total_bytes);
    cx.progress.event(Event::Total { files, bytes });
    let temp_dir = chunks.repo().cache_dir().unwrap_or(&options.temp_dir);
    let mut export = Export {
        manifest,
        options,
        id,
        shape,
        app,
        files: 0,
        others: 0,
        plain_bytes: 0,
        warnings: Vec::new(),
        is_private: options.passphrase.is_some(),
        document: None,
        bare: None,
        compacted: HashMap::new(),
        _private: None,
    };
    if options.databases == Databases::Compacted {
        let private = PrivateDir::create(temp_dir)?;
        compact_all(cx, chunks, manifest, &only, &private, &mut export)?;
        export._private = Some(private);
    }
    let rows = match app.is_none_or(App::has_manifest) {
        true => Some(begin_document(chunks, manifest, &mut export, temp_dir)?),
        false => None,
    };
    let replaced = export.replaced().map(<[u8]>::to_vec);
    let compacted = std::mem::take(&mut export.compacted);
    let walk = Walk {
        cx,
        chunks,
        manifest,
        only: &only,
        format: match shape {
            Shape::Archive(format) => format,
            Shape::Bare => Format::Tar,
        },
        replaced: replaced.as_deref(),
        compacted: &compacted,
    };
    let mut survey = Survey {
        cx,
        contents: Contents::new(cx, chunks, temp_dir),
        rows,
        root: None,
        has_head: false,
        has_rows: false,
        is_any_wanted: false,
        export: &mut export,
    };
    walk.run(&mut |met| survey.take(met))?;
    survey.finish()?;
    export.compacted = compacted;
    Ok(export)
}

fn shape(app: Option<App>, options: &ExportOptions) -> Result<Shape> {
    let shape = match app {
        None => Shape::Archive(options.format.unwrap_or(Format::TarGz)),
        Some(app) => app.shape(),
    };
    match options.format {
        Some(format) if shape != Shape::Archive(format) => Err(Error::Refused {
            reason: format!("the layout of the application is no {format}; leave the format out"),
        }),
        _ => Ok(shape),
    }
}

struct Survey<'s, 'a> {
    cx: &'s Context,
    contents: Contents<'s>,
    rows: Option<BufWriter<File>>,
    root: Option<RootRow>,
    has_head: bool,
    has_rows: bool,
    is_any_wanted: bool,
    export: &'s mut Export<'a>,
}

impl Survey<'_, '_> {
    fn take(&mut self, met: Met<'_>) -> Result<()> {
        let entry = met.entry;
        self.is_any_wanted |= met.is_wanted;
        self.export.is_private |= is_private(entry);
        if entry.path.is_empty() {
            self.root = Some(root_row(self.export.manifest, entry));
            if let Some(document) = &mut self.export.document {
                (document.uid, document.gid) = (entry.attributes.uid, entry.attributes.gid);
            }
            return Ok(());
        }
        if let Some(app) = self.export.app.filter(|_| self.export.shape == Shape::Bare) {
            if met.is_wanted && app.copies(&entry.path, &entry.kind) {
                return self.take_bare(&met);
            }
            return Ok(());
        }
        for (code, message) in &met.losses {
            self.warn(Problem::new(&entry.path, code, message.clone()));
        }
        let left_out = met.losses.iter().find(|(code, _)| *code == "left-out");
        let left_out = left_out.map(|(_, message)| message.as_str());
        let mut sum = None;
        if let Some(member) = &met.member {
            match member.kind {
                archive::Kind::File(size_bytes) => {
                    sum = Some(self.sum(&entry.path, &met.source, size_bytes)?);
                    self.export.files += 1;
                    self.export.plain_bytes += size_bytes;
                }
                _ => self.export.others += 1,
            }
        }
        self.cx.progress.event(Event::Done { files: 1, bytes: 0 });
        let shown = met.member.or_else(|| left_out.map(|_| stand_in(entry)));
        match shown {
            Some(member) => {
                self.add_row(|is_first| document::row(&member, sum, left_out, is_first))
            }
            None => Ok(()),
        }
    }

    fn take_bare(&mut self, met: &Met<'_>) -> Result<()> {
        let path = &met.entry.path;
        if let Some(other) = &self.export.bare {
            let both = [other, path].map(|path| String::from_utf8_lossy(path).into_owned());
            return Err(Error::Ambiguous {
                what: "the database to export".to_string(),
                candidates: both.join(", "),
            });
        }
        if let Some(archive::Kind::File(size_bytes)) = met.member.as_ref().map(|m| &m.kind) {
            self.sum(path, &met.source, *size_bytes)?;
            self.export.files = 1;
            self.export.plain_bytes = *size_bytes;
            self.export.bare = Some(path.clone());
        }
        Ok(())
    }

    fn sum(&mut self, path: &[u8], source: &Source, size_bytes: u64) -> Result<String> {
        let mut summing = Summing::new(io::sink());
        self.contents.write(source, "nowhere", &mut summing)?;
        match summing.bytes == size_bytes {
            true => Ok(summing.sum().to_string()),
            false => {
                let path = String::from_utf8_lossy(path);
                let reason = "it is not as long as its tree says";
                Err(Error::corrupt(format!("\"{path}\""), reason))
            }
        }
    }

    fn warn(&mut self, problem: Problem) {
        self.cx.progress.event(Event::Warning {
            code: problem.code,
            path: problem.path.clone(),
            message: problem.message.clone(),
        });
        if self.export.warnings.len() < WARNINGS_MAX {
            self.export.warnings.push(problem);
        }
    }

    fn add_row(&mut self, row: impl FnOnce(bool) -> Vec<u8>) -> Result<()> {
        self.put_head()?;
        let is_first = !std::mem::replace(&mut self.has_rows, true);
        self.put(&row(is_first))
    }

    /// The root comes first in a tree, so what the head says of it is known by then.
    fn put_head(&mut self) -> Result<()> {
        if self.rows.is_none() || std::mem::replace(&mut self.has_head, true) {
            return Ok(());
        }
        let about = About {
            id: self.export.id,
            app: self.export.app,
            version: self.export.options.version.as_deref(),
            only: &self.export.options.only,
            compacted: self.export.options.databases == Databases::Compacted,
        };
        let head = document::head(self.export.manifest, &about, self.root.take());
        self.put(&head)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if let (Some(rows), Some(document)) = (&mut self.rows, &mut self.export.document) {
            rows.write_all(bytes)
                .map_err(Error::io("write", MANIFEST_NAME))?;
            document.size_bytes += bytes.len() as u64;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let is_bare = self.export.shape == Shape::Bare;
        if is_bare && self.export.bare.is_none() {
            let what = "a database named app.db".to_string();
            return Err(Error::NotFound { what });
        }
        if !self.is_any_wanted && !self.export.options.only.is_empty() {
            let what = format!(
                "anything that matches {}",
                self.export.options.only.join(", ")
            );
            return Err(Error::NotFound { what });
        }
        self.put_head()?;
        self.put(document::tail())?;
        match &mut self.rows {
            Some(rows) => rows.flush().map_err(Error::io("write", MANIFEST_NAME)),
            None => Ok(()),
        }
    }
}

/// Opens the file of the manifest and finds a name for it. Where the snapshot has a file of the
/// same name, the layout of an application puts its own in the place; otherwise both are there.
fn begin_document(
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    export: &mut Export<'_>,
    temp_dir: &Path,
) -> Result<BufWriter<File>> {
    let mut scratch = Scratch::default();
    let mut is_taken = |name: &str| {
        let found = inspect::find_in(chunks, &mut scratch, &manifest.tree, name.as_bytes());
        found.map(|found| found.is_some())
    };
    let (mut name, mut replaces) = (MANIFEST_NAME.to_string(), false);
    if is_taken(&name)? {
        replaces = export.app.is_some();
        let mut number = 1;
        while !replaces && is_taken(&name)? {
            name = match number {
                1 => "MANIFEST.statekeep.json".to_string(),
                number => format!("MANIFEST.statekeep-{number}.json"),
            };
            number += 1;
        }
        if !replaces {
            let message = format!("the snapshot has this file, so that of the archive is {name}");
            let problem = Problem::new(MANIFEST_NAME.as_bytes(), "manifest-name", message);
            export.warnings.push(problem);
        }
    }
    let file = disk::unnamed_file(temp_dir)?;
    let rows = file.try_clone().map_err(Error::io("open", MANIFEST_NAME))?;
    export.document = Some(Document {
        file,
        size_bytes: 0,
        name,
        replaces,
        uid: 0,
        gid: 0,
    });
    Ok(BufWriter::with_capacity(ROWS_BUFFER_BYTES, rows))
}

/// Makes vacuumed copies of all SQLite databases that are wanted. One that cannot be vacuumed is
/// exported as it is, and that is said.
fn compact_all(
    cx: &Context,
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    only: &Only,
    private: &PrivateDir,
    export: &mut Export<'_>,
) -> Result<()> {
    let none = HashMap::new();
    let walk = Walk {
        cx,
        chunks,
        manifest,
        only,
        format: Format::Tar,
        replaced: None,
        compacted: &none,
    };
    let mut contents = Contents::new(cx, chunks, private.path());
    let mut made: HashMap<Vec<u8>, (u64, PathBuf)> = HashMap::new();
    walk.run(&mut |met| {
        let is_bare = export.shape == Shape::Bare;
        let is_copied = !is_bare || App::ChaosCypher.copies(&met.entry.path, &met.entry.kind);
        if !is_sqlite(met.entry) || !met.is_wanted || !is_copied {
            return Ok(());
        }
        let path = &met.entry.path;
        match compact::compact(&mut contents, &met.source, private, made.len())? {
            Ok(copy) => drop(made.insert(path.clone(), copy)),
            Err(why) => {
                let message = format!("exported as it is, because it cannot be vacuumed: {why}");
                export
                    .warnings
                    .push(Problem::new(path, "not-compacted", message));
            }
        }
        Ok(())
    })?;
    export.compacted = made;
    Ok(())
}

fn is_sqlite(entry: &Entry) -> bool {
    match &entry.kind {
        Kind::File {
            content: Content::Stream(stream),
            ..
        } => stream.kind == StreamKind::Sqlite,
        _ => false,
    }
}

fn is_private(entry: &Entry) -> bool {
    let needed = match &entry.kind {
        Kind::Directory => READ_AND_ENTER,
        Kind::Symlink { .. } => 0,
        _ => READ,
    };
    entry.attributes.mode & needed != needed
}

fn root_row(manifest: &Manifest, entry: &Entry) -> RootRow {
    RootRow {
        path: String::from_utf8_lossy(&manifest.root_path).into_owned(),
        path_b64: document::base64_unless_utf8(&manifest.root_path),
        mode: Some(document::octal(entry.attributes.mode)),
        uid: Some(entry.attributes.uid),
        gid: Some(entry.attributes.gid),
        mtime: Some(document::time(entry.modified)),
    }
}

/// Returns what the manifest shows of an entry that is no member.
fn stand_in(entry: &Entry) -> archive::Member {
    archive::Member {
        path: entry.path.clone(),
        kind: match &entry.kind {
            Kind::File { size_bytes, .. } => archive::Kind::File(*size_bytes),
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                archive::Kind::CharDevice(*major, *minor)
            }
            _ => archive::Kind::Fifo,
        },
        mode: entry.attributes.mode,
        uid: entry.attributes.uid,
        gid: entry.attributes.gid,
        modified: entry.modified,
        xattrs: Vec::new(),
    }
}
