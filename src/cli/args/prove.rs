//! Arguments of the commands that prove what is stored.

use crate::cli::args::DecryptArgs;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// `check`
#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    /// Check this snapshot only; or a file that is an archive, also against its snapshot
    #[arg(value_name = "REF|ARCHIVE", conflicts_with = "repair")]
    pub reference: Option<OsString>,
    /// Read and verify stored data too: all of it, or the part that was not read for longest
    #[arg(
        long,
        value_name = "P%",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "100%",
        value_parser = parse_percent
    )]
    pub read_data: Option<f64>,
    /// Mark what is lost, so that the next backup stores it again, and make the log readable
    #[arg(long)]
    pub repair: bool,
    /// Archives: accept that it unpacks to more than 200 times its length
    #[arg(long)]
    pub any_ratio: bool,
    #[command(flatten)]
    pub decrypt: DecryptArgs,
}

/// `drill`
#[derive(Debug, Args)]
pub(in crate::cli) struct DrillArgs {
    /// An id, latest, latest~2, a date, "2 days ago", tag:NAME
    #[arg(value_name = "REF", default_value = "latest")]
    pub reference: String,
    /// Restore into a private directory in here [default: in the cache, else TMPDIR]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("a percentage above 0 and up to 100, like 10%".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_above_zero_and_at_most_all() {
        assert_eq!(parse_percent("10%"), Ok(10.0));
        assert_eq!(parse_percent("0.5"), Ok(0.5));
        for bad in ["0", "101%", "-1", "x", "", "NaN", "inf"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }
}
