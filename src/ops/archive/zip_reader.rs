//! Reads zip by its directory, and refuses what other readers could read in another way: members
//! over each other, members that two places name differently, bytes before the first and behind
//! the end, encryption.

use crate::codec::gzip;
use crate::error::Error;
use crate::error::Result;
use crate::format::tree::FileTime;
use crate::ops::archive::Kind;
use crate::ops::archive::Member;
use crate::ops::archive::bytes::Bytes;
use crate::ops::archive::members::Visit;
use crate::ops::archive::members::damaged;
use crate::ops::archive::members::read_error;
use crate::ops::archive::members::refused;
use crate::safeguard::Safeguard;
use rawzip::CompressionMethod;
use rawzip::CreatorSystem;
use rawzip::MAX_CENTRAL_DIRECTORY_RECORD_SIZE;
use rawzip::ReaderAt;
use rawzip::ZipArchive;
use rawzip::ZipEntry;
use rawzip::ZipFileHeaderRecord;
use rawzip::ZipLocator;
use rawzip::time::ZipDateTimeKind;
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
/// A name that counts instead of the name, for those who know the field.
const NAME_FIELD: u16 = 0x7075;
/// What may follow the content of a member: a signature, a checksum, two lengths.
const DESCRIPTOR_BYTES_MAX: u64 = 24;
/// The end of a zip without its comment. In it, length and place of the directory are at 12.
const END_BYTES: u64 = 22;
/// What stands before the end if there is another with numbers of 64 bits, and leads to it: its
/// place is at 8, and in it, length and place of the directory are at 40.
const LOCATOR_BYTES: u64 = 20;
const LOCATOR_SIGNATURE: &[u8] = b"PK\x06\x07";
const DESCRIPTOR_SIGNATURE: &[u8] = b"PK\x07\x08";

impl ReaderAt for Bytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        Bytes::read_at(self, buffer, offset)
    }
}

