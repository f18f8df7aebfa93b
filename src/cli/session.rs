//! What every command works with: the context, the settings, the outputs, the open repository.

use crate::cli::args::Global;
use crate::cli::args::ToKeyArgs;
use crate::cli::choice::Target;
use crate::cli::credentials;
use crate::cli::credentials::Given;
use crate::cli::credentials::PasswordSource;
use crate::cli::environment::Environment;
use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::output::Output;
use crate::cli::progress::Reporter;
use crate::cli::terminal::Terminal;
use crate::cli::text;
use crate::config;
use crate::config::Origin;
use crate::config::Profile;
use crate::context::Context;
use crate::disk::RealDisk;
use crate::error::Error;
use crate::error::Result;
use crate::format::config::Config;
use crate::format::key::Credential;
use crate::format::key::Derivation;
use crate::format::keyfile::KeyFile;
use crate::ops::snapshots;
use crate::ops::snapshots::Snapshot;
use crate::repo;
use crate::repo::Repo;
use crate::store::DirStore;
use crate::store::Store;
use jiff::tz::TimeZone;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// One run of the program.
pub(super) struct Session {
    /// Time, randomness, progress, cancellation.
    pub cx: Context,
    /// The options of every command.
    pub global: Global,
    /// The environment.
    pub environment: Environment,
    /// The outputs.
    pub output: Arc<Output>,
    /// What shows progress.
    pub reporter: Arc<Reporter>,
    /// The command line as it was given.
    pub arguments: Vec<OsString>,
    /// The local time zone.
    pub zone: TimeZone,
    /// The configuration, once it was read.
    pub config: OnceLock<config::Config>,
}

/// What opened a repository.
pub(super) enum Opened {
    /// Nothing was needed.
    Plain,
    /// A key file.
    KeyFile(Zeroizing<[u8; 32]>),
    /// A passphrase.
    Password(Zeroizing<Vec<u8>>),
}

impl Opened {
    /// Returns the credential, `None` for a plain repository.
    pub(super) fn credential(&self) -> Option<Credential> {
        match self {
            Opened::Plain => None,
            Opened::KeyFile(secret) => Some(Credential::Secret(secret.clone())),
            Opened::Password(password) => Some(Credential::Passphrase(password.clone())),
        }
    }
}

impl Session {
    /// Opens the store of the repository and reads what it is, without a key.
    pub(super) fn open_store(&self) -> Outcome<(Arc<dyn Store>, Config)> {
        self.open_store_of(&self.target(None)?)
    }

    fn open_store_of(&self, target: &Target<'_>) -> Outcome<(Arc<dyn Store>, Config)> {
        let path = &target.path;
        let open = || {
            let store = DirStore::open(Arc::new(RealDisk), path)?;
            let (config, _) = repo::read_config(&store)?;
            Ok((store, config))
        };
        let (store, config) = open().map_err(|error: Error| match error {
            Error::NoRepo { .. } => Failure::from(error).hint(match self.repo_meant(target) {
                Some(meant) => format!("did you mean -r {meant}?"),
                None if target.settings.is_some() => format!(
                    "is its disk mounted? only if there never was one: statekeep -r {} init",
                    text::quote(path.as_os_str())
                ),
                None => format!(
                    "make one: statekeep -r {} init",
                    text::quote(path.as_os_str())
                ),
            }),
            error => error.into(),
        })?;
        Ok((Arc::new(store), config))
    }

    /// Opens the repository.
    pub(super) fn open_repo(&self) -> Outcome<Repo> {
        self.open_repo_with_key().map(|(repo, _)| repo)
    }

    /// Opens the repository of a profile.
    pub(super) fn open_repo_for(&self, profile: &Profile) -> Outcome<Repo> {
        let target = self.target(Some(profile))?;
        self.open_target(&target).map(|(repo, _)| repo)
    }

    /// Opens the repository and tells what opened it.
    pub(super) fn open_repo_with_key(&self) -> Outcome<(Repo, Opened)> {
        self.open_target(&self.target(None)?)
    }

    /// Opens the repository that is copied to.
    pub(super) fn open_repo_to(&self, to: &OsStr, key: &ToKeyArgs) -> Outcome<Repo> {
        let target = self.given_target(to, Origin::Flag("--to"))?;
        let given = credentials::given_to(key, target.settings);
        let opened = self.open_target_with(&target, given);
        let (repo, _) = opened.map_err(|failure| match failure.code {
            "wrong-key" => failure.hint("--to-key-file FILE, or --to-password-file FILE"),
            _ => failure,
        })?;
        Ok(repo)
    }

    /// Opens this repository and tells what opened it.
    pub(super) fn open_target(&self, target: &Target<'_>) -> Outcome<(Repo, Opened)> {
        let given = credentials::given(&self.global, &self.environment, target.settings)?;
        self.open_target_with(target, given)
    }

