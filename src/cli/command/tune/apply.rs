//! Writes what `tune` recommends into the configuration: one line of it, and nothing else.

use crate::cli::choice;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::session::Session;
use crate::config;
use crate::config::Config;
use crate::config::Place;
use crate::config::Profile;
use crate::config::edit;
use crate::config::edit::Edited;
use crate::config::edit::Uneditable;
use crate::config::write;
use crate::disk::output::Existing;
use crate::disk::output::OutputFile;
use crate::disk::output::Readers;
use crate::error::Error;
use crate::ops::backup::DatabaseCuts;
use crate::ops::tune::Change;
use crate::ops::tune::Way;
use std::fs;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// A file that can be written to, and the profile in it.
pub(super) struct Writable<'s> {
    place: Place,
    /// Where the file is, whatever links lead to it.
    path: PathBuf,
    profile: &'s Profile,
}

/// What was written.
pub(super) struct Applied {
    pub path: PathBuf,
    pub edited: Edited,
}

/// Returns the key and the value of a change.
pub(super) fn setting(change: Change) -> Option<(&'static str, String)> {
    match change {
        Change::Nothing => None,
        Change::Level(level) => Some(("compression", level.to_string())),
        Change::RunLen(run_len) => Some(("delta-run", run_len.to_string())),
        Change::Cuts(cuts) => Some(("database-cuts", write::text(cuts_name(cuts)))),
    }
}

/// Returns the word of the configuration.
pub(super) fn cuts_name(cuts: DatabaseCuts) -> &'static str {
    match cuts {
        DatabaseCuts::Groups => "groups",
        DatabaseCuts::SmallGroups => "small-groups",
        DatabaseCuts::LargeGroups => "large-groups",
        DatabaseCuts::Content => "content",
    }
}

/// Returns the file of a profile if it can be written to.
pub(super) fn writable<'s>(
    session: &Session,
    profile: Option<&'s Profile>,
) -> Outcome<Writable<'s>> {
    let refused = |message: String, hint: &str| Failure::usage(message).hint(hint);
    let Some(profile) = profile else {
        let message = "these snapshots are of no profile of the configuration, so that there is \
                       nothing to write to";
        let hint = "statekeep profile detect PATH prints a profile to begin with";
        return Err(refused(message.to_string(), hint));
    };
    let Some(place) = session.config_place()? else {
        return Err(refused(
            "there is no configuration to write to".to_string(),
            "statekeep config path: where it is looked for",
        ));
    };
    let opened = fs::canonicalize(&place.file).and_then(|path| {
        OpenOptions::new().append(true).open(&path)?;
        Ok(path)
    });
    match opened {
        Ok(path) => Ok(Writable {
            place,
            path,
            profile,
        }),
        Err(error) => Err(refused(
            format!("{} cannot be written to: {error}", place.file.display()),
            "without --apply, tune prints the line to add",
        )),
    }
}

/// Changes the file, or with `--dry-run` says how.
pub(super) fn apply(session: &Session, file: &Writable<'_>, change: Change) -> Outcome<Applied> {
    let Writable {
        place,
        path,
        profile,
    } = file;
    let io = |action| Error::io(action, path);
    let Some((key, value)) = setting(change) else {
        return Err(Failure::usage("there is nothing to change"));
    };
    let text = fs::read_to_string(path).map_err(io("read the configuration"))?;
    let edited = edit::set(&text, &profile.name, key, &value).map_err(|why| {
        let name = write::name(&profile.name);
        let message = match why {
            Uneditable::NoProfile => format!("profile {name} is not in {}", path.display()),
            Uneditable::InDefaults(line) => format!(
                "`{key}` comes from [defaults], line {line}, and counts for other profiles too"
            ),
            Uneditable::OnOneLine(line) => {
                format!("profile {name} stands on one line, {line}, which is yours to change")
            }
        };
        Failure::usage(message).hint(format!("{key} = {value} in [profile.{name}] says it"))
    })?;
    // A change that says anything else than was meant is not written, whatever the reason.
    let before = parsed(&text, place)?;
    let after = parsed(&edited.text, place)?;
    if !is_only(&before, &after, &profile.name, change) {
        let message = format!("{} cannot be changed safely", path.display());
        let hint = format!("add {key} = {value} to the profile by hand");
        return Err(Failure::usage(message).hint(hint));
    }
    if !session.global.dry_run {
        let metadata = fs::metadata(path).map_err(io("look at"))?;
        let mut file = OutputFile::create(path, Readers::Owner, Existing::Replace)?;
        file.write_all(edited.text.as_bytes())
            .map_err(io("write"))?;
        file.take_after(&metadata)?;
        if fs::read_to_string(path).map_err(io("read the configuration"))? != text {
            let message = format!("{} changed meanwhile", path.display());
            return Err(Failure::usage(message).hint("run it again"));
        }
        file.finish()?;
    }
    Ok(Applied {
        path: path.clone(),
        edited,
    })
}

fn parsed(text: &str, place: &Place) -> Outcome<Config> {
    config::parse(text, place).map_err(|faults| choice::failure_of(&faults))
}

/// Returns whether a change is all that two configurations differ by.
fn is_only(before: &Config, after: &Config, name: &str, change: Change) -> bool {
    let mut expected = before.profiles.clone();
    if let Some(profile) = expected.get_mut(name) {
        let way = change.of(&Way {
            cuts: profile.database_cuts,
            effort: profile.effort,
        });
        profile.database_cuts = way.cuts;
        profile.effort = way.effort;
    }
    after.profiles == expected
        && after.repos == before.repos
        && after.default_repo == before.default_repo
}
