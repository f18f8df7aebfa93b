//! Passphrases and key files: where they come from, and which are tried on a repository.
//!
//! A flag goes before the environment. What is given explicitly is the only thing tried: whoever
//! gives a passphrase wants to know whether the passphrase opens it. Nothing secret is ever an
//! argument, printed or logged (I9).

use crate::cli::args::Global;
use crate::cli::args::ToKeyArgs;
use crate::cli::environment::Environment;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::config::PasswordOrigin;
use crate::config::RepoSettings;
use crate::context::Context;
use crate::error::Error;
use crate::format::keyfile::KEY_FILE_BYTES_MAX;
use crate::format::keyfile::KeyFile;
use crate::id::RepoId;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use zeroize::Zeroizing;

const PASSWORD_BYTES_MAX: u64 = 64 << 10;

/// A passphrase.
pub(super) type Password = Zeroizing<Vec<u8>>;

/// Where a passphrase comes from.
pub(super) enum PasswordSource<'a> {
    /// The environment itself.
    Value(&'a Password),
    /// The first line of a file.
    File(&'a Path),
    /// What a program prints.
    Command(&'a OsStr),
    /// What a program prints, its arguments apart.
    Argv(&'a [String]),
}

/// What somebody said the repository opens with.
pub(super) enum Given<'a> {
    /// A passphrase.
    Password(PasswordSource<'a>),
    /// A key file.
    KeyFile(&'a Path),
    /// Nothing.
    Nothing,
}

/// Returns the passphrase given, flags before the environment before the configuration.
pub(super) fn given_password<'a>(
    global: &'a Global,
    environment: &'a Environment,
    settings: Option<&'a RepoSettings>,
) -> Outcome<Option<PasswordSource<'a>>> {
    // That both flags are given is refused by the parser.
    if let Some(file) = &global.password_file {
        return Ok(Some(PasswordSource::File(file)));
    }
    if let Some(command) = &global.password_command {
        return Ok(Some(PasswordSource::Command(command)));
    }
    let value = environment.password.as_ref().map(PasswordSource::Value);
    let file = environment.password_file.as_deref();
    let command = environment.password_command.as_deref();
    let sources = [
        value,
        file.map(PasswordSource::File),
        command.map(PasswordSource::Command),
    ];
    let mut sources = sources.into_iter().flatten();
    match (sources.next(), sources.next()) {
        (None, None) => Ok(settings.and_then(configured_password)),
        (source, None) => Ok(source),
        (_, Some(_)) => Err(Failure::usage(
            "STATEKEEP_PASSWORD, _PASSWORD_FILE and _PASSWORD_COMMAND contradict each other",
        )
        .hint("set one of them")),
    }
}

fn configured_password(settings: &RepoSettings) -> Option<PasswordSource<'_>> {
    Some(match settings.password.as_ref()? {
        PasswordOrigin::File(path) => PasswordSource::File(path),
        PasswordOrigin::Command(argv) => PasswordSource::Argv(argv),
    })
}

/// Returns what the repository is to be opened with, as far as somebody said.
pub(super) fn given<'a>(
    global: &'a Global,
    environment: &'a Environment,
    settings: Option<&'a RepoSettings>,
) -> Outcome<Given<'a>> {
    let has_password_flag = global.password_file.is_some() || global.password_command.is_some();
    match (&global.key_file, has_password_flag) {
        (Some(_), true) => Err(Failure::usage(
            "a key file and a passphrase are given, and one opens the repository",
        )
        .hint("leave out --key-file or the passphrase")),
        (Some(file), false) => Ok(Given::KeyFile(file)),
        (None, _) => match (
            given_password(global, environment, None)?,
            &environment.key_file,
        ) {
            (Some(_), Some(_)) if !has_password_flag => Err(Failure::usage(
                "STATEKEEP_KEY_FILE and a STATEKEEP_PASSWORD variable contradict each other",
            )
            .hint("set one of them")),
            (Some(source), _) => Ok(Given::Password(source)),
            (None, Some(file)) => Ok(Given::KeyFile(file)),
            (None, None) => Ok(settings.map_or(Given::Nothing, configured)),
        },
    }
}

