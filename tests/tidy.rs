//! Checks the shape of the code itself: layering, ownership of crates, size, headers. A failure
//! names the file, the line and the rule. It reads text, so a `crate::` path inside a string
//! counts, and checks stop at the first `#[cfg(test)]` of a file.

use std::fs;
use std::path::{Path, PathBuf};

/// Bottom row first. A module may name only modules from rows below its own.
/// The rows follow the layers of the design document.
const LAYERS: &[&[&str]] = &[
    &["id", "safeguard"],
    &["error"],
    &["context"],
    &["disk"],
    &["chunker", "codec", "store", "source"],
    &["format"],
    &["repo"],
    &["ops"],
    &["keeper"],
    &["config"],
    &["server"],
    &["cli"],
];

/// The sample application of the demo is a user of the engines like any other application.
const SAMPLE: &str = "ops/demo/application";

/// Crates and constructs, each with the only places that may use it.
const OWNED: &[(&str, &[&str])] = &[
    ("age::", &["codec/age_file.rs"]),
    ("argon2::", &["format/key.rs"]),
    ("async fn", &["server"]),
    ("axum::", &["server"]),
    ("clap::", &["cli"]),
    ("flate2::", &["codec/gzip.rs", "ops/demo/archive.rs"]),
    ("rawzip::", &["ops/archive"]),
    ("redb::", &["source/redb", SAMPLE]),
    ("rustls::", &["ops/notify/client.rs"]),
    ("rustls_native_certs::", &["ops/notify/client.rs"]),
    ("rusqlite::", &["source/sqlite", SAMPLE]),
    ("sha2::", &["codec/sha256.rs"]),
    ("sled::", &["source/sled"]),
    ("tar::", &["ops/archive", "ops/demo/archive.rs"]),
    ("thread::scope", &["ops"]),
    ("thread::spawn", &["ops"]),
    ("tokio::", &["server"]),
    ("ureq::", &["ops/notify/client.rs"]),
    ("aws_lc_rs::", &["codec/cipher.rs", "ops/notify/client.rs"]),
    ("fastcdc::", &["chunker"]),
    ("zstd_safe::", &["codec/zstd.rs"]),
];

const FILE_LINES_MAX: usize = 500;
const LINE_CHARS_MAX: usize = 100;

#[test]
fn source_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut problems = Vec::new();

    for path in rust_files(&root) {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        check_file(&name, &fs::read_to_string(&path).unwrap(), &mut problems);
    }

    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_test_file_is_included() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let main = fs::read_to_string(tests.join("main.rs")).unwrap();

    for entry in fs::read_dir(&tests).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|&module| module != "main") {
            assert!(
                main.contains(&format!("mod {module};")),
                "tests/main.rs lacks `mod {module};`"
            );
        }
    }
}

#[test]
fn upward_import_is_reported() {
    let mut problems = Vec::new();

    check_file(
        "store/local.rs",
        "//! Doc.\nuse crate::repo::Repo;\n",
        &mut problems,
    );

    assert_eq!(
        problems,
        ["store/local.rs:2: `store` may not import `repo` (not a lower layer)"]
    );
}

fn check_file(name: &str, text: &str, problems: &mut Vec<String>) {
    let module = name.split(['/', '.']).next().unwrap();
    let is_root = matches!(name.strip_suffix(".rs"), Some("lib" | "main"));
    // Unit tests sit at the end of a file and may reach anywhere.
    let code = text.split("#[cfg(test)]").next().unwrap();
    let mut report = |line: usize, rule: String| problems.push(format!("{name}:{line}: {rule}"));

    if !text.starts_with("//!") {
        report(1, "must start with a `//!` header".into());
    }
    if FILE_LINES_MAX < code.lines().count() {
        report(
            1,
            format!("has more than {FILE_LINES_MAX} lines before its tests"),
        );
    }
    for (index, line) in code.lines().enumerate() {
        let number = index + 1;
        if LINE_CHARS_MAX < line.chars().count() {
            report(
                number,
                format!("is longer than {LINE_CHARS_MAX} characters"),
            );
        }
        if line.contains("TODO") && !line.contains("TODO(#") {
            report(number, "a TODO must carry an issue: TODO(#41)".into());
        }
        let line = line.split("//").next().unwrap();
        if line.contains("crate::{") {
            report(
                number,
                "write one `use crate::module::Name` per line".into(),
            );
        }
        for target in line.split("crate::").skip(1).map(leading_identifier) {
            if !is_root && !target.is_empty() && target != module && layer(module) <= layer(target)
            {
                report(
                    number,
                    format!("`{module}` may not import `{target}` (not a lower layer)"),
                );
            }
        }
        // Our own modules have the names of the crates they read for.
        let line = line
            .replace("source::redb::", "")
            .replace("source::sled::", "");
        for (token, homes) in OWNED {
            let is_home = homes.iter().any(|home| name.starts_with(home));
            if names(&line, token) && !line.contains("crate::") && !is_home {
                report(
                    number,
                    format!("`{token}` may be used only in {}", homes.join(", ")),
                );
            }
        }
    }
}

/// Whether a line has the token, and not as the end of a longer name.
fn names(line: &str, token: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(token)
        .any(|(at, _)| !line[..at].ends_with(is_part))
}

/// Unknown names rank above every layer, so importing one is always reported.
fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|row| row.contains(&module))
        .unwrap_or(LAYERS.len())
}

fn leading_identifier(text: &str) -> &str {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    &text[..end]
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
