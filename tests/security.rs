//! What `docs/security.md` promises and no other test holds, with the real binary.

use crate::support;
use rusqlite::Connection;
use statekeep::codec::cipher::Suite;
use statekeep::context::Context;
use statekeep::format::container;
use statekeep::format::container::DataKeys;
use statekeep::format::container::ObjectKind;
use statekeep::format::keyfile::KeyFile;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use tempfile::TempDir;

/// A person with an application, whose program runs under a umask.
struct Person {
    dir: TempDir,
    umask: &'static str,
    passphrase: Option<&'static str>,
}

impl Person {
    fn new(umask: &'static str) -> Person {
        let person = Person {
            dir: TempDir::new().unwrap(),
            umask,
            passphrase: None,
        };
        for name in ["app", "tmp"] {
            fs::create_dir(person.path(name)).unwrap();
        }
        person
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new("sh");
        command
            .args(["-c", "umask $0; exec \"$@\"", self.umask])
            .arg(env!("CARGO_BIN_EXE_statekeep"))
            .args(["-r", "repo"])
            .args(args)
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("TMPDIR", self.path("tmp"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("STATEKEEP_CACHE_DIR", self.path("cache"))
            .env_remove("STATEKEEP_PASSWORD")
            .stdin(Stdio::null());
        if let Some(passphrase) = self.passphrase {
            command.env("STATEKEEP_PASSWORD", passphrase);
        }
        command.output().unwrap()
    }

    fn must(&self, args: &[&str]) -> Output {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        output
    }
}

/// Returns every file and directory below, by path.
fn below(root: &Path) -> BTreeMap<PathBuf, fs::Metadata> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                todo.push(path.clone());
            }
            found.insert(path, metadata);
        }
    }
    found
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

const PASSPHRASE: &str = "Zanarik-passphrase-4711";
/// Contents, names, tags and hosts; each is long enough not to occur by chance.
const CONTENTS: [&str; 2] = ["Zanarik-content-0815", "Zanarik-row-0816"];
const NAMES: [&str; 5] = [
    "Zanarik-directory",
    "Zanarik-name",
    "Zanarik-tag",
    "Zanarik-db",
    "Zanarik-table",
];

fn fill(app: &Path) {
    fs::create_dir(app.join(NAMES[0])).unwrap();
    let text = format!("{}\n", CONTENTS[0]).repeat(50);
    fs::write(app.join(NAMES[0]).join(NAMES[1]), &text).unwrap();
    let large = [text.as_bytes(), &support::Seeded::new(3).bytes(600_000)].concat();
    fs::write(app.join("large"), large).unwrap();
    let db = Connection::open(app.join(NAMES[3])).unwrap();
    let sql = format!(
        "CREATE TABLE \"{}\" (x); INSERT INTO \"{0}\" VALUES ('{}')",
        NAMES[4], CONTENTS[1]
    );
    db.execute_batch(&sql).unwrap();
}

/// Everything a person does. What each prints is returned.
fn use_everything(person: &Person) -> Vec<(String, Output)> {
    let spy = "tr '\\0' '\\n' < /proc/self/environ; tr '\\0' ' ' < /proc/$PPID/cmdline; \
               ps -ww -o args= -p $PPID; true";
    let commands: Vec<Vec<&str>> = vec![
        vec!["init"],
        vec!["backup", "app", "-v"],
        vec!["backup", "app", "--tag", NAMES[2], "--json"],
        vec!["list", "--json"],
        vec!["show", "latest", "--json"],
        vec!["ls", "latest"],
        vec!["status", "--json"],
        vec!["stats", "--json"],
        vec!["find", "large"],
        vec!["diff", "latest~1", "latest"],
        vec!["check", "--read-data", "-v"],
        vec!["drill", "latest", "--json"],
        vec!["restore", "latest", "--to", "out", "--confirm", "-v"],
        vec!["restore", "latest", "--in-place", "--confirm", "--json"],
        vec!["undo", "--confirm"],
        vec!["guard", "--path", "app", "--", "sh", "-c", spy],
        vec!["key", "add", "--new-key-file", "k2", "--json"],
        vec!["key", "list", "--json"],
        vec!["key", "verify", "k2"],
        vec!["report", "-o", "report.html"],
        vec!["prune", "--keep-last", "1", "--confirm", "--json"],
        vec!["gc", "--confirm"],
        vec!["repo", "info"],
        // What goes wrong is told, and tells nothing either.
        vec!["key", "verify", "app/large"],
        vec!["show", "nonsense"],
        vec!["--password-command", "false", "list"],
        vec!["--key-file", "app/large", "list"],
    ];
    let run = |args: Vec<&str>| (args.join(" "), person.run(&args));
    commands.into_iter().map(run).collect()
}

