//! Export: the same bytes every time, nothing missing silently, readable with nothing of ours.

use crate::heap::peak_bytes;
use crate::support::Seeded;
use crate::support::context;
use crate::support::create;
use crate::support::model_of;
use crate::support::open;
use crate::support::options;
use rusqlite::Connection;
use statekeep::disk::output::Existing;
use statekeep::error::Error;
use statekeep::error::Result;
use statekeep::id::SnapshotId;
use statekeep::ops;
use statekeep::ops::archive::Format;
use statekeep::ops::backup::BackupOptions;
use statekeep::ops::backup::BackupReport;
use statekeep::ops::backup::FreePages;
use statekeep::ops::export;
use statekeep::ops::export::App;
use statekeep::ops::export::Databases;
use statekeep::ops::export::ExportOptions;
use statekeep::ops::export::Layout;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::store::MemoryStore;
use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A tree with everything that an archive has to get right.
pub(crate) fn write_app(root: &Path) {
    for dir in ["config", "data/agents", "rules", "empty"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("config/app.toml"), "port = 1\n").unwrap();
    write_private(&root.join(".env"), "SECRET=1\n");
    for number in 0..50 {
        fs::write(
            root.join(format!("rules/{number}.toml")),
            format!("{number}\n"),
        )
        .unwrap();
    }
    let noise = Seeded::new(1).bytes(2_500_000);
    fs::write(root.join("data/big.bin"), noise).unwrap();
    write_database(&root.join("data/app.db"));
    fs::hard_link(
        root.join("config/app.toml"),
        root.join("data/agents/hard.toml"),
    )
    .unwrap();
    symlink("../config/app.toml", root.join("rules/link")).unwrap();
    let long = "n".repeat(200);
    fs::create_dir_all(root.join(&long).join(&long)).unwrap();
    fs::write(root.join(&long).join(&long).join(&long), "long\n").unwrap();
    let strange = std::ffi::OsStr::from_bytes(b"strange \xff\n\\ name");
    fs::write(root.join(strange), "strange\n").unwrap();
}

pub(crate) fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A database of which most was deleted.
pub(crate) fn write_database(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let sql = "CREATE TABLE t (x INTEGER PRIMARY KEY, y TEXT);
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 9000)
        INSERT INTO t SELECT n, hex(n * 7919) || hex(zeroblob(40)) FROM n;
        DELETE FROM t WHERE x % 9 > 0";
    connection.execute_batch(sql).unwrap();
}

/// Backs up every byte, so that what comes back can be compared.
pub(crate) fn backup(repo: &Repo, path: &Path) -> Result<BackupReport> {
    let options = BackupOptions {
        free_pages: FreePages::Exact,
        ..options(path)
    };
    ops::backup::backup(&context(), repo, &options)
}

pub(crate) fn plain_repo() -> Repo {
    create(Arc::new(MemoryStore::new()), true, None)
}

