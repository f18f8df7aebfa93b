//! What the kernel is asked to make durable, and before what: the orders that a power loss needs on
//! a real disk, where no simulated one stands between.

use crate::oracle::Place;
use crate::oracle::stderr;
use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::process::Stdio;

const TRACED: &str = "trace=fsync,fdatasync,syncfs,rename,renameat,renameat2,link,linkat,unlink,\
    unlinkat,rmdir,mkdir,mkdirat,symlinkat";
const SYNCS: [&str; 3] = ["fsync", "fdatasync", "syncfs"];

/// Calls in their order: a sync counts when it is done, anything else when it begins.
struct Calls(Vec<String>);

impl Calls {
    /// Runs the command under strace, with this injected; returns its exit code too. `None` says
    /// why not.
    fn of(place: &Place, inject: Option<&str>, args: &[&str], test: &str) -> Option<(Calls, i32)> {
        Calls::among(TRACED, place, inject, args, test)
    }

    fn among(
        traced: &str,
        place: &Place,
        inject: Option<&str>,
        args: &[&str],
        test: &str,
    ) -> Option<(Calls, i32)> {
        let probe = Command::new("strace")
            .args([
                "-o",
                "/dev/null",
                "-e",
                "inject=fsync:error=EIO:when=99",
                "true",
            ])
            .stderr(Stdio::null())
            .status();
        if !probe.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED {test}: strace is missing or may not trace");
            return None;
        }
        let log = place.path("trace");
        let log = log.to_str().unwrap();
        let mut tool = vec![
            "strace", "-f", "-y", "-qq", "-s", "300", "-o", log, "-e", traced,
        ];
        tool.extend(inject.iter().flat_map(|inject| ["-e", inject]));
        let output = place.command_under(&tool, args).output().unwrap();
        let code = output.status.code().unwrap();
        let text = fs::read_to_string(log).unwrap();
        if inject.is_none() {
            assert_eq!(code, 0, "{args:?}: {}", stderr(&output));
        }
        Some((Calls::parse(&text), code))
    }

    fn parse(text: &str) -> Calls {
        let mut begun: Vec<(&str, &str)> = Vec::new();
        let mut calls = Vec::new();
        for line in text.lines() {
            let (process, rest) = line.split_once(' ').unwrap_or(("", line));
            let rest = rest.trim_start();
            let is_sync = SYNCS
                .iter()
                .any(|sync| rest.starts_with(&format!("{sync}(")));
            if is_sync && rest.ends_with("<unfinished ...>") {
                begun.push((process, rest));
            } else if rest.starts_with("<...") {
                let of = begun.iter().position(|(other, _)| *other == process);
                calls.extend(of.map(|at| begun.remove(at).1.to_string()));
            } else if !rest.contains(" = -1 ") {
                calls.push(rest.to_string());
            }
        }
        Calls(calls)
    }

    /// Returns the first call from there on that has all of these in it.
    fn find(&self, from: usize, parts: &[&str]) -> Option<usize> {
        let has_all = |call: &String| parts.iter().all(|part| call.contains(part));
        let found = self.0.iter().skip(from).position(has_all);
        found.map(|at| from + at)
    }

    fn first(&self, from: usize, parts: &[&str]) -> usize {
        let found = self.find(from, parts);
        found.unwrap_or_else(|| panic!("no {parts:?} from {from} on in:\n{}", self.text()))
    }

    fn last(&self, parts: &[&str]) -> usize {
        let has_all = |call: &String| parts.iter().all(|part| call.contains(part));
        let found = self.0.iter().rposition(has_all);
        found.unwrap_or_else(|| panic!("no {parts:?} in:\n{}", self.text()))
    }

    fn text(&self) -> String {
        let lines = self.0.iter().enumerate();
        let lines: Vec<String> = lines.map(|(at, call)| format!("{at} {call}")).collect();
        lines.join("\n")
    }

    /// Fails unless the one comes before the other.
    fn ordered(&self, why: &str, before: usize, after: usize) {
        assert!(
            before < after,
            "{why}: {before}, {after} in:\n{}",
            self.text()
        );
    }
}

