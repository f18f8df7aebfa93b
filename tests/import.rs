//! Import and restore of archives: own dates, once only, verified, and nothing that means harm.

use crate::export::backup;
use crate::export::exported;
use crate::export::of_format;
use crate::export::plain_repo;
use crate::export::write_app;
use crate::export::write_database;
use crate::support::Seeded;
use crate::support::context;
use crate::support::model_in;
use crate::support::model_of;
use proptest::prelude::*;
use rawzip::ZipArchiveWriter;
use rawzip::path::EntryPath;
use statekeep::disk::jail::Replace;
use statekeep::error::Error;
use statekeep::error::Result;
use statekeep::format::manifest::Manifest;
use statekeep::format::note::Note;
use statekeep::id::SnapshotId;
use statekeep::ops::archive::Archive;
use statekeep::ops::archive::Format;
use statekeep::ops::archive::listing;
use statekeep::ops::archive::listing::Limits;
use statekeep::ops::archive::listing::OutsideLinks;
use statekeep::ops::archive::listing::Sums;
use statekeep::ops::archive::place;
use statekeep::ops::import;
use statekeep::ops::import::DateSource;
use statekeep::ops::import::ImportOptions;
use statekeep::ops::import::ImportReport;
use statekeep::ops::import::Outcome;
use statekeep::repo::Repo;
use std::fs;
use std::io::Write;
use std::path::Path;
use tar::EntryType;
use tar::Header;

pub(crate) fn import_options() -> ImportOptions {
    ImportOptions {
        this_host: "host".into(),
        temp_dir: std::env::temp_dir(),
        ..ImportOptions::default()
    }
}

pub(crate) fn imported(repo: &Repo, path: &Path) -> Result<ImportReport> {
    imported_with(repo, path, &import_options())
}

fn imported_with(repo: &Repo, path: &Path, options: &ImportOptions) -> Result<ImportReport> {
    let room = tempfile::tempdir().unwrap();
    let options = ImportOptions {
        temp_dir: room.path().to_path_buf(),
        ..options.clone()
    };
    let found = import::find(&[path.to_path_buf()])?;
    let done = import::import(&context(), repo, &found.files[0], &options);
    // Whatever became of it, nothing is left behind.
    assert_eq!(fs::read_dir(room.path()).unwrap().count(), 0);
    done
}

fn id_of(report: &ImportReport) -> SnapshotId {
    match report.outcome {
        Outcome::Imported(id) | Outcome::Known(id) => id,
        Outcome::Planned => panic!("nothing was imported"),
    }
}

fn manifest_of(repo: &Repo, id: &SnapshotId) -> Manifest {
    let state = repo.read_state(&context()).unwrap();
    Manifest::decode(&state.snapshots[id]).unwrap()
}

