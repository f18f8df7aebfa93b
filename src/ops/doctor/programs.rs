//! Programs that will be run: there and executable.

use rustix::fs::Access;
use std::path::Path;
use std::path::PathBuf;

/// Returns whether a program can be run, by its path or by its name in one of these directories.
/// A relative path counts from `root`, where the programs of a profile run.
pub fn is_there(program: &str, root: &Path, search: &[PathBuf]) -> bool {
    let is_executable =
        |path: &Path| path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok();
    match program.contains('/') {
        true => is_executable(&root.join(program)),
        false => search.iter().any(|dir| is_executable(&dir.join(program))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_counts_only_if_it_is_executable() {
        let dir = tempfile::tempdir().unwrap();
        let (path, search) = (dir.path().join("run"), [dir.path().to_path_buf()]);
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(!is_there("run", dir.path(), &search));

        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();

        assert!(is_there("run", Path::new("/"), &search));
        assert!(is_there("./run", dir.path(), &[]));
        assert!(!is_there("run", dir.path(), &[]));
        assert!(!is_there("", dir.path(), &search));
    }
}