/// An archive, and what was said about it: codes and paths.
type Exported = (Vec<u8>, Vec<(&'static str, Vec<u8>)>);

/// Exports into memory.
pub(crate) fn exported(
    repo: &Repo,
    report: &BackupReport,
    options: &ExportOptions,
) -> Result<Exported> {
    let state = repo.read_state(&context())?;
    let chunks = Chunks::open(repo, &state.packs)?;
    let id = report.snapshot.unwrap();
    let export = export::prepare(&context(), &chunks, id, &report.manifest, options)?;
    let mut out = Vec::new();
    let done = export::to_stream(&context(), &chunks, &export, &mut out, "memory")?;
    assert_eq!(done.archive_bytes, out.len() as u64);
    let warnings = export.warnings.iter();
    let warnings = warnings.map(|w| (w.code, w.path.clone())).collect();
    Ok((out, warnings))
}

pub(crate) fn of_format(format: Format) -> ExportOptions {
    ExportOptions {
        format: Some(format),
        temp_dir: std::env::temp_dir(),
        ..ExportOptions::default()
    }
}

const FORMATS: [Format; 4] = [Format::TarGz, Format::TarZst, Format::Tar, Format::Zip];

#[test]
fn the_same_snapshot_gives_the_same_bytes_every_time() {
    let scratch = tempfile::tempdir().unwrap();
    write_app(scratch.path());
    let repo = plain_repo();
    let report = backup(&repo, scratch.path()).unwrap();

    for format in FORMATS {
        let (once, _) = exported(&repo, &report, &of_format(format)).unwrap();
        let (again, _) = exported(&repo, &report, &of_format(format)).unwrap();
        assert!(once == again, "{format}");
    }
}

#[test]
fn the_same_content_in_other_packs_gives_the_same_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    write_app(scratch.path());
    let one = plain_repo();
    let other = plain_repo();
    // In the other repository most of it lies in packs of earlier backups.
    backup(&other, &scratch.path().join("data")).unwrap();
    backup(&other, &scratch.path().join("rules")).unwrap();

    let members = [&one, &other].map(|repo| {
        let report = backup(repo, scratch.path()).unwrap();
        let (tar, _) = exported(repo, &report, &of_format(Format::Tar)).unwrap();
        // The manifest has the ids; all else comes after it.
        let size = tar::Archive::new(&tar[..])
            .entries()
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .size();
        tar[512 + size.next_multiple_of(512) as usize..].to_vec()
    });

    let packs = [&one, &other].map(|repo| repo.read_state(&context()).unwrap().packs.len());
    assert!(packs[0] < packs[1]);
    assert!(members[0].len() > 2_500_000 && members[0] == members[1]);
}

fn tool(name: &str, arguments: &[&str], dir: &Path) -> String {
    let output = Command::new(name)
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_archive_is_restored_and_verified_with_nothing_but_tar_and_sha256sum() {
    let scratch = tempfile::tempdir().unwrap();
    let (app, out) = (scratch.path().join("app"), scratch.path().join("out"));
    write_app(&app);
    fs::create_dir(&out).unwrap();
    let repo = plain_repo();
    let report = backup(&repo, &app).unwrap();
    let state = repo.read_state(&context()).unwrap();
    let chunks = Chunks::open(&repo, &state.packs).unwrap();
    let options = of_format(Format::TarGz);
    let (cx, id) = (context(), report.snapshot.unwrap());
    let export = export::prepare(&cx, &chunks, id, &report.manifest, &options).unwrap();
    let path = out.join("app.tar.gz");
    export::to_file(&cx, &chunks, &export, &path, Existing::Keep).unwrap();

    tool("sha256sum", &["-c", "app.tar.gz.sha256"], &out);
    tool("tar", &["-xzpf", "app.tar.gz"], &out);

    // What the manifest says, as lines that sha256sum checks.
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("MANIFEST.json")).unwrap()).unwrap();
    let rows = manifest["files"].as_array().unwrap();
    let files = rows
        .iter()
        .filter(|row| row["sha256"].is_string() && row["path_b64"].is_null());
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_string();
    let lines = files.map(|row| format!("{}  {}\n", text(&row["sha256"]), text(&row["path"])));
    let lines: Vec<String> = lines.collect();
    assert!(lines.len() > 50);
    fs::write(out.join("sums"), lines.concat()).unwrap();
    tool("sha256sum", &["--quiet", "-c", "sums"], &out);
    for name in ["sums", "MANIFEST.json", "app.tar.gz", "app.tar.gz.sha256"] {
        fs::remove_file(out.join(name)).unwrap();
    }
    let (mut now, mut before) = (model_of(&out), model_of(&app));
    // The root is no member.
    assert!(now.remove(&b""[..]).is_some() && before.remove(&b""[..]).is_some());
    assert!(now == before);
}

