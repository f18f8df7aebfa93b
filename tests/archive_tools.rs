//! Archives as other programs read and write them. A program that is not installed is said, loudly.

use crate::export::backup;
use crate::export::exported;
use crate::export::of_format;
use crate::export::plain_repo;
use crate::export::write_app;
use crate::import::imported;
use crate::support::Model;
use crate::support::model_in;
use crate::support::model_of;
use statekeep::ops::archive::Format;
use statekeep::ops::export::ExportOptions;
use statekeep::ops::import::Outcome;
use std::fs;
use std::path::Path;
use std::process::Command;
use zeroize::Zeroizing;

/// Returns whether there is such a program, and says so if there is none.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output();
    let found = found.is_ok_and(|output| !output.stdout.is_empty() || !output.stderr.is_empty());
    if !found {
        eprintln!("SKIPPED: {program} is not installed, so nothing is known of what it reads");
    }
    found
}

fn run(dir: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
}

/// The root and our manifest are not members like the others.
fn without_frame(mut model: Model) -> Model {
    model.remove(&b""[..]);
    model.remove(&b"MANIFEST.json"[..]);
    model
}

#[test]
fn every_format_is_unpacked_as_it_was_by_the_programs_that_people_have() {
    let scratch = tempfile::tempdir().unwrap();
    let app = scratch.path().join("app");
    write_app(&app);
    let repo = plain_repo();
    let report = backup(&repo, &app).unwrap();
    let wanted = without_frame(model_of(&app));
    let python = "import sys, tarfile; tarfile.open('a').extractall('.', **(\
        {'filter': 'fully_trusted'} if sys.version_info >= (3, 12) else {}))";
    let table: [(Format, &str, &[&str]); 7] = [
        (Format::TarGz, "tar", &["-xpzf", "a"]),
        (Format::Tar, "tar", &["-xpf", "a"]),
        (Format::TarGz, "bsdtar", &["-xpf", "a"]),
        (Format::TarZst, "bsdtar", &["-xpf", "a"]),
        (Format::Tar, "bsdtar", &["-xpf", "a"]),
        (Format::Zip, "bsdtar", &["-xpf", "a"]),
        (Format::TarGz, "python3", &["-c", python]),
    ];
    for (format, program, arguments) in table {
        if !has(program) {
            continue;
        }
        let (archive, _) = exported(&repo, &report, &of_format(format)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), archive).unwrap();

        run(dir.path(), program, arguments);

        fs::remove_file(dir.path().join("a")).unwrap();
        assert!(
            without_frame(model_of(dir.path())) == wanted,
            "{format} {program}"
        );
    }
}

#[test]
fn a_zip_is_unpacked_as_it_was_by_unzip() {
    if !has("unzip") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let app = scratch.path().join("app");
    write_app(&app);
    let repo = plain_repo();
    let report = backup(&repo, &app).unwrap();
    let (archive, _) = exported(&repo, &report, &of_format(Format::Zip)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), archive).unwrap();

    run(dir.path(), "unzip", &["-qt", "a"]);
    run(dir.path(), "unzip", &["-q", "a"]);

    fs::remove_file(dir.path().join("a")).unwrap();
    // It changes what is not printable in names.
    let is_plain = |path: &Vec<u8>| !path.starts_with(b"strange");
    let only_plain = |mut model: Model| {
        model.retain(|path, _| is_plain(path));
        without_frame(model)
    };
    assert!(only_plain(model_of(dir.path())) == only_plain(model_of(&app)));
}

#[test]
fn what_other_programs_pack_is_imported_as_it_was() {
    let scratch = tempfile::tempdir().unwrap();
    let app = scratch.path().join("app");
    write_app(&app);
    let mut wanted = model_of(&app);
    wanted.remove(&b""[..]);
    let python = "import tarfile; t = tarfile.open('../p.tar', 'w'); t.add('.'); t.close()";
    let table: [(&str, &str, &[&str]); 6] = [
        ("g.tar.gz", "tar", &["-czf", "../g.tar.gz", "."]),
        ("o.tar", "tar", &["--format=gnu", "-cf", "../o.tar", "."]),
        ("x.tar", "tar", &["--format=posix", "-cf", "../x.tar", "."]),
        (
            "b.tar.zst",
            "bsdtar",
            &["--zstd", "-cf", "../b.tar.zst", "."],
        ),
        ("b.zip", "bsdtar", &["--format=zip", "-cf", "../b.zip", "."]),
        ("p.tar", "python3", &["-c", python]),
    ];
    for (name, program, arguments) in table {
        if !has(program) {
            continue;
        }
        run(&app, program, arguments);

        let repo = plain_repo();
        let report = imported(&repo, &scratch.path().join(name)).unwrap();

        let Outcome::Imported(id) = report.outcome else {
            panic!("{name}: {:?}", report.outcome);
        };
        let mut now = model_in(&repo, &id).unwrap();
        now.remove(&b""[..]);
        assert!(now == wanted, "{name}");
    }
}

/// Answers the question of a program at a terminal of its own.
const ANSWER: &str = r#"
import os, pty, sys
pid, tty = pty.fork()
if pid == 0:
    os.execvp('age', ['age', '-d', '-o', 'plain', 'sealed'])
seen = b''
while b'passphrase' not in seen:
    seen += os.read(tty, 1000)
os.write(tty, b'correct horse\n')
try:
    while os.read(tty, 1000):
        pass
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn an_encrypted_export_is_opened_by_age() {
    if !has("age") || !has("python3") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let app = scratch.path().join("app");
    fs::create_dir(&app).unwrap();
    fs::write(app.join("file"), "content").unwrap();
    let repo = plain_repo();
    let report = backup(&repo, &app).unwrap();
    let plain = of_format(Format::TarGz);
    let sealed = ExportOptions {
        passphrase: Some(Zeroizing::new("correct horse".to_string())),
        ..of_format(Format::TarGz)
    };
    let (mut wanted, _) = exported(&repo, &report, &plain).unwrap();
    let (sealed, _) = exported(&repo, &report, &sealed).unwrap();
    fs::write(scratch.path().join("sealed"), sealed).unwrap();

    run(scratch.path(), "python3", &["-c", ANSWER]);

    // The manifest of an encrypted one is for its owner alone.
    let mut found = fs::read(scratch.path().join("plain")).unwrap();
    assert_eq!(found[..2], [0x1f, 0x8b]);
    for archive in [&mut wanted, &mut found] {
        fs::write(scratch.path().join("a"), &archive).unwrap();
        let listed = Command::new("tar")
            .args(["-xzOf", "a"])
            .current_dir(scratch.path())
            .output();
        *archive = listed.unwrap().stdout;
    }
    assert!(found == wanted && found.ends_with(b"content"));
}
