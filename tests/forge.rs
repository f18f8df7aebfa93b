//! Makes archives that say what they like: tar headers and zip records byte by byte.

use flate2::Crc;
use std::io::Write;

/// A header of a tar. Every field is as given, the checksum aside.
#[derive(Clone)]
pub(crate) struct Tar {
    pub kind: u8,
    pub name: Vec<u8>,
    pub prefix: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    /// The length as it is written; `None` for that of the content.
    pub size: Option<Vec<u8>>,
    pub magic: &'static [u8],
    pub content: Vec<u8>,
    pub bad_sum: bool,
}

pub(crate) const USTAR: &[u8] = b"ustar\x0000";
pub(crate) const GNU: &[u8] = b"ustar  \0";

impl Tar {
    pub(crate) fn file(name: &[u8]) -> Tar {
        Tar {
            kind: b'0',
            name: name.to_vec(),
            prefix: Vec::new(),
            link: Vec::new(),
            mode: 0o644,
            size: None,
            magic: USTAR,
            content: b"content".to_vec(),
            bad_sum: false,
        }
    }

    pub(crate) fn of(kind: u8, name: &[u8], link: &[u8]) -> Tar {
        Tar {
            kind,
            link: link.to_vec(),
            // A directory that its owner cannot enter is a case of its own.
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            content: Vec::new(),
            ..Tar::file(name)
        }
    }

    pub(crate) fn with(kind: u8, content: &[u8]) -> Tar {
        Tar {
            content: content.to_vec(),
            ..Tar::of(kind, b"././@Header", b"")
        }
    }

    pub(crate) fn pax(records: &[(&[u8], &[u8])]) -> Tar {
        let lines = records.iter().map(|(key, value)| record(key, value));
        Tar::with(b'x', &lines.collect::<Vec<_>>().concat())
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let mut block = [0_u8; 512];
        let mut set = |at: usize, room: usize, bytes: &[u8]| {
            let len = bytes.len().min(room);
            block[at..at + len].copy_from_slice(&bytes[..len]);
        };
        set(0, 100, &self.name);
        set(100, 8, format!("{:07o}", self.mode).as_bytes());
        set(108, 8, b"0000000");
        set(116, 8, b"0000000");
        let size = format!("{:011o}", self.content.len()).into_bytes();
        set(124, 12, self.size.as_ref().unwrap_or(&size));
        set(136, 12, b"14524770400");
        set(148, 8, b"        ");
        set(156, 1, &[self.kind]);
        set(157, 100, &self.link);
        set(257, 8, self.magic);
        set(345, 155, &self.prefix);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let sum = sum + u32::from(self.bad_sum);
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&block);
        out.extend_from_slice(&self.content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
}

/// A record of an extended header: its length counts itself.
pub(crate) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    [format!("{len} ").as_bytes(), key, b"=", value, b"\n"].concat()
}

pub(crate) fn tar(members: &[Tar]) -> Vec<u8> {
    let mut out = Vec::new();
    members.iter().for_each(|member| member.put(&mut out));
    out.resize(out.len() + 1024, 0);
    out
}

pub(crate) fn gz(plain: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(plain).unwrap();
    out.finish().unwrap()
}

pub(crate) fn zst(plain: &[u8]) -> Vec<u8> {
    statekeep::codec::zstd::Encoder::new(3)
        .whole(plain)
        .to_vec()
}

/// A member of a zip: what its own header says, and what the directory says.
#[derive(Clone)]
pub(crate) struct Zip {
    pub local: Record,
    pub central: Record,
    pub content: Vec<u8>,
    /// What stands behind the content.
    pub descriptor: Vec<u8>,
    /// Where the directory says that it is; `None` for where it is.
    pub at: Option<u32>,
}

/// What is said of a member in one place.
#[derive(Clone)]
pub(crate) struct Record {
    pub name: Vec<u8>,
    pub flags: u16,
    pub method: u16,
    pub crc: u32,
    pub packed: u32,
    pub plain: u32,
    pub extra: Vec<u8>,
    pub made_by: u16,
    pub mode: u32,
}

/// Names are UTF-8.
pub(crate) const UTF8: u16 = 1 << 11;
pub(crate) const DESCRIPTOR: u16 = 1 << 3;

pub(crate) fn crc(content: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(content);
    crc.sum()
}

impl Zip {
    pub(crate) fn file(name: &[u8], content: &[u8]) -> Zip {
        let record = Record {
            name: name.to_vec(),
            flags: if name.is_ascii() { 0 } else { UTF8 },
            method: 0,
            crc: crc(content),
            packed: content.len() as u32,
            plain: content.len() as u32,
            extra: Vec::new(),
            made_by: 3 << 8 | 20,
            mode: 0o100_644,
        };
        Zip {
            local: record.clone(),
            central: record,
            content: content.to_vec(),
            descriptor: Vec::new(),
            at: None,
        }
    }

    /// Changes what both places say.
    pub(crate) fn both(mut self, change: impl Fn(&mut Record)) -> Zip {
        change(&mut self.local);
        change(&mut self.central);
        self
    }
}

/// The frame of a zip.
#[derive(Clone, Default)]
pub(crate) struct Frame {
    pub before: Vec<u8>,
    pub between: Vec<u8>,
    pub comment: Vec<u8>,
    /// Added to the number of members that the end says.
    pub more: i32,
    /// Added to where the end says that the directory is.
    pub shift: i32,
}

pub(crate) fn zip(members: &[Zip]) -> Vec<u8> {
    zip_in(&Frame::default(), members)
}

pub(crate) fn zip_in(frame: &Frame, members: &[Zip]) -> Vec<u8> {
    let mut out = frame.before.clone();
    let mut directory = Vec::new();
    let put16 = |out: &mut Vec<u8>, n: u16| out.extend_from_slice(&n.to_le_bytes());
    let put32 = |out: &mut Vec<u8>, n: u32| out.extend_from_slice(&n.to_le_bytes());
    let fields = |out: &mut Vec<u8>, record: &Record| {
        put16(out, 20);
        put16(out, record.flags);
        put16(out, record.method);
        put32(out, 0x5a21_0000);
        put32(out, record.crc);
        put32(out, record.packed);
        put32(out, record.plain);
        put16(out, record.name.len() as u16);
        put16(out, record.extra.len() as u16);
    };
    for member in members {
        let at = member.at.unwrap_or(out.len() as u32);
        out.extend_from_slice(b"PK\x03\x04");
        fields(&mut out, &member.local);
        out.extend_from_slice(&member.local.name);
        out.extend_from_slice(&member.local.extra);
        out.extend_from_slice(&member.content);
        out.extend_from_slice(&member.descriptor);
        out.extend_from_slice(&frame.between);
        directory.extend_from_slice(b"PK\x01\x02");
        put16(&mut directory, member.central.made_by);
        fields(&mut directory, &member.central);
        put16(&mut directory, 0);
        put32(&mut directory, 0);
        put32(&mut directory, member.central.mode << 16);
        put32(&mut directory, at);
        directory.extend_from_slice(&member.central.name);
        directory.extend_from_slice(&member.central.extra);
    }
    let at = out.len() as u32;
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    let count = (members.len() as i32 + frame.more) as u16;
    put16(&mut out, count);
    put16(&mut out, count);
    put32(&mut out, directory.len() as u32);
    put32(&mut out, at.wrapping_add_signed(frame.shift));
    put16(&mut out, frame.comment.len() as u16);
    out.extend_from_slice(&frame.comment);
    out
}
