//! The tree of a snapshot: leaves of entries sorted by path, inner nodes above them.
//!
//! `docs/format.md`, section "Tree". A leaf knows the contents of its small files too: bundles,
//! chunks that hold the contents of several files one after the other, in the order of the entries.
//! Invariant: entries of a tree ascend strictly by `path_order`, and every path is plain (no empty
//! component, no `.` or `..`); `decode` refuses anything else, so readers need not look again.

mod row;

use crate::format::list::Stream;
use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::format::wire::Reader;
use crate::id::ChunkId;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

const VERSION: u8 = 1;
/// Front coding lets a few bytes stand for long paths; a node that unfolds to more is an attack.
const PATH_BYTES_MAX: usize = 128 << 20;
const NANOSECONDS_MAX: u32 = 999_999_999;
/// No file system has longer files.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// No tree has more levels of inner nodes.
pub const LEVEL_MAX: u8 = 8;
/// A leaf ends before a name that hashes to zero bits once it has so many bytes.
pub const LEAF_BYTES_MIN: usize = 16 << 10;
/// A leaf ends before it has many more bytes than this, whatever the names.
pub const LEAF_BYTES_MAX: usize = 128 << 10;
/// Files up to this length lie in bundles.
pub const SMALL_FILE_BYTES_MAX: u64 = 64 << 10;
/// A bundle ends before it grows beyond this, unless one file is longer.
pub const BUNDLE_BYTES_MAX: u64 = 256 << 10;
/// A bundle ends before a name that hashes to zero bits once it has so many bytes.
pub const BUNDLE_BYTES_MIN: u64 = 128 << 10;

/// The top node of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeRoot {
    /// The node.
    pub id: ChunkId,
    /// Zero for a leaf.
    pub level: u8,
}

impl TreeRoot {
    /// Returns the bytes of this reference.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.id.0.to_vec();
        out.push(self.level);
        out
    }

    /// Reads a reference.
    pub fn decode(bytes: &[u8]) -> Decoded<TreeRoot> {
        let mut reader = Reader::new(bytes);
        let root = TreeRoot {
            id: ChunkId(reader.array()?),
            level: reader.byte()?,
        };
        reader.finish()?;
        match root.level <= LEVEL_MAX {
            true => Ok(root),
            false => Err(Malformed::Bytes("a tree has too many levels")),
        }
    }
}

/// Compares paths with `/` below every other byte: a directory's content follows it directly.
pub fn path_order(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let rank = |path: &[u8]| {
        path.get(common)
            .map_or(0, |&b| 1 + u16::from(b != b'/') * u16::from(b))
    };
    rank(a).cmp(&rank(b)).then(a.len().cmp(&b.len()))
}

/// Returns whether a path may stand in a tree: the empty root, or plain components.
pub fn is_plain_path(path: &[u8]) -> bool {
    let is_plain = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
    path.is_empty() || path.split(|&b| b == b'/').all(is_plain)
}

/// A point in time as file systems keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct FileTime {
    /// Since 1970.
    pub seconds: i64,
    /// Below a second.
    pub nanoseconds: u32,
}

/// What entries of one leaf share.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Attributes {
    /// The twelve permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Extended attributes, ACLs among them, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Where the content of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// In the bundles of the leaf, at the place the order of entries gives. Empty files too.
    Bundled(Class),
    /// In chunks of its own.
    Stream(Stream),
}

/// Which bundles of a leaf a small file lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// With the others.
    Ordinary,
    /// Apart: never compressed together with other data.
    Secret,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File { size_bytes: u64, content: Content },
    /// A symbolic link.
    Symlink { target: Vec<u8> },
    /// Another name of a file earlier in the tree.
    HardLink { path: Vec<u8> },
    /// A named pipe.
    Fifo,
    /// A socket; recorded, never restored.
    Socket,
    /// A character device.
    CharDevice { major: u32, minor: u32 },
    /// A block device.
    BlockDevice { major: u32, minor: u32 },
}