/// A member of a tar that says what it likes.
fn member(out: &mut Vec<u8>, kind: EntryType, path: &[u8], link: &[u8], content: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(content.len() as u64);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn file(out: &mut Vec<u8>, path: &str) {
    member(out, EntryType::Regular, path.as_bytes(), b"", b"content");
}

fn tar_of(make: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    make(&mut out);
    out.resize(out.len() + 1024, 0);
    out
}

fn zip_of(names: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut zip = ZipArchiveWriter::new(&mut out);
    for name in names {
        let path = EntryPath::verbatim(name.to_vec());
        let (mut entry, config) = zip.new_file(path).start().unwrap();
        let mut data = config.wrap(&mut entry);
        data.write_all(b"content").unwrap();
        let (_, output) = data.finish().unwrap();
        entry.finish(output).unwrap();
    }
    zip.finish().unwrap();
    out
}

/// An archive that is refused: its name, its bytes, and a word of the reason.
type Hostile = (&'static str, Vec<u8>, &'static str);

fn hostile() -> Vec<Hostile> {
    [
        hostile_paths(),
        hostile_links(),
        hostile_tars(),
        hostile_zips(),
    ]
    .concat()
}

fn one(path: &str) -> Vec<u8> {
    tar_of(|out| file(out, path))
}

fn hostile_paths() -> Vec<Hostile> {
    let below_link = tar_of(|out| {
        member(out, EntryType::Symlink, b"a", b"b", b"");
        file(out, "a/c");
    });
    let below_file = tar_of(|out| {
        file(out, "a");
        file(out, "a/c");
    });
    let over_directory = tar_of(|out| {
        file(out, "a/c");
        member(out, EntryType::Symlink, b"a", b"b", b"");
    });
    let twice = tar_of(|out| {
        file(out, "a");
        file(out, "./a");
    });
    let too_long = tar_of(|out| {
        let name = format!("{}/", "d".repeat(90)).repeat(46) + "a";
        let kind = EntryType::GNULongName;
        member(out, kind, b"././@LongLink", b"", name.as_bytes());
        file(out, "a");
    });
    vec![
        ("absolute", one("/etc/passwd"), "absolute"),
        ("upward", one("a/../../b"), "upward"),
        ("upward at the end", one("a/.."), "upward"),
        ("empty part", one("a//b"), "no path"),
        ("below a symlink", below_link, "no directory"),
        ("below a file", below_file, "no directory"),
        ("over a directory", over_directory, "no directory"),
        ("twice", twice, "twice"),
        ("path too long", too_long, "longer than paths"),
    ]
}

fn hostile_links() -> Vec<Hostile> {
    let linked =
        |kind: EntryType, link: &[u8]| tar_of(|out| member(out, kind, b"a/link", link, b""));
    let (symlink, hard_link) = (EntryType::Symlink, EntryType::Link);
    let late_link = tar_of(|out| {
        member(out, EntryType::Link, b"a", b"b", b"");
        file(out, "b");
    });
    vec![
        ("symlink up", linked(symlink, b"../../x"), "lead out"),
        ("symlink to root", linked(symlink, b"/x"), "lead out"),
        (
            "symlink over a link",
            linked(symlink, b"x/../../../y"),
            "lead out",
        ),
        ("symlink to nothing", linked(symlink, b""), "nowhere"),
        (
            "hard link out",
            linked(hard_link, b"/etc/passwd"),
            "hard link",
        ),
        ("hard link up", linked(hard_link, b"../b"), "hard link"),
        (
            "hard link to itself",
            linked(hard_link, b"a/link"),
            "hard link",
        ),
        ("hard link to later", late_link, "hard link"),
        ("device", linked(EntryType::Char, b""), "device"),
        ("block device", linked(EntryType::Block, b""), "device"),
        ("sparse", linked(EntryType::GNUSparse, b""), "holes"),
        (
            "unknown type",
            linked(EntryType::new(b'M'), b""),
            "unknown type",
        ),
    ]
}

fn hostile_tars() -> Vec<Hostile> {
    let pax = |records: &[u8]| {
        tar_of(|out| {
            member(out, EntryType::XHeader, b"PaxHeader", b"", records);
            file(out, "a");
        })
    };
    let whole = one("a");
    let mut other_sum = whole.clone();
    other_sum[0] = b'b';
    vec![
        ("pax sparse", pax(b"22 GNU.sparse.major=1\n"), "holes"),
        ("pax twice", pax(b"9 path=b\n9 path=c\n"), "twice"),
        ("pax nonsense", pax(b"99 path=b\n"), "extended header"),
        ("cut in a file", whole[..700].to_vec(), "too early"),
        ("no end", whole[..1024].to_vec(), "too early"),
        ("half an end", whole[..1536].to_vec(), "too early"),
        (
            "garbage",
            [&whole[..], &[1; 512]].concat(),
            "behind its end",
        ),
        (
            "second archive",
            [one("a"), one("b")].concat(),
            "behind its end",
        ),
        ("checksum", other_sum, "checksum"),
    ]
}

fn hostile_zips() -> Vec<Hostile> {
    let mut garbage = zip_of(&[b"a"]);
    garbage.extend_from_slice(b"garbage");
    let mut two_names = zip_of(&[b"name-in-both"]);
    two_names[30] = b'N';
    let before = [b"x".to_vec(), zip_of(&[b"a"])].concat();
    let mut bad_content = zip_of(&[b"a"]);
    let at = bad_content.windows(7).position(|part| part == b"content");
    bad_content[at.unwrap()] = b'C';
    vec![
        ("zip upward", zip_of(&[b"../a"]), "upward"),
        ("zip absolute", zip_of(&[b"/a"]), "absolute"),
        ("zip twice", zip_of(&[b"a", b"a"]), "twice"),
        ("zip below a file", zip_of(&[b"a", b"a/b"]), "no directory"),
        ("zip garbage", garbage, "behind its end"),
        ("zip with two names", two_names, "two names"),
        ("zip after something", before, "neither a tar or zip"),
        ("zip with another content", bad_content, ""),
    ]
}

#[test]
fn hostile_archives_are_refused_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let repo = plain_repo();
    let before = repo.read_state(&context()).unwrap().position;
    for (name, bytes, reason) in hostile() {
        let path = scratch.path().join("archive");
        fs::write(&path, bytes).unwrap();

        let refused = imported(&repo, &path).unwrap_err();

        assert!(
            matches!(refused, Error::Refused { .. } | Error::Corrupt { .. }),
            "{name}"
        );
        assert!(refused.to_string().contains(reason), "{name}: {refused}");
        assert_eq!(
            repo.read_state(&context()).unwrap().position,
            before,
            "{name}"
        );
        let target = scratch.path().join("target");
        if let Ok(Some(archive)) = Archive::open(&path, None) {
            let judged = listing::list(&context(), &archive, &Limits::default());
            assert!(judged.is_err() && !target.exists(), "{name}");
        }
    }
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("bomb.tar.zst");
    let zeroes = tar_of(|out| {
        member(out, EntryType::Regular, b"a", b"", &[0; 8 << 20]);
        for number in 0..20 {
            file(out, &format!("{number}"));
        }
    });
    let mut encoder = statekeep::codec::zstd::Encoder::new(3);
    fs::write(&path, encoder.whole(&zeroes)).unwrap();
    let archive = Archive::open(&path, None).unwrap().unwrap();
    let judged = |limits: Limits| listing::list(&context(), &archive, &limits);

    let room = judged(Limits {
        plain_bytes_max: 1 << 20,
        ..Limits::default()
    });
    let members = judged(Limits {
        members_max: 10,
        ..Limits::default()
    });

    assert!(room.unwrap_err().is_no_space());
    assert!(members.unwrap_err().to_string().contains("more members"));
    assert_eq!(judged(Limits::default()).unwrap().members.len(), 21);
}

