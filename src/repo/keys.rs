//! Key slots of a repository: opening, adding, removing, rotating.
//!
//! A slot is an object of its own under `keys/`, created once. Every slot holds the whole keyring.
//! It is named after its bytes, so that a damaged one is known without what opens it.

use crate::context::Context;
use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::format::config::Config;
use crate::format::key::Binding;
use crate::format::key::Credential;
use crate::format::key::Derivation;
use crate::format::key::Keyring;
use crate::format::key::Slot;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::id;
use crate::repo::NewKey;
use crate::repo::Repo;
use crate::safeguard::Safeguard;
use crate::store::Folder;
use crate::store::Key;
use crate::store::Store;

/// What a passphrase costs to try: 32 MiB and two passes.
pub const PASSPHRASE: Derivation = Derivation::Passphrase {
    memory_kib: 32 * 1024,
    passes: 2,
};

/// Slots that are looked at.
const SLOTS_MAX: usize = 64;
/// No slot is longer.
const SLOT_BYTES_MAX: u64 = 64 << 10;
/// Digits of a name that is taken from the bytes. Names of another length mean nothing.
const NAME_DIGITS: usize = 32;

/// A key slot as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// The name of its object.
    pub name: String,
    /// What opens it, unless it cannot be read.
    pub derivation: Option<Derivation>,
    /// When it was made.
    pub created_at: Timestamp,
    /// What a person calls it.
    pub label: String,
    /// Why nothing opens it, if that is known.
    pub damage: Option<String>,
}

/// Opens the keyring with the first credential that fits a slot. If several slots open with it, as
/// after a rotation that was cut off, their keyrings are put together.
pub(super) fn open_any(
    store: &dyn Store,
    config: &Config,
    config_bytes: &[u8],
    credentials: &[Credential],
) -> Result<Keyring> {
    let binding = Binding {
        config: config_bytes,
        suite: config.suite,
    };
    let slots = read_slots(store)?;
    let mut damaged = None;
    for credential in credentials {
        let mut opened: Option<Keyring> = None;
        for ReadSlot { key, slot, .. } in &slots {
            let slot = match slot {
                Ok(slot) => slot,
                Err(malformed) => {
                    damaged = Some(malformed.clone().of(key.to_string()));
                    if !Safeguard::DamagedSlotPassed.holds() {
                        break;
                    }
                    continue;
                }
            };
            // A slot that says it holds nothing newer is not worth the time of a passphrase.
            let newest = opened.as_ref().map(Keyring::newest_generation);
            if newest.is_some_and(|newest| newest >= slot.generation) {
                continue;
            }
            match (slot.unseal(credential, binding), &mut opened) {
                (Ok(Some(keyring)), Some(opened)) => opened.merge(&keyring),
                (Ok(Some(keyring)), none) => *none = Some(keyring),
                (Ok(None), _) => {}
                (Err(malformed), _) => damaged = Some(malformed.of(key.to_string())),
            }
        }
        if let Some(keyring) = opened {
            return Ok(keyring);
        }
    }
    // A slot that cannot be read may be the one that would have opened.
    Err(damaged.unwrap_or_else(|| Error::WrongKey {
        reason: match (credentials.len(), slots.len()) {
            (0, _) => format!(
                "repository {} is encrypted and no key was given",
                config.repo.short()
            ),
            (_, 0) => format!("repository {} has no key slot", config.repo.short()),
            (_, 1) => format!(
                "the one key slot of {} does not open with it",
                config.repo.short()
            ),
            (_, slots) => {
                format!(
                    "none of the {slots} key slots of {} opens with it",
                    config.repo.short()
                )
            }
        },
    }))
}

struct ReadSlot {
    key: Key,
    slot: Decoded<Slot>,
    has_its_name: bool,
}

