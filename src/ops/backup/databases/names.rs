//! A database with several names (hard links), captured under one of them.
//!
//! SQLite looks for logs beside the name that it opens. Two connections of one process share what
//! they know of the log of a file: opened under two names, each would be read with the log of the
//! other, and without the locks that keep a checkpoint away.

use crate::ops::backup::databases::find::Sniffed;
use crate::ops::backup::databases::gate::Looks;
use crate::ops::backup::databases::group::Member;
use crate::source::files::Stat;
use crate::source::files::Tree;

/// A database that has to be captured.
pub(super) struct Due {
    pub path: Vec<u8>,
    pub looks: Looks,
    pub stat: Stat,
    pub sniffed: Sniffed,
}

/// Returns in which order names of one file are tried: first the one that is in use.
pub(super) fn rank(tree: &Tree, due: &Due) -> (bool, bool) {
    if due.stat.links < 2 {
        return (true, true);
    }
    let index = tree.stat(&[&due.path[..], b"-shm"].concat());
    let is_in_use = matches!(index, Ok(Some(_)));
    (!due.looks.has_logs(), !is_in_use)
}

/// Returns another name of the file, under which it is captured, and whether both have the same
/// logs.
pub(super) fn other(
    members: &[Member],
    idle: &[(Vec<u8>, Looks)],
    due: &Due,
) -> Option<(Vec<u8>, bool)> {
    if due.stat.links < 2 || due.sniffed != Sniffed::Sqlite {
        return None;
    }
    let is_same = |(_, looks): &(&Vec<u8>, &Looks)| looks.is_same_file(&due.looks);
    let open = members.iter().map(|member| (&member.path, &member.looks));
    // What is idle is not opened, so it stands in the way of none that has logs.
    let idle = idle.iter().filter(|_| !due.looks.has_logs());
    let idle = idle.map(|(path, looks)| (path, looks));
    let (path, looks) = open.chain(idle).find(is_same)?;
    Some((path.clone(), looks.has_logs_of(&due.looks)))
}
