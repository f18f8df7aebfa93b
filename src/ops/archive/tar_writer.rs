//! Writes tar as POSIX has it (pax): a plain header wherever one will do, and what it cannot say
//! in an extended header before it: long and strange names, huge files, owners, parts of seconds,
//! extended attributes.

use crate::error::Error;
use crate::error::Result;
use crate::format::tree::FileTime;
use crate::ops::archive::Kind;
use crate::ops::archive::Member;
use std::io::Write;
use tar::EntryType;
use tar::Header;

const BLOCK_BYTES: u64 = 512;
const NAME_BYTES_MAX: usize = 100;
const PREFIX_BYTES_MAX: usize = 155;
/// The greatest numbers that fit as octal digits: eleven for lengths and times, seven for owners.
const LONG_MAX: u64 = (1 << 33) - 1;
const SHORT_MAX: u64 = (1 << 21) - 1;

/// Writes a tar.
pub(in crate::ops) struct TarWriter<'o> {
    out: &'o mut dyn Write,
    name: &'o str,
}

impl<'o> TarWriter<'o> {
    /// Begins one; `name` is that of the output, for errors.
    pub(in crate::ops) fn new(out: &'o mut dyn Write, name: &'o str) -> TarWriter<'o> {
        TarWriter { out, name }
    }

    /// Adds a member; `content` writes as many bytes as the member says, or fails.
    pub(in crate::ops) fn add(
        &mut self,
        member: &Member,
        content: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let (header, records) = headers(member);
        if !records.is_empty() {
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            // What readers without pax make of it is a small file with this name.
            put_name(&mut extended, b"PaxHeader");
            put_numbers(&mut extended, 0o644, 0, 0, 0);
            extended.set_size(records.len() as u64);
            extended.set_cksum();
            self.write(extended.as_bytes())?;
            self.write(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.write(header.as_bytes())?;
        if let Kind::File(size_bytes) = member.kind {
            let mut counted = Counted {
                out: self.out,
                left: size_bytes,
            };
            content(&mut counted)?;
            if counted.left != 0 {
                let path = String::from_utf8_lossy(&member.path);
                return Err(Error::corrupt(format!("\"{path}\""), "it is too short"));
            }
            self.pad(size_bytes)?;
        }
        Ok(())
    }

    /// Ends the tar.
    pub(in crate::ops) fn finish(mut self) -> Result<()> {
        self.write(&[0; 2 * BLOCK_BYTES as usize])
    }

    fn pad(&mut self, bytes: u64) -> Result<()> {
        let missing = bytes.next_multiple_of(BLOCK_BYTES) - bytes;
        self.write(&[0; BLOCK_BYTES as usize][..missing as usize])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.out.write_all(bytes);
        written.map_err(Error::io("write", self.name))
    }
}

/// Lets no more through than the header said: anything else would be read as a header.
struct Counted<'o> {
    out: &'o mut dyn Write,
    left: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(std::io::Error::other("a file is longer than it says"));
        }
        let len = self.out.write(bytes)?;
        self.left -= len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Returns the header of a member and the records of the one before it, empty if it needs none.
fn headers(member: &Member) -> (Header, Vec<u8>) {
    let mut header = Header::new_ustar();
    let mut records = Vec::new();
    let (entry_type, link, size_bytes) = match &member.kind {
        Kind::Directory => (EntryType::Directory, None, 0),
        Kind::File(size_bytes) => (EntryType::Regular, None, *size_bytes),
        Kind::Symlink(target) => (EntryType::Symlink, Some(target), 0),
        Kind::HardLink(path) => (EntryType::Link, Some(path), 0),
        Kind::Fifo => (EntryType::Fifo, None, 0),
        Kind::CharDevice(..) => (EntryType::Char, None, 0),
        Kind::BlockDevice(..) => (EntryType::Block, None, 0),
    };
    header.set_entry_type(entry_type);
    let mut name = member.path.clone();
    if member.kind == Kind::Directory {
        name.push(b'/');
    }
    let is_long_name = !put_name(&mut header, &name);
    let long_link = link.filter(|link| link.len() > NAME_BYTES_MAX);
    let is_strange = |bytes: &[u8]| std::str::from_utf8(bytes).is_err();
    if is_long_name && is_strange(&name) || long_link.is_some_and(|link| is_strange(link)) {
        // Values are UTF-8 unless this says that they are just bytes.
        put_record(&mut records, b"hdrcharset", b"BINARY");
    }
    if is_long_name {
        put_record(&mut records, b"path", &name);
    }
    match (link, long_link) {
        (_, Some(link)) => put_record(&mut records, b"linkpath", link),
        (Some(link), None) => header.as_old_mut().linkname[..link.len()].copy_from_slice(link),
        (None, None) => {}
    }
    let mut number = |key: &[u8], value: u64, most: u64| match value <= most {
        true => value,
        false => {
            put_record(&mut records, key, value.to_string().as_bytes());
            0
        }
    };
    let size_bytes = number(b"size", size_bytes, LONG_MAX);
    let uid = number(b"uid", u64::from(member.uid), SHORT_MAX);
    let gid = number(b"gid", u64::from(member.gid), SHORT_MAX);
    let seconds = u64::try_from(member.modified.seconds)
        .unwrap_or(0)
        .min(LONG_MAX);
    if member.modified.nanoseconds != 0 || i64::try_from(seconds) != Ok(member.modified.seconds) {
        put_record(&mut records, b"mtime", decimal(member.modified).as_bytes());
    }
    put_numbers(&mut header, member.mode, uid, gid, seconds);
    header.set_size(size_bytes);
    for (name, value) in &member.xattrs {
        put_record(&mut records, &xattr_key(name), value);
    }
    if let Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) = member.kind {
        // Seven octal digits hold what Linux has.
        let set = header.set_device_major(major);
        let _ = set.and_then(|()| header.set_device_minor(minor));
    }
    header.set_cksum();
    (header, records)
}

