//! What `--json` writes is what `docs/schema` says, for every command, on a pipe and on a terminal.
//!
//! The schemas use a part of JSON Schema that is small enough to be judged here; one that uses more
//! fails. Nothing but JSON may come, and the last line of an operation is a summary or an error.

use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

const BINARY: &str = env!("CARGO_BIN_EXE_statekeep");

/// Commands that write for other programs and have no JSON; they say so in JSON.
const WITHOUT: [&str; 3] = ["cat", "completions", "man"];
/// Takes twenty seconds: `tests/demo.rs` runs it and has what it writes judged here.
const ELSEWHERE: [&str; 1] = ["demo"];

/// The schemas by the names of their files.
pub(crate) fn schemas() -> BTreeMap<String, Value> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema");
    let files = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let schemas = files.filter(|path| path.extension().is_some_and(|end| end == "json"));
    schemas
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_string();
            let text = fs::read_to_string(&path).unwrap();
            (name, serde_json::from_str(&text).unwrap())
        })
        .collect()
}

/// Returns the name of the schema for a line, and what is wrong with the line.
pub(crate) fn judge(schemas: &BTreeMap<String, Value>, line: &Value) -> (String, Vec<String>) {
    let kind = line["type"].as_str().unwrap_or("");
    let name = match (kind, line["op"].as_str()) {
        ("summary", Some(op)) if op.starts_with("key-") => "summary-key".to_string(),
        ("summary", Some(op)) => format!("summary-{op}"),
        _ => kind.to_string(),
    };
    let mut wrong = Vec::new();
    match schemas.get(&name) {
        Some(schema) => validate(schema, line, "", &mut wrong),
        None => wrong.push(format!("there is no schema {name:?}")),
    }
    (name, wrong)
}

fn validate(schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    for (word, rule) in schema.as_object().unwrap() {
        let fits = match word.as_str() {
            "$schema" | "title" | "description" | "contentEncoding" => true,
            "type" => match rule.as_array() {
                Some(types) => types.iter().any(|one| is_of_type(value, one)),
                None => is_of_type(value, rule),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.is_null() || value.as_f64() >= rule.as_f64(),
            "pattern" => value.is_null() || fits_pattern(rule, value),
            "format" => value.is_null() || is_utc_time(value.as_str().unwrap_or("")),
            "anyOf" => fits_any(rule, value, at, wrong),
            "items" => {
                for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(rule, item, &format!("{at}[{number}]"), wrong);
                }
                true
            }
            "properties" => {
                for (name, rule) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        validate(rule, value, &format!("{at}.{name}"), wrong);
                    }
                }
                true
            }
            "required" => {
                let missing = rule.as_array().unwrap().iter();
                let missing = missing.filter(|name| value.get(name.as_str().unwrap()).is_none());
                wrong.extend(missing.map(|name| format!("{at}: {name} is missing")));
                true
            }
            "additionalProperties" => {
                let known = schema["properties"].as_object().unwrap();
                let names = value
                    .as_object()
                    .into_iter()
                    .flat_map(|object| object.keys());
                let unknown = names.filter(|name| *rule == false && !known.contains_key(*name));
                wrong.extend(unknown.map(|name| format!("{at}: {name} is not in the schema")));
                true
            }
            other => panic!("the schema says {other:?}, which is not judged here"),
        };
        if !fits {
            wrong.push(format!("{at}: {value} does not fit {word} {rule}"));
        }
    }
}

fn fits_any(rule: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) -> bool {
    let mut nearest: Option<Vec<String>> = None;
    for one in rule.as_array().unwrap() {
        let mut faults = Vec::new();
        validate(one, value, at, &mut faults);
        if nearest
            .as_ref()
            .is_none_or(|least| faults.len() < least.len())
        {
            nearest = Some(faults);
        }
    }
    wrong.extend(nearest.unwrap_or_default());
    true
}

fn is_of_type(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("{other:?} is no type"),
    }
}

/// The schemas know two patterns: ids of 32 or 64 digits, and of 64.
fn fits_pattern(rule: &Value, value: &Value) -> bool {
    let text = value.as_str().unwrap_or("");
    let is_hex = text
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match rule.as_str().unwrap() {
        "^[0-9a-f]{64}$" => is_hex && text.len() == 64,
        "^([0-9a-f]{32}|[0-9a-f]{64})$" => is_hex && [32, 64].contains(&text.len()),
        other => panic!("the pattern {other:?} is not judged here"),
    }
}

fn is_utc_time(text: &str) -> bool {
    text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
}

/// A home with an application, and what its commands wrote.
struct World {
    home: tempfile::TempDir,
    schemas: BTreeMap<String, Value>,
    used: BTreeSet<String>,
    commands: BTreeSet<String>,
    wrong: Vec<String>,
    has_terminal: bool,
}

