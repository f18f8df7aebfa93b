//! Reads settings out of a file that holds to the tables of `keys`, and what no table can say:
//! names that must exist, keys that exclude each other.
//!
//! A profile is read with the defaults behind it: a key it has counts whole, lists included.

use crate::config::Place;
use crate::config::check;
use crate::config::duration;
use crate::config::fault::Faults;
use crate::config::fault::nearest;
use crate::config::keys;
use crate::config::notify;
use crate::config::settings::Argv;
use crate::config::settings::Assert;
use crate::config::settings::Config;
use crate::config::settings::DrillSettings;
use crate::config::settings::Hook;
use crate::config::settings::Keep;
use crate::config::settings::OnFailure;
use crate::config::settings::OnVersion;
use crate::config::settings::Origin;
use crate::config::settings::PasswordOrigin;
use crate::config::settings::Profile;
use crate::config::settings::RepoSettings;
use crate::config::settings::RestoreSettings;
use crate::config::settings::Scope;
use crate::config::settings::Setting;
use crate::config::write;
use crate::ops::backup::DatabaseCuts;
use crate::repo::writer::Effort;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

/// How long a program may take of which nothing is said.
const HOOK_TIMEOUT: Duration = Duration::from_secs(300);

/// One or two tables, of which the first goes before the second.
#[derive(Clone, Copy)]
pub(super) struct Source<'t> {
    own: &'t DeTable<'t>,
    defaults: Option<&'t DeTable<'t>>,
}

impl<'t> Source<'t> {
    pub(super) fn of(own: &'t DeTable<'t>) -> Source<'t> {
        let defaults = None;
        Source { own, defaults }
    }

    fn entry(&self, name: &str) -> Option<(usize, &'t DeValue<'t>)> {
        let of = |table: &'t DeTable<'t>| {
            let (key, value) = table.get_key_value(name)?;
            Some((key.span().start, value.get_ref()))
        };
        of(self.own).or_else(|| of(self.defaults?))
    }

    /// Returns what its own table says, without the defaults.
    pub(super) fn alone(self) -> Source<'t> {
        Source::of(self.own)
    }

    /// Returns where its own table says something.
    pub(super) fn own_start(&self, name: &str) -> Option<usize> {
        let (key, _) = self.own.get_key_value(name)?;
        Some(key.span().start)
    }

    pub(super) fn value(&self, name: &str) -> Option<&'t DeValue<'t>> {
        self.entry(name).map(|(_, value)| value)
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.value(name)?.as_str().map(String::from)
    }

    fn flag(&self, name: &str) -> bool {
        self.value(name).and_then(DeValue::as_bool).unwrap_or(false)
    }

    fn count(&self, name: &str) -> Option<u32> {
        check::count(self.value(name)?)
    }

    pub(super) fn duration(&self, name: &str) -> Option<Duration> {
        duration::parse(self.value(name)?.as_str()?).ok()
    }

    pub(super) fn texts(&self, name: &str) -> Option<Vec<String>> {
        self.value(name).map(texts)
    }

    pub(super) fn table(&self, name: &str) -> Option<Source<'t>> {
        self.value(name)?.as_table().map(Source::of)
    }

    /// Returns the tables in a list.
    fn tables(&self, name: &str) -> Vec<Source<'t>> {
        let items = self.value(name).and_then(DeValue::as_array);
        let items = items.into_iter().flat_map(|items| items.iter());
        items
            .filter_map(|item| item.get_ref().as_table().map(Source::of))
            .collect()
    }

    /// Returns the tables with names of their own, and where each begins.
    fn named(&self, name: &str) -> Vec<(&'t str, usize, Source<'t>)> {
        let tables = self.value(name).and_then(DeValue::as_table);
        let tables = tables.into_iter().flatten();
        let tables = tables.filter_map(
            |(name, table): (&'t Spanned<_>, &'t Spanned<DeValue<'t>>)| {
                let inner = Source::of(table.get_ref().as_table()?);
                Some((&**name.get_ref(), name.span().start, inner))
            },
        );
        tables.collect()
    }
}

fn texts(value: &DeValue<'_>) -> Vec<String> {
    let items = value.as_array().into_iter().flat_map(|items| items.iter());
    items
        .filter_map(|item| item.get_ref().as_str().map(String::from))
        .collect()
}

