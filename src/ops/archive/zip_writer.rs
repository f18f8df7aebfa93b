//! Writes zip, as a stream: lengths and checksums follow each member and stand in the directory at
//! the end. Zip knows modes, owners and symlinks by agreement, and no hard links, pipes, devices or
//! extended attributes; times have two seconds, and one second in an extra field.

use crate::error::Error;
use crate::error::Result;
use crate::ops::archive::Kind;
use crate::ops::archive::Member;
use crate::ops::archive::blocks;
use crate::ops::archive::blocks::Packing;
use rawzip::CompressionMethod;

use rawzip::Header;
use rawzip::ZipArchiveWriter;
use rawzip::extra_fields::ExtraFieldId;
use rawzip::path::EntryPath;
use rawzip::time::UtcDateTime;
use std::io;
use std::io::Write;

const FILE_TYPE: u32 = 0o100_000;
const SYMLINK_TYPE: u32 = 0o120_000;
const DIRECTORY_TYPE: u32 = 0o040_000;
/// Owner and group, as Info-ZIP has them.
const OWNER_FIELD: u16 = 0x7875;

/// Writes a zip.
pub(in crate::ops) struct ZipWriter<'o> {
    archive: ZipArchiveWriter<&'o mut (dyn Write + Send)>,
    name: &'o str,
}

impl<'o> ZipWriter<'o> {
    /// Begins one; `name` is that of the output, for errors.
    pub(in crate::ops) fn new(out: &'o mut (dyn Write + Send), name: &'o str) -> ZipWriter<'o> {
        ZipWriter {
            archive: ZipArchiveWriter::new(out),
            name,
        }
    }

    /// Adds a member. One that a zip cannot hold is an error: the caller knows `can_hold`.
    pub(in crate::ops) fn add(
        &mut self,
        member: &Member,
        content: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let failed = failed(self.name);
        let modified = UtcDateTime::from_unix(member.modified.seconds.max(0));
        let (path, owner) = (entry_path(member), owner(member));
        let id = ExtraFieldId::new(OWNER_FIELD);
        let file_type = match &member.kind {
            Kind::Directory => {
                let dir = self.archive.new_dir(path).last_modified(modified);
                let dir = dir.unix_permissions(DIRECTORY_TYPE | member.mode);
                let dir = dir.extra_field(id, &owner, Header::default());
                return dir.and_then(|dir| dir.create()).map(drop).map_err(failed);
            }
            Kind::File(_) => FILE_TYPE,
            Kind::Symlink(_) => SYMLINK_TYPE,
            _ => {
                let path = String::from_utf8_lossy(&member.path);
                let reason = format!("a zip cannot hold \"{path}\"");
                return Err(Error::Refused { reason });
            }
        };
        let method = match &member.kind {
            Kind::File(0) | Kind::Symlink(_) => CompressionMethod::STORE,
            _ => CompressionMethod::DEFLATE,
        };
        let file = self.archive.new_file(path).last_modified(modified);
        let file = file.unix_permissions(file_type | member.mode);
        let file = file.compression_method(method);
        let file = file.extra_field(id, &owner, Header::default());
        let (mut entry, config) = file.and_then(|file| file.start()).map_err(failed)?;
        let packing = match method {
            CompressionMethod::STORE => Packing::Stored,
            _ => Packing::Deflate,
        };
        let output = blocks::compress(packing, self.name, &mut entry, |sink| {
            let mut plain = config.wrap(sink);
            match &member.kind {
                Kind::Symlink(target) => {
                    let written = plain.write_all(target);
                    written.map_err(Error::io("write", self.name))?;
                }
                _ => content(&mut plain)?,
            }
            plain.finish().map(|(_, output)| output).map_err(failed)
        })?;
        entry.finish(output).map(drop).map_err(failed)
    }

    /// Ends the zip.
    pub(in crate::ops) fn finish(self) -> Result<()> {
        self.archive.finish().map(drop).map_err(failed(self.name))
    }
}

/// Returns whether a zip can hold such a member.
pub(in crate::ops) fn can_hold(kind: &Kind) -> bool {
    matches!(kind, Kind::Directory | Kind::File(_) | Kind::Symlink(_))
}

/// The library makes names plain, and would make others of those with backslashes or drives.
fn entry_path(member: &Member) -> EntryPath<'static> {
    let mut path = member.path.clone();
    if member.kind == Kind::Directory {
        path.push(b'/');
    }
    match String::from_utf8(path) {
        Ok(path) if !path.contains(['\\', ':']) => EntryPath::conformant(path),
        Ok(path) => EntryPath::verbatim(path.into_bytes()),
        Err(error) => EntryPath::verbatim(error.into_bytes()),
    }
}

fn owner(member: &Member) -> Vec<u8> {
    let mut field = vec![1];
    for id in [member.uid, member.gid] {
        field.push(4);
        field.extend_from_slice(&id.to_le_bytes());
    }
    field
}

fn failed(name: &str) -> impl Fn(rawzip::Error) -> Error + Copy + '_ {
    move |error| {
        let source = match error.kind() {
            rawzip::ErrorKind::IO(source) => {
                let kind = source.kind();
                match source.raw_os_error() {
                    Some(number) => io::Error::from_raw_os_error(number),
                    None => io::Error::new(kind, source.to_string()),
                }
            }
            _ => io::Error::other(error.to_string()),
        };
        Error::io("write", name)(source)
    }
}
