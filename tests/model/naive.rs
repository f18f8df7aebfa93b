//! A reader that owes nothing to `repo` and `ops`: it decodes by `format` alone, and thinks in sets.
//!
//! It folds the log by the text of `docs/format.md`, opens every pack whole, and tells of every
//! snapshot which chunks it needs, bases of bases included, and whether each has a record that
//! decodes to its id. Slow and plain on purpose; what it remembers are pure functions of ids.

use statekeep::codec::zstd::Decoder;
use statekeep::format::checkpoint::State;
use statekeep::format::config::Config;
use statekeep::format::container;
use statekeep::format::container::DataKeys;
use statekeep::format::container::ObjectKind;
use statekeep::format::entry::Entry;
use statekeep::format::key::Binding;
use statekeep::format::key::Credential;
use statekeep::format::key::Keyring;
use statekeep::format::key::Slot;
use statekeep::format::list::Children;
use statekeep::format::list::HOLE;
use statekeep::format::list::ListNode;
use statekeep::format::manifest::Manifest;
use statekeep::format::pack;
use statekeep::format::pack::ChunkKind;
use statekeep::format::pack::Codec;
use statekeep::format::pack::Row;
use statekeep::format::tree::Content;
use statekeep::format::tree::Entry as TreeEntry;
use statekeep::format::tree::Kind;
use statekeep::format::tree::Leaf;
use statekeep::format::tree::Node;
use statekeep::format::tree::Place;
use statekeep::id::ChunkId;
use statekeep::id::PackId;
use statekeep::id::SnapshotId;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::Store;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// What is wrong, in words.
pub(crate) type Found<T> = Result<T, String>;

/// The files of a snapshot: the hash of each by path.
pub(crate) type Files = BTreeMap<Vec<u8>, [u8; 32]>;

/// What the log says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) position: u64,
    pub(crate) hash: [u8; 32],
    pub(crate) snapshots: BTreeMap<SnapshotId, Vec<u8>>,
    pub(crate) packs: BTreeMap<PackId, u64>,
    pub(crate) dropped: BTreeSet<PackId>,
}

/// A pack, opened.
pub(crate) struct Pack {
    pub(crate) rows: Vec<Row>,
    offsets: Vec<usize>,
    /// Where the table begins.
    table: usize,
    plain: Vec<u8>,
}

/// What a snapshot names itself. A pure function of its manifest.
#[derive(Default)]
pub(crate) struct Walk {
    pub(crate) chunks: BTreeSet<(u8, ChunkId)>,
    pub(crate) files: Files,
}

/// Every record of the packs at hand, by chunk.
pub(crate) struct View {
    pub(crate) records: BTreeMap<ChunkId, Vec<Record>>,
}

/// One record.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) pack: PackId,
    pub(crate) number: usize,
    of: Arc<Pack>,
}

impl Record {
    pub(crate) fn row(&self) -> &Row {
        &self.of.rows[self.number]
    }

    fn stored(&self) -> &[u8] {
        let from = self.of.offsets[self.number];
        &self.of.plain[from..from + self.row().stored_bytes as usize]
    }
}

impl View {
    /// Takes away the records of a pack that lie in this part of its plain bytes; all of them if
    /// its table does.
    pub(crate) fn without(&mut self, pack: &PackId, hurt: &Range<usize>) {
        let is_hurt = |record: &Record| {
            let (from, of) = (record.of.offsets[record.number], &record.of);
            let end = from + record.row().stored_bytes as usize;
            let takes_table = of.table < hurt.end && hurt.start < of.plain.len();
            record.pack == *pack && (takes_table || (from < hurt.end && hurt.start < end))
        };
        for records in self.records.values_mut() {
            records.retain(|record| !is_hurt(record));
        }
        self.records.retain(|_, records| !records.is_empty());
    }
}

