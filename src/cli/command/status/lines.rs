//! `status` for people: the verdict, a row for each application, what is wrong and what to do.

use crate::cli::command::status::Place;
use crate::cli::command::status::Told;
use crate::cli::session::Session;
use crate::cli::text;
use crate::cli::text::Align;
use crate::context::Timestamp;
use crate::format::note::HoldUntil;
use crate::ops::status;
use crate::ops::status::Gravity;
use crate::ops::status::Problem;
use crate::ops::status::RepoStatus;
use crate::ops::status::SeriesStatus;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Rows of what is in a repository and not judged, unless more is asked for.
const OTHERS: usize = 10;

/// Returns the screen.
pub(super) fn lines(session: &Session, told: &Told<'_>) -> Vec<String> {
    let mut lines = vec![told.headline.clone()];
    for place in &told.places {
        lines.push(String::new());
        match &place.status {
            Ok(status) => of_repo(session, told.now, place, status, &mut lines),
            Err(failure) => {
                let name = text::safe(&place.name());
                let why = text::safe(&failure.message);
                lines.push(format!("NOT KNOWN  repository {name}: {why}"));
                let hint = failure.next_step().into_iter();
                lines.extend(hint.map(|hint| format!("  hint: {}", text::safe(hint))));
            }
        }
    }
    lines
}

fn of_repo(
    session: &Session,
    now: Timestamp,
    place: &Place<'_>,
    status: &RepoStatus,
    lines: &mut Vec<String>,
) {
    let judged = status.series.iter().filter(|one| one.is_judged).count();
    let others = match session.global.verbose {
        true => usize::MAX,
        false => OTHERS,
    };
    let shown = &status.series[..status.series.len().min(judged.saturating_add(others))];
    if !shown.is_empty() {
        let own = shown.first().map(|one| &one.name.host);
        let has_hosts = shown.iter().any(|one| Some(&one.name.host) != own);
        lines.extend(rows(shown, now, has_hosts));
    }
    if let Some(more @ 1..) = status.series.len().checked_sub(shown.len()) {
        lines.push(format!("… {more} more that are not configured here (-v)"));
    }
    for one in status.series.iter().filter(|one| one.is_judged) {
        details(session, now, one, lines);
    }
    let check = match &session.global.repo {
        Some(_) => session.command_hint("check"),
        None => format!("statekeep -r {} check", text::quote(place.name().as_ref())),
    };
    if status.has_damage() {
        lines.push(status.damage_words());
        lines.push(format!("  hint: {check} --repair -n"));
    }
    lines.push(format!(
        "Repository {}: {} in {}. {}",
        text::safe(&place.name()),
        text::count(status.snapshots, "snapshot", "snapshots"),
        text::size(status.pack_bytes),
        check_words(now, status, &check),
    ));
}

fn check_words(now: Timestamp, status: &RepoStatus, command: &str) -> String {
    let Some(check) = status.check else {
        return format!("Never checked from this machine: {command}");
    };
    let ago = text::ago(now.since_ns(check.at) / 1_000_000_000);
    let read = match check.read_percent {
        0 => "no data read".to_string(),
        100 => "all data read".to_string(),
        percent => format!("{percent} % of the data read"),
    };
    format!("Last check from this machine {ago}, {read}.")
}

fn rows(series: &[SeriesStatus], now: Timestamp, has_hosts: bool) -> Vec<String> {
    let mut head = vec!["PROFILE"];
    head.extend(has_hosts.then_some("HOST"));
    head.extend([
        "STATE",
        "LAST BACKUP",
        "NEXT DUE",
        "PROVEN",
        "SIZE",
        "STORED",
        "A DAY",
    ]);
    let mut rows = vec![head.into_iter().map(String::from).collect::<Vec<_>>()];
    let ago = |at: Timestamp| {
        let seconds = now.since_ns(at).max(0) / 1_000_000_000;
        format!("{} ago", text::age(seconds))
    };
    for one in series {
        let mut row = vec![status::label(&one.name)];
        row.extend(has_hosts.then(|| text::safe(&one.name.host)));
        row.extend([
            one.state_word().to_string(),
            one.last.map_or("never".to_string(), |made| ago(made.at)),
            one.due.map_or("–".to_string(), |due| due.short(now)),
            match &one.proof {
                None => "never".to_string(),
                Some((_, proof)) if proof.passed() => ago(proof.at),
                Some((_, proof)) => format!("FAILED {}", ago(proof.at)),
            },
            text::size(one.size_bytes),
            text::size(one.stored_bytes),
            one.growth.day_bytes.map_or("–".to_string(), text::size),
        ]);
        rows.push(row);
    }
    use Align::Left;
    use Align::Right;
    let mut align = vec![Left];
    align.extend(has_hosts.then_some(Left));
    align.extend([Left, Left, Left, Left, Right, Right, Right]);
    text::table(&align, &rows)
}

fn details(session: &Session, now: Timestamp, one: &SeriesStatus, lines: &mut Vec<String>) {
    let name = status::label(&one.name);
    for problem in &one.problems {
        let head = match problem.gravity() {
            Gravity::Damage => "DAMAGE ",
            Gravity::Overdue => "OVERDUE",
            Gravity::Warning => "WARNING",
        };
        let words = problem.words(one, now, &session.zone);
        lines.push(format!("{head}  {name}: {words}"));
        let hint = hint(session, one, problem);
        lines.extend(hint.map(|hint| format!("  hint: {hint}")));
    }
    let is_told = one.problems.contains(&Problem::Clock);
    if one.future > 0 && !is_told {
        let count = text::count(one.future, "snapshot is", "snapshots are");
        lines.push(format!(
            "NOTE     {name}: {count} dated in the future and not counted"
        ));
    }
    if let Some(guard) = &one.guard {
        let ago = text::ago(now.since_ns(guard.made.at) / 1_000_000_000);
        let until = match guard.until {
            HoldUntil::Released => String::new(),
            HoldUntil::Time(time) => {
                format!(" until {}", text::local_with_zone(time, &session.zone))
            }
        };
        let command = session.command_hint(&format!("guard rollback{}", flag(one)));
        lines.push(format!(
            "NOTE     {name}: the way back of a migration {ago} is held{until}: {command}"
        ));
    }
}

/// Returns the option that means the application, if it has a name.
pub(in crate::cli::command) fn flag(one: &SeriesStatus) -> String {
    match one.name.profile.is_empty() {
        true => String::new(),
        false => format!(" -p {}", text::quote(one.name.profile.as_ref())),
    }
}

/// Returns what to type about a problem, if that says more than another look.
pub(in crate::cli::command) fn hint(
    session: &Session,
    one: &SeriesStatus,
    problem: &Problem,
) -> Option<String> {
    let flag = flag(one);
    let command = match problem {
        Problem::Damaged(..) => "check".to_string(),
        Problem::DrillFailed(_) | Problem::DrillOverdue(_) => format!("drill{flag}"),
        Problem::Never | Problem::Overdue(_) | Problem::Partial if flag.is_empty() => {
            let root = OsStr::from_bytes(&one.name.root_path);
            format!("backup {}", text::quote(root))
        }
        Problem::Never | Problem::Overdue(_) | Problem::Partial => format!("backup{flag}"),
        Problem::Unfinished | Problem::Clock => return None,
    };
    Some(session.command_hint(&command))
}