#[test]
fn an_archive_with_secrets_is_readable_by_its_owner_alone_and_never_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    let app = scratch.path().join("app");
    fs::create_dir(&app).unwrap();
    fs::set_permissions(&app, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(app.join("public"), "x").unwrap();
    let (repo, cx) = (plain_repo(), context());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;

    for (number, wanted) in [(0, 0o644), (1, 0o600)] {
        if number == 1 {
            write_private(&app.join("secret"), "x");
        }
        let report = backup(&repo, &app).unwrap();
        let state = repo.read_state(&cx).unwrap();
        let chunks = Chunks::open(&repo, &state.packs).unwrap();
        let (options, id) = (of_format(Format::Tar), report.snapshot.unwrap());
        let export = export::prepare(&cx, &chunks, id, &report.manifest, &options).unwrap();
        let path = scratch.path().join(format!("{number}.tar"));
        let done = export::to_file(&cx, &chunks, &export, &path, Existing::Keep).unwrap();

        // A umask may only take more away.
        assert_eq!(mode(&path) & wanted, mode(&path));
        assert_eq!(mode(&path) & 0o600, 0o600);
        let again = export::to_file(&cx, &chunks, &export, &path, Existing::Keep);
        assert!(matches!(again, Err(Error::Refused { .. })));
        let again = export::to_file(&cx, &chunks, &export, &path, Existing::Replace).unwrap();
        assert_eq!(again.sha256, done.sha256);

        export::record(&cx, &repo, &export, &done).unwrap();
        let notes = repo.read_state(&cx).unwrap().notes.clone();
        let noted = &notes.exports[&(id, done.sha256)];
        assert_eq!(noted.name, format!("{number}.tar"));
        assert_eq!(noted.archive_bytes, done.archive_bytes);
    }
}

#[test]
fn what_a_zip_cannot_hold_is_said() {
    let scratch = tempfile::tempdir().unwrap();
    write_app(scratch.path());
    tool("mkfifo", &["data/pipe"], scratch.path());
    let repo = plain_repo();
    let report = backup(&repo, scratch.path()).unwrap();

    let (_, of_tar) = exported(&repo, &report, &of_format(Format::Tar)).unwrap();
    let (_, of_zip) = exported(&repo, &report, &of_format(Format::Zip)).unwrap();

    assert_eq!(of_tar, []);
    let wanted = [
        ("hard-link", b"data/agents/hard.toml".to_vec()),
        ("left-out", b"data/pipe".to_vec()),
        ("name", b"strange \xff\n\\ name".to_vec()),
    ];
    assert_eq!(of_zip, wanted);
}

#[test]
fn a_link_to_what_is_not_exported_becomes_a_file() {
    let scratch = tempfile::tempdir().unwrap();
    write_app(scratch.path());
    fs::hard_link(
        scratch.path().join("config/app.toml"),
        scratch.path().join("data/too.toml"),
    )
    .unwrap();
    let repo = plain_repo();
    let report = backup(&repo, scratch.path()).unwrap();
    let options = ExportOptions {
        only: vec!["/data".into()],
        ..of_format(Format::Tar)
    };

    let (out, _) = exported(&repo, &report, &options).unwrap();

    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("a.tar"), out).unwrap();
    tool("tar", &["-xpf", "a.tar"], target.path());
    let mut now = model_of(&target.path().join("data"));
    let before = model_of(&scratch.path().join("data"));
    assert_eq!(now.len(), before.len());
    now.retain(|path, node| before.get(path) != Some(node));
    assert_eq!(now.len(), 0);
    assert!(!target.path().join("config").exists());
    let nothing = ExportOptions {
        only: vec!["nothing".into()],
        ..of_format(Format::Tar)
    };
    assert!(matches!(
        exported(&repo, &report, &nothing),
        Err(Error::NotFound { .. })
    ));
}

#[test]
fn compacted_databases_are_smaller_sound_and_the_same_every_time() {
    let scratch = tempfile::tempdir().unwrap();
    write_app(scratch.path());
    let repo = plain_repo();
    let report = backup(&repo, scratch.path()).unwrap();
    let options = ExportOptions {
        databases: Databases::Compacted,
        only: vec!["/data/app.db".into()],
        ..of_format(Format::Tar)
    };

    let (once, warnings) = exported(&repo, &report, &options).unwrap();
    let (again, _) = exported(&repo, &report, &options).unwrap();

    assert!(once == again && warnings.is_empty());
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("a.tar"), once).unwrap();
    tool("tar", &["-xf", "a.tar"], target.path());
    let (before, after) = (
        scratch.path().join("data/app.db"),
        target.path().join("data/app.db"),
    );
    let len = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(len(&after) * 2 < len(&before));
    let rows = |path: &Path| -> (i64, i64) {
        let connection = Connection::open(path).unwrap();
        let sql = "SELECT count(*), sum(x) FROM t";
        let row = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        row.unwrap()
    };
    assert_eq!(rows(&after), rows(&before));
}