/// What a set of snapshots needs.
#[derive(Default)]
pub(crate) struct Needs {
    /// Named by a snapshot.
    pub(crate) named: BTreeSet<ChunkId>,
    /// Named, or a base of what is needed.
    pub(crate) needed: BTreeSet<ChunkId>,
    /// Packs with a record of what is needed, where there is no other.
    pub(crate) sole_packs: BTreeSet<PackId>,
}

/// The reader.
pub(crate) struct Naive {
    data: DataKeys,
    id_keys: [[u8; 32]; 3],
    manifest_key: [u8; 32],
    packs: HashMap<PackId, Arc<Pack>>,
    plain: HashMap<ChunkId, Arc<Vec<u8>>>,
    /// Records that were decoded to what they are named after.
    verified: HashSet<(PackId, usize)>,
    walks: HashMap<SnapshotId, Arc<Walk>>,
}

pub(crate) fn kind_number(kind: ChunkKind) -> u8 {
    match kind {
        ChunkKind::Data => 0,
        ChunkKind::List => 1,
        ChunkKind::Tree => 2,
    }
}

impl Naive {
    /// Opens a repository.
    pub(crate) fn open(store: &dyn Store, credential: &Credential) -> Naive {
        let config_bytes = store.get(&Key::config()).unwrap().unwrap();
        let config = Config::decode(&config_bytes).unwrap();
        let keyring = match config.public_secret {
            Some(secret) => Keyring {
                id_secret: secret,
                generations: vec![(1, secret)],
            },
            None => {
                let binding = Binding {
                    config: &config_bytes,
                    suite: config.suite,
                };
                let mut slots = store.list(Folder::Keys).unwrap().into_iter();
                let opened = slots.find_map(|row| {
                    let key = Key::new(Folder::Keys, row.name).unwrap();
                    let slot = Slot::decode(&store.get(&key).unwrap().unwrap()).unwrap();
                    slot.unseal(credential, binding).unwrap()
                });
                opened.expect("a key slot for this credential")
            }
        };
        let derived = |context: &str| blake3::derive_key(context, &keyring.id_secret);
        Naive {
            data: DataKeys::new(config.suite, keyring.generations.clone()).unwrap(),
            id_keys: [
                derived("statekeep 2026-11 id of data"),
                derived("statekeep 2026-11 id of a list"),
                derived("statekeep 2026-11 id of a tree"),
            ],
            manifest_key: derived("statekeep 2026-11 id of a manifest"),
            packs: HashMap::new(),
            plain: HashMap::new(),
            verified: HashSet::new(),
            walks: HashMap::new(),
        }
    }

    /// Folds the log. Where all slots are there, the checkpoints must say the same as they do.
    pub(crate) fn ledger(&self, store: &dyn Store) -> Found<Ledger> {
        let mut ledger = Ledger::default();
        for number in numbers(store, Folder::State).into_iter().rev() {
            if let Some(state) = self.checkpoint(store, number) {
                ledger = state;
                break;
            }
        }
        self.fold(store, &mut ledger)?;
        let slots = numbers(store, Folder::Log);
        if let Some(beyond) = slots.last().filter(|last| ledger.position < **last) {
            return Err(format!("a slot before {beyond} is missing"));
        }
        if slots.first() == Some(&1) {
            let mut again = Ledger::default();
            self.fold(store, &mut again)?;
            // Names of deleted packs may be forgotten on the way; all else is the same.
            if again != ledger {
                return Err("a checkpoint contradicts the slots".to_string());
            }
        }
        Ok(ledger)
    }

    fn checkpoint(&self, store: &dyn Store, number: u64) -> Option<Ledger> {
        let object = store.get(&Key::checkpoint(number)).ok()??;
        let plain = container::unseal(&self.data, ObjectKind::Checkpoint, &object).ok()?;
        let state = State::decode(&self.manifest_key, &plain).ok()?;
        let snapshots = state.snapshots.iter();
        let packs = state.packs.iter();
        (state.position == number).then(|| Ledger {
            position: number,
            hash: state.recent.last().map_or([0; 32], |hash| hash.0),
            snapshots: snapshots.map(|(id, raw)| (*id, raw.to_vec())).collect(),
            packs: packs.map(|(id, bytes)| (*id, bytes.stored_bytes)).collect(),
            dropped: state.dropped.keys().copied().collect(),
        })
    }

