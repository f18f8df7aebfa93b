//! Reads tar: old, GNU and POSIX (pax). Only headers are left to the library, because it takes the
//! line ends inside of pax values for the ends of records.
//!
//! What could mean different things to different readers is refused: records given twice, kinds of
//! members nobody needs, sparse maps. A tar ends with two empty blocks and nothing but zeroes
//! behind them; one that does not was cut, or something was put behind it.

use crate::error::Error;
use crate::error::Result;
use crate::format::tree::FileTime;
use crate::ops::archive::Kind;
use crate::ops::archive::Member;
use crate::ops::archive::members::Visit;
use crate::ops::archive::members::damaged;
use crate::ops::archive::members::read_error;
use crate::ops::archive::members::refused;
use crate::safeguard::Safeguard;
use std::collections::BTreeMap;
use std::io::Read;
use tar::EntryType;
use tar::Header;

const BLOCK_BYTES: usize = 512;
/// Long names, and all extended attributes of a file.
const EXTENDED_BYTES_MAX: u64 = 4 << 20;
/// Those who write comments write one.
const GLOBAL_HEADERS_MAX: u32 = 100;
/// Mode, owner, group, length, time, and the two numbers of a device.
const NUMBER_FIELDS: [std::ops::Range<usize>; 7] = [
    100..108,
    108..116,
    116..124,
    124..136,
    136..148,
    329..337,
    337..345,
];
/// The beginning of a long name, or something else.
const PREFIX_FIELD: std::ops::Range<usize> = 345..500;
const TYPE_AT: usize = 156;
/// Padding at the end, which is a tape's.
const PADDING_BYTES_MAX: u64 = 64 << 20;
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What extended headers say about the next member.
#[derive(Default)]
struct Extended {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    has_records: bool,
    is_any: bool,
}

/// Calls `visit` with every member, in order; `name` is that of the archive, for errors.
pub(super) fn read(name: &str, reader: &mut dyn Read, visit: &mut Visit<'_>) -> Result<()> {
    let mut extended = Extended::default();
    let mut global_headers = 0;
    loop {
        let Some(header) = next_header(name, reader)? else {
            if extended.is_any {
                return Err(damaged(
                    name,
                    "it ends with the header of a member that is not there",
                ));
            }
            return end(name, reader);
        };
        let size_bytes = header.entry_size();
        let size_bytes = size_bytes.map_err(|_| damaged(name, "a header has no length"))?;
        match header.entry_type() {
            EntryType::GNULongName => {
                extended.is_any = true;
                let value = take(name, reader, size_bytes)?;
                put_once(name, &mut extended.long_name, without_end(value))?;
            }
            EntryType::GNULongLink => {
                extended.is_any = true;
                let value = take(name, reader, size_bytes)?;
                put_once(name, &mut extended.long_link, without_end(value))?;
            }
            EntryType::XHeader => {
                if std::mem::replace(&mut extended.has_records, true) {
                    return Err(refused(name, "a member has two extended headers"));
                }
                extended.is_any = true;
                let records = take(name, reader, size_bytes)?;
                put_records(name, &mut extended.records, &records)?;
            }
            EntryType::XGlobalHeader => {
                extended.is_any = true;
                global_headers += 1;
                if global_headers > GLOBAL_HEADERS_MAX {
                    return Err(refused(name, "it has global headers without end"));
                }
                // Comments are harmless; whatever else would change all that follows.
                let mut records = BTreeMap::new();
                put_records(name, &mut records, &take(name, reader, size_bytes)?)?;
                let changes = records.keys().any(|key| key != b"comment");
                if changes && Safeguard::GlobalHeadersRefused.holds() {
                    return Err(refused(
                        name,
                        "it has global headers that change its members",
                    ));
                }
            }
            _ => {
                let extended = std::mem::take(&mut extended);
                let member = member(name, &header, extended, size_bytes)?;
                visit_member(name, reader, member, visit)?;
            }
        }
    }
}

fn visit_member(
    name: &str,
    reader: &mut dyn Read,
    member: Member,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let size_bytes = match member.kind {
        Kind::File(size_bytes) => size_bytes,
        _ => 0,
    };
    let mut content = reader.take(size_bytes);
    visit(member, &mut content)?;
    if content.limit() > 0 {
        // The visitor read to the end of what there is, or wants no more of it.
        let copied = std::io::copy(&mut content, &mut std::io::sink());
        copied.map_err(read_error(name))?;
        if content.limit() > 0 {
            return Err(damaged(name, "it ends too early"));
        }
    }
    skip_padding(name, reader, size_bytes)
}

