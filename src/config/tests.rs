//! Texts in, settings or messages out.

use crate::config::Config;
use crate::config::EXAMPLES;
use crate::config::Fault;
use crate::config::Keep;
use crate::config::OnFailure;
use crate::config::OnVersion;
use crate::config::Origin;
use crate::config::PasswordOrigin;
use crate::config::Place;
use crate::config::parse;
use crate::ops::backup::DatabaseCuts;
use crate::repo::writer::Effort;
use std::path::Path;
use std::time::Duration;

fn place() -> Place {
    Place {
        file: "/etc/statekeep/config.toml".into(),
        home: Some("/home/ada".into()),
    }
}

fn good(text: &str) -> Config {
    parse(text, &place()).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn faults(text: &str) -> Vec<Fault> {
    parse(text, &place()).err().unwrap_or_default()
}

/// After `version = 1` on the first line: text, line, part of the message, part of the hint.
const WRONG: &[(&str, usize, &str, &str)] = &[
    (
        "colour = 1",
        2,
        "unknown key `colour` in the file",
        "known here: version, repo",
    ),
    (
        "[defaults]\nshedule = '@daily'",
        3,
        "unknown key `shedule` in [defaults]",
        "`schedule`?",
    ),
    (
        "[defaults]\nkeep-dayly = 3",
        3,
        "unknown key `keep-dayly`",
        "did you mean `keep`?",
    ),
    (
        "[defaults]\nroot = '/'",
        3,
        "unknown key `root` in [defaults]",
        "known here: files",
    ),
    (
        "[defaults.keep]\ndayly = 3",
        3,
        "unknown key `dayly` in [defaults.keep]",
        "did you mean `daily`?",
    ),
    (
        "[profile.a]\nroot = '/a'\nfiles = 'x'",
        4,
        "`profile.a.files` must be a list of strings, and \
      is the string \"x\"",
        "files = [\"data/**\"]",
    ),
    (
        "[profile.a]\nroot = '/a'\nfiles = [1]",
        4,
        "must be a list of strings, and holds the number 1",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\nfiles = ['a/../b']",
        4,
        "pattern \"a/../b\": it has an empty",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\nexclude = ['[a']",
        4,
        "exclude pattern \"[a\"",
        "",
    ),
    (
        "[profile.a]\nroot = 7",
        3,
        "`profile.a.root` must be a path as a string, and is the number 7",
        "",
    ),
    (
        "[profile.a]\nroot = ''",
        3,
        "`profile.a.root`: it is empty",
        "",
    ),
    (
        "[profile.a]\nroot = '~bob/x'",
        3,
        "only ~/ stands for a home directory",
        "",
    ),
    (
        "[profile.a]",
        2,
        "[profile.a] lacks `root`",
        "root = …: the directory",
    ),
    (
        "[profile.'a b']\nroot = '/a'",
        2,
        "\"a b\" is no name for a profile",
        "",
    ),
    (
        "profile = 3",
        2,
        "`profile` must be tables with names of their own, and is the number 3",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\nschedule = '0 2 * *'",
        4,
        "has 4 fields",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\nkeep-within = '30 days'",
        4,
        "\"30 days\" is not a span of time",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\nretention = 0",
        4,
        "whole number from 1 on, and is the number 0",
        "= 7",
    ),
    (
        "[profile.a]\nroot = '/a'\nretention = 1.5",
        4,
        "and is the number 1.5",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\nretention = 2\nkeep = { last = 3 }",
        2,
        "says what to keep 2 times: \
      `keep`, `retention`",
        "leave one of them",
    ),
    (
        "[profile.a]\nroot = '/a'\non-shutdown = 'yes'",
        4,
        "must be true or false",
        "on-shutdown = true",
    ),
    (
        "[profile.a]\nroot = '/a'\ntags = ['a,b']",
        4,
        "\"a,b\" is no tag",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\ndatabase-cuts = 'group'",
        4,
        "none of groups, small-groups, large-groups, content; did you mean \
      \"groups\"?",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\ncompression = 20",
        4,
        "`profile.a.compression` must be a whole number from 1 to 19",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\ndelta-run = '32'",
        4,
        "`profile.a.delta-run` must be a whole number from 1 to 64",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\nrepo = 'man'\n[repo.main]\nurl = 'x'",
        4,
        "no [repo.man]",
        "\"main\"?",
    ),
    (
        "[profile.a]\nroot = '/a'\n[profile.a.restore]\nstop = 'systemctl stop a'",
        5,
        "`profile.a.restore.\
      stop` must be a list of a program and its arguments",
        "[\"systemctl\"",
    ),
    (
        "[profile.a]\nroot = '/a'\n[profile.a.restore]\nstop = ['systemctl stop a']",
        5,
        "as its program",
        "no shell reads it",
    ),
    (
        "[profile.a]\nroot = '/a'\n[profile.a.restore]\nafter = ['x']",
        5,
        "after[0]` must be a list",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\n[profile.a.restore]\nstop = []",
        5,
        "names no program",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\n[profile.a.restore]\non-version = 'refues'",
        5,
        "\"refuse\"?",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\n[profile.a.drill]\nassert = [{ sql = 'x', expect = '1' }]",
        5,
        "[profile.a.drill.assert[0]] lacks `database`",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\nbefore = [{ command = ['x'], on-failure = 'stop' }]",
        4,
        "none of abort",
        "",
    ),
    (
        "[profile.a]\nroot = '/a'\nbefore = [{ comand = ['x'] }]",
        4,
        "unknown key `comand`",
        "`command`?",
    ),
    (
        "[profile.a]\nroot = '/a'\nscope.x = { database = [] }",
        4,
        "unknown key `database` in [profile.a.\
      scope.x]",
        "`databases`?",
    ),
    (
        "[defaults]\nrepo = 'main'",
        3,
        "`defaults.repo` names \"main\"",
        "[repo.main] would say",
    ),
    (
        "[repo.main]\nurl = 's3://b/p'",
        3,
        "repositories are directories so far",
        "",
    ),
    (
        "[repo.main]\nurl = 'x'\npassword = 'tr0ub4dor'",
        4,
        "`repo.main.password` is refused: a secret does \
      not stand in the configuration",
        "",
    ),
    (
        "[repo.main]\nurl = 'x'\npassword-file = 'p'\nkey-file = 'k'",
        2,
        "in several ways",
        "leave one",
    ),
    (
        "[repo.main]\nurl = 'x'\npassword-command = 'pass x'",
        4,
        "list of a program and its arguments",
        "",
    ),
    (
        "[repo.main]\nurl = 'x'\nurl = 'y'",
        4,
        "this is no TOML: duplicate key",
        "",
    ),
    ("[repo.main\nurl = 'x'", 2, "this is no TOML", ""),
];

#[test]
fn every_fault_names_its_line_and_what_to_do() {
    for (text, line, message, hint) in WRONG {
        let found = faults(&format!("version = 1\n{text}"));

        let is_it = |fault: &&Fault| fault.line == *line && fault.message.contains(message);
        let fault = found.iter().find(is_it);
        let fault = fault.unwrap_or_else(|| panic!("{text}: {found:#?}"));
        assert!(
            fault.hint.clone().unwrap_or_default().contains(hint),
            "{text}: {fault:#?}"
        );
        let shown = fault.to_string();
        assert!(
            shown.starts_with(&format!("/etc/statekeep/config.toml:{line}: ")),
            "{shown}"
        );
        assert!(!shown.contains("tr0ub4dor"), "{shown}");
    }
}

#[test]
fn all_faults_are_told_at_once_from_the_top_down() {
    let found = faults("version = 2\n[defaults]\nshedule = 1\n[profile.a]\nfiles = 3\n");

    let lines: Vec<usize> = found.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [1, 3, 4, 5]);
    assert!(
        found[0].message.contains("this program knows version 1"),
        "{found:?}"
    );
    assert!(faults("")[0].message.contains("the file lacks `version`"));
}