/// One name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root of the snapshot; empty for the root itself.
    pub path: Vec<u8>,
    /// Mode, owner, extended attributes.
    pub attributes: Arc<Attributes>,
    /// When the content changed last.
    pub modified: FileTime,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// Returns the class of a file that lies in a bundle.
    pub fn class(&self) -> Option<Class> {
        match &self.kind {
            Kind::File {
                content: Content::Bundled(class),
                ..
            } => Some(*class),
            _ => None,
        }
    }
}

/// A chunk with the contents of several small files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bundle {
    /// The chunk.
    pub id: ChunkId,
    /// Files of its class that lie in it, empty ones included.
    pub files: u32,
    /// Which files.
    pub class: Class,
}

/// The entries between two cuts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leaf {
    /// Sorted by path.
    pub entries: Vec<Entry>,
    /// The contents of the small ones among them.
    pub bundles: Vec<Bundle>,
}

/// A node above leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inner {
    /// One above leaves.
    pub level: u8,
    /// First path below each child, and the child.
    pub children: Vec<(Vec<u8>, ChunkId)>,
}

/// Any node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Level zero.
    Leaf(Leaf),
    /// Above.
    Inner(Inner),
}

impl Node {
    /// Reads a node.
    pub fn decode(bytes: &[u8]) -> Decoded<Node> {
        let mut reader = Reader::new(bytes);
        match reader.byte()? {
            VERSION => {}
            other => return Err(Malformed::Unknown("tree version", u64::from(other))),
        }
        match reader.byte()? {
            0 => decode_leaf(reader).map(Node::Leaf),
            level if level <= LEVEL_MAX => decode_inner(level, reader).map(Node::Inner),
            _ => Err(Malformed::Bytes("a tree has too many levels")),
        }
    }
}

impl Inner {
    /// Returns the plain bytes of the chunk that holds this node.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.level];
        wire::put_varint(&mut out, self.children.len() as u64);
        let mut before: &[u8] = &[];
        for (path, id) in &self.children {
            row::put_path(&mut out, before, path);
            out.extend_from_slice(id.as_bytes());
            before = path;
        }
        out
    }
}

fn decode_inner(level: u8, mut reader: Reader<'_>) -> Decoded<Inner> {
    let count = reader.count(2 + ChunkId::LEN)?;
    let mut children: Vec<(Vec<u8>, ChunkId)> = Vec::with_capacity(count);
    let mut path_bytes = 0;
    for _ in 0..count {
        let path = row::take_path(
            &mut reader,
            children.last().map(|(path, _)| path.as_slice()),
        )?;
        path_bytes += path.len();
        if path_bytes > PATH_BYTES_MAX {
            return Err(Malformed::Bytes("the paths of a node are too long"));
        }
        children.push((path, ChunkId(reader.array()?)));
    }
    skip_future(reader)?;
    match children.is_empty() {
        true => Err(Malformed::Bytes("an inner node has no children")),
        false => Ok(Inner { level, children }),
    }
}

impl Leaf {
    /// Returns the plain bytes of the chunk that holds this leaf.
    pub fn encode(&self) -> Vec<u8> {
        let mut attributes: Vec<&Arc<Attributes>> = Vec::new();
        let mut numbers: HashMap<&Attributes, usize> = HashMap::new();
        let base = self
            .entries
            .first()
            .map_or(0, |entry| entry.modified.seconds);
        let mut rows = Vec::with_capacity(self.entries.len() * 48);
        let mut before: &[u8] = &[];
        for entry in &self.entries {
            let number = *numbers.entry(&entry.attributes).or_insert_with(|| {
                attributes.push(&entry.attributes);
                attributes.len() - 1
            });
            row::put_path(&mut rows, before, &entry.path);
            row::put_kind(&mut rows, &entry.kind);
            wire::put_varint(&mut rows, number as u64);
            let seconds = entry.modified.seconds.wrapping_sub(base);
            wire::put_varint(&mut rows, wire::zigzag(seconds));
            let nanoseconds = entry.modified.nanoseconds.min(NANOSECONDS_MAX);
            wire::put_varint(&mut rows, u64::from(nanoseconds));
            before = &entry.path;
        }
        let mut out = vec![VERSION, 0];
        wire::put_varint(&mut out, wire::zigzag(base));
        row::put_attributes(&mut out, &attributes);
        wire::put_varint(&mut out, self.bundles.len() as u64);
        for bundle in &self.bundles {
            let class = u64::from(bundle.class == Class::Secret);
            wire::put_varint(&mut out, u64::from(bundle.files) << 1 | class);
            out.extend_from_slice(bundle.id.as_bytes());
        }
        wire::put_varint(&mut out, self.entries.len() as u64);
        out.extend_from_slice(&rows);
        out
    }
}

