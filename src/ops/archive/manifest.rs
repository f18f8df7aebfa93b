//! The manifest in an archive: ours, or one of an application. What it says of files must be true.

use crate::codec::sha256::Sha256Sum;
use crate::error::Error;
use crate::error::Result;
use crate::ops::archive::Kind;
use crate::ops::archive::listing::Listing;
use crate::ops::archive::members::damaged;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::SeqAccess;
use serde::de::Visitor;
use std::collections::HashSet;
use std::fmt;

/// The name of the manifest in an archive.
pub const MANIFEST_NAME: &str = "MANIFEST.json";
/// What the field `type` says in ours.
pub const MANIFEST_TYPE: &str = "statekeep-export";
/// A longer one is a file like others. A million files take about as much.
pub(super) const BYTES_MAX: u64 = 256 << 20;
/// More files make it something else: short rows would take far more room than their text.
const FILES_MAX: usize = 2_000_000;

/// What a manifest says. Everything but ours may say nothing.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ArchiveManifest {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    /// When the backup was made, RFC 3339.
    #[serde(default, alias = "created_at")]
    pub timestamp: Option<String>,
    /// The profile.
    #[serde(default)]
    pub application: Option<String>,
    /// The machine.
    #[serde(default)]
    pub host: Option<String>,
    /// What of the application it is. Anything that is no text says nothing.
    #[serde(default)]
    scope: serde_json::Value,
    /// The version of the application.
    #[serde(default)]
    version: serde_json::Value,
    /// Whether something was missing.
    #[serde(default)]
    pub partial: bool,
    /// The directory that everything was in.
    #[serde(default)]
    pub root: Option<RootRow>,
    #[serde(deserialize_with = "bounded")]
    files: Vec<FileItem>,
}

/// The directory that everything was in. It is no member of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRow {
    /// Where it was.
    pub path: String,
    /// The same in full, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// In octal.
    #[serde(default)]
    pub mode: Option<String>,
    #[serde(default)]
    pub uid: Option<u32>,
    #[serde(default)]
    pub gid: Option<u32>,
    /// RFC 3339.
    #[serde(default)]
    pub mtime: Option<String>,
}

/// A file in a manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum FileItem {
    Path(String),
    Row(Box<FileRow>),
}

#[derive(Debug, Clone, Deserialize)]
struct FileRow {
    #[serde(alias = "name")]
    path: String,
    #[serde(default)]
    path_b64: Option<String>,
    #[serde(default, alias = "checksum", alias = "hash")]
    sha256: Option<String>,
    #[serde(default)]
    left_out: Option<String>,
}

impl ArchiveManifest {
    /// Returns whether it is one that an export of ours writes.
    pub fn is_own(&self) -> bool {
        self.kind.as_deref() == Some(MANIFEST_TYPE)
    }

    /// Returns the scope as a profile names it; empty for everything.
    pub fn scope(&self) -> String {
        let said = self.scope.as_str().unwrap_or_default();
        match &*said.to_ascii_lowercase() {
            "full" => String::new(),
            // As Hoziron says it.
            "agents-only" | "agents_only" | "agentsonly" => "agents".to_string(),
            _ => said.to_string(),
        }
    }

    /// Returns the version of the application; empty if it does not say.
    pub fn version(&self) -> String {
        self.version.as_str().unwrap_or_default().to_string()
    }
}

/// Returns whether a member with this path may be a manifest.
pub(super) fn may_be(path: &[u8]) -> bool {
    path == MANIFEST_NAME.as_bytes()
        || path.starts_with(b"MANIFEST.statekeep") && path.ends_with(b".json")
}

/// Reads a manifest; `None` if it is something else of that name.
pub(super) fn parse(bytes: &[u8]) -> Option<ArchiveManifest> {
    serde_json::from_slice(bytes).ok()
}

/// Reads the list of files, up to a number.
fn bounded<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<FileItem>, D::Error> {
    struct Files;

    impl<'de> Visitor<'de> for Files {
        type Value = Vec<FileItem>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {FILES_MAX} files")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
            let mut files = Vec::new();
            while let Some(item) = from.next_element()? {
                if files.len() == FILES_MAX {
                    return Err(serde::de::Error::invalid_length(FILES_MAX + 1, &self));
                }
                files.push(item);
            }
            Ok(files)
        }
    }

    from.deserialize_seq(Files)
}

/// Compares what a manifest says with what is there. Ours names everything; that of an application
/// may name less, and has sums or not.
pub(super) fn verify(name: &str, manifest: &ArchiveManifest, listing: &Listing) -> Result<()> {
    let wrong = |path: &[u8], what: &str| -> Error {
        let path = String::from_utf8_lossy(path);
        damaged(name, &format!("\"{path}\" {what}"))
    };
    let mut named: HashSet<Vec<u8>> = HashSet::new();
    for item in &manifest.files {
        let (path, sha256, is_left_out) = match item {
            FileItem::Path(path) => (path.clone().into_bytes(), None, false),
            FileItem::Row(row) => (
                path_bytes(&row.path, row.path_b64.as_deref())?,
                row.sha256.as_deref(),
                row.left_out.is_some(),
            ),
        };
        if is_left_out {
            continue;
        }
        let found = listing.find(&path);
        match (found, sha256.map(sum)) {
            (None, _) if manifest.is_own() => {
                return Err(wrong(&path, "is in its manifest, and not there"));
            }
            (None, Some(Some(_))) => {
                return Err(wrong(&path, "has a sum in its manifest, and is not there"));
            }
            (Some(found), Some(Some(said))) if found.sha256 != Some(said) => {
                return Err(wrong(&path, "is not what its manifest says"));
            }
            (Some(_), Some(None)) if manifest.is_own() => {
                return Err(wrong(&path, "has a sum in its manifest that is none"));
            }
            (Some(found), None)
                if manifest.is_own() && matches!(found.member.kind, Kind::File(_)) =>
            {
                return Err(wrong(&path, "has no sum in its manifest"));
            }
            _ => {}
        }
        named.insert(path);
    }
    let mut members = listing.members.iter();
    match members.find(|listed| !named.contains(&listed.member.path)) {
        Some(listed) if manifest.is_own() => Err(wrong(
            &listed.member.path,
            "is there, and not in its manifest",
        )),
        _ => Ok(()),
    }
}

/// Returns the bytes that a path and its base64 stand for.
pub fn path_bytes(path: &str, path_b64: Option<&str>) -> Result<Vec<u8>> {
    match path_b64 {
        None => Ok(path.as_bytes().to_vec()),
        Some(encoded) => STANDARD
            .decode(encoded)
            .map_err(|_| Error::corrupt(MANIFEST_NAME, format!("the base64 of {path:?} is none"))),
    }
}

fn sum(text: &str) -> Option<Sha256Sum> {
    Sha256Sum::parse(text.strip_prefix("sha256:").unwrap_or(text))
}
