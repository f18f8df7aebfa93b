//! `profile`: the applications of the configuration, and profiles to begin with.

use crate::cli::args::ExampleName;
use crate::cli::args::ProfileCommand;
use crate::cli::args::ProfileDetectArgs;
use crate::cli::args::ProfileExampleArgs;
use crate::cli::args::ProfileShowArgs;
use crate::cli::command::DONE;
use crate::cli::command::config::json_of;
use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::cli::text::Align;
use crate::config;
use crate::config::EXAMPLES;
use crate::config::Keep;
use crate::config::Profile;
use crate::config::Setting;
use crate::format::database::Engine;
use crate::ops::detect;
use crate::ops::detect::Application;
use crate::ops::detect::Detected;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use std::path::Path;

/// Of what is hardly worth a backup, the largest are told.
const JUNK_LINES: usize = 10;

#[derive(Serialize)]
struct Items {
    items: Vec<Value>,
}

#[derive(Serialize)]
struct Example {
    profile: &'static str,
    toml: &'static str,
}

#[derive(Serialize)]
struct DetectedBody {
    profile: String,
    root: String,
    application: Option<&'static str>,
    databases: Vec<DatabaseItem>,
    secrets: Vec<String>,
    junk: Vec<JunkItem>,
    unreadable: Vec<String>,
    files: u64,
    total_bytes: u64,
    toml: String,
}

#[derive(Serialize)]
struct DatabaseItem {
    path: String,
    engine: Option<&'static str>,
}

#[derive(Serialize)]
struct JunkItem {
    pattern: String,
    why: &'static str,
    total_bytes: u64,
}

/// Does what is asked about profiles.
pub(super) fn run(session: &Session, command: &ProfileCommand) -> Outcome<u8> {
    match command {
        ProfileCommand::List => list(session),
        ProfileCommand::Show(args) => show(session, args),
        ProfileCommand::Detect(args) => detect(session, args),
        ProfileCommand::Example(args) => example(session, args),
    }
}

fn list(session: &Session) -> Outcome<u8> {
    let config = session.config()?;
    let output = &session.output;
    if output.is_json() {
        let items = config
            .profiles
            .values()
            .map(|profile| body(session, profile));
        let items = items.collect::<Outcome<_>>()?;
        output.json(&json::document("profiles", Items { items }))?;
        return Ok(DONE);
    }
    if config.profiles.is_empty() {
        output.line("No profiles.")?;
        output.remark("  hint: statekeep profile detect PATH prints one");
        return Ok(DONE);
    }
    let head = ["NAME", "ROOT", "REPO", "SCHEDULE", "KEEPS", "SCOPES"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for profile in config.profiles.values() {
        let scopes: Vec<&str> = profile.scopes.keys().map(String::as_str).collect();
        let or_dash = |text: Option<String>| text.filter(|t| !t.is_empty()).unwrap_or("-".into());
        rows.push(vec![
            profile.name.clone(),
            text::safe(&profile.root.to_string_lossy()),
            or_dash(profile.repo.clone()),
            or_dash(profile.schedule.as_ref().map(ToString::to_string)),
            or_dash(profile.keep.as_ref().map(keep_text)),
            or_dash(Some(scopes.join(", "))),
        ]);
    }
    for line in text::table(&[Align::Left; 6], &rows) {
        output.line(line)?;
    }
    Ok(DONE)
}

fn keep_text(keep: &Keep) -> String {
    let counts = [
        (keep.last, "last"),
        (keep.hourly, "hourly"),
        (keep.daily, "daily"),
        (keep.weekly, "weekly"),
        (keep.monthly, "monthly"),
        (keep.yearly, "yearly"),
    ];
    let counts = counts
        .iter()
        .filter_map(|(count, kind)| Some(format!("{} {kind}", (*count)?)));
    let within = keep.within.map(|within| {
        let seconds = i64::try_from(within.as_secs()).unwrap_or(i64::MAX);
        format!("all of {}", text::age(seconds))
    });
    counts.chain(within).collect::<Vec<_>>().join(", ")
}

/// Returns the values of a profile that count.
fn settings<'s>(session: &'s Session, name: &str) -> Outcome<Vec<(String, &'s Setting)>> {
    let prefix = format!("profile.{}.", config::write::name(name));
    let settings = session.config()?.settings.iter();
    let of_profile = settings.filter_map(|setting| {
        let key = setting.key.strip_prefix(&prefix)?;
        Some((key.to_string(), setting))
    });
    Ok(of_profile.collect())
}

fn body(session: &Session, profile: &Profile) -> Outcome<Value> {
    let mut body = Map::new();
    body.insert("name".into(), profile.name.as_str().into());
    for (key, setting) in settings(session, &profile.name)? {
        body.insert(key, json_of(&setting.value));
    }
    // As it is understood.
    body.insert("root".into(), profile.root.to_string_lossy().into());
    let next = profile.schedule.as_ref().and_then(|schedule| {
        let now = text::instant(session.cx.clock.now());
        schedule.next_due(&now.to_zoned(session.zone.clone()))
    });
    if let Some(next) = next {
        body.insert("next_at".into(), next.timestamp().to_string().into());
    }
    Ok(Value::Object(body))
}

