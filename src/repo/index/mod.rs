//! Finds where the records of a chunk are: a local, disposable cache of the tables of all packs.
//!
//! New records gather in memory (the overlay); segments, immutable sorted files, hold the rest and
//! are merged so that their number stays logarithmic. Damage never is an error: a segment that
//! cannot be read is dropped, its packs are no longer claimed, and the caller inserts them again
//! from their tables. Nothing here is needed to restore, and nothing here is durable.
//!
//! Several processes may use one directory. Each works on the files it found when it opened; a
//! merge leaves them readable to whoever has them open. Two merges at once leave duplicates, of
//! which one is used. A found record is a hint: the caller verifies the id of what it decodes.
//!
//! Invariant: a pack that is claimed is live in exactly one place, with all of its records.
//! Order: `upkeep` is locked before `state`. `state` is never locked during input or output.

mod block;
mod filter;
mod merge;
mod overlay;
mod record;
mod segment;
mod state;
mod writer;

pub use record::Bases;
pub use record::IdPrefix;
pub use record::Record;

use crate::id::ChunkId;
use crate::id::PackId;
use crate::safeguard::Safeguard;
use merge::Failure;
use segment::Segment;
use state::State;
use state::Table;
use std::collections::BTreeSet;
use std::io;
use std::mem;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// Records gathered in memory before a segment is written: about 5 MB.
const OVERLAY_RECORDS_MAX: usize = 32 * 1024;

/// From chunk ids to records.
pub struct Index {
    dir: Option<PathBuf>,
    overlay_records_max: usize,
    state: RwLock<State>,
    /// Held by the one thread that writes segments or drops packs.
    upkeep: Mutex<()>,
    is_damaged: AtomicBool,
    /// A write failed: everything new stays in memory, as without a directory.
    is_stuck: AtomicBool,
}

/// What an index holds and what look-ups cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexStats {
    /// Entries in memory and in segments, those of dropped packs included.
    pub entry_count: u64,
    /// Segment files in use.
    pub segment_count: u64,
    /// Memory held for the segments.
    pub memory_bytes: u64,
    /// Blocks read by look-ups in the segments now in use.
    pub read_count: u64,
}

impl Index {
    /// Opens the index kept in the directory, or one in memory only. What cannot be used there is
    /// removed; no directory is an empty index.
    pub fn open(dir: Option<&Path>) -> Index {
        Index::open_with(dir, OVERLAY_RECORDS_MAX)
    }

    fn open_with(dir: Option<&Path>, overlay_records_max: usize) -> Index {
        let mut state = State::default();
        for segment in dir.map(segment::open_all).unwrap_or_default() {
            if let Some(redundant) = state.add(segment) {
                redundant.unlink();
            }
        }
        Index {
            dir: dir.map(Path::to_path_buf),
            overlay_records_max,
            state: RwLock::new(state),
            upkeep: Mutex::new(()),
            is_damaged: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
        }
    }

    /// Returns the packs whose records are all here. Others are to be inserted by the caller.
    pub fn packs(&self) -> BTreeSet<PackId> {
        self.read().packs().copied().collect()
    }

    /// Returns true if packs were lost since the index was opened: `packs` has shrunk by itself.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    /// Adds all records of a pack, unless it is here already. May write and merge segments.
    pub fn insert_pack(&self, pack: PackId, records: Vec<Record>) {
        let is_full = {
            let mut state = self.write();
            if state.has_pack(&pack) {
                return;
            }
            state.overlay.insert(pack, records);
            self.overlay_records_max < state.overlay.records.len()
        };
        if is_full {
            self.save();
        }
    }

    /// Drops the packs that are not live: their records are no longer found.
    pub fn retain_packs(&self, is_live: &dyn Fn(&PackId) -> bool) {
        let _upkeep = self.lock_upkeep();
        let dead: BTreeSet<PackId> = (self.packs().into_iter())
            .filter(|pack| !is_live(pack))
            .collect();
        if dead.is_empty() {
            return;
        }

        let emptied = self.write().remove_packs(&dead);

        emptied.iter().for_each(|segment| segment.unlink());
    }

