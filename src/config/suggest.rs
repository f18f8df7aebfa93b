//! Profiles to begin with: of the applications that are known, and of what was found in a
//! directory. Whatever is suggested passes the check.

use crate::config::Origin;
use crate::config::Place;
use crate::config::parse;
use crate::config::write;
use crate::ops::detect::Application;
use crate::ops::detect::Detected;
use crate::source::files::Patterns;
use std::collections::BTreeMap;
use std::path::Path;

/// Lists of this many characters still stand on one line.
const LIST_CHARS_MAX: usize = 88;

/// Profiles of applications, by their names.
pub const EXAMPLES: [(Application, &str, &str); 3] = [
    (
        Application::HomeCore,
        "homecore",
        r#"[profile.homecore]
root = "/opt/homecore"
files = ["config/*.toml", "rules/**/*.toml"]
databases = ["data/state.redb", "data/history.db"]
"#,
    ),
    (
        Application::Hoziron,
        "hoziron",
        r#"[profile.hoziron]
root = "~/.hoziron"
files = ["config.toml", ".env", "data/**"]
databases = ["keys.db", "audit.db", "data/hoziron.db"]
secrets = [".env", "keys.db"]
on-shutdown = true
scope.agents = { files = ["data/agents/**", "data/memory/**"], databases = ["data/hoziron.db"] }
"#,
    ),
    (
        Application::ChaosCypher,
        "chaos-cypher",
        r#"[profile.chaos-cypher]
root = "/data"
databases = ["databases/*/app.db"]
exclude = ["backups/**", "models/**", "logs/**"]
[profile.chaos-cypher.restore]
stop = ["docker", "compose", "stop", "chaoscypher"]
start = ["docker", "compose", "start", "chaoscypher"]
after = [["chaoscypher", "upgrade"]]
"#,
    ),
];

/// Returns a profile of what was found below a root, as a block of TOML, and its name.
pub fn profile_block(root: &Path, detected: &Detected) -> (String, String) {
    let known = detected
        .application
        .and_then(|application| EXAMPLES.iter().find(|(known, _, _)| *known == application));
    let name = match known {
        Some((_, name, _)) => name.to_string(),
        None => name_of(root),
    };
    let mut values = known.map_or_else(BTreeMap::new, |(_, name, block)| settings(name, block));
    let mut lists = Lists::default();
    if let Some((_, _, block)) = known {
        lists = Lists::of(block, detected);
    }
    lists.add(detected);
    for (key, list) in [
        ("files", lists.files),
        ("databases", Some(lists.databases)),
        ("exclude", Some(lists.exclude)),
        ("secrets", Some(lists.secrets)),
    ] {
        values.remove(key);
        if let Some(list) = list.filter(|list| !list.is_empty() || key == "files") {
            values.insert(key.to_string(), list_text(&list));
        }
    }
    values.insert("root".to_string(), write::text(&root.to_string_lossy()));
    let mut block = format!("[profile.{name}]\n");
    // The order in which a person would read it.
    let first = ["root", "files", "databases", "exclude", "secrets"];
    for key in first {
        if let Some(value) = values.remove(key) {
            block.push_str(&format!("{key} = {value}\n"));
        }
    }
    for (key, value) in values {
        block.push_str(&format!("{key} = {value}\n"));
    }
    (name, block)
}

/// Returns the values of an example, by their keys.
fn settings(name: &str, block: &str) -> BTreeMap<String, String> {
    let prefix = format!("profile.{name}.");
    let config = example(block);
    let settings = config.into_iter().flat_map(|config| config.settings);
    let said = settings.filter(|setting| setting.origin != Origin::Default);
    let values = said.filter_map(|setting| {
        let key = setting.key.strip_prefix(&prefix)?.to_string();
        Some((key, setting.value))
    });
    values.collect()
}

fn example(block: &str) -> Option<crate::config::Config> {
    let place = Place {
        file: "/example".into(),
        home: None,
    };
    parse(&format!("version = 1\n{block}"), &place).ok()
}

/// What a profile takes and leaves out.
#[derive(Default)]
struct Lists {
    files: Option<Vec<String>>,
    databases: Vec<String>,
    exclude: Vec<String>,
    secrets: Vec<String>,
}