fn prepare_app(profile: &str, root: &Path) -> (Repo, SnapshotId, BackupReport) {
    let repo = plain_repo();
    let mut options = options(root);
    options.profile = profile.into();
    let report = ops::backup::backup(&context(), &repo, &options).unwrap();
    (repo, report.snapshot.unwrap(), report)
}

/// Exports in the layout of the application and returns the usual name, the application, the bytes.
fn in_app_layout(
    repo: &Repo,
    report: &BackupReport,
    only: &[&str],
) -> Result<(String, App, Vec<u8>)> {
    let options = ExportOptions {
        layout: Layout::App,
        only: only.iter().map(ToString::to_string).collect(),
        temp_dir: std::env::temp_dir(),
        ..ExportOptions::default()
    };
    let state = repo.read_state(&context())?;
    let chunks = Chunks::open(repo, &state.packs)?;
    let id = report.snapshot.unwrap();
    let export = export::prepare(&context(), &chunks, id, &report.manifest, &options)?;
    let mut out = Vec::new();
    export::to_stream(&context(), &chunks, &export, &mut out, "memory")?;
    Ok((export.file_name(), export.app.unwrap(), out))
}

#[test]
fn archives_in_the_layout_of_an_application_are_what_it_makes_itself() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path();
    fs::create_dir_all(root.join("data")).unwrap();
    fs::write(root.join("config.toml"), "x").unwrap();
    write_database(&root.join("data/hoziron.db"));
    let (repo, _, report) = prepare_app("", root);

    let (name, app, tar_gz) = in_app_layout(&repo, &report, &[]).unwrap();

    assert!(name.starts_with("hoziron-backup-20") && name.ends_with(".tar.gz"));
    assert_eq!(
        (app, name.len()),
        (App::Hoziron, "hoziron-backup-YYYYMMDD_HHMMSS.tar.gz".len())
    );
    assert_eq!(tar_gz[..2], [0x1f, 0x8b]);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), tar_gz).unwrap();
    let names = tool("tar", &["-tzf", "a"], dir.path());
    let wanted = ["MANIFEST.json", "config.toml", "data/", "data/hoziron.db"];
    assert_eq!(names.lines().collect::<Vec<_>>(), wanted);
    let text = tool("tar", &["-xzOf", "a", "MANIFEST.json"], dir.path());
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(manifest["id"].as_str().unwrap().len(), 36);
    assert_eq!(
        (
            &manifest["scope"],
            manifest["files"].as_array().unwrap().len()
        ),
        (&"full".into(), 3)
    );
    assert!(manifest.get("timestamp").is_some() && manifest.get("version").is_some());

    let (repo, _, report) = prepare_app("homecore", root);
    let (name, app, zip) = in_app_layout(&repo, &report, &[]).unwrap();
    assert!(name.starts_with("homecore-backup-20") && name.ends_with(".zip"));
    assert_eq!((app, &zip[..2]), (App::HomeCore, &b"PK"[..]));
    assert!(!zip.windows(13).any(|part| part == b"MANIFEST.json"));
}

#[test]
fn a_copy_of_one_database_is_that_file_and_several_are_asked_about() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path();
    for name in ["default", "other"] {
        fs::create_dir_all(root.join("databases").join(name)).unwrap();
        write_database(&root.join("databases").join(name).join("app.db"));
    }
    let (repo, _, report) = prepare_app("chaos-cypher", root);

    let several = in_app_layout(&repo, &report, &[]);
    let (name, app, db) = in_app_layout(&repo, &report, &["/databases/default"]).unwrap();

    assert!(matches!(several, Err(Error::Ambiguous { .. })));
    assert!(name.starts_with("app_20") && name.ends_with(".db"));
    assert_eq!(app, App::ChaosCypher);
    assert!(db.starts_with(b"SQLite format 3\0"));
    let path = root.join("copy.db");
    fs::write(&path, db).unwrap();
    let rows = Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
    assert_eq!(rows, Ok(1000));
}

