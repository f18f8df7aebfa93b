//! Archives years later: verified by what lies in and beside them, and against their snapshot;
//! encrypted ones; the same bytes whatever became of the repository; by hand; killed; on a full disk.
//!
//! The long run: `STATEKEEP_KILLS=500 cargo test --release archive_proof -- --nocapture`

use crate::archive_cli::Home;
use crate::archive_cli::last_line;
use crate::export::write_app;
use crate::export::write_database;
use crate::forge::Tar;
use crate::forge::gz;
use crate::forge::tar;
use crate::kill::SmallDisk;
use crate::support::Model;
use crate::support::Seeded;
use crate::support::model_of;
use age::secrecy::SecretString;
use rusqlite::Connection;
use serde_json::Value;
use statekeep::error::Error;
use statekeep::ops::archive::Archive;
use statekeep::ops::archive::bytes::Passphrase;
use statekeep::ops::archive::listing;
use statekeep::ops::archive::listing::Limits;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

const FORMATS: [&str; 4] = ["tar.gz", "tar.zst", "tar", "zip"];

fn checked(home: &Home, arguments: &[&str], exit: i32) -> Value {
    let arguments = [&["check", "--json"][..], arguments].concat();
    let output = home.run(&arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(exit),
        "{arguments:?} {said} {}",
        String::from_utf8_lossy(&output.stdout)
    );
    last_line(&output.stdout)
}

fn problems(summary: &Value) -> Vec<String> {
    let problems = summary["problems"].as_array().unwrap().iter();
    problems
        .map(|problem| problem["path"].as_str().unwrap().to_string())
        .collect()
}

#[test]
fn an_archive_is_what_was_exported_with_and_without_its_repository() {
    let home = Home::new();
    write_app(&home.path("app"));
    home.done(&["backup", "app", "--exact"]);
    for format in FORMATS {
        let name = format!("a.{format}");
        home.run(&["export", "latest", "-o", &name]);

        let both = checked(&home, &[&name], 0);

        assert_eq!(both["repository"]["compared"], true, "{format}: {both}");
        assert_eq!(both["repository"]["known_by"], "exported");
        assert_eq!(
            (&both["manifest"], &both["sum_compared"]),
            (&"own".into(), &true.into())
        );
        assert_eq!(both["problem_count"], 0);
    }
    let part = home.run(&["export", "latest:rules", "-o", "part.tar.gz"]);
    assert!(part.status.success());
    assert_eq!(
        checked(&home, &["part.tar.gz"], 0)["repository"]["compared"],
        true
    );
    home.run(&["export", "latest", "--compact", "-o", "small.zip"]);
    assert_eq!(
        checked(&home, &["small.zip"], 0)["repository"]["compared"],
        true
    );

    // Its snapshot goes, and then the whole repository.
    home.done(&["backup", "app", "--tag", "later"]);
    let id = checked(&home, &["a.zip"], 0)["repository"]["snapshot"]
        .as_str()
        .unwrap()
        .to_string();
    home.done(&["forget", &id[..12], "--confirm"]);
    let gone = checked(&home, &["a.zip"], 3);
    let reason = gone["repository"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("not in the repository any more"),
        "{reason}"
    );
    fs::remove_dir_all(home.path("repo")).unwrap();
    assert_eq!(
        checked(&home, &["a.tar.gz"], 3)["repository"]["compared"],
        false
    );
    let alone = home.exits(&["check", "a.tar.gz", "-r", "nowhere"], 10);
    assert!(alone.contains("no repository"), "{alone}");
}

/// Packs a tar of an export anew, with something changed.
fn repacked(plain: &[u8], change: impl Fn(&mut Vec<Tar>)) -> Vec<u8> {
    let mut members = Vec::new();
    for entry in tar::Archive::new(plain).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path_bytes().into_owned();
        let mut member = match entry.header().entry_type() {
            tar::EntryType::Directory => Tar::of(b'5', &path, b""),
            _ => Tar::file(&path),
        };
        member.content.clear();
        std::io::copy(&mut entry, &mut member.content).unwrap();
        member.mode = entry.header().mode().unwrap();
        members.push(member);
    }
    change(&mut members);
    tar(&members)
}