/// Returns the next header, `None` for an empty block.
fn next_header(name: &str, reader: &mut dyn Read) -> Result<Option<Header>> {
    let mut header = Header::new_old();
    let block = header.as_mut_bytes();
    reader.read_exact(block).map_err(read_error(name))?;
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let digits = 148..156;
    let byte_sum = |(at, byte): (usize, &u8)| match digits.contains(&at) {
        true => u32::from(b' '),
        false => u32::from(*byte),
    };
    let sum: u32 = block.iter().enumerate().map(byte_sum).sum();
    match header.cksum() {
        Ok(said) if said == sum => {}
        _ => return Err(damaged(name, "a header has another checksum than it says")),
    }
    check_fields(name, &header)?;
    Ok(Some(header))
}

/// Refuses what programs read in different ways: numbers with signs, of more than 64 bits or none
/// at all, even where another header overrides them, and what some take for the beginning of a name
/// and others for times. Python ends in silence at a header that it does not understand.
fn check_fields(name: &str, header: &Header) -> Result<()> {
    let block = header.as_bytes();
    if NUMBER_FIELDS
        .iter()
        .any(|field| !is_number(&block[field.clone()]))
    {
        return Err(refused(
            name,
            "a header has a number that can be read in two ways",
        ));
    }
    let has_prefix = block[PREFIX_FIELD].iter().any(|byte| *byte != 0);
    match header.as_ustar().is_none() && has_prefix {
        true => Err(refused(
            name,
            "a header has a name that can be read in two ways",
        )),
        false => Ok(()),
    }
}

fn is_number(field: &[u8]) -> bool {
    if field.starts_with(&[0x80, 0, 0, 0]) {
        return true;
    }
    let digits = field.iter().skip_while(|byte| **byte == b' ');
    let mut rest = digits.skip_while(|byte| (b'0'..=b'7').contains(byte));
    rest.all(|byte| b" \0".contains(byte))
}

/// The first empty block was read.
fn end(name: &str, reader: &mut dyn Read) -> Result<()> {
    let mut block = [0; BLOCK_BYTES];
    reader.read_exact(&mut block).map_err(read_error(name))?;
    let mut rest = Vec::from(block);
    let mut padding_bytes = 0;
    loop {
        if rest.iter().any(|byte| *byte != 0) && Safeguard::TarEnds.holds() {
            return Err(refused(name, "something lies behind its end"));
        }
        rest.clear();
        let mut part = reader.take(1 << 20);
        let read = part.read_to_end(&mut rest).map_err(read_error(name))?;
        padding_bytes += read as u64;
        match read {
            0 => return Ok(()),
            _ if padding_bytes > PADDING_BYTES_MAX => {
                return Err(refused(name, "zeroes without end lie behind its end"));
            }
            _ => {}
        }
    }
}

