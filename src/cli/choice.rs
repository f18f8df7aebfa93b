//! Which configuration, profiles and repository are meant: flags before the environment before the
//! file before what goes without saying.
//!
//! The file is read when something first depends on it, so that a broken one stands in the way of
//! nothing else.

use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::session::Session;
use crate::cli::session::repo_path;
use crate::config;
use crate::config::Config;
use crate::config::Fault;
use crate::config::Origin;
use crate::config::Place;
use crate::config::Profile;
use crate::config::RepoSettings;
use crate::format::manifest::Manifest;
use std::ffi::OsStr;
use std::path::Path;
use std::path::PathBuf;

/// The name of the file below the folder of a user.
const FILE_NAME: &str = "config.toml";
/// The file of the machine.
const SYSTEM_FILE: &str = "/etc/statekeep/config.toml";

/// A repository that is meant, and why.
#[derive(Debug, Clone)]
pub(super) struct Target<'s> {
    /// The directory.
    pub path: PathBuf,
    /// What the configuration says of it, if it was meant by name.
    pub settings: Option<&'s RepoSettings>,
    /// Who said so.
    pub origin: Origin,
}

/// A file that is or would be read, and who said so.
pub(super) struct ConfigFile {
    pub path: PathBuf,
    pub origin: Origin,
    pub exists: bool,
}

impl Session {
    /// Returns where the configuration is looked for: the first of them that exists is read. One
    /// that somebody names is the only one.
    pub(super) fn config_files(&self) -> Outcome<Vec<ConfigFile>> {
        let named = match (&self.global.config, &self.environment.config) {
            (Some(path), _) => Some((path, Origin::Flag("--config"))),
            (None, Some(path)) => Some((path, Origin::Environment("STATEKEEP_CONFIG"))),
            (None, None) => None,
        };
        let paths = match named {
            Some((path, origin)) => vec![(absolute(path)?, origin)],
            None => {
                let own = self.environment.config_dir.as_ref();
                let own = own.map(|dir| dir.join(FILE_NAME));
                let all = own.into_iter().chain([PathBuf::from(SYSTEM_FILE)]);
                all.map(|path| (path, Origin::Default)).collect()
            }
        };
        let files = paths.into_iter().map(|(path, origin)| ConfigFile {
            exists: path.exists(),
            path,
            origin,
        });
        Ok(files.collect())
    }

