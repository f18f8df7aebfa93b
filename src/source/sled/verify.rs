//! Opens a copy with sled itself and reads every tree. The copy is changed by that.
//!
//! Built without the feature `sled`, nothing can be opened and nothing is said.

use std::path::Path;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Sound,
    Damaged(String),
    /// It could not be checked.
    Unknown(String),
}

/// Checks a copy that nobody needs any more.
#[cfg(not(feature = "sled"))]
pub fn check(_directory: &Path) -> Health {
    Health::Unknown("this program was built without sled".to_string())
}

/// Checks a copy that nobody needs any more.
#[cfg(feature = "sled")]
pub fn check(directory: &Path) -> Health {
    let content = std::fs::read(directory.join("conf")).unwrap_or_default();
    let Some(conf) = super::Conf::parse(&content) else {
        return Health::Damaged("its conf file cannot be read".to_string());
    };
    if conf.is_compressed || conf.version != (0, 34) {
        return Health::Unknown("this format of it cannot be opened here".to_string());
    }
    // sled takes some damage for a mistake of its own.
    let read = std::panic::catch_unwind(|| read_all(directory, &conf));
    match read {
        Ok(Ok(())) => Health::Sound,
        Ok(Err(error)) => Health::Damaged(error.to_string()),
        Err(_) => Health::Damaged("sled gave up on it".to_string()),
    }
}

/// Memory for pages.
#[cfg(feature = "sled")]
const CACHE_BYTES: u64 = 16 << 20;

#[cfg(feature = "sled")]
fn read_all(directory: &Path, conf: &super::Conf) -> ::sled::Result<()> {
    let segment_bytes = usize::try_from(conf.segment_bytes).unwrap_or(usize::MAX);
    let db = ::sled::Config::new()
        .path(directory)
        .segment_size(segment_bytes)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
        .open()?;
    for name in db.tree_names() {
        for row in db.open_tree(name)?.iter() {
            row?;
        }
    }
    Ok(())
}