#[test]
#[ignore = "writes and reads a gigabyte of zeroes: cargo test --release -- --ignored gigabyte"]
fn a_gigabyte_of_zeroes_is_taken_for_a_bomb_unless_somebody_says_otherwise() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("bomb.tar.zst");
    let size = (1_usize << 30) + (64 << 20);
    let mut zeroes = tar_of(|out| member(out, EntryType::Regular, b"a", b"", &vec![0; size]));
    zeroes.shrink_to_fit();
    let mut encoder = statekeep::codec::zstd::Encoder::new(3);
    fs::write(&path, encoder.whole(&zeroes)).unwrap();
    let archive = Archive::open(&path, None).unwrap().unwrap();
    let judged = |limits: Limits| listing::list(&context(), &archive, &limits);

    let refused = judged(Limits::default()).unwrap_err();

    assert!(refused.to_string().contains("far more than its length"));
    let any_ratio = Limits {
        ratio_max: u64::MAX,
        ..Limits::default()
    };
    assert_eq!(judged(any_ratio).unwrap().plain_bytes, size as u64);
}

#[test]
fn an_archive_is_imported_once_with_its_own_date() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("hoziron-backup-20260605_020000.tar");
    let renamed = scratch.path().join("renamed.tar");
    fs::write(&path, tar_of(|out| file(out, "config.toml"))).unwrap();
    fs::copy(&path, &renamed).unwrap();
    let repo = plain_repo();
    let options = ImportOptions {
        profile: Some("hoziron".into()),
        tags: vec!["old".into()],
        root_path: Some(b"/srv/hoziron".to_vec()),
        ..import_options()
    };

    let dry = ImportOptions {
        dry_run: true,
        ..options.clone()
    };
    let planned = imported_with(&repo, &path, &dry).unwrap();
    let first = imported_with(&repo, &path, &options).unwrap();
    let again = imported_with(&repo, &renamed, &options).unwrap();

    assert_eq!(planned.outcome, Outcome::Planned);
    assert_eq!(
        (first.date_source, planned.created_at),
        (DateSource::Name, first.created_at)
    );
    let id = id_of(&first);
    assert_eq!(again.outcome, Outcome::Known(id));
    let manifest = manifest_of(&repo, &id);
    assert_eq!(manifest.started_at.0, 1_780_624_800_000_000_000);
    assert_eq!(
        (&manifest.profile[..], &manifest.host[..]),
        ("hoziron", "host")
    );
    assert_eq!(manifest.root_path, b"/srv/hoziron");
    let state = repo.read_state(&context()).unwrap();
    assert_eq!(state.snapshots.len(), 1);
    let tag = (id, "import:hoziron-backup-20260605_020000.tar".to_string());
    assert!(state.notes.tags[&tag] && state.notes.tags[&(id, "old".to_string())]);
    // What is forgotten may be imported again.
    let mut notes = state.notes.clone();
    notes.forget_snapshot(&id, None);
    assert!(
        !notes
            .to_list()
            .iter()
            .any(|note| matches!(note, Note::Import(..)))
    );
}

