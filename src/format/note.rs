//! Notes: what the log says about snapshots and packs beyond that they are there.
//!
//! `docs/format.md`, section "Notes". A kind this program does not know is kept as it is when its
//! number is even and refused when it is odd: who ignores a hold deletes what somebody wants kept.

mod lost;

pub use lost::Lost;

use crate::codec::sha256::Sha256Sum;
use crate::context::Timestamp;
use crate::format::history;
use crate::format::history::History;
use crate::format::history::SeriesName;
use crate::format::history::Spans;
use crate::format::manifest::Manifest;
use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::format::wire::Reader;
use crate::id::RepoId;
use crate::id::SnapshotId;
use std::collections::BTreeMap;

const TAG: u64 = 2;
const UNTAG: u64 = 4;
const HOLD: u64 = 7;
const RELEASE: u64 = 9;
const PROOF: u64 = 10;
const DAMAGE: u64 = 13;
const HEALED: u64 = 15;
const FIGURES: u64 = 16;
const LOSS: u64 = 18;
const HISTORY: u64 = 20;
const REPLACED: u64 = 24;
const IMPORT: u64 = 26;
const EXPORT: u64 = 28;
const COPIED: u64 = 30;

/// Paths named in one note about what a snapshot lost.
pub const LOSS_PATHS_MAX: usize = 20;

/// One remark.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Note {
    /// The snapshot has this name.
    Tag(SnapshotId, String),
    /// The snapshot has this name no longer.
    Untag(SnapshotId, String),
    /// The snapshot may not be removed before this time.
    Hold(SnapshotId, HoldUntil),
    /// The snapshot may be removed.
    Release(SnapshotId),
    /// The snapshot was restored and checked.
    Proof(SnapshotId, Proof),
    /// These packs and chunks are lost: nobody may take them for stored.
    Damage(Lost),
    /// These packs and chunks are there again.
    Healed(Lost),
    /// What was counted over the whole repository.
    Figures(RepoFigures),
    /// The snapshot holds what a restore in place replaced.
    Replaced(SnapshotId, Replaced),
    /// The snapshot cannot be restored whole. Replaces an earlier one; nothing lost takes it back.
    Loss(SnapshotId, Loss),
    /// What backups of a series counted whose snapshots are no more. Replaces an earlier one.
    History(SeriesName, Spans),
    /// The snapshot was written into an archive.
    Export(SnapshotId, Export),
    /// The snapshot was made of the archive with this sum.
    Import(SnapshotId, Sha256Sum),
    /// The snapshot was copied from another repository.
    Copied(SnapshotId, CopiedFrom),
    /// A kind from the future that may be ignored.
    Unknown(u64, Vec<u8>),
}

/// The end of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldUntil {
    /// The hold ends by itself.
    Time(Timestamp),
    /// The hold ends when it is released.
    Released,
}

/// The outcome of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proof {
    /// When it was done.
    pub at: Timestamp,
    /// What came out, as text for people.
    pub result: String,
}

/// A restore in place, as the snapshot that was made right before it says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replaced {
    /// When it began.
    pub at: Timestamp,
    /// The snapshot that was restored.
    pub by: SnapshotId,
    /// Patterns of what was restored; none for everything.
    pub only: Vec<String>,
}

/// The snapshot that another one is a copy of, at however many removes: the first of them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopiedFrom {
    /// The repository of the backup.
    pub repo: RepoId,
    /// What it is called there.
    pub snapshot: SnapshotId,
}

/// What of a snapshot cannot be restored, for people.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Loss {
    /// How many paths.
    pub count: u64,
    /// The first of them.
    pub paths: Vec<Vec<u8>>,
}

/// What a prune or a check counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RepoFigures {
    /// Stored bytes that some snapshot reaches.
    pub needed_bytes: u64,
    /// Stored bytes that none reaches.
    pub unneeded_bytes: u64,
    /// Records in all packs.
    pub records: u64,
}

