//! Builds snapshots directly, without a backup: chunks through the writer, leaves through the
//! format. So tests can have trees that no backup would write.

use statekeep::context::Context;
use statekeep::disk::node;
use statekeep::format::entry::PackBytes;
use statekeep::format::list::Child;
use statekeep::format::list::Children;
use statekeep::format::list::Flavour;
use statekeep::format::list::HOLE;
use statekeep::format::list::ListNode;
use statekeep::format::list::Stream;
use statekeep::format::list::StreamKind;
use statekeep::format::manifest::Manifest;
use statekeep::format::pack::ChunkKind;
use statekeep::format::tree::Attributes;
use statekeep::format::tree::Bundle;
use statekeep::format::tree::Class;
use statekeep::format::tree::Content;
use statekeep::format::tree::Entry;
use statekeep::format::tree::FileTime;
use statekeep::format::tree::Inner;
use statekeep::format::tree::Kind;
use statekeep::format::tree::Leaf;
use statekeep::format::tree::TreeRoot;
use statekeep::format::tree::path_order;
use statekeep::id::ChunkId;
use statekeep::id::PackId;
use statekeep::id::RepoId;
use statekeep::id::SnapshotId;
use statekeep::repo::Access;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::repo::writer::FinishedPack;
use statekeep::repo::writer::Trust;
use statekeep::repo::writer::Writer;
use statekeep::repo::writer::WriterScratch;
use statekeep::store::Key;
use statekeep::store::MemoryStore;
use statekeep::store::Store;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

pub(crate) const CHUNK_BYTES: usize = 512 << 10;
const LEAF_ENTRIES: usize = 7;

/// A repository in memory that is filled by hand.
pub(crate) struct BenchRepo {
    pub(crate) cx: Context,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) repo: &'static Repo,
    pub(crate) chunks: Chunks<'static>,
    pub(crate) packs: Mutex<BTreeMap<PackId, PackBytes>>,
}

/// Stores a chunk.
pub(crate) type Put<'a> = dyn Fn(ChunkKind, &[u8], Option<&ChunkId>) -> ChunkId + 'a;

impl BenchRepo {
    pub(crate) fn new() -> BenchRepo {
        let cx = Context::new();
        let store = Arc::new(MemoryStore::new());
        let repo = Repo::create(&cx, store.clone(), RepoId([7; 16]), Access::Plain, None).unwrap();
        // A leak of a few hundred bytes keeps lifetimes out of the tests.
        let repo: &'static Repo = Box::leak(Box::new(repo));
        let chunks = Chunks::open(repo, &BTreeMap::new()).unwrap();
        let packs = Mutex::default();
        BenchRepo {
            cx,
            store,
            repo,
            chunks,
            packs,
        }
    }

    /// Puts all that `work` stores into one pack.
    pub(crate) fn pack<T>(&self, work: impl FnOnce(&Put<'_>) -> T) -> T {
        let finished = |pack: FinishedPack| {
            self.add_pack(&pack.id, &pack.object, pack.bytes);
            self.chunks.add_pack(pack.id, pack.bytes, &pack.rows);
            Ok(())
        };
        let writer = Writer::begin(&self.cx, &self.chunks, &finished, Trust::Parent);
        let scratch = Mutex::new(WriterScratch::default());
        let put = |kind: ChunkKind, plain: &[u8], base: Option<&ChunkId>| {
            let mut scratch = scratch.lock().unwrap();
            writer.store(&mut scratch, kind, plain, base).unwrap().id
        };
        let done = work(&put);
        writer.finish().unwrap();
        done
    }

    pub(crate) fn add_pack(&self, id: &PackId, object: &[u8], bytes: PackBytes) {
        self.store.put_new(&Key::pack(id), object).unwrap();
        self.packs.lock().unwrap().insert(*id, bytes);
    }

    /// Returns the chunks as a new process would see them.
    pub(crate) fn reopen(&self) -> Chunks<'static> {
        Chunks::open(self.repo, &self.packs()).unwrap()
    }

    pub(crate) fn packs(&self) -> BTreeMap<PackId, PackBytes> {
        self.packs.lock().unwrap().clone()
    }

    /// Stores a snapshot: each large file and each bundle in a pack of its own, then the tree.
    pub(crate) fn snapshot(&self, mut nodes: Vec<New>) -> Manifest {
        nodes.sort_by(|a, b| path_order(&a.path, &b.path));
        let leaves: Vec<Leaf> = nodes
            .chunks(LEAF_ENTRIES)
            .map(|part| self.leaf(part))
            .collect();
        self.tree(&leaves)
    }

    /// Stores these leaves and a root above them.
    pub(crate) fn tree(&self, leaves: &[Leaf]) -> Manifest {
        let tree = self.pack(|put| {
            let id = |leaf: &Leaf| put(ChunkKind::Tree, &leaf.encode(), None);
            let first = |leaf: &Leaf| leaf.entries[0].path.clone();
            let children: Vec<_> = leaves.iter().map(|leaf| (first(leaf), id(leaf))).collect();
            match &children[..] {
                [(_, id)] => TreeRoot { id: *id, level: 0 },
                _ => {
                    let inner = Inner { level: 1, children };
                    let id = put(ChunkKind::Tree, &inner.encode(), None);
                    TreeRoot { id, level: 1 }
                }
            }
        });
        Manifest {
            tree,
            ..Manifest::default()
        }
    }