/// Returns what a repository that is copied to is to be opened with, as far as somebody said.
pub(super) fn given_to<'a>(args: &'a ToKeyArgs, settings: Option<&'a RepoSettings>) -> Given<'a> {
    let file = args.to_password_file.as_deref().map(PasswordSource::File);
    let command = args.to_password_command.as_deref();
    let password = file.or(command.map(PasswordSource::Command));
    match (password, &args.to_key_file) {
        (Some(source), _) => Given::Password(source),
        (None, Some(file)) => Given::KeyFile(file),
        (None, None) => settings.map_or(Given::Nothing, configured),
    }
}

fn configured(settings: &RepoSettings) -> Given<'_> {
    match (configured_password(settings), &settings.key_file) {
        (Some(source), _) => Given::Password(source),
        (None, Some(file)) => Given::KeyFile(file),
        (None, None) => Given::Nothing,
    }
}

/// Returns the passphrase from this source.
pub(super) fn read_password(cx: &Context, source: &PasswordSource<'_>) -> Outcome<Password> {
    let (mut password, origin) = match source {
        PasswordSource::Value(value) => ((*value).clone(), "STATEKEEP_PASSWORD".to_string()),
        PasswordSource::File(path) => {
            let origin = path.display().to_string();
            let read = File::open(path).and_then(|mut file| read_limited(&mut file));
            let read = read.map_err(|error| bad(format!("cannot read {origin}: {error}")))?;
            (read, origin)
        }
        PasswordSource::Command(command) => {
            let output = split_command(command).and_then(|words| run(&words));
            // Interrupting the program interrupts us.
            cx.check()?;
            (output?, "the password command".to_string())
        }
        PasswordSource::Argv(argv) => {
            let words: Vec<OsString> = argv.iter().map(OsString::from).collect();
            let output = run(&words);
            cx.check()?;
            (output?, "the password command".to_string())
        }
    };
    if !matches!(source, PasswordSource::Value(_)) && password.last() == Some(&b'\n') {
        password.pop();
        if password.last() == Some(&b'\r') {
            password.pop();
        }
    }
    match password.is_empty() {
        true => Err(bad(format!("the passphrase from {origin} is empty"))),
        false => Ok(password),
    }
}

/// Returns a passphrase for a file that `age` opens, which takes text only.
pub(super) fn as_text(password: &Password) -> Outcome<Zeroizing<String>> {
    match std::str::from_utf8(password) {
        Ok(password) => Ok(Zeroizing::new(password.to_string())),
        Err(_) => Err(bad(
            "the passphrase is not UTF-8, and age could not be given it",
        )),
    }
}

fn run(words: &[OsString]) -> Outcome<Password> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(bad("the password command is empty"));
    };
    let name = program.to_string_lossy().into_owned();
    let failed = |error: io::Error| bad(format!("cannot run the password command {name}: {error}"));
    let mut child = Command::new(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let output = child.stdout.take();
    let read = output.map_or(Ok(Zeroizing::default()), |mut out| read_limited(&mut out));
    let status = child.wait().map_err(failed)?;
    let password = read.map_err(failed)?;
    match status.success() {
        true => Ok(password),
        false => Err(bad(format!("the password command {name} failed: {status}"))),
    }
}

/// Splits at white space; single and double quotes keep it, and nothing else is special.
fn split_command(command: &OsStr) -> Outcome<Vec<OsString>> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    for &byte in command.as_bytes() {
        match (quote, byte) {
            (Some(open), byte) if byte == open => quote = None,
            (None, b'\'' | b'"') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (None, byte) if byte.is_ascii_whitespace() => words.extend(word.take()),
            (_, byte) => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    match quote {
        Some(_) => Err(bad("the password command has a quote that does not end")),
        None => Ok(words.into_iter().map(OsString::from_vec).collect()),
    }
}

/// Reserved in one go, so that no copy of the secret is left behind by growing.
fn read_limited(from: &mut dyn Read) -> io::Result<Password> {
    let limit = usize::try_from(PASSWORD_BYTES_MAX).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    from.take(PASSWORD_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() <= limit {
        true => Ok(bytes),
        false => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is too long for a passphrase",
        )),
    }
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::new("password-source", 2, message)
}

