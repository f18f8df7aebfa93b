//! Compares an archive with the snapshot that it was made of, by what an export of the snapshot
//! would write now: every content is read through the verified reader again (I3).

use crate::codec::sha256::Sha256Sum;
use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::id::SnapshotId;
use crate::ops::archive::Format;
use crate::ops::archive::findings::Findings;
use crate::ops::archive::manifest;
use crate::ops::archive::manifest::ArchiveManifest;
use crate::ops::archive::manifest::Extent;
use crate::ops::archive::manifest::MANIFEST_NAME;
use crate::ops::archive::manifest::Standard;
use crate::ops::archive::verify::Verified;
use crate::ops::export;
use crate::ops::export::Databases;
use crate::ops::export::ExportOptions;
use crate::ops::export::Layout;
use crate::repo::chunks::Chunks;
use crate::repo::log::State;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::path::Path;

/// What the log knows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The snapshot that it was made of, or that was made of it.
    pub snapshot: SnapshotId,
    /// How that is known.
    pub source: OriginSource,
}

/// How it is known which snapshot a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginSource {
    /// An export of the snapshot had its sum.
    Exported,
    /// The snapshot was imported from a file with its sum.
    Imported,
    /// Its manifest says so, and the log does not know its sum.
    Manifest,
}

/// Returns the snapshot that a file belongs to, if anybody knows. A sum in the log counts before
/// what the file says of itself.
pub fn origin(state: &State, verified: &Verified) -> Option<Origin> {
    let sum = &verified.sha256;
    let of = |snapshot: &SnapshotId, source| Origin {
        snapshot: *snapshot,
        source,
    };
    let mut exports = state.notes.exports.keys();
    if let Some((id, _)) = exports.find(|(_, exported)| exported == sum) {
        return Some(of(id, OriginSource::Exported));
    }
    let mut imports = state.notes.imports.iter();
    if let Some((id, _)) = imports.find(|(_, imported)| *imported == sum) {
        return Some(of(id, OriginSource::Imported));
    }
    let manifest = own(verified)?;
    let id: SnapshotId = manifest.snapshot.as_deref()?.parse().ok()?;
    Some(of(&id, OriginSource::Manifest))
}

fn own(verified: &Verified) -> Option<&ArchiveManifest> {
    let manifest = verified.listing.manifest.as_ref();
    manifest.filter(|manifest| manifest.is_own())
}

/// Compares a file with its snapshot, and returns all that differs. An export with our manifest
/// must be the snapshot, no more and no less; all that is in any other must be in the snapshot.
pub fn compare(
    cx: &Context,
    chunks: &Chunks<'_>,
    id: SnapshotId,
    snapshot: &Manifest,
    verified: &Verified,
    temp_dir: &Path,
) -> Result<Findings> {
    let own = own(verified);
    let is_in_layout = own.is_some_and(ArchiveManifest::is_in_layout_of_application);
    let options = ExportOptions {
        // Those that no application makes itself have the fewest losses.
        format: match is_in_layout {
            true => None,
            false => Some(verified.format.unwrap_or(Format::Tar)),
        },
        layout: match is_in_layout {
            true => Layout::App,
            false => Layout::Snapshot,
        },
        only: own.map_or(Vec::new(), |own| own.only.clone()),
        databases: match own.is_some_and(|own| own.compacted) {
            true => Databases::Compacted,
            false => Databases::AsTheyAre,
        },
        version: None,
        passphrase: None,
        temp_dir: temp_dir.to_path_buf(),
    };
    let export = export::prepare(cx, chunks, id, snapshot, &options)?;
    let wanted = export.document.as_ref().map(|document| {
        let mut text = Vec::new();
        let mut file = &document.file;
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_end(&mut text))
            .map_err(Error::io("read", MANIFEST_NAME))?;
        manifest::parse_own(&text)
    });
    let mut findings = Findings::default();
    let Some(wanted) = wanted.transpose()? else {
        return Err(Error::corrupt(MANIFEST_NAME, "the export has none"));
    };
    if verified.format.is_none() {
        compare_bare(&wanted, &verified.plain_sha256, &mut findings);
        return Ok(findings);
    }
    let standard = Standard {
        extent: match own {
            Some(_) => Extent::Whole,
            None => Extent::Within,
        },
        name: "the snapshot",
    };
    manifest::compare(&wanted, &verified.listing, standard, &mut findings);
    Ok(findings)
}

fn compare_bare(wanted: &ArchiveManifest, sum: &Sha256Sum, findings: &mut Findings) {
    if !wanted.has_sum(sum) {
        findings.add(b"", "no file of the snapshot has its content");
    }
}