impl World {
    fn new() -> World {
        let home = tempfile::tempdir().unwrap();
        let has_terminal = Command::new("script").arg("--version").output().is_ok();
        if !has_terminal {
            let skipped = "SKIPPED: there is no `script` to see JSON on a terminal with";
            let _ = writeln!(std::io::stderr(), "{skipped}");
        }
        World {
            home,
            schemas: schemas(),
            used: BTreeSet::new(),
            commands: BTreeSet::new(),
            wrong: Vec::new(),
            has_terminal,
        }
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn prepare(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("STATEKEEP_REPO", self.path("repo"))
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command on a pipe, and on a terminal if there is one, and judges what comes.
    fn run(&mut self, line: &str) {
        self.name(line);
        let words = line.split(' ').filter(|word| !word.is_empty());
        let output = self.prepare(BINARY).arg("--json").args(words).output();
        let output = output.unwrap();
        self.judge(line, &output.stdout, output.status.code());
        if self.has_terminal {
            let shell = format!("{BINARY} --json {line} 2>/dev/null");
            let output = self
                .prepare("script")
                .args(["-qec", &shell, "/dev/null"])
                .output()
                .unwrap();
            self.judge(
                &format!("{line} (terminal)"),
                &output.stdout,
                output.status.code(),
            );
        }
    }

    /// Notes which command of the program it is.
    fn name(&mut self, line: &str) {
        let before_options = line.split(" -- ").next().unwrap_or("");
        let mut words = before_options.split(' ').filter(|word| !word.is_empty());
        let mut name = Vec::new();
        while let Some(word) = words.next() {
            match word {
                "-c" | "-p" | "-r" | "--password-file" => drop(words.next()),
                _ if word.starts_with('-') => {}
                _ if word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') => name.push(word),
                _ => break,
            }
        }
        for count in 1..=name.len() {
            self.commands.insert(name[..count].join(" "));
        }
    }

    fn judge(&mut self, line: &str, stdout: &[u8], exit: Option<i32>) {
        let text = String::from_utf8_lossy(stdout);
        let mut values = Vec::new();
        for written in text.lines() {
            match serde_json::from_str::<Value>(written) {
                Ok(value) => values.push(value),
                Err(_) => self.wrong.push(format!("{line}: not JSON: {written}")),
            }
        }
        for value in &values {
            let (name, faults) = judge(&self.schemas, value);
            self.wrong.extend(
                faults
                    .iter()
                    .map(|fault| format!("{line}: {name}: {fault}")),
            );
            self.used.insert(name);
        }
        self.ends_well(line, &values, exit);
    }

    fn ends_well(&mut self, line: &str, values: &[Value], exit: Option<i32>) {
        let kind = |value: &Value| value["type"].as_str().unwrap_or("").to_string();
        let is_final = |value: &&Value| ["summary", "error"].contains(&kind(value).as_str());
        let finals = values.iter().filter(is_final).count();
        let Some(last) = values.last() else {
            return self.wrong.push(format!("{line}: wrote nothing"));
        };
        let is_operation = values.iter().any(|value| kind(value) == "start");
        let is_one = values.len() == 1 || is_operation;
        if !is_one || (is_operation && (finals != 1 || !is_final(&last))) {
            let kinds: Vec<String> = values.iter().map(kind).collect();
            self.wrong
                .push(format!("{line}: lines in a wrong order: {kinds:?}"));
        }
        let told = last["exit"].as_i64();
        if told.is_some() && told != exit.map(i64::from) {
            self.wrong
                .push(format!("{line}: says exit {told:?} and exits {exit:?}"));
        }
    }
}

/// Returns every command that does something, from the help of the program itself.
fn commands_of(parent: &str) -> Vec<String> {
    let words = parent.split(' ').filter(|word| !word.is_empty());
    let output = Command::new(BINARY).args(words).arg("--help").output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let listed = text.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    let mut all = Vec::new();
    for name in names.filter(|name| *name != "help") {
        let name = format!("{parent} {name}").trim().to_string();
        let below = commands_of(&name);
        match below.is_empty() {
            true => all.push(name),
            false => all.extend(below),
        }
    }
    all
}

fn prepare(world: &World) {
    world.write("app/config.toml", "port = 1\n");
    world.write("app/rules/a.toml", "x = 1\n");
    std::os::unix::fs::symlink("config.toml", world.path("app/link")).unwrap();
    let database = rusqlite::Connection::open(world.path("app/data.db")).unwrap();
    let rows = "create table t(a integer primary key, b text); insert into t(b) values('x'), ('y')";
    database.execute_batch(rows).unwrap();
    let (repo, other, app) = (world.path("repo"), world.path("other"), world.path("app"));
    world.write(
        "sk.toml",
        &format!(
            "version = 1\n\
             [repo.main]\nurl = \"{repo}\"\n\
             [repo.other]\nurl = \"{other}\"\n\
             [defaults]\nrepo = \"main\"\n\
             [profile.app]\nroot = \"{app}\"\ndatabases = [\"data.db\"]\n\
             files = [\"*.toml\", \"rules/**\"]\nkeep = {{ last = 2 }}\n\
             scope.rules = {{ files = [\"rules/**\"] }}\n"
        ),
    );
    world.write("bad.toml", "version = 1\n[profle.x]\nroot = 1\n");
    world.write("pass", "correct horse");
    world.write("pass2", "battery staple");
}

/// A change between two runs.
fn change(world: &World, number: u32) {
    world.write("app/config.toml", &format!("port = {number}\n"));
    let database = rusqlite::Connection::open(world.path("app/data.db")).unwrap();
    database
        .execute("insert into t(b) values(?1)", [number])
        .unwrap();
}

/// What is run, in order. `=` changes the application. `-c sk.toml -p app` is written `@`.
const RUNS: &str = "\
list
doctor
init -n
init
init
backup app --tag one
backup nothing
=
backup app
backup -n app
@ backup
@ backup --scope rules
-c sk.toml --all backup
list
-c sk.toml list
show latest
ls latest
ls latest:rules
cat latest:config.toml
find *.toml
diff latest~1 latest
=
@ diff latest --rows
status
-c sk.toml status
check
check --read-data
check --repair -n
check --repair
stats
report -o r.html
tune app --budget 1s
drill
drill -n
hold latest
hold latest --until 2099-01-01
hold latest --release
restore latest --to o1
restore latest --to o1 --confirm
@ restore latest --in-place
@ restore latest --in-place --confirm
@ undo
@ undo --confirm
export latest -o a.tar.gz
export latest -o a.tar.gz
check a.tar.gz
restore a.tar.gz --to o2
restore a.tar.gz --to o2 --confirm
import a.tar.gz
import -n a.tar.gz
guard --path app -- true
guard --path app -- false
guard status
guard rollback
guard rollback --confirm
forget tag:one -n
forget tag:one --confirm
prune -n --keep-last 2
prune --keep-last 2
prune --keep-last 2 --confirm
gc -n
gc --confirm
init -r other
copy --to other -n
copy --to other
copy --to other
key list
key add --new-password-file pass
key add --new-key-file k2
key verify k2
key import -n k2
key export -o kit
--password-file pass key change-password --new-password-file pass2
key remove ffff --confirm
key rotate -n
key rotate --confirm
repo info
profile list
-c sk.toml profile list
@ profile show app
profile detect app
profile example homecore
-c sk.toml config check
-c bad.toml config check
doctor
-c sk.toml doctor
-c bad.toml doctor
-c sk.toml config show --origin
-c sk.toml config path
config schema
version
--help
backup --help
nonsense
--password-file pass list
show ffff
-r none list
completions bash
man";

#[test]
fn what_every_command_writes_for_programs_is_what_its_schema_says() {
    let mut world = World::new();
    prepare(&world);

    let mut number = 1;
    for line in RUNS.lines() {
        if line == "=" {
            number += 1;
            change(&world, number);
            continue;
        }
        world.run(&line.replace('@', "-c sk.toml -p app"));
    }

    assert!(world.wrong.is_empty(), "{}", world.wrong.join("\n"));
    let all: BTreeSet<String> = commands_of("").into_iter().collect();
    let exempt = |name: &&String| ELSEWHERE.contains(&name.as_str());
    let missed: Vec<_> = all
        .difference(&world.commands)
        .filter(|name| !exempt(name))
        .collect();
    assert!(
        missed.is_empty(),
        "nothing is known of the JSON of {missed:?}"
    );
    // Each tells a wrong option as JSON, wherever it stands in the tree.
    for name in &all {
        world.run(&format!("{name} --no-such-option"));
    }
    assert!(world.wrong.is_empty(), "{}", world.wrong.join("\n"));
    assert!(WITHOUT.iter().all(|name| world.commands.contains(*name)));
    // `demo` has its own; a progress line takes half a second to come.
    let rare = ["backup", "restore", "summary-demo", "progress", "warning"];
    let unused = world
        .schemas
        .keys()
        .filter(|name| !world.used.contains(*name));
    let unused: Vec<_> = unused
        .filter(|name| !rare.contains(&name.as_str()))
        .collect();
    assert!(unused.is_empty(), "no command wrote {unused:?}");
}