/// Calls `visit` with every member, in the order of the directory; `name` is that of the archive,
/// for errors.
pub(super) fn read(name: &str, bytes: &Bytes, visit: &mut Visit<'_>) -> Result<()> {
    let failed = |error: rawzip::Error| failed(name, &error);
    let mut buffer = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let located = ZipLocator::new().locate_in_reader(bytes, &mut buffer, bytes.len());
    let archive = located.map_err(|(_, error)| failed(error))?;
    if archive.end_offset() != bytes.len() {
        return Err(refused(name, "something lies behind its end"));
    }
    check_end(name, &archive, bytes)?;
    if Safeguard::ZipMembersApart.holds() {
        check_places(name, &archive, &mut buffer)?;
    }
    let mut local = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let mut entries = archive.entries(&mut buffer);
    while let Some(record) = entries.next_entry().map_err(failed)? {
        let entry = archive.get_entry(record.wayfinder()).map_err(failed)?;
        check(name, &record, &entry, &mut local)?;
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
    Ok(())
}

/// Refuses an end that leads some to one directory and some to another: some look for the last end
/// there is and others for the first that fits, some take the directory for what stands before the
/// end and others go where the end says.
fn check_end(name: &str, archive: &ZipArchive<&Bytes>, bytes: &Bytes) -> Result<()> {
    let mut comment = Vec::new();
    let read = archive.comment().read_to_end(&mut comment);
    read.map_err(read_error(name))?;
    if comment.windows(2).any(|pair| pair == b"PK") {
        return Err(refused(name, "its comment may be another end of it"));
    }
    let read = |at: Option<u64>, field: &mut [u8]| {
        let at = at.ok_or_else(|| damaged(name, "its end is none"))?;
        let read = bytes.read_exact_at(field, at);
        read.map_err(read_error(name))
    };
    let mut end = bytes.len().checked_sub(END_BYTES + comment.len() as u64);
    let locator = end.and_then(|end| end.checked_sub(LOCATOR_BYTES));
    let mut head = [0; LOCATOR_BYTES as usize];
    if locator.is_some() {
        read(locator, &mut head)?;
    }
    let (size_bytes, offset) = match head.strip_prefix(LOCATOR_SIGNATURE) {
        Some([_, _, _, _, long_end @ ..]) => {
            end = take_u64(long_end);
            let mut fields = [0; 16];
            read(end.and_then(|end| end.checked_add(40)), &mut fields)?;
            (take_u64(&fields), take_u64(&fields[8..]))
        }
        _ => {
            let mut fields = [0; 8];
            read(end.and_then(|end| end.checked_add(12)), &mut fields)?;
            (take_u32(&fields), take_u32(&fields[4..]))
        }
    };
    let is_right = size_bytes.zip(offset).is_some_and(|(size_bytes, offset)| {
        offset == archive.directory_offset() && offset.checked_add(size_bytes) == end
    });
    match is_right {
        true => Ok(()),
        false => Err(refused(
            name,
            "its directory is elsewhere than its end says",
        )),
    }
}

fn take_u64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn take_u32(bytes: &[u8]) -> Option<u64> {
    let number = bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    number.map(u64::from)
}

/// Refuses members over each other and anything between them, before any of them is read: who reads
/// from the beginning would find other members than who reads the directory.
fn check_places(name: &str, archive: &ZipArchive<&Bytes>, buffer: &mut [u8]) -> Result<()> {
    let failed = |error: rawzip::Error| failed(name, &error);
    let mut ranges = Vec::new();
    let mut entries = archive.entries(buffer);
    while let Some(record) = entries.next_entry().map_err(failed)? {
        let entry = archive.get_entry(record.wayfinder()).map_err(failed)?;
        ranges.push(Range {
            start: record.local_header_offset(),
            end: entry.compressed_data_range().1,
            described: record.flags().has_data_descriptor().then(|| Described {
                crc: record.crc32(),
                packed_bytes: record.compressed_size_hint(),
                plain_bytes: record.uncompressed_size_hint(),
            }),
        });
    }
    if ranges.len() as u64 != archive.entries_hint() {
        return Err(refused(
            name,
            "its directory has another number of members than it says",
        ));
    }
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    if ranges.first().is_some_and(|range| range.start != 0) {
        return Err(refused(name, "something lies before its first member"));
    }
    let nexts = ranges.iter().skip(1).map(|range| range.start);
    let nexts = nexts.chain([archive.directory_offset()]);
    for (range, next) in ranges.iter().zip(nexts) {
        let Some(between) = next.checked_sub(range.end) else {
            return Err(refused(name, "its members lie over each other"));
        };
        let is_right = match &range.described {
            None => between == 0,
            Some(described) => {
                let mut bytes = vec![0; between.min(DESCRIPTOR_BYTES_MAX + 1) as usize];
                let read = archive.get_ref().read_exact_at(&mut bytes, range.end);
                read.map_err(read_error(name))?;
                described.is(&bytes)
            }
        };
        if !is_right {
            return Err(refused(name, "something lies between its members"));
        }
    }
    Ok(())
}

/// Where a member is, and what must stand behind it.
struct Range {
    start: u64,
    end: u64,
    described: Option<Described>,
}

/// What the descriptor behind a content says, with a signature or without, in 32 bits or in 64.
struct Described {
    crc: u32,
    packed_bytes: u64,
    plain_bytes: u64,
}

impl Described {
    fn is(&self, bytes: &[u8]) -> bool {
        let rest = match bytes.len() {
            16 | 24 => bytes.strip_prefix(DESCRIPTOR_SIGNATURE),
            _ => Some(bytes),
        };
        let lengths = [self.packed_bytes, self.plain_bytes];
        let lengths: Vec<u8> = match bytes.len() {
            12 | 16 => lengths
                .iter()
                .flat_map(|len| (*len as u32).to_le_bytes())
                .collect(),
            _ => lengths.iter().flat_map(|len| len.to_le_bytes()).collect(),
        };
        rest == Some(&[&self.crc.to_le_bytes()[..], &lengths].concat()[..])
    }
}

fn check(
    name: &str,
    record: &ZipFileHeaderRecord<'_>,
    entry: &ZipEntry<'_, &Bytes>,
    buffer: &mut [u8],
) -> Result<()> {
    if !Safeguard::ZipHeadersAgree.holds() {
        return Ok(());
    }
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
    let flags = (record.flags(), local.flags());
    if flags.0.is_utf8() != flags.1.is_utf8()
        || flags.0.has_data_descriptor() != flags.1.has_data_descriptor()
    {
        return Err(refused(name, "a member is described in two ways"));
    }
    // Behind a content with a descriptor, the first header may leave these out.
    let is_same = |of_local: u64, of_record: u64| {
        of_local == of_record || flags.1.has_data_descriptor() && of_local == 0
    };
    if !is_same(local.crc32().into(), record.crc32().into())
        || !is_same(local.compressed_size_hint(), record.compressed_size_hint())
        || !is_same(
            local.uncompressed_size_hint(),
            record.uncompressed_size_hint(),
        )
    {
        return Err(refused(name, "a member has two lengths or checksums"));
    }
    let mut fields = record.extra_fields().chain(local.extra_fields());
    if fields.any(|(id, field)| id.as_u16() == NAME_FIELD && is_other_name(record, field)) {
        return Err(refused(name, "a member has two names"));
    }
    // Some take the backslashes of other systems for slashes, and others do not.
    if !is_unix(record) && record.file_path().as_bytes().contains(&b'\\') {
        return Err(refused(name, "a name can be read in two ways"));
    }
    Ok(())
}

/// The field: a version, a checksum of the name, and the other name.
fn is_other_name(record: &ZipFileHeaderRecord<'_>, field: &[u8]) -> bool {
    field.get(5..) != Some(record.file_path().as_bytes())
}

fn is_unix(record: &ZipFileHeaderRecord<'_>) -> bool {
    let system = record.version_made_by().creator_system();
    system == CreatorSystem::UNIX || system == CreatorSystem::MACOS
}

fn member(
    name: &str,
    record: &ZipFileHeaderRecord<'_>,
    entry: &ZipEntry<'_, &Bytes>,
) -> Result<Member> {
    let size_bytes = entry.reader().claim_verifier().uncompressed_size;
    let mode = record.mode();
    // The library leaves out what is more than reading, writing, executing.
    let of_unix = (record.external_attributes() >> 16) & 0xffff;
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
    let permissions = match (is_unix(record), &kind) {
        // Made where there are none.
        (true, Kind::Directory) if of_unix == 0 => 0o755,
        (true, _) if of_unix == 0 => 0o644,
        (true, _) => of_unix & 0o7777,
        (false, _) => mode.value() & 0o777,
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
    entry: &'e ZipEntry<'_, &Bytes>,
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
