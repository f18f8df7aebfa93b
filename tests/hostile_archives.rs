//! Archives that mean harm, made by a generator: each is checked, restored and imported in a jail, and
//! nothing outside changes. What is let through must mean the same to Python and GNU tar.
//!
//! The long run: `STATEKEEP_ARCHIVES=20000 cargo test --release hostile_archives -- --nocapture`

use crate::export::plain_repo;
use crate::forge::DESCRIPTOR;
use crate::forge::Frame;
use crate::forge::GNU;
use crate::forge::Tar;
use crate::forge::Zip;
use crate::forge::crc;
use crate::forge::gz;
use crate::forge::record;
use crate::forge::tar;
use crate::forge::zip;
use crate::forge::zip_in;
use crate::forge::zst;
use crate::heap::peak_bytes;
use crate::import::import_options;
use crate::support::Model;
use crate::support::Seeded;
use crate::support::context;
use crate::support::model_of;
use statekeep::codec::sha256::Sha256Sum;
use statekeep::disk::jail::Replace;
use statekeep::error::Error;
use statekeep::error::Result;
use statekeep::ops::archive::Archive;
use statekeep::ops::archive::Kind;
use statekeep::ops::archive::bytes::Bytes;
use statekeep::ops::archive::listing;
use statekeep::ops::archive::listing::Limits;
use statekeep::ops::archive::listing::Listing;
use statekeep::ops::archive::place;
use statekeep::ops::archive::verify;
use statekeep::ops::import;
use statekeep::ops::import::ImportOptions;
use statekeep::repo::Repo;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// What must become of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    /// It is refused, or called damaged.
    Refuse,
    /// It may be let in, if it means the same to everybody.
    Either,
    /// It is let in: there is no harm in it.
    Admit,
}

type Case = (String, Vec<u8>, Must);

/// Makes a member of a zip say something else.
type Lie = fn(&mut Zip);

/// Paths that lead out, or are none.
fn hostile_paths() -> Vec<Vec<u8>> {
    let mut paths: Vec<Vec<u8>> = [
        "/canary",
        "//canary",
        "/",
        "..",
        "../",
        "../canary",
        "./../canary",
        "a/../../canary",
        "a/..",
        "a/./../..",
        "././../canary",
        "a//b",
        "a/./b",
        ".//a",
        "../jail/../canary",
        " /../x",
    ]
    .iter()
    .map(|path| path.as_bytes().to_vec())
    .collect();
    paths.push([b"d/".repeat(2100), b"a".to_vec()].concat());
    paths.push([&[b'n'; 300][..], b"/a"].concat());
    paths.push(b"a\0/../canary".to_vec());
    paths
}

/// The ways a tar has to say a path.
fn named(path: &[u8], way: usize, mut member: Tar) -> Option<Vec<Tar>> {
    match way {
        0 => {
            member.name = path.to_vec();
            // What a field cannot hold is another path.
            (path.len() <= 100 && !path.contains(&0)).then(|| vec![member])
        }
        1 => {
            let slash = path.iter().rposition(|byte| *byte == b'/')?;
            (member.prefix, member.name) = (path[..slash].to_vec(), path[slash + 1..].to_vec());
            let fits = slash > 0 && slash <= 155 && !member.name.is_empty();
            (fits && !path.contains(&0)).then(|| vec![member])
        }
        2 => {
            let long = [path, &[0][..]].concat();
            let long = Tar {
                magic: GNU,
                ..Tar::with(b'L', &long)
            };
            member.magic = GNU;
            Some(vec![long, member])
        }
        _ => Some(vec![Tar::pax(&[(b"path", path)]), member]),
    }
}

