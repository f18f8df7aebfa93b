//! `key`: what opens the repository.

use crate::cli::args::KeyAddArgs;
use crate::cli::args::KeyCommand;
use crate::cli::args::NewPasswordArgs;
use crate::cli::command::DONE;
use crate::cli::command::init::recovery_kit;
use crate::cli::command::init::write_secret;
use crate::cli::credentials;
use crate::cli::credentials::Password;
use crate::cli::credentials::PasswordSource;
use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Opened;
use crate::cli::session::Session;
use crate::cli::text;
use crate::cli::text::Align;
use crate::error::Error;
use crate::format::key::Credential;
use crate::format::key::Derivation;
use crate::format::keyfile::KeyFile;
use crate::repo::NewKey;
use crate::repo::Repo;
use crate::repo::keys;
use crate::repo::keys::KeyInfo;
use crate::repo::keys::PASSPHRASE;
use serde::Serialize;
use std::path::Path;
use zeroize::Zeroizing;

#[derive(Serialize)]
struct KeyBody {
    name: String,
    kind: &'static str,
    label: String,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
}

#[derive(Serialize)]
struct Items {
    items: Vec<KeyBody>,
}

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    added: Vec<String>,
    removed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    exit: u8,
}

/// Runs a command on keys.
pub(super) fn run(session: &Session, command: KeyCommand) -> Outcome<u8> {
    match command {
        KeyCommand::List => list(session),
        KeyCommand::Add(args) => add(session, &args),
        KeyCommand::Remove(args) => remove(session, &args.name),
        KeyCommand::ChangePassword(args) => change_password(session, &args),
        KeyCommand::Export(args) => export(session, &args.output),
        KeyCommand::Verify(args) => verify(session, &args.file),
        KeyCommand::Import(args) => import(session, &args.file),
        KeyCommand::Rotate => rotate(session),
    }
}

fn kind(key: &KeyInfo) -> &'static str {
    match key.derivation {
        _ if key.damage.is_some() => "damaged",
        Some(Derivation::Secret) => "key-file",
        Some(Derivation::Passphrase { .. }) => "passphrase",
        None => "unknown",
    }
}

fn list(session: &Session) -> Outcome<u8> {
    let (store, _) = session.open_store()?;
    let keys = keys::list(&*store)?;
    let output = &session.output;
    if output.is_json() {
        let body = |key: KeyInfo| KeyBody {
            kind: kind(&key),
            name: key.name,
            label: key.label,
            created_at: text::rfc3339(key.created_at),
            damage: key.damage,
        };
        let items = keys.into_iter().map(body).collect();
        output.json(&json::document("keys", Items { items }))?;
        return Ok(DONE);
    }
    let zone = text::zone_name(session.cx.clock.now(), &session.zone);
    let created = format!("CREATED ({zone})");
    let mut rows = vec![
        ["NAME", "KIND", &created, "LABEL"]
            .map(String::from)
            .to_vec(),
    ];
    for key in &keys {
        rows.push(vec![
            key.name.clone(),
            kind(key).to_string(),
            text::local(key.created_at, &session.zone),
            text::safe(&key.label),
        ]);
    }
    for line in text::table(&[Align::Left; 4], &rows) {
        output.line(line)?;
    }
    Ok(DONE)
}

fn add(session: &Session, args: &KeyAddArgs) -> Outcome<u8> {
    session.start("key-add")?;
    let repo = session.open_repo()?;
    let Some(path) = &args.new_key_file else {
        let password = new_password(session, &args.password)?;
        let credential = Credential::Passphrase(password);
        let added = add_key(session, &repo, credential, PASSPHRASE, &args.label)?;
        tell(session, "key-add", &added, &[], None)?;
        return Ok(DONE);
    };
    let path = absolute(path)?;
    let key_file = KeyFile {
        repo: repo.id(),
        location: repo.store().location(),
        secret: Zeroizing::new(session.cx.random_bytes()?),
    };
    let mut added = Vec::new();
    if !session.global.dry_run {
        // Order: the file before the slot it opens, which would be of no use without it.
        write_secret(&path, &key_file.encode())?;
        let credential = Credential::Secret(key_file.secret);
        let slot = add_key(session, &repo, credential, Derivation::Secret, &args.label);
        added = slot.map_err(|failure| {
            failure.hint(format!(
                "statekeep key verify {0} tells whether it opens the repository; if it does not, \
                 remove {0} and run this again",
                path.display()
            ))
        })?;
    }
    tell(session, "key-add", &added, &[], Some(&path))?;
    Ok(DONE)
}

