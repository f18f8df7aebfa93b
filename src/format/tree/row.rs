//! The parts of a row of a leaf: path, kind, attributes.

use super::Attributes;
use super::Class;
use super::Content;
use super::FILE_BYTES_MAX;
use super::Kind;
use super::SMALL_FILE_BYTES_MAX;
use super::is_plain_path;
use super::path_order;
use crate::format::list::Stream;
use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::format::wire::Reader;
use std::cmp::Ordering;
use std::sync::Arc;

pub(super) fn put_attributes(out: &mut Vec<u8>, attributes: &[&Arc<Attributes>]) {
    wire::put_varint(out, attributes.len() as u64);
    for one in attributes {
        wire::put_varint(out, u64::from(one.mode));
        wire::put_varint(out, u64::from(one.uid));
        wire::put_varint(out, u64::from(one.gid));
        wire::put_varint(out, one.xattrs.len() as u64);
        for (name, value) in &one.xattrs {
            wire::put_bytes(out, name);
            wire::put_bytes(out, value);
        }
    }
}

pub(super) fn take_attributes(reader: &mut Reader<'_>) -> Decoded<Vec<Arc<Attributes>>> {
    let count = reader.count(4)?;
    let mut attributes = Vec::with_capacity(count);
    for _ in 0..count {
        let mode = reader.varint_u32()?;
        if mode > 0o7777 {
            return Err(Malformed::Bytes("a mode has bits beyond permissions"));
        }
        let (uid, gid) = (reader.varint_u32()?, reader.varint_u32()?);
        let mut xattrs = Vec::with_capacity(reader.clone().count(2)?);
        for _ in 0..reader.count(2)? {
            let name = reader.bytes()?.to_vec();
            let before: &[u8] = xattrs.last().map_or(&[], |(name, _): &(Vec<u8>, _)| name);
            if name.as_slice() <= before || name.contains(&0) {
                return Err(Malformed::Bytes("extended attributes are out of order"));
            }
            xattrs.push((name, reader.bytes()?.to_vec()));
        }
        attributes.push(Arc::new(Attributes {
            mode,
            uid,
            gid,
            xattrs,
        }));
    }
    Ok(attributes)
}

pub(super) fn put_path(out: &mut Vec<u8>, before: &[u8], path: &[u8]) {
    let shared = before.iter().zip(path).take_while(|(a, b)| a == b).count();
    wire::put_varint(out, shared as u64);
    wire::put_bytes(out, &path[shared..]);
}

pub(super) fn take_path(reader: &mut Reader<'_>, before: Option<&[u8]>) -> Decoded<Vec<u8>> {
    let shared = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    let prefix = before.unwrap_or(&[]).get(..shared);
    let prefix = prefix.ok_or(Malformed::Bytes("a path shares more than there is"))?;
    let path = [prefix, reader.bytes()?].concat();
    if !is_plain_path(&path) {
        return Err(Malformed::Bytes("a path is not plain"));
    }
    if before.is_some_and(|before| path_order(before, &path) != Ordering::Less) {
        return Err(Malformed::Bytes("paths are not in order"));
    }
    Ok(path)
}

pub(super) fn put_kind(out: &mut Vec<u8>, kind: &Kind) {
    match kind {
        Kind::Directory => out.push(0),
        Kind::File {
            size_bytes,
            content,
        } => {
            out.push(match content {
                Content::Bundled(Class::Ordinary) => 1,
                Content::Bundled(Class::Secret) => 2,
                Content::Stream(_) => 3,
            });
            wire::put_varint(out, *size_bytes);
            if let Content::Stream(stream) = content {
                stream.put(out);
            }
        }
        Kind::Symlink { target } => {
            out.push(4);
            wire::put_bytes(out, target);
        }
        Kind::HardLink { path } => {
            out.push(5);
            wire::put_bytes(out, path);
        }
        Kind::Fifo => out.push(6),
        Kind::Socket => out.push(7),
        Kind::CharDevice { major, minor } => put_device(out, 8, *major, *minor),
        Kind::BlockDevice { major, minor } => put_device(out, 9, *major, *minor),
    }
}

fn put_device(out: &mut Vec<u8>, tag: u8, major: u32, minor: u32) {
    out.push(tag);
    wire::put_varint(out, u64::from(major));
    wire::put_varint(out, u64::from(minor));
}

pub(super) fn take_kind(reader: &mut Reader<'_>) -> Decoded<Kind> {
    let bundled = |size_bytes: u64, class| match size_bytes <= SMALL_FILE_BYTES_MAX {
        true => Ok(Kind::File {
            size_bytes,
            content: Content::Bundled(class),
        }),
        false => Err(Malformed::Bytes("a file in a bundle is too long")),
    };
    Ok(match reader.byte()? {
        0 => Kind::Directory,
        1 => bundled(reader.varint()?, Class::Ordinary)?,
        2 => bundled(reader.varint()?, Class::Secret)?,
        3 => {
            let size_bytes = reader.varint()?;
            if size_bytes > FILE_BYTES_MAX {
                return Err(Malformed::Bytes("a file is impossibly long"));
            }
            Kind::File {
                size_bytes,
                content: Content::Stream(Stream::take(reader)?),
            }
        }
        4 => {
            let target = reader.bytes()?.to_vec();
            if target.is_empty() || target.contains(&0) {
                return Err(Malformed::Bytes("a symbolic link has an impossible target"));
            }
            Kind::Symlink { target }
        }
        5 => {
            let path = reader.bytes()?.to_vec();
            if path.is_empty() || !is_plain_path(&path) {
                return Err(Malformed::Bytes("a path is not plain"));
            }
            Kind::HardLink { path }
        }
        6 => Kind::Fifo,
        7 => Kind::Socket,
        8 => Kind::CharDevice {
            major: reader.varint_u32()?,
            minor: reader.varint_u32()?,
        },
        9 => Kind::BlockDevice {
            major: reader.varint_u32()?,
            minor: reader.varint_u32()?,
        },
        other => return Err(Malformed::Unknown("kind of entry", u64::from(other))),
    })
}
