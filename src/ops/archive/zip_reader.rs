//! Reads zip by its directory, and refuses what other readers could read in another way: members
//! over each other, members that two places name differently, bytes before the first and behind
//! the end, encryption.

use crate::codec::gzip;
use crate::error::Error;
use crate::error::Result;
use crate::format::tree::FileTime;
use crate::ops::archive::Kind;
use crate::ops::archive::Member;
use crate::ops::archive::members::Visit;
use crate::ops::archive::members::damaged;
use crate::ops::archive::members::read_error;
use crate::ops::archive::members::refused;
use rawzip::CompressionMethod;
use rawzip::FileReader;
use rawzip::MAX_CENTRAL_DIRECTORY_RECORD_SIZE;
use rawzip::ZipArchive;
use rawzip::ZipEntry;
use rawzip::ZipFileHeaderRecord;
use rawzip::time::ZipDateTimeKind;
use std::fs::File;
use std::io::BufReader;
use std::io::Read;

const BUFFER_BYTES: usize = 64 << 10;
const SYMLINK_BYTES_MAX: u64 = 4096;
const FILE_TYPE_MASK: u32 = 0o170_000;
const FIFO_TYPE: u32 = 0o010_000;
const CHAR_DEVICE_TYPE: u32 = 0o020_000;
const BLOCK_DEVICE_TYPE: u32 = 0o060_000;
const SOCKET_TYPE: u32 = 0o140_000;
const OWNER_FIELD: u16 = 0x7875;

/// Calls `visit` with every member, in the order of the directory; `name` is that of the archive,
/// for errors.
pub(super) fn read(
    name: &str,
    file: File,
    archive_bytes: u64,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let failed = |error: rawzip::Error| failed(name, &error);
    let mut buffer = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let archive = ZipArchive::from_file(file, &mut buffer).map_err(failed)?;
    if archive.end_offset() != archive_bytes {
        return Err(refused(name, "something lies behind its end"));
    }
    let mut ranges = Vec::new();
    let mut local = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let mut entries = archive.entries(&mut buffer);
    while let Some(record) = entries.next_entry().map_err(failed)? {
        let entry = archive.get_entry(record.wayfinder()).map_err(failed)?;
        check(name, &record, &entry, &mut local)?;
        let (_, end) = entry.compressed_data_range();
        ranges.push((record.local_header_offset(), end));
        let member = member(name, &record, &entry)?;
        let mut content = content(name, &record, &entry)?;
        if let Kind::Symlink(_) = member.kind {
            let mut target = Vec::new();
            let read = (&mut content)
                .take(SYMLINK_BYTES_MAX)
                .read_to_end(&mut target);
            read.map_err(read_error(name))?;
            let kind = Kind::Symlink(target);
            visit(Member { kind, ..member }, &mut std::io::empty())?;
        } else {
            visit(member, &mut content)?;
        }
    }
    if ranges.len() as u64 != archive.entries_hint() {
        return Err(refused(
            name,
            "its directory has another number of members than it says",
        ));
    }
    ranges.sort_unstable();
    let first = ranges.first().map_or(0, |(start, _)| *start);
    let last = ranges.last().map_or(0, |(_, end)| *end);
    let is_overlapping = ranges.windows(2).any(|pair| pair[0].1 > pair[1].0);
    if is_overlapping || last > archive.directory_offset() {
        return Err(refused(name, "its members lie over each other"));
    }
    match first {
        0 => Ok(()),
        _ => Err(refused(name, "something lies before its first member")),
    }
}

fn check(
    name: &str,
    record: &ZipFileHeaderRecord<'_>,
    entry: &ZipEntry<'_, FileReader>,
    buffer: &mut [u8],
) -> Result<()> {
    let local = entry
        .local_header(buffer)
        .map_err(|error| failed(name, &error))?;
    if local.file_path().as_bytes() != record.file_path().as_bytes() {
        return Err(refused(name, "a member has two names"));
    }
    if local.compression_method() != record.compression_method() {
        return Err(refused(name, "a member is compressed in two ways"));
    }
    if record.flags().is_encrypted() || local.flags().is_encrypted() {
        return Err(refused(
            name,
            "it is encrypted; unpack it, and import what was in it",
        ));
    }
    Ok(())
}

