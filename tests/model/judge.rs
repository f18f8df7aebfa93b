//! Compares what was promised, what the naive reader finds, and what the engine says.

use crate::model::naive::Ledger;
use crate::model::naive::Naive;
use crate::model::naive::Needs;
use crate::model::naive::View;
use crate::model::naive::kind_number;
use crate::model::turns::Turns;
use crate::model::world::ModelClock;
use crate::model::world::Shared;
use crate::model::world::Zeal;
use crate::model::world::prune_options;
use crate::support;
use statekeep::context::Context;
use statekeep::format::manifest::Manifest;
use statekeep::id::PackId;
use statekeep::ops::check;
use statekeep::ops::check::ReadData;
use statekeep::ops::prune;
use statekeep::ops::snapshots;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::repo::log::State;
use statekeep::repo::reach::Reach;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::Store;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;

/// Judges one repository.
pub(crate) struct Judge {
    naive: Arc<Mutex<Naive>>,
    told: Shared,
    cx: Context,
    pub(crate) judged: u64,
}

impl Judge {
    pub(crate) fn new(store: &dyn Store, told: &Shared, clock: &Arc<ModelClock>) -> Judge {
        let naive = Naive::open(store, &support::credential());
        Judge {
            naive: Arc::new(Mutex::new(naive)),
            told: told.clone(),
            cx: Context {
                clock: clock.clone(),
                ..Context::new()
            },
            judged: 0,
        }
    }

    pub(crate) fn told_count(&self) -> u64 {
        self.told.get().saved.len() as u64
    }

    /// Looks at every deletion while clients run; returns where violations are written.
    pub(crate) fn watch(&self, turns: &Turns) -> Arc<Mutex<Vec<String>>> {
        let violations = Arc::new(Mutex::new(Vec::new()));
        let (naive, found) = (Arc::clone(&self.naive), Arc::clone(&violations));
        let mut judged_at = None;
        turns.guard(Box::new(move |store, key| {
            let mut naive = naive.lock().unwrap();
            if let Err(why) = may_go(&mut naive, store, key, &mut judged_at) {
                found.lock().unwrap().push(format!("{key} goes: {why}"));
            }
        }));
        violations
    }

    /// Judges the repository as it is.
    pub(crate) fn step(&mut self, store: Arc<dyn Store>, what: &str) {
        self.judged += 1;
        let judged = self.judge(&store).and_then(|()| self.agrees(store));
        if let Err(why) = judged {
            panic!("{what}: {why}");
        }
    }

    /// Everything that was promised is there, by the naive reader alone.
    fn judge(&self, store: &Arc<dyn Store>) -> Result<(), String> {
        let mut naive = self.naive.lock().unwrap();
        let ledger = naive.ledger(&**store)?;
        let view = naive.view(&**store, &ledger)?;
        naive.needs(&view, &ledger)?;
        let told = self.told.get();
        for (id, raw) in &ledger.snapshots {
            let walk = naive.walk(&view, id, raw)?;
            let is_right = match told.saved.get(id) {
                Some(files) => *files == walk.files,
                None => told.attempted.contains(&walk.files),
            };
            if !is_right {
                return Err(format!("{id} does not hold what was in the source"));
            }
        }
        let there = |id| ledger.snapshots.contains_key(id);
        if let Some(id) = told
            .saved
            .keys()
            .find(|id| !there(*id) && !told.going.contains(*id))
        {
            return Err(format!("{id} was saved and is lost"));
        }
        match told.held.iter().find(|id| !there(*id)) {
            Some(id) => Err(format!("{id} was held and is lost")),
            None => Ok(()),
        }
    }

    /// The engine says the same of log, reach, soundness and use.
    fn agrees(&self, store: Arc<dyn Store>) -> Result<(), String> {
        let repo = support::open(Arc::clone(&store), None).map_err(|error| error.to_string())?;
        let engine = |error: statekeep::error::Error| format!("the engine: {error}");
        let state = repo.read_state(&self.cx).map_err(engine)?;
        let mut naive = self.naive.lock().unwrap();
        let ledger = naive.ledger(&*store)?;
        if !is_same(&state, &ledger) {
            return Err("the engine reads another log".to_string());
        }
        if !state.notes.lost.is_empty() || !state.notes.losses.is_empty() {
            return Err(format!(
                "nothing is lost, but the log says: {:?}",
                state.notes.lost
            ));
        }
        let view = naive.view(&*store, &ledger)?;
        let chunks = Chunks::open(&repo, &state.packs).map_err(engine)?;
        for (id, raw) in &ledger.snapshots {
            let manifest = Manifest::decode(raw).map_err(|bad| format!("{bad:?}"))?;
            let mut reached = BTreeSet::new();
            let mut visit = |kind, chunk: &_| {
                reached.insert((kind_number(kind), *chunk));
                Ok(())
            };
            let mut reach = Reach::begin(&chunks);
            reach
                .visit(&self.cx, &manifest, &mut visit)
                .map_err(engine)?;
            if reached != naive.walk(&view, id, raw)?.chunks {
                return Err(format!("the engine reaches something else from {id}"));
            }
        }
        let needs = naive.needs(&view, &ledger)?;
        self.figures_agree(&repo, &view, &needs)
    }

