//! Does what a plan says, in three walks over the tree: directories and contents, hard links, and
//! the attributes of directories, which everything before would change.

use crate::context::Context;
use crate::context::Event;
use crate::disk::beneath;
use crate::disk::jail;
use crate::disk::node::Problem;
use crate::error::Error;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::tree::Content;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::ops::restore::Replace;
use crate::ops::restore::RestoreOptions;
use crate::ops::restore::RestorePlan;
use crate::ops::restore::RestoreReport;
use crate::ops::restore::Sync;
use crate::ops::restore::content;
use crate::ops::restore::content::Job;
use crate::ops::restore::queue::Queue;
use crate::ops::restore::run::Run;
use crate::ops::restore::select::Only;
use crate::ops::restore::select::SelectedLeaf;
use crate::ops::restore::select::Selection;
use crate::ops::restore::select::Step;
use crate::ops::restore::sidecars;
use crate::ops::restore::target::State;
use crate::ops::restore::target::Target;
use crate::ops::restore::target::node_attributes;
use crate::ops::thread_count;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::tree::LeafAt;
use crate::safeguard::Safeguard;
use std::collections::HashMap;
use std::collections::HashSet;
use std::path::Path;
use std::thread;

/// Jobs that wait, for each thread.
const JOBS_AHEAD: usize = 4;

/// Restores what a plan says. Refuses, before anything is written, a plan of something else and
/// one that would have to replace what may not be replaced.
pub fn apply(
    cx: &Context,
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    options: &RestoreOptions,
    plan: &RestorePlan,
) -> Result<RestoreReport> {
    plan.check_fits(manifest, options)?;
    let started_at = cx.clock.now();
    let only = Only::parse(&options.only)?;
    let is_new = !options.target.is_dir();
    let target = Target::open(&options.target)?;
    for leftover in plan.leftovers() {
        target.jail.remove(leftover)?;
    }
    cx.progress.event(Event::Phase("restore"));
    let (files, bytes) = plan.total();
    cx.progress.event(Event::Total { files, bytes });

    let run = Run::begin(cx, chunks, options, &target, &manifest.tree, &only);
    execute(&run, is_new);
    let mut report = run.finish()?;
    if options.sync == Sync::Once && Safeguard::RestoredSync.holds() {
        // Order: success is reported after everything above is durable (I6).
        target.jail.sync()?;
    }
    let took_ns = cx.clock.now().since_ns(started_at);
    report.duration_ms = u64::try_from(took_ns / 1_000_000).unwrap_or(0);
    Ok(report)
}

/// Returns whether what is below a directory looks like an entry that is no hard link.
pub(in crate::ops) fn looks_like(root: &Path, entry: &Entry) -> Result<bool> {
    let state = Target::open(root)?.compare(entry)?;
    Ok(matches!(
        state,
        State::Equal | State::Attributes | State::Xattrs
    ))
}

/// Writes the files that differ from those below a directory to the target, which is empty, and
/// nothing else: they are complete and durable there before the first takes the place of another.
pub fn stage(
    cx: &Context,
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    options: &RestoreOptions,
    below: &Path,
) -> Result<RestoreReport> {
    let only = Only::parse(&options.only)?;
    let target = Target::open(&options.target)?;
    let against = Target::open(below)?;
    let mut run = Run::begin(cx, chunks, options, &target, &manifest.tree, &only);
    run.against = Some(&against);
    execute(&run, true);
    let report = run.finish()?;
    if Safeguard::StagedSync.holds() {
        target.jail.sync()?;
    }
    Ok(report)
}

/// Walks and writes. Whatever stops it is kept in the run.
fn execute<'r>(run: &'r Run<'r>, is_new: bool) {
    let mut walker = Walker {
        run,
        made: HashSet::new(),
        has_links: false,
    };
    if is_new {
        walker.made.insert(Vec::new());
    }
    let queue = Queue::new(JOBS_AHEAD * thread_count());
    thread::scope(|scope| {
        for _ in 0..thread_count() {
            scope.spawn(|| content::work(run, &queue));
        }
        if walker.contents(&queue).is_err() {
            queue.clear();
        }
        queue.close();
    });
    if run.check().is_ok() && run.against.is_none() {
        let _ = walker.links().and_then(|()| walker.directories());
    }
}

/// The thread that walks.
struct Walker<'r> {
    run: &'r Run<'r>,
    /// Directories made here that only lead to what was asked for.
    made: HashSet<Vec<u8>>,
    has_links: bool,
}