    fn fold(&self, store: &dyn Store, ledger: &mut Ledger) -> Found<()> {
        loop {
            let key = Key::slot(ledger.position + 1);
            let Some(object) = store.get(&key).map_err(|error| error.to_string())? else {
                return Ok(());
            };
            let plain = container::unseal(&self.data, ObjectKind::Slot, &object);
            let plain = plain.map_err(|bad| format!("{key}: {bad:?}"))?;
            let entry = Entry::decode(&self.manifest_key, &plain);
            let entry = entry.map_err(|bad| format!("{key}: {bad:?}"))?;
            let change = &entry.change;
            let revives = |id: &PackId| ledger.dropped.contains(id);
            let is_void = entry.previous.0 != ledger.hash
                || change.add_packs.iter().any(|pack| revives(&pack.id));
            if !is_void {
                for id in &change.remove_snapshots {
                    ledger.snapshots.remove(id);
                }
                for added in &change.add_snapshots {
                    let id = blake3::keyed_hash(&self.manifest_key, &added.manifest);
                    let id = SnapshotId(*id.as_bytes());
                    ledger.snapshots.insert(id, added.manifest.to_vec());
                }
                for added in &change.add_packs {
                    ledger.packs.insert(added.id, added.bytes.stored_bytes);
                }
                for id in &change.drop_packs {
                    ledger.packs.remove(id);
                    ledger.dropped.insert(*id);
                }
                for id in &change.gone_packs {
                    ledger.dropped.remove(id);
                }
            }
            let stored = blake3::hash(&object);
            let joined = [&ledger.hash[..], stored.as_bytes()].concat();
            ledger.hash = *blake3::hash(&joined).as_bytes();
            ledger.position += 1;
        }
    }

    /// Opens all packs the log names: each is there, whole, and what it is named after.
    pub(crate) fn view(&mut self, store: &dyn Store, ledger: &Ledger) -> Found<View> {
        let mut records: BTreeMap<ChunkId, Vec<Record>> = BTreeMap::new();
        for (id, stored_bytes) in &ledger.packs {
            let key = Key::pack(id);
            let object = store.get(&key).map_err(|error| error.to_string())?;
            let object = object.ok_or_else(|| format!("{key} is in the log and not there"))?;
            if object.len() as u64 != *stored_bytes || *blake3::hash(&object).as_bytes() != id.0 {
                return Err(format!("{key} is not what it was"));
            }
            let pack = match self.packs.get(id) {
                Some(pack) => Arc::clone(pack),
                None => {
                    let pack = self
                        .opened(&object)
                        .map_err(|bad| format!("{key}: {bad}"))?;
                    self.packs.insert(*id, Arc::new(pack));
                    Arc::clone(&self.packs[id])
                }
            };
            for number in 0..pack.rows.len() {
                let of = Arc::clone(&pack);
                let chunk = of.rows[number].id;
                let record = Record {
                    pack: *id,
                    number,
                    of,
                };
                records.entry(chunk).or_default().push(record);
            }
        }
        Ok(View { records })
    }

    fn opened(&self, object: &[u8]) -> Found<Pack> {
        let plain = container::unseal(&self.data, ObjectKind::Pack, object);
        let plain = plain.map_err(|bad| format!("{bad:?}"))?;
        let tail = plain.len().checked_sub(pack::TAIL_BYTES);
        let tail = &plain[tail.ok_or("it has no tail")?..];
        let table = u64::from_le_bytes(tail[..8].try_into().unwrap()) as usize;
        let rows = pack::decode_table(&plain[table..]).map_err(|bad| format!("{bad:?}"))?;
        let mut offsets = Vec::new();
        let mut at = 0;
        for row in &rows {
            offsets.push(at);
            at += row.stored_bytes as usize;
        }
        Ok(Pack {
            rows,
            offsets,
            table,
            plain,
        })
    }

