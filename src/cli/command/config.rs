//! `config`: the configuration file: where it is, what counts, whether it is right.

use crate::cli::args::ConfigCommand;
use crate::cli::args::ConfigShowArgs;
use crate::cli::choice::ConfigFile;
use crate::cli::choice::exposure;
use crate::cli::choice::failure_of;
use crate::cli::command::DONE;
use crate::cli::command::WARNINGS;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config;
use crate::config::Config;
use crate::config::Origin;
use crate::config::PasswordOrigin;
use crate::config::Profile;
use crate::config::RepoSettings;
use crate::config::Setting;
use crate::disk::RealDisk;
use crate::repo;
use crate::source::files::Patterns;
use crate::source::files::Tree;
use crate::store::DirStore;
use serde::Serialize;
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

#[derive(Serialize)]
struct PathBody {
    path: Option<String>,
    exists: bool,
    origin: Option<OriginBody>,
    looked_for: Vec<String>,
}

#[derive(Serialize)]
struct ShowBody {
    items: Vec<ItemBody>,
}

#[derive(Serialize)]
struct ItemBody {
    key: String,
    value: Value,
    origin: OriginBody,
}

#[derive(Serialize)]
struct OriginBody {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
}

#[derive(Serialize)]
struct CheckBody {
    path: Option<String>,
    status: &'static str,
    profiles: u64,
    repos: u64,
    problems: Vec<Problem>,
    exit: u8,
}