/// An archive that was made of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Export {
    /// When it was made.
    pub at: Timestamp,
    /// Its sum.
    pub sha256: Sha256Sum,
    /// Its length.
    pub archive_bytes: u64,
    /// The name of its file, `-` if it had none.
    pub name: String,
}

impl Proof {
    /// What the result of a proof begins with that everything passed.
    pub const OK: &'static str = "ok";

    /// Returns whether everything was as it should be.
    pub fn passed(&self) -> bool {
        self.result.starts_with(Proof::OK)
    }
}

impl Note {
    /// Returns the bytes of the note.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Note::Tag(id, name) => {
                put_head(&mut out, TAG, id);
                out.extend_from_slice(name.as_bytes());
            }
            Note::Untag(id, name) => {
                put_head(&mut out, UNTAG, id);
                out.extend_from_slice(name.as_bytes());
            }
            Note::Hold(id, until) => {
                put_head(&mut out, HOLD, id);
                if let HoldUntil::Time(time) = until {
                    out.extend_from_slice(&time.0.to_le_bytes());
                }
            }
            Note::Release(id) => put_head(&mut out, RELEASE, id),
            Note::Proof(id, proof) => {
                put_head(&mut out, PROOF, id);
                out.extend_from_slice(&proof.at.0.to_le_bytes());
                out.extend_from_slice(proof.result.as_bytes());
            }
            Note::Damage(lost) => {
                wire::put_varint(&mut out, DAMAGE);
                lost.encode(&mut out);
            }
            Note::Healed(lost) => {
                wire::put_varint(&mut out, HEALED);
                lost.encode(&mut out);
            }
            Note::Figures(figures) => {
                wire::put_varint(&mut out, FIGURES);
                wire::put_varint(&mut out, figures.needed_bytes);
                wire::put_varint(&mut out, figures.unneeded_bytes);
                wire::put_varint(&mut out, figures.records);
            }
            Note::Replaced(id, replaced) => {
                put_head(&mut out, REPLACED, id);
                replaced.encode(&mut out);
            }
            Note::Loss(id, loss) => {
                put_head(&mut out, LOSS, id);
                loss.encode(&mut out);
            }
            Note::History(name, spans) => {
                wire::put_varint(&mut out, HISTORY);
                history::put(&mut out, name, spans);
            }
            Note::Export(id, export) => {
                put_head(&mut out, EXPORT, id);
                export.encode(&mut out);
            }
            Note::Import(id, sha256) => {
                put_head(&mut out, IMPORT, id);
                out.extend_from_slice(&sha256.0);
            }
            Note::Copied(id, from) => {
                put_head(&mut out, COPIED, id);
                out.extend_from_slice(from.repo.as_bytes());
                out.extend_from_slice(from.snapshot.as_bytes());
            }
            Note::Unknown(kind, body) => {
                wire::put_varint(&mut out, *kind);
                out.extend_from_slice(body);
            }
        }
        out
    }

    /// Reads a note.
    pub fn decode(bytes: &[u8]) -> Decoded<Note> {
        let mut reader = Reader::new(bytes);
        let kind = reader.varint()?;
        let note = match kind {
            TAG => Note::Tag(SnapshotId(reader.array()?), rest_as_text(&mut reader)?),
            UNTAG => Note::Untag(SnapshotId(reader.array()?), rest_as_text(&mut reader)?),
            HOLD => {
                let id = SnapshotId(reader.array()?);
                match reader.is_empty() {
                    true => Note::Hold(id, HoldUntil::Released),
                    false => Note::Hold(id, HoldUntil::Time(take_time(&mut reader)?)),
                }
            }
            RELEASE => Note::Release(SnapshotId(reader.array()?)),
            PROOF => {
                let id = SnapshotId(reader.array()?);
                let at = take_time(&mut reader)?;
                let result = rest_as_text(&mut reader)?;
                Note::Proof(id, Proof { at, result })
            }
            DAMAGE => Note::Damage(Lost::decode(&mut reader)?),
            HEALED => Note::Healed(Lost::decode(&mut reader)?),
            FIGURES => {
                let figures = RepoFigures {
                    needed_bytes: reader.varint()?,
                    unneeded_bytes: reader.varint()?,
                    records: reader.varint()?,
                };
                // Numbers may be appended later; this program has no use for them.
                return Ok(Note::Figures(figures));
            }
            REPLACED => {
                let id = SnapshotId(reader.array()?);
                Note::Replaced(id, Replaced::decode(&mut reader)?)
            }
            LOSS => {
                let id = SnapshotId(reader.array()?);
                Note::Loss(id, Loss::decode(&mut reader)?)
            }
            HISTORY => {
                let (name, spans) = history::take(&mut reader)?;
                Note::History(name, spans)
            }
            EXPORT => {
                let id = SnapshotId(reader.array()?);
                let export = Export {
                    at: take_time(&mut reader)?,
                    sha256: Sha256Sum(reader.array()?),
                    archive_bytes: reader.varint()?,
                    name: rest_as_text(&mut reader)?,
                };
                Note::Export(id, export)
            }
            IMPORT => Note::Import(SnapshotId(reader.array()?), Sha256Sum(reader.array()?)),
            COPIED => {
                let id = SnapshotId(reader.array()?);
                let (repo, snapshot) = (RepoId(reader.array()?), SnapshotId(reader.array()?));
                Note::Copied(id, CopiedFrom { repo, snapshot })
            }
            other if other.is_multiple_of(2) => {
                return Ok(Note::Unknown(other, reader.rest().to_vec()));
            }
            other => return Err(Malformed::Unknown("kind of note", other)),
        };
        reader.finish()?;
        Ok(note)
    }
}

