//! The mark by itself: circles, records that outlived their bases, and ten million of them.

use super::limits::work;
use super::records::Records;
use super::*;
use crate::format::pack::ChunkKind;
use crate::format::pack::Codec;
use crate::format::pack::Encoding;
use crate::format::pack::Row;
use crate::id::ChunkId;
use proptest::prelude::*;

fn id(number: u32) -> ChunkId {
    ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn row(number: u32, height: u8, stored_bytes: u32, base: Option<u32>) -> Row {
    let start = |base: u32| id(base).0[..8].try_into().unwrap();
    Row {
        id: id(number),
        encoding: Encoding {
            codec: if base.is_some() {
                Codec::Delta
            } else {
                Codec::Raw
            },
            kind: ChunkKind::Data,
            run_head: base.is_none(),
        },
        height,
        plain_bytes: stored_bytes,
        stored_bytes,
        bases: base.map(start).into_iter().collect(),
    }
}

fn records(packs: &[&[Row]]) -> Records {
    let mut records = Records::default();
    for (number, rows) in (0_u8..).zip(packs) {
        records.add_pack(PackId([number; 32]), 1000, rows);
    }
    records.finish();
    records
}

fn choose(records: &mut Records, named: &[u32]) -> Result<Vec<(u32, u32)>> {
    for number in named {
        records.mark_named(&id(*number), *number as u16)?;
    }
    records.rank();
    records.choose();
    records.prove()?;
    let kept = records.entries().iter().filter(|entry| entry.is_kept());
    let mut places: Vec<_> = kept.map(|entry| (entry.pack, entry.offset)).collect();
    places.sort_unstable();
    Ok(places)
}

#[test]
fn of_two_that_lean_on_each_other_the_lower_ones_stay_however_full_their_packs_are() {
    let dead = row(9, 0, 10_000, None);
    let (x, y) = (row(1, 0, 100, None), row(2, 0, 100, None));
    let mut records = records(&[
        &[x, dead.clone()],
        &[row(2, 1, 5, Some(1))],
        &[y, dead],
        &[row(1, 1, 5, Some(2))],
    ]);

    let kept = choose(&mut records, &[1, 2]).unwrap();

    assert_eq!(kept, [(0, 0), (2, 0)]);
}

#[test]
fn a_record_that_outlived_its_base_is_not_what_stays() {
    let mut records = records(&[
        &[row(1, 3, 5, Some(7))],
        &[row(2, 9, 100, Some(3)), row(3, 0, 100, None)],
        &[row(1, 10, 5, Some(2))],
    ]);

    let kept = choose(&mut records, &[1]).unwrap();

    assert_eq!(kept, [(1, 0), (1, 100), (2, 0)]);
}

#[test]
fn a_chunk_without_a_record_that_decodes_stops_the_mark() {
    let mut records = records(&[&[row(1, 3, 5, Some(7)), row(7, 3, 5, None)]]);

    for missing in [1, 2] {
        let stopped = choose(&mut records, &[7, missing]);
        assert!(matches!(stopped, Err(Error::Missing { .. })), "{missing}");
    }
}

#[test]
fn a_base_of_several_is_kept_for_each() {
    let mut leaning = row(1, 2, 5, Some(2));
    leaning.bases.push(id(3).0[..8].try_into().unwrap());
    let others = [row(2, 0, 50, None), row(3, 1, 50, Some(4))];
    let mut records = records(&[
        &[leaning],
        &others,
        &[row(4, 0, 9, None), row(5, 0, 9, None)],
    ]);

    let kept = choose(&mut records, &[1]).unwrap();

    assert_eq!(kept, [(0, 0), (1, 0), (1, 50), (2, 0)]);
}

#[test]
fn a_whole_record_is_not_replaced_by_another_one() {
    // The oldest snapshot went: what leans on its whole record stays as it is, until the deltas in
    // between are many.
    for (between, expected) in [(20, 0), (600, 1)] {
        let rows = [
            row(1, 0, 1000, None),
            row(2, 1, between, Some(1)),
            row(3, 2, 30, Some(2)),
        ];
        let mut records = records(&[&rows]);
        choose(&mut records, &[3]).unwrap();

        let work = work(&mut records, &Limits::default()).unwrap();

        assert_eq!(work.reencode.len(), expected, "{between}");
    }
}

#[test]
fn what_leans_on_mere_bases_goes_to_the_nearest_version_that_is_kept() {
    // One chain of which each fourth version is left.
    let mut rows = vec![row(1, 0, 10_000, None)];
    rows.extend((2..=9).map(|number| row(number, number as u8 - 1, 1000, Some(number - 1))));
    let mut records = records(&[&rows]);
    choose(&mut records, &[1, 5, 9]).unwrap();

    let work = work(&mut records, &Limits::default()).unwrap();

    let start = |at: usize| records.entries()[at].start();
    let of = |number: u32| -> [u8; 8] { id(number).0[..8].try_into().unwrap() };
    let moves = work.reencode.iter().map(|moved| {
        let base = moved.base.map(|(at, height)| (start(at), height));
        (start(moved.at), base)
    });
    let expected = [(of(5), Some((of(1), 0))), (of(9), Some((of(5), 1)))];
    assert_eq!(moves.collect::<Vec<_>>(), expected);
}

#[test]
fn limits_bound_what_is_rewritten() {
    let rows = |first: u32| [row(first, 0, 600, None), row(first + 1, 0, 400, None)];
    let packs = [rows(10), rows(20), rows(30)];
    let packs: Vec<&[Row]> = packs.iter().map(|rows| &rows[..]).collect();
    for (unused_permille, repack_bytes_max, expected) in [
        (0, u64::MAX, 3),
        // 1,200 unused beside 1,800.
        (700, u64::MAX, 0),
        (300, u64::MAX, 2),
        (0, 1300, 2),
        (0, 0, 0),
    ] {
        let mut records = records(&packs);
        choose(&mut records, &[10, 20, 30]).unwrap();
        let limits = Limits {
            unused_permille,
            repack_bytes_max,
        };

        let work = work(&mut records, &limits).unwrap();

        let name = format!("{unused_permille} {repack_bytes_max}");
        assert_eq!(work.rewrite.len(), expected, "{name}");
        assert!(work.drop.is_empty(), "{name}");
    }
}

/// `cargo test --release --lib ten_million -- --ignored --nocapture`
#[test]
#[ignore = "takes a gigabyte, and limits the address space of the whole process"]
#[allow(clippy::print_stderr, reason = "the figures are what it is run for")]
fn ten_million_records_are_marked_within_a_gibibyte() {
    const PACKS: u32 = 160;
    const ROWS: u32 = 62_500;
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::As);
    limit.current = Some(1 << 30);
    rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
    let began = std::time::Instant::now();
    let mut records = Records::with_room(u64::from(PACKS * ROWS));
    for pack in 0..PACKS {
        let number = |at: u32| pack * ROWS + at;
        // Each in the second half of a pack leans on one of the first half of the pack before.
        let rows: Vec<Row> = (0..ROWS)
            .map(|at| match at < ROWS / 2 || pack == 0 {
                true => row(number(at), 0, 1, None),
                false => row(number(at), 1, 1, Some(number(at) - ROWS - ROWS / 2)),
            })
            .collect();
        records.add_pack(PackId([pack as u8; 32]), u64::from(ROWS), &rows);
    }
    records.finish();
    let read = began.elapsed();

    for number in (0..PACKS * ROWS).filter(|number| number % 3 > 0) {
        records.mark_named(&id(number), 0).unwrap();
    }
    records.rank();
    records.choose();
    records.prove().unwrap();
    let work = work(&mut records, &Limits::default()).unwrap();

    assert_eq!(records.entries().len(), (PACKS * ROWS) as usize);
    assert!(!work.rewrite.is_empty());
    eprintln!("read {read:?}, all {:?}", began.elapsed());
}