#[test]
fn sums_and_manifests_must_be_true_unless_nobody_wants_to_know() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a.tar");
    let manifest = |sum: &str| {
        let text = format!(
            r#"{{"timestamp":"2026-06-05T02:00:00Z","files":[{{"path":"a","sha256":"{sum}"}}]}}"#
        );
        tar_of(|out| {
            member(
                out,
                EntryType::Regular,
                b"MANIFEST.json",
                b"",
                text.as_bytes(),
            );
            file(out, "a");
        })
    };
    let of_content = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";
    let ignored = ImportOptions {
        limits: Limits {
            sums: Sums::Ignored,
            ..Limits::default()
        },
        ..import_options()
    };

    fs::write(&path, manifest(&"0".repeat(64))).unwrap();
    let refused = imported(&plain_repo(), &path).unwrap_err();
    assert!(refused.to_string().contains("manifest"), "{refused}");
    assert!(imported_with(&plain_repo(), &path, &ignored).is_ok());

    fs::write(&path, manifest(of_content)).unwrap();
    fs::write(
        scratch.path().join("a.tar.sha256"),
        format!("{}  a.tar\n", "0".repeat(64)),
    )
    .unwrap();
    let refused = imported(&plain_repo(), &path).unwrap_err();
    assert!(refused.to_string().contains("SHA-256"), "{refused}");
    assert!(imported_with(&plain_repo(), &path, &ignored).is_ok());

    fs::remove_file(scratch.path().join("a.tar.sha256")).unwrap();
    let repo = plain_repo();
    let done = imported(&repo, &path).unwrap();
    assert_eq!((done.date_source, done.files), (DateSource::Manifest, 2));
    assert_eq!(
        manifest_of(&repo, &id_of(&done)).started_at.0,
        1_780_624_800_000_000_000
    );
}

#[test]
fn copies_of_databases_are_captured_as_databases_each_little_more_than_its_changes() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backups/default");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("app_20260601_143022.db");
    write_database(&path);
    fs::write(dir.join("notes.txt"), "x").unwrap();
    fs::copy(&path, dir.join("app_20260602_143022.db")).unwrap();
    let connection = rusqlite::Connection::open(dir.join("app_20260602_143022.db")).unwrap();
    connection
        .execute("UPDATE t SET y = 'changed' WHERE x = 9", [])
        .unwrap();
    drop(connection);
    let repo = plain_repo();

    let found = import::find(std::slice::from_ref(&dir)).unwrap();
    let done: Vec<ImportReport> = found
        .files
        .iter()
        .map(|file| import::import(&context(), &repo, file, &import_options()).unwrap())
        .collect();

    assert_eq!((done.len(), found.skipped.len()), (2, 1));
    assert!(done[0].created_at < done[1].created_at);
    assert!(done[1].stored_bytes * 5 < done[0].stored_bytes);
    for (report, file) in done.iter().zip(&found.files) {
        let id = id_of(report);
        assert!(manifest_of(&repo, &id).databases.is_some());
        let model = model_in(&repo, &id).unwrap();
        let wanted = fs::read(&file.path).unwrap();
        assert!(model[&b"databases/default/app.db"[..]].2 == wanted);
    }
    fs::write(dir.join("text.db"), "no database").unwrap();
    let refused = imported(&repo, &dir.join("text.db"));
    assert!(matches!(refused, Err(Error::Refused { .. })));
}

#[test]
fn links_that_lead_out_are_kept_if_somebody_says_so() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a.tar");
    let link = tar_of(|out| member(out, EntryType::Symlink, b"a", b"/etc/hosts", b""));
    fs::write(&path, link).unwrap();
    let options = ImportOptions {
        limits: Limits {
            outside: OutsideLinks::Kept,
            ..Limits::default()
        },
        ..import_options()
    };
    let repo = plain_repo();

    let done = imported_with(&repo, &path, &options).unwrap();

    let model = model_in(&repo, &id_of(&done)).unwrap();
    assert_eq!(model[&b"a"[..]].2, b"/etc/hosts");
}

