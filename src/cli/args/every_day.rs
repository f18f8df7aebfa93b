//! Arguments of the commands of every day.

use crate::cli::args::DecryptArgs;
use crate::cli::args::TrustArgs;
use crate::ops::backup::MEMORY_BYTES_MIN;
use clap::Args;
use clap::ValueEnum;
use std::ffi::OsString;
use std::path::PathBuf;

/// `backup`
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct BackupArgs {
    /// Files and directories; without any, profiles of the configuration
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Only this part of the profile
    #[arg(long, value_name = "NAME")]
    pub scope: Option<String>,
    /// Leave out what matches this pattern
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Keep what matches this pattern apart from other data
    #[arg(long, value_name = "GLOB")]
    pub secret: Vec<String>,
    /// Give the snapshot this name
    #[arg(long, value_name = "NAME")]
    pub tag: Vec<String>,
    /// Say it was this machine
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Stay on the file system of each path
    #[arg(short = 'x', long)]
    pub one_file_system: bool,
    /// Leave out directories marked by a CACHEDIR.TAG
    #[arg(long)]
    pub exclude_caches: bool,
    /// Keep what SQLite databases have deleted but not overwritten
    #[arg(long)]
    pub exact: bool,
    /// Cut SQLite databases into even groups of pages, or by content if they are vacuumed often
    /// [default: groups]
    #[arg(long, value_name = "HOW")]
    pub database_cuts: Option<CutsArg>,
    /// Let everything else on this machine go first
    #[arg(long)]
    pub nice: bool,
    /// Take about this much memory at most, at least 40M [default: as much as all cores need]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub memory: Option<u64>,
}

/// Where databases are cut.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum CutsArg {
    /// 256 KiB each
    Groups,
    /// 64 KiB each
    SmallGroups,
    /// 1 MiB each
    LargeGroups,
    /// Where the content says so, between pages
    Content,
}

/// Reads bytes, or `K`, `M` or `G` of them; enough for a backup.
fn parse_memory(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit_bytes = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => Some(1),
        "K" | "KIB" => Some(1 << 10),
        "M" | "MIB" => Some(1 << 20),
        "G" | "GIB" => Some(1 << 30),
        _ => None,
    };
    let number: Option<u64> = digits.parse().ok();
    let bytes = number.and_then(|number| number.checked_mul(unit_bytes?));
    match bytes {
        Some(bytes) if bytes >= MEMORY_BYTES_MIN => Ok(bytes),
        Some(_) => Err("no backup works with less than 40M".to_string()),
        None => Err("a size like 64M, or 1G".to_string()),
    }
}

/// `list`
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// Only the newest N; 0 for all [default: 20, with --json all]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Only those with this tag
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
    /// Only those of this machine
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
}

/// `show`
#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// An id, latest, latest~2, a date, "2 days ago", tag:NAME
    #[arg(value_name = "REF")]
    pub reference: String,
}

/// `restore`
#[derive(Debug, Args)]
pub(in crate::cli) struct RestoreArgs {
    /// A snapshot, or a path in it; or a file that is an archive
    #[arg(value_name = "REF[:PATH]|ARCHIVE")]
    pub reference: OsString,
    /// Into this directory, which takes the place of the snapshot's root
    #[arg(long, value_name = "DIR", conflicts_with = "in_place")]
    pub to: Option<PathBuf>,
    /// Back where it came from: stops if the application runs, keeps a snapshot to undo it
    #[arg(long)]
    pub in_place: bool,
    /// Only what matches this pattern
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,
    /// Only this part of the profile
    #[arg(long, value_name = "SCOPE")]
    pub scope: Option<String>,
    /// Only this database, by its path or name
    #[arg(long, value_name = "NAME")]
    pub db: Vec<String>,
    /// Replace what differs; what the snapshot lacks stays
    #[arg(long, conflicts_with = "in_place")]
    pub overwrite: bool,
    #[command(flatten)]
    pub trust: TrustArgs,
    #[command(flatten)]
    pub decrypt: DecryptArgs,
    /// In place: remove what the snapshot lacks
    #[arg(long, requires = "in_place")]
    pub delete: bool,
}

/// `undo`
#[derive(Debug, Args)]
pub(in crate::cli) struct UndoArgs {
    /// Where the restore was [default: wherever the last one was]
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
}