#[test]
fn every_wrong_file_is_named() {
    let home = Home::new();
    fs::write(home.path("app/data/more"), "more\n").unwrap();
    home.done(&["backup", "app", "--exact"]);
    home.done(&["export", "latest", "-o", "a.tar"]);
    let whole = fs::read(home.path("a.tar")).unwrap();
    fs::remove_file(home.path("a.tar.sha256")).unwrap();
    let write = |bytes: &[u8]| fs::write(home.path("b.tar"), bytes).unwrap();

    write(&repacked(&whole, |_| {}));
    assert_eq!(
        checked(&home, &["b.tar"], 0)["repository"]["known_by"],
        "manifest"
    );
    type Change = fn(&mut Vec<Tar>);
    let all: Change = |members| {
        let files = members.iter_mut().filter(|member| member.kind == b'0');
        files.skip(1).for_each(|file| file.content[0] ^= 1);
    };
    let table: [(Change, &[&str]); 5] = [
        (all, &["config.toml", "data/more", "data/notes"]),
        (|members| members[1].mode = 0o4755, &["config.toml"]),
        (|members| members.truncate(3), &["data/more", "data/notes"]),
        (|members| members.push(Tar::file(b"new")), &["new"]),
        (|members| members.swap(3, 4), &["data/more"]),
    ];
    for (number, (change, wanted)) in table.iter().enumerate() {
        write(&repacked(&whole, change));
        let summary = checked(&home, &["b.tar"], 4);
        assert_eq!(problems(&summary), *wanted, "{number}: {summary}");
    }
}

#[test]
fn flipped_bytes_are_found_in_the_file_that_they_are_in() {
    let home = Home::new();
    home.done(&["export", "latest", "-o", "a.tar"]);
    home.done(&["export", "latest", "-o", "c.zip"]);
    fs::remove_file(home.path("a.tar.sha256")).unwrap();

    // In a tar only the manifest knows.
    let mut bytes = fs::read(home.path("a.tar")).unwrap();
    let at = bytes.windows(5).rposition(|part| part == b"notes");
    bytes[at.unwrap()] ^= 1;
    fs::write(home.path("a.tar"), bytes).unwrap();
    assert_eq!(problems(&checked(&home, &["a.tar"], 4)), ["data/notes"]);
    let text = home.exits(&["check", "a.tar"], 4);
    assert!(
        text.contains("DAMAGED  data/notes: has another content"),
        "{text}"
    );

    // In a zip each member has a checksum, and the others are read.
    let mut bytes = fs::read(home.path("c.zip")).unwrap();
    let behind = bytes.windows(4).rposition(|part| part == b"PK\x07\x08");
    bytes[behind.unwrap() - 3] ^= 1;
    fs::write(home.path("c.zip"), bytes).unwrap();
    let found = problems(&checked(&home, &["c.zip"], 4));
    // The second is that of the file beside it.
    assert_eq!(found, ["data/notes", ""]);
}

#[test]
fn a_forged_archive_with_a_true_manifest_is_not_the_snapshot() {
    let home = Home::new();
    home.done(&["export", "latest", "-o", "a.tar"]);
    let forged = fs::read_to_string(home.path("a.tar")).unwrap();
    let (old, new) = ("port = 1", "port = 2");
    let sum = |text: &str| {
        let bytes = format!("{text}\n");
        statekeep::codec::sha256::Sha256Sum::of_reader(bytes.as_bytes())
            .unwrap()
            .to_string()
    };
    let forged = forged.replace(old, new).replace(&sum(old), &sum(new));
    fs::write(home.path("b.tar"), forged).unwrap();

    let summary = checked(&home, &["b.tar"], 4);

    assert_eq!(problems(&summary), ["config.toml"]);
    assert_eq!(summary["repository"]["known_by"], "manifest");
    fs::remove_dir_all(home.path("repo")).unwrap();
    let foreign = tar(&[Tar::file(b"a")]);
    fs::write(home.path("c.tar.gz"), gz(&foreign)).unwrap();
    let text = home.exits(&["check", "c.tar.gz"], 3);
    assert!(text.contains("nothing says what it should be"), "{text}");
}

