//! Putting finished nodes in the place of others, one rename each, so that a name always has the
//! old node or the new one and never neither.

use crate::disk::beneath;
use crate::disk::jail::Jail;
use crate::error::Result;
use rustix::fs::AtFlags;
use rustix::io::Errno;

impl Jail {
    /// Gives a node a second name, in a directory that exists. Where the second name is one of the
    /// node already, nothing is done.
    pub fn keep(&self, path: &[u8], as_path: &[u8]) -> Result<()> {
        let (dir, name) = self.place(path)?;
        let (to_dir, to_name) = self.place(as_path)?;
        match rustix::fs::linkat(&dir, name, &to_dir, to_name, AtFlags::empty()) {
            Err(Errno::EXIST) => {
                let same = |a: crate::disk::node::Stat, b: crate::disk::node::Stat| {
                    (a.device, a.inode) == (b.device, b.inode)
                };
                let kept = beneath::lstat(&to_dir, to_name)
                    .and_then(|kept| Ok(same(kept, beneath::lstat(&dir, name)?)));
                match kept.map_err(|errno| self.error("look at", as_path, errno))? {
                    true => Ok(()),
                    false => Err(self.exists(as_path)),
                }
            }
            linked => linked.map_err(|errno| self.error("keep", path, errno)),
        }
    }

    /// Moves a node to another name, possibly in another directory of the same file system. What
    /// has the name loses it in the same instant; a directory that is not empty is never replaced.
    pub fn move_over(&self, path: &[u8], to_path: &[u8]) -> Result<()> {
        let (dir, name) = self.place(path)?;
        let (to_dir, to_name) = self.place(to_path)?;
        self.forget(path);
        self.forget(to_path);
        rustix::fs::renameat(&dir, name, &to_dir, to_name)
            .map_err(|errno| self.error("move", path, errno))
    }
}