impl Lists {
    /// Returns those of an example, without names of what is not there.
    fn of(block: &str, detected: &Detected) -> Lists {
        let profiles = example(block)
            .into_iter()
            .flat_map(|config| config.profiles);
        let Some((_, profile)) = profiles.into_iter().next() else {
            return Lists::default();
        };
        let is_there = |pattern: &String| {
            let is_wild = pattern.contains(['*', '?', '[', '{']);
            is_wild || detected.shallow.contains(pattern)
        };
        let there = |patterns: Vec<String>| patterns.into_iter().filter(is_there).collect();
        Lists {
            files: profile.files.map(there),
            databases: there(profile.databases),
            exclude: profile.exclude,
            secrets: there(profile.secrets),
        }
    }

    fn add(&mut self, detected: &Detected) {
        let found: Vec<String> = detected.databases.iter().map(|d| escape(&d.path)).collect();
        for database in grouped(found) {
            if !is_covered(&self.databases, &database) {
                self.databases.push(database);
            }
        }
        for junk in &detected.junk {
            if !self.exclude.contains(&junk.pattern) {
                self.exclude.push(junk.pattern.clone());
            }
        }
        for secret in &detected.secrets {
            let secret = escape(secret);
            let rule = match secret.contains('/') {
                true => secret,
                // Without a slash a rule means a name at any depth.
                false => format!("/{secret}"),
            };
            let known = rule.trim_start_matches('/');
            if !self
                .secrets
                .iter()
                .any(|other| other.trim_start_matches('/') == known)
            {
                self.secrets.push(rule);
            }
        }
    }
}

fn is_covered(patterns: &[String], path: &str) -> bool {
    use crate::source::files::Fit;
    use crate::source::files::Kind;
    let parsed = Patterns::parse(patterns);
    patterns.iter().any(|pattern| pattern == path)
        || parsed.is_ok_and(|parsed| parsed.fit(path.as_bytes(), Kind::File) == Fit::Whole)
}

/// Databases of one name in sibling directories are one pattern: more of them will come.
fn grouped(paths: Vec<String>) -> Vec<String> {
    let group = |path: &str| {
        let (dir, name) = path.rsplit_once('/')?;
        let above = dir.rsplit_once('/').map_or("", |(above, _)| above);
        let dots = if above.is_empty() { "" } else { "/" };
        Some(format!("{above}{dots}*/{name}"))
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for path in &paths {
        *counts.entry(group(path).unwrap_or_default()).or_default() += 1;
    }
    let mut out: Vec<String> = Vec::new();
    for path in paths {
        let pattern = group(&path)
            .filter(|pattern| counts[pattern] > 1)
            .unwrap_or(path);
        if !out.contains(&pattern) {
            out.push(pattern);
        }
    }
    out
}

/// Takes the meaning of wildcards away from a path.
fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if "*?[]{}\\!".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A list on one line if it is short, else an item a line.
fn list_text(items: &[String]) -> String {
    let line = write::texts(items);
    match line.len() <= LIST_CHARS_MAX {
        true => line,
        false => {
            let lines = items
                .iter()
                .map(|item| format!("    {},\n", write::text(item)));
            format!("[\n{}]", lines.collect::<String>())
        }
    }
}

/// Returns a name for a profile of this directory.
fn name_of(root: &Path) -> String {
    let name = root
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let good = |c: char| match c.is_ascii_alphanumeric() || matches!(c, '-' | '_') {
        true => c,
        false => '-',
    };
    let name: String = name.chars().map(good).take(40).collect();
    match name.trim_matches('-') {
        "" => "app".to_string(),
        name => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_of_one_name_become_a_pattern_and_wildcards_lose_their_meaning() {
        let paths = [
            "databases/a/app.db",
            "databases/b/app.db",
            "x.db",
            "one/app.db",
        ];

        let patterns = grouped(paths.map(String::from).to_vec());

        assert_eq!(patterns, ["databases/*/app.db", "x.db", "one/app.db"]);
        assert_eq!(escape("a[1]*.db"), "a\\[1\\]\\*.db");
        assert_eq!(name_of(Path::new("/srv/.My App")), "my-app");
        assert_eq!(name_of(Path::new("/")), "app");
    }
}
