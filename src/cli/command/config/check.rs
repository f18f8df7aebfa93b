//! `config check`: tests what no reading of the file alone can tell: paths, permissions,
//! repositories. It runs no program and opens nothing with a key.

use crate::cli::choice::exposure;
use crate::cli::choice::failure_of;
use crate::cli::choice::read;
use crate::cli::command::DONE;
use crate::cli::command::WARNINGS;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::Config;
use crate::config::EndpointOrigin;
use crate::config::Fault;
use crate::config::PasswordOrigin;
use crate::config::Profile;
use crate::config::RepoSettings;
use crate::config::TokenOrigin;
use crate::disk::RealDisk;
use crate::repo;
use crate::source::files::Fit;
use crate::source::files::Kind;
use crate::source::files::Patterns;
use crate::source::files::Rules;
use crate::source::files::Tree;
use crate::store::DirStore;
use serde::Serialize;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

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
pub(in crate::cli::command) struct Problem {
    /// `error` if a backup or restore would fail, else `warning`.
    pub level: &'static str,
    /// The profile or repository.
    pub at: String,
    /// What is wrong.
    pub message: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Tests what no reading of the file alone can tell.
pub(super) fn run(session: &Session) -> Outcome<u8> {
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
    let config = match read(&place)? {
        Ok(config) => config,
        Err(faults) if session.output.is_json() => {
            return tell_faults(session, &place.file, faults);
        }
        Err(faults) => return Err(failure_of(&faults)),
    };
    let mut problems = Vec::new();
    for repo in config.repos.values() {
        repo_problems(repo, &mut problems);
    }
    problems.extend(problems_beside_repos(session, &place.file, &config)?);
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

/// Tests the file and its profiles, and no repository.
pub(in crate::cli::command) fn problems_beside_repos(
    session: &Session,
    file: &Path,
    config: &Config,
) -> Outcome<Vec<Problem>> {
    let mut problems = file_problems(file);
    for profile in config.profiles.values() {
        session.cx.check()?;
        profile_problems(config, profile, &mut problems);
        nested_problems(config, profile, &mut problems);
    }
    Ok(problems)
}

/// Faults as a document, so that a program finds lines and hints apart.
fn tell_faults(session: &Session, path: &Path, faults: Vec<Fault>) -> Outcome<u8> {
    let problems = faults.into_iter().map(|fault| Problem {
        level: "error",
        at: format!("{}:{}", fault.path.display(), fault.line),
        message: fault.message,
        hint: fault.hint,
    });
    let body = CheckBody {
        path: Some(path.display().to_string()),
        status: "errors",
        profiles: 0,
        repos: 0,
        problems: problems.collect(),
        exit: 2,
    };
    session.output.json(&json::document("config-check", body))?;
    Ok(2)
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
        let hint = Some(format!("chmod go-w {}", text::quote(path.as_os_str())));
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
        secret_file_problems(&at, path, problems);
    }
}

/// A file with a secret has to be there, for its owner alone.
fn secret_file_problems(at: &str, path: &Path, problems: &mut Vec<Problem>) {
    if let Err(error) = std::fs::File::open(path) {
        let message = format!("cannot read {}: {error}", path.display());
        problems.push(problem("error", at, message));
    }
    if let Some(message) = exposure(path) {
        let message = format!("{}: {message}", path.display());
        problems.push(problem("warning", at, message));
    }
}

/// Of what is told others. Nothing is sent.
fn notify_problems(at: &str, profile: &Profile, problems: &mut Vec<Problem>) {
    let webhook = profile.webhook.as_ref();
    for origin in profile
        .ping
        .iter()
        .chain(webhook.map(|webhook| &webhook.endpoint))
    {
        if let EndpointOrigin::File(path) = origin {
            secret_file_problems(at, path, problems);
        }
    }
    let Some(webhook) = webhook else {
        return;
    };
    match &webhook.token {
        Some(TokenOrigin::File(path)) => secret_file_problems(at, path, problems),
        Some(TokenOrigin::Command(argv)) => program_problem(at, argv, problems),
        Some(TokenOrigin::Variable(_)) | None => {}
    }
    let is_open = matches!(
        &webhook.endpoint,
        EndpointOrigin::Said(endpoint) if endpoint.is_readable_on_the_way()
    );
    if is_open && webhook.token.is_some() {
        let why = "the token of its webhook goes through the network for all to read";
        let hint = Some("https:// in place of http://".to_string());
        problems.push(Problem {
            hint,
            ..problem("warning", at, why.to_string())
        });
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
    notify_problems(&at, profile, problems);
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

/// A repository within what is backed up into it would grow for ever.
fn nested_problems(config: &Config, profile: &Profile, problems: &mut Vec<Problem>) {
    let Ok(root) = profile.root.canonicalize() else {
        return;
    };
    let takes = Patterns::parse(profile.files.as_deref().unwrap_or_default());
    let (Ok(takes), Ok(leaves)) = (takes, Rules::parse(&profile.exclude)) else {
        return;
    };
    for repo in config.repos.values() {
        let path = repo
            .path
            .canonicalize()
            .unwrap_or_else(|_| repo.path.clone());
        let Ok(below) = path.strip_prefix(&root) else {
            continue;
        };
        // Any file of it stands for all.
        let below = below.join("packs").join("x");
        let bytes = below.as_os_str().as_bytes();
        let mut above = below
            .ancestors()
            .skip(1)
            .map(|dir| dir.as_os_str().as_bytes());
        let is_taken = profile.files.is_none() || takes.fit(bytes, Kind::File) == Fit::Whole;
        let is_left_out = leaves.exclude(bytes, Kind::File)
            || above.any(|dir| !dir.is_empty() && leaves.exclude(dir, Kind::Directory));
        if is_taken && !is_left_out {
            let message = format!("repository {} lies in what is backed up", repo.name);
            problems.push(Problem {
                hint: Some("leave it out with `exclude`, or move it".to_string()),
                ..problem("error", &format!("profile.{}", profile.name), message)
            });
        }
    }
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