fn show(session: &Session, args: &ProfileShowArgs) -> Outcome<u8> {
    let profile = match &args.name {
        Some(name) => session.profile_named(name)?,
        None => (session.profile()?)
            .ok_or_else(|| Failure::usage("no profile is named").hint("statekeep profile list"))?,
    };
    let output = &session.output;
    if output.is_json() {
        output.json(&json::document("profile", body(session, profile)?))?;
        return Ok(DONE);
    }
    output.line(format!("[profile.{}]", config::write::name(&profile.name)))?;
    for (key, setting) in settings(session, &profile.name)? {
        output.line(text::safe(&format!("{key} = {}", setting.value)))?;
    }
    Ok(DONE)
}

fn example(session: &Session, args: &ProfileExampleArgs) -> Outcome<u8> {
    let wanted = match args.name {
        ExampleName::HomeCore => Application::HomeCore,
        ExampleName::Hoziron => Application::Hoziron,
        ExampleName::ChaosCypher => Application::ChaosCypher,
    };
    for (_, profile, toml) in EXAMPLES
        .iter()
        .filter(|(application, _, _)| *application == wanted)
    {
        match session.output.is_json() {
            true => {
                let example = Example { profile, toml };
                session
                    .output
                    .json(&json::document("profile-example", example))?;
            }
            false => session.output.raw(toml.as_bytes())?,
        }
    }
    Ok(DONE)
}

fn detect(session: &Session, args: &ProfileDetectArgs) -> Outcome<u8> {
    let root = absolute(&args.path)?;
    let detected = detect::detect(&session.cx, &root)?;
    let (profile, block) = config::profile_block(&root, &detected);
    // Standard output may go to a new file, which has to begin with its version.
    let is_new = session
        .config_place()?
        .is_none_or(|place| std::fs::metadata(&place.file).map_or(true, |meta| meta.len() == 0));
    let toml = match is_new {
        true => format!("version = 1\n\n{block}"),
        false => block,
    };
    let output = &session.output;
    if output.is_json() {
        let body = detected_body(&root, detected, profile, toml);
        output.json(&json::document("profile-detected", body))?;
        return Ok(DONE);
    }
    for line in detected_lines(&root, &detected) {
        output.remark(line);
    }
    output.raw(toml.as_bytes())?;
    Ok(DONE)
}

fn engine(engine: Option<Engine>) -> Option<&'static str> {
    Some(match engine? {
        Engine::Sqlite => "sqlite",
        Engine::Redb => "redb",
        Engine::Sled => "sled",
    })
}

fn detected_body(root: &Path, detected: Detected, profile: String, toml: String) -> DetectedBody {
    let application = detected.application.and_then(|application| {
        let known = EXAMPLES.iter().find(|(known, _, _)| *known == application);
        known.map(|(_, name, _)| *name)
    });
    let databases = detected.databases.into_iter().map(|database| DatabaseItem {
        path: database.path,
        engine: engine(database.engine),
    });
    let junk = detected.junk.into_iter().map(|junk| JunkItem {
        pattern: junk.pattern,
        why: junk.why,
        total_bytes: junk.total_bytes,
    });
    DetectedBody {
        profile,
        root: root.to_string_lossy().into_owned(),
        application,
        databases: databases.collect(),
        secrets: detected.secrets,
        junk: junk.collect(),
        unreadable: detected.unreadable,
        files: detected.files,
        total_bytes: detected.total_bytes,
        toml,
    }
}

/// Remarks for people, beside the block.
fn detected_lines(root: &Path, detected: &Detected) -> Vec<String> {
    let mut lines = vec![format!(
        "{}: {}, {}",
        text::safe(&root.to_string_lossy()),
        text::count(detected.files, "file", "files"),
        text::size(detected.total_bytes)
    )];
    for database in &detected.databases {
        let engine = engine(database.engine).unwrap_or("encrypted, or no database");
        lines.push(format!(
            "  database  {} ({engine})",
            text::safe(&database.path)
        ));
    }
    for secret in &detected.secrets {
        lines.push(format!("  secret    {}", text::safe(secret)));
    }
    let mut junk: Vec<_> = detected.junk.iter().collect();
    junk.sort_by_key(|junk| std::cmp::Reverse(junk.total_bytes));
    for junk in junk.iter().take(JUNK_LINES) {
        let (pattern, size) = (text::safe(&junk.pattern), text::size(junk.total_bytes));
        lines.push(format!("  left out  {pattern} ({}, {size})", junk.why));
    }
    for path in detected.unreadable.iter().take(JUNK_LINES) {
        lines.push(format!("  warning: cannot read {}", text::safe(path)));
    }
    lines
}
