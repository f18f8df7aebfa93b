//! A store beside which something happens at a chosen moment.

use statekeep::error::Result;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::Listed;
use statekeep::store::Put;
use statekeep::store::Store;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// What happens.
pub(crate) type Hook = Box<dyn FnOnce() + Send>;

/// A store beside which something happens right before a call.
pub(crate) struct Interrupted {
    inner: Arc<dyn Store>,
    left: AtomicU64,
    hook: Mutex<Option<Hook>>,
}

impl Interrupted {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Interrupted {
        Interrupted {
            inner,
            left: AtomicU64::new(u64::MAX),
            hook: Mutex::new(None),
        }
    }

    /// Lets something happen before the call of this number from now on, counted from one.
    pub(crate) fn before_call(&self, number: u64, hook: Hook) {
        *self.hook.lock().unwrap() = Some(hook);
        self.left.store(number, Ordering::SeqCst);
    }

    /// Returns whether it has happened; it will not any more.
    pub(crate) fn disarm(&self) -> bool {
        self.left.store(u64::MAX, Ordering::SeqCst);
        self.hook.lock().unwrap().take().is_none()
    }

    fn tick(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let hook = self.hook.lock().unwrap().take();
            if let Some(hook) = hook {
                hook();
            }
        }
    }
}

impl Store for Interrupted {
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<Put> {
        self.tick();
        self.inner.put_new(key, bytes)
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        self.tick();
        self.inner.get(key)
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        self.tick();
        self.inner.get_range(key, range)
    }

    fn stored_bytes(&self, key: &Key) -> Result<Option<u64>> {
        self.tick();
        self.inner.stored_bytes(key)
    }

    fn list(&self, folder: Folder) -> Result<Vec<Listed>> {
        self.tick();
        self.inner.list(folder)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key)
    }

    fn sync(&self, folder: Folder) -> Result<()> {
        self.tick();
        self.inner.sync(folder)
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