    /// Returns the content of a chunk, from any record that yields it.
    fn read(&mut self, view: &View, kind: ChunkKind, id: &ChunkId) -> Found<Arc<Vec<u8>>> {
        match self.decoded(view, id, u16::MAX)? {
            (plain, found) if found == kind => Ok(plain),
            _ => Err(format!("{id} is of another kind")),
        }
    }

    fn decoded(
        &mut self,
        view: &View,
        id: &ChunkId,
        below: u16,
    ) -> Found<(Arc<Vec<u8>>, ChunkKind)> {
        let mut why = format!("no record of {id} below {below}");
        for record in view.records.get(id).into_iter().flatten() {
            if below <= u16::from(record.row().height) {
                continue;
            }
            match self.decode(view, record) {
                Ok(plain) => return Ok((plain, record.row().encoding.kind)),
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }

    /// Decodes one record. That bytes and bases yield the chunk is found out once; that they are
    /// there, every time.
    fn decode(&mut self, view: &View, record: &Record) -> Found<Arc<Vec<u8>>> {
        let row = record.row();
        let mut prefix = Vec::new();
        for base in bases(view, row)? {
            prefix.push(self.decoded(view, &base, u16::from(row.height))?.0);
        }
        let place = (record.pack, record.number);
        if self.verified.contains(&place) {
            return Ok(Arc::clone(&self.plain[&row.id]));
        }
        let mut plain = Vec::new();
        match row.encoding.codec {
            Codec::Raw => plain.extend_from_slice(record.stored()),
            Codec::Zstd | Codec::Delta => {
                let prefix: Vec<u8> = prefix
                    .iter()
                    .flat_map(|base| base.iter().copied())
                    .collect();
                let done = Decoder::new().decode(
                    record.stored(),
                    &prefix,
                    row.plain_bytes as usize,
                    &mut plain,
                );
                done.map_err(|bad| format!("{}: {bad}", row.id))?;
            }
        }
        let key = &self.id_keys[usize::from(kind_number(row.encoding.kind))];
        if *blake3::keyed_hash(key, &plain).as_bytes() != row.id.0 {
            return Err(format!("a record of {} is of something else", row.id));
        }
        self.verified.insert(place);
        let plain = Arc::new(plain);
        self.plain.insert(row.id, Arc::clone(&plain));
        Ok(plain)
    }

    /// Returns what a snapshot names and holds.
    pub(crate) fn walk(&mut self, view: &View, id: &SnapshotId, raw: &[u8]) -> Found<Arc<Walk>> {
        if let Some(walk) = self.walks.get(id) {
            return Ok(Arc::clone(walk));
        }
        let manifest = Manifest::decode(raw).map_err(|bad| format!("{bad:?}"))?;
        let mut walk = Walk::default();
        if let Some(records) = &manifest.databases {
            self.named(view, &mut walk, ChunkKind::Data, records)?;
        }
        let mut links = Vec::new();
        self.node(
            view,
            &mut walk,
            &mut links,
            manifest.tree.level,
            &manifest.tree.id,
        )?;
        for (path, target) in links {
            let hash = *walk.files.get(&target).ok_or("a link leads nowhere")?;
            walk.files.insert(path, hash);
        }
        let walk = Arc::new(walk);
        self.walks.insert(*id, Arc::clone(&walk));
        Ok(walk)
    }

    fn named(
        &mut self,
        view: &View,
        walk: &mut Walk,
        kind: ChunkKind,
        id: &ChunkId,
    ) -> Found<Arc<Vec<u8>>> {
        walk.chunks.insert((kind_number(kind), *id));
        self.read(view, kind, id)
    }

    fn node(
        &mut self,
        view: &View,
        walk: &mut Walk,
        links: &mut Vec<(Vec<u8>, Vec<u8>)>,
        level: u8,
        id: &ChunkId,
    ) -> Found<()> {
        let bytes = self.named(view, walk, ChunkKind::Tree, id)?;
        match Node::decode(&bytes).map_err(|bad| format!("{bad:?}"))? {
            Node::Leaf(leaf) if level == 0 => self.leaf(view, walk, links, &leaf),
            Node::Inner(inner) if inner.level == level => {
                for (_, child) in &inner.children {
                    self.node(view, walk, links, level - 1, child)?;
                }
                Ok(())
            }
            _ => Err(format!("{id} is of another level")),
        }
    }

    fn leaf(
        &mut self,
        view: &View,
        walk: &mut Walk,
        links: &mut Vec<(Vec<u8>, Vec<u8>)>,
        leaf: &Leaf,
    ) -> Found<()> {
        for (entry, place) in leaf.entries.iter().zip(leaf.places()) {
            if let Some(content) = self.content(view, walk, links, leaf, entry, place)? {
                let hash = *blake3::hash(&content).as_bytes();
                walk.files.insert(entry.path.clone(), hash);
            }
        }
        Ok(())
    }

    /// Returns the bytes of an entry; `None` for what is no file of its own.
    fn content(
        &mut self,
        view: &View,
        walk: &mut Walk,
        links: &mut Vec<(Vec<u8>, Vec<u8>)>,
        leaf: &Leaf,
        entry: &TreeEntry,
        place: Option<Place>,
    ) -> Found<Option<Vec<u8>>> {
        match &entry.kind {
            Kind::HardLink { path } => {
                links.push((entry.path.clone(), path.clone()));
                Ok(None)
            }
            Kind::File { size_bytes: 0, .. } => Ok(Some(Vec::new())),
            Kind::File {
                size_bytes,
                content: Content::Bundled(_),
            } => {
                let place = place.ok_or("a small file has no place")?;
                let bundle = leaf.bundles[place.bundle].id;
                let bundle = self.named(view, walk, ChunkKind::Data, &bundle)?;
                let from = place.offset as usize;
                let content = bundle.get(from..from + *size_bytes as usize);
                Ok(Some(content.ok_or("a bundle is too short")?.to_vec()))
            }
            Kind::File {
                size_bytes,
                content: Content::Stream(stream),
            } => {
                let content = self.stream(view, walk, stream.level, &stream.root, *size_bytes)?;
                Ok(Some(content))
            }
            _ => Ok(None),
        }
    }

    fn stream(
        &mut self,
        view: &View,
        walk: &mut Walk,
        level: u8,
        id: &ChunkId,
        len: u64,
    ) -> Found<Vec<u8>> {
        if *id == HOLE {
            return Ok(vec![0; len as usize]);
        }
        if level == 0 {
            let plain = self.named(view, walk, ChunkKind::Data, id)?;
            return match plain.len() as u64 == len {
                true => Ok(plain.to_vec()),
                false => Err(format!("{id} has another length")),
            };
        }
        let bytes = self.named(view, walk, ChunkKind::List, id)?;
        let node = ListNode::decode(&bytes).map_err(|bad| format!("{bad:?}"))?;
        let children: Vec<(u64, ChunkId)> = match &node.children {
            Children::Cut(children) | Children::Marked(children) => {
                let child = children.iter();
                child.map(|child| (child.plain_bytes, child.id)).collect()
            }
            Children::Even { unit_bytes, ids } => {
                let span = u64::from(*unit_bytes) << (10 * u32::from(level - 1));
                let from = (0..).map(|at: u64| at * span);
                let lens = from.map(|from| span.min(len.saturating_sub(from)));
                lens.zip(ids.iter().copied()).collect()
            }
        };
        if node.level != level || children.iter().map(|(len, _)| len).sum::<u64>() != len {
            return Err(format!("{id} contradicts its parent"));
        }
        let mut out = Vec::new();
        for (len, child) in children {
            out.extend(self.stream(view, walk, level - 1, &child, len)?);
        }
        Ok(out)
    }

    /// Returns the files of a snapshot that can be read though some records are gone.
    pub(crate) fn salvage(&mut self, view: &View, raw: &[u8]) -> Files {
        let Ok(manifest) = Manifest::decode(raw) else {
            return Files::new();
        };
        let (mut walk, mut links) = (Walk::default(), Vec::new());
        let mut ahead = vec![(manifest.tree.level, manifest.tree.id)];
        while let Some((level, id)) = ahead.pop() {
            let Ok(bytes) = self.read(view, ChunkKind::Tree, &id) else {
                continue;
            };
            match Node::decode(&bytes) {
                Ok(Node::Leaf(leaf)) => self.salvage_leaf(view, &mut walk, &mut links, &leaf),
                Ok(Node::Inner(inner)) => {
                    ahead.extend(inner.children.iter().map(|(_, child)| (level - 1, *child)));
                }
                Err(_) => {}
            }
        }
        for (path, target) in links {
            if let Some(hash) = walk.files.get(&target).copied() {
                walk.files.insert(path, hash);
            }
        }
        walk.files
    }

    fn salvage_leaf(
        &mut self,
        view: &View,
        walk: &mut Walk,
        links: &mut Vec<(Vec<u8>, Vec<u8>)>,
        leaf: &Leaf,
    ) {
        for (entry, place) in leaf.entries.iter().zip(leaf.places()) {
            // What cannot be read is not there; the others are.
            if let Ok(Some(content)) = self.content(view, walk, links, leaf, entry, place) {
                let hash = *blake3::hash(&content).as_bytes();
                walk.files.insert(entry.path.clone(), hash);
            }
        }
    }

    /// Returns what these snapshots need, or which of it is not there.
    pub(crate) fn needs(&mut self, view: &View, ledger: &Ledger) -> Found<Needs> {
        let mut needs = Needs::default();
        for (id, raw) in &ledger.snapshots {
            let of = |why: String| format!("{id}: {why}");
            let walk = self.walk(view, id, raw).map_err(of)?;
            for (kind, chunk) in &walk.chunks {
                let (_, found) = self.decoded(view, chunk, u16::MAX).map_err(of)?;
                if kind_number(found) != *kind {
                    return Err(of(format!("{chunk} is of another kind")));
                }
                needs.named.insert(*chunk);
            }
        }
        let mut ahead: Vec<ChunkId> = needs.named.iter().copied().collect();
        while let Some(chunk) = ahead.pop() {
            if !needs.needed.insert(chunk) {
                continue;
            }
            let records = &view.records[&chunk];
            if let [one] = &records[..] {
                needs.sole_packs.insert(one.pack);
            }
            // Of several records any may be the one that stays, so the least is what all lean on.
            if let [one] = &records[..] {
                ahead.extend(bases(view, one.row())?);
            }
        }
        Ok(needs)
    }
}

/// Returns the chunks a record leans on. Two with one beginning would be told apart by trying; none
/// ever were.
pub(crate) fn bases(view: &View, row: &Row) -> Found<Vec<ChunkId>> {
    let find = |base: &[u8; 8]| {
        let mut from = [0; 32];
        from[..8].copy_from_slice(base);
        let mut found = view.records.range(ChunkId(from)..);
        match found.next() {
            Some((id, _)) if id.0[..8] == base[..] => Ok(*id),
            _ => Err(format!("{} leans on what is nowhere", row.id)),
        }
    };
    row.bases.iter().map(find).collect()
}

pub(crate) fn numbers(store: &dyn Store, folder: Folder) -> BTreeSet<u64> {
    let listed = store.list(folder).unwrap_or_default();
    listed
        .iter()
        .filter_map(|row| row.name.parse().ok())
        .collect()
}
