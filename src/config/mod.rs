//! The configuration: a TOML file in, typed settings out, every fault of it at once.
//!
//! Reads the file it is told to read and nothing else: where the file is, what the environment
//! and the command line say instead, running anything, and writing what `edit` made of a text is
//! left to the layers above.

mod check;
mod duration;
pub mod edit;
mod fault;
mod keys;
mod notify;
mod read;
mod schedule;
pub mod schema;
mod settings;
mod suggest;
pub mod write;

pub use duration::parse as parse_duration;
pub use fault::Fault;
pub use fault::nearest;
pub use schedule::Schedule;
pub use settings::Argv;
pub use settings::Assert;
pub use settings::Config;
pub use settings::DrillSettings;
pub use settings::EndpointOrigin;
pub use settings::Hook;
pub use settings::Keep;
pub use settings::OnFailure;
pub use settings::OnVersion;
pub use settings::Origin;
pub use settings::PasswordOrigin;
pub use settings::Profile;
pub use settings::RepoSettings;
pub use settings::RestoreSettings;
pub use settings::Scope;
pub use settings::Setting;
pub use settings::TokenOrigin;
pub use settings::Webhook;
pub use suggest::EXAMPLES;
pub use suggest::profile_block;

use crate::config::fault::Faults;
use crate::error::Error;
use crate::error::Result;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::PathBuf;
use toml::de::DeTable;

/// A configuration is never longer.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What paths in a file are relative to.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file, from the root on.
    pub file: PathBuf,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
}

/// Reads a file; the inner result is what it says, or all that is wrong with it.
pub fn read(place: &Place) -> Result<Result<Config, Vec<Fault>>> {
    let path = &place.file;
    let mut text = Vec::new();
    let file = File::open(path).map_err(Error::io("read the configuration", path))?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text);
    read.map_err(Error::io("read the configuration", path))?;
    let too_long = text.len() as u64 > FILE_BYTES_MAX;
    let text = String::from_utf8(text).ok().filter(|_| !too_long);
    let text = text.ok_or_else(|| {
        let why = "it is no text of a sensible length";
        Error::io("read the configuration", path)(io::Error::new(io::ErrorKind::InvalidData, why))
    })?;
    Ok(parse(&text, place))
}

/// Returns what a text says as the file at this place, or all that is wrong with it.
pub fn parse(text: &str, place: &Place) -> Result<Config, Vec<Fault>> {
    let mut faults = Faults::new(&place.file, text);
    let file = match DeTable::parse(text) {
        Ok(file) => file,
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            faults.add(
                offset,
                format!("this is no TOML: {}", error.message()),
                None,
            );
            return Err(faults.finish());
        }
    };
    let file = file.get_ref();
    check::table(&mut faults, "", file, 0, keys::FILE);
    let config = read::config(&mut faults, file, place);
    match faults.is_empty() {
        true => Ok(config),
        false => Err(faults.finish()),
    }
}

#[cfg(test)]
mod tests;