/// Something a test of the configuration found.
#[derive(Serialize)]
struct Problem {
    /// `error` if a backup or restore would fail, else `warning`.
    level: &'static str,
    /// The profile or repository.
    at: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Does what is asked about the configuration.
pub(super) fn run(session: &Session, command: &ConfigCommand) -> Outcome<u8> {
    match command {
        ConfigCommand::Check => check(session),
        ConfigCommand::Show(args) => show(session, args),
        ConfigCommand::Path => path(session),
        ConfigCommand::Schema => schema(session),
    }
}

/// Returns a value of TOML as JSON.
pub(super) fn json_of(value: &str) -> Value {
    let table = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
    let value = table.and_then(|mut table| table.remove("value"));
    value.map_or(Value::Null, |value| {
        serde_json::to_value(value).unwrap_or_default()
    })
}

fn path(session: &Session) -> Outcome<u8> {
    let files = session.config_files()?;
    let looked_for = files
        .iter()
        .map(|file| file.path.display().to_string())
        .collect();
    let found = files.iter().find(|file| file.exists);
    let shown = found.or(files.first());
    let output = &session.output;
    if output.is_json() {
        let body = PathBody {
            path: shown.map(|file| file.path.display().to_string()),
            exists: found.is_some(),
            origin: shown.map(|file| origin_body(&file.origin)),
            looked_for,
        };
        output.json(&json::document("config-path", body))?;
        return Ok(DONE);
    }
    // Scripts open what is printed, be it there or not.
    let Some(ConfigFile { path, exists, .. }) = shown else {
        return Ok(DONE);
    };
    output.line(path.display().to_string())?;
    if !exists {
        output.remark(format!(
            "it does not exist; looked for: {}",
            looked_for.join(", ")
        ));
    }
    Ok(DONE)
}

fn schema(session: &Session) -> Outcome<u8> {
    let schema = config::schema::schema();
    match session.output.is_json() {
        true => {
            #[derive(Serialize)]
            struct Schema {
                schema: Value,
            }
            let schema = Schema { schema };
            session
                .output
                .json(&json::document("config-schema", schema))?;
        }
        false => {
            let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
            session.output.line(text)?;
        }
    }
    Ok(DONE)
}

/// Shows values as TOML, of the profiles named or of all.
fn show(session: &Session, args: &ConfigShowArgs) -> Outcome<u8> {
    let mut settings = chosen(session)?;
    let names = session.profile_names();
    for name in &names {
        session.profile_named(name)?;
    }
    let prefixes = names
        .iter()
        .map(|name| format!("profile.{}.", config::write::name(name)));
    let prefixes: Vec<String> = prefixes.collect();
    let is_shown = |setting: &&Setting| {
        let is_profile = setting.key.starts_with("profile.");
        let mut prefixes = prefixes.iter();
        names.is_empty() || !is_profile || prefixes.any(|p| setting.key.starts_with(p))
    };
    settings.extend(session.config()?.settings.iter().filter(is_shown).cloned());
    let output = &session.output;
    if output.is_json() {
        let items = settings.into_iter().map(|setting| ItemBody {
            value: json_of(&setting.value),
            origin: origin_body(&setting.origin),
            key: setting.key,
        });
        let items = items.collect();
        output.json(&json::document("config", ShowBody { items }))?;
        return Ok(DONE);
    }
    for setting in settings {
        let line = text::safe(&format!("{} = {}", setting.key, setting.value));
        match args.origin {
            true => output.line(format!("{line}  # {}", origin_text(&setting.origin)))?,
            false => output.line(line)?,
        }
    }
    Ok(DONE)
}

/// Returns what was chosen for this run: the file, the repository, how it opens.
fn chosen(session: &Session) -> Outcome<Vec<Setting>> {
    let (global, environment) = (&session.global, &session.environment);
    let mut out = Vec::new();
    let mut push = |key: &str, value: String, origin| {
        let key = key.to_string();
        out.push(Setting { key, value, origin });
    };
    let quoted = |path: &Path| config::write::text(&path.to_string_lossy());
    if let Some(file) = session.config_files()?.into_iter().find(|file| file.exists) {
        push("config", quoted(&file.path), file.origin);
    }
    let names = session.profile_names();
    if !names.is_empty() {
        let origin = match global.profile.is_empty() {
            true => Origin::Environment("STATEKEEP_PROFILE"),
            false => Origin::Flag("--profile"),
        };
        push("profiles", config::write::texts(&names), origin);
    }
    if let Ok(target) = session.target(None) {
        push("repo", quoted(&target.path), target.origin);
    }
    let files = [
        (
            &global.password_file,
            Origin::Flag("--password-file"),
            "password-file",
        ),
        (&global.key_file, Origin::Flag("--key-file"), "key-file"),
        (
            &environment.password_file,
            Origin::Environment("STATEKEEP_PASSWORD_FILE"),
            "password-file",
        ),
        (
            &environment.key_file,
            Origin::Environment("STATEKEEP_KEY_FILE"),
            "key-file",
        ),
    ];
    for (path, origin, key) in files {
        if let Some(path) = path {
            push(key, quoted(path), origin);
        }
    }
    if environment.password.is_some() {
        let origin = Origin::Environment("STATEKEEP_PASSWORD");
        push("password", "\"(not shown)\"".to_string(), origin);
    }
    if let Some(dir) = &environment.cache_dir {
        push("cache-dir", quoted(dir), Origin::Default);
    }
    Ok(out)
}

fn origin_text(origin: &Origin) -> String {
    match origin {
        Origin::Flag(name) => name.to_string(),
        Origin::Environment(name) => format!("${name}"),
        Origin::File(path, line) => text::safe(&format!("{}:{line}", path.display())),
        Origin::Default => "default".to_string(),
    }
}

fn origin_body(origin: &Origin) -> OriginBody {
    let (kind, name, line) = match origin {
        Origin::Flag(name) => ("flag", Some(name.to_string()), None),
        Origin::Environment(name) => ("environment", Some(name.to_string()), None),
        Origin::File(path, line) => ("file", Some(path.display().to_string()), Some(*line)),
        Origin::Default => ("default", None, None),
    };
    OriginBody { kind, name, line }
}

/// Tests what no reading of the file alone can tell.
fn check(session: &Session) -> Outcome<u8> {
    let Some(place) = session.config_place()? else {
        let files = session.config_files()?;
        let looked_for: Vec<String> = files.iter().map(|f| f.path.display().to_string()).collect();
        let message = format!(
            "there is no configuration: looked for {}",
            looked_for.join(", ")
        );
        return Err(Failure::new("no-config", 13, message)
            .hint("statekeep profile detect PATH prints a profile to begin with"));
    };
    let config = config::read(&place)?.map_err(|faults| failure_of(&faults))?;
    let mut problems = file_problems(&place.file);
    for repo in config.repos.values() {
        repo_problems(repo, &mut problems);
    }
    for profile in config.profiles.values() {
        session.cx.check()?;
        profile_problems(&config, profile, &mut problems);
    }
    let exit = match problems.iter().map(|problem| problem.level).max() {
        None => DONE,
        Some("warning") if problems.iter().all(|p| p.level == "warning") => WARNINGS,
        Some(_) => 2,
    };
    let output = &session.output;
    if output.is_json() {
        let body = CheckBody {
            path: Some(place.file.display().to_string()),
            status: match exit {
                DONE => "ok",
                WARNINGS => "warnings",
                _ => "errors",
            },
            profiles: config.profiles.len() as u64,
            repos: config.repos.len() as u64,
            problems,
            exit,
        };
        output.json(&json::document("config-check", body))?;
        return Ok(exit);
    }
    for problem in &problems {
        let (level, at) = (problem.level, &problem.at);
        output.line(text::safe(&format!("{level}: {at}: {}", problem.message)))?;
        if let Some(hint) = &problem.hint {
            output.line(text::safe(&format!("  hint: {hint}")))?;
        }
    }
    if !output.is_quiet {
        output.line(format!(
            "{}: {}, {}, {}",
            text::safe(&place.file.to_string_lossy()),
            text::count(config.profiles.len() as u64, "profile", "profiles"),
            text::count(config.repos.len() as u64, "repository", "repositories"),
            match problems.len() as u64 {
                0 => "no problems".to_string(),
                count => text::count(count, "problem", "problems"),
            }
        ))?;
    }
    Ok(exit)
}

fn problem(level: &'static str, at: &str, message: String) -> Problem {
    Problem {
        level,
        at: at.to_string(),
        message,
        hint: None,
    }
}

/// Whoever can write the file can run programs as whoever uses it.
fn file_problems(path: &Path) -> Vec<Problem> {
    let Ok(meta) = std::fs::metadata(path) else {
        return Vec::new();
    };
    let at = path.display().to_string();
    let is_mine = meta.uid() == rustix::process::geteuid().as_raw() || meta.uid() == 0;
    let mut problems = Vec::new();
    if meta.mode() & 0o022 != 0 || !is_mine {
        let why = "others can write it, and the programs it names run as you";
        let hint = Some(format!("chmod go-w {at}; chown it to yourself"));
        problems.push(Problem {
            hint,
            ..problem("warning", &at, why.to_string())
        });
    }
    problems
}

fn repo_problems(repo: &RepoSettings, problems: &mut Vec<Problem>) {
    let at = format!("repo.{}", repo.name);
    let open = || repo::read_config(&DirStore::open(Arc::new(RealDisk), &repo.path)?);
    if let Err(error) = open() {
        let failure = Failure::from(error);
        let hint = (failure.code == "no-repo").then(|| format!("statekeep -r {} init", repo.name));
        problems.push(Problem {
            hint,
            ..problem("error", &at, failure.message)
        });
    }
    let files = match &repo.password {
        Some(PasswordOrigin::File(path)) => vec![path],
        Some(PasswordOrigin::Command(argv)) => {
            program_problem(&at, argv, problems);
            Vec::new()
        }
        None => Vec::new(),
    };
    for path in files.into_iter().chain(&repo.key_file) {
        if let Err(error) = std::fs::File::open(path) {
            let message = format!("cannot read {}: {error}", path.display());
            problems.push(problem("error", &at, message));
        }
        if let Some(message) = exposure(path) {
            let message = format!("{}: {message}", path.display());
            problems.push(problem("warning", &at, message));
        }
    }
}

/// A program named by its path has to be there. Others are looked for when they run.
fn program_problem(at: &str, argv: &[String], problems: &mut Vec<Problem>) {
    if let Some(program) = argv.first().filter(|program| program.contains('/'))
        && !Path::new(program).is_file()
    {
        problems.push(problem(
            "error",
            at,
            format!("there is no program {program}"),
        ));
    }
}

fn profile_problems(config: &Config, profile: &Profile, problems: &mut Vec<Problem>) {
    let at = format!("profile.{}", profile.name);
    if profile.repo.is_none() && config.repos.len() != 1 {
        let hint = Some("repo = \"NAME\", here or in [defaults]".to_string());
        let why = "it names no repository, so every command needs -r".to_string();
        problems.push(Problem {
            hint,
            ..problem("warning", &at, why)
        });
    }
    let restore = &profile.restore;
    let programs = [
        &restore.stop,
        &restore.start,
        &restore.running,
        &restore.app_version,
    ];
    let hooks = profile
        .before
        .iter()
        .chain(&profile.after)
        .map(|hook| &hook.command);
    for argv in programs
        .into_iter()
        .flatten()
        .chain(&restore.after)
        .chain(hooks)
    {
        program_problem(&at, argv, problems);
    }
    let tree = match profile.root.canonicalize() {
        Ok(root) => Tree::open(&root).map_err(|error| Failure::from(error).message),
        Err(error) => Err(format!("{}: {error}", profile.root.display())),
    };
    let tree = match tree {
        Ok(tree) => tree,
        Err(message) => return problems.push(problem("error", &at, message)),
    };
    missing_problems(&at, profile, &tree, problems);
}

/// What is named without wildcards has to be there.
fn missing_problems(at: &str, profile: &Profile, tree: &Tree, problems: &mut Vec<Problem>) {
    let files = profile.files.as_deref().unwrap_or_default();
    let asserted = profile.drill.asserts.iter().map(|assert| &assert.database);
    let mut named: Vec<String> = files.iter().chain(&profile.databases).cloned().collect();
    for scope in profile.scopes.values() {
        named.extend(
            scope
                .files
                .iter()
                .flatten()
                .chain(&scope.databases)
                .cloned(),
        );
    }
    named.extend(asserted.cloned());
    named.sort();
    named.dedup();
    // What makes no sense as a pattern was refused when the file was read.
    let literals = Patterns::parse(&named).map(|patterns| patterns.literals().collect::<Vec<_>>());
    for path in literals.unwrap_or_default() {
        let shown = text::path(&path);
        match tree.stat(&path) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let message = format!("{shown} is named and not there: backups would be partial");
                problems.push(problem("warning", at, message));
            }
            Err(found) => {
                problems.push(problem(
                    "warning",
                    at,
                    format!("{shown}: {}", found.message),
                ));
            }
        }
    }
}
