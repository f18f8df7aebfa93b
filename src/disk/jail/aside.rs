//! Nodes that make way for others under names that tell what they are, and get their own back.

use crate::disk::beneath;
use crate::disk::jail::Jail;
use crate::disk::jail::rename_new;
use crate::error::Result;
use rustix::io::Errno;
use std::sync::atomic::Ordering;

/// So much of a name is kept: with what is added it has at most 255 bytes.
const NAME_BYTES_MAX: usize = 200;

impl Jail {
    /// Gives a node another name in its directory, and returns its path then.
    pub fn set_aside(&self, path: &[u8]) -> Result<Vec<u8>> {
        let (dir, name) = beneath::split(path);
        let kept = &name[..name.len().min(NAME_BYTES_MAX)];
        let number = self.temp_number.fetch_add(1, Ordering::Relaxed);
        let added = format!(".replaced-{number:016x}");
        let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
        let aside = [dir, slash, kept, added.as_bytes()].concat();
        self.rename(path, &aside)?;
        Ok(aside)
    }

    /// Renames a node within its directory; never replaces another one.
    pub fn rename(&self, path: &[u8], to_path: &[u8]) -> Result<()> {
        beneath::check_path(to_path).map_err(|reason| self.refused(to_path, reason))?;
        let (to_dir, to_name) = beneath::split(to_path);
        if beneath::split(path).0 != to_dir {
            return Err(self.refused(to_path, "it is in another directory"));
        }
        let (dir, name) = self.place(path)?;
        self.forget(path);
        match rename_new(&dir, name, to_name) {
            Err(Errno::EXIST) => Err(self.exists(to_path)),
            renamed => renamed.map_err(|errno| self.error("rename", path, errno)),
        }
    }
}
