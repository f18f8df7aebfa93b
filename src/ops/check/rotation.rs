//! Which packs are read by a check that reads a part: those that were read longest ago.
//!
//! A list of the packs read in this round is kept in the local cache, so that ten checks of ten
//! percent read everything once. In the log it would cost an entry for each check and make `check`
//! write to what it only looks at; without the cache a round begins anew, which reads some packs
//! twice and misses none for ever. A pack that was found wanting is listed as such, and every check
//! that reads anything reads it first, until it is mended.

use crate::context::Context;
use crate::disk;
use crate::disk::RealDisk;
use crate::error::Result;
use crate::format::entry::PackBytes;
use crate::id::PackId;
use crate::ops::check::ReadData;
use crate::repo::Repo;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Begins the file; another one is ignored.
const MAGIC: &[u8] = b"statekeep packs read 1\n";

/// An id, and whether the pack was found right.
const ROW_BYTES: usize = PackId::LEN + 1;

/// The packs read in this round.
pub(super) struct Rotation {
    path: Option<PathBuf>,
    read: BTreeSet<PackId>,
    wanting: BTreeSet<PackId>,
    /// Whether so much was to be read that the round began again.
    is_round_over: bool,
}

impl Rotation {
    /// Opens the list of this machine. One that is damaged is empty.
    pub(super) fn open(repo: &Repo) -> Rotation {
        Rotation::at(repo.cache_dir().map(|dir| dir.join("checked")))
    }

    fn at(path: Option<PathBuf>) -> Rotation {
        let bytes = path.as_ref().and_then(|path| std::fs::read(path).ok());
        let rows = bytes.as_deref().and_then(|bytes| bytes.strip_prefix(MAGIC));
        let (mut read, mut wanting) = (BTreeSet::new(), BTreeSet::new());
        for row in rows.unwrap_or_default().chunks_exact(ROW_BYTES) {
            let (id, is_right) = row.split_at(PackId::LEN);
            let set = if is_right == [1] {
                &mut read
            } else {
                &mut wanting
            };
            set.extend(PackId::from_slice(id));
        }
        Rotation {
            path,
            read,
            wanting,
            is_round_over: false,
        }
    }