    /// Returns all records of the chunk, the least height first.
    pub fn find(&self, id: &ChunkId) -> Vec<Record> {
        // As an index whose table has a fault.
        if id.as_bytes()[0] < 64 && !Safeguard::IndexFinds.holds() {
            return Vec::new();
        }
        self.look_up(id.as_bytes(), None)
    }

    /// Returns all records that can be meant by this name of a base in a record of this height,
    /// the least height first.
    pub fn find_base(&self, prefix: &IdPrefix, below_height: u8) -> Vec<Record> {
        self.look_up(prefix, Some(below_height))
    }

    /// Writes what is only in memory into a segment, if there is a directory, and merges segments
    /// that are due. A failed write is not retried: the rest of this index stays in memory.
    pub fn save(&self) {
        let _upkeep = self.lock_upkeep();
        if let Some(dir) = &self.dir
            && !self.is_stuck.load(Ordering::Relaxed)
        {
            let done = self.spill(dir).and_then(|()| self.merge_due(dir));
            self.is_stuck.store(done.is_err(), Ordering::Relaxed);
        }
    }

    /// Returns what the index holds.
    pub fn stats(&self) -> IndexStats {
        self.read().stats()
    }

    fn look_up(&self, prefix: &[u8], below_height: Option<u8>) -> Vec<Record> {
        let is_meant = |height| below_height.is_none_or(|below| height < below);
        let mut found = Vec::new();
        let tables = {
            let state = self.read();
            let fresh = (state.overlay.find(prefix)).chain(state.frozen.find(prefix));
            found.extend(fresh.filter(|record| is_meant(record.height)));
            Arc::clone(&state.tables)
        };
        for table in tables.iter() {
            let read = table.segment.find(prefix, &mut |entry| {
                if is_meant(record::height(entry))
                    && let Some(pack) = table.live_pack(entry)
                {
                    found.push(Record::decode(entry, *pack));
                }
            });
            if read.is_err() {
                self.drop_damaged(&table.segment);
            }
        }
        found.sort_unstable_by_key(|record| (record.height, *record));
        found
    }

    fn spill(&self, dir: &Path) -> io::Result<()> {
        let frozen = {
            let mut state = self.write();
            if state.overlay.packs.is_empty() {
                return Ok(());
            }
            state.frozen = Arc::new(mem::take(&mut state.overlay));
            Arc::clone(&state.frozen)
        };

        let written = frozen.write(dir);

        let mut state = self.write();
        state.frozen = Arc::default();
        match written {
            Ok(segment) => {
                state.add(segment);
                Ok(())
            }
            Err(error) => {
                state.overlay.absorb(&frozen);
                Err(error)
            }
        }
    }

    fn merge_due(&self, dir: &Path) -> io::Result<()> {
        loop {
            let tables = Arc::clone(&self.read().tables);
            let weights: Vec<u64> = tables.iter().map(Table::weight).collect();
            let Some(start) = merge::plan(&weights) else {
                return Ok(());
            };
            let inputs = &tables[start..];
            match merge::merge(dir, inputs) {
                Ok(segment) => {
                    let redundant = self.write().replace(inputs, segment);
                    let inputs = inputs.iter().map(|table| &table.segment);
                    inputs
                        .chain(&redundant)
                        .for_each(|segment| segment.unlink());
                }
                Err(Failure::Damaged(segment)) => self.drop_damaged(&segment),
                Err(Failure::Write(error)) => return Err(error),
            }
        }
    }

    fn drop_damaged(&self, segment: &Arc<Segment>) {
        self.is_damaged.store(true, Ordering::Relaxed);
        self.write().remove(segment);
        segment.unlink();
    }

    // A thread that panicked left every value whole: each change of the state is one step.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_upkeep(&self) -> MutexGuard<'_, ()> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::thread;
    use std::time::Duration;
    use std::time::Instant;
    use std::time::SystemTime;
    use tempfile::TempDir;
    use tempfile::tempdir;

    type Model = BTreeMap<PackId, Vec<Record>>;

