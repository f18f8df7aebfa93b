//! `config`: the configuration file: where it is, what counts, whether it is right.

pub(super) mod check;

use crate::cli::args::ConfigCommand;
use crate::cli::args::ConfigShowArgs;
use crate::cli::choice::ConfigFile;
use crate::cli::command::DONE;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config;
use crate::config::Origin;
use crate::config::Setting;
use serde::Serialize;
use serde_json::Value;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;

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

/// Does what is asked about the configuration.
pub(super) fn run(session: &Session, command: &ConfigCommand) -> Outcome<u8> {
    match command {
        ConfigCommand::Check => check::run(session),
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
        let origin = match session.global.profile.is_empty() {
            true => Origin::Environment("STATEKEEP_PROFILE"),
            false => Origin::Flag("--profile"),
        };
        push("profiles", config::write::texts(&names), origin);
    }
    if let Ok(target) = session.target(None) {
        push("repo", quoted(&target.path), target.origin);
    }
    opening(session, &mut push, &quoted);
    Ok(out)
}

/// Tells what opens the repository, as far as a flag or else a variable says so.
fn opening(
    session: &Session,
    push: &mut dyn FnMut(&str, String, Origin),
    quoted: &dyn Fn(&Path) -> String,
) {
    let (global, environment) = (&session.global, &session.environment);
    let command = |command: &Option<OsString>| command.as_ref().map(|c| quoted(Path::new(c)));
    let file = |path: &Option<PathBuf>| path.as_ref().map(|path| quoted(path));
    let flags = [
        ("key-file", file(&global.key_file), "--key-file"),
        (
            "password-file",
            file(&global.password_file),
            "--password-file",
        ),
        (
            "password-command",
            command(&global.password_command),
            "--password-command",
        ),
    ];
    // A flag makes the environment count for nothing.
    let has_flag = flags.iter().any(|(_, value, _)| value.is_some());
    for (key, value, name) in flags {
        if let Some(value) = value {
            push(key, value, Origin::Flag(name));
        }
    }
    let hidden = environment
        .password
        .as_ref()
        .map(|_| "\"(not shown)\"".to_string());
    let variables = [
        (
            "key-file",
            file(&environment.key_file),
            "STATEKEEP_KEY_FILE",
        ),
        (
            "password-file",
            file(&environment.password_file),
            "STATEKEEP_PASSWORD_FILE",
        ),
        (
            "password-command",
            command(&environment.password_command),
            "STATEKEEP_PASSWORD_COMMAND",
        ),
        ("password", hidden, "STATEKEEP_PASSWORD"),
    ];
    for (key, value, name) in variables.into_iter().filter(|_| !has_flag) {
        if let Some(value) = value {
            push(key, value, Origin::Environment(name));
        }
    }
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