/// Reads all settings.
pub(super) fn config(faults: &mut Faults<'_>, file: &DeTable<'_>, place: &Place) -> Config {
    let mut config = Config {
        path: Some(place.file.clone()),
        ..Config::default()
    };
    let root = Source::of(file);
    let defaults = root.table("defaults");
    if let Some(defaults) = defaults {
        let start = file
            .get_key_value("defaults")
            .map_or(0, |(key, _)| key.span().start);
        one_retention(faults, "defaults", start, defaults);
    }
    for (name, start, table) in root.named("repo") {
        let repo = repo(faults, place, name, start, table);
        config.repos.insert(name.to_string(), repo);
        settings(
            &mut config.settings,
            faults,
            place,
            "repo",
            name,
            table,
            &[],
        );
    }
    config.metrics_file = root.text("metrics-file").map(|text| place.resolve(&text));
    if let Some((start, value)) = root.entry("metrics-file") {
        config.settings.push(Setting {
            key: "metrics-file".to_string(),
            value: write::value(value),
            origin: Origin::File(place.file.clone(), faults.line(start)),
        });
    }
    if let Some(defaults) = defaults {
        notify::one_way(faults, "defaults", defaults);
    }
    config.default_repo = defaults.and_then(|defaults| defaults.text("repo"));
    known_repo(faults, "defaults", defaults, &config);
    for (name, start, table) in root.named("profile") {
        one_retention(faults, &check::join("profile", name), start, table);
        known_repo(faults, &check::join("profile", name), Some(table), &config);
        notify::one_way(faults, &check::join("profile", name), table);
        let own_keep = keys::RETENTION
            .iter()
            .any(|key| table.own.contains_key(*key));
        let hidden: &[&str] = if own_keep { &keys::RETENTION } else { &[] };
        let table = Source {
            defaults: defaults.map(|defaults| defaults.own),
            ..table
        };
        let profile = profile(place, name, table, hidden);
        config.profiles.insert(name.to_string(), profile);
        settings(
            &mut config.settings,
            faults,
            place,
            "profile",
            name,
            table,
            hidden,
        );
    }
    config
}

/// What goes without saying for a profile.
const UNSAID: [(&str, &str); 8] = [
    ("compression", "3"),
    ("database-cuts", "\"groups\""),
    ("delta-run", "32"),
    ("exact", "false"),
    ("exclude-caches", "false"),
    ("nice", "false"),
    ("on-shutdown", "false"),
    ("one-file-system", "false"),
];

/// Keeps every value that counts with where it comes from.
fn settings(
    settings: &mut Vec<Setting>,
    faults: &Faults<'_>,
    place: &Place,
    kind: &str,
    name: &str,
    table: Source<'_>,
    hidden: &[&str],
) {
    let own = table.own.iter();
    let defaults = table.defaults.into_iter().flatten();
    let defaults = defaults.filter(|(key, _)| {
        let key = key.get_ref();
        !table.own.contains_key(key.as_ref()) && !hidden.contains(&key.as_ref())
    });
    for (key, value) in own.chain(defaults) {
        settings.push(Setting {
            key: format!("{kind}.{}.{}", write::name(name), key.get_ref()),
            value: notify::shown(key.get_ref(), value.get_ref()),
            origin: Origin::File(place.file.clone(), faults.line(key.span().start)),
        });
    }
    for (key, value) in UNSAID.iter().filter(|_| kind == "profile") {
        if table.entry(key).is_none() {
            settings.push(Setting {
                key: format!("{kind}.{}.{key}", write::name(name)),
                value: value.to_string(),
                origin: Origin::Default,
            });
        }
    }
}

fn one_retention(faults: &mut Faults<'_>, at: &str, start: usize, table: Source<'_>) {
    let said = keys::RETENTION
        .iter()
        .filter(|key| table.own.contains_key(**key));
    let said: Vec<String> = said.map(|key| format!("`{key}`")).collect();
    if said.len() > 1 {
        let message = format!(
            "[{at}] says what to keep {} times: {}",
            said.len(),
            said.join(", ")
        );
        faults.add(start, message, Some("leave one of them".to_string()));
    }
}

fn known_repo(faults: &mut Faults<'_>, at: &str, table: Option<Source<'_>>, config: &Config) {
    let named = table.and_then(|table| table.own.get_key_value("repo"));
    let Some((key, name)) = named.and_then(|(key, value)| Some((key, value.get_ref().as_str()?)))
    else {
        return;
    };
    if !config.repos.contains_key(name) {
        let meant = nearest(name, config.repos.keys().map(String::as_str));
        let hint = match meant {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("[repo.{name}] would say where it is"),
        };
        let message = format!("`{at}.repo` names {name:?}, and there is no [repo.{name}]");
        faults.add(key.span().start, message, Some(hint));
    }
}

fn repo(
    faults: &mut Faults<'_>,
    place: &Place,
    name: &str,
    start: usize,
    table: Source<'_>,
) -> RepoSettings {
    let path = |key| table.text(key).map(|text| place.resolve(&text));
    let file = path("password-file").map(PasswordOrigin::File);
    let command = table.texts("password-command").map(PasswordOrigin::Command);
    let key_file = path("key-file");
    let said = [file.is_some(), command.is_some(), key_file.is_some()];
    if said.into_iter().filter(|&is_said| is_said).count() > 1 {
        let message = format!("[repo.{name}] says in several ways what opens the repository");
        let hint = "leave one of password-file, password-command and key-file";
        faults.add(start, message, Some(hint.to_string()));
    }
    RepoSettings {
        name: name.to_string(),
        path: path("url").unwrap_or_default(),
        password: file.or(command),
        key_file,
    }
}