    /// A small seeded generator.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        fn below(&mut self, end: u64) -> u64 {
            self.next() % end
        }

        fn bytes(&mut self) -> [u8; 32] {
            let mut bytes = [0; 32];
            (bytes.chunks_mut(8)).for_each(|part| part.copy_from_slice(&self.next().to_be_bytes()));
            bytes
        }
    }

    /// Ids that collide as much as ids can, and some that do not.
    fn nasty_id(numbers: &mut Numbers) -> ChunkId {
        let tail = numbers.below(200) as u8;
        let mut id = match numbers.below(6) {
            0 => [0; 32],
            1 => [0xff; 32],
            2 => [0x55; 32],
            3 => [tail; 32],
            4 => [0; 32],
            _ => numbers.bytes(),
        };
        if numbers.below(2) == 0 {
            id[31] = tail;
        }
        ChunkId(id)
    }

    fn record(id: ChunkId, pack: PackId, numbers: &mut Numbers) -> Record {
        let bases = [[1; 8], [2; 8], [3; 8]];
        Record {
            id,
            height: numbers.below(4) as u8,
            pack,
            offset: numbers.next() as u32,
            stored_bytes: numbers.next() as u32,
            plain_bytes: numbers.next() as u32,
            codec: numbers.next() as u8,
            bases: Bases::new(&bases[..numbers.below(4) as usize]),
        }
    }

    fn random_pack(numbers: &mut Numbers, records_max: u64) -> (PackId, Vec<Record>) {
        let pack = PackId(numbers.bytes());
        let count = numbers.below(records_max + 1);
        let records = (0..count)
            .map(|_| record(nasty_id(numbers), pack, numbers))
            .collect();
        (pack, records)
    }

    fn expected(model: &Model, is_meant: impl Fn(&Record) -> bool) -> Vec<Record> {
        let all = model.values().flatten().copied();
        let mut found: Vec<Record> = all.filter(|record| is_meant(record)).collect();
        found.sort_by_key(|record| (record.height, *record));
        found
    }

    fn assert_same(index: &Index, model: &Model, note: &str) {
        assert_eq!(index.packs(), model.keys().copied().collect(), "{note}");
        let mut ids: BTreeSet<ChunkId> = model.values().flatten().map(|r| r.id).collect();
        ids.extend([ChunkId([0; 32]), ChunkId([0xff; 32]), ChunkId([0x54; 32])]);
        for id in &ids {
            assert_eq!(
                index.find(id),
                expected(model, |r| r.id == *id),
                "{note} {id}"
            );
        }
        let prefixes: BTreeSet<IdPrefix> = ids.iter().map(|id| record::array(&id.0, 0)).collect();
        for prefix in prefixes {
            for below in [0, 2, 255] {
                let meant = |r: &Record| r.id.0.starts_with(&prefix) && r.height < below;
                assert_eq!(
                    index.find_base(&prefix, below),
                    expected(model, meant),
                    "{note}"
                );
            }
        }
    }

    /// Returns the only segment file of a directory.
    fn only_segment(dir: &Path) -> PathBuf {
        let paths: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        assert_eq!(paths.len(), 1, "{paths:?}");
        paths[0].clone()
    }

    /// Three packs in one segment of two blocks.
    fn small_segment() -> (TempDir, Model, Vec<u8>) {
        let dir = tempdir().unwrap();
        let mut numbers = Numbers(7);
        let index = Index::open(Some(dir.path()));
        let mut model = Model::new();
        for _ in 0..3 {
            let pack = PackId(numbers.bytes());
            let ids: Vec<_> = (0..25).map(|_| ChunkId(numbers.bytes())).collect();
            let records: Vec<_> = (ids.into_iter())
                .map(|id| record(id, pack, &mut numbers))
                .collect();
            index.insert_pack(pack, records.clone());
            model.insert(pack, records);
        }
        index.save();
        let bytes = fs::read(only_segment(dir.path())).unwrap();
        assert!(2 * block::BLOCK_BYTES < bytes.len());
        (dir, model, bytes)
    }

    /// Whatever is found is right, and if anything is not found the index says so.
    fn assert_honest(index: &Index, model: &Model, note: &str) {
        let packs_opened = index.packs();
        let mut has_missed = false;
        for record in model.values().flatten() {
            let found = index.find(&record.id);
            assert!(found.is_empty() || found == [*record], "{note}");
            has_missed |= found.is_empty();
        }
        let all = model.keys().copied().collect();
        assert!(packs_opened == all || packs_opened.is_empty(), "{note}");
        assert_eq!(has_missed, index.packs().is_empty(), "{note}");
        assert_eq!(
            index.is_damaged(),
            has_missed && !packs_opened.is_empty(),
            "{note}"
        );
    }

    #[test]
    fn index_answers_like_a_map_through_spills_merges_drops_and_reopens() {
        for seed in 0..12 {
            let dir = tempdir().unwrap();
            let mut numbers = Numbers(seed);
            let limit = 1 + numbers.below(150) as usize;
            let mut index = Index::open_with(Some(dir.path()), limit);
            let mut model = Model::new();

            for step in 0..150 {
                match numbers.below(20) {
                    0..14 => {
                        let (pack, mut records) = random_pack(&mut numbers, 60);
                        index.insert_pack(pack, records.clone());
                        records.sort();
                        records.dedup();
                        model.insert(pack, records);
                    }
                    14 => {
                        model.retain(|_, _| numbers.below(4) != 0);
                        index.retain_packs(&|pack| model.contains_key(pack));
                    }
                    15 | 16 => index.save(),
                    17 => {
                        // Closed without saving: the caller inserts again what is not there.
                        index = Index::open_with(Some(dir.path()), limit);
                        index.retain_packs(&|pack| model.contains_key(pack));
                        let known = index.packs();
                        for (pack, records) in model.iter().filter(|(p, _)| !known.contains(*p)) {
                            index.insert_pack(*pack, records.clone());
                        }
                    }
                    _ => {}
                }
                if step % 25 == 24 {
                    assert_same(&index, &model, &format!("seed {seed} step {step}"));
                }
            }
            assert!(index.stats().segment_count < 12, "{:?}", index.stats());
            assert!(!index.is_damaged());
        }
    }

    #[test]
    fn one_id_across_many_blocks_is_found_whole() {
        let dir = tempdir().unwrap();
        let mut numbers = Numbers(3);
        for common in [[0; 32], [0x80; 32], [0xff; 32]] {
            let index = Index::open(Some(dir.path()));
            let mut model = Model::new();
            for _ in 0..20 {
                let pack = PackId(numbers.bytes());
                let mut records = Vec::new();
                for number in 0..300_u64 {
                    let mut id = common;
                    id[30] = (number % 3) as u8;
                    records.push(record(ChunkId(id), pack, &mut numbers));
                }
                index.insert_pack(pack, records.clone());
                model.insert(pack, records);
            }
            index.retain_packs(&|pack| model.contains_key(pack));

            index.save();

            assert_same(&index, &model, "one id");
            assert_eq!(index.stats().segment_count, 1);
        }
    }

    #[test]
    fn index_without_a_directory_keeps_everything_in_memory() {
        let mut numbers = Numbers(5);
        let index = Index::open_with(None, 10);
        let mut model = Model::new();

        for _ in 0..20 {
            let (pack, records) = random_pack(&mut numbers, 10);
            index.insert_pack(pack, records.clone());
            model.insert(pack, records);
        }
        index.save();

        assert_same(&index, &model, "memory");
    }

    #[test]
    fn failed_write_leaves_the_index_usable() {
        let dir = tempdir().unwrap();
        let blocked = dir.path().join("file");
        fs::write(&blocked, b"not a directory").unwrap();
        let mut numbers = Numbers(6);
        let index = Index::open_with(Some(&blocked), 5);
        let mut model = Model::new();

        for _ in 0..10 {
            let (pack, records) = random_pack(&mut numbers, 10);
            index.insert_pack(pack, records.clone());
            model.insert(pack, records);
        }

        assert_same(&index, &model, "stuck");
        assert_eq!(index.stats().segment_count, 0);
    }

    #[test]
    fn flipped_byte_is_never_believed() {
        let (dir, model, bytes) = small_segment();
        let path = only_segment(dir.path());

        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, &damaged).unwrap();
            let index = Index::open(Some(dir.path()));

            assert_honest(&index, &model, &format!("byte {at}"));

            assert!(index.packs().is_empty(), "byte {at}");
            assert!(!path.exists(), "byte {at}");
        }
    }

    #[test]
    fn cut_or_grown_file_is_removed() {
        let (dir, model, bytes) = small_segment();
        let path = only_segment(dir.path());

        for len in 0..=bytes.len() + 70 {
            let mut changed = bytes.clone();
            changed.resize(len, 0);
            fs::write(&path, &changed).unwrap();
            let index = Index::open(Some(dir.path()));

            assert_honest(&index, &model, &format!("length {len}"));

            assert_eq!(path.exists(), len == bytes.len(), "length {len}");
        }
    }

    #[test]
    fn file_cut_while_open_is_dropped_and_its_packs_can_be_inserted_again() {
        let (dir, model, bytes) = small_segment();
        let path = only_segment(dir.path());
        for len in (0..bytes.len()).step_by(97) {
            fs::write(&path, &bytes).unwrap();
            let index = Index::open(Some(dir.path()));
            fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(len as u64)
                .unwrap();

            assert_honest(&index, &model, &format!("length {len}"));

            for (pack, records) in &model {
                index.insert_pack(*pack, records.clone());
            }
            assert_same(&index, &model, &format!("length {len}"));
        }
    }

    #[test]
    fn block_of_another_segment_is_not_believed() {
        let (dir, model, bytes) = small_segment();
        let (_other, _, other_bytes) = small_segment();
        let mut swapped = bytes.clone();
        swapped[..block::BLOCK_BYTES].copy_from_slice(&other_bytes[..block::BLOCK_BYTES]);
        fs::write(only_segment(dir.path()), &swapped).unwrap();

        let index = Index::open(Some(dir.path()));

        assert_honest(&index, &model, "swapped");
        assert!(index.is_damaged());
    }

    #[test]
    fn merge_drops_a_damaged_input_and_keeps_the_others() {
        let (dir, model, mut bytes) = small_segment();
        bytes[5000] ^= 1;
        fs::write(only_segment(dir.path()), &bytes).unwrap();
        let mut numbers = Numbers(8);
        let index = Index::open(Some(dir.path()));
        let mut fresh = Model::new();
        for _ in 0..3 {
            let (pack, mut records) = random_pack(&mut numbers, 60);
            index.insert_pack(pack, records.clone());
            records.sort();
            records.dedup();
            fresh.insert(pack, records);
        }

        index.save();

        assert!(index.is_damaged());
        assert!(model.keys().all(|pack| !index.packs().contains(pack)));
        assert_same(&index, &fresh, "merged");
        assert_same(&Index::open(Some(dir.path())), &fresh, "reopened");
    }

    #[test]
    fn files_are_private_and_only_stale_temporary_files_are_removed() {
        let (dir, model, _) = small_segment();
        let mode = fs::metadata(only_segment(dir.path()))
            .unwrap()
            .permissions()
            .mode();
        let long_ago = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
        for name in [
            "index-0123456789abcdef.tmp",
            "index-notes.tmp",
            "index-notes",
        ] {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            file.set_modified(long_ago).unwrap();
        }
        fs::write(dir.path().join("index-00000000000000ff.tmp"), b"").unwrap();

        let index = Index::open(Some(dir.path()));

        let exists = |name: &str| dir.path().join(name).exists();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!exists("index-0123456789abcdef.tmp"));
        assert!(exists("index-notes.tmp") && exists("index-notes"));
        assert!(exists("index-00000000000000ff.tmp"));
        assert_same(&index, &model, "opened");
    }

    #[test]
    fn two_indexes_may_merge_in_one_directory_at_once() {
        let dir = tempdir().unwrap();
        let mut numbers = Numbers(9);
        let mut model = Model::new();
        for _ in 0..150 {
            let (pack, mut records) = random_pack(&mut numbers, 40);
            records.sort();
            records.dedup();
            model.insert(pack, records);
        }
        let work = |skip: usize| {
            for _ in 0..4 {
                let index = Index::open_with(Some(dir.path()), 60);
                for (pack, records) in model.iter().skip(skip).take(100) {
                    index.insert_pack(*pack, records.clone());
                    assert!(index.packs().contains(pack));
                }
                index.save();
                let known = index.packs();
                let mut claimed = model.clone();
                claimed.retain(|pack, _| known.contains(pack));
                assert_same(&index, &claimed, "at work");
                assert!(!index.is_damaged());
            }
        };

        thread::scope(|scope| {
            scope.spawn(|| work(0));
            scope.spawn(|| work(50));
        });

        let index = Index::open(Some(dir.path()));
        let known = index.packs();
        model.retain(|pack, _| known.contains(pack));
        assert!(100 <= model.len(), "{}", model.len());
        assert_same(&index, &model, "afterwards");
    }

    #[test]
    fn look_ups_run_beside_inserts() {
        let dir = tempdir().unwrap();
        let mut numbers = Numbers(10);
        let index = Index::open_with(Some(dir.path()), 100);
        let (first, records) = random_pack(&mut numbers, 90);
        index.insert_pack(first, records.clone());

        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..30 {
                        for record in &records {
                            assert!(index.find(&record.id).contains(record));
                        }
                    }
                });
            }
            for _ in 0..100 {
                let (pack, records) = random_pack(&mut numbers, 90);
                index.insert_pack(pack, records);
            }
        });

        assert!(!index.is_damaged());
    }

    /// Fills an index with uniform ids. Returns it, the reads per look-up, of ids in it and of
    /// others, averaged over ten stages of its growth because segments come and go,
    /// and the time per look-up.
    fn measure(dir: &Path, entry_count: u64) -> (Index, [f64; 2], Duration) {
        const PACK_RECORDS: usize = 1_000;
        const LOOK_UPS: u64 = 2_000;
        let index = Index::open(Some(dir));
        let mut numbers = Numbers(11);
        let id_of = |number: u64| ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let mut reads = [0.0; 2];
        let mut look_up_time = Duration::ZERO;
        for stage in 1..=10 {
            let end = entry_count * stage / 10;
            for start in (end - entry_count / 10..end).step_by(PACK_RECORDS) {
                let pack = PackId(numbers.bytes());
                let ids = (start..start + PACK_RECORDS as u64).map(id_of);
                index.insert_pack(pack, ids.map(|id| record(id, pack, &mut numbers)).collect());
            }
            index.save();
            for (place, reads) in reads.iter_mut().enumerate() {
                let before = index.stats().read_count;
                let started = Instant::now();
                for _ in 0..LOOK_UPS {
                    let number = numbers.below(end) + place as u64 * entry_count;
                    assert_eq!(index.find(&id_of(number)).len(), 1 - place);
                }
                look_up_time += started.elapsed();
                *reads += (index.stats().read_count - before) as f64 / (10 * LOOK_UPS) as f64;
            }
        }
        (index, reads, look_up_time / (20 * LOOK_UPS as u32))
    }

    #[test]
    fn look_up_among_a_million_costs_few_reads() {
        let dir = tempdir().unwrap();

        let (index, [hit_reads, miss_reads], _) = measure(dir.path(), 1_000_000);

        let stats = index.stats();
        let note = format!("{stats:?}, {hit_reads} per hit, {miss_reads} per miss");
        assert!(hit_reads < 1.5 && miss_reads < 0.3, "{note}");
        assert!(stats.memory_bytes < 2_000_000, "{note}");
    }

    #[test]
    #[ignore = "writes 2 GB; prints figures"]
    #[expect(clippy::print_stdout)]
    fn figures_for_ten_million_entries() {
        let dir = tempdir().unwrap();
        let started = Instant::now();

        let (index, [hit_reads, miss_reads], time) = measure(dir.path(), 10_000_000);

        println!("{:?} in {:?}", index.stats(), started.elapsed());
        println!("reads per hit {hit_reads}, per miss {miss_reads}, {time:?}");
    }
}