#[test]
fn a_manifest_of_the_snapshot_itself_is_not_lost() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("MANIFEST.json"), "{}").unwrap();
    let repo = plain_repo();
    let report = backup(&repo, scratch.path()).unwrap();

    let (out, warnings) = exported(&repo, &report, &of_format(Format::Tar)).unwrap();

    fs::write(scratch.path().join("a.tar"), out).unwrap();
    let names = tool("tar", &["-tf", "a.tar"], scratch.path());
    assert_eq!(names, "MANIFEST.statekeep.json\nMANIFEST.json\n");
    assert_eq!(warnings, [("manifest-name", b"MANIFEST.json".to_vec())]);
}

#[test]
fn a_database_of_redb_and_files_of_any_length_take_little_memory() {
    let scratch = tempfile::tempdir().unwrap();
    const TABLE: redb::TableDefinition<u64, &[u8]> = redb::TableDefinition::new("t");
    let database = redb::Database::create(scratch.path().join("state.redb")).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(TABLE).unwrap();
        for key in 0..2000_u64 {
            let key = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            table.insert(key, &[key as u8; 500][..]).unwrap();
        }
    }
    write.commit().unwrap();
    drop(database);
    let sparse = fs::File::create(scratch.path().join("sparse")).unwrap();
    sparse.set_len(300 << 20).unwrap();
    let repo = plain_repo();
    let report = backup(&repo, scratch.path()).unwrap();
    let state = repo.read_state(&context()).unwrap();
    let chunks = Chunks::open(&repo, &state.packs).unwrap();
    let (options, id) = (of_format(Format::Tar), report.snapshot.unwrap());

    // Blocks that are compressed are freed by other threads, which this does not see.
    let peak = peak_bytes(|| {
        let export = export::prepare(&context(), &chunks, id, &report.manifest, &options).unwrap();
        export::to_stream(&context(), &chunks, &export, &mut io::sink(), "nowhere").unwrap();
    });

    assert!(peak < 40 << 20, "{peak}");
    let (archive, _) = exported(&repo, &report, &of_format(Format::TarZst)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.tar.zst"), archive).unwrap();
    if Command::new("zstd").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no zstd to unpack with");
        return;
    }
    tool(
        "tar",
        &["--zstd", "-xf", "a.tar.zst", "state.redb"],
        dir.path(),
    );
    let copy = redb::Database::open(dir.path().join("state.redb")).unwrap();
    let read = redb::ReadableDatabase::begin_read(&copy).unwrap();
    let table = read.open_table(TABLE).unwrap();
    assert_eq!(redb::ReadableTableMetadata::len(&table).unwrap(), 2000);
}

/// A disk that is full after so many bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.checked_sub(bytes.len()) {
            Some(left) => self.0 = left,
            None => return Err(io::ErrorKind::StorageFull.into()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_reported_as_one_in_every_format() {
    let scratch = tempfile::tempdir().unwrap();
    write_app(scratch.path());
    let repo = plain_repo();
    let report = backup(&repo, scratch.path()).unwrap();
    let state = repo.read_state(&context()).unwrap();
    let chunks = Chunks::open(&repo, &state.packs).unwrap();
    for format in FORMATS {
        let (options, id) = (of_format(format), report.snapshot.unwrap());
        let export = export::prepare(&context(), &chunks, id, &report.manifest, &options).unwrap();
        for room in [0, 1000, 1 << 20] {
            let done = export::to_stream(&context(), &chunks, &export, &mut Full(room), "disk");
            assert!(done.unwrap_err().is_no_space(), "{format} {room}");
        }
    }
}

#[test]
fn a_damaged_snapshot_is_found_out_before_anything_is_written() {
    let scratch = tempfile::tempdir().unwrap();
    write_app(scratch.path());
    let store = Arc::new(MemoryStore::new());
    let repo = create(store.clone(), true, None);
    let report = backup(&repo, scratch.path()).unwrap();
    let state = repo.read_state(&context()).unwrap();
    for pack in state.packs.keys() {
        statekeep::store::Store::delete(&*store, &statekeep::store::Key::pack(pack)).unwrap();
    }
    let repo = open(store, None).unwrap();

    let refused = exported(&repo, &report, &of_format(Format::TarGz));

    assert!(matches!(
        refused,
        Err(Error::Missing { .. } | Error::Corrupt { .. })
    ));
}