fn real(place: &Place, name: &str) -> String {
    let path = fs::canonicalize(place.path("")).unwrap().join(name);
    path.to_str().unwrap().to_string()
}

fn place_with_files() -> Place {
    let place = Place::new();
    fs::write(place.app("one"), "one").unwrap();
    fs::write(place.app("two"), vec![7; 300_000]).unwrap();
    assert!(place.backup().status.success());
    place
}

#[test]
fn an_export_is_durable_before_its_name_and_with_its_name_before_success() {
    let place = place_with_files();
    fs::create_dir(place.path("out")).unwrap();
    let args = ["export", "latest", "-o", "out/a.tar"];
    let Some((calls, _)) = Calls::of(&place, None, &args, "an_export_is_durable") else {
        return;
    };

    let out = real(&place, "out");
    let content = calls.first(0, &["fsync(", &format!("<{out}/")]);
    let name = calls.first(0, &["a.tar\""]);
    let names = calls.first(name, &["fsync(", &format!("<{out}>")]);
    calls.ordered("the content before the name", content, name);
    let sum = calls.find(name, &["link", "a.tar.sha256\""]);
    let sum = sum.unwrap_or_else(|| calls.first(name, &["rename", "a.tar.sha256\""]));
    calls.ordered("the archive before its sum", names, sum);
    calls.first(sum, &["fsync(", &format!("<{out}>")]);
}

#[test]
fn what_is_restored_is_durable_before_success() {
    let place = place_with_files();
    assert!(
        place
            .run(&["export", "latest", "-o", "a.tar"])
            .status
            .success()
    );
    for (from, to) in [("latest", "one"), ("a.tar", "two")] {
        let args = ["restore", from, "--to", to, "--confirm"];
        let Some((calls, _)) = Calls::of(&place, None, &args, "what_is_restored") else {
            return;
        };

        let to = real(&place, to);
        let last = calls.last(&["rename", &format!("<{to}>")]);
        calls.first(last, &["syncfs(", &format!("<{to}>")]);
    }
}

/// An application whose database is a link to nowhere, so that SQLite cannot merge the log beside
/// it, which has to make way. The snapshot has what was there before.
fn spoiled() -> Place {
    let place = Place::new();
    let app = place.path("app");
    fs::create_dir(app.join("data")).unwrap();
    let db = Connection::open(app.join("data/app.db")).unwrap();
    db.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .unwrap();
    drop(db);
    fs::write(app.join("zone"), "old").unwrap();
    std::os::unix::fs::symlink("zone", app.join("link")).unwrap();
    assert!(place.backup().status.success());
    fs::remove_file(app.join("data/app.db")).unwrap();
    std::os::unix::fs::symlink("nowhere", app.join("data/app.db")).unwrap();
    fs::write(app.join("data/app.db-wal"), "a log of nothing").unwrap();
    fs::write(app.join("zone"), "newer").unwrap();
    fs::remove_file(app.join("link")).unwrap();
    fs::create_dir(app.join("more")).unwrap();
    fs::write(app.join("more/file"), "x").unwrap();
    place
}

const STAGE: &str = "/app/.statekeep-restore";

