//! A megabyte that is kept for the day the disk is full.
//!
//! Removing snapshots and dropping packs takes a slot, and on a full disk there is room for none.
//! The reserve is an object that means nothing; who needs room to make room deletes it first.

use crate::context::Context;
use crate::error::Result;
use crate::safeguard::Safeguard;
use crate::store::Folder;
use crate::store::Key;
use crate::store::Store;

/// Room for the slot that drops 30,000 packs.
const RESERVE_BYTES: usize = 1 << 20;

fn key() -> Key {
    Key::new(Folder::Top, "reserve").expect("invariant: a plain name")
}

/// Makes the reserve if it is not there. Random, so that no file system stores it in less.
pub fn ensure(cx: &Context, store: &dyn Store) -> Result<()> {
    if store.stored_bytes(&key())?.is_some() {
        return Ok(());
    }
    let mut bytes = vec![0; RESERVE_BYTES];
    cx.random.fill(&mut bytes)?;
    store.put_new(&key(), &bytes)?;
    Ok(())
}

/// Returns whether the reserve is there.
pub fn is_there(store: &dyn Store) -> Result<bool> {
    Ok(store.stored_bytes(&key())?.is_some())
}

/// Gives the reserve up; returns whether there was one.
pub fn spend(store: &dyn Store) -> Result<bool> {
    if store.stored_bytes(&key())?.is_none() || !Safeguard::ReserveSpent.holds() {
        return Ok(false);
    }
    store.delete(&key())?;
    Ok(true)
}