/// A record as the property below makes it: what it stands on, its bytes, and whether a snapshot
/// names its chunk.
type Version = (Option<usize>, u32, bool);

fn versions() -> impl Strategy<Value = Vec<Version>> {
    let version = (
        any::<proptest::sample::Index>(),
        0..8_u8,
        1..3000_u32,
        any::<bool>(),
    );
    proptest::collection::vec(version, 2..60).prop_map(|drawn| {
        let each = drawn
            .iter()
            .enumerate()
            .map(|(at, (base, kind, bytes, named))| {
                // Mostly the one before, as a history is; sometimes any, or none.
                let base = match (at, kind) {
                    (0, _) | (_, 0) => None,
                    (_, 1 | 2) => Some(base.index(at)),
                    _ => Some(at - 1),
                };
                let bytes = if base.is_none() { bytes * 10 } else { *bytes };
                (base, bytes, *named && at % 3 == 0)
            });
        each.collect()
    })
}

proptest! {
    /// Thinned again and again, with the old records there or not, nothing that is named is cut
    /// off, every moved record is the one that counts from then on, and it comes to an end.
    #[test]
    fn thinning_cuts_nothing_off_and_ends(versions in versions(), old_stay: bool) {
        let mut rows: Vec<Row> = Vec::new();
        for (at, (base, bytes, _)) in versions.iter().enumerate() {
            let height = base.map_or(0, |base: usize| rows[base].height + 1);
            rows.push(row(at as u32, height, *bytes, base.map(|base| base as u32)));
        }
        let named: Vec<u32> = (0..).zip(&versions).filter(|(_, v)| v.2).map(|(at, _)| at).collect();
        let number: BTreeMap<[u8; 8], u32> =
            (0..rows.len() as u32).map(|at| (id(at).0[..8].try_into().unwrap(), at)).collect();
        let limits = Limits { unused_permille: 0, repack_bytes_max: u64::MAX };
        let mut rounds = 0;
        loop {
            let packs: Vec<&[Row]> = rows.chunks(7).collect();
            let mut records = records(&packs);
            prop_assert!(choose(&mut records, &named).is_ok());
            let kept_bytes = records.copied_bytes();
            let moves = work(&mut records, &limits).unwrap().reencode;
            prop_assert!(records.copied_bytes() <= kept_bytes);
            if moves.is_empty() {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 200, "it does not end");
            let entries = records.entries();
            let moved: Vec<Row> = moves.iter().map(|moved| {
                let of = |at: usize| number[&entries[at].start()];
                let (base, height) = match moved.base {
                    None => (None, 0),
                    Some((base, height)) => (Some(of(base)), height + 1),
                };
                assert!(height < entries[moved.at].height);
                row(of(moved.at), height, 10, base)
            }).collect();
            if !old_stay {
                let is_copied = |row: &Row| entries.iter().any(|entry| {
                    let is_same = entry.start() == row.id.0[..8] && entry.height == row.height;
                    is_same && entry.is_copied()
                });
                rows.retain(is_copied);
            }
            for new in moved {
                rows.retain(|row| row.id != new.id || row.height != new.height);
                rows.push(new);
            }
        }
    }
}
