//! `status` for Prometheus: the text format of its exposition, version 0.0.4.
//!
//! A file of it is replaced as a whole, so that a collector never reads a part. Times are told
//! beside judgements: whoever alerts by `statekeep_backup_late_time_seconds` is warned even if
//! nothing has written the file since. `docs/operate.md` lists the names; they are only added to.

use crate::cli::command::status::Place;
use crate::cli::failure::Outcome;
use crate::cli::memory;
use crate::cli::memory::LastRun;
use crate::cli::memory::RUNS;
use crate::cli::session::Session;
use crate::context::Timestamp;
use crate::disk::output::Existing;
use crate::disk::output::OutputFile;
use crate::disk::output::Readers;
use crate::error::Error;
use crate::ops::status::Gravity;
use crate::ops::status::RepoStatus;
use crate::ops::status::SeriesStatus;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Of the file: what collects it is another user.
const MODE: u32 = 0o644;

/// Samples of one name, which stand together.
struct Family {
    name: &'static str,
    about: &'static str,
    samples: Vec<(String, f64)>,
}

/// Families in the order in which they were begun.
#[derive(Default)]
struct Families(Vec<Family>);

impl Families {
    fn add(&mut self, name: &'static str, about: &'static str, labels: &str, value: f64) {
        let at = self.0.iter().position(|family| family.name == name);
        let at = at.unwrap_or_else(|| {
            let samples = Vec::new();
            self.0.push(Family {
                name,
                about,
                samples,
            });
            self.0.len() - 1
        });
        // Of names that are not UTF-8, two may look the same; a name must not come twice.
        let samples = &mut self.0[at].samples;
        if samples.iter().all(|(other, _)| other != labels) {
            samples.push((labels.to_string(), value));
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for Family {
            name,
            about,
            samples,
        } in &self.0
        {
            // Invariant: writing to a string does not fail.
            let _ = writeln!(out, "# HELP {name} {about}\n# TYPE {name} gauge");
            for (labels, value) in samples {
                let _ = writeln!(out, "{name}{{{labels}}} {value}");
            }
        }
        out
    }
}

/// Writes the file.
pub(super) fn write(session: &Session, places: &[Place<'_>], path: &Path) -> Outcome<()> {
    let text = text(session, places);
    let mut file = OutputFile::create(path, Readers::All, Existing::Replace)?;
    file.write_all(text.as_bytes())
        .map_err(Error::io("write", path))?;
    file.set_mode(std::fs::Permissions::from_mode(MODE))?;
    Ok(file.finish()?)
}

/// Returns all of it.
pub(super) fn text(session: &Session, places: &[Place<'_>]) -> String {
    let now = session.cx.clock.now();
    let mut families = Families::default();
    let version = labels(&[("version", env!("CARGO_PKG_VERSION"))]);
    families.add(
        "statekeep_build_info",
        "The program that wrote this",
        &version,
        1.0,
    );
    let help = "When this was written";
    families.add("statekeep_written_time_seconds", help, "", seconds(now));
    for place in places {
        let name = place.name();
        let own = labels(&[("repository", &name)]);
        let is_readable = flag(place.status.is_ok());
        let help = "Whether the repository could be read";
        families.add("statekeep_repository_up", help, &own, is_readable);
        if let Ok(status) = &place.status {
            of_repo(&mut families, &own, status);
            for one in &status.series {
                of_series(&mut families, &name, one);
            }
        }
        for profile in &place.expected {
            let run: Option<LastRun> = memory::recall(session, RUNS, &profile.name);
            if let Some(run) = run {
                let of_run = labels(&[("repository", &name), ("profile", &profile.name)]);
                let exit = f64::from(run.exit);
                let help = "Exit code of the last backup on this machine, saved or not";
                families.add("statekeep_last_run_exit_code", help, &of_run, exit);
                let help = "When the last backup on this machine ended, saved or not";
                let at = seconds(run.at());
                families.add("statekeep_last_run_time_seconds", help, &of_run, at);
            }
        }
    }
    families.text()
}

fn of_repo(families: &mut Families, own: &str, status: &RepoStatus) {
    let mut add = |name, about, value| families.add(name, about, own, value);
    add(
        "statekeep_repository_snapshots",
        "Snapshots in it",
        status.snapshots as f64,
    );
    add(
        "statekeep_repository_packs",
        "Packs in it",
        status.packs as f64,
    );
    add(
        "statekeep_repository_bytes",
        "Bytes of all packs",
        status.pack_bytes as f64,
    );
    let help = "Packs and chunks marked as lost";
    add("statekeep_repository_lost", help, status.lost as f64);
    if let Some(check) = status.check {
        let help = "When this machine last checked it";
        add("statekeep_check_time_seconds", help, seconds(check.at));
        let help = "What that check found wrong";
        add("statekeep_check_problems", help, check.problems as f64);
        let help = "How much of the data that check read, from 0 to 1";
        add(
            "statekeep_check_read_ratio",
            help,
            f64::from(check.read_percent) / 100.0,
        );
    }
}

fn of_series(families: &mut Families, repo: &str, one: &SeriesStatus) {
    let root = String::from_utf8_lossy(&one.name.root_path);
    let mut own = vec![("repository", repo), ("profile", &*one.name.profile)];
    own.push(("host", &one.name.host));
    // Of what is backed up by hand.
    own.extend((!root.is_empty()).then_some(("root", &*root)));
    let problems = one.problems.iter().filter(|_| one.is_judged);
    for problem in problems.clone() {
        let of_problem = [&own[..], &[("problem", problem.code())]].concat();
        let help = "1 for each problem that status tells";
        families.add("statekeep_problem", help, &labels(&of_problem), 1.0);
    }
    let own = labels(&own);
    let mut add = |name, about, value| families.add(name, about, &own, value);
    if one.is_judged {
        let is_overdue = problems
            .clone()
            .any(|problem| problem.gravity() == Gravity::Overdue);
        let help = "Whether a backup or a drill is overdue, or there is no good backup";
        add("statekeep_overdue", help, flag(is_overdue));
        let help = "Whether status has nothing to say against it";
        add("statekeep_safe", help, flag(one.problems.is_empty()));
    }
    add(
        "statekeep_snapshots",
        "Snapshots of it",
        one.snapshots as f64,
    );
    of_times(families, &own, one);
}

/// Adds what was done, and when what is due.
fn of_times(families: &mut Families, own: &str, one: &SeriesStatus) {
    let mut add = |name, about, value| families.add(name, about, own, value);
    if let Some(made) = one.last {
        let help = "When the last good backup was made";
        add("statekeep_backup_time_seconds", help, seconds(made.at));
    }
    if let Some((figures, duration_ms)) = &one.last_figures {
        let help = "How long the last good backup took";
        add(
            "statekeep_backup_duration_seconds",
            help,
            *duration_ms as f64 / 1000.0,
        );
        let help = "Bytes of all files in it";
        add(
            "statekeep_backup_files_bytes",
            help,
            figures.total_bytes as f64,
        );
        let help = "Bytes it had to read";
        add(
            "statekeep_backup_read_bytes",
            help,
            figures.read_bytes as f64,
        );
        let help = "Bytes in it that were new to the repository";
        add("statekeep_backup_new_bytes", help, figures.new_bytes as f64);
        let help = "Bytes it wrote";
        add(
            "statekeep_backup_stored_bytes",
            help,
            figures.stored_bytes as f64,
        );
    }
    if let Some(due) = one.due {
        let help = "When the next backup is due";
        add("statekeep_backup_due_time_seconds", help, seconds(due.at));
        let help = "From when on it is overdue";
        add(
            "statekeep_backup_late_time_seconds",
            help,
            seconds(due.late_at),
        );
    }
    if let Some((_, proof)) = &one.proof {
        let help = "When a restore of it was last rehearsed";
        add("statekeep_drill_time_seconds", help, seconds(proof.at));
        let help = "Whether that rehearsal passed";
        add("statekeep_drill_passed", help, flag(proof.passed()));
    }
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn seconds(at: Timestamp) -> f64 {
    // Milliseconds are exact in a float for the next hundred thousand years.
    (at.0 / 1_000_000) as f64 / 1000.0
}

/// Names are ours; values are anybody's.
fn labels(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_name_stand_together_and_values_are_escaped() {
        let mut families = Families::default();
        let odd = labels(&[("root", "a\\\"b\nc"), ("host", "é")]);
        families.add("a", "An a", &odd, 1.0);
        families.add("b", "A b", "", 1.5e18);
        families.add("a", "An a", "x=\"y\"", 0.0);

        assert_eq!(
            families.text(),
            "# HELP a An a\n# TYPE a gauge\n\
             a{root=\"a\\\\\\\"b\\nc\",host=\"é\"} 1\na{x=\"y\"} 0\n\
             # HELP b A b\n# TYPE b gauge\nb{} 1500000000000000000\n"
        );
    }
}
