//! Who is told how backups went, by the real binary against a server of its own; and that nothing
//! a server does or does not do changes what a backup says.

use crate::oracle::stderr;
use crate::web::Answer;
use crate::web::Server;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use statekeep::context::Context;
use statekeep::ops::notify;
use statekeep::ops::notify::Endpoint;
use statekeep::ops::notify::Message;
use statekeep::ops::notify::Patience;
use statekeep::ops::notify::Undelivered;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Stands in every address and token, and nowhere else.
const CANARY: &str = "c4n4ry";

/// A home of its own with an application and a plain repository.
struct Home {
    scratch: TempDir,
}

impl Home {
    /// `@` is its directory.
    fn new(profile: &str) -> Home {
        let home = Home {
            scratch: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(home.path("app")).unwrap();
        fs::write(home.path("app/file"), "content").unwrap();
        home.configure(profile);
        let made = home.run(&["init", "--plain"]);
        assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
        home
    }

    fn configure(&self, profile: &str) {
        let text = format!(
            "version = 1\n[repo.main]\nurl = \"@/repo\"\n[profile.app]\nroot = \"@/app\"\n{profile}"
        );
        let text = text.replace("@/", &format!("{}/", self.scratch.path().display()));
        fs::write(self.path("config.toml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[])
    }

    fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_statekeep"))
            .env_clear()
            .env("HOME", self.scratch.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("STATEKEEP_CONFIG", self.path("config.toml"))
            .envs(variables.iter().copied())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

/// Returns all that a run said, which must not hold a secret.
fn said(output: &Output) -> String {
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        stderr(output)
    );
    assert!(!said.contains(CANARY), "{said}");
    said
}

fn document(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn a_ping_tells_of_the_start_and_of_a_good_end() {
    let server = Server::answering(vec![Answer::Status(200); 2]);
    let home = Home::new(&format!("ping = \"{}/{CANARY}?create=1\"\n", server.url()));

    let output = home.run(&["backup"]);

    assert_eq!(
        (output.status.code(), stderr(&output)),
        (Some(0), String::new())
    );
    let asked = server.finish();
    let paths: Vec<&str> = asked.iter().map(|request| &*request.path).collect();
    assert_eq!(
        paths,
        [
            format!("/{CANARY}/start?create=1"),
            format!("/{CANARY}?create=1")
        ]
    );
    assert_eq!(asked[1].body, "exit 0: saved\n");
    assert!(asked.iter().all(|request| request.method == "POST"));
}

#[test]
fn a_failure_is_told_with_its_exit_code_and_its_reason() {
    let server = Server::answering(vec![Answer::Status(200); 3]);
    let home = Home::new(
        "ping-file = \"ping\"\nbefore = [{ command = [\"false\"] }]\n\
         webhook = { url-file = \"hook\", token-file = \"token\" }\n",
    );
    fs::write(home.path("ping"), format!("{}/{CANARY}\n", server.url())).unwrap();
    fs::write(
        home.path("hook"),
        format!("{}/hook/{CANARY}\n", server.url()),
    )
    .unwrap();
    fs::write(home.path("token"), format!("{CANARY}-token\nsecond line\n")).unwrap();

    let output = home.run(&["backup", "--json"]);

    assert_eq!(output.status.code(), Some(1));
    said(&output);
    let asked = server.finish();
    assert_eq!(asked[1].path, format!("/{CANARY}/fail"));
    assert!(
        asked[1].body.starts_with("exit 1: false failed"),
        "{}",
        asked[1].body
    );
    assert_eq!(asked[2].path, format!("/hook/{CANARY}"));
    assert_eq!(
        asked[2].header("authorization"),
        Some(&*format!("Bearer {CANARY}-token"))
    );
    assert_eq!(asked[2].header("content-type"), Some("application/json"));
    let told = document(&asked[2].body);
    let fields =
        ["type", "event", "op", "profile", "error"].map(|name| told[name].as_str().unwrap());
    assert_eq!(
        fields,
        ["notification", "failure", "backup", "app", "hook-failed"]
    );
    assert_eq!(
        (told["v"].as_u64(), told["exit"].as_u64()),
        (Some(1), Some(1))
    );
    // The document about it shows such a one.
    let shown = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operate.md");
    let shown = fs::read_to_string(shown).unwrap();
    let (_, shown) = shown.split_once("```json\n").unwrap();
    let shown = document(shown.split("```").next().unwrap());
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(&told), keys(&shown));
}

#[test]
fn a_success_is_told_to_who_asked_for_it_and_a_scope_pings_nobody() {
    let server = Server::answering(vec![Answer::Status(204)]);
    let home = Home::new(&format!(
        "scope.part = {{ files = [\"file\"] }}\nping = \"{0}/{CANARY}\"\n\
         webhook = {{ url = \"{0}\", on = [\"success\"], token-env = \"TOKEN\", header = \"X-Key\" }}\n",
        server.url()
    ));

    let variables = [("TOKEN", CANARY)];
    let output = home.run_with(&["backup", "--scope", "part", "--json"], &variables);
    let dry = home.run(&["backup", "-n"]);

    assert_eq!(
        (output.status.code(), dry.status.code()),
        (Some(0), Some(0))
    );
    let asked = server.finish();
    assert_eq!((asked.len(), asked[0].header("x-key")), (1, Some(CANARY)));
    let told = document(&asked[0].body);
    let summary = said(&output);
    let summary = document(summary.lines().last().unwrap());
    assert_eq!(told["snapshot"], summary["snapshot"]);
    assert_eq!(
        (told["scope"].as_str(), told["exit"].as_u64()),
        (Some("part"), Some(0))
    );
    assert_eq!(told["figures"]["files"], summary["files"]);
}

#[test]
fn no_server_changes_the_end_of_a_backup() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let all = [
        (Answer::Status(404), "answered 404", 1),
        (Answer::Status(500), "answered 500", 3),
        (Answer::Status(302), "points elsewhere", 1),
        (Answer::Close, "not-notified", 3),
        (Answer::Garbage, "not-notified", 3),
        (Answer::Silence, "did not answer in time", 1),
    ];
    for (answer, words, attempts) in all {
        let server = Server::answering(vec![answer.clone(); attempts]);
        let url = server.url();
        let home = Home::new(&format!(
            "webhook = {{ url = \"{url}/{CANARY}\", on = [\"success\"], token-file = \"token\", \
             timeout = \"2s\" }}\n"
        ));
        fs::write(home.path("token"), CANARY).unwrap();

        let output = home.run(&["backup"]);

        let said = said(&output);
        assert_eq!(output.status.code(), Some(0), "{answer:?}: {said}");
        assert!(
            said.contains("warning[not-notified]: webhook of profile app"),
            "{said}"
        );
        assert!(said.contains(words), "{answer:?}: {said}");
        assert!(said.contains("Snapshot"), "{said}");
        assert_eq!(server.finish().len(), attempts, "{answer:?}");
    }
    let home = Home::new(&format!("ping = \"http://{closed}/{CANARY}\"\n"));
    let output = home.run(&["backup", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let said = said(&output);
    let lines: Vec<Value> = said.lines().map(document).collect();
    let kinds: Vec<&str> = lines
        .iter()
        .map(|line| line["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        (kinds[0], kinds[kinds.len() - 1]),
        ("start", "summary"),
        "{said}"
    );
    assert!(kinds.contains(&"warning"), "{said}");
}

#[test]
fn a_token_that_cannot_be_had_is_a_warning_and_nothing_is_sent() {
    for (token, words) in [
        ("token-file = \"none\"", "cannot read"),
        ("token-env = \"NONE\"", "the variable NONE"),
        ("token-command = [\"false\"]", "the token command false"),
        ("token-command = [\"sleep\", \"600\"]", "took too long"),
        ("token-command = [\"printf\", \"a\\nb\"]", "cannot be sent"),
    ] {
        let server = Server::answering(Vec::new());
        let home = Home::new(&format!(
            "webhook = {{ url = \"{}/{CANARY}\", on = [\"success\"], {token}, timeout = \"1s\" }}\n",
            server.url()
        ));

        let output = home.run(&["backup"]);

        let said = said(&output);
        assert_eq!(output.status.code(), Some(0), "{token}: {said}");
        assert!(said.contains(words), "{token}: {said}");
        assert!(server.finish().is_empty(), "{token}");
    }
}

/// Makes a certificate for this machine, which nobody vouches for, in a directory.
fn certificate(dir: &Path) -> Option<ServerConfig> {
    let settings = "[req]\ndistinguished_name = dn\nx509_extensions = v3\nprompt = no\n[dn]\n\
        CN = test\n[v3]\nsubjectAltName = IP:127.0.0.1\nbasicConstraints = CA:FALSE\n";
    fs::write(dir.join("settings"), settings).unwrap();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-nodes", "-days", "3650", "-config", "settings"])
        .args(["-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(dir)
        .output();
    made.ok().filter(|made| made.status.success())?;
    let chain = vec![CertificateDer::from_pem_file(dir.join("certificate.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    Some(
        config
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap(),
    )
}

#[test]
fn who_is_not_vouched_for_is_told_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    for is_trusted in [true, false] {
        let Some(tls) = certificate(scratch.path()) else {
            eprintln!("SKIPPED who_is_not_vouched_for_is_told_nothing: there is no openssl");
            return;
        };
        let server = Server::answering_in_secret(vec![Answer::Status(200)], tls);
        let home = Home::new(&format!(
            "webhook = {{ url = \"{}/{CANARY}\", on = [\"success\"], token-file = \"token\" }}\n",
            server.url()
        ));
        fs::write(home.path("token"), CANARY).unwrap();
        let file = scratch.path().join("certificate.pem");
        let variables = [("SSL_CERT_FILE", file.to_str().unwrap())];
        let variables = if is_trusted { &variables[..] } else { &[] };

        let output = home.run_with(&["backup"], variables);

        let said = said(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert_eq!(said.contains("it cannot be trusted"), !is_trusted, "{said}");
        assert_eq!(server.finish().len(), usize::from(is_trusted), "{said}");
    }
}

#[test]
fn what_is_overdue_is_told_once_a_day_and_again_when_it_changes() {
    let server = Server::answering(vec![
        Answer::Status(500),
        Answer::Status(500),
        Answer::Status(500),
        Answer::Status(200),
        Answer::Status(200),
    ]);
    let profile = format!("webhook = {{ url = \"{}/{CANARY}\" }}\n", server.url());
    let home = Home::new(&profile);

    let silent = home.run(&["status"]);
    let undelivered = home.run(&["status", "--notify"]);
    let delivered = home.run(&["status", "--notify"]);
    let again = home.run(&["status", "--notify"]);
    // What is safe is forgotten, and what is wrong then is news.
    assert_eq!(home.run(&["backup"]).status.code(), Some(0));
    let safe = home.run(&["status", "--notify"]);
    fs::rename(home.path("repo"), home.path("gone")).unwrap();
    let gone = home.run(&["status", "--notify"]);

    for output in [&silent, &undelivered, &delivered, &again] {
        said(output);
        assert_eq!(output.status.code(), Some(20));
    }
    assert!(said(&undelivered).contains("answered 500") && stderr(&delivered).is_empty());
    assert_eq!(
        (safe.status.code(), gone.status.code()),
        (Some(0), Some(10))
    );
    let asked = server.finish();
    let told: Vec<Value> = asked
        .iter()
        .map(|request| document(&request.body))
        .collect();
    let facts = |at: usize| (told[at]["event"].clone(), told[at]["problems"][0].clone());
    assert_eq!(facts(3), ("overdue".into(), "never".into()));
    assert_eq!(facts(4), ("failure".into(), "repository-unreadable".into()));
}

#[test]
fn no_command_shows_an_address() {
    let home = Home::new(&format!(
        "ping = \"https://hc.example/{CANARY}\"\nwebhook = {{ url = \"https://h.example/{CANARY}?{CANARY}\" }}\n"
    ));

    for arguments in [
        &["config", "show", "--origin"][..],
        &["config", "show", "--json"],
        &["config", "check"],
        &["profile", "show", "app"],
        &["profile", "show", "app", "--json"],
        &["profile", "list"],
    ] {
        let output = home.run(arguments);
        let said = said(&output);
        let shows = said.contains("https://hc.example/(not shown)");
        assert_eq!(shows, arguments.contains(&"show"), "{arguments:?}: {said}");
    }
    for wrong in [
        "webhook = \"https://h.example/c4n4ry\"",
        "ping = \"hc.example/c4n4ry\"",
        "ping = 7\nping-file = \"https://c4n4ry\"",
        "webhook = { url = \"https://a:c4n4ry@h.example\" }",
        "webhook = { token = \"c4n4ry\", url = \"https://h.example\" }",
        "tags = \"https://hc.example/c4n4ry\"",
    ] {
        home.configure(&format!("{wrong}\n"));
        let output = home.run(&["backup"]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        said(&output);
    }
}

fn try_to_send(url: &str) -> Result<(), Undelivered> {
    let endpoint = Endpoint::parse(url).unwrap();
    let message = Message {
        endpoint: &endpoint,
        suffix: "",
        content_type: "text/plain",
        token: None,
        body: b"x",
    };
    let patience = Patience {
        timeout: Duration::from_secs(30),
        retries: 2,
        pause: Duration::ZERO,
    };
    notify::send(&Context::new(), &message, &patience)
}

#[test]
fn a_delivery_that_may_pass_is_tried_three_times_at_most() {
    let late = Server::answering(vec![
        Answer::Close,
        Answer::Status(503),
        Answer::Status(200),
    ]);
    let never = Server::answering(vec![Answer::Status(429); 3]);

    assert_eq!(try_to_send(&late.url()), Ok(()));
    assert_eq!(try_to_send(&never.url()), Err(Undelivered::Answered(429)));
    assert_eq!((late.finish().len(), never.finish().len()), (3, 3));
}