fn tar_paths(cases: &mut Vec<Case>) {
    for (number, path) in hostile_paths().iter().enumerate() {
        for way in 0..4 {
            let kinds = [
                Tar::file(b"innocent"),
                Tar::of(b'5', b"innocent", b""),
                Tar::of(b'2', b"innocent", b"target"),
                Tar {
                    mode: 0o6777,
                    ..Tar::file(b"innocent")
                },
            ];
            for (kind, member) in kinds.into_iter().enumerate() {
                let Some(members) = named(path, way, member) else {
                    continue;
                };
                cases.push((
                    format!("path {number} {way} {kind}"),
                    tar(&members),
                    Must::Refuse,
                ));
            }
        }
    }
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn tar_links(cases: &mut Vec<Case>) {
    let mut add = |name: &str, members: &[Tar], must| {
        cases.push((name.to_string(), tar(members), must));
        cases.push((format!("{name} gz"), gz(&tar(members)), must));
    };
    for target in [
        "/",
        "..",
        "../canary",
        "/etc/passwd",
        "a/../../canary",
        "./../canary",
        "",
    ] {
        let link = Tar::of(b'2', b"link", target.as_bytes());
        let alone = std::slice::from_ref(&link);
        add(&format!("symlink {target}"), alone, Must::Refuse);
        let through = Tar::file(b"link/canary");
        add(
            &format!("through {target}"),
            &[link.clone(), through],
            Must::Refuse,
        );
        add(
            &format!("over {target}"),
            &[link, Tar::file(b"link")],
            Must::Refuse,
        );
        let hard = Tar::of(b'1', b"hard", target.as_bytes());
        add(&format!("hard link {target}"), &[hard], Must::Refuse);
    }
    let inside = Tar::of(b'2', b"link", b"dir");
    let dir = Tar::of(b'5', b"dir", b"");
    add(
        "through an inner link",
        &[dir.clone(), inside.clone(), Tar::file(b"link/a")],
        Must::Refuse,
    );
    add(
        "hard link to a symlink",
        &[inside.clone(), Tar::of(b'1', b"h", b"link")],
        Must::Refuse,
    );
    add(
        "hard link to a directory",
        &[dir.clone(), Tar::of(b'1', b"h", b"dir")],
        Must::Refuse,
    );
    add(
        "directory over a link",
        &[inside.clone(), Tar::of(b'5', b"link", b"")],
        Must::Refuse,
    );
    add("inner link", &[dir, inside], Must::Admit);
    let first = Tar::file(b"a");
    add(
        "hard link with content",
        &[
            first.clone(),
            Tar {
                kind: b'1',
                link: b"a".into(),
                ..Tar::file(b"b")
            },
        ],
        Must::Refuse,
    );
    add(
        "hard link",
        &[first, Tar::of(b'1', b"b", b"a")],
        Must::Admit,
    );
    for (kind, name) in [
        (b'3', "character device"),
        (b'4', "block device"),
        (b'S', "sparse"),
        (b'D', "dump directory"),
        (b'M', "volume"),
        (b'V', "label"),
        (b'Z', "unknown"),
    ] {
        add(name, &[Tar::of(kind, b"a", b"")], Must::Refuse);
    }
    add("pipe", &[Tar::of(b'6', b"a", b"")], Must::Either);
    for path in ["", ".", "./", "..", "../", "/"] {
        let root = Tar {
            mode: 0,
            ..Tar::of(b'5', path.as_bytes(), b"")
        };
        let must = if path.contains("..") || path == "/" {
            Must::Refuse
        } else {
            Must::Either
        };
        add(&format!("mode of {path}"), &[root, Tar::file(b"a")], must);
    }
    let root = Tar::of(b'5', b"./", b"");
    add("root twice", &[root.clone(), root], Must::Refuse);
    add(
        "setuid",
        &[Tar {
            mode: 0o6755,
            ..Tar::file(b"a")
        }],
        Must::Admit,
    );
    add(
        "case twins",
        &[Tar::file(b"a"), Tar::file(b"A")],
        Must::Admit,
    );
    add("not UTF-8", &[Tar::file(b"\xff\xfe")], Must::Admit);
    add("backslash", &[Tar::file(b"..\\..\\canary")], Must::Admit);
    add(
        "twins",
        &[
            Tar::file(b"a"),
            Tar {
                content: b"other".into(),
                ..Tar::file(b"a")
            },
        ],
        Must::Refuse,
    );
    add(
        "twins by dot",
        &[Tar::file(b"a"), Tar::file(b"./a")],
        Must::Refuse,
    );
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn tar_numbers(cases: &mut Vec<Case>) {
    let mut add = |name: &str, members: &[Tar], must| {
        cases.push((name.to_string(), tar(members), must));
    };
    let sizes: [(&str, &[u8]); 9] = [
        ("8 GiB", b"77777777777"),
        ("2^62", b"\x80\0\0\0\x40\0\0\0\0\0\0\0"),
        ("2^70", b"\x80\0\x40\0\0\0\0\0\0\0\0\x07"),
        (
            "negative",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf9",
        ),
        ("sign", b"+0000000007"),
        ("minus", b"-0000000007"),
        ("underscore", b"0000_000_07"),
        ("not octal", b"00000000009"),
        ("empty", b"\0\0\0\0\0\0\0\0\0\0\0\0"),
    ];
    for (name, size) in sizes {
        let size = Some(size.to_vec());
        add(
            &format!("size {name}"),
            &[Tar {
                size: size.clone(),
                ..Tar::file(b"a")
            }],
            Must::Refuse,
        );
        let dir = Tar {
            size,
            ..Tar::of(b'5', b"a", b"")
        };
        let must = if name == "empty" {
            Must::Either
        } else {
            Must::Refuse
        };
        add(&format!("size {name} of a directory"), &[dir], must);
    }
    let base_256 = Tar {
        size: Some(b"\x80\0\0\0\0\0\0\0\0\0\0\x07".to_vec()),
        ..Tar::file(b"a")
    };
    add("size in base 256", &[base_256], Must::Admit);
    for value in [
        "-7",
        "+7",
        "9223372036854775808",
        "99999999999999999999",
        "7 ",
        "0x7",
        "",
    ] {
        let pax = Tar::pax(&[(b"size", value.as_bytes())]);
        add(
            &format!("pax size {value}"),
            &[pax, Tar::file(b"a")],
            Must::Refuse,
        );
    }
    let none = Tar {
        size: Some(b"00000000000".to_vec()),
        ..Tar::file(b"a")
    };
    add(
        "pax size over none",
        &[Tar::pax(&[(b"size", b"7")]), none],
        Must::Admit,
    );
    for kind in [b'x', b'g', b'L', b'K'] {
        let huge = Tar {
            size: Some(b"77777777777".to_vec()),
            ..Tar::with(kind, b"")
        };
        add(
            &format!("huge header {kind}"),
            &[huge, Tar::file(b"a")],
            Must::Refuse,
        );
        add(
            &format!("only a header {kind}"),
            &[Tar::with(kind, b"")],
            Must::Either,
        );
    }
    let pax = |records: &[u8]| Tar::with(b'x', records);
    for (name, records) in [
        (
            "twice",
            [record(b"path", b"b"), record(b"path", b"c")].concat(),
        ),
        ("global path", Vec::new()),
        ("too long", b"99 path=b\n".to_vec()),
        ("no equals", b"7 path\n".to_vec()),
        ("no end", b"9 path=bc".to_vec()),
        ("negative", b"-9 path=b\n".to_vec()),
        ("sparse", record(b"GNU.sparse.realsize", b"1000000000000")),
        ("sparse name", record(b"GNU.sparse.name", b"../canary")),
        ("empty path", record(b"path", b"")),
        ("owner", record(b"uid", b"99999999999")),
    ] {
        let header = match name {
            "global path" => Tar::with(b'g', &record(b"path", b"../canary")),
            _ => pax(&records),
        };
        add(
            &format!("pax {name}"),
            &[header, Tar::file(b"a")],
            Must::Refuse,
        );
    }
    let two = [
        pax(&record(b"path", b"b")),
        pax(&record(b"mtime", b"1")),
        Tar::file(b"a"),
    ];
    add("two extended headers", &two, Must::Refuse);
    let both = [
        Tar::with(b'L', b"b\0"),
        Tar::pax(&[(b"path", b"c")]),
        Tar::file(b"a"),
    ];
    add("two kinds of long names", &both, Must::Refuse);
    add(
        "bad checksum",
        &[Tar {
            bad_sum: true,
            ..Tar::file(b"a")
        }],
        Must::Refuse,
    );
    let prefix = Tar {
        magic: GNU,
        prefix: b"../".to_vec(),
        ..Tar::file(b"canary")
    };
    add("prefix in a GNU header", &[prefix], Must::Refuse);
    add(
        "file named like a directory",
        &[Tar::file(b"a/")],
        Must::Refuse,
    );
    let link = Tar::pax(&[(b"linkpath", b"../canary")]);
    add(
        "pax link out",
        &[link, Tar::of(b'2', b"a", b"b")],
        Must::Refuse,
    );
    let link = Tar {
        magic: GNU,
        ..Tar::with(b'K', b"../canary\0")
    };
    add(
        "GNU link out",
        &[link, Tar::of(b'2', b"a", b"b")],
        Must::Refuse,
    );
}

fn frames(cases: &mut Vec<Case>) {
    let whole = tar(&[Tar::file(b"a"), Tar::file(b"b")]);
    let other = tar(&[Tar::file(b"c")]);
    let mut add = |name: &str, bytes: Vec<u8>, must| cases.push((name.to_string(), bytes, must));
    for cut in [513, 700, 1024, 1536, 2048, whole.len() - 512] {
        add(&format!("cut {cut}"), whole[..cut].to_vec(), Must::Refuse);
        let packed = gz(&whole);
        add(
            &format!("gz cut {cut}"),
            packed[..packed.len() * cut / 4096].to_vec(),
            Must::Refuse,
        );
    }
    for (name, more) in [
        ("garbage", &[1_u8; 512][..]),
        ("a byte", &[1][..]),
        ("an archive", &other[..]),
    ] {
        add(
            &format!("tar and {name}"),
            [&whole[..], more].concat(),
            Must::Refuse,
        );
        let packed = [&gz(&whole)[..], more].concat();
        add(&format!("gz and {name}"), packed, Must::Refuse);
    }
    add(
        "two gz members",
        [gz(&whole), gz(&other)].concat(),
        Must::Refuse,
    );
    add(
        "one tar in two gz members",
        [gz(&whole[..700]), gz(&whole[700..])].concat(),
        Must::Admit,
    );
    add(
        "zst and gz",
        [zst(&whole), gz(&other)].concat(),
        Must::Refuse,
    );
    add(
        "two zst frames",
        [zst(&whole), zst(&other)].concat(),
        Must::Refuse,
    );
    let mut bad = gz(&whole);
    let at = bad.len() - 6;
    bad[at] ^= 1;
    add("gz checksum", bad, Must::Refuse);
    let nested = Tar {
        content: gz(&whole),
        ..Tar::file(b"inner.tar.gz")
    };
    add("nested", gz(&tar(&[nested])), Must::Admit);
    add("zst of a tar", zst(&whole), Must::Admit);
}

/// What would take memory or disk without end.
fn bombs(cases: &mut Vec<Case>) {
    let mut add = |name: &str, bytes: Vec<u8>, must| cases.push((name.to_string(), bytes, must));
    let many = |count: usize, make: &dyn Fn(usize) -> Vec<Tar>| {
        let members: Vec<Tar> = (0..count).flat_map(make).collect();
        zst(&tar(&members))
    };
    let empty = |name: String| Tar {
        content: Vec::new(),
        ..Tar::file(name.as_bytes())
    };
    let value = vec![b'x'; 1 << 20];
    let bomb = many(40, &|n| {
        let xattr = Tar::pax(&[(b"SCHILY.xattr.user.a", &value)]);
        vec![xattr, empty(format!("{n}"))]
    });
    add("attributes without end", bomb, Must::Refuse);
    let bomb = many(3000, &|n| {
        let long = format!("{}{n}", "dir/".repeat(1000));
        vec![
            Tar::pax(&[(b"path", long.as_bytes())]),
            empty("a".to_string()),
        ]
    });
    add("names without end", bomb, Must::Refuse);
    let bomb = many(200, &|_| vec![Tar::with(b'g', &record(b"comment", b"x"))]);
    add("global headers without end", bomb, Must::Refuse);
    let header = |n: usize| Tar::pax(&[(format!("k{n}").as_bytes(), &value)]);
    add(
        "extended headers without end",
        many(40, &|n| vec![header(n)]),
        Must::Refuse,
    );
    let manifest = [
        br#"{"type":"statekeep-export","files":["#.to_vec(),
        vec![b' '; 24 << 20],
    ]
    .concat();
    let member = Tar {
        content: manifest,
        ..Tar::file(b"MANIFEST.json")
    };
    add("manifest without end", zst(&tar(&[member])), Must::Either);
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn zips(cases: &mut Vec<Case>) {
    let a = Zip::file(b"a", b"content");
    let b = Zip::file(b"b", b"other content");
    for (number, path) in hostile_paths().iter().enumerate() {
        let file = Zip::file(path, b"content");
        cases.push((
            format!("zip path {number}"),
            zip(std::slice::from_ref(&file)),
            Must::Refuse,
        ));
        let after = zip(&[a.clone(), file]);
        cases.push((format!("zip path {number} second"), after, Must::Refuse));
    }
    let mut add = |name: &str, members: &[Zip], must| {
        cases.push((format!("zip {name}"), zip(members), must));
    };
    let change = |change: Lie| {
        let mut member = Zip::file(b"a", b"content");
        change(&mut member);
        member
    };
    let lies: [(&str, Lie); 16] = [
        ("local name", |z| z.local.name = b"/".to_vec()),
        ("local name up", |z| z.local.name = b"../canary".to_vec()),
        ("central name", |z| z.central.name = b"A".to_vec()),
        ("local length", |z| z.local.packed = 6),
        ("central length", |z| z.central.packed = 6),
        ("local plain length", |z| z.local.plain = 1000),
        ("central plain length", |z| z.central.plain = 1000),
        ("local checksum", |z| z.local.crc ^= 1),
        ("central checksum", |z| z.central.crc ^= 1),
        ("local method", |z| z.local.method = 8),
        ("central method", |z| z.central.method = 8),
        ("local flags", |z| z.local.flags = DESCRIPTOR),
        ("central flags", |z| z.central.flags = DESCRIPTOR),
        ("encryption", |z| z.local.flags = 1),
        ("content", |z| z.content[0] ^= 1),
        ("elsewhere", |z| z.at = Some(5)),
    ];
    for (name, lie) in lies {
        add(&format!("lie about {name}"), &[change(lie)], Must::Refuse);
        add(
            &format!("lie about {name} first"),
            &[change(lie), b.clone()],
            Must::Refuse,
        );
    }
    for method in [1, 9, 12, 14, 93, 95, 99] {
        add(
            &format!("method {method}"),
            &[a.clone().both(|r| r.method = method)],
            Must::Refuse,
        );
    }
    for (name, mode) in [
        ("pipe", 0o010_644),
        ("device", 0o020_644),
        ("disk", 0o060_644),
        ("socket", 0o140_644),
    ] {
        add(name, &[a.clone().both(|r| r.mode = mode)], Must::Refuse);
    }
    for target in [&b"../canary"[..], b"/etc/passwd", b"a/../../x", b""] {
        let link = Zip::file(b"link", target).both(|r| r.mode = 0o120_777);
        add("symlink", std::slice::from_ref(&link), Must::Refuse);
        add(
            "through a symlink",
            &[link, Zip::file(b"link/x", b"")],
            Must::Refuse,
        );
    }
    add("twice", &[a.clone(), a.clone()], Must::Refuse);
    add(
        "below a file",
        &[a.clone(), Zip::file(b"a/b", b"")],
        Must::Refuse,
    );
    add(
        "directory with content",
        &[Zip::file(b"a/", b"content")],
        Must::Refuse,
    );
    let dos = Zip::file(b"..\\canary", b"").both(|r| r.made_by = 20);
    add("backslashes of another system", &[dos], Must::Refuse);
    add(
        "backslashes",
        &[Zip::file(b"..\\canary", b"")],
        Must::Either,
    );
    add(
        "setuid",
        &[a.clone().both(|r| r.mode = 0o106_755)],
        Must::Admit,
    );
    add(
        "case twins",
        &[a.clone(), Zip::file(b"A", b"")],
        Must::Admit,
    );
    add(
        "not UTF-8",
        &[Zip::file(b"\xff", b"").both(|r| r.flags = 0)],
        Must::Either,
    );
    let other_name = [&b"\x75\x70\x0e\0\x01\0\0\0\0"[..], b"../canary"].concat();
    add(
        "other name",
        &[a.clone().both(|r| r.extra = other_name.clone())],
        Must::Refuse,
    );
    let zip64 = [
        &b"\x01\0\x10\0"[..],
        &u64::MAX.to_le_bytes(),
        &7_u64.to_le_bytes(),
    ]
    .concat();
    let big = a.clone().both(|r| {
        r.extra = zip64.clone();
        r.plain = u32::MAX;
        r.packed = u32::MAX;
    });
    add("lengths of 64 bits", &[big], Must::Refuse);
    let mut hidden = b.clone();
    hidden.at = Some(0);
    add("one member for two", &[a.clone(), hidden], Must::Refuse);
    zip_frames(cases);
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn zip_frames(cases: &mut Vec<Case>) {
    let (a, b) = (
        Zip::file(b"a", b"content"),
        Zip::file(b"b", b"other content"),
    );
    let members = [a.clone(), b];
    let frame = Frame::default;
    let inner = zip(&[Zip::file(b"../canary", b"")]);
    let frames = [
        (
            "something before",
            Frame {
                before: b"x".to_vec(),
                ..frame()
            },
            Must::Refuse,
        ),
        (
            "a member between",
            Frame {
                between: inner[..40].to_vec(),
                ..frame()
            },
            Must::Refuse,
        ),
        (
            "a byte between",
            Frame {
                between: vec![0],
                ..frame()
            },
            Must::Refuse,
        ),
        (
            "another end in the comment",
            Frame {
                comment: inner.clone(),
                ..frame()
            },
            Must::Refuse,
        ),
        (
            "a comment",
            Frame {
                comment: b"made by hand".to_vec(),
                ..frame()
            },
            Must::Admit,
        ),
        ("more members", Frame { more: 1, ..frame() }, Must::Refuse),
        (
            "fewer members",
            Frame {
                more: -1,
                ..frame()
            },
            Must::Refuse,
        ),
        (
            "ten million members",
            Frame {
                more: 65_000,
                ..frame()
            },
            Must::Refuse,
        ),
        (
            "directory earlier",
            Frame {
                shift: -1,
                ..frame()
            },
            Must::Refuse,
        ),
        (
            "directory later",
            Frame {
                shift: 1,
                ..frame()
            },
            Must::Refuse,
        ),
        (
            "directory nowhere",
            Frame {
                shift: i32::MAX,
                ..frame()
            },
            Must::Refuse,
        ),
    ];
    for (name, frame, must) in frames {
        cases.push((format!("zip with {name}"), zip_in(&frame, &members), must));
    }
    let whole = zip(&members);
    for cut in [10, 40, 60, whole.len() - 30, whole.len() - 1] {
        cases.push((
            format!("zip cut {cut}"),
            whole[..cut].to_vec(),
            Must::Refuse,
        ));
    }
    let mut add = |name: &str, bytes: Vec<u8>| cases.push((name.into(), bytes, Must::Refuse));
    add("zip and garbage", [&whole[..], b"x"].concat());
    add("two zips", [&whole[..], &whole].concat());
    add(
        "zip and tar",
        [&whole[..], &tar(&[Tar::file(b"a")])].concat(),
    );
    add(
        "tar and zip",
        [&tar(&[Tar::file(b"a")])[..], &whole].concat(),
    );
    let content = b"content";
    let descriptor = |crc: u32, len: u32| {
        [
            &b"PK\x07\x08"[..],
            &crc.to_le_bytes(),
            &len.to_le_bytes(),
            &len.to_le_bytes(),
        ]
        .concat()
    };
    for (name, crc, len, must) in [
        ("true", crc(content), 7, Must::Admit),
        ("with another checksum", 1, 7, Must::Refuse),
        ("with another length", crc(content), 9, Must::Refuse),
    ] {
        let mut member = a.clone().both(|r| r.flags = DESCRIPTOR);
        (member.local.crc, member.local.packed, member.local.plain) = (0, 0, 0);
        member.descriptor = descriptor(crc, len);
        cases.push((format!("zip descriptor {name}"), zip(&[member]), must));
    }
}

/// Manifests that do not tell the truth.
#[allow(clippy::too_many_lines, reason = "a table")]
fn manifests(cases: &mut Vec<Case>) {
    let sum = Sha256Sum::of_reader(&b"content"[..]).unwrap().to_string();
    let row = |path: &str, size: u64, mode: &str, sum: &str| {
        format!(
            r#"{{"path":"{path}","type":"file","size_bytes":{size},"mode":"{mode}","sha256":"{sum}"}}"#
        )
    };
    let good = |path: &str| row(path, 7, "0644", &sum);
    let own = |rows: &[String]| {
        format!(
            r#"{{"type":"statekeep-export","files":[{}]}}"#,
            rows.join(",")
        )
    };
    let rows = [
        ("true", own(&[good("a"), good("b")]), Must::Admit),
        ("missing", own(&[good("a")]), Must::Refuse),
        (
            "extra",
            own(&[good("a"), good("b"), good("c")]),
            Must::Refuse,
        ),
        (
            "twice",
            own(&[good("a"), good("b"), good("b")]),
            Must::Refuse,
        ),
        ("order", own(&[good("b"), good("a")]), Must::Refuse),
        (
            "content",
            own(&[good("a"), row("b", 7, "0644", &"0".repeat(64))]),
            Must::Refuse,
        ),
        (
            "length",
            own(&[good("a"), row("b", 8, "0644", &sum)]),
            Must::Refuse,
        ),
        (
            "mode",
            own(&[good("a"), row("b", 7, "4755", &sum)]),
            Must::Refuse,
        ),
        (
            "no sum",
            own(&[good("a"), r#"{"path":"b","type":"file"}"#.into()]),
            Must::Refuse,
        ),
        (
            "nonsense",
            own(&[good("a"), row("b", 7, "0644", "xyz")]),
            Must::Refuse,
        ),
        (
            "traversal",
            own(&[good("a"), good("b"), good("../canary")]),
            Must::Refuse,
        ),
        (
            "not JSON",
            r#"{"type":"statekeep-export","files":"#.into(),
            Must::Refuse,
        ),
        (
            "no rows",
            r#"{"type":"statekeep-export"}"#.into(),
            Must::Refuse,
        ),
        (
            "bad base64",
            own(&[good("a"), r#"{"path":"b","path_b64":"!"}"#.into()]),
            Must::Refuse,
        ),
        (
            "of another program",
            format!(r#"{{"files":["a",{}]}}"#, row("b", 7, "x", &"0".repeat(64))),
            Must::Refuse,
        ),
        (
            "of another program, true",
            r#"{"files":["a","b","c"],"mode":7}"#.into(),
            Must::Admit,
        ),
    ];
    for (name, text, must) in rows {
        let manifest = Tar {
            content: text.clone().into_bytes(),
            ..Tar::file(b"MANIFEST.json")
        };
        let members = [manifest.clone(), Tar::file(b"a"), Tar::file(b"b")];
        cases.push((format!("manifest {name}"), tar(&members), must));
        cases.push((format!("manifest {name} zst"), zst(&tar(&members)), must));
        let zipped = [&b"MANIFEST.json"[..], b"a", b"b"].map(|name| match name {
            b"MANIFEST.json" => Zip::file(name, text.as_bytes()),
            _ => Zip::file(name, b"content"),
        });
        cases.push((format!("manifest {name} zip"), zip(&zipped), must));
        if name == "true" {
            let last = [Tar::file(b"a"), Tar::file(b"b"), manifest.clone()];
            cases.push(("manifest last".into(), tar(&last), Must::Refuse));
            let two = [manifest.clone(), Tar::file(b"a"), Tar::file(b"b"), manifest];
            cases.push(("manifest twice".into(), tar(&two), Must::Refuse));
        }
    }
}

/// Sound archives with something changed that a seed says.
fn mutated(seed: u64) -> Case {
    let mut random = Seeded::new(seed);
    let tarred = tar(&[
        Tar::of(b'5', b"dir", b""),
        Tar::pax(&[(b"path", b"dir/long name"), (b"mtime", b"1700000000.5")]),
        Tar::file(b"x"),
        Tar::of(b'2', b"dir/link", b"long name"),
        Tar::of(b'1', b"hard", b"dir/long name"),
    ]);
    let zipped = zip(&[Zip::file(b"a", b"content"), Zip::file(b"dir/b", &[7; 600])]);
    let mut bytes = match random.below(4) {
        0 => zipped,
        1 => gz(&tarred),
        2 => zst(&tarred),
        _ => tarred,
    };
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(5) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at.max(4)),
            3 => {
                let from = random.below(bytes.len() as u64) as usize;
                let len = random.below(64).min((bytes.len() - from.max(at)) as u64) as usize;
                bytes.copy_within(from..from + len, at);
            }
            _ => bytes[at] = b"./\0\xff0"[random.below(5) as usize],
        }
    }
    // A header with a right checksum says what was changed in it.
    if bytes.get(257..262) == Some(b"ustar") {
        mend_checksums(&mut bytes);
    }
    (format!("mutation {seed}"), bytes, Must::Either)
}

fn mend_checksums(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// A place with something outside that nobody may touch.
struct Jail {
    scratch: TempDir,
    repo: Repo,
    before: Model,
}

impl Jail {
    fn new() -> Jail {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        fs::create_dir_all(path("jail/in")).unwrap();
        fs::create_dir(path("outside")).unwrap();
        for name in ["canary", "outside/canary"] {
            fs::write(path(name), "sings").unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o640)).unwrap();
        }
        fs::set_permissions(path("outside"), fs::Permissions::from_mode(0o750)).unwrap();
        let before = outside(scratch.path());
        Jail {
            repo: plain_repo(),
            before,
            scratch,
        }
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.scratch.path().join("jail").join(name)
    }

    /// Feeds an archive to all that take archives, and returns what is in it if all let it in.
    fn feed(&self, case: &Case) -> Option<Listing> {
        let (name, bytes, must) = case;
        let path = self.inside("in/archive");
        fs::write(&path, bytes).unwrap();
        let mut results = Vec::new();
        let peak = peak_bytes(|| {
            results.push(self.checked(&path));
            results.push(self.restored(&path));
            results.push(self.imported(&path));
        });
        assert!(peak < 96 << 20, "{name}: {peak} bytes of memory");
        assert!(
            outside(self.scratch.path()) == self.before,
            "{name}: it got out"
        );
        let listings: Vec<bool> = results.iter().map(Result::is_ok).collect();
        for result in &results {
            match result {
                Ok(_) => assert_ne!(*must, Must::Refuse, "{name} is let in: {listings:?}"),
                Err(error) => {
                    let is_told = matches!(error, Error::Refused { .. } | Error::Corrupt { .. });
                    assert!(is_told, "{name}: {error:?}");
                    assert_ne!(*must, Must::Admit, "{name}: {error}");
                }
            }
        }
        assert!(
            listings.iter().all(|is| *is == listings[0]),
            "{name}: {results:?}"
        );
        results.into_iter().next().and_then(Result::ok)
    }

    fn checked(&self, path: &Path) -> Result<Listing> {
        let bytes = Bytes::open(path, None)?;
        let verified = verify::verify(&context(), bytes, &Limits::default())?;
        match verified.findings.first.first() {
            Some(finding) => Err(Error::corrupt("archive", finding.message.clone())),
            // Links out of the tree lead nowhere while nothing is unpacked.
            None if verified.format.is_some() => judged(path),
            None => Err(no_archive()),
        }
    }

    fn restored(&self, path: &Path) -> Result<Listing> {
        let target = self.inside("target");
        let archive = Archive::open(path, None)?.ok_or_else(no_archive)?;
        let listing = listing::list(&context(), &archive, &Limits::default())?;
        let plan = place::plan(&listing, &target, &[])?;
        let done = place::apply(&context(), &archive, &listing, &plan, Replace::Never);
        assert!(used_bytes(&target) <= listing.plain_bytes + (1 << 20));
        let _ = Command::new("chmod")
            .args(["-R", "u+rwx"])
            .arg(&target)
            .status();
        let _ = fs::remove_dir_all(&target);
        assert!(!target.exists());
        done.map(|_| listing)
    }

    fn imported(&self, path: &Path) -> Result<Listing> {
        let room = self.inside("room");
        let options = ImportOptions {
            temp_dir: room.clone(),
            ..import_options()
        };
        let found = import::find(&[path.to_path_buf()])?;
        let done = import::import(&context(), &self.repo, &found.files[0], &options);
        let left = fs::read_dir(&room).map_or(0, Iterator::count);
        assert_eq!(left, 0, "something is left of an import");
        done.map(|_| Listing::default())
    }
}

fn judged(path: &Path) -> Result<Listing> {
    let archive = Archive::open(path, None)?.ok_or_else(no_archive)?;
    listing::list(&context(), &archive, &Limits::default())
}

fn no_archive() -> Error {
    Error::Refused {
        reason: "no archive".to_string(),
    }
}

/// Everything that is not in the jail, and the jail's own mode.
fn outside(scratch: &Path) -> Model {
    let mut model = model_of(scratch);
    model.retain(|path, _| !path.starts_with(b"jail/"));
    model
}

fn used_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(path) else {
        return fs::symlink_metadata(path).map_or(0, |meta| meta.blocks() * 512);
    };
    entries
        .map(|entry| used_bytes(&entry.unwrap().path()))
        .sum()
}

/// What an archive holds, as every program can say it.
type Content = BTreeMap<String, (String, u64)>;

fn content_of(listing: &Listing) -> Content {
    let members = listing.members.iter().map(|listed| {
        let (kind, bytes) = match &listed.member.kind {
            Kind::Directory => ("dir", 0),
            Kind::File(bytes) => ("file", *bytes),
            Kind::Symlink(_) => ("symlink", 0),
            Kind::HardLink(_) => ("hard link", 0),
            _ => ("other", 0),
        };
        (hex(&listed.member.path), (kind.to_string(), bytes))
    });
    members.collect()
}

fn hex(bytes: &[u8]) -> String {
    statekeep::id::hex(bytes)
}

const PYTHON: &str = r#"
import json, os, sys, tarfile, zipfile
def plain(name):
    while name.startswith(b'./'):
        name = name[2:]
    name = name.rstrip(b'/')
    return b'' if name == b'.' else name
def tar(path):
    found = {}
    with tarfile.open(path) as archive:
        for m in archive:
            kind = ('dir' if m.isdir() else 'symlink' if m.issym() else 'hard link' if m.islnk()
                    else 'file' if m.isreg() else 'other')
            name = plain(m.name.encode('utf-8', 'surrogateescape'))
            found[name.hex()] = [kind, m.size if kind == 'file' else 0]
    return found
def zipped(path):
    found = {}
    with zipfile.ZipFile(path) as archive:
        if archive.testzip():
            return {'bad': ['', 0]}
        for m in archive.infolist():
            name = m.orig_filename.encode('utf-8' if m.flag_bits & 0x800 else 'cp437')
            link = (m.external_attr >> 16) & 0o170000 == 0o120000
            kind = 'dir' if name.endswith(b'/') else 'symlink' if link else 'file'
            found[plain(name).hex()] = [kind, m.file_size if kind == 'file' else 0]
    return found
for name in sorted(os.listdir('.')):
    with open(name, 'rb') as file:
        head = file.read(4)
    if head == b'\x28\xb5\x2f\xfd':
        continue
    try:
        found = zipped(name) if head[:2] == b'PK' else tar(name)
    except NotImplementedError:
        continue
    except Exception as error:
        found = {'error': [repr(error), 0]}
    print(json.dumps([name, found]))
"#;

/// Compares what was let in with what other programs find in it.
fn compare_with_others(admitted: &BTreeMap<String, (Vec<u8>, Content)>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, (bytes, _)) in admitted {
        fs::write(dir.path().join(name.replace('/', "-")), bytes).unwrap();
    }
    let output = Command::new("python3")
        .args(["-c", PYTHON])
        .current_dir(dir.path())
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: python3 is not installed, so nothing is known of what it reads");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (mut compared, mut wrong) = (0, Vec::new());
    for line in text.lines() {
        let (name, found): (String, Content) = serde_json::from_str(line).unwrap();
        let wanted = admitted
            .iter()
            .find(|(admitted, _)| admitted.replace('/', "-") == name);
        let (_, (_, content)) = wanted.unwrap();
        let mut found = found;
        let manifest = hex(b"MANIFEST.json");
        found.remove("");
        if !content.contains_key(&manifest) {
            found.remove(&manifest);
        }
        if found != *content {
            wrong.push(format!("{name}: {content:?}, and to Python {found:?}"));
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 10, "{compared}");
    compare_with_tar(admitted, dir.path());
}

fn compare_with_tar(admitted: &BTreeMap<String, (Vec<u8>, Content)>, dir: &Path) {
    for (name, (bytes, content)) in admitted {
        if !bytes.starts_with(&[0x1f, 0x8b]) && bytes.get(257..262) != Some(b"ustar") {
            continue;
        }
        let archive = dir.join(name.replace('/', "-"));
        let listed = Command::new("tar")
            .arg("--quoting-style=literal")
            .arg("-tf")
            .arg(archive)
            .output();
        let Ok(listed) = listed else {
            eprintln!("SKIPPED: tar is not installed, so nothing is known of what it reads");
            return;
        };
        assert!(
            listed.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&listed.stderr)
        );
        let lines = listed
            .stdout
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let plain = |line: &[u8]| {
            let line = line.strip_prefix(b"./").unwrap_or(line);
            hex(line.strip_suffix(b"/").unwrap_or(line))
        };
        let mut names: Vec<String> = lines.map(plain).collect();
        names.retain(|name| {
            !name.is_empty() && *name != hex(b".") && *name != hex(b"MANIFEST.json")
        });
        names.sort();
        let wanted: Vec<&String> = content
            .keys()
            .filter(|name| **name != hex(b"MANIFEST.json"))
            .collect();
        assert_eq!(
            names.iter().collect::<Vec<_>>(),
            wanted,
            "{name}: tar reads something else"
        );
    }
}

#[test]
fn archives_that_mean_harm_do_none() {
    let long = std::env::var("STATEKEEP_ARCHIVES").ok();
    let mutations = long.map_or(150, |text| text.parse().unwrap());
    let mut cases = Vec::new();
    for make in [
        tar_paths,
        tar_links,
        tar_numbers,
        frames,
        bombs,
        zips,
        manifests,
    ] {
        make(&mut cases);
    }
    cases.extend((0..mutations).map(mutated));
    let jail = Jail::new();
    let mut admitted = BTreeMap::new();

    for case in &cases {
        if let Some(listing) = jail.feed(case) {
            admitted.insert(case.0.clone(), (case.1.clone(), content_of(&listing)));
        }
    }

    compare_with_others(&admitted);
    let (count, harmless) = (cases.len(), admitted.len());
    assert!(count >= 400, "{count}");
    eprintln!("{count} archives, {harmless} of them harmless and the same to everybody");
}

#[test]
#[ignore = "reads gigabytes of zeroes: cargo test --release -- --ignored bomb_of_gigabytes"]
fn a_bomb_of_gigabytes_is_refused_in_every_packing() {
    let zeroes = vec![0; 1100 << 20];
    let whole = tar(&[Tar {
        content: zeroes,
        ..Tar::file(b"a")
    }]);
    for packed in [gz(&whole), zst(&whole)] {
        let jail = Jail::new();
        let case = ("gigabytes".to_string(), packed, Must::Refuse);

        assert!(jail.feed(&case).is_none());
    }
}
