//! Every operation that changes something, how it is called, and how one tells that it was done.

use super::world::World;
use super::world::said;
use std::fs;

/// An operation.
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) args: &'static [&'static str],
    /// How else than with 0 a second run after a fault may end.
    pub(super) again: &'static [i32],
    /// Codes besides those of a machine that fails: a drill that could not restore has failed.
    pub(super) fails: &'static [i32],
    /// Which of the saved snapshots may be gone afterwards.
    pub(super) removes: &'static [usize],
    /// Which of the saved snapshots the application is to become.
    pub(super) becomes: Option<usize>,
    /// What it makes beside the repository.
    pub(super) makes: &'static [&'static str],
    /// Whether it was done, all of it.
    pub(super) done: fn(&World) -> Result<(), String>,
}

const PLAIN: Operation = Operation {
    name: "",
    args: &[],
    again: &[],
    fails: &[],
    removes: &[],
    becomes: None,
    makes: &[],
    done: |_| Ok(()),
};

/// All of them. What needs another state first, like `undo`, makes it in one shell.
pub(super) const ALL: &[Operation] = &[
    Operation {
        name: "init",
        args: &["-r", "new", "init"],
        // The first run may have come so far that there is one.
        again: &[1],
        makes: &["config/statekeep"],
        done: |world| runs(world, &["-r", "new", "backup", "app"]),
        ..PLAIN
    },
    Operation {
        name: "first-backup",
        args: &["-r", "repo2", "backup", "app"],
        done: |world| holds_app(world, "repo2"),
        ..PLAIN
    },
    Operation {
        name: "backup",
        args: &["backup", "-p", "app"],
        done: |world| holds_app(world, "repo"),
        ..PLAIN
    },
    Operation {
        name: "prune",
        args: &["prune", "--confirm"],
        removes: &[0],
        done: |world| counts(world, 2),
        ..PLAIN
    },
    Operation {
        name: "forget",
        args: &["forget", "{oldest}", "--confirm"],
        again: &[13],
        removes: &[0],
        done: |world| counts(world, 2),
        ..PLAIN
    },
    Operation {
        name: "hold",
        args: &["hold", "{oldest}"],
        done: |world| says(world, &["show", "{oldest}"], "eld"),
        ..PLAIN
    },
    Operation {
        name: "gc",
        args: &["gc", "--confirm"],
        ..PLAIN
    },
    Operation {
        name: "repair",
        args: &["check", "--read-data", "--repair", "--confirm"],
        ..PLAIN
    },
    Operation {
        name: "restore",
        args: &["restore", "{oldest}", "--to", "out", "--confirm"],
        makes: &["out"],
        done: |world| world.is_restored("out", 0),
        ..PLAIN
    },
    Operation {
        name: "in-place",
        args: &["restore", "{oldest}", "--in-place", "--confirm"],
        becomes: Some(0),
        done: |world| world.becomes(0),
        ..PLAIN
    },
    Operation {
        name: "export",
        args: &["export", "{oldest}", "-o", "x.tar.gz", "--overwrite"],
        makes: &["x.tar.gz", "x.tar.gz.sha256"],
        done: |world| runs(world, &["check", "x.tar.gz"]),
        ..PLAIN
    },
    Operation {
        name: "import",
        args: &["import", "e.tar.gz", "-p", "app"],
        done: |world| at_least(world, 4),
        ..PLAIN
    },
    Operation {
        name: "copy",
        args: &["copy", "--to", "repo2"],
        done: |world| {
            let copied = world.snapshots_in("repo2")?;
            let saved = world.saved.iter().map(|(_, model)| model);
            let lacks = saved.filter(|model| !copied.values().any(|copy| copy == *model));
            match lacks.count() {
                0 => runs(world, &["-r", "repo2", "check", "--read-data"]),
                count => Err(format!("{count} snapshots were not copied")),
            }
        },
        ..PLAIN
    },
    Operation {
        name: "key-add",
        args: &["key", "add", "--new-key-file", "k3"],
        // A key file that is there is not overwritten.
        again: &[1, 2],
        makes: &["k3"],
        done: |world| runs(world, &["key", "verify", "k3"]),
        ..PLAIN
    },
    Operation {
        name: "key-remove",
        args: &["key", "remove", "{key2}", "--confirm"],
        again: &[13],
        done: |world| fails(world, &["key", "verify", "k2"]),
        ..PLAIN
    },
    Operation {
        name: "key-rotate",
        args: &["key", "rotate", "--confirm"],
        done: |world| {
            fails(world, &["key", "verify", "k2"])?;
            runs(world, &["backup", "-p", "app"])
        },
        ..PLAIN
    },
    Operation {
        name: "key-export",
        args: &["key", "export", "-o", "kit.txt"],
        again: &[1, 2],
        makes: &["kit.txt"],
        done: |world| runs(world, &["key", "verify", "kit.txt"]),
        ..PLAIN
    },
    Operation {
        name: "drill",
        args: &["drill", "{oldest}"],
        fails: &[4],
        done: |world| says(world, &["show", "{oldest}"], "drill     ok"),
        ..PLAIN
    },
    Operation {
        name: "guard",
        args: &["guard", "-p", "app", "--", "true"],
        done: |world| at_least(world, 4),
        ..PLAIN
    },
    Operation {
        name: "report",
        args: &["report", "-o", "r.html", "--overwrite"],
        makes: &["r.html"],
        done: |world| match fs::read_to_string(world.path("r.html")) {
            Ok(page) if page.trim_end().ends_with("</html>") => Ok(()),
            other => Err(format!(
                "no whole report: {} bytes",
                other.map_or(0, |page| page.len())
            )),
        },
        ..PLAIN
    },
    Operation {
        name: "tune",
        args: &["tune", "--budget", "5s", "--apply", "--confirm"],
        // On a slow machine no time is enough for an answer; what cannot be replayed is refused.
        again: &[2],
        fails: &[2],
        done: |world| runs(world, &["config", "show"]),
        ..PLAIN
    },
];

fn runs(world: &World, args: &[&str]) -> Result<(), String> {
    let output = world.run(args);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{args:?}: {}", said(&output))),
    }
}

fn fails(world: &World, args: &[&str]) -> Result<(), String> {
    match world.run(args).status.success() {
        true => Err(format!("{args:?} succeeds")),
        false => Ok(()),
    }
}

fn says(world: &World, args: &[&str], word: &str) -> Result<(), String> {
    let output = world.run(args);
    match String::from_utf8_lossy(&output.stdout).contains(word) {
        true => Ok(()),
        false => Err(format!("{args:?} does not say `{word}`")),
    }
}

fn counts(world: &World, wanted: usize) -> Result<(), String> {
    match world.snapshots_in("repo")?.len() {
        count if count == wanted => Ok(()),
        count => Err(format!("there are {count} snapshots instead of {wanted}")),
    }
}

fn at_least(world: &World, wanted: usize) -> Result<(), String> {
    match world.snapshots_in("repo")?.len() {
        count if count >= wanted => Ok(()),
        count => Err(format!("there are only {count} snapshots")),
    }
}

fn holds_app(world: &World, repo: &str) -> Result<(), String> {
    let files = |model: &crate::support::Model| {
        let nodes = model.iter().filter(|(_, node)| node.1 == "file");
        nodes
            .map(|(path, node)| (path.clone(), node.clone()))
            .collect::<Vec<_>>()
    };
    let found = world.snapshots_in(repo)?;
    match found
        .values()
        .any(|model| files(model) == files(&world.app))
    {
        true => Ok(()),
        false => Err("no snapshot holds the application as it is".to_string()),
    }
}
