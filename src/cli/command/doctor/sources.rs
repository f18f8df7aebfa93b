//! What a profile backs up, and the programs it runs.

use crate::cli::command::doctor::Finding;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::Profile;
use crate::ops::doctor::programs;
use crate::ops::doctor::sources;
use std::path::PathBuf;

/// Of what cannot be read, so many are named.
const EXAMPLES: usize = 3;

/// Tests a profile.
pub(super) fn look(
    session: &Session,
    profile: &Profile,
    findings: &mut Vec<Finding>,
) -> Outcome<()> {
    let at = format!("profile.{}", profile.name);
    missing_programs(session, profile, &at, findings);
    if !profile.root.is_dir() {
        // Told with the configuration.
        return Ok(());
    }
    let found = match sources::look(&session.cx, &profile.root) {
        Ok(found) => found,
        Err(error) => {
            let failure = Failure::from(error);
            if failure.code == "interrupted" {
                return Err(failure);
            }
            let finding = Finding::failed("source", at, failure);
            findings.push(finding.because("nothing of it can be backed up"));
            return Ok(());
        }
    };
    if !found.unreadable.is_empty() {
        let message = format!("this user cannot read {}", examples(&found.unreadable));
        let first = profile.root.join(&found.unreadable[0]);
        findings.push(
            Finding::problem("source", &at, message, 1)
                .because("backups by this user would be partial")
                .hint(format!("ls -ld {}", text::quote(first.as_os_str()))),
        );
    }
    if !found.opaque.is_empty() {
        let names = examples(&found.opaque);
        let message = format!("no known database, perhaps encrypted: {names}");
        let finding = Finding::warning("database", &at, message);
        findings.push(
            finding.because(
                "it is copied as a plain file, at one instant only if nobody writes to it",
            ),
        );
    }
    if found.unreadable.is_empty() {
        let message = format!(
            "{} with {}, {}: all readable",
            text::count(found.files, "file", "files"),
            text::size(found.total_bytes),
            text::count(found.databases, "database", "databases")
        );
        findings.push(Finding::ok("source", at, message));
    }
    Ok(())
}

fn examples(paths: &[String]) -> String {
    let named = paths.iter().take(EXAMPLES).map(|path| text::safe(path));
    let named = named.collect::<Vec<_>>().join(", ");
    match paths.len().saturating_sub(EXAMPLES) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn missing_programs(session: &Session, profile: &Profile, at: &str, findings: &mut Vec<Finding>) {
    let restore = &profile.restore;
    let single = [
        &restore.stop,
        &restore.start,
        &restore.running,
        &restore.app_version,
    ];
    let hooks = profile.before.iter().chain(&profile.after);
    let commands = single
        .into_iter()
        .flatten()
        .chain(&restore.after)
        .chain(hooks.map(|hook| &hook.command));
    let search: Vec<PathBuf> = session.environment.search.clone();
    let mut missing: Vec<&str> = commands
        .filter_map(|argv| argv.first())
        .map(String::as_str)
        // A path that leads nowhere was told with the configuration.
        .filter(|program| !program.contains('/') || profile.root.join(program).is_file())
        .filter(|program| !programs::is_there(program, &profile.root, &search))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    for program in missing {
        let message = format!("{program} is no program that this user can run");
        let hint = match program.contains('/') {
            true => format!("ls -l {}", text::quote(program.as_ref())),
            false => format!("command -v {}", text::quote(program.as_ref())),
        };
        findings.push(
            Finding::problem("program", at, message, 2)
                .because("the profile runs it around a backup or a restore")
                .hint(hint),
        );
    }
}
