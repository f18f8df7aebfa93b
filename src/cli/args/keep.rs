//! Arguments of the commands that decide what stays.

use crate::ops::keep::Policy;
use crate::ops::keep::Within;
use crate::ops::prune::Limits;
use clap::Args;

/// `prune`
#[derive(Debug, Args)]
pub(in crate::cli) struct PruneArgs {
    #[command(flatten)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    pub space: SpaceArgs,
    /// Only snapshots of this machine
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
}

/// What to keep.
#[derive(Debug, Args)]
#[command(next_help_heading = "What to keep")]
pub(in crate::cli) struct PolicyArgs {
    /// The newest N
    #[arg(long, value_name = "N", visible_alias = "retention")]
    pub keep_last: Option<u32>,
    /// The newest of each of the last N hours that have one
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// The same for days
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// The same for weeks
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
    /// The same for months
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u32>,
    /// The same for years
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<u32>,
    /// All that are at most so much older than the newest: 36h, 30d, 8w, 6m, 1y
    #[arg(long, value_name = "SPAN")]
    pub keep_within: Option<Within>,
    /// All with this tag
    #[arg(long, value_name = "NAME")]
    pub keep_tag: Vec<String>,
}

impl PolicyArgs {
    /// Returns the policy; `None` if none was given.
    pub(in crate::cli) fn policy(&self) -> Option<Policy> {
        let counts = [
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        let is_given = counts.iter().any(Option::is_some)
            || self.keep_within.is_some()
            || !self.keep_tag.is_empty();
        let [last, hourly, daily, weekly, monthly, yearly] =
            counts.map(|count| count.unwrap_or_default());
        is_given.then(|| Policy {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within: self.keep_within,
            tags: self.keep_tag.clone(),
        })
    }
}

/// How much work to spend on space.
#[derive(Debug, Args)]
#[command(next_help_heading = "Space")]
pub(in crate::cli) struct SpaceArgs {
    /// Rewrite packs until at most this much of what is needed is unneeded
    #[arg(long, value_name = "P%", default_value = "10%", value_parser = parse_permille)]
    pub max_unused: u64,
    /// Rewrite no more than about this much: 500K, 2G; 0 rewrites nothing [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_repack: Option<u64>,
}

impl SpaceArgs {
    /// Returns the limits.
    pub(in crate::cli) fn limits(&self) -> Limits {
        Limits {
            unused_permille: self.max_unused,
            repack_bytes_max: self.max_repack.unwrap_or(u64::MAX),
        }
    }
}

/// `forget`
#[derive(Debug, Args)]
pub(in crate::cli) struct ForgetArgs {
    /// Snapshots: ids, latest, latest~2, a date, tag:NAME
    #[arg(value_name = "REF", required = true)]
    pub references: Vec<String>,
    /// Allow that no snapshot is left in the repository with this id
    #[arg(long, value_name = "REPOSITORY-ID")]
    pub leave_nothing: Option<String>,
}

/// `hold`
#[derive(Debug, Args)]
pub(in crate::cli) struct HoldArgs {
    /// A snapshot
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Until the end of this day, or until this time; without, until it is released
    #[arg(long, value_name = "DATE", conflicts_with = "release")]
    pub until: Option<String>,
    /// Let it go; a safety copy becomes a snapshot like others
    #[arg(long)]
    pub release: bool,
}

/// `gc`
#[derive(Debug, Args)]
pub(in crate::cli) struct GcArgs {
    #[command(flatten)]
    pub space: SpaceArgs,
}

fn parse_permille(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(percent) if (0.0..=1000.0).contains(&percent) => Ok((percent * 10.0).round() as u64),
        _ => Err("a percentage from 0 to 1000, like 10%".to_string()),
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "a size like 512K, 500M or 2G, in units of 1024".to_string();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let shift = match text[digits..].trim_end_matches("iB") {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_percentages_have_units() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("512K"), Ok(512 << 10));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_permille("10%"), Ok(100));
        assert_eq!(parse_permille("0.5"), Ok(5));
        for bad in ["", "M", "1X", "-1", "99999999T"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        for bad in ["", "-1", "x%", "NaN", "1001"] {
            assert!(parse_permille(bad).is_err(), "{bad}");
        }
    }
}