/// Where the content of a small file lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index into the bundles of the leaf.
    pub bundle: usize,
    /// Where in the bundle it begins.
    pub offset: u64,
    /// How long it is.
    pub size_bytes: u64,
}

impl Leaf {
    /// Returns for every entry where its content lies, `None` if not in a bundle.
    pub fn places(&self) -> Vec<Option<Place>> {
        let mut places = vec![None; self.entries.len()];
        for class in [Class::Ordinary, Class::Secret] {
            let mut bundles = (0..self.bundles.len()).filter(|&i| self.bundles[i].class == class);
            let (mut bundle, mut left, mut offset) = (0, 0, 0);
            for (entry, place) in self.entries.iter().zip(&mut places) {
                let Kind::File {
                    size_bytes,
                    content: Content::Bundled(of),
                } = entry.kind
                else {
                    continue;
                };
                if of != class {
                    continue;
                }
                while left == 0 {
                    let Some(next) = bundles.next() else {
                        return places;
                    };
                    (bundle, left, offset) = (next, self.bundles[next].files, 0);
                }
                *place = Some(Place {
                    bundle,
                    offset,
                    size_bytes,
                });
                left -= 1;
                offset += size_bytes;
            }
        }
        places
    }
}

fn decode_leaf(mut reader: Reader<'_>) -> Decoded<Leaf> {
    let base = wire::unzigzag(reader.varint()?);
    let attributes = row::take_attributes(&mut reader)?;
    let mut leaf = Leaf::default();
    for _ in 0..reader.count(1 + ChunkId::LEN)? {
        let number = reader.varint()?;
        let files = u32::try_from(number >> 1);
        let files = files.map_err(|_| Malformed::Bytes("a number is too large"))?;
        let class = if number & 1 == 1 {
            Class::Secret
        } else {
            Class::Ordinary
        };
        leaf.bundles.push(Bundle {
            id: ChunkId(reader.array()?),
            files,
            class,
        });
    }
    let count = reader.count(6)?;
    let mut path_bytes = 0;
    leaf.entries.reserve(count);
    for _ in 0..count {
        let before = leaf.entries.last().map(|entry| entry.path.as_slice());
        let path = row::take_path(&mut reader, before)?;
        let kind = row::take_kind(&mut reader)?;
        let number = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let attributes = attributes.get(number);
        let attributes = attributes.ok_or(Malformed::Bytes("an entry's attributes are missing"))?;
        let seconds = base.wrapping_add(wire::unzigzag(reader.varint()?));
        let nanoseconds = reader.varint_u32()?;
        // Beyond it are numbers that mean "now" and "leave it" to the system calls.
        if nanoseconds > NANOSECONDS_MAX {
            return Err(Malformed::Bytes("a time is impossible"));
        }
        if matches!(&kind, Kind::HardLink { path: first } if path_order(first, &path).is_ge()) {
            return Err(Malformed::Bytes("a hard link names no earlier entry"));
        }
        let modified = FileTime {
            seconds,
            nanoseconds,
        };
        let attributes = Arc::clone(attributes);
        path_bytes += path.len();
        if path_bytes > PATH_BYTES_MAX {
            return Err(Malformed::Bytes("the paths of a node are too long"));
        }
        leaf.entries.push(Entry {
            path,
            attributes,
            modified,
            kind,
        });
    }
    skip_future(reader)?;
    check_bundles(&leaf)?;
    Ok(leaf)
}