/// Puts a name into a header, in two parts if it must be. Returns false if it does not fit; what
/// does is there then, for readers without pax.
fn put_name(header: &mut Header, name: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else {
        return false;
    };
    if name.len() <= NAME_BYTES_MAX {
        ustar.name[..name.len()].copy_from_slice(name);
        return true;
    }
    // The slash between the parts is in neither of them, and the second part must not be empty.
    let first = name.len().saturating_sub(NAME_BYTES_MAX + 1).max(1);
    let last = PREFIX_BYTES_MAX.min(name.len() - 2);
    let slash = (first..=last).find(|&at| name[at] == b'/');
    match slash {
        Some(at) => {
            ustar.prefix[..at].copy_from_slice(&name[..at]);
            ustar.name[..name.len() - at - 1].copy_from_slice(&name[at + 1..]);
            true
        }
        None => {
            ustar.name.copy_from_slice(&name[..NAME_BYTES_MAX]);
            false
        }
    }
}

fn put_numbers(header: &mut Header, mode: u32, uid: u64, gid: u64, seconds: u64) {
    header.set_mode(mode & 0o7777);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(seconds);
}

/// Adds a record, whose length counts its own digits.
fn put_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len.to_string().len() + rest > len {
        len = len.to_string().len() + rest;
    }
    records.extend_from_slice(len.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Returns a time as seconds with a fraction.
fn decimal(time: FileTime) -> String {
    let all = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let (sign, all) = (if all < 0 { "-" } else { "" }, all.unsigned_abs());
    let text = format!("{sign}{}.{:09}", all / 1_000_000_000, all % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Returns the key of an extended attribute as GNU tar and libarchive write it; `=` ends a key.
fn xattr_key(name: &[u8]) -> Vec<u8> {
    let mut key = b"SCHILY.xattr.".to_vec();
    for &byte in name {
        match byte {
            b'%' => key.extend_from_slice(b"%25"),
            b'=' => key.extend_from_slice(b"%3D"),
            byte => key.push(byte),
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for len in [0, 1, 87, 88, 89, 90, 983, 984, 985, 9_000] {
            let mut records = Vec::new();
            put_record(&mut records, b"path", &vec![b'x'; len]);

            let digits = records.iter().take_while(|byte| **byte != b' ').count();
            let said: usize = String::from_utf8_lossy(&records[..digits]).parse().unwrap();
            assert_eq!(said, records.len());
        }
    }

    #[test]
    fn times_are_decimal_and_may_be_before_1970() {
        let time = |seconds, nanoseconds| {
            decimal(FileTime {
                seconds,
                nanoseconds,
            })
        };

        assert_eq!(time(5, 500_000_000), "5.5");
        assert_eq!(time(5, 1), "5.000000001");
        assert_eq!(time(-5, 500_000_000), "-4.5");
        assert_eq!(time(-1, 999_999_999), "-0.000000001");
        assert_eq!(time(100, 0), "100");
    }

    #[test]
    fn a_long_name_is_cut_at_a_slash_if_that_is_enough() {
        let mut header = Header::new_ustar();
        let parts = [vec![b'a'; 150], vec![b'b'; 100]];
        let joined = parts.join(&b'/');

        assert!(put_name(&mut header, &joined));
        assert_eq!(header.path_bytes().as_ref(), joined);
        assert!(!put_name(&mut Header::new_ustar(), &[b'a'; 101]));
        assert!(!put_name(&mut Header::new_ustar(), &[b'a'; 300]));
        let directory = [&[b'a'; 100][..], b"/"].concat();
        assert!(!put_name(&mut Header::new_ustar(), &directory));
    }
}
