//! `status --notify`: what is late, lost or out of reach, told to the webhooks of the profiles it
//! concerns: when it is found, when something else is found, and every day while it lasts.

use crate::cli::command::DAMAGE;
use crate::cli::command::OVERDUE;
use crate::cli::command::status::Place;
use crate::cli::command::status::UNREACHABLE;
use crate::cli::memory;
use crate::cli::memory::TOLD;
use crate::cli::memory::Told;
use crate::cli::notify;
use crate::cli::notify::News;
use crate::cli::session::Session;
use crate::config::Profile;
use crate::ops::notify::Event;
use crate::ops::status::Gravity;
use crate::ops::status::Problem;
use crate::ops::status::RepoStatus;

/// What keeps one profile from being safe.
struct Finding {
    event: Event,
    exit: u8,
    message: String,
    problems: Vec<&'static str>,
}

/// Tells.
pub(super) fn notify(session: &Session, places: &[Place<'_>]) {
    for place in places {
        for profile in &place.expected {
            let found = match &place.status {
                Ok(status) => finding(session, status, profile),
                Err(failure) => Some(Finding {
                    event: Event::Failure,
                    exit: UNREACHABLE,
                    message: format!("repository {}: {}", place.name(), failure.message),
                    problems: vec!["repository-unreadable"],
                }),
            };
            match found {
                Some(finding) => tell(session, profile, finding),
                None => memory::forget(session, TOLD, &profile.name),
            }
        }
    }
}

/// Returns what is wrong with a profile, warnings aside: they were told by the backup.
fn finding(session: &Session, status: &RepoStatus, profile: &Profile) -> Option<Finding> {
    let mut series = status.series.iter();
    let one = series.find(|one| one.is_judged && one.name.profile == profile.name);
    let now = session.cx.clock.now();
    let problems = one.into_iter().flat_map(|one| &one.problems);
    let grave: Vec<&Problem> = problems
        .filter(|problem| problem.gravity() > Gravity::Warning)
        .collect();
    let words = grave
        .iter()
        .filter_map(|problem| Some(problem.words(one?, now, &session.zone)));
    let mut message: Vec<String> = words.collect();
    let mut problems: Vec<&'static str> = grave.iter().map(|problem| problem.code()).collect();
    if status.has_damage() {
        message.push(status.damage_words());
        problems.push("repository-damaged");
    }
    let mut gravities = grave.iter().map(|problem| problem.gravity());
    let is_damaged = status.has_damage() || gravities.any(|gravity| gravity == Gravity::Damage);
    (!problems.is_empty()).then(|| Finding {
        event: if is_damaged {
            Event::Failure
        } else {
            Event::Overdue
        },
        exit: if is_damaged { DAMAGE } else { OVERDUE },
        message: message.join("; "),
        problems,
    })
}

fn tell(session: &Session, profile: &Profile, finding: Finding) {
    let now = session.cx.clock.now();
    let told: Option<Told> = memory::recall(session, TOLD, &profile.name);
    if told.is_some_and(|told| told.covers(now, &finding.problems)) {
        return;
    }
    let remembered = Told::new(now, &finding.problems);
    let news = News {
        event: finding.event,
        op: "status",
        profile: profile.name.clone(),
        scope: String::new(),
        exit: finding.exit,
        message: finding.message,
        error: None,
        snapshot: None,
        figures: None,
        seconds: None,
        problems: finding.problems,
    };
    // What did not arrive is told again.
    if notify::told(session, profile, &news) {
        memory::remember(session, TOLD, &profile.name, &remembered);
    }
}