    /// Returns the configuration, an empty one if there is none.
    pub(super) fn config(&self) -> Outcome<&Config> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let place = self.config_place()?;
        self.explain(|| match &place {
            Some(place) => format!("configuration {}", place.file.display()),
            None => "no configuration: no file is named, and there is none".to_string(),
        });
        let config = match place {
            None => Config::default(),
            Some(place) => read(&place)?.map_err(|faults| failure_of(&faults))?,
        };
        Ok(self.config.get_or_init(|| config))
    }

    /// Returns the file to read; `None` if nobody named one and there is none.
    pub(super) fn config_place(&self) -> Outcome<Option<Place>> {
        let files = self.config_files()?;
        let is_it = |file: &ConfigFile| file.exists || file.origin != Origin::Default;
        let file = files.into_iter().find(is_it);
        Ok(file.map(|file| Place {
            file: file.path,
            home: self.environment.home.clone(),
        }))
    }

    /// Returns the names of profiles that somebody gave.
    pub(super) fn profile_names(&self) -> Vec<&str> {
        match &self.global.profile[..] {
            [] => {
                let names = self.environment.profile.iter();
                names
                    .flat_map(|names| names.split(','))
                    .map(str::trim)
                    .collect()
            }
            names => names.iter().map(String::as_str).collect(),
        }
    }

    /// Returns whether a snapshot is one of those that are meant: of the profiles named, if any.
    pub(super) fn is_meant(&self, manifest: &Manifest) -> bool {
        let names = self.profile_names();
        self.global.all || names.is_empty() || names.contains(&&*manifest.profile)
    }

    /// Returns the profiles that are meant: those named, or with `--all` all, or the only one
    /// there is. None if nobody named one and there are several.
    pub(super) fn profiles(&self) -> Outcome<Vec<&Profile>> {
        let profiles = &self.config()?.profiles;
        let names = self.profile_names();
        match (self.global.all, names.is_empty()) {
            (true, _) => Ok(profiles.values().collect()),
            (false, true) if profiles.len() == 1 => Ok(profiles.values().collect()),
            (false, true) => Ok(Vec::new()),
            (false, false) => {
                let mut found: Vec<&Profile> = Vec::new();
                for name in names {
                    let profile = self.profile_named(name)?;
                    if !found.iter().any(|other| other.name == profile.name) {
                        found.push(profile);
                    }
                }
                Ok(found)
            }
        }
    }

    /// Returns the one profile that is meant. None if nobody named one and there are several.
    pub(super) fn profile(&self) -> Outcome<Option<&Profile>> {
        match self.profiles()?[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            [..] => Err(Failure::usage("this is for one profile at a time").hint("-p NAME")),
        }
    }

    /// Returns the profile of this name.
    pub(super) fn profile_named(&self, name: &str) -> Outcome<&Profile> {
        let config = self.config()?;
        config.profiles.get(name).ok_or_else(|| {
            let names = || config.profiles.keys().map(String::as_str);
            let file = match &config.path {
                Some(path) => format!("{} has no profile {name:?}", path.display()),
                None => format!("there is no configuration, so there is no profile {name:?}"),
            };
            let hint = match (config::nearest(name, names()), config.profiles.is_empty()) {
                (Some(meant), _) => format!("did you mean {meant:?}?"),
                (None, false) => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
                (None, true) => "statekeep profile detect PATH prints one".to_string(),
            };
            Failure::new("no-profile", 2, file).hint(hint)
        })
    }

    /// Returns the repository that is meant for a profile, or without one for all that are meant.
    pub(super) fn target(&self, profile: Option<&Profile>) -> Outcome<Target<'_>> {
        let flag = self
            .global
            .repo
            .as_deref()
            .map(|given| (given, Origin::Flag("--repo")));
        let variable = || {
            let given = self.environment.repo.as_deref()?;
            Some((given, Origin::Environment("STATEKEEP_REPO")))
        };
        if let Some((given, origin)) = flag.or_else(variable) {
            return self.given_target(given, origin);
        }
        let config = self.config()?;
        let name = match profile {
            Some(profile) => profile.repo.as_deref(),
            None => self.common_repo(config)?,
        };
        let name = name.or(config.default_repo.as_deref());
        let only = || {
            config
                .repos
                .values()
                .next()
                .filter(|_| config.repos.len() == 1)
        };
        let settings = name.and_then(|name| config.repos.get(name)).or_else(only);
        match settings {
            Some(settings) => Ok(configured(config, settings)),
            None => Err(self.no_repo(config)),
        }
    }

    /// Returns the target that somebody gave by name or path.
    pub(super) fn given_target(&self, given: &OsStr, origin: Origin) -> Outcome<Target<'_>> {
        let is_name = Path::new(given).components().count() == 1
            && !given.as_encoded_bytes().contains(&b'/')
            && !matches!(given.to_str(), Some("." | "..") | None);
        let settings = match is_name {
            true => given.to_str().map(|name| (name, self.config())),
            false => None,
        };
        if let Some((name, config)) = settings
            && let Some(settings) = config?.repos.get(name)
        {
            let path = settings.path.clone();
            let settings = Some(settings);
            return Ok(Target {
                path,
                settings,
                origin,
            });
        }
        Ok(Target {
            path: repo_path(&given.to_os_string())?,
            settings: None,
            origin,
        })
    }

    /// Returns the name of a repository that was probably meant by the one given.
    pub(super) fn repo_meant(&self, target: &Target<'_>) -> Option<&str> {
        let given = target.path.file_name()?.to_str()?;
        let is_given = matches!(target.origin, Origin::Flag(_) | Origin::Environment(_));
        let config = self
            .config()
            .ok()
            .filter(|_| is_given && target.settings.is_none())?;
        config::nearest(given, config.repos.keys().map(String::as_str))
    }

    /// Returns the repository that the profiles named agree on.
    fn common_repo<'s>(&self, config: &'s Config) -> Outcome<Option<&'s str>> {
        let named = self.profile_names().into_iter();
        // Of a profile that is not configured here, only snapshots can be meant.
        let mut repos: Vec<&str> = match self.global.all {
            true => config
                .profiles
                .values()
                .filter_map(|p| p.repo.as_deref())
                .collect(),
            false => {
                let known = named.filter_map(|name| config.profiles.get(name));
                known
                    .filter_map(|profile| profile.repo.as_deref())
                    .collect()
            }
        };
        repos.sort_unstable();
        repos.dedup();
        match repos[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            [..] => {
                let message = format!(
                    "the profiles are in several repositories: {}",
                    repos.join(", ")
                );
                Err(Failure::usage(message).hint("-r NAME says which"))
            }
        }
    }

    fn no_repo(&self, config: &Config) -> Failure {
        let names: Vec<&str> = config.repos.keys().map(String::as_str).collect();
        match (names.is_empty(), &config.path) {
            (false, Some(path)) => {
                let message = format!(
                    "no repository is given, and {} names several",
                    path.display()
                );
                let names = names.join(", ");
                Failure::usage(message).hint(format!("-r NAME, one of {names}; or [defaults] repo"))
            }
            _ => Failure::usage("no repository is given").hint(
                "statekeep -r PATH …, or set STATEKEEP_REPO, or [repo.main] in the configuration",
            ),
        }
    }

    /// Warns of a file with a passphrase that everybody can read.
    pub(super) fn warn_if_exposed(&self, path: &Path) {
        if let (false, Some(message)) = (self.output.is_json(), exposure(path)) {
            use std::os::unix::ffi::OsStrExt;
            let path = path.as_os_str().as_bytes();
            self.reporter.warn("exposed-password", path, &message);
        }
    }
}

