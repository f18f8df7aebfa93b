//! Walks what of a snapshot goes into an archive, in the order of its tree, and says what each
//! entry becomes there. Both passes of an export walk the same way, so they meet the same members.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::tree::Content;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::format::tree::Leaf;
use crate::format::tree::Place;
use crate::ops::archive;
use crate::ops::archive::Format;
use crate::ops::archive::Member;
use crate::ops::archive::zip_writer;
use crate::ops::export::content::Source;
use crate::ops::inspect;
use crate::ops::restore::select::Only;
use crate::ops::restore::select::Selection;
use crate::ops::restore::select::Step;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::tree::LeafAt;
use std::collections::HashMap;
use std::path::PathBuf;

/// What is walked, and for which archive.
pub(super) struct Walk<'a> {
    pub cx: &'a Context,
    pub chunks: &'a Chunks<'a>,
    pub manifest: &'a Manifest,
    pub only: &'a Only,
    pub format: Format,
    /// A file at the root that makes way for the archive's own manifest.
    pub replaced: Option<&'a [u8]>,
    /// Compacted databases: their lengths, and where they are.
    pub compacted: &'a HashMap<Vec<u8>, (u64, PathBuf)>,
}

/// What is met.
pub(super) struct Met<'e> {
    /// The entry as the snapshot has it.
    pub entry: &'e Entry,
    /// What it becomes, unless it is left out.
    pub member: Option<Member>,
    /// Where its content is.
    pub source: Source,
    /// What the archive cannot say about it: a code and words.
    pub losses: Vec<(&'static str, String)>,
    /// Whether it was asked for, not only on the way.
    pub is_wanted: bool,
}