    /// Returns the packs to be read from end to end: by bytes at least the part that is asked for,
    /// those first that were not read in this round. Without a cache they are drawn anew.
    pub(super) fn sample(
        &mut self,
        cx: &Context,
        packs: &BTreeMap<PackId, PackBytes>,
        read_data: ReadData,
    ) -> Result<Vec<(PackId, PackBytes)>> {
        let mut all: Vec<_> = packs.iter().map(|(pack, bytes)| (*pack, *bytes)).collect();
        let ReadData::Percent(percent) = read_data else {
            return Ok(all);
        };
        let seed: [u8; 32] = match self.path {
            Some(_) => [0; 32],
            None => cx.random_bytes()?,
        };
        let place = |pack: &PackId| *blake3::keyed_hash(&seed, pack.as_bytes()).as_bytes();
        all.sort_by_key(|(pack, _)| {
            let is_wanting = self.wanting.contains(pack);
            (!is_wanting, self.read.contains(pack), place(pack))
        });
        let total: u64 = all.iter().map(|(_, bytes)| bytes.stored_bytes).sum();
        let wanted = (total as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil() as u64;
        let mut sum = 0;
        let is_wanted = |(_, bytes): &(PackId, PackBytes)| {
            let is_wanted = sum < wanted;
            sum += bytes.stored_bytes;
            is_wanted
        };
        let count = all.iter().copied().take_while(is_wanted).count();
        all.truncate(count);
        self.is_round_over = all.iter().any(|(pack, _)| self.read.contains(pack));
        Ok(all)
    }

    /// Remembers what was read and found right. Failing to costs reading it again.
    pub(super) fn remember(
        mut self,
        packs: &BTreeMap<PackId, PackBytes>,
        taken: &[(PackId, PackBytes)],
        whole: &BTreeSet<PackId>,
    ) {
        let Some(path) = &self.path else {
            return;
        };
        let is_all = taken.len() == packs.len();
        if self.is_round_over || is_all {
            // What begins the next round.
            let again = |pack: &PackId| is_all || self.read.contains(pack);
            let next = taken.iter().map(|(pack, _)| *pack).filter(again).collect();
            self.read = next;
        } else {
            self.read.extend(taken.iter().map(|(pack, _)| *pack));
        }
        for (pack, _) in taken {
            match whole.contains(pack) {
                true => drop(self.wanting.remove(pack)),
                false => drop(self.wanting.insert(*pack)),
            }
        }
        self.wanting.retain(|pack| packs.contains_key(pack));
        self.read
            .retain(|pack| packs.contains_key(pack) && !self.wanting.contains(pack));
        if self.read.len() + self.wanting.len() == packs.len() {
            self.read.clear();
        }
        let mut bytes = MAGIC.to_vec();
        for (set, is_right) in [(&self.read, 1), (&self.wanting, 0)] {
            for pack in set {
                bytes.extend_from_slice(pack.as_bytes());
                bytes.push(is_right);
            }
        }
        let _ = disk::replace_cache(&RealDisk, path, &bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packs(count: u64) -> BTreeMap<PackId, PackBytes> {
        let pack = |number: u64| {
            let id = PackId(*blake3::hash(&number.to_le_bytes()).as_bytes());
            let bytes = PackBytes {
                stored_bytes: 1 + number * number * 7919 % 5000,
                table_bytes: 1,
            };
            (id, bytes)
        };
        (0..count).map(pack).collect()
    }

    fn rotation(dir: &std::path::Path) -> Rotation {
        Rotation::at(Some(dir.join("checked")))
    }

    fn run(
        dir: &std::path::Path,
        packs: &BTreeMap<PackId, PackBytes>,
        bad: &PackId,
    ) -> BTreeSet<PackId> {
        let mut rotation = rotation(dir);
        let taken = rotation.sample(&Context::new(), packs, ReadData::Percent(10.0));
        let taken = taken.unwrap();
        let ids: BTreeSet<PackId> = taken.iter().map(|(pack, _)| *pack).collect();
        let whole = ids.iter().filter(|pack| *pack != bad).copied().collect();
        rotation.remember(packs, &taken, &whole);
        ids
    }

    #[test]
    fn ten_checks_of_ten_percent_read_everything_round_after_round() {
        let dir = tempfile::tempdir().unwrap();
        let packs = packs(83);
        let none = PackId([9; 32]);
        for round in 0..3 {
            let mut seen = BTreeSet::new();
            for _ in 0..10 {
                seen.extend(run(dir.path(), &packs, &none));
            }
            assert_eq!(seen.len(), packs.len(), "round {round}");
        }
    }

    #[test]
    fn a_pack_found_wanting_is_read_by_every_check() {
        let dir = tempfile::tempdir().unwrap();
        let packs = packs(40);
        let bad = *packs.keys().nth(17).unwrap();
        while !run(dir.path(), &packs, &bad).contains(&bad) {}

        let mut seen = BTreeSet::new();
        for _ in 0..12 {
            let taken = run(dir.path(), &packs, &bad);
            assert!(taken.contains(&bad));
            seen.extend(taken);
        }
        assert_eq!(
            seen.len(),
            packs.len(),
            "and the others are not kept waiting"
        );

        assert!(run(dir.path(), &packs, &PackId([9; 32])).contains(&bad));
        assert!(rotation(dir.path()).wanting.is_empty());
    }

    #[test]
    fn a_damaged_list_and_new_packs_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let none = PackId([9; 32]);
        std::fs::write(dir.path().join("checked"), b"nonsense").unwrap();
        run(dir.path(), &packs(10), &none);
        let mut seen = BTreeSet::new();
        for _ in 0..10 {
            seen.extend(run(dir.path(), &packs(30), &none));
        }

        assert_eq!(seen.len(), 30);
    }
}
