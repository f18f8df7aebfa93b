//! `hold`: protects a snapshot, or lets it go.

use crate::cli::args::HoldArgs;
use crate::cli::command::DONE;
use crate::cli::command::prune::no_space_hint;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::context::Timestamp;
use crate::format::note::HoldUntil;
use crate::format::note::Note;
use crate::ops::keep;
use crate::ops::notes;
use jiff::civil::Date;
use serde::Serialize;
use std::collections::BTreeSet;

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    snapshot: String,
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    exit: u8,
}

/// Holds, or releases.
pub(super) fn run(session: &Session, args: &HoldArgs) -> Outcome<u8> {
    let until = match &args.until {
        Some(text) => HoldUntil::Time(until(session, text)?),
        None => HoldUntil::Released,
    };
    session.start("hold")?;
    let repo = session.open_repo()?;
    let (_, snapshots) = session.snapshots(&repo)?;
    let snapshot = session.resolve(&snapshots, args.reference.as_bytes())?;
    let (id, is_held) = (snapshot.id, !args.release);
    let mut notes = Vec::new();
    if is_held {
        notes.push(Note::Hold(id, until));
    } else {
        if snapshot.hold.is_some() {
            notes.push(Note::Release(id));
        }
        let safety = snapshot.tags.iter().filter(|tag| keep::is_safety_tag(tag));
        notes.extend(safety.map(|tag| Note::Untag(id, tag.clone())));
        if notes.is_empty() {
            let message = format!("snapshot {} is not held", id.short());
            return Err(Failure::new("refused", 2, message));
        }
    }
    if !session.global.dry_run {
        let done = notes::add(&session.cx, &repo, &BTreeSet::from([id]), &notes);
        done.map_err(|error| no_space_hint(session, error))?;
    }
    let time = match until {
        HoldUntil::Time(time) if is_held => Some(time),
        _ => None,
    };
    let output = &session.output;
    if output.is_json() {
        let summary = Summary {
            op: "hold",
            status: "ok",
            dry_run: session.global.dry_run,
            snapshot: id.to_string(),
            held: is_held,
            until: time.map(text::rfc3339),
            exit: DONE,
        };
        output.json(&json::document("summary", summary))?;
        return Ok(DONE);
    }
    if output.is_quiet {
        return Ok(DONE);
    }
    let short = id.short();
    output.line(match (is_held, time) {
        (false, _) => format!("Released snapshot {short}"),
        (true, None) => format!("Held snapshot {short} until it is released"),
        (true, Some(time)) => {
            let time = text::local_with_zone(time, &session.zone);
            format!("Held snapshot {short} until {time}")
        }
    })?;
    if session.global.dry_run {
        output.line("Nothing was changed (dry run).")?;
    }
    Ok(DONE)
}

/// A day means all of it.
fn until(session: &Session, text: &str) -> Outcome<Timestamp> {
    let wrong = || {
        Failure::usage(format!("{text:?} is no date"))
            .hint("write it like 2027-06-30 or 2027-06-30T12:00:00Z")
    };
    let instant = match text.parse::<Date>() {
        Ok(day) => {
            let next = day.tomorrow().map_err(|_| wrong())?;
            let zoned = next.to_zoned(session.zone.clone()).map_err(|_| wrong())?;
            zoned.timestamp()
        }
        Err(_) => text.parse::<jiff::Timestamp>().map_err(|_| wrong())?,
    };
    let ns = i64::try_from(instant.as_nanosecond()).map_err(|_| wrong())?;
    match session.cx.clock.now() < Timestamp(ns) {
        true => Ok(Timestamp(ns)),
        false => Err(Failure::usage(format!("{text} is over already"))),
    }
}
