//! A store that counts its calls and fails where it is told to. For tests.
//!
//! A failure after the effect is a lost reply: the caller cannot tell it from one before.

use super::Folder;
use super::Key;
use super::Listed;
use super::Put;
use super::Store;
use crate::error::Error;
use crate::error::Result;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// A method of `Store`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// `put_new`
    PutNew,
    /// `get`
    Get,
    /// `get_range`
    GetRange,
    /// `stored_bytes`
    StoredBytes,
    /// `list`
    List,
    /// `delete`
    Delete,
    /// `sync`
    Sync,
}

/// Whether a failing call took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// It did not.
    Before,
    /// It did, and the reply was lost.
    After,
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Once.
    Once,
    /// From then on, until `heal`.
    Sticky,
}

/// Which call fails, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreFault {
    /// The method whose calls count and fail, `None` for all methods together.
    pub method: Option<Method>,
    /// How many such calls go well first.
    pub after_calls: u64,
    /// Whether the failing call takes effect.
    pub when: When,
    /// Whether later calls fail too.
    pub repeat: Repeat,
}

/// A store that counts its calls and fails where it is told to.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    plan: Mutex<Plan>,
}

#[derive(Default)]
struct Plan {
    calls: BTreeMap<Method, u64>,
    faults: Vec<StoreFault>,
}

impl FaultyStore {
    /// Returns a store that passes everything on.
    pub fn new(inner: Arc<dyn Store>) -> FaultyStore {
        FaultyStore {
            inner,
            plan: Mutex::default(),
        }
    }

    /// Adds a fault, counting from now.
    pub fn fail(&self, fault: StoreFault) {
        self.plan().faults.push(fault);
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.plan().faults.clear();
    }

    /// Returns how many calls of the method were made, the failed ones too.
    pub fn calls(&self, method: Method) -> u64 {
        self.plan().calls.get(&method).copied().unwrap_or(0)
    }

    /// Returns how many calls were made.
    pub fn total_calls(&self) -> u64 {
        self.plan().calls.values().sum()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<T>(
        &self,
        method: Method,
        object: String,
        effect: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        // The lock is released before the effect, so that racing calls do race.
        let failure = self.plan().count(method);
        let lost = Error::Store {
            action: "answer for",
            object,
            reason: "injected".into(),
        };
        match failure {
            None => effect(),
            Some(When::Before) => Err(lost),
            Some(When::After) => effect().and(Err(lost)),
        }
    }
}

impl Plan {
    fn count(&mut self, method: Method) -> Option<When> {
        *self.calls.entry(method).or_default() += 1;
        let mut failure = None;
        self.faults.retain_mut(|fault| {
            if fault.method.is_some_and(|only| only != method) {
                return true;
            }
            if 0 < fault.after_calls {
                fault.after_calls -= 1;
                return true;
            }
            failure = failure.or(Some(fault.when));
            fault.repeat == Repeat::Sticky
        });
        failure
    }
}

impl Store for FaultyStore {
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<Put> {
        let effect = || self.inner.put_new(key, bytes);
        self.call(Method::PutNew, key.to_string(), effect)
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        self.call(Method::Get, key.to_string(), || self.inner.get(key))
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        let effect = || self.inner.get_range(key, range);
        self.call(Method::GetRange, key.to_string(), effect)
    }

    fn stored_bytes(&self, key: &Key) -> Result<Option<u64>> {
        let effect = || self.inner.stored_bytes(key);
        self.call(Method::StoredBytes, key.to_string(), effect)
    }

    fn list(&self, folder: Folder) -> Result<Vec<Listed>> {
        let effect = || self.inner.list(folder);
        self.call(Method::List, folder.name().into(), effect)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.call(Method::Delete, key.to_string(), || self.inner.delete(key))
    }

    fn sync(&self, folder: Folder) -> Result<()> {
        let effect = || self.inner.sync(folder);
        self.call(Method::Sync, folder.name().into(), effect)
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStore;
    use super::*;

    fn fault(method: Option<Method>, after_calls: u64, when: When, repeat: Repeat) -> StoreFault {
        StoreFault {
            method,
            after_calls,
            when,
            repeat,
        }
    }

    #[test]
    fn the_chosen_call_fails_before_or_after_its_effect() {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()));
        let put = |slot| store.put_new(&Key::slot(slot), b"entry").ok();
        let is_there = |slot| store.get(&Key::slot(slot)).expect("get").is_some();

        store.fail(fault(Some(Method::PutNew), 1, When::Before, Repeat::Once));
        store.fail(fault(Some(Method::PutNew), 2, When::After, Repeat::Once));
        let puts = [1, 2, 3, 4].map(put);

        assert_eq!(puts, [Some(Put::Created), None, None, Some(Put::Created)]);
        assert_eq!([1, 2, 3, 4].map(is_there), [true, false, true, true]);
        assert_eq!(store.calls(Method::PutNew), 4);
        assert_eq!(store.total_calls(), 8);
    }

    #[test]
    fn a_sticky_fault_lasts_until_healed() {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()));

        store.fail(fault(None, 1, When::Before, Repeat::Sticky));
        let before = [(); 3].map(|()| store.list(Folder::Log).is_ok());
        store.heal();

        assert_eq!(before, [true, false, false]);
        assert!(store.sync(Folder::Log).is_ok());
    }
}