#[test]
fn a_whole_file_becomes_settings() {
    let config = good(
        r#"
version = 1
[repo.main]
url = "/var/backups/statekeep"
password-file = "password"
[repo.off-site]
url = "~/off"
password-command = ["pass", "show", "it's one argument"]
[defaults]
repo = "main"
schedule = "0 2 * * *"
keep = { last = 3, hourly = 24 }
exclude = ["*.tmp"]
tags = ["auto"]
[profile.app]
root = "../srv/app"
keep-within = "30d"
exclude = ["logs/**"]
database-cuts = "content"
compression = 9
delta-run = 64
nice = true
exact = true
scope.rules = { files = ["rules/**"] }
restore = { stop = ["a"], after = [["b", "c"], ["d"]], on-version = "refuse" }
drill = { schedule = "@weekly", assert = [{ database = "x.db", sql = "SELECT 1", expect = "1" }] }
before = [{ command = ["sync"], timeout = "90s", on-failure = "warn" }]
after = [{ command = ["notify"] }]
[profile.other]
root = "~"
repo = "off-site"
"#,
    );

    let main = &config.repos["main"];
    assert_eq!(
        main.password,
        Some(PasswordOrigin::File("/etc/statekeep/password".into()))
    );
    let off_site = &config.repos["off-site"];
    assert_eq!(off_site.path, Path::new("/home/ada/off"));
    let command = ["pass", "show", "it's one argument"]
        .map(String::from)
        .to_vec();
    assert_eq!(off_site.password, Some(PasswordOrigin::Command(command)));
    let app = &config.profiles["app"];
    let within = Some(Duration::from_secs(30 * 86_400));
    // What one profile keeps is not mixed with what others keep.
    assert_eq!(
        app.keep,
        Some(Keep {
            within,
            ..Keep::default()
        })
    );
    assert_eq!(app.root, Path::new("/etc/statekeep/../srv/app"));
    assert_eq!(
        (app.repo.as_deref(), app.exclude.as_slice()),
        (Some("main"), &["logs/**".into()][..])
    );
    assert_eq!(
        (app.database_cuts, app.exact),
        (DatabaseCuts::Content, true)
    );
    assert_eq!((app.effort.level, app.effort.run_len), (9, 64));
    assert!(app.nice && !config.profiles["other"].nice);
    assert_eq!(config.profiles["other"].effort, Effort::default());
    assert_eq!(
        app.scopes["rules"].files,
        Some(vec!["rules/**".to_string()])
    );
    assert_eq!(app.restore.after, [vec!["b", "c"], vec!["d"]]);
    assert_eq!(
        (app.restore.on_version, app.files.clone()),
        (OnVersion::Refuse, None)
    );
    assert_eq!(app.drill.asserts[0].sql, "SELECT 1");
    assert_eq!(app.before[0].timeout, Duration::from_secs(90));
    assert_eq!(
        (app.before[0].on_failure, app.after[0].on_failure),
        (OnFailure::Warn, OnFailure::Abort)
    );
    let other = &config.profiles["other"];
    let (last, hourly) = (Some(3), Some(24));
    assert_eq!(
        other.keep,
        Some(Keep {
            last,
            hourly,
            ..Keep::default()
        })
    );
    assert_eq!(
        (other.root.as_path(), other.tags.len()),
        (Path::new("/home/ada"), 1)
    );
    assert_eq!(
        (other.repo.as_deref(), &*other.exclude),
        (Some("off-site"), &["*.tmp".into()][..])
    );
    assert_eq!(other.schedule.as_ref().unwrap().to_string(), "0 2 * * *");
}

#[test]
fn every_value_knows_the_line_it_comes_from() {
    let config = good(
        "version = 1\n[defaults]\nschedule = '@daily'\nkeep = { last = 3 }\n\
         [profile.a]\nroot = '/a'\nretention = 7\nfiles = ['x', \"y\\\"\"]\n",
    );

    let shown: Vec<(String, String, usize)> = config
        .settings
        .into_iter()
        .filter_map(|setting| match setting.origin {
            Origin::File(_, line) => Some((setting.key, setting.value, line)),
            origin => {
                assert_eq!(origin, Origin::Default);
                None
            }
        })
        .collect();
    let expected = [
        ("profile.a.files", r#"["x", "y\""]"#, 8),
        ("profile.a.retention", "7", 7),
        ("profile.a.root", "\"/a\"", 6),
        ("profile.a.schedule", "\"@daily\"", 3),
    ];
    assert_eq!(
        shown,
        expected.map(|(key, value, line)| (key.into(), value.into(), line))
    );
}

#[test]
fn the_examples_are_sound() {
    for (_, name, block) in EXAMPLES {
        let config = good(&format!("version = 1\n{block}"));

        assert_eq!(config.profiles.keys().collect::<Vec<_>>(), [name]);
    }
}