    fn open_target_with(&self, target: &Target<'_>, given: Given<'_>) -> Outcome<(Repo, Opened)> {
        let (store, config) = self.open_store_of(target)?;
        if let Given::Password(PasswordSource::File(path)) = &given {
            self.warn_if_exposed(path);
        }
        let (repo, opened) = match (config.public_secret.is_some(), given) {
            (true, given) => {
                self.refuse_unless_known_plain(&*store, &config, &given)?;
                (self.try_open(&store, &Opened::Plain)?, Opened::Plain)
            }
            (false, Given::Password(source)) => {
                let password = credentials::read_password(&self.cx, &source)?;
                self.open_with(&store, Opened::Password(password))?
            }
            (false, Given::KeyFile(path)) => {
                let key_file = credentials::read_key_file(path)?;
                refuse_unless_for(&config, path, &key_file)?;
                self.open_with(&store, Opened::KeyFile(key_file.secret))?
            }
            (false, Given::Nothing) => self.open_with_own(&store, &config)?,
        };
        // Between the two reads somebody could have put another one there.
        match repo.config() == &config {
            true => {
                self.explain_opened(target, &opened);
                Ok((repo, opened))
            }
            false => Err(Error::corrupt("config", "it changed while it was read").into()),
        }
    }

    /// Opens the repository with a key file and nothing else.
    pub(super) fn open_with_key_file(&self, path: &Path, key_file: &KeyFile) -> Outcome<Repo> {
        let (store, config) = self.open_store()?;
        if config.public_secret.is_some() {
            let message = format!("{} is not encrypted: no key opens it", store.location());
            return Err(not_encrypted(message));
        }
        refuse_unless_for(&config, path, key_file)?;
        self.try_open(&store, &Opened::KeyFile(key_file.secret.clone()))
    }

    /// With this user's key file, or with a passphrase from the terminal.
    fn open_with_own(&self, store: &Arc<dyn Store>, config: &Config) -> Outcome<(Repo, Opened)> {
        let mut failure = None;
        if let Some((path, file)) = credentials::local_key_file(&self.environment, config.repo)? {
            match self.open_with(store, Opened::KeyFile(file.secret)) {
                Err(wrong) if wrong.code == "wrong-key" => {
                    let message = format!("{} ({})", wrong.message, path.display());
                    failure = Some(Failure { message, ..wrong });
                }
                result => return result,
            }
        }
        let is_passphrase = |key: &repo::keys::KeyInfo| {
            matches!(key.derivation, Some(Derivation::Passphrase { .. }))
        };
        let has_passphrase =
            repo::keys::list(&**store).map_or(true, |k| k.iter().any(is_passphrase));
        if has_passphrase && let Some(terminal) = Terminal::open() {
            let question = format!("Passphrase of repository {}: ", config.repo.short());
            let password = terminal.ask_secret(&self.cx, &question)?;
            return self.open_with(store, Opened::Password(password));
        }
        Err(failure.unwrap_or_else(|| {
            wrong_key(format!(
                "repository {} is encrypted, and this user has no key file for it",
                config.repo.short()
            ))
        }))
    }

    fn open_with(&self, store: &Arc<dyn Store>, opened: Opened) -> Outcome<(Repo, Opened)> {
        Ok((self.try_open(store, &opened)?, opened))
    }

    fn try_open(&self, store: &Arc<dyn Store>, opened: &Opened) -> Outcome<Repo> {
        let credentials: Vec<Credential> = opened.credential().into_iter().collect();
        let cache_dir = self.environment.cache_dir.as_deref();
        let repo = Repo::open(store.clone(), &credentials, cache_dir);
        repo.map_err(|error| match error {
            Error::WrongKey { reason } => wrong_key(reason),
            error => error.into(),
        })
    }

    /// Whoever controls the store could put a plain repository in the place of an encrypted one,
    /// and the next backup would be readable by all.
    fn refuse_unless_known_plain(
        &self,
        store: &dyn Store,
        config: &Config,
        given: &Given<'_>,
    ) -> Outcome<()> {
        if !matches!(given, Given::Nothing) {
            let message = format!(
                "{} is not encrypted, and a key or passphrase was given for it",
                store.location()
            );
            return Err(not_encrypted(message)
                .hint("if it was made with --plain, leave the key or passphrase out"));
        }
        refuse_if_witnessed(&self.environment, Some(config), &store.location())
    }

    /// Returns the state of the repository and its snapshots, oldest first.
    pub(super) fn snapshots(&self, repo: &Repo) -> Outcome<(Arc<repo::log::State>, Vec<Snapshot>)> {
        snapshots::list(&self.cx, repo).map_err(|error| {
            let failure = Failure::from(error);
            match failure.code {
                "damaged" | "missing" | "rolled-back" => {
                    failure.or_hint(|| self.command_hint("check --repair -n"))
                }
                _ => failure,
            }
        })
    }