#[test]
fn a_restore_in_place_is_in_the_order_that_survives_power_loss() {
    let place = spoiled();
    let id = place.snapshots()[0]["id"].as_str().unwrap().to_string();
    let args = ["restore", &id, "--in-place", "--delete", "--confirm"];
    let Some((calls, _)) = Calls::of(&place, None, &args, "a_restore_in_place") else {
        return;
    };

    let staged = calls.last(&["rename", &format!("{STAGE}/new"), "\".statekeep-"]);
    let staged_sync = calls.first(staged, &["sync", STAGE]);
    let journal = calls.first(0, &["rename", "/journal\""]);
    calls.first(staged, &["syncfs(", &format!("{STAGE}/new")]);
    calls.ordered("what is staged before the journal", staged_sync, journal);
    let content = calls.first(staged, &["fsync(", &format!("{STAGE}/.tmp-")]);
    calls.ordered("the journal before its name", content, journal);
    let named = calls.first(journal, &["fsync(", &format!("{STAGE}>")]);
    let log = calls.first(journal, &["renameat(", "app.db-wal\""]);
    calls.ordered(
        "the name of the journal before the first change",
        named,
        log,
    );
    let logs_gone = calls.first(log, &["syncfs("]);
    let database = calls.first(log, &["renameat(", &format!("{STAGE}/new"), "\"app.db\""]);
    calls.ordered(
        "the log goes before the database comes",
        logs_gone,
        database,
    );
    let last = calls.last(&["renameat(", &format!("{STAGE}/new")]);
    let published = calls.first(last, &["syncfs("]);
    let rest = calls.first(last, &["symlinkat("]);
    calls.ordered("the files before the rest", published, rest);
    let gone = calls.first(last, &["unlink", "/journal\""]);
    calls.ordered("all of it before the journal goes", published, gone);
    let gone_sync = calls.first(gone, &["fsync(", &format!("{STAGE}>")]);
    let removed = calls.first(gone + 1, &["unlink"]);
    calls.ordered("the journal before what it speaks of", gone_sync, removed);
}

#[test]
fn a_restore_in_place_that_fails_is_taken_back_and_in_order() {
    let mut taken_back = 0;
    for number in 2..=6 {
        let place = spoiled();
        let before = crate::support::model_of(&place.path("app"));
        let id = place.snapshots()[0]["id"].as_str().unwrap().to_string();
        let args = ["restore", &id, "--in-place", "--delete", "--confirm"];
        let inject = format!("inject=renameat:error=EIO:when={number}");
        let test = "a_restore_in_place_that_fails";
        let Some((calls, code)) = Calls::of(&place, Some(&inject), &args, test) else {
            return;
        };

        if code == 0 {
            continue;
        }
        let after = crate::support::model_of(&place.path("app"));
        assert_eq!(before, after, "renameat {number}:\n{}", calls.text());
        let old = format!("{STAGE}/old");
        let back = ["renameat(", &format!("{old}/data>"), "\"app.db\", "];
        let Some(database) = calls.find(0, &back) else {
            continue;
        };
        taken_back += 1;
        let log = calls.first(
            database,
            &["renameat(", &format!("{old}/data>"), "app.db-wal\""],
        );
        let synced = calls.first(database, &["syncfs("]);
        calls.ordered("the database before its log", synced, log);
        let logs = calls.first(log, &["syncfs("]);
        let gone = calls.first(log, &["unlink", "/journal\""]);
        calls.ordered("the log before the journal goes", logs, gone);
    }
    assert!(taken_back > 0);
}

/// A file without any rights, of somebody else: its owner may not have a look before it has none.
#[test]
fn a_restored_file_is_never_more_readable_than_it_will_be() {
    let test = "a_restored_file_is_never_more_readable";
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED {test}: only root gives files away");
        return;
    }
    let place = Place::new();
    fs::write(place.app("closed"), "nobody").unwrap();
    std::os::unix::fs::chown(place.app("closed"), Some(1000), Some(1000)).unwrap();
    fs::set_permissions(place.app("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    assert!(place.backup().status.success());
    let traced = "trace=openat,fchmod,fchown,fchownat,renameat,renameat2";
    let args = ["restore", "latest", "--to", "out", "--confirm"];
    let Some((calls, _)) = Calls::among(traced, &place, None, &args, test) else {
        return;
    };

    let temp = "/out/.statekeep-";
    let made = calls.first(0, &["openat(", "/out>", ".statekeep-", "O_CREAT"]);
    assert!(calls.0[made].contains(", 0600)"), "{}", calls.0[made]);
    let narrowed = calls.first(made, &["fchmod(", temp, ", 000)"]);
    let given = calls.first(made, &["fchown", temp, "1000"]);
    let named = calls.first(made, &["rename", "\"closed\""]);
    calls.ordered("its rights go before it gets its owner", narrowed, given);
    calls.ordered("its owner before its name", given, named);
}
