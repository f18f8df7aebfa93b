//! `status`: one screen that says whether everything is safe.

mod json;
pub(super) mod lines;
mod metrics;
mod tell;

use crate::cli::args::StatusArgs;
use crate::cli::choice::Target;
use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::command::OVERDUE;
use crate::cli::command::WARNINGS;
use crate::cli::environment;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json as documents;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::Origin;
use crate::config::Profile;
use crate::config::Schedule;
use crate::context::Timestamp;
use crate::ops::snapshots::Snapshot;
use crate::ops::status;
use crate::ops::status::Expected;
use crate::ops::status::NextAfter;
use crate::ops::status::RepoStatus;
use crate::ops::status::StatusOptions;
use crate::ops::status::Unreadable;
use crate::ops::status::Verdict;
use crate::repo::Repo;
use crate::repo::log::State;
use jiff::tz::TimeZone;
use std::path::Path;

/// A repository could not be looked at, for whatever reason.
const UNREACHABLE: u8 = 17;

/// A repository, what must be in it, and what is known of it.
pub(super) struct Place<'s> {
    /// Which repository.
    pub target: Target<'s>,
    /// The profiles that must be in it.
    pub expected: Vec<&'s Profile>,
    status: Outcome<RepoStatus>,
}

impl Place<'_> {
    /// Returns what the repository is called.
    fn name(&self) -> String {
        name_of(&self.target)
    }
}

/// Returns what a repository is called.
pub(super) fn name_of(target: &Target<'_>) -> String {
    match target.settings {
        Some(settings) => settings.name.clone(),
        None => target.path.display().to_string(),
    }
}

/// All that is told.
struct Told<'s> {
    places: Vec<Place<'s>>,
    verdict: Verdict,
    headline: String,
    now: Timestamp,
    exit: u8,
}

/// Whose status is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Meant {
    /// That of all profiles, in all repositories.
    Everything,
    /// That of what is named, if anything is.
    Named,
}

/// Tells.
pub(super) fn run(session: &Session, args: &StatusArgs) -> Outcome<u8> {
    let is_alone = args.metrics.as_deref() == Some(Path::new("-"));
    if is_alone && session.output.is_json() {
        let failure = Failure::usage("both --json and --metrics - say what is written");
        return Err(failure.hint("--metrics FILE writes the figures into a file"));
    }
    let mut places = looked_at(session, Meant::Named)?;
    session.cx.check()?;
    if args.notify && !session.global.dry_run {
        tell::notify(session, &places);
        measure(session);
    }
    match &args.metrics {
        Some(_) if is_alone => {
            let text = metrics::text(session, &places);
            session.output.raw(text.as_bytes())?;
        }
        Some(path) => metrics::write(session, &places, path)?,
        None => {}
    }
    if let [only] = &mut places[..]
        && let Err(failure) = &mut only.status
    {
        return Err(std::mem::replace(failure, Failure::usage("")));
    }
    refuse_unknown_names(session, &places)?;
    let told = judge(places, session.cx.clock.now());
    match session.output.is_json() {
        _ if is_alone => {}
        false if session.output.is_quiet && told.exit == DONE => {}
        true => session
            .output
            .json(&documents::document("status", json::body(&told)))?,
        false => {
            for line in lines::lines(session, &told) {
                session.output.line(line)?;
            }
        }
    }
    Ok(told.exit)
}

fn judge(places: Vec<Place<'_>>, now: Timestamp) -> Told<'_> {
    let unreadable: Vec<Unreadable> = places
        .iter()
        .filter_map(|place| {
            let failure = place.status.as_ref().err()?;
            Some(Unreadable {
                name: place.name(),
                message: failure.message.clone(),
            })
        })
        .collect();
    let readable = places.iter().filter_map(|place| place.status.as_ref().ok());
    let readable: Vec<RepoStatus> = readable.cloned().collect();
    let verdict = Verdict::of(&readable, &unreadable);
    let headline = status::headline(&readable, &unreadable, now);
    let exit = match verdict {
        Verdict::Safe => DONE,
        Verdict::Warnings => WARNINGS,
        Verdict::Overdue => OVERDUE,
        Verdict::Unknown => UNREACHABLE,
        Verdict::Damaged => DAMAGE,
    };
    Told {
        places,
        verdict,
        headline,
        now,
        exit,
    }
}

/// Has the file for Prometheus that the configuration names say what there is now: of all
/// profiles, in all repositories. Failing to is a warning.
pub(super) fn measure(session: &Session) {
    let config = session.config().ok();
    let file = config.and_then(|config| config.metrics_file.as_ref());
    // Interrupted, it would say that no repository can be read.
    let is_meant = !session.global.dry_run && session.cx.check().is_ok();
    if let Some(path) = file.filter(|_| is_meant)
        && let Err(failure) = write_metrics(session, path)
    {
        let message = format!("metrics-file: {}", failure.message);
        session.reporter.warn("no-metrics", b"", &message);
    }
}

fn write_metrics(session: &Session, path: &Path) -> Outcome<()> {
    let places = looked_at(session, Meant::Everything)?;
    metrics::write(session, &places, path)
}

fn looked_at(session: &Session, meant: Meant) -> Outcome<Vec<Place<'_>>> {
    let mut places = places(session, meant)?;
    for place in &mut places {
        place.status = look(session, place, meant);
    }
    session.reporter.finish();
    Ok(places)
}

