//! The second pass: writes the archive, its sum beside it, and what was made into the log.

use crate::codec::age_file;
use crate::codec::sha256::Sha256Sum;
use crate::codec::sha256::Summing;
use crate::context::Context;
use crate::context::Event;
use crate::disk::output::Existing;
use crate::disk::output::OutputFile;
use crate::disk::output::Readers;
use crate::error::Error;
use crate::error::Result;
use crate::format::note;
use crate::format::note::Note;
use crate::format::tree::FileTime;
use crate::ops::archive;
use crate::ops::archive::Format;
use crate::ops::archive::Member;
use crate::ops::archive::blocks;
use crate::ops::archive::blocks::Packing;
use crate::ops::archive::checksum;
use crate::ops::archive::tar_writer::TarWriter;
use crate::ops::archive::zip_writer::ZipWriter;
use crate::ops::export::Document;
use crate::ops::export::Export;
use crate::ops::export::Shape;
use crate::ops::export::content::Contents;
use crate::ops::export::walk::Walk;
use crate::ops::notes;
use crate::ops::restore::select::Only;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use std::io::BufWriter;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

const BUFFER_BYTES: usize = 256 << 10;
/// How an export without a file is called in the log.
const STREAM_NAME: &str = "-";

/// What an export wrote.
#[derive(Debug, Clone)]
pub struct ExportReport {
    /// The sum of the archive.
    pub sha256: Sha256Sum,
    /// Its length.
    pub archive_bytes: u64,
    /// Where it is; `None` if it went into a stream.
    pub path: Option<PathBuf>,
    /// How long it took.
    pub duration_ms: u64,
}

/// Writes an archive to a stream; `name` is that of the stream, for errors.
pub fn to_stream(
    cx: &Context,
    chunks: &Chunks<'_>,
    export: &Export<'_>,
    out: &mut (dyn Write + Send),
    name: &str,
) -> Result<ExportReport> {
    let started_at = cx.clock.now();
    let mut summing = Summing::new(BufWriter::with_capacity(BUFFER_BYTES, out));
    seal(cx, chunks, export, &mut summing, name)?;
    summing.flush().map_err(Error::io("write", name))?;
    let took_ns = cx.clock.now().since_ns(started_at);
    Ok(ExportReport {
        sha256: summing.sum(),
        archive_bytes: summing.bytes,
        path: None,
        duration_ms: u64::try_from(took_ns / 1_000_000).unwrap_or(0),
    })
}

/// Writes an archive to a file, which is there as a whole or not at all, and its sum beside it.
pub fn to_file(
    cx: &Context,
    chunks: &Chunks<'_>,
    export: &Export<'_>,
    path: &Path,
    existing: Existing,
) -> Result<ExportReport> {
    let name = path.display().to_string();
    let readers = match export.is_private {
        true => Readers::Owner,
        false => Readers::All,
    };
    let mut file = OutputFile::create(path, readers, existing)?;
    let mut report = to_stream(cx, chunks, export, &mut file, &name)?;
    let sum_path = checksum::sum_path(path);
    // Order: a sum that is older than the archive would call it damaged; then the archive, then
    // its sum.
    match std::fs::remove_file(&sum_path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &sum_path)(error));
        }
        _ => {}
    }
    file.finish()?;
    let file_name = path.file_name().unwrap_or_default();
    let line = checksum::line(&report.sha256, file_name.as_bytes());
    let mut sum_file = OutputFile::create(&sum_path, Readers::All, Existing::Replace)?;
    sum_file
        .write_all(&line)
        .map_err(Error::io("write", &sum_path))?;
    sum_file.finish()?;
    report.path = Some(path.to_path_buf());
    Ok(report)
}

/// Notes in the log of the repository that an archive was made.
pub fn record(cx: &Context, repo: &Repo, export: &Export<'_>, report: &ExportReport) -> Result<()> {
    let file_name = report.path.as_deref().and_then(Path::file_name);
    let made = note::Export {
        at: cx.clock.now(),
        sha256: report.sha256,
        archive_bytes: report.archive_bytes,
        name: match file_name {
            Some(name) => name.to_string_lossy().into_owned(),
            None => STREAM_NAME.to_string(),
        },
    };
    let about = [export.id].into();
    notes::add(cx, repo, &about, &[Note::Export(export.id, made)]).map(drop)
}

/// Encrypts, if a passphrase is given.
fn seal(
    cx: &Context,
    chunks: &Chunks<'_>,
    export: &Export<'_>,
    out: &mut (dyn Write + Send),
    name: &str,
) -> Result<()> {
    let (files, bytes) = (export.files + export.others, export.plain_bytes);
    cx.progress.event(Event::Phase("export"));
    cx.progress.event(Event::Total { files, bytes });
    let Some(passphrase) = &export.options.passphrase else {
        return pack(cx, chunks, export, out, name);
    };
    let mut sealer = age_file::seal(passphrase, out).map_err(Error::io("write", name))?;
    pack(cx, chunks, export, &mut sealer, name)?;
    sealer.finish().map_err(Error::io("write", name))
}