/// Restores an archive into a directory.
fn placed(path: &Path, target: &Path, replace: Replace) -> Result<()> {
    let archive = Archive::open(path, None)?.unwrap();
    let listing = listing::list(&context(), &archive, &Limits::default())?;
    let plan = place::plan(&listing, target, &[])?;
    place::apply(&context(), &archive, &listing, &plan, replace).map(drop)
}

#[test]
fn an_archive_is_restored_without_any_repository() {
    let scratch = tempfile::tempdir().unwrap();
    let (app, target) = (scratch.path().join("app"), scratch.path().join("target"));
    write_app(&app);
    let repo = plain_repo();
    let report = backup(&repo, &app).unwrap();
    for format in [Format::TarGz, Format::Zip] {
        let (archive, _) = exported(&repo, &report, &of_format(format)).unwrap();
        let path = scratch.path().join("archive");
        fs::write(&path, archive).unwrap();

        placed(&path, &target, Replace::Never).unwrap();

        let (mut now, mut before) = (model_of(&target), model_of(&app));
        assert!(now.remove(&b""[..]).is_some() && before.remove(&b""[..]).is_some());
        assert!(now == before, "{format}");
        let refused = placed(&path, &target, Replace::Never);
        assert!(matches!(refused, Err(Error::Refused { .. })));
        // The log of another database would be replayed into this one.
        fs::write(target.join("data/app.db-wal"), "stale").unwrap();
        fs::write(target.join("config/app.toml"), "changed").unwrap();
        fs::write(target.join("mine"), "stays").unwrap();
        placed(&path, &target, Replace::Existing).unwrap();
        assert!(!target.join("data/app.db-wal").exists());
        assert_eq!(
            fs::read(target.join("config/app.toml")).unwrap(),
            b"port = 1\n"
        );
        assert!(target.join("mine").exists());
        fs::remove_dir_all(&target).unwrap();
    }
}

#[test]
fn a_link_in_the_target_is_not_followed() {
    let scratch = tempfile::tempdir().unwrap();
    let (outside, target) = (
        scratch.path().join("outside"),
        scratch.path().join("target"),
    );
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(&target).unwrap();
    std::os::unix::fs::symlink(&outside, target.join("a")).unwrap();
    let path = scratch.path().join("a.tar");
    fs::write(&path, tar_of(|out| file(out, "a/b"))).unwrap();

    let refused = placed(&path, &target, Replace::Never);

    assert!(refused.is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

/// Writes a tree that the seed says.
fn write_tree(root: &Path, seed: u64) {
    let mut random = Seeded::new(seed);
    let mut dirs = vec![root.to_path_buf()];
    let mut files = Vec::new();
    for number in 0..random.below(25) {
        let dir = dirs[random.below(dirs.len() as u64) as usize].clone();
        let name = match random.below(4) {
            0 => format!("{number} ü \"quoted\""),
            1 => format!("{number}{}", "x".repeat(random.below(240) as usize)),
            _ => format!("{number}.toml"),
        };
        let path = dir.join(name);
        match random.below(6) {
            0 => {
                fs::create_dir(&path).unwrap();
                dirs.push(path);
            }
            1 => std::os::unix::fs::symlink("elsewhere/down", &path).unwrap(),
            2 if !files.is_empty() => {
                let first: &std::path::PathBuf = &files[random.below(files.len() as u64) as usize];
                fs::hard_link(first, &path).unwrap();
            }
            _ => {
                let len = [0, 10, 5_000, 100_000][random.below(4) as usize];
                fs::write(&path, random.text(len)).unwrap();
                files.push(path);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn what_is_exported_and_imported_is_what_it_was(seed: u64, format in 0_usize..4) {
        let format = [Format::TarGz, Format::TarZst, Format::Tar, Format::Zip][format];
        let scratch = tempfile::tempdir().unwrap();
        let app = scratch.path().join("app");
        fs::create_dir(&app).unwrap();
        write_tree(&app, seed);
        let repo = plain_repo();
        let report = backup(&repo, &app).unwrap();
        let (archive, _) = exported(&repo, &report, &of_format(format)).unwrap();
        let path = scratch.path().join("archive");
        fs::write(&path, archive).unwrap();

        let done = imported(&repo, &path).unwrap();

        let id = id_of(&done);
        let before = model_in(&repo, &report.snapshot.unwrap()).unwrap();
        prop_assert!(model_in(&repo, &id).unwrap() == before);
        let manifest = manifest_of(&repo, &id);
        prop_assert_eq!(manifest.started_at, report.manifest.started_at);
        prop_assert_eq!(manifest.root_path, report.manifest.root_path);
    }
}
