//! The shapes that the applications' own backups have, and the names of files.
//!
//! `seeds`: HomeCore makes a zip of its two databases, config and rules; Hoziron a tar.gz with a
//! manifest; Chaos Cypher copies one SQLite database. Times in names are UTC.

use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::tree::Kind;
use crate::id::SnapshotId;
use crate::ops::archive::Format;
use crate::ops::inspect;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;

/// The shape of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Everything as it is in the snapshot, and a manifest.
    #[default]
    Snapshot,
    /// What the application itself writes and reads.
    App,
}

/// An application whose shape is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum App {
    HomeCore,
    Hoziron,
    ChaosCypher,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// An archive of this format.
    Archive(Format),
    /// One file of the snapshot, as it is.
    Bare,
}

impl App {
    /// Tells whose snapshot it is: by the profile, else by files that only one of them has.
    pub fn of(chunks: &Chunks<'_>, manifest: &Manifest) -> Result<App> {
        match manifest.profile.to_ascii_lowercase().as_str() {
            "homecore" => return Ok(App::HomeCore),
            "hoziron" => return Ok(App::Hoziron),
            "chaos-cypher" | "chaoscypher" => return Ok(App::ChaosCypher),
            _ => {}
        }
        for (path, app) in [
            ("data/hoziron.db", App::Hoziron),
            ("data/state.redb", App::HomeCore),
            ("databases", App::ChaosCypher),
            ("app.db", App::ChaosCypher),
        ] {
            let mut scratch = Scratch::default();
            let path = path.as_bytes();
            if inspect::find_in(chunks, &mut scratch, &manifest.tree, path)?.is_some() {
                return Ok(app);
            }
        }
        let reason = "the snapshot is not one of HomeCore, Hoziron or Chaos Cypher, so its \
                      application has no layout of its own that is known";
        Err(Error::Refused {
            reason: reason.to_string(),
        })
    }

    /// Returns what the application writes.
    pub fn shape(self) -> Shape {
        match self {
            App::HomeCore => Shape::Archive(Format::Zip),
            App::Hoziron => Shape::Archive(Format::TarGz),
            App::ChaosCypher => Shape::Bare,
        }
    }

    /// Returns whether its archives have a manifest.
    pub fn has_manifest(self) -> bool {
        self == App::Hoziron
    }

    /// Returns whether a file is one of the databases that it copies.
    pub(super) fn copies(self, path: &[u8], kind: &Kind) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next();
        self == App::ChaosCypher && matches!(kind, Kind::File { .. }) && name == Some(b"app.db")
    }
}

/// Returns the name of an archive of a snapshot.
pub(super) fn file_name(
    manifest: &Manifest,
    id: &SnapshotId,
    app: Option<App>,
    shape: Shape,
) -> String {
    let at = |pattern: &str| stamp(manifest.started_at, pattern);
    let usual = at("%Y%m%d_%H%M%S");
    let extension = match shape {
        Shape::Archive(format) => format.extension(),
        Shape::Bare => "db",
    };
    match app {
        Some(App::HomeCore) => format!("homecore-backup-{}.{extension}", at("%Y%m%d-%H%M%S")),
        Some(App::Hoziron) => format!("hoziron-backup-{usual}.{extension}"),
        Some(App::ChaosCypher) => format!("app_{usual}.{extension}"),
        None => {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            let profile = manifest.profile.chars().filter(|c| is_plain(*c));
            let profile: String = profile.collect();
            let profile = if profile.is_empty() {
                "snapshot"
            } else {
                &profile
            };
            format!("{profile}-{usual}-{}.{extension}", id.short())
        }
    }
}

fn stamp(time: Timestamp, pattern: &str) -> String {
    let instant = jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap_or_default();
    instant.strftime(pattern).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_documents() {
        let manifest = Manifest {
            // 2026-06-05 02:00:00
            started_at: Timestamp(1_780_624_800_000_000_000),
            profile: "my app/x".into(),
            ..Manifest::default()
        };
        let name =
            |app: Option<App>, shape| file_name(&manifest, &SnapshotId([0x7c; 32]), app, shape);
        let of = |app: App| name(Some(app), app.shape());

        assert_eq!(of(App::Hoziron), "hoziron-backup-20260605_020000.tar.gz");
        assert_eq!(of(App::HomeCore), "homecore-backup-20260605-020000.zip");
        assert_eq!(of(App::ChaosCypher), "app_20260605_020000.db");
        assert_eq!(
            name(None, Shape::Archive(Format::TarZst)),
            "myappx-20260605_020000-7c7c7c7c.tar.zst"
        );
    }
}
