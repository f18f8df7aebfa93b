//! `init`: makes a repository, and the key file and recovery kit that open it.
//!
//! Order: the key file and the kit are durable before the repository exists. A crash in between
//! leaves a key that opens nothing; the reverse would leave a repository that nobody can open.

use crate::cli::args::InitArgs;
use crate::cli::choice::Target;
use crate::cli::command::DONE;
use crate::cli::command::repo::encryption;
use crate::cli::credentials;
use crate::cli::credentials::Password;
use crate::cli::credentials::PasswordSource;
use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::Origin;
use crate::disk;
use crate::disk::Disk;
use crate::disk::RealDisk;
use crate::disk::output::Existing;
use crate::disk::output::OutputFile;
use crate::disk::output::Readers;
use crate::error::Error;
use crate::format::key::Credential;
use crate::format::key::Derivation;
use crate::format::keyfile::KeyFile;
use crate::id::RepoId;
use crate::repo;
use crate::repo::Access;
use crate::repo::NewKey;
use crate::repo::Repo;
use crate::repo::keys::PASSPHRASE;
use crate::repo::reserve;
use crate::store::DirStore;
use crate::store::Folder;
use crate::store::Store;
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use zeroize::Zeroizing;

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    repo: String,
    location: String,
    encryption: Option<&'static str>,
    key_file: Option<String>,
    recovery_kit: Option<String>,
    passphrase: bool,
    exit: u8,
}

/// Where the secret of a new repository goes.
struct Places {
    key_file: PathBuf,
    kit: PathBuf,
}

/// Makes a repository.
pub(super) fn run(session: &Session, args: &InitArgs) -> Outcome<u8> {
    let target = target(session, args)?;
    let path = target.path.clone();
    session.start("init")?;
    refuse_unless_free(&path)?;
    let repo = RepoId(session.cx.random_bytes()?);
    let (places, password) = match args.plain {
        true => (None, None),
        false => {
            let source = credentials::given_password(
                &session.global,
                &session.environment,
                target.settings,
            )?;
            if let Some(PasswordSource::File(path)) = &source {
                session.warn_if_exposed(path);
            }
            let read = source.map(|s| credentials::read_password(&session.cx, &s));
            (Some(places(session, &target, repo)?), read.transpose()?)
        }
    };
    if session.global.dry_run {
        tell(
            session,
            repo,
            &path.display().to_string(),
            None,
            places.as_ref(),
            false,
        )?;
        return Ok(DONE);
    }
    let store = Arc::new(DirStore::create(Arc::new(RealDisk), &path)?);
    let has_password = password.is_some();
    let made = match &places {
        None => make_plain(session, store.clone(), repo)?,
        Some(places) => make_encrypted(session, store.clone(), repo, places, password)?,
    };
    // Without it, a disk that is full some day has to be given room by hand.
    let _ = reserve::ensure(&session.cx, &*store);
    let (location, suite) = (store.location(), made.config().suite);
    tell(
        session,
        repo,
        &location,
        Some(encryption(suite)),
        places.as_ref(),
        has_password,
    )?;
    Ok(DONE)
}

fn target<'s>(session: &'s Session, args: &InitArgs) -> Outcome<Target<'s>> {
    let given = match (&args.path, &session.global.repo) {
        (Some(path), None) => Some(path),
        (Some(path), Some(repo)) if path == repo => Some(path),
        (None, _) => None,
        (Some(_), Some(_)) => {
            let message = "PATH and -r name two different places";
            return Err(Failure::usage(message).hint("leave one of them out"));
        }
    };
    match given {
        Some(path) => session.given_target(path, Origin::Flag("PATH")),
        None => session.target(None),
    }
}

/// A directory with other things in it is hardly what was meant. What an init that was killed left
/// behind does not count.
fn refuse_unless_free(path: &Path) -> Outcome<()> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("list", path)(error).into()),
    };
    let mut foreign = None;
    for entry in entries {
        let name = entry.map_err(Error::io("list", path))?.file_name();
        let name = name.to_string_lossy().into_owned();
        if name == "config" {
            let location = path.display().to_string();
            return Err(Error::RepoExists { location }.into());
        }
        let is_ours = Folder::ALL.iter().any(|folder| folder.name() == name);
        if !is_ours && !name.starts_with(".tmp-") && name != "lost+found" {
            foreign = Some(name);
        }
    }
    match foreign {
        None => Ok(()),
        Some(name) => {
            let message = format!("{} is not empty: it holds {name}", path.display());
            let example = text::quote(path.join("backups").as_os_str()).into_owned();
            Err(Failure::new("refused", 2, message).hint(format!("statekeep init {example}")))
        }
    }
}

fn places(session: &Session, target: &Target<'_>, repo: RepoId) -> Outcome<Places> {
    let environment = &session.environment;
    let kit_name = format!("{repo}-recovery-kit.txt");
    let chosen = session
        .global
        .key_file
        .as_ref()
        .or(environment.key_file.as_ref())
        .or(target
            .settings
            .and_then(|settings| settings.key_file.as_ref()));
    if let Some(chosen) = chosen {
        let key_file = absolute(chosen)?;
        let kit = key_file.with_file_name(kit_name);
        return Ok(Places { key_file, kit });
    }
    let key_file = credentials::key_file_path(environment, repo);
    match (key_file, &environment.config_dir) {
        (Some(key_file), Some(config_dir)) => {
            let kit = config_dir.join(kit_name);
            Ok(Places { key_file, kit })
        }
        _ => Err(
            Failure::usage("there is no place for the key file: HOME is not set")
                .hint("say where: --key-file FILE"),
        ),
    }
}