/// Returns the repositories that are meant, each with the profiles that must be in it.
pub(super) fn places(session: &Session, meant: Meant) -> Outcome<Vec<Place<'_>>> {
    let config = session.config()?;
    let mut places: Vec<Place<'_>> = Vec::new();
    for profile in config
        .profiles
        .values()
        .filter(|one| meant == Meant::Everything || is_named(session, one))
    {
        let target = session.target(Some(profile))?;
        let at = places
            .iter()
            .position(|place| place.target.path == target.path);
        let at = at.unwrap_or_else(|| {
            places.push(place(target.clone()));
            places.len() - 1
        });
        if meant == Meant::Everything || is_expected_in(session, profile, &target) {
            places[at].expected.push(profile);
        }
    }
    let is_all =
        meant == Meant::Everything || session.global.all || session.profile_names().is_empty();
    let is_given = session.global.repo.is_some() || session.environment.repo.is_some();
    if !is_given && is_all {
        for name in config.repos.keys() {
            let target = session.given_target(name.as_ref(), Origin::Default)?;
            if !places.iter().any(|place| place.target.path == target.path) {
                places.push(place(target));
            }
        }
    }
    if places.is_empty() {
        places.push(place(session.target(None)?));
    }
    Ok(places)
}

/// Returns whether a profile is meant: one that is named, or any if none is.
fn is_named(session: &Session, profile: &Profile) -> bool {
    let names = session.profile_names();
    session.global.all || names.is_empty() || names.contains(&&*profile.name)
}

/// Returns whether backups of a profile must be in a repository. In one that somebody gives, what
/// is configured to be elsewhere need not be, unless it is named as well.
pub(super) fn is_expected_in(session: &Session, profile: &Profile, target: &Target<'_>) -> bool {
    let Ok(own) = session.target(Some(profile)) else {
        return false;
    };
    let is_given = matches!(target.origin, Origin::Flag(_) | Origin::Environment(_));
    let configured = session.config().ok().zip(profile.repo.as_ref());
    let configured = configured.and_then(|(config, name)| config.repos.get(name));
    let is_elsewhere = configured.is_some_and(|configured| configured.path != target.path);
    let is_by_name = session.profile_names().contains(&&*profile.name);
    is_named(session, profile)
        && own.path == target.path
        && (!is_given || !is_elsewhere || is_by_name)
}

fn place(target: Target<'_>) -> Place<'_> {
    Place {
        target,
        expected: Vec::new(),
        status: Err(Failure::usage("it was not looked at")),
    }
}

/// Looks at a repository. A failure of one says nothing about the others.
fn look(session: &Session, place: &Place<'_>, meant: Meant) -> Outcome<RepoStatus> {
    let (repo, _) = session.open_target(&place.target)?;
    let (state, snapshots) = session.snapshots(&repo)?;
    Ok(match meant {
        Meant::Named => of_repo(session, &repo, &state, &snapshots, &place.expected),
        Meant::Everything => judged(session, &repo, &state, &snapshots, &place.expected),
    })
}

/// Returns what is known of a repository in which these profiles must be.
pub(super) fn of_repo(
    session: &Session,
    repo: &Repo,
    state: &State,
    snapshots: &[Snapshot],
    expected: &[&Profile],
) -> RepoStatus {
    let mut judged = judged(session, repo, state, snapshots, expected);
    // Judged among all: what one of them takes in the repository depends on the others.
    let names = session.profile_names();
    let is_all = session.global.all || names.is_empty();
    judged
        .series
        .retain(|one| is_all || names.contains(&&*one.name.profile));
    judged
}

fn judged(
    session: &Session,
    repo: &Repo,
    state: &State,
    snapshots: &[Snapshot],
    expected: &[&Profile],
) -> RepoStatus {
    let zone = &session.zone;
    let expected = expected.iter().map(|profile| Expected {
        profile: profile.name.clone(),
        root: profile.root.clone(),
        schedule: profile.schedule.as_ref().map(|one| next_after(one, zone)),
        drill_schedule: (profile.drill.schedule.as_ref()).map(|one| next_after(one, zone)),
    });
    let options = StatusOptions {
        host: environment::host_name(),
        expected: expected.collect(),
    };
    let now = session.cx.clock.now();
    status::status(repo, state, snapshots, &options, now)
}

fn next_after<'a>(schedule: &'a Schedule, zone: &'a TimeZone) -> Box<NextAfter<'a>> {
    Box::new(move |after| {
        let after = text::instant(after).to_zoned(zone.clone());
        let next = schedule.next_due(&after)?.timestamp().as_nanosecond();
        i64::try_from(next).ok().map(Timestamp)
    })
}

/// A name that is nowhere is a typo, and a typo must not look like safety.
fn refuse_unknown_names(session: &Session, places: &[Place<'_>]) -> Outcome<()> {
    let known = |name: &str| {
        places.iter().any(|place| {
            let mut expected = place.expected.iter();
            let is_in = |status: &RepoStatus| status.series.iter().any(|s| s.name.profile == name);
            expected.any(|profile| profile.name == name)
                || place.status.as_ref().map_or(true, is_in)
        })
    };
    match session
        .profile_names()
        .into_iter()
        .find(|name| !known(name))
    {
        None => Ok(()),
        Some(name) => {
            let message = format!("no profile and no snapshot is named {name:?}");
            Err(Failure::new("not-found", 13, message).hint(session.command_hint("status")))
        }
    }
}