    /// `check` and the plan of a prune count what the naive reader counts.
    fn figures_agree(&self, repo: &Repo, view: &View, needs: &Needs) -> Result<(), String> {
        let engine = |error: statekeep::error::Error| format!("the engine: {error}");
        let (state, snapshots) = snapshots::list(&self.cx, repo).map_err(engine)?;
        let manifests: Vec<_> = snapshots.into_iter().map(|s| (s.id, s.manifest)).collect();
        let report = check::check(&self.cx, repo, &state.packs, &manifests, ReadData::All);
        let report = report.map_err(engine)?;
        if !report.is_clean() {
            return Err(format!("check finds {:?}", report.problems));
        }
        let log = check::log::inspect(&self.cx, repo).map_err(engine)?;
        if !log.problems().is_empty() || !log.covered_slots.is_empty() {
            return Err(format!(
                "the log has {:?} {:?}",
                log.problems(),
                log.covered_slots
            ));
        }
        let options = prune_options(None, Zeal::Lazy);
        let plan = prune::plan(&self.cx, repo, &options).map_err(engine)?;
        let usage = report.usage.unwrap_or_default();
        let (figures, count) = (plan.figures, view.records.values().flatten().count() as u64);
        if (figures.records, usage.records) != (count, count) {
            return Err(format!("{count} records, but {figures:?} {usage:?}"));
        }
        let sum = |is: &dyn Fn(&_) -> bool| -> u64 {
            let records = view.records.iter().filter(|(id, _)| is(id));
            let rows = records.flat_map(|(_, records)| records);
            rows.map(|record| u64::from(record.row().stored_bytes))
                .sum()
        };
        // Where a chunk has several records, which of them counts is the engine's choice.
        if view.records.values().all(|records| records.len() == 1) {
            let named = sum(&|id| needs.named.contains(id));
            let needed = sum(&|id| needs.needed.contains(id));
            let unused = sum(&|id| !needs.needed.contains(id));
            let said = (
                figures.named_bytes,
                figures.base_bytes,
                figures.unused_bytes,
            );
            if said != (named, needed - named, unused)
                || (usage.needed_bytes, usage.unneeded_bytes) != (needed, unused)
            {
                return Err(format!(
                    "{named} {needed} {unused}, but {figures:?} {usage:?}"
                ));
            }
        }
        Ok(())
    }

    /// There is nothing in the store that nobody needs.
    pub(crate) fn no_garbage(&self, store: &dyn Store, what: &str) {
        let mut naive = self.naive.lock().unwrap();
        let ledger = naive.ledger(store).unwrap();
        let view = naive.view(store, &ledger).unwrap();
        let needs = naive.needs(&view, &ledger).unwrap();
        let listed: BTreeSet<PackId> = (store.list(Folder::Packs).unwrap().iter())
            .map(|row| row.name.parse().unwrap())
            .collect();
        let named: BTreeSet<PackId> = ledger.packs.keys().copied().collect();
        assert_eq!(listed, named, "{what}: packs nobody names");
        let unneeded = view.records.keys().filter(|id| !needs.needed.contains(*id));
        assert_eq!(unneeded.count(), 0, "{what}: chunks nobody needs");
        let doubles = view.records.values().filter(|records| records.len() > 1);
        assert_eq!(doubles.count(), 0, "{what}: chunks stored twice");
    }
}

fn is_same(state: &State, ledger: &Ledger) -> bool {
    let snapshots = state.snapshots.iter().map(|(id, raw)| (*id, &raw[..]));
    let packs = state
        .packs
        .iter()
        .map(|(id, bytes)| (*id, bytes.stored_bytes));
    state.position == ledger.position
        && state.log_hash().0 == ledger.hash
        && snapshots.eq(ledger.snapshots.iter().map(|(id, raw)| (*id, &raw[..])))
        && packs.eq(ledger.packs.iter().map(|(id, bytes)| (*id, *bytes)))
        && state.dropped.keys().eq(&ledger.dropped)
}

/// Says why an object may not go, judging by the log as it is at this moment.
fn may_go(
    naive: &mut Naive,
    store: &dyn Store,
    key: &Key,
    judged_at: &mut Option<u64>,
) -> Result<(), String> {
    let ledger = naive.ledger(store)?;
    match key.folder() {
        Folder::Packs => {
            let id: PackId = key.name().parse().map_err(|_| "no pack")?;
            if ledger.packs.contains_key(&id) {
                return Err("the log names it".to_string());
            }
            // Nothing but packs of the log is looked at, so what goes now is not needed.
            if *judged_at != Some(ledger.position) {
                let view = naive.view(store, &ledger)?;
                naive.needs(&view, &ledger)?;
                *judged_at = Some(ledger.position);
            }
            Ok(())
        }
        Folder::Keys => Err("nobody removes keys".to_string()),
        // What the log says without it is judged after the step.
        Folder::Log | Folder::State | Folder::Top => Ok(()),
    }
}
