//! Reading one node of the source, and noticing when it changes meanwhile.

use crate::ops::backup::databases;
use crate::safeguard::Safeguard;
use crate::source::files::Problem;
use crate::source::files::Stat;
use crate::source::files::Tree;
use crate::source::files::Xattrs;

/// How often a file that changes while it is read is read again.
const READS_MAX: u32 = 3;

/// What became of a small file.
pub(super) enum SmallFile {
    /// It was read; its content is at the end of the buffer.
    Read {
        stat: Stat,
        xattrs: Xattrs,
        size_bytes: u64,
        /// It kept changing: what was read may never have been there all at once.
        problem: Option<Problem>,
    },
    /// It is not small any more.
    Grown,
    /// It belongs to a database that nobody knew of.
    Database,
    /// It could not be read.
    Failed(Problem),
}

/// Reads a file of at most so many bytes and appends its content to the buffer.
pub(super) fn small_file(
    tree: &Tree,
    path: &[u8],
    limit_bytes: u64,
    buffer: &mut Vec<u8>,
) -> SmallFile {
    let start = buffer.len();
    let mut tries = 0;
    loop {
        buffer.truncate(start);
        tries += 1;
        match read_once(tree, path, limit_bytes, buffer) {
            Ok(Some((stat, xattrs, changed))) => {
                let content = &buffer[start..];
                if databases::is_database(path, content.len() as u64, content) {
                    buffer.truncate(start);
                    return SmallFile::Database;
                }
                if changed && tries < READS_MAX {
                    continue;
                }
                let size_bytes = (buffer.len() - start) as u64;
                let problem = changed.then(|| changed_problem(path));
                return SmallFile::Read {
                    stat,
                    xattrs,
                    size_bytes,
                    problem,
                };
            }
            Ok(None) => return SmallFile::Grown,
            Err(problem) => {
                buffer.truncate(start);
                return SmallFile::Failed(problem);
            }
        }
    }
}

fn read_once(
    tree: &Tree,
    path: &[u8],
    limit_bytes: u64,
    buffer: &mut Vec<u8>,
) -> Result<Option<(Stat, Xattrs, bool)>, Problem> {
    let file = tree.open_file(path)?;
    let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
    let Some(content) = file.read_all(limit)? else {
        return Ok(None);
    };
    let xattrs = file.xattrs()?;
    let is_same = file.stat().same_content(&file.stat_again()?);
    let changed = !is_same && Safeguard::ChangeNoticed.holds();
    buffer.extend_from_slice(&content);
    Ok(Some((*file.stat(), xattrs, changed)))
}

/// Returns what is said of a file that kept changing.
pub(super) fn changed_problem(path: &[u8]) -> Problem {
    Problem {
        path: path.to_vec(),
        code: "changed",
        message: "changed while it was read; the copy may mix two states".to_string(),
    }
}
