//! The manifest in an archive: ours, or one of an application. What it says of files must be true.

use crate::codec::sha256::Sha256Sum;
use crate::error::Error;
use crate::error::Result;
use crate::ops::archive::Kind;
use crate::ops::archive::findings::Findings;
use crate::ops::archive::listing::Listed;
use crate::ops::archive::listing::Listing;
use crate::ops::archive::members::damaged;
use crate::safeguard::Safeguard;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::Value;
use std::collections::HashMap;
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
    scope: Value,
    /// Whether something was missing.
    #[serde(default)]
    pub partial: bool,
    /// The directory that everything was in.
    #[serde(default)]
    pub root: Option<RootRow>,
    /// The whole id of the snapshot that it was made of.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// As in `snapshot`, or in the shape that ids of the application have.
    #[serde(default)]
    pub id: Option<Value>,
    /// The version of the application.
    #[serde(default)]
    pub version: Option<Value>,
    /// Patterns of what was exported.
    #[serde(default)]
    pub only: Vec<String>,
    /// Whether databases were vacuumed.
    #[serde(default)]
    pub compacted: bool,
    #[serde(deserialize_with = "bounded")]
    files: Vec<Row>,
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
#[serde(try_from = "FileItem")]
struct Row {
    path: Vec<u8>,
    kind: Option<String>,
    size_bytes: Option<u64>,
    mode: Option<u32>,
    target: Option<Vec<u8>>,
    sum: RowSum,
    is_left_out: bool,
}

/// The sum of a file in a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowSum {
    Absent,
    /// What is there is no sum.
    Nonsense,
    Is(Sha256Sum),
}

/// A file as it is written. Other programs have fields of the same names that mean something else,
/// so what cannot be understood counts as not said.
#[derive(Deserialize)]
#[serde(untagged)]
enum FileItem {
    Path(String),
    Fields(Box<Fields>),
}

#[derive(Deserialize)]
struct Fields {
    #[serde(alias = "name")]
    path: String,
    #[serde(default)]
    path_b64: Option<String>,
    #[serde(rename = "type", default)]
    kind: Value,
    #[serde(default)]
    size_bytes: Value,
    #[serde(default)]
    mode: Value,
    #[serde(default)]
    target: Value,
    #[serde(default)]
    target_b64: Value,
    #[serde(default, alias = "checksum", alias = "hash")]
    sha256: Option<String>,
    #[serde(default)]
    left_out: Value,
}

impl TryFrom<FileItem> for Row {
    type Error = Error;

    fn try_from(item: FileItem) -> Result<Row> {
        let fields = match item {
            FileItem::Path(path) => {
                return Ok(Row {
                    path: path.into_bytes(),
                    kind: None,
                    size_bytes: None,
                    mode: None,
                    target: None,
                    sum: RowSum::Absent,
                    is_left_out: false,
                });
            }
            FileItem::Fields(fields) => fields,
        };
        let target = fields.target.as_str();
        let target = target.map(|target| path_bytes(target, fields.target_b64.as_str()));
        let octal = |mode: &Value| u32::from_str_radix(mode.as_str()?, 8).ok();
        Ok(Row {
            path: path_bytes(&fields.path, fields.path_b64.as_deref())?,
            kind: fields.kind.as_str().map(str::to_string),
            size_bytes: fields.size_bytes.as_u64(),
            mode: octal(&fields.mode),
            target: target.transpose()?,
            sum: match fields.sha256.as_deref().map(sum) {
                None => RowSum::Absent,
                Some(None) => RowSum::Nonsense,
                Some(Some(sum)) => RowSum::Is(sum),
            },
            is_left_out: !fields.left_out.is_null(),
        })
    }
}

/// How much of an archive must be as something says that is compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Extent {
    /// Everything, in this order, and nothing else.
    Whole,
    /// What it has sums of must be there; there may be more.
    Claimed,
    /// Whatever is there must be in it; it may have more.
    Within,
}

/// What an archive is compared with.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Standard<'s> {
    pub extent: Extent,
    /// What it is called: "its manifest".
    pub name: &'s str,
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
        let said = self.version.as_ref().and_then(Value::as_str);
        said.unwrap_or_default().to_string()
    }

    /// Returns whether it says what the application wants, and not what we would.
    pub fn is_in_layout_of_application(&self) -> bool {
        let id = self.id.as_ref().and_then(Value::as_str);
        self.is_own() && id != self.snapshot.as_deref()
    }

    /// Returns whether it has a sum of anything.
    pub fn has_sums(&self) -> bool {
        let mut rows = self.files.iter();
        rows.any(|row| matches!(row.sum, RowSum::Is(_)))
    }

    /// Returns whether a file of it has this sum.
    pub(in crate::ops) fn has_sum(&self, sum: &Sha256Sum) -> bool {
        self.files.iter().any(|row| row.sum == RowSum::Is(*sum))
    }

    /// Returns what an archive with it is measured by.
    pub(in crate::ops) fn standard(&self) -> Standard<'static> {
        Standard {
            extent: match self.is_own() {
                true => Extent::Whole,
                false => Extent::Claimed,
            },
            name: "its manifest",
        }
    }
}

/// Returns whether a member with this path may be a manifest.
pub(super) fn may_be(path: &[u8]) -> bool {
    path == MANIFEST_NAME.as_bytes()
        || path.starts_with(b"MANIFEST.statekeep") && path.ends_with(b".json")
}

/// Reads a manifest; `None` if it is something else of that name. One of ours that cannot be read
/// is an error: nobody would notice that nothing was compared with it.
pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Option<ArchiveManifest>> {
    match serde_json::from_slice(bytes) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) if names_type(bytes) => Err(damaged(
            name,
            &format!("its manifest cannot be read: {error}"),
        )),
        Err(_) => Ok(None),
    }
}

