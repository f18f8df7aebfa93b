//! What is around the program itself: the configuration, the cache, what starts backups.

use crate::cli::choice::failure_of;
use crate::cli::choice::read;
use crate::cli::command::config::check;
use crate::cli::command::doctor::Finding;
use crate::cli::failure::Outcome;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::Profile;
use crate::ops::doctor::room;
use crate::ops::doctor::timers;
use std::path::PathBuf;

/// Caches are small; with less, they are left out and every command takes longer.
const CACHE_BYTES_MIN: u64 = 64 << 20;
/// Where units are enabled and tables of cron are, on machines as they are usual.
const TIMER_PLACES: [&str; 6] = [
    "/etc/systemd/system/timers.target.wants",
    "/etc/systemd/system/multi-user.target.wants",
    "/etc/cron.d",
    "/etc/crontab",
    "/var/spool/cron/crontabs",
    "/var/spool/cron",
];
const USER_TIMERS: &str = "systemd/user/timers.target.wants";

impl Session {
    /// Returns the profiles to be tested: those named, otherwise all.
    pub(super) fn tested_profiles(&self) -> Outcome<Vec<&Profile>> {
        match self.global.all || self.profile_names().is_empty() {
            true => Ok(self.config()?.profiles.values().collect()),
            false => self.profiles(),
        }
    }
}

/// Tests the configuration as `config check` does, without its repositories.
pub(super) fn config(session: &Session, findings: &mut Vec<Finding>) -> Outcome<()> {
    let Some(place) = session.config_place()? else {
        let message = "there is none; -r and paths say what is meant";
        findings.push(Finding::ok("config", "configuration", message));
        return Ok(());
    };
    let at = place.file.display().to_string();
    let why = "no profile in it is backed up until it can be read";
    let config = match read(&place) {
        Ok(Ok(config)) => config,
        Ok(Err(faults)) => {
            let failure = failure_of(&faults);
            let finding = Finding::failed("config", at, failure).because(why);
            findings.push(finding.hint(session.command_hint("config check")));
            return Ok(());
        }
        Err(failure) => {
            findings.push(Finding::failed("config", at, failure).because(why));
            return Ok(());
        }
    };
    let problems = check::problems_beside_repos(session, &place.file, &config)?;
    if problems.is_empty() {
        let profiles = text::count(config.profiles.len() as u64, "profile", "profiles");
        findings.push(Finding::ok("config", at, format!("{profiles}, no faults")));
    }
    for problem in problems {
        let finding = match problem.level {
            "error" => Finding::problem("config", problem.at, problem.message, 2)
                .because("a backup or restore of it would fail"),
            _ => Finding::warning("config", problem.at, problem.message),
        };
        findings.push(Finding {
            hint: problem.hint,
            ..finding
        });
    }
    Ok(())
}

/// Tests the directory of disposable files.
pub(super) fn cache(session: &Session, findings: &mut Vec<Finding>) {
    const CHECK: &str = "cache";
    const WHY: &str = "without it every command reads more, and drills lack a place";
    let Some(dir) = &session.environment.cache_dir else {
        let message = "there is no place for it: HOME is not set";
        let finding = Finding::warning(CHECK, CHECK, message).because(WHY);
        return findings.push(finding.hint("export STATEKEEP_CACHE_DIR=/var/cache/statekeep"));
    };
    let (at, quoted) = (dir.display().to_string(), text::quote(dir.as_os_str()));
    if !room::is_writable(dir) {
        let finding = Finding::warning(CHECK, at, "this user may not write there").because(WHY);
        let hint = format!("ls -ld {quoted}; or say where else: STATEKEEP_CACHE_DIR=DIR");
        return findings.push(finding.hint(hint));
    }
    match room::free_bytes(dir) {
        Ok(free) if free < CACHE_BYTES_MIN => {
            let message = format!("only {} are free there", text::size(free));
            let finding = Finding::warning(CHECK, at, message).because(WHY);
            findings.push(finding.hint(format!("df -h {quoted}")));
        }
        Ok(free) => {
            let message = format!("writable, {} free", text::size(free));
            findings.push(Finding::ok(CHECK, at, message));
        }
        Err(error) => findings.push(Finding::warning(CHECK, at, error.to_string()).because(WHY)),
    }
}

/// Tests whether something starts the backups that have a schedule.
pub(super) fn timer(session: &Session, findings: &mut Vec<Finding>) -> Outcome<()> {
    let profiles = session.tested_profiles()?;
    let scheduled = profiles.iter().filter(|one| one.schedule.is_some());
    let names: Vec<&str> = scheduled.map(|one| one.name.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let own = session.environment.config_dir.as_ref();
    let own = own.and_then(|dir| Some(dir.parent()?.join(USER_TIMERS)));
    let places = own
        .into_iter()
        .chain(TIMER_PLACES.map(PathBuf::from))
        .collect::<Vec<_>>();
    findings.push(match timers::find(&places) {
        Some(path) => {
            let message = format!("{} starts statekeep", path.display());
            Finding::ok("timer", names.join(", "), message)
        }
        None => {
            let message = "it has a schedule, and no timer of systemd or cron was found";
            Finding::warning("timer", names.join(", "), message)
                .because("a schedule says when a backup is due; something has to start it then")
                .hint(format!(
                    "systemctl enable --now {}",
                    text::quote(format!("statekeep-backup@{}.timer", names[0]).as_ref())
                ))
        }
    });
    Ok(())
}