fn member(
    name: &str,
    header: &Header,
    mut extended: Extended,
    mut size_bytes: u64,
) -> Result<Member> {
    let records = &mut extended.records;
    let mut number = |key: &[u8], otherwise: std::io::Result<u64>| match records.remove(key) {
        None => otherwise.map_err(|_| damaged(name, "a header has no sound numbers")),
        Some(digits) => {
            let digits = std::str::from_utf8(&digits).ok();
            let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
            let value = digits.and_then(|digits| digits.parse().ok());
            value.ok_or_else(|| damaged(name, "an extended header has no sound numbers"))
        }
    };
    let extended_bytes = number(b"size", Ok(size_bytes))?;
    if Safeguard::ExtendedSize.holds() {
        size_bytes = extended_bytes;
    }
    let owner = |id: u64| {
        let id = u32::try_from(id);
        id.map_err(|_| damaged(name, "an owner has a number that no owner can have"))
    };
    let uid = owner(number(b"uid", header.uid())?)?;
    let gid = owner(number(b"gid", header.gid())?)?;
    let seconds = header
        .mtime()
        .map_err(|_| damaged(name, "a header has no time"));
    let modified = match records.remove(&b"mtime"[..]) {
        Some(text) => parse_time(&text).ok_or_else(|| damaged(name, "a time is none"))?,
        None => FileTime {
            seconds: i64::try_from(seconds?).map_err(|_| damaged(name, "a time is none"))?,
            nanoseconds: 0,
        },
    };
    let pax_path = records.remove(&b"path"[..]);
    let path = one(name, extended.long_name, pax_path)?;
    if path.as_ref().is_some_and(Vec::is_empty) {
        return Err(refused(name, "a member has an empty long name"));
    }
    let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
    let pax_link = records.remove(&b"linkpath"[..]);
    let link = one(name, extended.long_link, pax_link)?;
    let link = link.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
    let kind = kind(name, header, &path, link, size_bytes)?;
    if let Some(key) = records.keys().find(|key| key.starts_with(b"GNU.sparse.")) {
        let key = String::from_utf8_lossy(key).into_owned();
        return Err(sparse(name, &key));
    }
    let mode = header
        .mode()
        .map_err(|_| damaged(name, "a header has no mode"))?;
    Ok(Member {
        path,
        kind,
        mode: mode & 0o7777,
        uid,
        gid,
        modified,
        xattrs: xattrs(&extended.records),
    })
}

fn kind(
    name: &str,
    header: &Header,
    path: &[u8],
    link: Option<Vec<u8>>,
    size_bytes: u64,
) -> Result<Kind> {
    let link = || {
        link.clone()
            .ok_or_else(|| damaged(name, "a link leads nowhere"))
    };
    let device = || {
        let number = |number: std::io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
        (number(header.device_major()), number(header.device_minor()))
    };
    let kind = match header.entry_type() {
        EntryType::Regular if path.ends_with(b"/") && header.as_bytes()[TYPE_AT] != 0 => {
            return Err(refused(name, "a file has the name of a directory"));
        }
        // Before there were types, a directory was a file whose name ends like one.
        EntryType::Regular if path.ends_with(b"/") && size_bytes == 0 => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => return Ok(Kind::File(size_bytes)),
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(link()?),
        EntryType::Link => Kind::HardLink(link()?),
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => Kind::CharDevice(device().0, device().1),
        EntryType::Block => Kind::BlockDevice(device().0, device().1),
        EntryType::GNUSparse => return Err(sparse(name, "type S")),
        other => {
            let letter = char::from(other.as_byte()).escape_default();
            let reason = format!("it has a member of the unknown type \"{letter}\"");
            return Err(refused(name, &reason));
        }
    };
    match size_bytes {
        0 => Ok(kind),
        _ => Err(refused(name, "a member that is no file has content")),
    }
}

fn sparse(name: &str, what: &str) -> Error {
    let reason =
        format!("it has files with a map of holes ({what}); pack it without: tar -c, no -S");
    refused(name, &reason)
}

/// Returns the value that is given, in one of two ways.
fn one(name: &str, gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> Result<Option<Vec<u8>>> {
    match (gnu, pax) {
        (Some(_), Some(_)) => Err(refused(name, "a member has two long names")),
        (gnu, pax) => Ok(gnu.or(pax)),
    }
}

fn put_once(name: &str, place: &mut Option<Vec<u8>>, value: Vec<u8>) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(refused(name, "a member has two long names")),
    }
}

fn without_end(mut value: Vec<u8>) -> Vec<u8> {
    while value.last() == Some(&0) {
        value.pop();
    }
    value
}

/// Reads all of an extended header.
fn take(name: &str, reader: &mut dyn Read, size_bytes: u64) -> Result<Vec<u8>> {
    if size_bytes > EXTENDED_BYTES_MAX {
        return Err(refused(
            name,
            "an extended header is longer than any should be",
        ));
    }
    let mut bytes = Vec::new();
    let mut content = reader.take(size_bytes);
    content.read_to_end(&mut bytes).map_err(read_error(name))?;
    if bytes.len() as u64 != size_bytes {
        return Err(damaged(name, "it ends too early"));
    }
    skip_padding(name, reader, size_bytes)?;
    Ok(bytes)
}

