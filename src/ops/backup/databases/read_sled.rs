//! sled databases: directories whose files are copied at one instant, and then enter the tree as
//! ordinary files with the content of the copy.
//!
//! ```text
//! unchanged since the last exact copy ── the scan takes the files from the parent
//! an exact copy ──────────────────────── its files, whatever became of the live ones
//! a copy that is not exact ───────────── the same, and said: partial
//! refused ────────────────────────────── plain files, and said: partial
//! ```

use crate::error::Result;
use crate::format::database::DatabaseRecord;
use crate::format::database::Engine;
use crate::format::database::Method;
use crate::format::database::Verdict;
use crate::format::list::Stream;
use crate::format::tree::path_order;
use crate::ops::backup::databases::Captured;
use crate::ops::backup::databases::Io;
use crate::ops::backup::databases::gate::Gate;
use crate::ops::backup::databases::gate::Looks;
use crate::ops::backup::source::Source;
use crate::ops::backup::stream::StreamReader;
use crate::source;
use crate::source::files::Kind;
use crate::source::files::Problem;
use crate::source::files::Tree;
use crate::source::sled::Conf;
use crate::source::sled::Health;
use crate::source::sled::Listing;
use crate::source::sled::Original;
use crate::source::sled::Part;
use crate::source::sled::PrivateCopy;
use crate::source::sled::Refusal;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::VecDeque;

/// Copies that are not exact are made so often, until one of them opens.
const TRIES: u32 = 3;

/// What the scan has to know of the directories.
#[derive(Default)]
pub(super) struct Directories {
    standings: BTreeMap<Vec<u8>, Standing>,
    /// Files that were captured, in the order of the tree.
    waiting: VecDeque<(Vec<u8>, Captured)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Unchanged when it was looked at.
    Idle,
    /// Captured; the scan did not come to the directory yet.
    Captured,
    /// The scan was there.
    Entered,
}

impl Directories {
    pub(super) fn add_idle(&mut self, dir: Vec<u8>) {
        self.standings.insert(dir, Standing::Idle);
    }

    pub(super) fn add_captured(&mut self, dir: Vec<u8>, files: Files) {
        self.standings.insert(dir, Standing::Captured);
        self.waiting.extend(files);
        let waiting = self.waiting.make_contiguous();
        waiting.sort_by(|(a, _), (b, _)| path_order(a, b));
    }

    /// Whether this is a file of a captured database, and what is there now does not count.
    pub(super) fn hides(&self, path: &[u8]) -> bool {
        let standing = self.standing_of(path);
        standing.is_some_and(|standing| standing != Standing::Idle)
    }

    /// Whether this is a file of a database that is taken for unchanged.
    pub(super) fn is_idle(&self, path: &[u8]) -> bool {
        self.standing_of(path) == Some(Standing::Idle)
    }

    /// Tells that the scan came to a directory.
    pub(super) fn enter(&mut self, dir: &[u8]) {
        if let Some(standing @ Standing::Captured) = self.standings.get_mut(dir) {
            *standing = Standing::Entered;
        }
    }

    /// Returns the next captured file that stands before this path, or the next at all. Files of
    /// a directory that is gone now are left out: nothing could lead to them.
    pub(super) fn next(&mut self, before: Option<&[u8]>) -> Option<(Vec<u8>, Captured)> {
        loop {
            let (path, _) = self.waiting.front()?;
            if before.is_some_and(|before| path_order(path, before) != Ordering::Less) {
                return None;
            }
            let (path, captured) = self.waiting.pop_front()?;
            if self.standing_of(&path) == Some(Standing::Entered) {
                return Some((path, captured));
            }
        }
    }

    fn standing_of(&self, path: &[u8]) -> Option<Standing> {
        if self.standings.is_empty() {
            return None;
        }
        let (above, _) = split(path);
        let dir = match split(above) {
            (dir, b"blobs") => dir,
            _ => above,
        };
        let name = path.strip_prefix(&prefix(dir)[..])?;
        Part::of(name)?;
        self.standings.get(dir).copied()
    }
}

/// Files that were captured, each with its path.
pub(super) type Files = Vec<(Vec<u8>, Captured)>;

/// Tells what the parent has under a path, with its length.
pub(super) type Old<'f> = dyn Fn(&Io<'_, '_>, &[u8]) -> Option<(Stream, u64)> + 'f;

/// What kind of database a directory is.
pub(super) enum Found {
    Stable(Conf),
    /// sled 1.0, in whatever state it is today.
    Alpha,
}