fn profile(place: &Place, name: &str, table: Source<'_>, hidden: &[&str]) -> Profile {
    let own = Source::of(table.own);
    // Whoever says one way to keep snapshots does not get another one from the defaults.
    let keep = keep(if hidden.is_empty() { table } else { own });
    let scopes = table.named("scope").into_iter().map(|(name, _, scope)| {
        let scope = Scope {
            files: scope.texts("files"),
            databases: scope.texts("databases").unwrap_or_default(),
        };
        (name.to_string(), scope)
    });
    let root = table.text("root").map(|text| place.resolve(&text));
    Profile {
        name: name.to_string(),
        root: root.unwrap_or_default(),
        files: table.texts("files"),
        databases: table.texts("databases").unwrap_or_default(),
        exclude: table.texts("exclude").unwrap_or_default(),
        secrets: table.texts("secrets").unwrap_or_default(),
        scopes: scopes.collect(),
        repo: table.text("repo"),
        schedule: table.text("schedule").and_then(|text| text.parse().ok()),
        keep,
        on_shutdown: table.flag("on-shutdown"),
        tags: table.texts("tags").unwrap_or_default(),
        one_file_system: table.flag("one-file-system"),
        exclude_caches: table.flag("exclude-caches"),
        exact: table.flag("exact"),
        database_cuts: match table.text("database-cuts").as_deref() {
            Some("content") => DatabaseCuts::Content,
            Some("small-groups") => DatabaseCuts::SmallGroups,
            Some("large-groups") => DatabaseCuts::LargeGroups,
            _ => DatabaseCuts::Groups,
        },
        effort: effort(table),
        nice: table.flag("nice"),
        restore: table.table("restore").map(restore).unwrap_or_default(),
        drill: table.table("drill").map(drill).unwrap_or_default(),
        before: table.tables("before").into_iter().map(hook).collect(),
        after: table.tables("after").into_iter().map(hook).collect(),
        ping: notify::ping(place, table),
        webhook: notify::webhook(place, table),
    }
}

fn effort(table: Source<'_>) -> Effort {
    let usual = Effort::default();
    let level = table.count("compression").map(u32::cast_signed);
    let run_len = table.count("delta-run").map(|count| count as usize);
    Effort {
        level: level.unwrap_or(usual.level),
        run_len: run_len.unwrap_or(usual.run_len),
        ..usual
    }
}

fn keep(table: Source<'_>) -> Option<Keep> {
    let by_kind = table.table("keep").map(|keep| Keep {
        last: keep.count("last"),
        hourly: keep.count("hourly"),
        daily: keep.count("daily"),
        weekly: keep.count("weekly"),
        monthly: keep.count("monthly"),
        yearly: keep.count("yearly"),
        within: None,
    });
    let by_count = table.count("retention").map(|count| Keep {
        last: Some(count),
        ..Keep::default()
    });
    let by_age = table.duration("keep-within").map(|within| Keep {
        within: Some(within),
        ..Keep::default()
    });
    by_kind.or(by_count).or(by_age)
}

fn restore(table: Source<'_>) -> RestoreSettings {
    let argvs = table.value("after").and_then(DeValue::as_array);
    let argvs = argvs.into_iter().flat_map(|items| items.iter());
    let after: Vec<Argv> = argvs.map(|item| texts(item.get_ref())).collect();
    RestoreSettings {
        stop: table.texts("stop"),
        start: table.texts("start"),
        running: table.texts("running"),
        after,
        app_version: table.texts("app-version"),
        on_version: match table.text("on-version").as_deref() {
            Some("refuse") => OnVersion::Refuse,
            _ => OnVersion::Warn,
        },
    }
}

fn drill(table: Source<'_>) -> DrillSettings {
    let text = |table: Source<'_>, key| table.text(key).unwrap_or_default();
    let asserts = table.tables("assert").into_iter().map(|table| Assert {
        database: text(table, "database"),
        sql: text(table, "sql"),
        expect: text(table, "expect"),
    });
    DrillSettings {
        schedule: table.text("schedule").and_then(|text| text.parse().ok()),
        asserts: asserts.collect(),
    }
}

fn hook(table: Source<'_>) -> Hook {
    Hook {
        command: table.texts("command").unwrap_or_default(),
        timeout: table.duration("timeout").unwrap_or(HOOK_TIMEOUT),
        on_failure: match table.text("on-failure").as_deref() {
            Some("warn") => OnFailure::Warn,
            _ => OnFailure::Abort,
        },
    }
}

impl Place {
    /// Returns a path as the file means it.
    pub(super) fn resolve(&self, text: &str) -> PathBuf {
        let home = self.home.as_deref();
        let in_home = match text {
            "~" => home.map(PathBuf::from),
            text => text
                .strip_prefix("~/")
                .and_then(|rest| Some(home?.join(rest))),
        };
        let base = self.file.parent().unwrap_or(&self.file);
        in_home.unwrap_or_else(|| base.join(text.strip_prefix("./").unwrap_or(text)))
    }
}