/// Returns where the key file of a repository is kept.
pub(super) fn key_file_path(environment: &Environment, repo: RepoId) -> Option<PathBuf> {
    Some(keys_dir(environment)?.join(format!("{repo}.key")))
}

fn keys_dir(environment: &Environment) -> Option<PathBuf> {
    Some(environment.config_dir.as_ref()?.join("keys"))
}

/// Reads a key file or recovery kit, which must be there.
pub(super) fn read_key_file(path: &Path) -> Outcome<KeyFile> {
    let read = || {
        let file = File::open(path)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(Error::io("read the key file", path))?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    KeyFile::decode(text).map_err(|error| {
        let message = format!("{} is no sound key file: {error}", path.display());
        Failure::new("bad-key-file", 12, message)
            .hint("compare it with the recovery kit, or open with another key")
    })
}

/// Returns this user's key file of the repository and its path, if there is one.
pub(super) fn local_key_file(
    environment: &Environment,
    repo: RepoId,
) -> Outcome<Option<(PathBuf, KeyFile)>> {
    let Some(path) = key_file_path(environment, repo) else {
        return Ok(None);
    };
    match path.try_exists() {
        Ok(false) => Ok(None),
        Ok(true) => read_key_file(&path).map(|key_file| Some((path, key_file))),
        Err(error) => Err(Error::io("read the key file", &path)(error).into()),
    }
}

/// Returns a key file of this user that speaks of an encrypted repository with this id or at this
/// place. Files that are no key files do not count.
pub(super) fn witness(
    environment: &Environment,
    repo: Option<RepoId>,
    location: &str,
) -> Option<PathBuf> {
    if let Some(path) = repo.and_then(|repo| key_file_path(environment, repo))
        && path.exists()
    {
        return Some(path);
    }
    let entries = std::fs::read_dir(keys_dir(environment)?).ok()?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().find(|path| {
        path.extension() == Some(OsStr::new("key"))
            && read_key_file(path).is_ok_and(|key_file| key_file.location == location)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_without_a_shell() {
        let words = |text: &str| split_command(OsStr::new(text)).ok();
        let of = |words: &[&str]| Some(words.iter().map(OsString::from).collect());

        assert_eq!(words("pass show  x"), of(&["pass", "show", "x"]));
        assert_eq!(words("a 'b c' \"d'e\""), of(&["a", "b c", "d'e"]));
        assert_eq!(words("a '' b'c'd"), of(&["a", "", "bcd"]));
        assert_eq!(words(r"a \n $HOME"), of(&["a", r"\n", "$HOME"]));
        assert_eq!(words("  "), of(&[]));
        assert_eq!(words("a 'b"), None);
    }

    #[test]
    fn a_passphrase_loses_one_line_end_and_must_not_be_empty() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("p");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let source = PasswordSource::File(&path);
            read_password(&Context::new(), &source).map(|password| password.to_vec())
        };

        assert_eq!(read("a b\n").unwrap(), b"a b");
        assert_eq!(read("a\r\n").unwrap(), b"a");
        assert_eq!(read("a\n\n").unwrap(), b"a\n");
        assert_eq!(read("a").unwrap(), b"a");
        for empty in ["", "\n", "\r\n"] {
            let failure = read(empty).unwrap_err();
            assert_eq!((failure.code, failure.exit), ("password-source", 2));
        }
        assert!(read(&"x".repeat(100_000)).is_err());
    }

    #[test]
    fn a_password_command_that_fails_gives_no_passphrase() {
        let read = |command: &str| {
            let source = PasswordSource::Command(OsStr::new(command));
            read_password(&Context::new(), &source).map(|password| password.to_vec())
        };

        assert_eq!(read("printf 'a b'").unwrap(), b"a b");
        assert!(read("false").unwrap_err().message.contains("failed"));
        assert!(read("/does/not/exist").unwrap_err().message.contains("run"));
        assert!(read("true").unwrap_err().message.contains("empty"));
    }
}