/// What is to be done about a directory.
pub(super) enum Considered {
    /// It is no database any more.
    Gone,
    Unchanged(Listing),
    Copied(Box<Copy>),
    /// A word for programs and the reason for people.
    Refused((&'static str, String)),
}

/// A copy that is to be stored.
pub(super) struct Copy {
    pub record: DatabaseRecord,
    pub copy: PrivateCopy,
}

/// Returns the directory of which a file is the mark, if its name and length may be that of one.
pub(super) fn marked_directory(path: &[u8], size_bytes: u64) -> Option<&[u8]> {
    let (dir, name) = split(path);
    let is_mark = name == source::sled::CONF || name == source::sled::ALPHA_COOKIE;
    (is_mark && size_bytes <= source::sled::SMALL_BYTES_MAX as u64).then_some(dir)
}

/// Returns whether a file that begins so is the mark of a database.
pub(super) fn is_mark(path: &[u8], size_bytes: u64, first: &[u8]) -> bool {
    marked_directory(path, size_bytes).is_some()
        && size_bytes <= first.len() as u64
        && match split(path).1 {
            source::sled::CONF => Conf::parse(first).is_some(),
            _ => source::sled::is_alpha_cookie(first),
        }
}

/// Returns the names of the two marks of a directory.
pub(super) fn marks(dir: &[u8]) -> [Vec<u8>; 2] {
    [source::sled::CONF, source::sled::ALPHA_COOKIE].map(|name| [&prefix(dir), name].concat())
}

/// Looks what a directory is.
pub(super) fn find(source: &Source, dir: &[u8]) -> Option<Found> {
    if !source.includes(dir) {
        return None;
    }
    let read = |path: &[u8]| {
        let file = source.tree.open_file(path).ok()?;
        file.read_all(source::sled::SMALL_BYTES_MAX).ok()?
    };
    let [conf, cookie] = marks(dir);
    if let Some(conf) = read(&conf).and_then(|content| Conf::parse(&content)) {
        return Some(Found::Stable(conf));
    }
    let content = read(&cookie)?;
    source::sled::is_alpha_cookie(&content).then_some(Found::Alpha)
}

/// Copies a database unless it looks as it did.
pub(super) fn consider(
    io: &Io<'_, '_>,
    source: &Source,
    dir: &[u8],
    gate: Option<&Gate>,
) -> Result<Considered> {
    let conf = match find(source, dir) {
        None => return Ok(Considered::Gone),
        Some(Found::Alpha) => {
            let why = "it is a database of sled 1.0, of which there is no release yet".to_string();
            return Ok(Considered::Refused(("unsupported", why)));
        }
        Some(Found::Stable(conf)) => conf,
    };
    let list = || list(source, dir);
    if let (Some(gate), Ok(listing)) = (gate, list())
        && is_unchanged(gate, dir, &listing)
    {
        return Ok(Considered::Unchanged(listing));
    }
    let prefix = prefix(dir);
    let original = Original {
        tree: &source.tree,
        prefix: &prefix,
        list: &list,
        check: &|| io.cx.check().is_ok(),
    };
    let began = io.cx.clock.now();
    let copied = copy(io, &original);
    io.cx.check()?;
    let (copy, verdict) = match copied {
        Ok(copied) => copied,
        Err(refusal) => return Ok(Considered::Refused(refusal.describe())),
    };
    let log_bytes = copy
        .files()
        .get(&b"db"[..])
        .map_or(0, |db| db.stat.size_bytes);
    let ns = io.cx.clock.now().since_ns(began).max(0).cast_unsigned();
    let record = DatabaseRecord {
        path: dir.to_vec(),
        engine: Engine::Sled,
        method: match copy.is_exact() {
            true => Method::PrivateCopy,
            false => Method::PlainFiles,
        },
        captured_at: began,
        duration_us: ns / 1000,
        page_bytes: conf.segment_bytes,
        pages: log_bytes.div_ceil(conf.segment_bytes.max(1)),
        version: u64::from(conf.version.1),
        verdict,
        ..DatabaseRecord::default()
    };
    Ok(Considered::Copied(Box::new(Copy { record, copy })))
}

/// Makes a copy: an exact one, or one that opens, or whatever there is in the end. One that is not
/// exact is checked by opening a copy of it.
fn copy(io: &Io<'_, '_>, original: &Original<'_>) -> Result<(PrivateCopy, Verdict), Refusal> {
    let mut tries = 0;
    loop {
        tries += 1;
        let copy = PrivateCopy::create(original, io.room, io.spool_bytes_max)?;
        if copy.is_exact() {
            return Ok((copy, Verdict::Unchecked));
        }
        let verdict = match copy.twin(io.room) {
            Ok(twin) => match source::sled::check(twin.directory()) {
                Health::Sound => Verdict::Passed,
                Health::Unknown(_) => Verdict::Unchecked,
                Health::Damaged(_) => Verdict::Failed,
            },
            Err(_) => Verdict::Unchecked,
        };
        if verdict != Verdict::Failed || tries == TRIES {
            return Ok((copy, verdict));
        }
    }
}

/// Stores the files of a copy; the inner error is the source's.
pub(super) fn store(
    io: &mut Io<'_, '_>,
    source: &Source,
    copy: &Copy,
    old: &Old<'_>,
) -> Result<Result<Files, Problem>> {
    let mut reader = StreamReader::new(io.cut_key);
    let tree = Tree::open(copy.copy.directory())?;
    let prefix = prefix(&copy.record.path);
    let mut files = Vec::new();
    for (name, copied) in copy.copy.files() {
        let path = [&prefix[..], name].concat();
        let file = match tree.open_file(name) {
            Ok(file) => file,
            Err(problem) => return Ok(Err(problem)),
        };
        // Secrets are never a prefix of other data, nor other data of them.
        let base = old(io, &path).filter(|_| !source.is_secret(&path));
        let predecessors = io.predecessors(base);
        let read = reader.read(io.cx, io.pool, io.totals, &file, predecessors)?;
        let stream = match read {
            Ok(stream) => stream,
            Err(problem) => return Ok(Err(problem)),
        };
        let size_bytes = stream.size_bytes;
        let stream = stream.finish(io.pool, io.totals)?;
        let captured = Captured {
            stat: copied.stat,
            stream,
            size_bytes,
            xattrs: Some(copied.xattrs.clone()),
            is_settled: copy.copy.is_exact(),
        };
        files.push((path, captured));
    }
    Ok(Ok(files))
}

/// Returns what is said of a copy that is not exact.
pub(super) fn not_exact(record: &DatabaseRecord) -> Problem {
    let opened = match record.verdict {
        Verdict::Passed => "the copy opens",
        Verdict::Unchecked => "whether the copy opens is not known",
        Verdict::Failed => "the copy does not open",
    };
    let message = format!(
        "its files kept changing while they were copied; {opened}, and may lack what was \
         committed, not only at the end"
    );
    Problem {
        path: record.path.clone(),
        code: "changed",
        message,
    }
}

/// Returns the rows of the gate for what is listed.
pub(super) fn rows(dir: &[u8], listing: &Listing) -> Vec<(Vec<u8>, Looks)> {
    let prefix = prefix(dir);
    let row = |(name, stat)| ([&prefix[..], name].concat(), Looks::of_file(stat));
    listing
        .iter()
        .map(|(name, stat)| row((&name[..], stat)))
        .collect()
}

/// Whether the files are still those of the copy.
pub(super) fn is_still(source: &Source, copy: &Copy) -> bool {
    let files = copy.copy.files();
    list(source, &copy.record.path).is_ok_and(|now| {
        now.len() == files.len()
            && now
                .iter()
                .zip(files)
                .all(|((name, stat), (other, copied))| {
                    name == other && stat.same_content(&copied.stat)
                })
    })
}

fn is_unchanged(gate: &Gate, dir: &[u8], listing: &Listing) -> bool {
    let is_part = |path: &[u8]| {
        let name = path.strip_prefix(&prefix(dir)[..]);
        name.and_then(Part::of).is_some()
    };
    let known = gate.paths().filter(|path| is_part(path)).count();
    known == listing.len()
        && rows(dir, listing)
            .iter()
            .all(|(path, looks)| gate.is_unchanged(path, looks))
}

/// Lists the files of a database that the source includes.
fn list(source: &Source, dir: &[u8]) -> Result<Listing, Problem> {
    let mut listing = Listing::new();
    let prefix = prefix(dir);
    let walk = source.walk_below(dir).map_err(|error| Problem {
        path: dir.to_vec(),
        code: "unreadable",
        message: error.to_string(),
    })?;
    for item in walk {
        let item = match item {
            Ok(item) => item,
            Err(problem) if problem.code == "vanished" => continue,
            Err(problem) => return Err(problem),
        };
        let name = item.path.strip_prefix(&prefix[..]).unwrap_or_default();
        let part = Part::of(name).filter(|part| *part != Part::Unfinished);
        if part.is_some() && item.stat.kind == Kind::File {
            listing.insert(name.to_vec(), item.stat);
        }
    }
    Ok(listing)
}

/// Returns what the paths in a directory begin with.
fn prefix(dir: &[u8]) -> Vec<u8> {
    match dir {
        b"" => Vec::new(),
        dir => [dir, b"/"].concat(),
    }
}

/// Returns the directory that holds a path, and its name there.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
