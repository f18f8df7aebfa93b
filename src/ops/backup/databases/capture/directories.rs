//! The databases of a capture that are directories of files: those of sled.

use super::Capture;
use super::warn_of_damage;
use crate::error::Result;
use crate::format::database::Engine;
use crate::format::database::Method;
use crate::format::database::Verdict;
use crate::ops::backup::databases::Captured;
use crate::ops::backup::databases::Io;
use crate::ops::backup::databases::Look;
use crate::ops::backup::databases::gate::Looks;
use crate::ops::backup::databases::read_sled;
use crate::ops::backup::databases::read_sled::Considered;
use crate::source;
use std::collections::BTreeSet;

impl Capture<'_> {
    /// Copies the directories of sled, which takes a while and holds nobody up, before anything
    /// is pinned.
    pub(super) fn copy_sled(
        &mut self,
        io: &mut Io<'_, '_>,
        directories: BTreeSet<Vec<u8>>,
    ) -> Result<Vec<read_sled::Copy>> {
        let mut copies = Vec::new();
        for dir in directories {
            let known = self.known.get(&dir);
            let known = known
                .filter(|known| known.method == Method::PrivateCopy)
                .cloned();
            // Once the scan found that something moved, nothing is taken for unchanged.
            let is_first_look = self.before.look == Look::AtKnown;
            let gate = Some(&self.gate).filter(|_| known.is_some() && is_first_look);
            match (
                read_sled::consider(io, self.before.source, &dir, gate)?,
                known,
            ) {
                (Considered::Unchanged(listing), Some(record)) => {
                    for (path, looks) in read_sled::rows(&dir, &listing) {
                        self.databases.gate.insert(path, looks);
                    }
                    self.databases.records.insert(dir.clone(), record);
                    self.databases.directories.add_idle(dir);
                }
                (Considered::Copied(copy), _) => copies.push(*copy),
                (Considered::Refused(why), _) => self.copy_plainly(io, dir, Engine::Sled, why),
                (Considered::Gone | Considered::Unchanged(_), _) => {}
            }
        }
        Ok(copies)
    }

    pub(super) fn store_sled(
        &mut self,
        io: &mut Io<'_, '_>,
        mut copy: read_sled::Copy,
    ) -> Result<()> {
        let (source, dir) = (self.before.source, copy.record.path.clone());
        let is_still = read_sled::is_still(source, &copy);
        if !is_still && let Some(pinned_at) = self.pinned_at {
            let ns = pinned_at.since_ns(copy.record.captured_at).max(1000);
            copy.record.skew_us = ns.cast_unsigned() / 1000;
        }
        let old = |io: &Io<'_, '_>, path: &[u8]| self.old(io, path);
        let files = match read_sled::store(io, source, &copy, &old)? {
            Ok(files) => files,
            Err(problem) => {
                let why = (problem.code, problem.message);
                self.copy_plainly(io, dir, Engine::Sled, why);
                return Ok(());
            }
        };
        let is_same = |(path, file): &(Vec<u8>, Captured)| {
            self.old(io, path) == Some((file.stream, file.size_bytes))
        };
        let known = self.known.get(&dir);
        let known = known.filter(|known| known.method == Method::PrivateCopy);
        if !copy.copy.is_exact() {
            io.totals.warnings.push(read_sled::not_exact(&copy.record));
        } else if let Some(known) = known.filter(|_| files.iter().all(is_same)) {
            copy.record = known.clone();
        } else {
            // The bytes are stored; now the copy may be changed.
            copy.record.verdict = match source::sled::check(copy.copy.directory()) {
                source::sled::Health::Sound => Verdict::Passed,
                source::sled::Health::Unknown(_) => Verdict::Unchecked,
                source::sled::Health::Damaged(reason) => {
                    warn_of_damage(io, &dir, &reason);
                    Verdict::Failed
                }
            };
        }
        for (path, file) in files.iter().filter(|(_, file)| file.is_settled) {
            let looks = Looks::of_file(&file.stat);
            self.databases.gate.insert(path.clone(), looks);
        }
        self.databases.records.insert(dir.clone(), copy.record);
        self.databases.directories.add_captured(dir, files);
        Ok(())
    }
}