    /// Returns the snapshot that is meant.
    pub(super) fn resolve<'s>(
        &self,
        snapshots: &'s [Snapshot],
        reference: &[u8],
    ) -> Outcome<&'s Snapshot> {
        let reference = String::from_utf8_lossy(reference);
        let now = self.cx.clock.now();
        let find = |among: &[Snapshot]| {
            let found = snapshots::resolve(among, &reference, now, &self.zone);
            let found = found.map(|snapshot| snapshot.id);
            found.map_err(|error| Failure::from(error).or_hint(|| self.command_hint("list")))
        };
        let id = match snapshots.iter().all(|s| self.is_meant(&s.manifest)) {
            true => find(snapshots)?,
            false => {
                let meant = snapshots.iter().filter(|s| self.is_meant(&s.manifest));
                find(&meant.cloned().collect::<Vec<_>>())?
            }
        };
        let found = snapshots.iter().find(|snapshot| snapshot.id == id);
        found.ok_or_else(|| {
            Failure::from(Error::NotFound {
                what: id.to_string(),
            })
        })
    }

    /// Returns the command line of another command on the same repository.
    pub(super) fn command_hint(&self, command: &str) -> String {
        match &self.global.repo {
            Some(repo) => format!("statekeep -r {} {command}", text::quote(repo)),
            None => format!("statekeep {command}"),
        }
    }

    /// Writes the first line of an operation, for programs.
    pub(super) fn start(&self, op: &'static str) -> Result<()> {
        match self.output.is_json() {
            true => self.output.json(&json::start(op, self.cx.clock.now())),
            false => Ok(()),
        }
    }

    /// Goes on only if somebody confirmed.
    pub(super) fn confirm(&self, question: &str) -> Outcome<()> {
        self.confirm_with(|terminal| terminal.ask_yes(&self.cx, question))
    }

    /// Goes on only if somebody typed what is concerned.
    pub(super) fn confirm_by_name(&self, name: &str) -> Outcome<()> {
        let question = format!("Type {} to go on: ", text::safe(name));
        self.confirm_with(|terminal| Ok(terminal.ask_word(&self.cx, &question)? == name))
    }

    fn confirm_with(&self, ask: impl FnOnce(&Terminal) -> Result<bool>) -> Outcome<()> {
        if self.global.yes {
            return Ok(());
        }
        let needed = |message: &str| self.confirmation_needed(message, "--confirm");
        let terminal = match self.output.is_json() {
            true => None,
            false => Terminal::open(),
        };
        match terminal {
            None => Err(needed("this needs to be confirmed; nothing was changed")),
            Some(terminal) => {
                self.output.flush()?;
                match ask(&terminal)? {
                    true => Ok(()),
                    false => Err(needed("not confirmed; nothing was changed")),
                }
            }
        }
    }

    /// Returns the failure of a command that waits for a yes, with the command that says yes.
    pub(super) fn confirmation_needed(&self, message: &str, option: &str) -> Failure {
        let mut command = String::from("statekeep");
        for argument in &self.arguments {
            command.push(' ');
            command.push_str(&text::quote(argument));
        }
        Failure::new("confirmation-needed", 14, message).hint(format!("{command} {option}"))
    }

    /// Asks for a new passphrase twice.
    pub(super) fn ask_new_password(&self) -> Outcome<Zeroizing<Vec<u8>>> {
        let terminal = Terminal::open().ok_or_else(|| {
            Failure::usage("no new passphrase is given, and there is no terminal to ask at")
                .hint("--new-password-file FILE or --new-password-command COMMAND")
        })?;
        let password = terminal.ask_secret(&self.cx, "New passphrase: ")?;
        if password.is_empty() {
            return Err(Failure::usage("the new passphrase is empty"));
        }
        match terminal.ask_secret(&self.cx, "Again: ")? == password {
            true => Ok(password),
            false => Err(Failure::usage(
                "the two passphrases differ; nothing was changed",
            )),
        }
    }
}

/// Returns the directory of a repository.
pub(super) fn repo_path(given: &OsString) -> Outcome<PathBuf> {
    let text = given.to_string_lossy();
    if text.contains("://") {
        let message = format!("{text} is no directory, and repositories are directories so far");
        return Err(Failure::usage(message));
    }
    if text.is_empty() {
        return Err(Failure::usage("the path of the repository is empty"));
    }
    absolute(Path::new(given))
}

/// Fails if this user knows an encrypted repository with this id or at this place.
pub(super) fn refuse_if_witnessed(
    environment: &Environment,
    config: Option<&Config>,
    location: &str,
) -> Outcome<()> {
    let id = config.map(|config| config.repo);
    match credentials::witness(environment, id, location) {
        None => Ok(()),
        Some(path) => {
            let message = format!(
                "{location} is not encrypted, but a key file says that it was: somebody may have \
                 replaced the repository"
            );
            Err(not_encrypted(message).hint(format!(
                "only if you replaced it yourself, move the old key away: mv {0} {0}.old",
                text::quote(path.as_os_str())
            )))
        }
    }
}

fn refuse_unless_for(config: &Config, path: &Path, key_file: &KeyFile) -> Outcome<()> {
    match key_file.repo == config.repo {
        true => Ok(()),
        false => Err(wrong_key(format!(
            "{} is for repository {}, and this is {}",
            path.display(),
            key_file.repo.short(),
            config.repo.short()
        ))),
    }
}

fn not_encrypted(message: String) -> Failure {
    Failure::new("not-encrypted", 4, message)
}

fn wrong_key(reason: String) -> Failure {
    Failure::from(Error::WrongKey { reason })
        .hint("--key-file FILE (a recovery kit will do), or --password-file FILE")
}
