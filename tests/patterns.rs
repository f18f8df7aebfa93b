//! What a walk by patterns lists, against a slow matcher that was written apart from it, and what
//! it must not touch.

use crate::files::as_nobody;
use crate::support;
use crate::support::Seeded;
use statekeep::ops::backup;
use statekeep::ops::backup::BackupOptions;
use statekeep::source::files::Patterns;
use statekeep::source::files::Rules;
use statekeep::source::files::Tree;
use statekeep::source::files::Walk;
use statekeep::source::files::WalkOptions;
use statekeep::store::MemoryStore;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// Whether a name matches, one character after the other.
fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            name_matches(&pattern[1..], name)
                || !name.is_empty() && name_matches(pattern, &name[1..])
        }
        (Some(b'?'), Some(_)) => name_matches(&pattern[1..], &name[1..]),
        (Some(a), Some(b)) if a == b => name_matches(&pattern[1..], &name[1..]),
        _ => false,
    }
}

/// Whether a whole path matches, one name after the other.
fn path_matches(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.first(), path.first()) {
        (None, None) => true,
        (Some(&"**"), _) => {
            path_matches(&pattern[1..], path)
                || !path.is_empty() && path_matches(pattern, &path[1..])
        }
        (Some(a), Some(b)) => {
            name_matches(a.as_bytes(), b.as_bytes()) && path_matches(&pattern[1..], &path[1..])
        }
        _ => false,
    }
}

/// What is to be listed, by looking at every path there is.
fn expected(nodes: &BTreeMap<String, bool>, patterns: &[String]) -> BTreeSet<String> {
    let patterns: Vec<(Vec<&str>, bool)> = patterns
        .iter()
        .map(|pattern| {
            let mut names: Vec<&str> = pattern.split('/').collect();
            let len = names.len();
            while names.last() == Some(&"**") {
                names.pop();
            }
            let directories_only = names.len() < len;
            (names, directories_only)
        })
        .collect();
    let mut listed = BTreeSet::from([String::new()]);
    for (path, is_dir) in nodes {
        let names: Vec<&str> = path.split('/').collect();
        if names.contains(&"left-out") {
            continue;
        }
        let is_taken = patterns.iter().any(|(pattern, directories_only)| {
            (0..=names.len()).any(|end| {
                let can_be = end < names.len() || *is_dir || !directories_only;
                can_be && path_matches(pattern, &names[..end])
            })
        });
        let is_way = *is_dir
            && patterns.iter().any(|(pattern, _)| {
                (0..pattern.len()).any(|end| path_matches(&pattern[..end], &names))
                    || pattern.contains(&"**") && {
                        let at = pattern.iter().position(|name| *name == "**").unwrap();
                        path_matches(&pattern[..=at], &names)
                    }
            });
        if is_taken || is_way {
            listed.insert(path.clone());
        }
    }
    listed
}

const NAMES: [&str; 7] = ["a", "b", "ab", "a.t", "b.t", ".e", "left-out"];

/// Makes a tree of a few dozen nodes; the value says whether it is a directory.
fn random_tree(root: &Path, random: &mut Seeded) -> BTreeMap<String, bool> {
    let mut nodes = BTreeMap::new();
    let mut dirs = vec![String::new()];
    for _ in 0..40 {
        let dir = dirs[random.below(dirs.len() as u64) as usize].clone();
        let name = NAMES[random.below(NAMES.len() as u64) as usize];
        let path = format!("{dir}/{name}").trim_start_matches('/').to_string();
        if nodes.contains_key(&path) || path.split('/').count() > 5 {
            continue;
        }
        let is_dir = random.below(2) == 0;
        match is_dir {
            true => fs::create_dir(root.join(&path)).unwrap(),
            false => fs::write(root.join(&path), "").unwrap(),
        }
        if is_dir {
            dirs.push(path.clone());
        }
        nodes.insert(path, is_dir);
    }
    nodes
}

fn random_pattern(random: &mut Seeded) -> String {
    const PARTS: [&str; 10] = ["a", "b", "ab", "*", "**", "a*", "*.t", "?", ".e", "?b"];
    let len = 1 + random.below(4);
    let parts = (0..len).map(|_| PARTS[random.below(PARTS.len() as u64) as usize]);
    parts.collect::<Vec<_>>().join("/")
}

fn listed(root: &Path, patterns: &[String]) -> (BTreeSet<String>, usize) {
    let tree = Tree::open(root).unwrap();
    let options = WalkOptions {
        patterns: Some(Patterns::parse(patterns).unwrap()),
        exclude: Rules::parse(&["left-out"]).unwrap(),
        ..Default::default()
    };
    let (mut paths, mut problems) = (BTreeSet::new(), 0);
    for found in Walk::open(&tree, options).unwrap() {
        match found {
            Ok(item) => {
                assert!(paths.insert(String::from_utf8(item.path).unwrap()));
            }
            Err(_) => problems += 1,
        }
    }
    (paths, problems)
}

fn compare(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut random = Seeded::new(seed + 1);
        let dir = tempfile::tempdir().unwrap();
        let nodes = random_tree(dir.path(), &mut random);
        for _ in 0..20 {
            let count = 1 + random.below(3);
            let patterns: Vec<String> = (0..count).map(|_| random_pattern(&mut random)).collect();

            let (paths, problems) = listed(dir.path(), &patterns);

            assert_eq!(problems, 0);
            assert_eq!(paths, expected(&nodes, &patterns), "{seed}: {patterns:?}");
        }
    }
}