#[test]
fn imports_and_backups_of_applications_are_compared_with_their_snapshots() {
    let home = Home::new();
    write_database(&home.path("app/app.db"));
    home.done(&["backup", "app", "--exact"]);
    home.done(&[
        "export",
        "latest",
        "--layout",
        "app",
        "-o",
        "app_20260601_143022.db",
    ]);
    let foreign = tar(&[Tar::of(b'5', b"d", b""), Tar::file(b"d/a")]);
    fs::write(home.path("old.tar.gz"), gz(&foreign)).unwrap();
    // Only the superuser can keep owners, and others are told so.
    let is_root = rustix::process::geteuid().is_root();
    home.exits(&["import", "old.tar.gz"], if is_root { 0 } else { 3 });

    let database = checked(&home, &["./app_20260601_143022.db"], 0);
    let imported = checked(&home, &["old.tar.gz"], 0);

    assert_eq!(
        (&database["format"], &database["repository"]["compared"]),
        (&"db".into(), &true.into())
    );
    assert_eq!(imported["repository"]["known_by"], "imported");
    assert_eq!(imported["repository"]["compared"], true);
}

/// Encrypts with little work, so that many can be tried.
fn sealed(plain: &[u8]) -> Vec<u8> {
    let mut recipient =
        age::scrypt::Recipient::new(SecretString::from("correct horse".to_string()));
    recipient.set_work_factor(2);
    let recipients = std::iter::once(&recipient as &dyn age::Recipient);
    let mut out = Vec::new();
    let mut sealer = age::Encryptor::with_recipients(recipients)
        .unwrap()
        .wrap_output(&mut out)
        .unwrap();
    sealer.write_all(plain).unwrap();
    sealer.finish().unwrap();
    out
}

#[test]
fn encrypted_archives_are_checked_restored_and_imported() {
    let home = Home::new();
    write_app(&home.path("app"));
    home.done(&["backup", "app", "--exact"]);
    fs::write(home.path("pass"), "correct horse\n").unwrap();
    fs::write(home.path("wrong"), "wrong\n").unwrap();
    let with = ["--decrypt-password-file", "pass"];
    home.done(&[
        "export",
        "latest",
        "--encrypt-password-file",
        "pass",
        "-o",
        "real.tar.gz.age",
    ]);
    assert_eq!(
        checked(&home, &[&["real.tar.gz.age"][..], &with].concat(), 0)["encrypted"],
        true
    );
    for format in FORMATS {
        let (plain, name) = (format!("a.{format}"), format!("a.{format}.age"));
        home.run(&["export", "latest", "-o", &plain]);
        fs::write(
            home.path(&name),
            sealed(&fs::read(home.path(&plain)).unwrap()),
        )
        .unwrap();

        let summary = checked(&home, &[&[&*name][..], &with].concat(), 0);
        assert_eq!(summary["repository"]["known_by"], "manifest", "{format}");
        home.run(&[&["restore", &*name, "--to", "new", "--confirm"][..], &with].concat());
        let (mut now, mut before) = (model_of(&home.path("new")), model_of(&home.path("app")));
        now.remove(&b""[..]);
        before.remove(&b""[..]);
        assert!(now == before, "{format}");
        fs::remove_dir_all(home.path("new")).unwrap();
        let imported = home.exits(&[&["import", &*name][..], &with].concat(), 0);
        assert!(imported.contains("snapshot"), "{imported}");
    }
    let wrong = ["--decrypt-password-file", "wrong"];
    for command in [
        &["check"][..],
        &["import"],
        &["restore", "--to", "x", "--confirm"],
    ] {
        let text = home.exits(&[command, &["a.zip.age"], &wrong[..]].concat(), 12);
        assert!(text.contains("does not open"), "{text}");
        let text = home.exits(&[command, &["a.zip.age"]].concat(), 12);
        assert!(text.contains("--decrypt-password-file"), "{text}");
    }
}

