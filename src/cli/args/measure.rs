//! Arguments of the commands that measure.

use crate::config;
use clap::Args;
use clap::ValueEnum;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// `stats`
#[derive(Debug, Args)]
pub(in crate::cli) struct StatsArgs {
    /// Only this snapshot
    #[arg(value_name = "REF")]
    pub reference: Option<OsString>,
    /// What to list beside the totals
    #[arg(long, value_name = "WHAT", default_value = "profile")]
    pub by: StatsBy,
    /// Show so many rows (0: all)
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
}

/// `report`
#[derive(Debug, Args)]
pub(in crate::cli) struct ReportArgs {
    /// Where to write it; `-` is standard output [default: statekeep-report-TIME.html here]
    #[arg(short, long, value_name = "FILE|-")]
    pub output: Option<PathBuf>,
    /// Replace a file of this name
    #[arg(long)]
    pub overwrite: bool,
}

/// `tune`
#[derive(Debug, Args)]
pub(in crate::cli) struct TuneArgs {
    /// Snapshots, or files and directories; without any, the newest snapshots
    #[arg(value_name = "REF|PATH")]
    pub what: Vec<OsString>,
    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = config::parse_duration)]
    pub budget: Duration,
    /// Write what is recommended into the configuration
    #[arg(long)]
    pub apply: bool,
    /// Restore and store in a private directory in here [default: in the cache, else TMPDIR]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum StatsBy {
    /// Profiles, or roots without one
    Profile,
    /// Snapshots
    Snapshot,
    /// Databases over all their versions
    Database,
    /// Tables of the databases in the newest snapshots
    Table,
    /// Files over all their versions
    File,
    /// Days
    Day,
}

/// `status`
#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// Tell the webhooks of profiles what is overdue or damaged, once and again every day, and
    /// write the metrics-file of the configuration
    #[arg(long)]
    pub notify: bool,
    /// Write the figures for Prometheus into this file as well; - for standard output, alone
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
}
