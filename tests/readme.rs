//! Every command that the README shows, and that other documents mark like it, run as it stands there.

use statekeep::config;
use statekeep::config::Place;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Returns the fenced blocks with this info string.
fn blocks(text: &str, info: &str) -> Vec<String> {
    let fence = format!("```{info}\n");
    let parts = text.split(&fence).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap().to_string())
        .collect()
}

#[test]
fn commands_of_the_readme_work_as_they_stand_there() {
    let dir = follow("README.md");

    assert!(dir.path().join("restored/config/app.toml").exists());
}

#[test]
fn commands_of_the_document_about_operation_work_as_they_stand_there() {
    let dir = follow("docs/operate.md");
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operate.md");
    let shown = &blocks(&fs::read_to_string(document).unwrap(), "toml")[0];
    let place = Place {
        file: "/etc/statekeep/config.toml".into(),
        home: None,
    };
    assert!(config::parse(shown, &place).is_ok());

    assert!(dir.path().join("statekeep.prom").exists());
}

/// Runs what a document shows in a directory of its own.
fn follow(document: &str) -> TempDir {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = fs::read_to_string(document).unwrap();
    let dir = TempDir::new().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_statekeep")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let scripts = blocks(&text, "sh statekeep");
    assert!(!scripts.is_empty());

    for script in scripts {
        let output = Command::new("sh")
            .args(["-euc", &script])
            .current_dir(dir.path())
            .env("PATH", &path)
            .env("HOME", dir.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .output()
            .unwrap();

        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{said}");
    }
    dir
}

/// Returns the two commands that the README begins with.
fn two_commands() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    blocks(&fs::read_to_string(readme).unwrap(), "sh")
}

#[test]
fn the_readme_names_the_two_commands() {
    let ci = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/run");

    let commands = two_commands();

    assert_eq!(commands.len(), 2);
    // CI runs the second one to the letter.
    assert!(fs::read_to_string(ci).unwrap().ends_with(&commands[1]));
}

/// On a smaller application, so that it takes a moment.
#[test]
fn the_first_command_needs_nothing_and_ends_well() {
    let dir = TempDir::new().unwrap();
    let command = two_commands()[0].trim().to_string();
    let arguments = command
        .strip_prefix("cargo run --release --locked -- ")
        .unwrap();

    let output = Command::new(env!("CARGO_BIN_EXE_statekeep"))
        .args(arguments.split(' '))
        .args(["--size-mib", "2", "--backups", "2"])
        .env_clear()
        .envs(crate::support::taken_away())
        .env("TMPDIR", dir.path())
        .output()
        .unwrap();

    assert!(output.status.success(), "{output:?}");
}