impl<'r> Walker<'r> {
    /// Makes directories and hands everything else out.
    fn contents(&mut self, queue: &Queue<Job<'r>>) -> Result<()> {
        let mut scratch = Scratch::default();
        let mut selection = Selection::begin(self.run.chunks, self.run.root, self.run.only);
        let mut dirs: Vec<Vec<u8>> = Vec::new();
        loop {
            self.run.check()?;
            let selected = match selection.next(&mut scratch) {
                Ok(Some(selected)) => selected,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.run.fail(selection.last_path(), below_lost(error))?;
                    continue;
                }
            };
            for step in &selected.steps {
                if matches!(step, Step::Impossible(_)) {
                    continue;
                }
                let entry = selected.entry(step);
                self.make_parents(&mut dirs, entry)?;
                if entry.kind == Kind::Directory {
                    self.make_dir(step, entry)?;
                    dirs.push(entry.path.clone());
                }
            }
            self.hand_out(queue, &selected)?;
        }
    }

    fn make_dir(&mut self, step: &Step, entry: &Entry) -> Result<()> {
        self.run.progress(1, 0);
        let jail = &self.run.target.jail;
        let made = match self.run.target.compare(entry) {
            Ok(State::Absent) => jail.make_dir(&entry.path, jail::Replace::Never),
            Ok(State::Different) => jail.make_dir(&entry.path, self.run.replace()),
            Ok(_) => return Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            return self.run.fail(&entry.path, error);
        }
        self.run.count(|report| report.others += 1);
        if matches!(step, Step::Ancestor(_)) {
            self.made.insert(entry.path.clone());
        }
        Ok(())
    }

    /// Makes directories the tree ought to have: their part of it may be lost.
    fn make_parents(&self, dirs: &mut Vec<Vec<u8>>, entry: &Entry) -> Result<()> {
        dirs.retain(|dir| beneath::is_within(&entry.path, dir) && *dir != entry.path);
        let (parent, _) = beneath::split(&entry.path);
        let known = dirs.last().map_or(0, Vec::len);
        if parent.len() <= known {
            return Ok(());
        }
        let ends = (known + 1..parent.len()).filter(|&end| parent[end] == b'/');
        for end in ends.chain([parent.len()]) {
            let made = self
                .run
                .target
                .jail
                .make_dir(&parent[..end], jail::Replace::Never);
            if made.is_err() {
                // Whoever needs it says what is wrong.
                return Ok(());
            }
            dirs.push(parent[..end].to_vec());
        }
        Ok(())
    }

    fn hand_out(&mut self, queue: &Queue<Job<'r>>, selected: &SelectedLeaf) -> Result<()> {
        let leaf = &selected.leaf;
        let places = leaf.places();
        let mut bundles: Vec<Vec<_>> = leaf.bundles.iter().map(|_| Vec::new()).collect();
        for step in &selected.steps {
            let entry = selected.entry(step);
            let index = match step {
                Step::Wanted(index) => *index,
                Step::Ancestor(_) => continue,
                Step::Impossible(_) => {
                    self.run.failure(impossible(&entry.path));
                    continue;
                }
            };
            match (&entry.kind, places[index]) {
                (Kind::Directory, _) => {}
                (Kind::HardLink { .. }, _) => self.has_links = true,
                (Kind::File { .. }, Some(place)) => {
                    bundles[place.bundle].push((entry.clone(), place));
                }
                (Kind::File { .. }, None) => queue.push(Job::Stream(Box::new(entry.clone()))),
                _ if self.run.against.is_some() => {}
                _ => queue.push(Job::Node(Box::new(entry.clone()))),
            }
        }
        for (bundle, files) in leaf.bundles.iter().zip(bundles) {
            if !files.is_empty() {
                queue.push(Job::Bundle {
                    id: bundle.id,
                    files,
                });
            }
        }
        Ok(())
    }

    /// Makes hard links, once everything they may link to is there.
    fn links(&mut self) -> Result<()> {
        if !self.has_links {
            return Ok(());
        }
        let mut scratch = Scratch::default();
        let mut selection = Selection::begin(self.run.chunks, self.run.root, self.run.only);
        // Where the first name of a file is not restored, its first link takes the place.
        let mut stand_ins = HashMap::new();
        loop {
            self.run.check()?;
            let selected = match selection.next(&mut scratch) {
                Ok(Some(selected)) => selected,
                Ok(None) => return Ok(()),
                // Reported by the first walk.
                Err(_) => continue,
            };
            for step in &selected.steps {
                let entry = selected.entry(step);
                if let (Step::Wanted(_), Kind::HardLink { path }) = (step, &entry.kind) {
                    let made = self.make_link(&mut scratch, &mut stand_ins, entry, path);
                    made.or_else(|error| self.run.fail(&entry.path, error))?;
                    self.run.progress(1, 0);
                }
            }
        }
    }

    fn make_link(
        &self,
        scratch: &mut Scratch,
        stand_ins: &mut HashMap<Vec<u8>, Vec<u8>>,
        entry: &Entry,
        first: &[u8],
    ) -> Result<()> {
        let refused = |reason: &str| {
            let first = String::from_utf8_lossy(first);
            let reason = format!("it is a hard link to \"{first}\", {reason}");
            Err(Error::Refused { reason })
        };
        let found = crate::ops::inspect::find_in(self.run.chunks, scratch, self.run.root, first)?;
        let Some((LeafAt { leaf, .. }, index)) = found else {
            return refused("which is not in the snapshot");
        };
        let target = &leaf.entries[index];
        let first = match self.run.only.wants(first, &target.kind) {
            true => first,
            false => match stand_ins.get(first) {
                Some(stand_in) => stand_in,
                None => {
                    let mut copy = target.clone();
                    copy.path.clone_from(&entry.path);
                    let place = leaf.places()[index];
                    let place = place.map(|place| (leaf.bundles[place.bundle].id, place));
                    if !matches!(copy.kind, Kind::File { .. }) {
                        return refused("which is no file");
                    }
                    content::write_alone(self.run, scratch, copy, place)?;
                    stand_ins.insert(first.to_vec(), entry.path.clone());
                    return Ok(());
                }
            },
        };
        let mut now = target.clone();
        now.path = first.to_vec();
        let is_linkable = !matches!(now.kind, Kind::Directory | Kind::HardLink { .. });
        // What is there under the first name may be an older file, or another user's.
        let state = self.run.target.compare(&now)?;
        if !is_linkable || !matches!(state, State::Equal | State::Xattrs | State::Attributes) {
            return refused("which was not restored");
        }
        let aside = match sidecars::is_database(&target.kind) {
            true => Some(sidecars::set_aside(self.run, &entry.path)?),
            false => None,
        };
        let discard = || aside.map_or(Ok(()), sidecars::SetAside::discard);
        if self.run.target.compare_link(&entry.path, first)? == State::Equal {
            self.run.count(|report| report.equal += 1);
            return discard();
        }
        let jail = &self.run.target.jail;
        jail.make_hard_link(&entry.path, first, self.run.replace())?;
        discard()?;
        self.run.count(|report| report.others += 1);
        Ok(())
    }

    /// Gives directories their attributes, each after all that is below it.
    fn directories(&self) -> Result<()> {
        let mut scratch = Scratch::default();
        let mut selection = Selection::begin(self.run.chunks, self.run.root, self.run.only);
        let mut open: Vec<(Entry, bool)> = Vec::new();
        loop {
            self.run.check()?;
            let selected = match selection.next(&mut scratch) {
                Ok(Some(selected)) => selected,
                Ok(None) => break,
                Err(_) => continue,
            };
            for step in &selected.steps {
                let entry = selected.entry(step);
                let is_left =
                    |dir: &mut (Entry, bool)| !beneath::is_within(&entry.path, &dir.0.path);
                while let Some((dir, is_ours)) = open.pop_if(is_left) {
                    self.close_dir(&dir, is_ours)?;
                }
                let is_ours = match step {
                    Step::Wanted(_) => true,
                    Step::Ancestor(_) => self.made.contains(&entry.path),
                    Step::Impossible(_) => continue,
                };
                if entry.kind == Kind::Directory {
                    open.push((entry.clone(), is_ours));
                }
            }
        }
        while let Some((dir, is_ours)) = open.pop() {
            self.close_dir(&dir, is_ours)?;
        }
        Ok(())
    }

    fn close_dir(&self, dir: &Entry, is_ours: bool) -> Result<()> {
        let set = || -> Result<()> {
            match self.run.target.compare(dir)? {
                State::Attributes | State::Xattrs if is_ours => {
                    let attributes = node_attributes(dir);
                    let problems = self.run.target.jail.set_attributes(&dir.path, &attributes);
                    self.run.warn(problems?);
                }
                // What could not be made was reported when it could not.
                _ => {}
            }
            Ok(())
        };
        set().or_else(|error| self.run.fail(&dir.path, error))
    }
}