#[test]
fn encrypted_archives_that_were_cut_or_forged_are_damaged_wherever_that_was() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a.age");
    let passphrase = Some(Passphrase::new("correct horse".to_string()));
    let content = Tar {
        content: Seeded::new(1).bytes(150_000),
        ..Tar::file(b"a")
    };
    let zipped = crate::forge::zip(&[crate::forge::Zip::file(b"a", &content.content)]);
    let tarred = tar(&[content]);
    for plain in [tarred.clone(), gz(&tarred), zipped] {
        let whole = sealed(&plain);
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let archive = Archive::open(&path, passphrase.as_ref())?.unwrap();
            listing::list(&crate::support::context(), &archive, &Limits::default())
        };
        assert_eq!(read(&whole).unwrap().members.len(), 1);
        for part in 1..30 {
            let at = whole.len() * part / 30;
            let cut = read(&whole[..at]).map(drop);
            assert!(
                matches!(cut, Err(Error::Corrupt { .. })),
                "cut {at}: {cut:?}"
            );
            let mut forged = whole.clone();
            forged[at] ^= 1;
            let forged = read(&forged).map(drop);
            assert!(
                matches!(forged, Err(Error::Corrupt { .. })),
                "forged {at}: {forged:?}"
            );
        }
    }
}

/// Changes most of what is there, and keeps the rest where it is.
fn churn(home: &Home, random: &mut Seeded) {
    for number in 0..20 {
        let content = random.text(3000);
        fs::write(home.path(&format!("app/rules/{number}.toml")), content).unwrap();
    }
    let mut big = fs::read(home.path("app/data/big.bin")).unwrap();
    for _ in 0..5 {
        let at = random.below(big.len() as u64) as usize;
        big[at] ^= 0xff;
    }
    fs::write(home.path("app/data/big.bin"), big).unwrap();
    let connection = Connection::open(home.path("app/data/app.db")).unwrap();
    let sql = format!(
        "UPDATE t SET y = hex(randomblob(40)) WHERE x % 7 = {}",
        random.below(7)
    );
    connection.execute(&sql, []).unwrap();
}

#[test]
fn an_export_is_the_same_whatever_became_of_the_repository() {
    let home = Home::new();
    write_app(&home.path("app"));
    let mut random = Seeded::new(11);
    fs::write(home.path("app/data/big.bin"), random.bytes(600_000)).unwrap();
    for _ in 0..5 {
        churn(&home, &mut random);
        home.done(&["backup", "app", "--exact"]);
    }
    let list = last_line(&home.run(&["list", "--json"]).stdout);
    let id = list["items"][2]["id"].as_str().unwrap().to_string();
    let table: [(&str, &[&str]); 6] = [
        ("tar.gz", &[]),
        ("tar.zst", &[]),
        ("tar", &[]),
        ("zip", &[]),
        ("zip", &["--only", "*.toml"]),
        ("tar", &["--compact"]),
    ];
    let exports = |label: &str| -> Vec<Vec<u8>> {
        let archives = table.iter().enumerate().map(|(number, (format, options))| {
            let name = format!("{label}{number}.{format}");
            let arguments = [&["export", &*id, "-o", &*name][..], options].concat();
            let output = home.run(&arguments);
            assert!(matches!(output.status.code(), Some(0 | 3)), "{arguments:?}");
            let archive = fs::read(home.path(&name)).unwrap();
            fs::remove_file(home.path(&name)).unwrap();
            archive
        });
        archives.collect()
    };
    let before = exports("before");

    home.done(&["hold", &id]);
    let pruned = home.run(&[
        "prune",
        "--keep-last",
        "1",
        "--max-unused",
        "0",
        "--confirm",
        "--json",
    ]);
    assert!(pruned.status.success());
    let pruned = last_line(&pruned.stdout);
    assert!(
        pruned.to_string().contains("\"rewrite_packs\":")
            && !pruned.to_string().contains("\"rewrite_packs\":0"),
        "{pruned}"
    );
    assert!(exports("pruned") == before, "after a prune");
    home.done(&["gc", "--max-unused", "0", "--confirm"]);
    home.done(&["check", "--repair", "--read-data", "--confirm"]);
    assert!(exports("repaired") == before, "after gc and repair");
    // Another machine knows nothing but the repository.
    fs::rename(home.path("home"), home.path("home-of-another")).unwrap();
    assert!(exports("elsewhere") == before, "from another machine");
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed, so nothing is known of what it reads");
    }
    found
}

fn shell(home: &Home, script: &str) {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(home.path(""))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn rows(path: &Path) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap()
}

