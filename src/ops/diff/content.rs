//! Whether two entries have the same content, found out with as little reading as possible.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::Stream;
use crate::format::pack::ChunkKind;
use crate::format::tree::Content;
use crate::format::tree::Kind;
use crate::format::tree::TreeRoot;
use crate::id::ChunkId;
use crate::ops::diff::trees::At;
use crate::ops::diff::trees::ReadLeaf;
use crate::ops::inspect;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use std::path::Path;
use std::rc::Rc;

/// Compares contents. Bundles are read when they differ, the last of each side once.
pub(in crate::ops) struct Contents<'a> {
    cx: &'a Context,
    chunks: &'a Chunks<'a>,
    room: &'a Path,
    scratch: Scratch,
    bundles: [Option<(ChunkId, Vec<u8>)>; 2],
}

impl<'a> Contents<'a> {
    pub(in crate::ops) fn new(cx: &'a Context, chunks: &'a Chunks<'a>, room: &'a Path) -> Self {
        Contents {
            cx,
            chunks,
            room,
            scratch: Scratch::default(),
            bundles: [None, None],
        }
    }

    /// Returns the file a name stands for, which a hard link has elsewhere in its tree.
    pub(in crate::ops) fn file(&mut self, at: &At, root: &TreeRoot) -> Result<Option<At>> {
        let Kind::HardLink { path } = &at.entry().kind else {
            return Ok(Some(at.clone()));
        };
        let found = inspect::find_in(self.chunks, &mut self.scratch, root, path)?;
        Ok(found.map(|(found, index)| At {
            leaf: Rc::new(ReadLeaf::new(found.id, found.leaf)),
            index,
        }))
    }

    /// Returns whether two entries that are no hard links have the same content; directories and
    /// the like have none.
    pub(in crate::ops) fn are_same(&mut self, before: &At, after: &At) -> Result<bool> {
        let (old, new) = (&before.entry().kind, &after.entry().kind);
        let (
            Kind::File {
                size_bytes: old_bytes,
                content: old_content,
            },
            Kind::File {
                size_bytes: new_bytes,
                content: new_content,
            },
        ) = (old, new)
        else {
            return Ok(old == new);
        };
        if old_bytes != new_bytes {
            return Ok(false);
        }
        match (old_content, new_content) {
            (Content::Stream(a), Content::Stream(b))
                if (a.root, a.level, a.flavour) == (b.root, b.level, b.flavour) =>
            {
                Ok(true)
            }
            // Cut alike, the same bytes would have the same name.
            (Content::Stream(a), Content::Stream(b))
                if (a.kind, a.flavour) == (b.kind, b.flavour) =>
            {
                Ok(false)
            }
            (Content::Bundled(_), Content::Bundled(_)) => {
                let (old, new) = (place_of(before)?, place_of(after)?);
                if *old_bytes == 0 || old == new {
                    return Ok(true);
                }
                let old = self.small(0, old)?.to_vec();
                Ok(old == self.small(1, new)?)
            }
            _ => Ok(self.sum(before, old_content)? == self.sum(after, new_content)?),
        }
    }

    fn small(&mut self, side: usize, place: SmallPlace) -> Result<&[u8]> {
        let is_at_hand = matches!(&self.bundles[side], Some((id, _)) if *id == place.bundle);
        if !is_at_hand {
            let plain = self
                .chunks
                .read(&mut self.scratch, ChunkKind::Data, &place.bundle)?;
            self.scratch.touched.clear();
            self.bundles[side] = Some((place.bundle, plain));
        }
        let plain = self.bundles[side]
            .as_ref()
            .map_or(&[][..], |(_, plain)| &plain[..]);
        let range = inspect::within(plain, place.offset, place.size_bytes);
        let range = range
            .ok_or_else(|| Error::corrupt(format!("bundle {}", place.bundle), "it is too short"))?;
        Ok(&plain[range])
    }

    fn sum(&mut self, at: &At, content: &Content) -> Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        match (content, &at.entry().kind) {
            (Content::Bundled(_), _) => {
                hasher.update(self.small(0, place_of(at)?)?);
            }
            (Content::Stream(stream), Kind::File { size_bytes, .. }) => {
                self.stream(stream, *size_bytes, &mut hasher)?;
            }
            _ => {}
        }
        Ok(*hasher.finalize().as_bytes())
    }

    fn stream(&mut self, stream: &Stream, bytes: u64, hasher: &mut blake3::Hasher) -> Result<()> {
        let (cx, scratch) = (self.cx, &mut self.scratch);
        inspect::write_stream(
            self.chunks,
            scratch,
            stream,
            bytes,
            self.room,
            &mut |bytes| {
                hasher.update(bytes);
                cx.check()
            },
        )
    }
}

/// Where the content of a small file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SmallPlace {
    bundle: ChunkId,
    offset: u64,
    size_bytes: u64,
}

fn place_of(at: &At) -> Result<SmallPlace> {
    let leaf = &at.leaf.leaf;
    let place = at.leaf.places.get(at.index).copied().flatten();
    let bundle = place.and_then(|place| Some((place, leaf.bundles.get(place.bundle)?)));
    let (place, bundle) = bundle.ok_or_else(|| {
        let reason = "a small file lies in no bundle";
        Error::corrupt(format!("tree node {}", at.leaf.id), reason)
    })?;
    Ok(SmallPlace {
        bundle: bundle.id,
        offset: place.offset,
        size_bytes: place.size_bytes,
    })
}
