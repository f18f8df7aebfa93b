//! Every kind of object, harmed in every way: it is found and named, nothing that is undamaged is
//! lost, and repair and the next backup heal what the source still has.
//!
//! What must survive is told by `model::naive`, which knows which records lie in which bytes. The
//! normal run takes a spread of cases; `STATEKEEP_MATRIX=all` takes all of them.

use crate::model::Files;
use crate::model::Naive;
use crate::support;
use crate::support::Seeded;
use crate::support::context;
use crate::support::model_of;
use statekeep::context::Context;
use statekeep::error::Error;
use statekeep::error::Result;
use statekeep::format::container;
use statekeep::format::container::ObjectKind;
use statekeep::format::key::Credential;
use statekeep::format::key::Derivation;
use statekeep::format::manifest::Manifest;
use statekeep::id::PackId;
use statekeep::id::RepoId;
use statekeep::id::SnapshotId;
use statekeep::ops::backup;
use statekeep::ops::check;
use statekeep::ops::check::CheckReport;
use statekeep::ops::check::ReadData;
use statekeep::ops::check::log;
use statekeep::ops::check::log::LogReport;
use statekeep::ops::check::repair;
use statekeep::ops::restore;
use statekeep::ops::restore::RestoreOptions;
use statekeep::ops::snapshots;
use statekeep::repo::Access;
use statekeep::repo::NewKey;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::MemoryStore;
use statekeep::store::Put;
use statekeep::store::Store;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// Bytes of a segment as it is stored, and of the header before the first.
const SEALED_SEGMENT_BYTES: usize = 65_552;
const HEADER_BYTES: usize = 64;

/// A repository that is copied for every case, with the machine that wrote it.
struct Original {
    scratch: TempDir,
    objects: BTreeMap<Key, Vec<u8>>,
    truth: BTreeMap<SnapshotId, Files>,
    newest: SnapshotId,
}

/// What is done to an object.
#[derive(Debug, Clone)]
enum Harm {
    Flip(usize, u8),
    Truncate(usize),
    Extend(usize),
    Swap(Key),
    Delete,
}

fn credentials() -> Vec<Credential> {
    vec![support::credential(), Credential::Secret([8; 32].into())]
}

fn open(store: &Arc<MemoryStore>, plain: bool, cache: Option<&Path>) -> Result<Repo> {
    let store: Arc<dyn Store> = store.clone();
    match plain {
        true => Repo::open(store, &[], cache),
        false => Repo::open(store, &credentials(), cache),
    }
}

fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn files_of(dir: &Path) -> Files {
    let model = model_of(dir);
    let files = model.into_iter().filter(|(_, node)| node.1 == "file");
    files
        .map(|(path, node)| (path, *blake3::hash(&node.2).as_bytes()))
        .collect()
}

/// Writes a version of a file that differs from the others by its time too.
fn write(path: &Path, bytes: &[u8], step: usize) {
    fs::write(path, bytes).unwrap();
    let time = std::time::Duration::from_secs(1_700_000_000 + step as u64);
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + time).unwrap();
}

impl Original {
    fn source(&self) -> PathBuf {
        self.scratch.path().join("source")
    }

    fn cache(&self) -> PathBuf {
        self.scratch.path().join("cache")
    }

    fn new(plain: bool, large_bytes: usize) -> Original {
        let scratch = scratch();
        let store = Arc::new(MemoryStore::new());
        let new_key = |credential| NewKey {
            credential,
            derivation: Derivation::Secret,
            label: "matrix".to_string(),
        };
        let access = match plain {
            true => Access::Plain,
            false => Access::Encrypted(credentials().into_iter().map(new_key).collect()),
        };
        let shared: Arc<dyn Store> = store.clone();
        Repo::create(&context(), shared, RepoId([5; 16]), access, None).unwrap();
        let mut original = Original {
            scratch,
            objects: BTreeMap::new(),
            truth: BTreeMap::new(),
            newest: SnapshotId([0; 32]),
        };
        original.fill(&store, plain, large_bytes);
        for folder in Folder::ALL {
            for row in store.list(folder).unwrap() {
                let key = Key::new(folder, row.name).unwrap();
                let bytes = store.get(&key).unwrap().unwrap();
                original.objects.insert(key, bytes);
            }
        }
        original
    }