fn read_slots(store: &dyn Store) -> Result<Vec<ReadSlot>> {
    let mut slots = Vec::new();
    let mut names: Vec<String> = store
        .list(Folder::Keys)?
        .into_iter()
        .map(|o| o.name)
        .collect();
    names.sort();
    // Nothing about slots is authenticated before one opens: a hostile store may show any number.
    names.truncate(SLOTS_MAX);
    for name in names {
        // Somebody may remove a key between the list and here.
        let Some(key) = Key::new(Folder::Keys, name) else {
            continue;
        };
        if let Some(bytes) = store.get_range(&key, 0..SLOT_BYTES_MAX)? {
            let other_scheme = key.name().len() != NAME_DIGITS;
            slots.push(ReadSlot {
                slot: Slot::decode(&bytes),
                has_its_name: other_scheme || key.name() == name_of(&bytes),
                key,
            });
        }
    }
    Ok(slots)
}

/// Returns the name of a slot with these bytes.
fn name_of(bytes: &[u8]) -> String {
    id::hex(&blake3::hash(bytes).as_bytes()[..NAME_DIGITS / 2])
}

/// Returns the key slots in a store, damaged ones too. No key is needed to see them.
pub fn list(store: &dyn Store) -> Result<Vec<KeyInfo>> {
    Ok(read_slots(store)?.into_iter().map(info).collect())
}

fn info(read: ReadSlot) -> KeyInfo {
    let damage = match &read.slot {
        _ if !read.has_its_name => Some("it is not what it was named after"),
        Err(Malformed::Bytes(reason)) => Some(*reason),
        // A later version may write slots that this one does not know.
        Err(Malformed::Unknown(..)) | Ok(_) => None,
    };
    let slot = read.slot.ok();
    KeyInfo {
        name: read.key.name().to_string(),
        derivation: slot.as_ref().map(|slot| slot.derivation),
        created_at: slot
            .as_ref()
            .map_or_else(Timestamp::default, |slot| slot.created_at),
        label: slot.map_or_else(String::new, |slot| slot.label),
        damage: damage.map(String::from),
    }
}

impl Repo {
    /// Returns the key slots.
    pub fn keys(&self) -> Result<Vec<KeyInfo>> {
        list(self.store())
    }

    /// Returns the key slots that open with this credential. Slots that cannot be read do not.
    pub fn keys_opened_by(&self, credential: &Credential) -> Result<Vec<KeyInfo>> {
        let binding = Binding {
            config: &self.config_bytes,
            suite: self.config.suite,
        };
        let mut opened = Vec::new();
        for read in read_slots(self.store())? {
            let opens = |slot: &Slot| matches!(slot.unseal(credential, binding), Ok(Some(_)));
            if read.slot.as_ref().is_ok_and(opens) {
                opened.push(info(read));
            }
        }
        Ok(opened)
    }

    /// Adds a key slot and returns its object.
    pub fn add_key(&self, cx: &Context, new_key: &NewKey) -> Result<Key> {
        let keyring = self.keyring.as_ref().ok_or_else(plain)?;
        self.put_slot(cx, keyring, new_key)
    }

    fn put_slot(&self, cx: &Context, keyring: &Keyring, new_key: &NewKey) -> Result<Key> {
        let label = (new_key.label.clone(), cx.clock.now());
        let (derivation, salt) = (new_key.derivation, cx.random_bytes()?);
        let binding = Binding {
            config: &self.config_bytes,
            suite: self.config.suite,
        };
        let slot = Slot::seal(
            keyring,
            &new_key.credential,
            derivation,
            label,
            salt,
            binding,
        );
        let slot = slot.map_err(|malformed| malformed.of("the new key slot"))?;
        let bytes = slot.encode();
        let key = Key::new(Folder::Keys, name_of(&bytes)).expect("invariant: hex is a plain name");
        self.store.put_new(&key, &bytes)?;
        Ok(key)
    }