fn names_type(bytes: &[u8]) -> bool {
    let kind = MANIFEST_TYPE.as_bytes();
    bytes.windows(kind.len()).any(|part| part == kind)
}

/// Reads a manifest that we have just written.
pub(in crate::ops) fn parse_own(bytes: &[u8]) -> Result<ArchiveManifest> {
    let parsed = serde_json::from_slice(bytes);
    parsed.map_err(|error| Error::corrupt(MANIFEST_NAME, error.to_string()))
}

/// Reads the list of files, up to a number.
fn bounded<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Row>, D::Error> {
    struct Files;

    impl<'de> Visitor<'de> for Files {
        type Value = Vec<Row>;

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

/// Fails unless what a manifest says is there. Ours names everything; that of an application may
/// name less, and has sums or not.
pub(super) fn verify(name: &str, manifest: &ArchiveManifest, listing: &Listing) -> Result<()> {
    let mut findings = Findings::default();
    compare(manifest, listing, manifest.standard(), &mut findings);
    let finding = findings.first.first();
    match finding.filter(|_| Safeguard::ManifestTrue.holds()) {
        None => Ok(()),
        Some(finding) => {
            let path = String::from_utf8_lossy(&finding.path);
            Err(damaged(name, &format!("\"{path}\" {}", finding.message)))
        }
    }
}

/// Compares what is there with what a manifest says of it, and adds all that differs.
pub(in crate::ops) fn compare(
    manifest: &ArchiveManifest,
    listing: &Listing,
    standard: Standard<'_>,
    findings: &mut Findings,
) {
    let Standard { extent, name } = standard;
    let before = findings.count;
    let mut rows: HashMap<&[u8], &Row> = HashMap::new();
    for row in manifest.files.iter().filter(|row| !row.is_left_out) {
        let is_twice = rows.insert(&row.path, row).is_some();
        if is_twice && extent == Extent::Whole {
            findings.add(&row.path, format!("is twice in {name}"));
        }
        let must_be_there = match extent {
            Extent::Whole => true,
            Extent::Claimed => matches!(row.sum, RowSum::Is(_)),
            Extent::Within => false,
        };
        match listing.find(&row.path) {
            Some(listed) => compare_one(row, listed, standard, findings),
            None if !must_be_there => {}
            None if listing.is_cut => {
                let message = format!("is in {name}, and cannot be read behind the damage");
                findings.add(&row.path, message);
            }
            None => findings.add(&row.path, format!("is in {name}, and not there")),
        }
    }
    if extent == Extent::Claimed {
        return;
    }
    for listed in &listing.members {
        if !rows.contains_key(&listed.member.path[..]) {
            let message = format!("is there, and not in {name}");
            findings.add(&listed.member.path, message);
        }
    }
    if extent == Extent::Whole && findings.count == before {
        let rows = manifest.files.iter().filter(|row| !row.is_left_out);
        let mut pairs = rows.zip(&listing.members);
        let other = pairs.find(|(row, listed)| row.path != listed.member.path);
        if let Some((row, _)) = other {
            findings.add(
                &row.path,
                format!("is not where {name} has it in the order"),
            );
        }
    }
}

fn compare_one(row: &Row, listed: &Listed, standard: Standard<'_>, findings: &mut Findings) {
    let Standard { extent, name } = standard;
    let member = &listed.member;
    let mut differs = |message: String| findings.add(&row.path, message);
    let (kind, size_bytes, target) = match &member.kind {
        Kind::Directory => ("directory", None, None),
        Kind::File(size_bytes) => ("file", Some(*size_bytes), None),
        Kind::Symlink(target) => ("symlink", None, Some(target)),
        Kind::HardLink(first) => ("hard-link", None, Some(first)),
        Kind::Fifo => ("fifo", None, None),
        Kind::CharDevice(..) | Kind::BlockDevice(..) => ("device", None, None),
    };
    if listed.is_damaged {
        // That was said when it was read.
        return;
    }
    let is_link = |kind: &str| kind == "hard-link";
    let said_kind = row.kind.as_deref();
    // Which of the names of a file is its first is another matter in the order of another program.
    if extent == Extent::Within && (is_link(kind) || said_kind.is_some_and(is_link)) {
        return;
    }
    match row.sum {
        RowSum::Is(said) if listed.sha256 != Some(said) => match size_bytes.zip(row.size_bytes) {
            Some((is, said)) if is != said => {
                differs(format!("has {is} bytes, and {said} in {name}"));
            }
            _ => differs(format!("has another content than {name} says")),
        },
        RowSum::Nonsense if extent != Extent::Claimed => {
            differs(format!("has a sum in {name} that is none"));
        }
        RowSum::Absent if extent != Extent::Claimed && kind == "file" => {
            differs(format!("has no sum in {name}"));
        }
        _ => {}
    }
    if extent == Extent::Claimed {
        return;
    }
    if said_kind != Some(kind) {
        let said = said_kind.unwrap_or("nothing");
        differs(format!("is a {kind}, and {said} in {name}"));
    } else if row.target.as_ref() != target {
        differs(format!("leads elsewhere than {name} says"));
    } else if row.size_bytes != size_bytes && listed.sha256.map(RowSum::Is) == Some(row.sum) {
        differs(format!("has another length than {name} says"));
    }
    if row.mode != Some(member.mode) {
        let said = row
            .mode
            .map_or("none".to_string(), |mode| format!("{mode:04o}"));
        differs(format!(
            "has mode {:04o}, and {said} in {name}",
            member.mode
        ));
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