    /// Five backups with two checkpoints between them.
    fn fill(&mut self, store: &Arc<MemoryStore>, plain: bool, large_bytes: usize) {
        let (source, cache) = (self.source(), self.cache());
        fs::create_dir_all(source.join("d")).unwrap();
        let mut random = Seeded::new(5);
        let mut large = random.bytes(large_bytes);
        let database = rusqlite::Connection::open(source.join("state.db")).unwrap();
        let table = "pragma synchronous = off; create table t(x); insert into t values(1);";
        database.execute_batch(table).unwrap();
        for step in 0..5 {
            for at in 0..20 {
                if let Some(byte) = large.get_mut(step * 7 + at * 1000) {
                    *byte ^= 0x21;
                }
            }
            write(&source.join("large"), &large, step);
            for number in [step, step + 1, 9] {
                write(&source.join(format!("d/{number}")), &random.text(900), step);
            }
            database
                .execute("insert into t values(?1)", [step as i64])
                .unwrap();
            let repo = open(store, plain, Some(&cache)).unwrap();
            let report = support::backup(&repo, &source).unwrap();
            self.newest = report.snapshot.unwrap();
            let files = files_of(&source);
            self.truth.insert(self.newest, files);
            if step == 1 || step == 3 {
                let (state, keys) = (repo.read_state(&context()).unwrap(), repo.log_keys());
                let plain = state.encode();
                let salt = [step as u8; 24];
                let object = container::seal(&keys.data, ObjectKind::Checkpoint, salt, &plain);
                store
                    .put_new(&Key::checkpoint(state.position), &object)
                    .unwrap();
            }
        }
    }

    fn store(&self) -> Arc<MemoryStore> {
        let store = Arc::new(MemoryStore::new());
        for (key, bytes) in &self.objects {
            store.put_new(key, bytes).unwrap();
        }
        store
    }

    /// Returns the store with one object harmed, `None` if that changes nothing.
    fn harmed(&self, key: &Key, harm: &Harm) -> Option<Arc<MemoryStore>> {
        let mut bytes = self.objects[key].clone();
        match harm {
            Harm::Flip(at, mask) => bytes[*at] ^= mask,
            Harm::Truncate(len) => bytes.truncate(*len),
            Harm::Extend(by) => bytes.resize(bytes.len() + by, 0),
            Harm::Swap(other) => bytes.clone_from(&self.objects[other]),
            Harm::Delete => {}
        }
        if bytes == self.objects[key] && !matches!(harm, Harm::Delete) {
            return None;
        }
        let store = self.store();
        store.delete(key).unwrap();
        if !matches!(harm, Harm::Delete) {
            assert_eq!(store.put_new(key, &bytes).unwrap(), Put::Created);
        }
        Some(store)
    }

    /// Returns the plain bytes of a pack that may be wrong. Anything but a flip, and a flip in the
    /// header or the table, takes the whole pack.
    fn hurt(&self, key: &Key, harm: &Harm) -> Range<usize> {
        match harm {
            Harm::Flip(at, _) if HEADER_BYTES <= *at => {
                let segment = (at - HEADER_BYTES) / SEALED_SEGMENT_BYTES;
                segment * 65_536..(segment + 1) * 65_536
            }
            _ => 0..self.objects[key].len(),
        }
    }

    /// Returns what must still come back of each snapshot.
    fn survives(&self, naive: &mut Naive, key: &Key, harm: &Harm) -> BTreeMap<SnapshotId, Files> {
        let store = self.store();
        let ledger = naive.ledger(&*store).unwrap();
        let mut view = naive.view(&*store, &ledger).unwrap();
        if key.folder() == Folder::Packs {
            let pack: PackId = key.name().parse().unwrap();
            view.without(&pack, &self.hurt(key, harm));
        }
        let snapshots = ledger.snapshots.iter();
        snapshots
            .map(|(id, raw)| (*id, naive.salvage(&view, raw)))
            .collect()
    }
}

/// Everything `check` says about a repository that opens.
struct Checked {
    report: CheckReport,
    log: LogReport,
}

impl Checked {
    fn finds_nothing(&self) -> bool {
        self.report.is_clean() && self.log.problems().is_empty()
    }
}

fn checked(cx: &Context, repo: &Repo, read_data: ReadData) -> Result<Checked> {
    let log = log::inspect(cx, repo)?;
    let (state, snapshots) = snapshots::list(cx, repo)?;
    let manifests: Vec<_> = snapshots.into_iter().map(|s| (s.id, s.manifest)).collect();
    let report = check::check(cx, repo, &state.packs, &manifests, read_data)?;
    Ok(Checked { report, log })
}

