//! Files with secrets: there, and readable by their owner only.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How a file with a secret lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret {
    /// As it should.
    Fine,
    /// Not at all.
    Missing,
    /// Others may read or write it; its mode.
    Exposed(u32),
    /// This user may not read it.
    Unreadable,
}

/// Looks at a file with a secret.
pub fn look(path: &Path) -> Secret {
    match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(meta) if meta.mode() & 0o077 != 0 => Secret::Exposed(meta.mode() & 0o777),
        Ok(_) => Secret::Fine,
        Err(error) if error.kind() == ErrorKind::NotFound => Secret::Missing,
        Err(_) => Secret::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_mode_that_lets_others_in_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert_eq!(look(&path), Secret::Missing);

        std::fs::write(&path, "x").unwrap();
        for (mode, secret) in [(0o600, Secret::Fine), (0o640, Secret::Exposed(0o640))] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(look(&path), secret);
        }
    }
}