impl Replaced {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.at.0.to_le_bytes());
        out.extend_from_slice(self.by.as_bytes());
        for pattern in &self.only {
            wire::put_bytes(out, pattern.as_bytes());
        }
    }

    fn decode(reader: &mut Reader) -> Decoded<Replaced> {
        let at = take_time(reader)?;
        let by = SnapshotId(reader.array()?);
        let mut only = Vec::new();
        while !reader.is_empty() {
            only.push(wire::text(reader.bytes()?)?);
        }
        Ok(Replaced { at, by, only })
    }
}

impl Loss {
    fn encode(&self, out: &mut Vec<u8>) {
        wire::put_varint(out, self.count);
        wire::put_varint(out, self.paths.len() as u64);
        for path in &self.paths {
            wire::put_bytes(out, path);
        }
    }

    fn decode(reader: &mut Reader) -> Decoded<Loss> {
        let count = reader.varint()?;
        let mut paths = Vec::new();
        for _ in 0..reader.count(1)? {
            paths.push(reader.bytes()?.to_vec());
        }
        Ok(Loss { count, paths })
    }
}

impl Export {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.at.0.to_le_bytes());
        out.extend_from_slice(&self.sha256.0);
        wire::put_varint(out, self.archive_bytes);
        out.extend_from_slice(self.name.as_bytes());
    }
}

/// The sum of all notes so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes {
    /// Names given (true) to or taken (false) from snapshots after they were made. They come on
    /// top of the tags in the manifest.
    pub tags: BTreeMap<(SnapshotId, String), bool>,
    /// Snapshots that may not be removed.
    pub holds: BTreeMap<SnapshotId, HoldUntil>,
    /// The last proof of each snapshot.
    pub proofs: BTreeMap<SnapshotId, Proof>,
    /// What is lost at present.
    pub lost: Lost,
    /// What snapshots made right before a restore in place say about it.
    pub replaced: BTreeMap<SnapshotId, Replaced>,
    /// The last figures.
    pub figures: Option<RepoFigures>,
    /// Snapshots that cannot be restored whole.
    pub losses: BTreeMap<SnapshotId, Loss>,
    /// What backups counted whose snapshots are no more.
    pub history: History,
    /// Archives made of snapshots: the last time each came out.
    pub exports: BTreeMap<(SnapshotId, Sha256Sum), Export>,
    /// The archives that snapshots were made of.
    pub imports: BTreeMap<SnapshotId, Sha256Sum>,
    /// What snapshots that were copied from other repositories are there.
    pub copied: BTreeMap<SnapshotId, CopiedFrom>,
    /// Kinds from the future, in order, for whoever understands them.
    pub unknown: Vec<(u64, Vec<u8>)>,
}