fn skip_padding(name: &str, reader: &mut dyn Read, size_bytes: u64) -> Result<()> {
    let over = (size_bytes % BLOCK_BYTES as u64) as usize;
    let mut padding = [0; BLOCK_BYTES];
    match over {
        0 => Ok(()),
        over => {
            let read = reader.read_exact(&mut padding[over..]);
            read.map_err(read_error(name))
        }
    }
}

/// Reads records: the length of each in digits, a space, key, `=`, value, line end.
fn put_records(
    name: &str,
    records: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    mut rest: &[u8],
) -> Result<()> {
    while !rest.is_empty() {
        let (key, value, after) =
            split_record(rest).ok_or_else(|| damaged(name, "an extended header is none"))?;
        let is_twice = records.insert(key.to_vec(), value.to_vec()).is_some();
        if is_twice && Safeguard::ExtendedOnce.holds() {
            return Err(refused(
                name,
                "an extended header says the same thing twice",
            ));
        }
        rest = after;
    }
    Ok(())
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(len)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

fn parse_time(text: &[u8]) -> Option<FileTime> {
    let text = std::str::from_utf8(text).ok()?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 18 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let nanoseconds: i128 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let all = sign * (whole.parse::<i128>().ok()? * 1_000_000_000 + nanoseconds);
    Some(FileTime {
        seconds: i64::try_from(all.div_euclid(1_000_000_000)).ok()?,
        nanoseconds: u32::try_from(all.rem_euclid(1_000_000_000)).ok()?,
    })
}

fn xattrs(records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let named = records.iter().filter_map(|(key, value)| {
        let name = decode_name(key.strip_prefix(XATTR)?);
        let is_name = !name.is_empty() && !name.contains(&0);
        is_name.then(|| (name, value.clone()))
    });
    let mut xattrs: Vec<_> = named.collect();
    xattrs.sort();
    xattrs.dedup_by(|a, b| a.0 == b.0);
    xattrs
}

/// The writer wrote `%25` for `%` and `%3D` for `=`; other writers leave both as they are.
fn decode_name(mut key: &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    while let Some((&byte, rest)) = key.split_first() {
        let (decoded, after) = match () {
            () if key.starts_with(b"%25") => (b'%', &key[3..]),
            () if key.starts_with(b"%3D") => (b'=', &key[3..]),
            () => (byte, rest),
        };
        name.push(decoded);
        key = after;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_everybody_takes_for_numbers() {
        for good in [
            &b"0000644\0"[..],
            b"100644 \0",
            b"   644 \0",
            b"\0\0\0\0\0\0\0\0",
            b"77777777",
            b"\x80\0\0\0\0\0\x01\0",
        ] {
            assert!(is_number(good), "{good:?}");
        }
        for bad in [
            &b"+000644\0"[..],
            b"-000644\0",
            b"0_00644\0",
            b"0000649\0",
            b"6 44\0\0\0\0",
            b"644\0x\0\0\0",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x80\x01\0\0\0\0\0\0",
            b"\xb1\0\0\0\0\0\0\0",
        ] {
            assert!(!is_number(bad), "{bad:?}");
        }
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let time = |text: &str| parse_time(text.as_bytes()).map(|t| (t.seconds, t.nanoseconds));

        assert_eq!(time("5.5"), Some((5, 500_000_000)));
        assert_eq!(time("-4.5"), Some((-5, 500_000_000)));
        assert_eq!(time("-0.000000001"), Some((-1, 999_999_999)));
        assert_eq!(time("100"), Some((100, 0)));
        assert_eq!(time("1.0000000019"), Some((1, 1)));
        for bad in ["", "-", ".5", "1e5", "+1", "99999999999999999999"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn records_may_hold_anything_and_none_of_it_is_taken_for_a_record() {
        let record = b"32 SCHILY.xattr.a=\n12 size=99\nx\nrest";

        let (key, value, rest) = split_record(&record[..]).unwrap();

        assert_eq!(
            (key, value),
            (&b"SCHILY.xattr.a"[..], &b"\n12 size=99\nx"[..])
        );
        assert_eq!(rest, b"rest");
        for bad in [&b"5 a\n"[..], b"99 a=b\n", b"x a=b\n", b"6 a=bc"] {
            assert!(split_record(bad).is_none());
        }
        assert_eq!(decode_name(b"a%25b%3Dc%zz"), b"a%b=c%zz");
    }
}