#[test]
fn a_walk_lists_what_a_slow_matcher_says() {
    compare(0..60);
}

/// `cargo test --release --test main patterns:: -- --ignored`
#[test]
#[ignore = "takes a minute"]
fn a_walk_lists_what_a_slow_matcher_says_for_long() {
    compare(60..20_000);
}

#[test]
fn directories_that_lead_nowhere_are_not_even_opened() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config", "config/closed", "closed"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("config/app.toml"), "").unwrap();
    for name in ["config/closed", "closed"] {
        let closed = fs::Permissions::from_mode(0o000);
        fs::set_permissions(dir.path().join(name), closed).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();

    let (narrow, problems) = as_nobody(|| listed(dir.path(), &["config/*.toml".to_string()]));
    let (_, met) = as_nobody(|| listed(dir.path(), &["**/*.toml".to_string()]));

    let narrow: Vec<String> = narrow.into_iter().collect();
    assert_eq!(
        (&narrow[..], problems),
        (&["", "config", "config/app.toml"].map(String::from)[..], 0)
    );
    assert_eq!(met, 2);
}

fn patterned(root: &Path, files: Option<&[&str]>, databases: &[&str]) -> BackupOptions {
    let owned = |patterns: &[&str]| patterns.iter().map(|p| p.to_string()).collect();
    BackupOptions {
        files: files.map(owned),
        databases: owned(databases),
        ..support::options(root)
    }
}

fn database(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (7)")
        .unwrap();
}

#[test]
fn what_is_named_and_absent_or_no_database_makes_the_snapshot_partial() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("config.toml"), "x").unwrap();
    fs::write(dir.path().join("data/torn.db"), "no database at all").unwrap();
    fs::write(dir.path().join("data/fresh.db"), "").unwrap();
    database(&dir.path().join("data/app.db"));
    std::os::unix::fs::symlink("app.db", dir.path().join("data/link.db")).unwrap();
    let repo = support::create(Arc::new(MemoryStore::new()), false, None);
    let codes = |options: &BackupOptions| {
        let report = backup::backup(&support::context(), &repo, options).unwrap();
        assert_eq!(report.manifest.partial, !report.warnings.is_empty());
        let warnings = report.warnings.iter();
        let warnings = warnings.map(|w| (w.code, String::from_utf8_lossy(&w.path).into_owned()));
        warnings.collect::<Vec<_>>()
    };
    let code = |code, path: &str| (code, path.to_string());

    let sound = ["data/app.db", "data/fresh.db", "data/*.none"];
    assert_eq!(
        codes(&patterned(dir.path(), Some(&["config.toml"]), &sound)),
        []
    );
    assert_eq!(codes(&patterned(dir.path(), None, &sound)), []);
    assert_eq!(
        codes(&patterned(
            dir.path(),
            Some(&["gone", "data/**"]),
            &["no/app.db"]
        )),
        [code("missing", "no/app.db"), code("missing", "gone")]
    );
    assert_eq!(
        codes(&patterned(
            dir.path(),
            None,
            &["data/torn.db", "data/link.db"]
        )),
        [
            code("no-database", "data/torn.db"),
            code("no-database", "data/link.db")
        ]
    );
    let left_out = BackupOptions {
        exclude: vec!["data/".into()],
        ..patterned(dir.path(), Some(&["config.toml"]), &["data/gone.db"])
    };
    assert_eq!(codes(&left_out), []);
}

#[test]
fn a_narrow_backup_takes_databases_whole_and_its_series_prefers_its_scope() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["data", "data/agents", "logs"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("data/agents/one.toml"), "x").unwrap();
    fs::write(dir.path().join("logs/noise.log"), "y").unwrap();
    let app = dir.path().join("data/app.db");
    let connection = rusqlite::Connection::open(&app).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (7)")
        .unwrap();
    let repo = support::create(Arc::new(MemoryStore::new()), false, Some(cache.path()));
    let full = BackupOptions {
        profile: "app".into(),
        ..patterned(dir.path(), None, &["data/app.db"])
    };
    let agents = BackupOptions {
        scope: "agents".into(),
        profile: "app".into(),
        ..patterned(dir.path(), Some(&["data/agents/**"]), &["data/app.db"])
    };
    let run = |options| backup::backup(&support::context(), &repo, options).unwrap();

    let first = run(&full);
    let narrow = run(&agents);
    let second = run(&full);
    let narrow_again = run(&agents);

    assert_eq!(narrow.manifest.parent, first.snapshot);
    assert_eq!(second.manifest.parent, first.snapshot);
    assert_eq!(narrow_again.manifest.parent, narrow.snapshot);
    for report in [&narrow, &second, &narrow_again] {
        assert_eq!(
            report.manifest.figures.read_bytes, 0,
            "{:?}",
            report.manifest
        );
        assert!(!report.manifest.partial);
    }
    assert_eq!((narrow.databases.len(), second.databases.len()), (1, 1));
    let model = support::model_in(&repo, &narrow.snapshot.unwrap()).unwrap();
    let paths: Vec<_> = model
        .keys()
        .map(|p| String::from_utf8_lossy(p).into_owned())
        .collect();
    assert_eq!(
        paths,
        [
            "",
            "data",
            "data/agents",
            "data/agents/one.toml",
            "data/app.db"
        ]
    );
    let target = dir.path().join("restored");
    support::restore(&repo, &narrow, &target);
    let restored = rusqlite::Connection::open(target.join("data/app.db")).unwrap();
    let x: i64 = restored
        .query_row("SELECT x FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(x, 7);
}