fn add_key(
    session: &Session,
    repo: &Repo,
    credential: Credential,
    derivation: Derivation,
    label: &str,
) -> Outcome<Vec<String>> {
    if session.global.dry_run {
        return Ok(Vec::new());
    }
    let new_key = NewKey {
        credential,
        derivation,
        label: label.to_string(),
    };
    Ok(vec![
        repo.add_key(&session.cx, &new_key)?.name().to_string(),
    ])
}

fn new_password(session: &Session, args: &NewPasswordArgs) -> Outcome<Password> {
    let source = match (&args.new_password_file, &args.new_password_command) {
        (Some(file), _) => PasswordSource::File(file),
        (None, Some(command)) => PasswordSource::Command(command),
        (None, None) => return session.ask_new_password(),
    };
    credentials::read_password(&session.cx, &source)
}

fn remove(session: &Session, prefix: &str) -> Outcome<u8> {
    session.start("key-remove")?;
    let repo = session.open_repo()?;
    let keys = repo.keys()?;
    let found: Vec<&KeyInfo> = keys
        .iter()
        .filter(|key| key.name.starts_with(prefix))
        .collect();
    // Whatever else is wrong with it is told by the removal itself.
    if let [key] = found[..]
        && keys.len() > 1
    {
        if session.global.dry_run {
            tell(
                session,
                "key-remove",
                &[],
                std::slice::from_ref(&key.name),
                None,
            )?;
            return Ok(DONE);
        }
        let label = text::safe(&key.label);
        session.confirm(&format!("Remove the {} {} {label}?", kind(key), key.name))?;
    }
    let removed = repo.remove_key(prefix).map_err(|error| {
        let is_absent = matches!(error, Error::NotFound { .. });
        let failure = Failure::from(error);
        match is_absent {
            true => failure.hint(session.command_hint("key list")),
            false => failure,
        }
    })?;
    tell(session, "key-remove", &[], &[removed.name], None)?;
    Ok(DONE)
}

fn change_password(session: &Session, args: &NewPasswordArgs) -> Outcome<u8> {
    session.start("key-change-password")?;
    let (repo, opened) = session.open_repo_with_key()?;
    let (Opened::Password(_), Some(old)) = (&opened, opened.credential()) else {
        let message = "the repository was not opened with a passphrase, so none can be replaced";
        return Err(Failure::new("refused", 2, message).hint(format!(
            "give the old one with --password-file, or add one: {}",
            session.command_hint("key add")
        )));
    };
    let old = repo.keys_opened_by(&old)?;
    let password = new_password(session, args)?;
    let label = old.first().map_or("passphrase", |key| &key.label);
    let credential = Credential::Passphrase(password);
    // Order: the new slot is durable before the old one goes.
    let added = add_key(session, &repo, credential, PASSPHRASE, label)?;
    let removed: Vec<String> = old.into_iter().map(|key| key.name).collect();
    if !session.global.dry_run {
        for name in &removed {
            repo.remove_key(name)?;
        }
    }
    tell(session, "key-change-password", &added, &removed, None)?;
    Ok(DONE)
}

fn export(session: &Session, path: &Path) -> Outcome<u8> {
    let (repo, opened) = session.open_repo_with_key()?;
    let secret = match opened {
        Opened::KeyFile(secret) => secret,
        _ => {
            let message = "the repository was not opened with a key file, so there is none to copy";
            return Err(Failure::new("refused", 2, message)
                .hint(session.command_hint("key add --new-key-file FILE")));
        }
    };
    let kit = recovery_kit(&KeyFile {
        repo: repo.id(),
        location: repo.store().location(),
        secret,
    });
    if path == Path::new("-") {
        if session.output.is_json() {
            return Err(Failure::usage("a recovery kit has no JSON form").hint("-o FILE"));
        }
        session.output.raw(kit.as_bytes())?;
        return Ok(DONE);
    }
    session.start("key-export")?;
    let path = absolute(path)?;
    if !session.global.dry_run {
        write_secret(&path, &kit)?;
    }
    tell(session, "key-export", &[], &[], Some(&path))?;
    Ok(DONE)
}

