//! Restores straight from an archive: a plan by reading only, and what it says done.
//!
//! No repository takes part. The rules are those of a restore from a snapshot: nothing is written
//! outside the target, nothing is replaced unless that was asked for, and no log of an older
//! database stays beside a restored one.

use crate::context::Context;
use crate::context::Event;
use crate::disk::jail::Jail;
use crate::disk::jail::Replace;
use crate::disk::node;
use crate::error::Error;
use crate::error::Result;
use crate::format::tree;
use crate::format::tree::Class;
use crate::format::tree::Content;
use crate::ops::Tally;
use crate::ops::archive::Kind;
use crate::ops::archive::Member;
use crate::ops::archive::listing::Listing;
use crate::ops::archive::members::Archive;
use crate::ops::archive::unpack;
use crate::ops::archive::unpack::SIDECARS;
use crate::ops::archive::unpack::Unpacked;
use crate::ops::restore::select::Only;
use crate::safeguard::Safeguard;
use std::path::Path;
use std::path::PathBuf;

/// What restoring an archive would do.
#[derive(Debug, Clone, Default)]
pub struct PlacePlan {
    target: PathBuf,
    only: Vec<String>,
    /// What is not there yet.
    pub create: Tally,
    /// What is there, and would be replaced.
    pub replace: Tally,
    /// Directories that are there already.
    pub equal: Tally,
    /// Logs of SQLite databases that would be replaced with them.
    pub remove: Tally,
    /// Bytes to write.
    pub write_bytes: u64,
    /// Bytes that there is room for.
    pub free_bytes: u64,
}

/// Says what restoring an archive into a directory would do. Writes nothing.
pub fn plan(listing: &Listing, target: &Path, only: &[String]) -> Result<PlacePlan> {
    let wanted = Only::parse(only)?;
    let mut plan = PlacePlan {
        target: target.to_path_buf(),
        only: only.to_vec(),
        free_bytes: free_bytes(target)?,
        ..PlacePlan::default()
    };
    let jail = match std::fs::symlink_metadata(target) {
        Ok(_) if target.is_dir() => Some(Jail::open(target)?),
        Ok(_) => {
            let reason = format!("{} is not a directory", target.display());
            return Err(Error::Refused { reason });
        }
        Err(_) => None,
    };
    for listed in &listing.members {
        let member = &listed.member;
        if !wants(&wanted, member) {
            continue;
        }
        let bytes = match member.kind {
            Kind::File(size_bytes) => size_bytes,
            _ => 0,
        };
        let there = match &jail {
            Some(jail) => jail.stat(&member.path)?,
            None => None,
        };
        let tally = match (there, &member.kind) {
            (None, _) => &mut plan.create,
            (Some(there), Kind::Directory) if there.kind == node::Kind::Directory => {
                &mut plan.equal
            }
            (Some(_), _) => &mut plan.replace,
        };
        tally.add(&member.path, bytes);
        plan.write_bytes = plan.write_bytes.saturating_add(bytes);
        if let (Some(jail), true) = (&jail, listed.is_sqlite) {
            for suffix in SIDECARS {
                let path = [&member.path[..], suffix.as_bytes()].concat();
                if listing.find(&path).is_none()
                    && let Some(stat) = jail.stat(&path)?
                {
                    plan.remove.add(&path, stat.size_bytes);
                }
            }
        }
    }
    match plan.create.count + plan.replace.count + plan.equal.count {
        0 if !only.is_empty() => Err(Error::NotFound {
            what: format!("anything that matches {}", only.join(", ")),
        }),
        _ => Ok(plan),
    }
}

/// Does what a plan says. Refuses, before anything is written, what would have to replace something
/// that may not be replaced.
pub fn apply(
    cx: &Context,
    archive: &Archive,
    listing: &Listing,
    plan: &PlacePlan,
    replace: Replace,
) -> Result<Unpacked> {
    let in_the_way = plan.replace.count + plan.remove.count;
    if in_the_way > 0 && replace == Replace::Never {
        let target = plan.target.display();
        let reason = format!("{in_the_way} paths are in {target} already, and nothing is replaced");
        return Err(Error::Refused { reason });
    }
    let wanted = Only::parse(&plan.only)?;
    let jail = Jail::open(&plan.target)?;
    cx.progress.event(Event::Phase("restore"));
    let (files, bytes) = (plan.create.count + plan.replace.count, plan.write_bytes);
    cx.progress.event(Event::Total { files, bytes });
    let wants = |member: &Member| wants(&wanted, member);
    let done = unpack::unpack(cx, archive, listing, &jail, replace, &wants)?;
    // Order: success is reported after everything above is durable (I6).
    if Safeguard::UnpackedSync.holds() {
        jail.sync()?;
    }
    Ok(done)
}

fn wants(only: &Only, member: &Member) -> bool {
    let kind = match member.kind {
        Kind::Directory => tree::Kind::Directory,
        _ => tree::Kind::File {
            size_bytes: 0,
            content: Content::Bundled(Class::Ordinary),
        },
    };
    only.wants(&member.path, &kind)
}

/// Returns how many bytes there is room for, where a path is or will be.
pub(in crate::ops) fn free_bytes(path: &Path) -> Result<u64> {
    let mut place = path;
    while !place.exists() {
        match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => place = parent,
            _ => break,
        }
    }
    let stat = rustix::fs::statvfs(place);
    let stat = stat.map_err(|errno| Error::io("read the free space of", place)(errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