    /// Removes a key slot by the start of its name. The last one that is sound stays: without it
    /// nobody could read the repository again.
    pub fn remove_key(&self, prefix: &str) -> Result<KeyInfo> {
        let mut keys = self.keys()?;
        let is_other_one = |key: &&KeyInfo| key.damage.is_none() && !key.name.starts_with(prefix);
        let remaining = keys.iter().filter(is_other_one).count();
        keys.retain(|key| key.name.starts_with(prefix));
        let what = format!("key {prefix}");
        match (keys.pop(), keys.is_empty()) {
            (None, _) => Err(Error::NotFound { what }),
            (Some(_), false) => Err(Error::Ambiguous {
                what,
                candidates: "several keys".to_string(),
            }),
            (Some(_), true) if remaining == 0 && Safeguard::LastKeyStays.holds() => {
                let reason = "the last key cannot be removed: nobody could read the backups again";
                Err(Error::Refused {
                    reason: reason.to_string(),
                })
            }
            (Some(found), true) => {
                let key = Key::new(Folder::Keys, found.name.clone());
                self.store.delete(&key.expect("invariant: it was listed"))?;
                self.store.sync(Folder::Keys)?;
                Ok(found)
            }
        }
    }

    /// Begins a new generation of the data key. What is stored stays readable; what is written from
    /// now on is sealed with a key that removed credentials never held. Slots of other credentials
    /// cannot be made anew without them and are removed: `keep` must hold all that shall open it.
    pub fn rotate_keys(&mut self, cx: &Context, keep: &[NewKey]) -> Result<Vec<KeyInfo>> {
        let mut keyring = self.keyring.clone().ok_or_else(plain)?;
        if keep.is_empty() {
            let reason = "a rotation without a credential would lock everybody out".to_string();
            return Err(Error::Refused { reason });
        }
        let old = read_slots(self.store())?;
        self.take_over_rotations(&mut keyring, &old, keep)?;
        let generation = next_generation(cx, keyring.newest_generation())?;
        keyring.generations.push((generation, cx.random_bytes()?));
        let old: Vec<KeyInfo> = old.into_iter().map(info).collect();
        let remove_old = || {
            old.iter().try_for_each(|key| {
                let key = Key::new(Folder::Keys, key.name.clone());
                self.store.delete(&key.expect("invariant: it was listed"))
            })
        };
        if !Safeguard::NewKeysFirst.holds() {
            remove_old()?;
        }
        // Order: the new slots are durable before an old one goes, so somebody can always open it.
        for new_key in keep {
            self.put_slot(cx, &keyring, new_key)?;
        }
        remove_old()?;
        // Order: before anybody is told that they open nothing; power loss would bring them back.
        self.store.sync(Folder::Keys)?;
        self.secrets = crate::repo::secrets::Secrets::new(self.config.suite, &keyring)?;
        self.keyring = Some(keyring);
        Ok(old)
    }

    /// Somebody may have rotated since this repository was opened. Removing a slot with a newer
    /// generation than is known here would lose what is sealed with it.
    fn take_over_rotations(
        &self,
        keyring: &mut Keyring,
        slots: &[ReadSlot],
        keep: &[NewKey],
    ) -> Result<()> {
        let binding = Binding {
            config: &self.config_bytes,
            suite: self.config.suite,
        };
        for ReadSlot { key, slot, .. } in slots {
            let Ok(slot) = slot else { continue };
            if slot.generation <= keyring.newest_generation() {
                continue;
            }
            let opened = keep
                .iter()
                .find_map(|new_key| slot.unseal(&new_key.credential, binding).ok().flatten());
            match opened {
                Some(newer) => keyring.merge(&newer),
                None => {
                    return Err(Error::Busy {
                        what: key.to_string(),
                        reason: "somebody else has just rotated the keys; open it again".into(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Returns a number above all others whose lower half is random: two rotations at once must not
/// give one number to two keys.
fn next_generation(cx: &Context, newest: u32) -> Result<u32> {
    let [low, high] = cx.random_bytes()?;
    let next = (newest >> 16) + 1;
    Ok(next << 16 | u32::from(u16::from_le_bytes([low, high])))
}

fn plain() -> Error {
    Error::Refused {
        reason: "a plain repository has no keys".to_string(),
    }
}