    pub(crate) fn id(&self, manifest: &Manifest) -> SnapshotId {
        self.repo.secrets().snapshot_id(&manifest.encode())
    }

    pub(crate) fn leaf(&self, nodes: &[New]) -> Leaf {
        let mut leaf = Leaf::default();
        for class in [Class::Ordinary, Class::Secret] {
            let (mut bundle, mut files) = (Vec::new(), 0);
            for node in nodes {
                if let What::Small(bytes, of) = &node.what
                    && *of == class
                {
                    bundle.extend_from_slice(bytes);
                    files += 1;
                }
            }
            if files > 0 {
                let id = self.pack(|put| put(ChunkKind::Data, &bundle, None));
                leaf.bundles.push(Bundle { id, files, class });
            }
        }
        leaf.entries = nodes.iter().map(|node| self.entry(node)).collect();
        leaf
    }

    pub(crate) fn entry(&self, node: &New) -> Entry {
        let kind = match &node.what {
            What::Small(bytes, class) => Kind::File {
                size_bytes: bytes.len() as u64,
                content: Content::Bundled(*class),
            },
            What::Large(parts) => self.stream(parts),
            What::Other(kind) => kind.clone(),
        };
        let attributes = Attributes {
            mode: node.mode,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            xattrs: node.xattrs.clone(),
        };
        Entry {
            path: node.path.clone(),
            attributes: Arc::new(attributes),
            modified: FileTime {
                seconds: node.seconds,
                nanoseconds: 123_456_789,
            },
            kind,
        }
    }

    fn stream(&self, parts: &[Part]) -> Kind {
        let children: Vec<Child> = self.pack(|put| {
            let mut children = Vec::new();
            for part in parts {
                match part {
                    Part::Hole(plain_bytes) => {
                        children.push(Child {
                            mark: 0,
                            plain_bytes: *plain_bytes,
                            id: HOLE,
                        });
                    }
                    Part::Bytes(bytes) => {
                        for chunk in bytes.chunks(CHUNK_BYTES) {
                            let id = put(ChunkKind::Data, chunk, None);
                            children.push(Child {
                                mark: 0,
                                plain_bytes: chunk.len() as u64,
                                id,
                            });
                        }
                    }
                }
            }
            children
        });
        let size_bytes = children.iter().map(|child| child.plain_bytes).sum();
        let node = ListNode {
            level: 1,
            children: Children::Cut(children),
        };
        let root = self.pack(|put| put(ChunkKind::List, &node.encode(), None));
        let (level, flavour, kind) = (1, Flavour::Cut, StreamKind::File);
        let content = Content::Stream(Stream {
            root,
            level,
            flavour,
            kind,
        });
        Kind::File {
            size_bytes,
            content,
        }
    }
}

/// A node of a snapshot to be made.
#[derive(Debug, Clone)]
pub(crate) struct New {
    pub(crate) path: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) seconds: i64,
    pub(crate) xattrs: node::Xattrs,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Small(Vec<u8>, Class),
    Large(Vec<Part>),
    Other(Kind),
}

#[derive(Debug, Clone)]
pub(crate) enum Part {
    Bytes(Vec<u8>),
    Hole(u64),
}

impl New {
    pub(crate) fn mode(mut self, mode: u32) -> New {
        self.mode = mode;
        self
    }
}

fn new(path: &[u8], mode: u32, what: What) -> New {
    let (path, seconds, xattrs) = (path.to_vec(), 1_700_000_000, Vec::new());
    New {
        path,
        mode,
        seconds,
        xattrs,
        what,
    }
}

pub(crate) fn dir(path: impl AsRef<[u8]>) -> New {
    new(path.as_ref(), 0o755, What::Other(Kind::Directory))
}

pub(crate) fn small(path: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> New {
    let what = What::Small(bytes.as_ref().to_vec(), Class::Ordinary);
    new(path.as_ref(), 0o644, what)
}

pub(crate) fn large(path: impl AsRef<[u8]>, parts: Vec<Part>) -> New {
    new(path.as_ref(), 0o640, What::Large(parts))
}

pub(crate) fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> New {
    let target = target.as_ref().to_vec();
    new(path.as_ref(), 0o777, What::Other(Kind::Symlink { target }))
}

pub(crate) fn hard_link(path: impl AsRef<[u8]>, first: impl AsRef<[u8]>) -> New {
    let first = first.as_ref().to_vec();
    new(
        path.as_ref(),
        0o644,
        What::Other(Kind::HardLink { path: first }),
    )
}

pub(crate) fn other(path: impl AsRef<[u8]>, kind: Kind) -> New {
    new(path.as_ref(), 0o600, What::Other(kind))
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}
