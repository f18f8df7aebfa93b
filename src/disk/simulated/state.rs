//! What is on a simulated disk, what of it is durable, and what power loss makes of the rest.

use crate::context::Timestamp;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::Component;
use std::path::Path;

/// What power loss does to everything that is not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it is lost.
    Everything,
    /// All of it is kept.
    Nothing,
    /// Chosen per item by this seed: a name is lost or kept; content is lost, torn, zeroed or kept.
    Random(u64),
}

#[derive(Clone)]
pub(super) struct State {
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) now: Timestamp,
    pub(super) uniques: u64,
    pub(super) quirks: Quirks,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Quirks {
    pub(super) capacity_bytes: Option<u64>,
    pub(super) lacks_links: bool,
    pub(super) ignores_file_sync: bool,
    pub(super) ignores_dir_sync: bool,
}

#[derive(Clone)]
pub(super) enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Clone, Default)]
pub(super) struct FileNode {
    pub(super) bytes: Vec<u8>,
    pub(super) durable_len: usize,
    pub(super) sync_failed: bool,
    pub(super) modified: Timestamp,
}

#[derive(Clone, Default)]
pub(super) struct DirNode {
    pub(super) entries: BTreeMap<OsString, u64>,
    pub(super) durable: BTreeMap<OsString, u64>,
}

const ROOT: u64 = 0;

impl Default for State {
    fn default() -> State {
        State {
            nodes: BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]),
            now: Timestamp::default(),
            uniques: 0,
            quirks: Quirks::default(),
        }
    }
}

impl State {
    pub(super) fn file(&mut self, node: u64) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn dir(&self, node: u64) -> io::Result<&DirNode> {
        match self.nodes.get(&node) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn dir_mut(&mut self, node: u64) -> io::Result<&mut DirNode> {
        match self.nodes.get_mut(&node) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn try_file(&self, path: &Path) -> io::Result<Option<&FileNode>> {
        match self.try_find(path)?.and_then(|node| self.nodes.get(&node)) {
            None => Ok(None),
            Some(Node::File(file)) => Ok(Some(file)),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn try_find(&self, path: &Path) -> io::Result<Option<u64>> {
        let mut node = ROOT;
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => match self.dir(node)?.entries.get(name) {
                    Some(child) => node = *child,
                    None => return Ok(None),
                },
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            }
        }
        Ok(Some(node))
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<u64> {
        self.try_find(path)?.ok_or(io::ErrorKind::NotFound.into())
    }

    pub(super) fn insert(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        if self.try_find(path)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = self.nodes.keys().next_back().map_or(ROOT, |last| last + 1);
        self.nodes.insert(number, node);
        self.set_entry(path, Some(number)).map(|()| number)
    }

    pub(super) fn set_entry(&mut self, path: &Path, node: Option<u64>) -> io::Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let parent = self.find(parent)?;
        let entries = &mut self.dir_mut(parent)?.entries;
        match node {
            Some(node) => entries.insert(name.to_os_string(), node),
            None => entries.remove(name),
        };
        Ok(())
    }

    /// Returns what is left after power loss.
    pub(super) fn after(mut self, loss: Loss) -> State {
        let mut dice = Dice::new(loss);
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.lose(&mut dice),
                Node::Dir(dir) => dir.lose(&mut dice),
            }
        }
        let reachable = self.reachable();
        self.nodes.retain(|node, _| reachable.contains(node));
        self
    }

    fn reachable(&self) -> BTreeSet<u64> {
        let mut reached = BTreeSet::new();
        let mut open = vec![ROOT];
        while let Some(node) = open.pop() {
            reached.insert(node);
            if let Ok(dir) = self.dir(node) {
                open.extend(dir.entries.values());
            }
        }
        reached
    }

    pub(super) fn room_bytes(&self) -> u64 {
        let Some(capacity) = self.quirks.capacity_bytes else {
            return u64::MAX;
        };
        let bytes = |node| match self.nodes.get(node) {
            Some(Node::File(file)) => file.bytes.len() as u64,
            _ => 0,
        };
        capacity.saturating_sub(self.reachable().iter().map(bytes).sum())
    }
}

impl FileNode {
    fn lose(&mut self, dice: &mut Dice) {
        let unsynced = self.bytes.len() - self.durable_len;
        if unsynced != 0 {
            match dice.pick(4) {
                0 => self.bytes.truncate(self.durable_len),
                1 => {
                    let torn = self.durable_len + dice.pick(unsynced);
                    self.bytes.truncate(torn);
                }
                // The new length reached the disk, the blocks did not.
                2 => self.bytes[self.durable_len..].fill(0),
                _ => {}
            }
        }
        self.durable_len = self.bytes.len();
        self.sync_failed = false;
    }
}

impl DirNode {
    fn lose(&mut self, dice: &mut Dice) {
        let names: BTreeSet<_> = self.entries.keys().chain(self.durable.keys()).collect();
        let mut after = BTreeMap::new();
        for name in names {
            let (old, new) = (self.durable.get(name), self.entries.get(name));
            let is_kept = old == new || dice.pick(2) == 1;
            if let Some(node) = if is_kept { new } else { old } {
                after.insert(name.clone(), *node);
            }
        }
        self.durable = after.clone();
        self.entries = after;
    }
}

/// Picks 0 when everything is lost, the last choice when nothing is, else by splitmix64.
struct Dice {
    loss: Loss,
    state: u64,
}

impl Dice {
    fn new(loss: Loss) -> Dice {
        let state = match loss {
            Loss::Random(seed) => seed,
            Loss::Everything | Loss::Nothing => 0,
        };
        Dice { loss, state }
    }

    fn pick(&mut self, choices: usize) -> usize {
        match self.loss {
            Loss::Everything => 0,
            Loss::Nothing => choices - 1,
            Loss::Random(_) => {
                self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = self.state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^= mixed >> 31;
                usize::try_from(mixed % choices as u64).unwrap_or(0)
            }
        }
    }
}