/// Returns what can be restored of a snapshot; whatever comes has to be right.
fn restored(repo: &Repo, id: &SnapshotId, truth: &Files, scratch: &Path) -> Result<Files> {
    let cx = context();
    let state = repo.read_state(&cx)?;
    let chunks = Chunks::open(repo, &state.packs)?;
    let raw = state.snapshots.get(id).ok_or_else(|| Error::NotFound {
        what: id.to_string(),
    })?;
    let manifest = Manifest::decode(raw).unwrap();
    let target = tempfile::tempdir_in(scratch).unwrap();
    let options = RestoreOptions::new(target.path().join("t"));
    let plan = restore::plan(&cx, &chunks, &manifest, &options)?;
    let report = restore::apply(&cx, &chunks, &manifest, &options, &plan)?;
    let found = files_of(&target.path().join("t"));
    for (path, hash) in &found {
        assert_eq!(truth.get(path), Some(hash), "{}", path.escape_ascii());
    }
    // What does not come is told (I8).
    assert_eq!(
        report.failures.count > 0,
        found.len() < truth.len(),
        "{:?}",
        report.failures
    );
    Ok(found)
}

/// A damaged object may be refused, but never for a reason that sends people the wrong way.
fn is_told(error: &Error, key: &Key) -> bool {
    match error {
        Error::Corrupt { .. } | Error::Missing { .. } => true,
        // Without a config there is no repository; a config of another kind asks for another key.
        Error::NoRepo { .. } | Error::WrongKey { .. } | Error::Refused { .. } => {
            key.folder() == Folder::Top || key.folder() == Folder::Keys
        }
        Error::TooNew { .. } => key.folder() == Folder::Top,
        _ => false,
    }
}

/// Runs one case and returns what is wrong with how it went.
fn case(
    original: &Original,
    naive: &mut Naive,
    plain: bool,
    key: &Key,
    harm: &Harm,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(store) = original.harmed(key, harm) else {
        return wrong;
    };
    let cx = context();
    let survives = original.survives(naive, key, harm);
    let is_last = original
        .objects
        .keys()
        .rfind(|other| other.folder() == Folder::Log)
        == Some(key);
    let is_hidden = matches!(harm, Harm::Swap(_)) || is_last && matches!(harm, Harm::Delete);
    if key.folder() == Folder::Log && is_hidden {
        return remembered(original, &store, plain);
    }
    let stranger = match open(&store, plain, None) {
        Ok(repo) => repo,
        Err(error) if is_told(&error, key) => return wrong,
        Err(error) => return vec![format!("opening says {error}")],
    };
    match checked(&cx, &stranger, ReadData::All) {
        Ok(checked) => {
            // Another key slot opens it, and nobody knows of one that is gone.
            let is_harmless = (key.folder() == Folder::Keys && matches!(harm, Harm::Delete))
                || *key == Key::new(Folder::Top, "reserve").unwrap()
                || checked
                    .log
                    .covered_slots
                    .keys()
                    .any(|slot| Key::slot(*slot) == *key)
                || is_trimmed(&checked.log, key)
                // Without a checkpoint the slots say the same: none is trimmed here.
                || (key.folder() == Folder::State && matches!(harm, Harm::Delete));
            if checked.finds_nothing() && !is_harmless {
                wrong.push("check finds nothing".to_string());
            }
            let object = key.to_string();
            let named = checked.report.problems.iter().any(|p| p.object == object);
            if key.folder() == Folder::Packs && !named {
                wrong.push(format!(
                    "check does not name it: {:?}",
                    checked.report.problems
                ));
            }
            wrong.extend(short(original, &stranger, &checked, &survives));
        }
        Err(error) if is_told(&error, key) && key.folder() != Folder::Packs => {}
        Err(error) => wrong.push(format!("check says {error}")),
    }
    drop(stranger);
    if let Err(error) = heal(original, &store, plain, key, &survives, &mut wrong) {
        wrong.push(format!("repair says {error}"));
    }
    wrong
}

/// Returns what does not come back though nothing it needs was harmed, or is lost without a word.
fn short(
    original: &Original,
    stranger: &Repo,
    checked: &Checked,
    survives: &BTreeMap<SnapshotId, Files>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, truth) in &original.truth {
        let found = restored(stranger, id, truth, original.scratch.path()).unwrap_or_default();
        let lacks = survives[id]
            .keys()
            .filter(|path| !found.contains_key(*path));
        let lacks: Vec<_> = lacks.map(|path| path.escape_ascii().to_string()).collect();
        if !lacks.is_empty() {
            wrong.push(format!("{id} lacks {lacks:?}, which are undamaged"));
        }
        // The records of databases may be lost while every file comes back.
        let is_told = checked.report.losses.contains_key(id);
        if found.len() < truth.len() && !is_told {
            wrong.push(format!(
                "{id}: {} of {} and not told",
                found.len(),
                truth.len()
            ));
        }
    }
    wrong
}