/// The store is told no name and no content, everybody else no secret.
#[test]
fn nothing_secret_is_in_a_store_in_what_is_printed_or_in_another_process() {
    for passphrase in [Some(PASSPHRASE), None] {
        let mut person = Person::new("022");
        person.passphrase = passphrase;
        fill(&person.path("app"));

        let said = use_everything(&person);

        let mut secrets: Vec<Vec<u8>> = vec![PASSPHRASE.as_bytes().to_vec()];
        for (path, _) in below(&person.path("config")) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            if let Ok(key) = KeyFile::decode(&text) {
                secrets.push(key.secret.to_vec());
                secrets.push(statekeep::id::hex(&*key.secret).into_bytes());
                let lines = text.lines().filter(|line| line.starts_with("key-"));
                secrets.extend(lines.filter_map(|line| Some(line.get(7..26)?.as_bytes().to_vec())));
            }
        }
        // The passphrase, and of key file and kit the secret, its digits and its four lines.
        assert_eq!(secrets.len(), 13);
        let failed = said.iter().filter(|(_, output)| !output.status.success());
        let failed: Vec<&str> = failed.map(|(command, _)| command.as_str()).collect();
        assert_eq!(failed.len(), 4, "{failed:?}");
        for (command, output) in &said {
            let text = [&output.stdout[..], &output.stderr].concat();
            let told = secrets.iter().any(|secret| holds(&text, secret));
            assert!(!told, "`{command}` tells a secret");
            let told = CONTENTS
                .iter()
                .any(|content| holds(&text, content.as_bytes()));
            assert!(!told, "`{command}` tells what is in a file");
        }
        for (path, metadata) in below(&person.path("repo")) {
            let bytes = match metadata.is_file() {
                true => fs::read(&path).unwrap(),
                false => Vec::new(),
            };
            let name = path.to_str().unwrap().to_string();
            for canary in CONTENTS.iter().chain(&NAMES).map(|text| text.as_bytes()) {
                let is_there = holds(&bytes, canary) || holds(name.as_bytes(), canary);
                assert!(
                    !is_there,
                    "{name} holds {}",
                    String::from_utf8_lossy(canary)
                );
            }
            assert!(
                !secrets.iter().any(|secret| holds(&bytes, secret)),
                "{name}"
            );
        }
        for (path, metadata) in below(&person.path("cache")) {
            let bytes = match metadata.is_file() {
                true => fs::read(&path).unwrap(),
                false => Vec::new(),
            };
            let canaries = secrets.iter().map(Vec::as_slice);
            let canaries = canaries.chain(CONTENTS.iter().map(|text| text.as_bytes()));
            for canary in canaries {
                assert!(!holds(&bytes, canary), "{} holds a secret", path.display());
            }
        }
        assert!(
            below(&person.path("tmp")).is_empty(),
            "temporary files stay"
        );
    }
}