fn configured<'s>(config: &'s Config, settings: &'s RepoSettings) -> Target<'s> {
    let key = format!("repo.{}.url", config::write::name(&settings.name));
    let found = config.settings.iter().find(|setting| setting.key == key);
    Target {
        path: settings.path.clone(),
        settings: Some(settings),
        origin: found.map_or(Origin::Default, |setting| setting.origin.clone()),
    }
}

/// Reads a configuration; the inner result is what it says, or all that is wrong with it.
pub(super) fn read(place: &Place) -> Outcome<Result<Config, Vec<Fault>>> {
    config::read(place).map_err(|error| {
        let message = Failure::from(error).message;
        Failure::new("config", 2, message).hint("statekeep config path: where it is looked for")
    })
}

/// Returns what is wrong with the mode of a file with a secret.
pub(super) fn exposure(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let mode = std::fs::metadata(path).ok()?.mode();
    (mode & 0o007 != 0).then(|| {
        let (path, mode) = (path.display(), mode & 0o777);
        format!("everybody can read or write it (mode {mode:03o}); chmod 600 {path}")
    })
}

/// Returns the failure of a configuration with these faults.
pub(super) fn failure_of(faults: &[Fault]) -> Failure {
    let lines = faults
        .iter()
        .map(|fault| match (&fault.hint, faults.len()) {
            (Some(hint), 2..) => format!("{fault} ({hint})"),
            _ => fault.to_string(),
        });
    let message = lines.collect::<Vec<_>>().join("\n");
    let failure = Failure::new("config", 2, message);
    match faults {
        [
            Fault {
                hint: Some(hint), ..
            },
        ] => failure.hint(hint),
        _ => failure,
    }
}
