//! A file without a name: for bytes that nobody else is to see and that no crash leaves behind.

use crate::context::Random;
use crate::context::SystemRandom;
use crate::error::Error;
use crate::error::Result;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

/// Opens an empty file that is gone when it is closed, however that comes about.
pub fn unnamed_file(dir: &Path) -> Result<File> {
    let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    // With EXCL nobody can give it a name later.
    match rustix::fs::open(dir, flags | OFlags::TMPFILE | OFlags::EXCL, mode) {
        Ok(fd) => Ok(File::from(fd)),
        // File systems and kernels that do not know the flag take it for that of a directory.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => unlinked(dir),
        Err(errno) => Err(Error::io("create a file in", dir)(errno.into())),
    }
}

/// Makes a file and takes its name away at once; a crash in between leaves it empty.
fn unlinked(dir: &Path) -> Result<File> {
    let mut number = [0; 8];
    SystemRandom.fill(&mut number)?;
    let path = dir.join(format!(".statekeep-{:016x}", u64::from_ne_bytes(number)));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
        .and_then(|fd| rustix::fs::unlink(&path).map(|()| File::from(fd)));
    made.map_err(|errno| Error::io("create a file in", dir)(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_without_a_name_is_private_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for make in [unnamed_file, unlinked] {
            let file = make(dir.path()).unwrap();

            file.write_all_at(b"x", 1 << 20).unwrap();
            let mut now = [1; 2];
            file.read_exact_at(&mut now, (1 << 20) - 1).unwrap();

            assert_eq!(now, [0, b'x']);
            let stat = file.metadata().unwrap();
            assert_eq!((stat.mode() & 0o7777, stat.nlink()), (0o600, 0));
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        assert!(unnamed_file(&dir.path().join("none")).is_err());
    }
}
