//! What most people do instead: a `tar.gz` of the whole directory, each time.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use tar::EntryType;
use tar::Header;

/// The name of the directory in its archive.
pub(super) const ROOT: &str = "app";

/// Bytes written between two looks at whether to go on.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes an archive of a directory as `tar` and `gzip` would, with gzip's usual level.
pub(super) fn write(cx: &Context, dir: &Path, archive: &Path) -> Result<u64> {
    let file = File::create_new(archive).map_err(Error::io("create", archive))?;
    let buffered = BufWriter::with_capacity(BUFFER_BYTES, file);
    let mut builder = tar::Builder::new(GzEncoder::new(buffered, Compression::default()));
    add(cx, &mut builder, dir, Path::new(ROOT))?;
    let written = builder.into_inner().and_then(GzEncoder::finish);
    let written = written.and_then(|mut file| file.flush());
    written.map_err(Error::io("write", archive))?;
    let metadata = fs::metadata(archive).map_err(Error::io("read", archive))?;
    Ok(metadata.len())
}

/// Adds what is below a directory. What goes away meanwhile is left out, as `tar` does.
fn add(
    cx: &Context,
    builder: &mut tar::Builder<impl Write>,
    dir: &Path,
    name: &Path,
) -> Result<()> {
    let entries = fs::read_dir(dir).map_err(Error::io("list", dir))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("list", dir))?;
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let mut header = Header::new_gnu();
        header.set_metadata(&metadata);
        if metadata.is_dir() {
            let added = builder.append_data(&mut header, &name, io::empty());
            added.map_err(Error::io("archive", &path))?;
            add(cx, builder, &path, &name)?;
            continue;
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        // It may grow or shrink while it is read, and the header is written first.
        let exact = file.chain(io::repeat(0)).take(metadata.len());
        let added = builder.append_data(&mut header, &name, Stoppable { cx, inner: exact });
        cx.check()?;
        added.map_err(Error::io("archive", &path))?;
    }
    Ok(())
}

/// Unpacks an archive into a directory. Links, which it never has, are not made.
pub(super) fn unpack(cx: &Context, archive: &Path, dir: &Path) -> Result<()> {
    let file = File::open(archive).map_err(Error::io("read", archive))?;
    let mut archive_reader = tar::Archive::new(GzDecoder::new(Stoppable { cx, inner: file }));
    let entries = archive_reader
        .entries()
        .map_err(Error::io("read", archive))?;
    for entry in entries {
        cx.check()?;
        let mut entry = entry.map_err(Error::io("unpack", archive))?;
        if matches!(
            entry.header().entry_type(),
            EntryType::Regular | EntryType::Directory
        ) {
            entry.unpack_in(dir).map_err(Error::io("unpack", archive))?;
        }
    }
    Ok(())
}

/// Ends with an error once the caller has asked to stop.
struct Stoppable<'c, R> {
    cx: &'c Context,
    inner: R,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // `Interrupted` would be tried again.
        self.cx
            .check()
            .map_err(|error| io::Error::other(error.to_string()))?;
        self.inner.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_of_what_stays_as_it_is_comes_back_whole() {
        let scratch = tempfile::tempdir().unwrap();
        let (dir, back) = (scratch.path().join("in"), scratch.path().join("out"));
        let large: Vec<u8> = (0..700_001_u32).map(|n| (n % 251) as u8).collect();
        fs::create_dir_all(dir.join("deep/er")).unwrap();
        fs::create_dir(&back).unwrap();
        fs::write(dir.join("deep/er/large"), &large).unwrap();
        fs::write(dir.join("empty"), b"").unwrap();
        let archive = scratch.path().join("a.tar.gz");

        let bytes = write(&Context::new(), &dir, &archive).unwrap();
        unpack(&Context::new(), &archive, &back).unwrap();

        assert_eq!(bytes, fs::metadata(&archive).unwrap().len());
        assert_eq!(fs::read(back.join("app/deep/er/large")).unwrap(), large);
        assert_eq!(fs::read(back.join("app/empty")).unwrap(), b"");
    }
}