impl Notes {
    /// Adds a note.
    pub fn apply(&mut self, note: &Note) {
        match note.clone() {
            Note::Tag(id, name) => {
                self.tags.insert((id, name), true);
            }
            Note::Untag(id, name) => {
                self.tags.insert((id, name), false);
            }
            Note::Hold(id, until) => {
                self.holds.insert(id, until);
            }
            Note::Release(id) => {
                self.holds.remove(&id);
            }
            Note::Proof(id, proof) => {
                self.proofs.insert(id, proof);
            }
            Note::Damage(mut lost) => {
                self.lost.packs.append(&mut lost.packs);
                self.lost.chunks.append(&mut lost.chunks);
            }
            Note::Healed(lost) => {
                self.lost.packs.retain(|id| !lost.packs.contains(id));
                self.lost.chunks.retain(|id| !lost.chunks.contains(id));
            }
            Note::Figures(figures) => self.figures = Some(figures),
            Note::Replaced(id, replaced) => {
                self.replaced.insert(id, replaced);
            }
            Note::Loss(id, loss) if loss.count == 0 => drop(self.losses.remove(&id)),
            Note::Loss(id, loss) => drop(self.losses.insert(id, loss)),
            Note::History(name, spans) => drop(self.history.series.insert(name, spans)),
            Note::Export(id, export) => {
                self.exports.insert((id, export.sha256), export);
            }
            Note::Import(id, sha256) => {
                self.imports.insert(id, sha256);
            }
            Note::Copied(id, from) => drop(self.copied.insert(id, from)),
            Note::Unknown(kind, body) => self.unknown.push((kind, body)),
        }
    }

    /// Forgets what was said about a snapshot that is no more, and keeps what its backup counted.
    pub fn forget_snapshot(&mut self, gone: &SnapshotId, manifest: Option<&[u8]>) {
        if let Some(Ok(manifest)) = manifest.map(Manifest::decode) {
            self.history.absorb(&manifest);
        }
        self.losses.remove(gone);
        self.tags.retain(|(id, _), _| id != gone);
        self.holds.remove(gone);
        self.proofs.remove(gone);
        self.replaced.remove(gone);
        self.exports.retain(|(id, _), _| id != gone);
        self.imports.remove(gone);
        self.copied.remove(gone);
    }

    /// Returns the shortest list of notes with the same sum.
    pub fn to_list(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        for ((id, name), given) in &self.tags {
            notes.push(match given {
                true => Note::Tag(*id, name.clone()),
                false => Note::Untag(*id, name.clone()),
            });
        }
        notes.extend(self.holds.iter().map(|(id, until)| Note::Hold(*id, *until)));
        notes.extend(
            self.proofs
                .iter()
                .map(|(id, p)| Note::Proof(*id, p.clone())),
        );
        if !self.lost.is_empty() {
            notes.push(Note::Damage(self.lost.clone()));
        }
        notes.extend(self.figures.map(Note::Figures));
        let replaced = self.replaced.iter();
        notes.extend(replaced.map(|(id, r)| Note::Replaced(*id, r.clone())));
        let losses = self.losses.iter();
        notes.extend(losses.map(|(id, loss)| Note::Loss(*id, loss.clone())));
        let series = self.history.series.iter();
        notes.extend(series.map(|(name, spans)| Note::History(name.clone(), spans.clone())));
        let exports = self.exports.iter();
        notes.extend(exports.map(|((id, _), export)| Note::Export(*id, export.clone())));
        notes.extend(self.imports.iter().map(|(id, sum)| Note::Import(*id, *sum)));
        notes.extend(self.copied.iter().map(|(id, f)| Note::Copied(*id, *f)));
        let unknown = self.unknown.iter();
        notes.extend(unknown.map(|(kind, body)| Note::Unknown(*kind, body.clone())));
        notes
    }
}

