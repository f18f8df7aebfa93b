//! The one integration binary.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod archive_cli;
mod archive_tools;
mod awkward;
mod backup;
mod bench_repo;
mod check;
mod cli;
mod contract;
mod crash;
mod cuts;
mod decoders;
mod demo;
mod embedded;
mod export;
mod files;
mod footprint;
mod format_doc;
mod gate;
mod golden;
mod heap;
mod hostile;
mod import;
mod in_place;
mod jail;
mod kill;
mod live;
mod log_disk;
mod oracle;
mod oracle_control;
mod patterns;
mod profiles;
mod prune;
mod quiesced;
mod readme;
mod redb_versions;
mod repair;
mod restore;
mod scatter;
mod sidecars;
mod sled;
mod stats;
mod support;
mod tidy;
mod writers;