/// The error of a part of the tree, which has no path of its own.
pub(super) fn below_lost(error: Error) -> Error {
    match error {
        Error::Corrupt { object, reason } => {
            let reason = format!("{reason}; the entries that follow this path are lost");
            Error::Corrupt { object, reason }
        }
        other => other,
    }
}

fn impossible(path: &[u8]) -> Problem {
    let message = "in the snapshot it lies below something that is no directory";
    Problem::new(path, "refused", message.into())
}

/// Returns the bytes of a file.
pub(super) fn size_bytes(entry: &Entry) -> u64 {
    match &entry.kind {
        Kind::File {
            size_bytes,
            content: Content::Bundled(_) | Content::Stream(_),
        } => *size_bytes,
        _ => 0,
    }
}

impl RestorePlan {
    fn check_fits(&self, manifest: &Manifest, options: &RestoreOptions) -> Result<()> {
        if self.tree() != &manifest.tree || self.target() != options.target {
            return Err(Error::Refused {
                reason: "the plan is that of another restore".into(),
            });
        }
        if self.conflicts.count > 0 && options.replace == Replace::Never {
            let shown = self.conflicts.sample.iter().take(10);
            let shown: Vec<_> = shown.map(|path| String::from_utf8_lossy(path)).collect();
            let more = self.conflicts.count - shown.len() as u64;
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            let logs = match self.conflicting_logs {
                0 => String::new(),
                count => format!(
                    "; {count} of them would be replayed by SQLite into a restored database"
                ),
            };
            let reason = format!(
                "{} exist and differ: {}{more}{logs}; nothing was written",
                self.conflicts.count,
                shown.join(", ")
            );
            return Err(Error::Refused { reason });
        }
        Ok(())
    }
}