fn make_plain(session: &Session, store: Arc<DirStore>, repo: RepoId) -> Outcome<Repo> {
    session::refuse_if_witnessed(&session.environment, None, &store.location())?;
    let cache_dir = session.environment.cache_dir.as_deref();
    Ok(Repo::create(
        &session.cx,
        store,
        repo,
        Access::Plain,
        cache_dir,
    )?)
}

fn make_encrypted(
    session: &Session,
    store: Arc<DirStore>,
    repo: RepoId,
    places: &Places,
    password: Option<Password>,
) -> Outcome<Repo> {
    let key_file = KeyFile {
        repo,
        location: store.location(),
        secret: Zeroizing::new(session.cx.random_bytes()?),
    };
    let mut new_keys = vec![NewKey {
        credential: Credential::Secret(key_file.secret.clone()),
        derivation: Derivation::Secret,
        label: "key file".to_string(),
    }];
    new_keys.extend(password.map(|password| NewKey {
        credential: Credential::Passphrase(password),
        derivation: PASSPHRASE,
        label: "passphrase".to_string(),
    }));
    write_secret(&places.key_file, &key_file.encode())?;
    let kit = write_secret(&places.kit, &recovery_kit(&key_file));
    let access = Access::Encrypted(new_keys);
    let cache_dir = session.environment.cache_dir.as_deref();
    let made = kit.and_then(|()| {
        let made = Repo::create(&session.cx, store.clone(), repo, access, cache_dir);
        Ok(made?)
    });
    // An error may leave open whether the repository is there. If it is ours, its key must stay.
    if made.is_err() && is_certainly_not(&*store, repo) {
        let _ = RealDisk.remove(&places.key_file);
        let _ = RealDisk.remove(&places.kit);
    }
    made
}

fn is_certainly_not(store: &dyn Store, repo: RepoId) -> bool {
    match repo::read_config(store) {
        Ok((config, _)) => config.repo != repo,
        Err(error) => matches!(error, Error::NoRepo { .. }),
    }
}

/// Writes a file with a secret, readable by its owner only, durably, replacing nothing. A process
/// that is killed leaves no copy of it under another name.
pub(super) fn write_secret(path: &Path, text: &str) -> Outcome<()> {
    let named = path.parent().zip(path.file_name());
    let (dir, _) =
        named.ok_or_else(|| Failure::usage(format!("{} is no name for a file", path.display())))?;
    disk::create_dirs(&RealDisk, dir)?;
    let mut file = OutputFile::create(path, Readers::Owner, Existing::Keep)?;
    let written = file.write_all(text.as_bytes());
    written.map_err(Error::io("write", path))?;
    Ok(file.finish()?)
}

/// Returns the text of a recovery kit.
pub(super) fn recovery_kit(key_file: &KeyFile) -> Zeroizing<String> {
    let repo = key_file.repo.short();
    Zeroizing::new(format!(
        "RECOVERY KIT of the statekeep backup repository {repo}

Whoever has this can read every backup in the repository. Without this, the key file or a
passphrase nobody can, ever. Keep a copy off this machine: on paper, or on a disk elsewhere.

{}
HOW TO USE IT, on any computer with statekeep and the repository

  list the backups       statekeep -r REPOSITORY --key-file THIS-FILE list
  get everything back    statekeep -r REPOSITORY --key-file THIS-FILE restore latest --to DIR
  keep it for this user  statekeep -r REPOSITORY key import THIS-FILE

If it is on paper, type the lines from the repository to the check into a file. Case, spaces and
dashes do not matter; a mistyped line is found and named.
",
        *key_file.encode()
    ))
}

fn tell(
    session: &Session,
    repo: RepoId,
    location: &str,
    encryption: Option<&'static str>,
    places: Option<&Places>,
    passphrase: bool,
) -> Outcome<()> {
    let output = &session.output;
    let dry_run = encryption.is_none();
    if output.is_json() {
        let text = |path: &PathBuf| path.display().to_string();
        let summary = Summary {
            op: "init",
            status: "ok",
            dry_run,
            repo: repo.to_string(),
            location: location.to_string(),
            encryption,
            key_file: places.map(|places| text(&places.key_file)),
            recovery_kit: places.map(|places| text(&places.kit)),
            passphrase,
            exit: DONE,
        };
        output.json(&json::document("summary", summary))?;
        return Ok(());
    }
    if output.is_quiet {
        // Without the kit copied elsewhere a lost disk takes every backup with it.
        return match places.filter(|_| !dry_run) {
            Some(places) => Ok(output.line(format!("Recovery kit:  {}", places.kit.display()))?),
            None => Ok(()),
        };
    }
    let place = text::safe(location);
    let Some(encryption) = encryption else {
        output.line(format!("Would make a repository at {place} (dry run)."))?;
        return Ok(());
    };
    let Some(places) = places else {
        output.line(format!(
            "Created repository {} at {place}, NOT ENCRYPTED",
            repo.short()
        ))?;
        output.line("Whoever can read that directory can read every backup in it.")?;
        return Ok(());
    };
    output.line(format!(
        "Created repository {} at {place} ({encryption})",
        repo.short()
    ))?;
    output.line(format!("Key file:      {}", places.key_file.display()))?;
    if passphrase {
        output.line("The passphrase opens it as well.")?;
    }
    output.line(format!("Recovery kit:  {}", places.kit.display()))?;
    output.line("Copy the recovery kit off this machine now. If the key file is lost with the")?;
    output.line("machine and there is no kit or passphrase, nobody can read these backups.")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_kit_is_read_like_a_key_file() {
        let key_file = KeyFile {
            repo: RepoId([1; 16]),
            location: "/srv/a: b".into(),
            secret: Zeroizing::new([2; 32]),
        };

        assert!(KeyFile::decode(&recovery_kit(&key_file)).unwrap() == key_file);
    }
}