/// Compresses and writes what the shape is made of.
fn pack(
    cx: &Context,
    chunks: &Chunks<'_>,
    export: &Export<'_>,
    out: &mut (dyn Write + Send),
    name: &str,
) -> Result<()> {
    let packing = match export.shape {
        Shape::Bare => return write_bare(cx, chunks, export, out, name),
        Shape::Archive(Format::Zip) => {
            let mut zip = ZipWriter::new(out, name);
            write_members(cx, chunks, export, name, &mut |member, content| {
                zip.add(member, content)
            })?;
            return zip.finish();
        }
        Shape::Archive(Format::TarGz) => Packing::Gzip,
        Shape::Archive(Format::TarZst) => Packing::Zstd,
        Shape::Archive(Format::Tar) => Packing::Stored,
    };
    blocks::compress(packing, name, out, |sink| {
        let mut tar = TarWriter::new(sink, name);
        write_members(cx, chunks, export, name, &mut |member, content| {
            tar.add(member, content)
        })?;
        tar.finish()
    })
}

/// Writes a content to where it is told.
type WriteContent<'c> = dyn FnMut(&mut dyn Write) -> Result<()> + 'c;

fn write_members(
    cx: &Context,
    chunks: &Chunks<'_>,
    export: &Export<'_>,
    name: &str,
    add: &mut dyn FnMut(&Member, &mut WriteContent<'_>) -> Result<()>,
) -> Result<()> {
    if let Some(document) = &export.document {
        let member = document_member(export, document);
        add(&member, &mut |out| write_document(document, name, out))?;
    }
    let only = Only::parse(&export.options.only)?;
    let temp_dir = temp_dir(chunks, export);
    let mut contents = Contents::new(cx, chunks, temp_dir);
    walk(cx, chunks, export, &only).run(&mut |met| {
        if let Some(member) = &met.member {
            add(member, &mut |out| contents.write(&met.source, name, out))?;
            cx.progress.event(Event::Done { files: 1, bytes: 0 });
        }
        Ok(())
    })
}

fn write_bare(
    cx: &Context,
    chunks: &Chunks<'_>,
    export: &Export<'_>,
    out: &mut (dyn Write + Send),
    name: &str,
) -> Result<()> {
    let only = Only::parse(&export.options.only)?;
    let temp_dir = temp_dir(chunks, export);
    let mut contents = Contents::new(cx, chunks, temp_dir);
    walk(cx, chunks, export, &only).run(&mut |met| match export.bare.as_ref()
        == Some(&met.entry.path)
        && met.is_wanted
    {
        true => contents.write(&met.source, name, out),
        false => Ok(()),
    })
}

fn walk<'w>(
    cx: &'w Context,
    chunks: &'w Chunks<'w>,
    export: &'w Export<'_>,
    only: &'w Only,
) -> Walk<'w> {
    Walk {
        cx,
        chunks,
        manifest: export.manifest,
        only,
        format: match export.shape {
            Shape::Archive(format) => format,
            Shape::Bare => Format::Tar,
        },
        replaced: export.replaced(),
        compacted: &export.compacted,
    }
}

fn temp_dir<'w>(chunks: &Chunks<'w>, export: &'w Export<'_>) -> &'w Path {
    chunks
        .repo()
        .cache_dir()
        .unwrap_or(&export.options.temp_dir)
}

/// The manifest belongs to the owner of the root, as of the time of the snapshot, and names files
/// that others may not see.
fn document_member(export: &Export<'_>, document: &Document) -> Member {
    Member {
        path: document.name.clone().into_bytes(),
        kind: archive::Kind::File(document.size_bytes),
        mode: match export.is_private {
            true => 0o600,
            false => 0o644,
        },
        uid: document.uid,
        gid: document.gid,
        modified: FileTime {
            seconds: export.manifest.started_at.0.div_euclid(1_000_000_000),
            nanoseconds: 0,
        },
        xattrs: Vec::new(),
    }
}

fn write_document(document: &Document, name: &str, out: &mut dyn Write) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut offset = 0;
    while offset < document.size_bytes {
        let most = (document.size_bytes - offset).min(buffer.len() as u64) as usize;
        let read = document.file.read_exact_at(&mut buffer[..most], offset);
        read.map_err(Error::io("read", &document.name))?;
        out.write_all(&buffer[..most])
            .map_err(Error::io("write", name))?;
        offset += most as u64;
    }
    Ok(())
}
