//! Whether anything on this machine starts backups: units of systemd, tables of cron. Best
//! effort: what starts them some other way is not seen.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

/// A unit or table is never longer.
const FILE_BYTES_MAX: u64 = 256 << 10;
const PROGRAM: &str = "statekeep";

/// Returns the first file in these directories, or among these files, that names the program in
/// a line that is no remark.
pub fn find(places: &[PathBuf]) -> Option<PathBuf> {
    places.iter().find_map(|place| match place.is_dir() {
        true => {
            let entries = std::fs::read_dir(place).ok()?;
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            paths.into_iter().find(|path| starts_backups(path))
        }
        false => starts_backups(place).then(|| place.clone()),
    })
}

fn starts_backups(path: &Path) -> bool {
    let mut text = Vec::new();
    // A pipe in such a directory must not be waited for.
    let read = match path.is_file() {
        true => File::open(path),
        false => return false,
    };
    let read = read.and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::trim);
    // An enabled unit is a link in `timers.target.wants`; its name says enough.
    let is_timer = path.extension().is_some_and(|end| end == "timer");
    let named = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let is_named = named.is_some_and(|name| name.starts_with(PROGRAM));
    read.is_ok()
        && ((is_timer && is_named)
            || lines.any(|line| !line.starts_with('#') && line.contains(PROGRAM)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_starts_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("crontab");
        std::fs::write(&table, "# 0 2 * * * root statekeep backup\n").unwrap();
        assert_eq!(find(&[dir.path().into(), "/does/not/exist".into()]), None);

        std::fs::write(&table, "0 2 * * * root statekeep backup --all\n").unwrap();

        assert_eq!(find(&[dir.path().into()]), Some(table.clone()));
        assert_eq!(find(std::slice::from_ref(&table)), Some(table));
    }
}