/// Fails unless the key file opens the repository.
fn proven(session: &Session, path: &Path) -> Outcome<KeyFile> {
    let key_file = credentials::read_key_file(path)?;
    session.open_with_key_file(path, &key_file)?;
    Ok(key_file)
}

fn verify(session: &Session, path: &Path) -> Outcome<u8> {
    session.start("key-verify")?;
    proven(session, path)?;
    tell(session, "key-verify", &[], &[], Some(path))?;
    Ok(DONE)
}

fn import(session: &Session, path: &Path) -> Outcome<u8> {
    session.start("key-import")?;
    let key_file = proven(session, path)?;
    let place = credentials::key_file_path(&session.environment, key_file.repo);
    let place = place.ok_or_else(|| {
        let message = "there is no place for the key file: HOME is not set";
        Failure::usage(message).hint("give it with each command: --key-file FILE")
    })?;
    if !session.global.dry_run {
        // What it says of the place may be old, and is what a replaced repository is known by.
        let (store, _) = session.open_store()?;
        let key_file = KeyFile {
            location: store.location(),
            ..key_file
        };
        write_secret(&place, &key_file.encode())?;
    }
    tell(session, "key-import", &[], &[], Some(&place))?;
    Ok(DONE)
}

fn rotate(session: &Session) -> Outcome<u8> {
    session.start("key-rotate")?;
    let (mut repo, opened) = session.open_repo_with_key()?;
    let keep: Vec<NewKey> = match &opened {
        Opened::Plain => Vec::new(),
        Opened::KeyFile(secret) => vec![NewKey {
            credential: Credential::Secret(secret.clone()),
            derivation: Derivation::Secret,
            label: "key file".to_string(),
        }],
        Opened::Password(password) => vec![NewKey {
            credential: Credential::Passphrase(password.clone()),
            derivation: PASSPHRASE,
            label: "passphrase".to_string(),
        }],
    };
    let kept = match opened.credential() {
        Some(credential) => repo.keys_opened_by(&credential)?,
        None => Vec::new(),
    };
    let lost: Vec<KeyInfo> = repo
        .keys()?
        .into_iter()
        .filter(|key| !kept.contains(key))
        .collect();
    if !lost.is_empty() {
        for key in &lost {
            let (kind, label) = (kind(key), text::safe(&key.label));
            session
                .output
                .remark(format!("removes  {}  {kind}  {label}", key.name));
        }
    }
    let names: Vec<String> = lost.into_iter().map(|key| key.name).collect();
    if session.global.dry_run {
        tell(session, "key-rotate", &[], &names, None)?;
        return Ok(DONE);
    }
    session.confirm("Encrypt with a new key from now on, and remove all other keys?")?;
    repo.rotate_keys(&session.cx, &keep)?;
    let added: Vec<String> = repo.keys()?.into_iter().map(|key| key.name).collect();
    tell(session, "key-rotate", &added, &names, None)?;
    Ok(DONE)
}

fn tell(
    session: &Session,
    op: &'static str,
    added: &[String],
    removed: &[String],
    file: Option<&Path>,
) -> Outcome<()> {
    let output = &session.output;
    let dry_run = session.global.dry_run;
    let file = file.map(|path| path.display().to_string());
    if output.is_json() {
        let summary = Summary {
            op,
            status: "ok",
            dry_run,
            added: added.to_vec(),
            removed: removed.to_vec(),
            file,
            exit: DONE,
        };
        output.json(&json::document("summary", summary))?;
        return Ok(());
    }
    if output.is_quiet {
        return Ok(());
    }
    for name in added {
        output.line(format!("Key {name} opens the repository now."))?;
    }
    for name in removed {
        let verb = if dry_run { "would be" } else { "is" };
        output.line(format!("Key {name} {verb} removed."))?;
    }
    if let Some(file) = file.map(|file| text::safe(&file)) {
        output.line(match (op, dry_run) {
            ("key-verify", _) => format!("{file} opens the repository."),
            (_, true) => format!("Would write {file}."),
            (_, false) => format!("Written to {file}; whoever has it can read every backup."),
        })?;
    }
    if dry_run {
        output.line("Nothing was changed (dry run).")?;
    }
    Ok(())
}