impl Walk<'_> {
    /// Calls `visit` with everything that is met, the root too.
    pub(super) fn run(&self, visit: &mut dyn FnMut(Met<'_>) -> Result<()>) -> Result<()> {
        let mut scratch = Scratch::default();
        let mut selection = Selection::begin(self.chunks, &self.manifest.tree, self.only);
        // Where the first name of a file is left out, its first link takes the place.
        let mut stand_ins: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        while let Some(selected) = selection.next(&mut scratch)? {
            let places = selected.leaf.places();
            for step in &selected.steps {
                self.cx.check()?;
                let entry = selected.entry(step);
                let (index, is_wanted) = match step {
                    Step::Wanted(index) => (Some(*index), true),
                    Step::Ancestor(_) => (None, false),
                    Step::Impossible(_) => {
                        let path = String::from_utf8_lossy(&entry.path);
                        let reason = "it lies below something that is no directory";
                        return Err(Error::corrupt(format!("\"{path}\""), reason));
                    }
                };
                let place = index.and_then(|index| places[index]);
                let source = self.source(entry, &selected.leaf, place);
                let mut met = self.met(entry, source, is_wanted);
                if let Kind::HardLink { path } = &entry.kind {
                    self.link(&mut scratch, &mut stand_ins, path, &mut met)?;
                }
                visit(met)?;
            }
        }
        Ok(())
    }

    fn source(&self, entry: &Entry, leaf: &Leaf, place: Option<Place>) -> Source {
        if let Some((_, path)) = self.compacted.get(&entry.path) {
            return Source::Copy(path.clone());
        }
        match (&entry.kind, place) {
            (_, Some(place)) => Source::Bundle(leaf.bundles[place.bundle].id, place),
            (
                Kind::File {
                    size_bytes,
                    content: Content::Stream(stream),
                },
                None,
            ) => Source::Stream(*stream, *size_bytes),
            _ => Source::Empty,
        }
    }

    fn met<'e>(&self, entry: &'e Entry, source: Source, is_wanted: bool) -> Met<'e> {
        let mut losses = Vec::new();
        let kind = match &entry.kind {
            Kind::Directory => Some(archive::Kind::Directory),
            Kind::File { size_bytes, .. } => {
                let compacted = self.compacted.get(&entry.path);
                let size_bytes = compacted.map_or(*size_bytes, |(size_bytes, _)| *size_bytes);
                Some(archive::Kind::File(size_bytes))
            }
            Kind::Symlink { target } => Some(archive::Kind::Symlink(target.clone())),
            Kind::HardLink { path } => Some(archive::Kind::HardLink(path.clone())),
            Kind::Fifo => Some(archive::Kind::Fifo),
            Kind::CharDevice { major, minor } => Some(archive::Kind::CharDevice(*major, *minor)),
            Kind::BlockDevice { major, minor } => Some(archive::Kind::BlockDevice(*major, *minor)),
            Kind::Socket => None,
        };
        let is_zip = self.format == Format::Zip;
        let is_link = matches!(kind, Some(archive::Kind::HardLink(_)));
        let kind = kind.filter(|kind| !is_zip || is_link || zip_writer::can_hold(kind));
        if kind.is_none() {
            let what = inspect::kind_name(&entry.kind);
            losses.push(("left-out", format!("a {} cannot hold {what}", self.format)));
        }
        if is_zip && kind.is_some() {
            if !entry.attributes.xattrs.is_empty() {
                let message = "a zip cannot hold extended attributes";
                losses.push(("xattr", message.to_string()));
            }
            if std::str::from_utf8(&entry.path).is_err() {
                let message = "the name is not UTF-8; other tools may show another one";
                losses.push(("name", message.to_string()));
            }
            // The first and the last second that 32 bits have.
            if !(0..=i64::from(u32::MAX)).contains(&entry.modified.seconds) {
                let message = "a zip cannot hold this time";
                losses.push(("mtime", message.to_string()));
            }
        }
        let is_root = entry.path.is_empty();
        let is_replaced = self.replaced.is_some_and(|path| path == entry.path);
        if is_replaced {
            let message = "left out: the manifest of the archive has this name";
            losses.push(("left-out", message.to_string()));
        }
        let member = kind.map(|kind| Member {
            path: entry.path.clone(),
            kind,
            mode: entry.attributes.mode,
            uid: entry.attributes.uid,
            gid: entry.attributes.gid,
            modified: entry.modified,
            xattrs: entry.attributes.xattrs.clone(),
        });
        Met {
            entry,
            // Whoever unpacks chooses the root, and does not want its mode changed.
            member: member.filter(|_| !is_root && !is_replaced),
            source,
            losses,
            is_wanted,
        }
    }

    /// Sees to a hard link whose first name is not in the archive, or which it cannot hold.
    fn link(
        &self,
        scratch: &mut Scratch,
        stand_ins: &mut HashMap<Vec<u8>, Vec<u8>>,
        first: &[u8],
        met: &mut Met<'_>,
    ) -> Result<()> {
        let named = || format!("\"{}\"", String::from_utf8_lossy(first));
        let found = inspect::find_in(self.chunks, scratch, &self.manifest.tree, first)?;
        let Some((LeafAt { leaf, .. }, index)) = found else {
            return Err(Error::corrupt(
                named(),
                "a hard link leads to it, and it is not there",
            ));
        };
        let target = &leaf.entries[index];
        if !matches!(target.kind, Kind::File { .. }) {
            return Err(Error::corrupt(
                named(),
                "a hard link leads to it, and it is no file",
            ));
        }
        let is_zip = self.format == Format::Zip;
        if !is_zip && self.only.wants(first, &target.kind) && self.replaced != Some(first) {
            return Ok(());
        }
        if !is_zip && let Some(stand_in) = stand_ins.get(first) {
            if let Some(member) = &mut met.member {
                member.kind = archive::Kind::HardLink(stand_in.clone());
            }
            return Ok(());
        }
        let place = leaf.places()[index];
        let source = self.source(target, &leaf, place);
        let mut copy = self.met(target, source, true);
        if let Some(member) = &mut copy.member {
            member.path.clone_from(&met.entry.path);
        }
        if is_zip {
            let message = "a zip cannot hold hard links; this is a file of its own there";
            copy.losses.push(("hard-link", message.to_string()));
        } else {
            stand_ins.insert(first.to_vec(), met.entry.path.clone());
        }
        met.member = copy.member;
        met.source = copy.source;
        met.losses = copy.losses;
        Ok(())
    }
}
