//! `repo info`: what the repository is, as far as everybody may see it. No key is needed.

use crate::cli::command::DONE;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::codec::cipher::Suite;
use crate::repo::keys;
use crate::store::Folder;
use serde::Serialize;

#[derive(Serialize)]
struct Info {
    id: String,
    location: String,
    created_at: String,
    encryption: &'static str,
    keys: u64,
    packs: u64,
    stored_bytes: u64,
    log_slots: u64,
}

/// Returns the stable name of a cipher suite.
pub(super) fn encryption(suite: Suite) -> &'static str {
    match suite {
        Suite::Plain => "none",
        Suite::Aes256Gcm => "aes-256-gcm",
        Suite::ChaCha20Poly1305 => "chacha20-poly1305",
    }
}

/// Shows what the repository is.
pub(super) fn info(session: &Session) -> Outcome<u8> {
    let (store, config) = session.open_store()?;
    let keys = keys::list(&*store)?;
    let packs = store.list(Folder::Packs)?;
    let info = Info {
        id: config.repo.to_string(),
        location: store.location(),
        created_at: text::rfc3339(config.created_at),
        encryption: encryption(config.suite),
        keys: keys.len() as u64,
        packs: packs.len() as u64,
        stored_bytes: packs.iter().map(|pack| pack.stored_bytes).sum(),
        log_slots: store.list(Folder::Log)?.len() as u64,
    };
    let output = &session.output;
    if output.is_json() {
        output.json(&json::document("repo", info))?;
        return Ok(DONE);
    }
    let created = text::local_with_zone(config.created_at, &session.zone);
    let encryption = match config.suite {
        Suite::Plain => "none: whoever can read the repository can read every backup in it",
        suite => encryption(suite),
    };
    output.line(format!("Repository  {}", info.id))?;
    output.line(format!("place       {}", text::safe(&info.location)))?;
    output.line(format!("created     {created}"))?;
    output.line(format!("encryption  {encryption}"))?;
    if config.suite != Suite::Plain {
        output.line(format!("keys        {}", info.keys))?;
    }
    let size = text::size(info.stored_bytes);
    output.line(format!(
        "stored      {size} in {}",
        text::count(info.packs, "pack", "packs")
    ))?;
    Ok(DONE)
}