/// A slot in the place of another one is void, and so is all after it; and without the last one a
/// log is that of some time ago. Who was never there before cannot tell; whoever remembers can.
fn remembered(original: &Original, store: &Arc<MemoryStore>, plain: bool) -> Vec<String> {
    let home = tempfile::tempdir_in(original.scratch.path()).unwrap();
    copy_dir(&original.cache(), home.path());
    let repo = open(store, plain, Some(home.path())).unwrap();
    match repo.read_state(&context()) {
        Err(Error::RolledBack { .. } | Error::Corrupt { .. } | Error::Missing { .. }) => Vec::new(),
        Ok(state)
            if original
                .truth
                .keys()
                .all(|id| state.snapshots.contains_key(id)) =>
        {
            Vec::new()
        }
        other => vec![format!("who remembers reads {other:?}")],
    }
}

fn is_trimmed(log: &LogReport, key: &Key) -> bool {
    let newest = log.checkpoints.last().copied().unwrap_or(0);
    key.folder() == Folder::Log && key.name().parse::<u64>().is_ok_and(|slot| slot <= newest)
}

/// The machine that wrote it repairs, backs up, and repairs again.
fn heal(
    original: &Original,
    store: &Arc<MemoryStore>,
    plain: bool,
    key: &Key,
    survives: &BTreeMap<SnapshotId, Files>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let cx = context();
    let home = tempfile::tempdir_in(original.scratch.path()).unwrap();
    let cache = home.path().join("cache");
    copy_dir(&original.cache(), &cache);
    let repo = open(store, plain, Some(&cache))?;
    let report = log::inspect(&cx, &repo)?;
    let plan = log::plan(&repo, &report)?;
    log::apply(&cx, &repo, &plan)?;
    let repair = || -> Result<repair::RepairPlan> {
        let (state, snapshots) = snapshots::list(&cx, &repo)?;
        let manifests: Vec<_> = snapshots.into_iter().map(|s| (s.id, s.manifest)).collect();
        let plan = repair::plan(&cx, &repo, &state, &manifests, ReadData::All)?;
        repair::apply(&cx, &repo, &state, &plan)?;
        Ok(plan)
    };
    repair()?;
    // A person does as the message says.
    for damaged in repo.keys()?.iter().filter(|key| key.damage.is_some()) {
        repo.remove_key(&damaged.name)?;
    }
    let fresh = backup::backup(&cx, &repo, &support::options(&original.source()))?;
    let newest = &original.truth[&original.newest];
    for id in [fresh.snapshot.unwrap(), original.newest] {
        if restored(&repo, &id, newest, home.path())? != *newest {
            wrong.push(format!("{id} is not whole after a backup"));
        }
    }
    let after = repair()?;
    for (id, truth) in &original.truth {
        let found = restored(&repo, id, truth, home.path())?;
        let is_lost = |path: &&Vec<u8>| !found.contains_key(*path);
        if survives[id].keys().any(|path| is_lost(&path)) {
            wrong.push(format!("{id} lost something to the repair"));
        }
        let is_told = after.report.losses.contains_key(id);
        if found.len() < truth.len() && !is_told {
            wrong.push(format!("{id} after repair: told {is_told}"));
        }
    }
    // Where nothing is lost for good, the last word is that all is well.
    let is_whole = after.report.losses.is_empty();
    let last = checked(&cx, &repo, ReadData::All)?;
    let needs_old = key.folder() == Folder::Packs && after.waiting.is_some();
    if is_whole && !needs_old && !last.finds_nothing() {
        let problems = (&last.report.problems, last.log.problems());
        wrong.push(format!("all is whole, and check still finds {problems:?}"));
    }
    Ok(())
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(std::result::Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &to),
            false => {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
}

/// Places that matter, and so many between them.
fn places(len: usize, spread: usize) -> BTreeSet<usize> {
    let fixed = [0, 7, 8, 9, 10, 11, 12, 16, 39, 40, 63, 64, 65, 79, 80];
    let last = (1..=40).step_by(3).map(|back| len.saturating_sub(back));
    let borders = (1..5).flat_map(|n| {
        let at = HEADER_BYTES + n * SEALED_SEGMENT_BYTES;
        [at - 17, at - 1, at]
    });
    let between = (0..spread).map(|n| n * len / spread.max(1));
    let all = fixed.into_iter().chain(last).chain(borders).chain(between);
    all.filter(|at| *at < len).collect()
}

fn harms(original: &Original, key: &Key, spread: usize) -> Vec<Harm> {
    let len = original.objects[key].len();
    let masks = [0x01, 0x80, 0xff];
    let at = places(len, spread);
    let flips = at.into_iter().map(|at| Harm::Flip(at, masks[at % 3]));
    let cuts = [0, 1, 63, 64, len / 2, len.saturating_sub(17), len - 1];
    let cuts = cuts
        .into_iter()
        .filter(|cut| *cut < len)
        .map(Harm::Truncate);
    let longer = [1, 16, 65_552].map(Harm::Extend);
    let same_kind = |other: &&Key| other.folder() == key.folder() && *other != key;
    let others = original.objects.keys().filter(same_kind);
    let swaps = others
        .filter(|_| key.folder() != Folder::Top)
        .cloned()
        .map(Harm::Swap);
    flips
        .chain(cuts)
        .chain(longer)
        .chain(swaps)
        .chain([Harm::Delete])
        .collect()
}

fn is_full() -> bool {
    std::env::var("STATEKEEP_MATRIX").is_ok_and(|which| which == "all")
}

#[test]
fn any_harm_to_any_object_is_found_and_loses_nothing_else() {
    let (mut count, mut wrong) = (0, Vec::new());
    let mut by_folder: BTreeMap<&str, u64> = BTreeMap::new();
    for plain in [true, false] {
        let original = Original::new(plain, 150_000);
        let mut naive = Naive::open(&*original.store(), &support::credential());
        for key in original.objects.keys() {
            let spread = if is_full() { 400 } else { 0 };
            let harms = harms(&original, key, spread);
            // Without being asked, every object meets a few of its harms.
            let every = if is_full() { 1 } else { 9 };
            let first = count as usize % every;
            for harm in harms.iter().skip(first).step_by(every) {
                count += 1;
                *by_folder.entry(key.folder().name()).or_default() += 1;
                for what in case(&original, &mut naive, plain, key, harm) {
                    wrong.push(format!("plain {plain}, {key}, {harm:?}: {what}"));
                }
            }
        }
    }

    eprintln!("{count} cases: {by_folder:?}");
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Every bit of every object: it is found, or all is still there.
#[test]
fn any_single_bit_is_found_or_harmless() {
    let (mut count, mut harmless, mut wrong) = (0, BTreeMap::new(), Vec::new());
    for plain in [true, false] {
        let original = Original::new(plain, 300);
        for (key, bytes) in &original.objects {
            let bits = 0..bytes.len() * 8;
            let every = if is_full() { 1 } else { 211 };
            for bit in bits.skip(count % every).step_by(every) {
                count += 1;
                let harm = Harm::Flip(bit / 8, 1 << (bit % 8));
                match bit_case(&original, plain, key, &harm) {
                    Ok(true) => {}
                    Ok(false) => *harmless.entry(key.folder().name()).or_insert(0) += 1,
                    Err(what) => wrong.push(format!("plain {plain}, {key}, bit {bit}: {what}")),
                }
            }
        }
    }

    eprintln!("{count} bits; without any effect: {harmless:?}");
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Returns whether the bit was found; fails if it was not and did harm.
fn bit_case(
    original: &Original,
    plain: bool,
    key: &Key,
    harm: &Harm,
) -> std::result::Result<bool, String> {
    let store = original.harmed(key, harm).ok_or("nothing was changed")?;
    let cx = context();
    let repo = match open(&store, plain, None) {
        Ok(repo) => repo,
        Err(error) if is_told(&error, key) => return Ok(true),
        Err(error) => return Err(format!("opening says {error}")),
    };
    let checked = match checked(&cx, &repo, ReadData::All) {
        Ok(checked) => checked,
        Err(error) if is_told(&error, key) => return Ok(true),
        Err(error) => return Err(format!("check says {error}")),
    };
    for id in original.truth.keys() {
        let is_told = checked.report.losses.contains_key(id);
        // Reads every byte through the verified reader.
        let whole = support::model_in(&repo, id);
        if whole.is_err() && !is_told {
            return Err(format!("{id} does not read, and check is silent"));
        }
        let files = whole.unwrap_or_default().into_iter();
        for (path, node) in files.filter(|(_, node)| node.1 == "file") {
            if original.truth[id].get(&path) != Some(blake3::hash(&node.2).as_bytes()) {
                return Err(format!("{id}: {} is wrong", path.escape_ascii()));
            }
        }
    }
    if key.folder() == Folder::Keys && checked.finds_nothing() {
        return Err("check finds nothing".to_string());
    }
    Ok(!checked.finds_nothing() || !checked.log.covered_slots.is_empty())
}