fn member(
    name: &str,
    record: &ZipFileHeaderRecord<'_>,
    entry: &ZipEntry<'_, FileReader>,
) -> Result<Member> {
    let size_bytes = entry.reader().claim_verifier().uncompressed_size;
    let mode = record.mode();
    let kind = match mode.value() & FILE_TYPE_MASK {
        _ if record.is_dir() && size_bytes > 0 => {
            return Err(refused(name, "a directory has content"));
        }
        _ if record.is_dir() => Kind::Directory,
        _ if mode.is_symlink() => match size_bytes {
            0..=SYMLINK_BYTES_MAX => Kind::Symlink(Vec::new()),
            _ => return Err(refused(name, "a symlink is longer than any can be")),
        },
        FIFO_TYPE | CHAR_DEVICE_TYPE | BLOCK_DEVICE_TYPE | SOCKET_TYPE => {
            return Err(refused(name, "it has a device"));
        }
        _ => Kind::File(size_bytes),
    };
    let permissions = match (mode.value() & 0o7777, &kind) {
        // Made where there are none.
        (0, Kind::Directory) => 0o755,
        (0, _) => 0o644,
        (permissions, _) => permissions,
    };
    let (uid, gid) = owner(record);
    Ok(Member {
        path: record.file_path().as_bytes().to_vec(),
        kind,
        mode: permissions,
        uid,
        gid,
        modified: modified(record),
        xattrs: Vec::new(),
    })
}

fn content<'e>(
    name: &str,
    record: &ZipFileHeaderRecord<'_>,
    entry: &'e ZipEntry<'_, FileReader>,
) -> Result<Box<dyn Read + 'e>> {
    let packed = BufReader::with_capacity(BUFFER_BYTES, entry.reader());
    match record.compression_method() {
        CompressionMethod::STORE => Ok(Box::new(entry.verifying_reader(packed))),
        CompressionMethod::DEFLATE => Ok(Box::new(entry.verifying_reader(gzip::inflate(packed)))),
        other => {
            let reason = format!("a member is compressed by {other}, which is not supported");
            Err(refused(name, &reason))
        }
    }
}

/// Without the field that says it, files belong to whoever unpacks them.
fn owner(record: &ZipFileHeaderRecord<'_>) -> (u32, u32) {
    let of_process = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let mut fields = record.extra_fields();
    let field = fields.find(|(id, _)| id.as_u16() == OWNER_FIELD);
    let parse = |field: &[u8]| {
        let (uid, rest) = take_id(field.strip_prefix(&[1])?)?;
        let (gid, _) = take_id(rest)?;
        Some((uid, gid))
    };
    field
        .and_then(|(_, field)| parse(field))
        .unwrap_or(of_process)
}

fn take_id(field: &[u8]) -> Option<(u32, &[u8])> {
    let (&len, rest) = field.split_first()?;
    let (bytes, rest) = rest.split_at_checked(usize::from(len))?;
    let mut id = [0; 4];
    id.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some((u32::from_le_bytes(id), rest))
}

/// A time without a zone is taken for UTC.
fn modified(record: &ZipFileHeaderRecord<'_>) -> FileTime {
    let number = |number: u8| i8::try_from(number).unwrap_or(0);
    let seconds = match record.last_modified() {
        ZipDateTimeKind::Utc(time) => time.to_unix(),
        ZipDateTimeKind::Local(time) => {
            let year = i16::try_from(time.year()).unwrap_or(0);
            let (month, day) = (number(time.month()), number(time.day()));
            let (hour, minute, second) = (
                number(time.hour()),
                number(time.minute()),
                number(time.second()),
            );
            let civil = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0);
            let zoned = civil.and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC));
            zoned.map_or(0, |zoned| zoned.timestamp().as_second())
        }
    };
    FileTime {
        seconds,
        nanoseconds: 0,
    }
}

fn failed(name: &str, error: &rawzip::Error) -> Error {
    match error.kind() {
        rawzip::ErrorKind::IO(source) => {
            let copy = match source.raw_os_error() {
                Some(number) => std::io::Error::from_raw_os_error(number),
                None => std::io::Error::new(source.kind(), source.to_string()),
            };
            read_error(name)(copy)
        }
        _ => damaged(name, &error.to_string()),
    }
}
