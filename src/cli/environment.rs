//! The environment, read once: variables, and the directories that follow from them.
//!
//! A `STATEKEEP_` variable that is set counts, so an empty one is an error: it comes from a script
//! that lost a value. The XDG variables follow their specification: empty or relative is unset.

use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// What the environment says.
#[derive(Default)]
pub(super) struct Environment {
    /// The repository.
    pub repo: Option<OsString>,
    /// Names of profiles, separated by commas.
    pub profile: Option<String>,
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The home directory.
    pub home: Option<PathBuf>,
    /// The passphrase itself.
    pub password: Option<Zeroizing<Vec<u8>>>,
    /// A file with the passphrase.
    pub password_file: Option<PathBuf>,
    /// A program that prints the passphrase.
    pub password_command: Option<OsString>,
    /// A key file.
    pub key_file: Option<PathBuf>,
    /// Where settings and keys are; `None` if there is no home.
    pub config_dir: Option<PathBuf>,
    /// Where disposable files are; `None` if there is no home.
    pub cache_dir: Option<PathBuf>,
    /// Where short-lived files may be put.
    pub temp_dir: PathBuf,
    /// Where programs are looked for.
    pub search: Vec<PathBuf>,
    /// Whether colour is unwanted.
    pub no_color: bool,
    /// Whether the terminal can do no more than print.
    pub is_dumb_terminal: bool,
}

impl Environment {
    /// Reads the environment of the process.
    pub(super) fn of_process() -> Outcome<Environment> {
        Environment::read(&|name| std::env::var_os(name))
    }

    fn read(get: &dyn Fn(&str) -> Option<OsString>) -> Outcome<Environment> {
        let own = |name: &'static str| match get(name) {
            Some(value) if value.is_empty() => Err(Failure::usage(format!("{name} is empty"))
                .hint(format!("unset it, or give it a value: unset {name}"))),
            value => Ok(value),
        };
        let base = |name: &str, below_home: &str| {
            let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|p| p.is_absolute());
            let base = get(name).and_then(absolute);
            let base = base.or_else(|| Some(get("HOME").and_then(absolute)?.join(below_home)));
            base.map(|base| base.join("statekeep"))
        };
        let cache_dir = match own("STATEKEEP_CACHE_DIR")? {
            Some(dir) => Some(absolute(Path::new(&dir))?),
            None => base("XDG_CACHE_HOME", ".cache"),
        };
        let password = own("STATEKEEP_PASSWORD")?;
        let profile = own("STATEKEEP_PROFILE")?.map(OsString::into_string);
        let profile = profile.transpose().map_err(|_| {
            Failure::usage("STATEKEEP_PROFILE is no name of a profile: it is not UTF-8")
        })?;
        Ok(Environment {
            repo: own("STATEKEEP_REPO")?,
            profile,
            config: own("STATEKEEP_CONFIG")?.map(PathBuf::from),
            home: (get("HOME").map(PathBuf::from)).filter(|home| home.is_absolute()),
            password: password.map(|text| Zeroizing::new(text.into_vec())),
            password_file: own("STATEKEEP_PASSWORD_FILE")?.map(PathBuf::from),
            password_command: own("STATEKEEP_PASSWORD_COMMAND")?,
            key_file: own("STATEKEEP_KEY_FILE")?.map(PathBuf::from),
            config_dir: base("XDG_CONFIG_HOME", ".config"),
            cache_dir,
            temp_dir: (get("TMPDIR").map(PathBuf::from))
                .filter(|dir| dir.is_absolute())
                .unwrap_or_else(|| PathBuf::from("/tmp")),
            search: get("PATH")
                .map_or_else(Vec::new, |path| std::env::split_paths(&path).collect()),
            no_color: get("NO_COLOR").is_some_and(|value| !value.is_empty()),
            is_dumb_terminal: get("TERM").as_deref() == Some(OsStr::new("dumb")),
        })
    }
}

/// Returns the path from the root on, without touching the file system.
pub(super) fn absolute(path: &Path) -> Outcome<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("{} is no path: {error}", path.display())))
}

/// Returns a variable that the configuration names.
pub(super) fn variable(name: &str) -> Option<Zeroizing<String>> {
    let value = std::env::var_os(name)?.into_string().ok()?;
    Some(Zeroizing::new(value)).filter(|value| !value.is_empty())
}

/// Returns the name of this machine.
pub(super) fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Outcome<Environment> {
        Environment::read(&|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn directories_follow_xdg_and_fall_back_to_home() {
        let home = read(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "relative")]).unwrap();
        let xdg = read(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]).unwrap();
        let own = read(&[("STATEKEEP_CACHE_DIR", "/own"), ("XDG_CACHE_HOME", "/c")]).unwrap();
        let none = read(&[]).unwrap();

        assert_eq!(home.config_dir, Some("/h/.config/statekeep".into()));
        assert_eq!(xdg.cache_dir, Some("/c/statekeep".into()));
        assert_eq!(own.cache_dir, Some("/own".into()));
        assert_eq!((none.config_dir, none.cache_dir), (None, None));
    }

    #[test]
    fn an_empty_variable_of_ours_is_an_error_and_no_color_must_not_be_empty() {
        for name in [
            "STATEKEEP_REPO",
            "STATEKEEP_PASSWORD",
            "STATEKEEP_CACHE_DIR",
        ] {
            let failure = read(&[(name, "")]).err().unwrap();
            assert_eq!((failure.code, failure.exit), ("usage", 2));
            assert!(failure.message.contains(name));
        }
        assert!(!read(&[("NO_COLOR", "")]).unwrap().no_color);
        assert!(read(&[("NO_COLOR", "1")]).unwrap().no_color);
    }
}