fn put_head(out: &mut Vec<u8>, kind: u64, id: &SnapshotId) {
    wire::put_varint(out, kind);
    out.extend_from_slice(id.as_bytes());
}

fn take_time(reader: &mut Reader) -> Decoded<Timestamp> {
    Ok(Timestamp(i64::from_le_bytes(reader.array()?)))
}

fn rest_as_text(reader: &mut Reader) -> Decoded<String> {
    let rest = reader.take(reader.rest().len())?;
    wire::text(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkId;
    use crate::id::PackId;
    use proptest::prelude::*;

    fn examples() -> Vec<Note> {
        let id = SnapshotId([1; 32]);
        let lost = Lost {
            packs: [PackId([2; 32])].into(),
            chunks: [ChunkId([3; 32]), ChunkId([4; 32])].into(),
        };
        vec![
            Note::Tag(id, "before-upgrade".into()),
            Note::Untag(id, "ü".into()),
            Note::Hold(id, HoldUntil::Time(Timestamp(5))),
            Note::Hold(id, HoldUntil::Released),
            Note::Release(id),
            Note::Proof(
                id,
                Proof {
                    at: Timestamp(6),
                    result: "ok".into(),
                },
            ),
            Note::Damage(lost.clone()),
            Note::Healed(lost),
            Note::Figures(RepoFigures {
                needed_bytes: 7,
                unneeded_bytes: 8,
                records: 9,
            }),
            Note::Replaced(
                id,
                Replaced {
                    at: Timestamp(6),
                    by: SnapshotId([5; 32]),
                    only: vec!["/data/*.db".into(), "ü".into()],
                },
            ),
            Note::Loss(
                id,
                Loss {
                    count: 3,
                    paths: vec![b"a/b".to_vec()],
                },
            ),
            Note::History(
                SeriesName::default(),
                [(0, history::Span::default())].into(),
            ),
            Note::Export(
                id,
                Export {
                    at: Timestamp(7),
                    sha256: Sha256Sum([5; 32]),
                    archive_bytes: 300,
                    name: "app.tar.gz".into(),
                },
            ),
            Note::Import(id, Sha256Sum([6; 32])),
            Note::Copied(
                id,
                CopiedFrom {
                    repo: RepoId([7; 16]),
                    snapshot: SnapshotId([8; 32]),
                },
            ),
            Note::Unknown(1000, b"from the future".to_vec()),
        ]
    }

    #[test]
    fn notes_round_trip() {
        for note in examples() {
            assert_eq!(Note::decode(&note.encode()), Ok(note));
        }
    }

    #[test]
    fn what_a_removed_snapshot_counted_stays_and_its_losses_go() {
        let id = SnapshotId([1; 32]);
        let loss = Loss {
            count: 1,
            paths: Vec::new(),
        };
        let mut notes = Notes::default();
        notes.apply(&Note::Loss(id, loss));

        notes.forget_snapshot(&id, Some(&Manifest::default().encode()));
        notes.forget_snapshot(&id, Some(b"no manifest"));

        assert!(notes.losses.is_empty());
        let spans = &notes.history.series[&SeriesName::default()];
        assert_eq!(spans[&0].backups, 1);
    }

    #[test]
    fn odd_unknown_kinds_are_refused_and_even_ones_kept() {
        let odd = Note::Unknown(1001, Vec::new()).encode();
        assert_eq!(
            Note::decode(&odd),
            Err(Malformed::Unknown("kind of note", 1001))
        );
    }

    #[test]
    fn the_list_of_a_sum_has_the_same_sum() {
        let mut sum = Notes::default();
        for len in 0..examples().len() {
            sum.apply(&examples()[len]);

            let mut again = Notes::default();
            sum.to_list().iter().for_each(|note| again.apply(note));
            assert_eq!(again, sum);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Note::decode(&bytes);
        }
    }
}