/// I9: repository, cache, keys and reports are their owner's alone; what is restored is as it was.
#[test]
fn no_mode_is_wider_than_it_should_be_under_any_umask() {
    for umask in ["0000", "0022", "0077"] {
        let person = Person::new(umask);
        let app = person.path("app");
        let modes = [
            ("env", 0o600),
            ("page", 0o644),
            ("tool", 0o750),
            ("open", 0o666),
        ];
        for (name, mode) in modes {
            fs::write(app.join(name), name).unwrap();
            fs::set_permissions(app.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(&app, fs::Permissions::from_mode(0o750)).unwrap();

        for args in [
            &["init"][..],
            &["backup", "app"],
            &["key", "add", "--new-key-file", "k2"],
            &["key", "export", "-o", "kit.txt"],
            &["export", "latest", "-o", "all.tar.gz"],
            &["export", "latest", "-o", "all.zip"],
            &["report", "-o", "report.html"],
            &["restore", "latest", "--to", "out", "--confirm"],
            &["restore", "latest", "--in-place", "--confirm"],
            &["drill", "latest"],
            &["key", "rotate", "--confirm"],
            &["prune", "--keep-last", "1", "--confirm"],
        ] {
            person.must(args);
        }

        for (path, metadata) in below(person.dir.path()) {
            let name = path.strip_prefix(person.dir.path()).unwrap();
            let mode = metadata.permissions().mode() & 0o7777;
            let is_sum = name.extension().is_some_and(|end| end == "sha256");
            let made = ["app", "out", "tmp"]
                .iter()
                .all(|other| !name.starts_with(other));
            if made && !is_sum {
                assert_eq!(mode & 0o077, 0, "{umask}: {} has {mode:o}", name.display());
            }
        }
        for (name, mode) in modes {
            for place in ["out", "app"] {
                let restored = person.path(place).join(name).metadata().unwrap();
                let restored = restored.permissions().mode() & 0o7777;
                assert_eq!(restored, mode, "{umask}: {place}/{name} has {restored:o}");
            }
        }
    }
}

/// A store that shows an older state of itself is found out by a client that has seen more; one
/// without memory cannot know.
#[test]
fn a_store_that_is_set_back_is_found_out_by_who_remembers() {
    let person = Person::new("022");
    fs::write(person.path("app/f"), "one").unwrap();
    person.must(&["init"]);
    person.must(&["backup", "app"]);
    let places = [person.path("repo"), person.path("old")];
    let copied = Command::new("cp").arg("-a").args(places).status();
    assert!(copied.unwrap().success());
    fs::write(person.path("app/f"), "two").unwrap();
    person.must(&["backup", "app"]);
    fs::rename(person.path("repo"), person.path("new")).unwrap();
    fs::rename(person.path("old"), person.path("repo")).unwrap();

    for args in [
        &["backup", "app"][..],
        &["list"],
        &["check"],
        &["restore", "latest", "--to", "o"],
    ] {
        let output = person.run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{args:?}: {said}");
        assert!(said.contains("error[rolled-back]"), "{said}");
    }

    fs::remove_dir_all(person.path("cache")).unwrap();
    person.must(&["list"]);
}

/// Objects of one repository mean nothing in another one, and none in the place of another.
#[test]
fn objects_that_are_swapped_cut_or_brought_from_elsewhere_are_found() {
    let (one, other) = (Person::new("022"), Person::new("022"));
    for (person, text) in [(&one, "one"), (&other, "other")] {
        person.must(&["init"]);
        for version in 0..3 {
            fs::write(
                person.path("app/f"),
                format!("{text} {version}").repeat(200),
            )
            .unwrap();
            person.must(&["backup", "app"]);
        }
    }
    let objects = |person: &Person, folder: &str| -> Vec<PathBuf> {
        let found = below(&person.path("repo").join(folder));
        found.into_keys().collect()
    };
    for folder in ["packs", "log"] {
        let (ours, theirs) = (objects(&one, folder), objects(&other, folder));
        // A log without its last slot is that of some time ago, to all who do not remember it.
        let at = match folder {
            "log" => ours.len() - 1,
            _ => 0,
        };
        let sound = fs::read(&ours[at]).unwrap();
        let another = fs::read(&ours[1]).unwrap();
        let foreign = fs::read(&theirs[at]).unwrap();
        let cut = sound[..sound.len() - 20].to_vec();
        for (what, bytes) in [("another", &another), ("foreign", &foreign), ("cut", &cut)] {
            fs::write(&ours[at], bytes).unwrap();

            let output = one.run(&["check", "--read-data"]);

            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(4), "{folder} {what}: {said}");
            fs::write(&ours[at], &sound).unwrap();
        }
    }
    one.must(&["check", "--read-data"]);
}

/// A key seals each nonce once: the key of an object comes from its salt, so no two objects may
/// have one salt; within an object nonces count. `STATEKEEP_SEALS=10000000` is the long run.
#[test]
fn no_salt_comes_twice() {
    let seals = std::env::var("STATEKEEP_SEALS").map_or(50_000, |text| text.parse().unwrap());
    let keys = DataKeys::new(Suite::Aes256Gcm, vec![(1, [1; 32])]).unwrap();
    let cx = Context::new();
    let mut salts: Vec<[u8; 24]> = Vec::with_capacity(seals);

    for _ in 0..seals {
        let object = container::seal(&keys, ObjectKind::Pack, cx.random_bytes().unwrap(), b"x");
        salts.push(object[16..40].try_into().unwrap());
    }

    salts.sort_unstable();
    assert!(salts.windows(2).all(|pair| pair[0] != pair[1]));
}