/// Later versions may append fields: more about entries or children, in their order.
fn skip_future(mut reader: Reader<'_>) -> Decoded<()> {
    while let Some((number, _)) = reader.field()? {
        wire::unknown_field(number)?;
    }
    Ok(())
}

/// Every bundled file lies in a bundle, and no bundle claims more than there are.
fn check_bundles(leaf: &Leaf) -> Decoded<()> {
    for class in [Class::Ordinary, Class::Secret] {
        let files = leaf
            .entries
            .iter()
            .filter(|entry| entry.class() == Some(class))
            .count() as u64;
        let bundles = leaf.bundles.iter().filter(|bundle| bundle.class == class);
        if bundles.map(|bundle| u64::from(bundle.files)).sum::<u64>() != files {
            return Err(Malformed::Bytes("bundles and files of a leaf do not agree"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::list::Flavour;
    use crate::format::list::HOLE;
    use crate::format::list::StreamKind;
    use proptest::prelude::*;

    fn entry(path: &[u8], kind: Kind) -> Entry {
        let modified = FileTime {
            seconds: -5,
            nanoseconds: 999_999_999,
        };
        let xattrs = vec![(b"user.a".to_vec(), vec![0, 1])];
        let attributes = Arc::new(Attributes {
            mode: 0o4755,
            uid: 0,
            gid: u32::MAX,
            xattrs,
        });
        Entry {
            path: path.to_vec(),
            attributes,
            modified,
            kind,
        }
    }

    fn leaf() -> Leaf {
        let flavour = Flavour::Cut;
        let stream = Stream {
            root: HOLE,
            level: 1,
            flavour,
            kind: StreamKind::File,
        };
        let file = |size_bytes, content| Kind::File {
            size_bytes,
            content,
        };
        let entries = vec![
            entry(b"", Kind::Directory),
            entry(b"a", Kind::Directory),
            entry(b"a/.env", file(5, Content::Bundled(Class::Secret))),
            entry(b"a/\xff", file(7, Content::Bundled(Class::Ordinary))),
            entry(b"a-b", file(1 << 40, Content::Stream(stream))),
            entry(
                b"b",
                Kind::Symlink {
                    target: b"../../etc".to_vec(),
                },
            ),
            entry(
                b"c",
                Kind::HardLink {
                    path: b"a-b".to_vec(),
                },
            ),
            entry(b"d", Kind::Fifo),
            entry(b"e", Kind::BlockDevice { major: 8, minor: 1 }),
        ];
        let bundle = |class| Bundle {
            id: ChunkId([3; 32]),
            files: 1,
            class,
        };
        Leaf {
            entries,
            bundles: vec![bundle(Class::Ordinary), bundle(Class::Secret)],
        }
    }

    #[test]
    fn nodes_round_trip() {
        let inner = Inner {
            level: 2,
            children: vec![
                (vec![], HOLE),
                (b"a/x".to_vec(), HOLE),
                (b"a-b".to_vec(), HOLE),
            ],
        };

        assert_eq!(Node::decode(&leaf().encode()), Ok(Node::Leaf(leaf())));
        assert_eq!(Node::decode(&inner.encode()), Ok(Node::Inner(inner)));
    }

    #[test]
    fn hostile_leaves_are_refused() {
        let attributes = |leaf: &mut Leaf, xattrs: &[&[u8]]| {
            let attributes = Arc::make_mut(&mut leaf.entries[0].attributes);
            attributes.xattrs = xattrs.iter().map(|n| (n.to_vec(), vec![])).collect();
        };
        let spoiled: [&dyn Fn(&mut Leaf); 14] = [
            &|leaf| leaf.entries[1].path = b"../etc".to_vec(),
            &|leaf| leaf.entries[1].path = b"/etc".to_vec(),
            &|leaf| leaf.entries[3].path = b"a/.env".to_vec(),
            &|leaf| leaf.entries.swap(2, 3),
            &|leaf| {
                leaf.entries[6].kind = Kind::HardLink {
                    path: b"a/../../x".to_vec(),
                }
            },
            &|leaf| leaf.bundles[0].files = 2,
            &|leaf| {
                leaf.entries[6].kind = Kind::HardLink {
                    path: b"c".to_vec(),
                }
            },
            &|leaf| leaf.entries[5].kind = Kind::Symlink { target: vec![] },
            &|leaf| {
                leaf.entries[5].kind = Kind::Symlink {
                    target: b"a\0b".to_vec(),
                }
            },
            &|leaf| {
                if let Kind::File { size_bytes, .. } = &mut leaf.entries[4].kind {
                    *size_bytes = 1 << 63;
                }
            },
            &|leaf| attributes(leaf, &[b""]),
            &|leaf| attributes(leaf, &[b"a\0b"]),
            &|leaf| attributes(leaf, &[b"user.b", b"user.a"]),
            &|leaf| attributes(leaf, &[b"user.a", b"user.a"]),
        ];
        for (i, spoil) in spoiled.into_iter().enumerate() {
            let mut leaf = leaf();
            spoil(&mut leaf);
            assert!(Node::decode(&leaf.encode()).is_err(), "{i}");
        }
    }

    #[test]
    fn nodes_with_fields_from_the_future_are_read_or_refused_by_their_number() {
        let inner = Inner {
            level: 2,
            children: vec![(vec![], HOLE)],
        };
        for (mut bytes, node) in [
            (leaf().encode(), Node::Leaf(leaf())),
            (inner.encode(), Node::Inner(inner)),
        ] {
            wire::put_field(&mut bytes, 100, b"from the future");
            assert_eq!(Node::decode(&bytes), Ok(node));

            wire::put_field(&mut bytes, 101, b"that must be understood");
            let unknown = Malformed::Unknown("field", 101);
            assert_eq!(Node::decode(&bytes), Err(unknown));
        }
    }

    #[test]
    fn an_impossible_time_is_neither_written_nor_read() {
        let mut leaf = Leaf {
            entries: vec![entry(b"", Kind::Directory)],
            bundles: vec![],
        };
        let mut bytes = leaf.encode();
        let nanoseconds = bytes.len() - 5;
        assert_eq!(bytes[nanoseconds..], [0xff, 0x93, 0xeb, 0xdc, 0x03]);
        bytes[nanoseconds] = 0x80;
        bytes[nanoseconds + 1] = 0x94;
        assert!(Node::decode(&bytes).is_err());

        Arc::make_mut(&mut leaf.entries[0].attributes).xattrs = vec![];
        leaf.entries[0].modified.nanoseconds = u32::MAX;
        assert!(Node::decode(&leaf.encode()).is_ok());
    }

    #[test]
    fn a_directory_is_followed_by_its_content() {
        let mut paths = [
            &b"a-b"[..],
            b"a/b",
            b"",
            b"a",
            b"a/b/c",
            b"a/b-c",
            b"b",
            b"a\x01",
        ];
        paths.sort_by(|a, b| path_order(a, b));
        let wanted = [
            &b""[..],
            b"a",
            b"a/b",
            b"a/b/c",
            b"a/b-c",
            b"a\x01",
            b"a-b",
            b"b",
        ];
        assert_eq!(paths, wanted);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes: Vec<u8>) {
            let _ = Node::decode(&bytes);
            let _ = Node::decode(&[&[1, 0][..], &bytes].concat());
            let _ = Node::decode(&[&[1, 1][..], &bytes].concat());
        }

        #[test]
        fn the_order_is_that_of_paths_with_the_slash_mapped_to_zero(a: Vec<u8>, b: Vec<u8>) {
            let clean = |path: &[u8]| path.iter().map(|&b| b.max(1)).collect::<Vec<u8>>();
            let mapped = |path: &[u8]| {
                path.iter().map(|&b| if b == b'/' { 0 } else { b }).collect::<Vec<u8>>()
            };
            let (a, b) = (clean(&a), clean(&b));
            prop_assert_eq!(path_order(&a, &b), mapped(&a).cmp(&mapped(&b)));
        }
    }
}