/// The commands of the document of each application, with nothing of ours.
#[test]
fn backups_of_the_applications_are_restored_by_hand_as_their_documents_say() {
    if !has("tar") || !has("unzip") {
        return;
    }
    let home = Home::new();
    for dir in [
        "hc/data",
        "hc/config",
        "hc/rules",
        "hz/data/agents/one",
        "hz/data/memory",
        "cc/databases/default",
    ] {
        fs::create_dir_all(home.path(dir)).unwrap();
    }
    for (path, text) in [
        ("hc/config/homecore.toml", "a = 1"),
        ("hc/config/modes.toml", "b = 1"),
        ("hc/rules/night.toml", "c = 1"),
        ("hz/config.toml", "d = 1"),
        ("hz/.env", "KEY=1"),
        ("hz/data/agents/one/manifest.toml", "e = 1"),
        ("hz/data/memory/notes", "f"),
    ] {
        fs::write(home.path(path), text).unwrap();
    }
    for path in [
        "hc/data/history.db",
        "hz/keys.db",
        "hz/audit.db",
        "hz/data/hoziron.db",
        "cc/databases/default/app.db",
    ] {
        write_database(&home.path(path));
    }
    let redb = redb::Database::create(home.path("hc/data/state.redb")).unwrap();
    drop(redb);
    let before = model_of(&home.path("hz"));
    for (dir, name) in [
        ("hc", "homecore-backup-20260328-143022.zip"),
        ("hz", "hoziron-backup-20260605_020000.tar.gz"),
        ("cc", "app_20260601_143022.db"),
    ] {
        home.done(&["backup", dir, "--exact"]);
        home.done(&["export", "latest", "--layout", "app", "-o", name]);
    }

    shell(
        &home,
        "unzip -l homecore-backup-20260328-143022.zip >&2
        unzip -q homecore-backup-20260328-143022.zip -d hc-restore
        mkdir -p opt/data opt/config opt/rules
        cp hc-restore/data/state.redb opt/data/
        cp hc-restore/data/history.db opt/data/
        cp hc-restore/config/*.toml opt/config/
        cp hc-restore/rules/*.toml opt/rules/",
    );
    shell(
        &home,
        "sha256sum -c hoziron-backup-20260605_020000.tar.gz.sha256
        mkdir hz-restore; tar -xzpf hoziron-backup-20260605_020000.tar.gz -C hz-restore",
    );
    shell(
        &home,
        "mkdir -p data; cp app_20260601_143022.db data/app.db",
    );

    assert_eq!(rows(&home.path("opt/data/history.db")), 1000);
    redb::Database::open(home.path("opt/data/state.redb")).unwrap();
    let text = |path: &str| fs::read_to_string(home.path(path)).unwrap();
    assert_eq!(
        text("opt/config/modes.toml") + &text("opt/rules/night.toml"),
        "b = 1c = 1"
    );
    let mut now = model_of(&home.path("hz-restore"));
    let manifest = now.remove(&b"MANIFEST.json"[..]).unwrap().2;
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    for field in ["id", "timestamp", "scope", "version", "files"] {
        assert!(manifest.get(field).is_some(), "{field}");
    }
    let without_root = |mut model: Model| {
        model.remove(&b""[..]);
        model
    };
    assert!(without_root(now) == without_root(before));
    assert_eq!(rows(&home.path("data/app.db")), 1000);
}

fn spawn(home: &Home, arguments: &[&str]) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_statekeep"))
        .env_clear()
        .envs(crate::support::taken_away())
        .env("HOME", home.path("home"))
        .env("STATEKEEP_REPO", home.path("repo"))
        .env("TMPDIR", home.path("tmp"))
        .current_dir(home.path(""))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn kills() -> u64 {
    std::env::var("STATEKEEP_KILLS").map_or(5, |text| text.parse().unwrap())
}

/// What has its name is whole.
fn whole_or_not_there(app: &Model, back: &Path) {
    for (path, node) in model_of(back) {
        let name = String::from_utf8_lossy(&path).into_owned();
        let is_temporary = name.contains(".statekeep") || name.contains(".tmp");
        if node.1 == "file" && !is_temporary {
            assert!(app.get(&path).is_some_and(|was| was.2 == node.2), "{name}");
        }
    }
}

#[test]
fn kill_during_export_import_and_restore_leaves_whole_things_or_none() {
    let home = Home::new();
    write_app(&home.path("app"));
    fs::create_dir(home.path("tmp")).unwrap();
    home.done(&["backup", "app", "--exact"]);
    home.done(&["export", "latest", "-o", "good.tar.gz"]);
    home.done(&["forget", "latest", "--confirm"]);
    home.done(&["backup", "app", "--exact"]);
    let good = checked(&home, &["good.tar.gz"], 3)["sha256"].clone();
    // As long as one takes that is not killed, and a little longer.
    let started_at = std::time::Instant::now();
    home.done(&["export", "latest", "-o", "whole.tar.gz"]);
    let most = started_at.elapsed().as_micros() as u64 * 5 / 4;
    let mut random = Seeded::new(3);
    let mut killed = |arguments: &[&str]| {
        let mut child = spawn(&home, arguments);
        std::thread::sleep(Duration::from_micros(random.below(most)));
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let app = model_of(&home.path("app"));
    let (mut exports, mut imports) = (0, 0);
    for kill in 0..kills() {
        killed(&["export", "latest", "-o", "out.tar.gz", "--overwrite"]);
        if home.path("out.tar.gz").exists() {
            exports += 1;
            let summary = last_line(&home.run(&["check", "out.tar.gz", "--json"]).stdout);
            assert_eq!(summary["problem_count"], 0, "export {kill}: {summary}");
        }

        killed(&["import", "good.tar.gz"]);
        let list = home.run(&["list", "--json", "--tag", "import:good.tar.gz"]);
        let count = last_line(&list.stdout)["items"].as_array().unwrap().len();
        assert!(count <= 1, "import {kill}");
        imports += count;

        killed(&["restore", "good.tar.gz", "--to", "back", "--confirm"]);
        if home.path("back").exists() {
            whole_or_not_there(&app, &home.path("back"));
            fs::remove_dir_all(home.path("back")).unwrap();
        }
    }
    // When it is not killed, everything is done, and nothing stays.
    home.done(&[
        "restore",
        "good.tar.gz",
        "--to",
        "back",
        "--overwrite",
        "--confirm",
    ]);
    home.done(&["import", "good.tar.gz"]);
    home.done(&["export", "latest", "-o", "out.tar.gz", "--overwrite"]);
    home.done(&["check", "--read-data"]);
    let again = checked(&home, &["good.tar.gz"], 0);
    assert_eq!(
        (&again["sha256"], &again["repository"]["known_by"]),
        (&good, &"imported".into())
    );
    eprintln!(
        "{} kills of each, {exports} exports and {imports} imports in spite of them",
        kills()
    );
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_half() {
    let home = Home::new();
    write_app(&home.path("app"));
    fs::write(home.path("app/noise"), Seeded::new(2).bytes(3_000_000)).unwrap();
    home.done(&["backup", "app", "--exact"]);
    home.done(&["export", "latest", "-o", "good.tar.gz"]);
    let Some(_disk) = SmallDisk::mount(home.path("small"), "size=4m") else {
        eprintln!("SKIPPED: mounting a small tmpfs needs root");
        return;
    };
    let left = || -> Vec<_> {
        let entries = fs::read_dir(home.path("small")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };

    home.exits(&["export", "latest", "-o", "small/a.tar.gz"], 16);
    assert!(left().is_empty(), "{:?}", left());
    home.exits(
        &["restore", "good.tar.gz", "--to", "small/app", "--confirm"],
        16,
    );
    assert!(left().is_empty(), "{:?}", left());
    let import = Command::new(env!("CARGO_BIN_EXE_statekeep"))
        .env_clear()
        .envs(crate::support::taken_away())
        .env("HOME", home.path("home"))
        .env("STATEKEEP_REPO", home.path("repo"))
        .env("STATEKEEP_CACHE_DIR", home.path("small/cache"))
        .args(["import", home.path("good.tar.gz").to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(
        import.status.code(),
        Some(16),
        "{}",
        String::from_utf8_lossy(&import.stderr)
    );
    home.done(&["import", "good.tar.gz"]);
    home.done(&["check", "--read-data"]);
}
