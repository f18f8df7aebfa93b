//! Hostile bytes: every decoder ends, in bounded memory, without a panic.
//!
//! The bodies are those of the fuzz targets. A fuzzer goes on for hours; this goes on for seconds,
//! over noise and over the examples of `docs/format.md` with some bytes changed.

use crate::format_doc;
use crate::heap::peak_bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use statekeep::format::pack;
use statekeep::format::pack::ChunkKind;
use statekeep::format::pack::Codec;
use statekeep::format::pack::Encoding;
use statekeep::format::pack::Row;
use statekeep::id::ChunkId;
use std::time::Duration;
use std::time::Instant;

#[path = "../fuzz/bodies.rs"]
mod bodies;

const INPUT_BYTES_MAX: usize = 64 << 10;
const MEMORY_BYTES_MAX: usize = 256 << 20;
/// Far more than it takes, so that a busy machine does not fail the test.
const PATIENCE: Duration = Duration::from_secs(60);

fn run(name: &str, body: bodies::Body, bytes: &[u8]) {
    let began = Instant::now();
    let peak = peak_bytes(|| body(bytes));
    assert!(peak < MEMORY_BYTES_MAX, "{name} took {peak} bytes");
    assert!(began.elapsed() < PATIENCE, "{name} did not end");
}

fn seeds_of(target: &str) -> Vec<Vec<u8>> {
    let seeds = format_doc::seeds().into_iter();
    seeds
        .filter(|(of, _)| *of == target)
        .map(|(_, bytes)| bytes)
        .collect()
}

#[test]
fn every_target_has_a_file_and_a_row_in_the_manifest() {
    let fuzz = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let files = std::fs::read_dir(fuzz.join("fuzz_targets"))
        .unwrap()
        .count();

    assert_eq!(files, bodies::ALL.len());
    for (name, _) in bodies::ALL {
        let path = format!("fuzz_targets/{name}.rs");
        assert!(manifest.contains(&path), "{path}");
        let text = std::fs::read_to_string(fuzz.join(path)).unwrap();
        assert!(text.contains(&format!("bodies::{name}(")), "{name}");
    }
}

#[test]
fn every_example_passes_through_every_decoder() {
    for (_, bytes) in format_doc::seeds() {
        for (name, body) in bodies::ALL {
            run(name, body, &bytes);
        }
    }
}

#[test]
fn long_runs_of_one_byte_end_in_bounded_memory() {
    for value in [0, 1, 2, 3, 0x7f, 0x80, 0xff] {
        for head in [
            &[][..],
            &[1, 0],
            &[1, 1],
            &[1, 0, 0],
            &[1, 1, 0],
            &[1, 1, 1],
        ] {
            let mut bytes = vec![value; INPUT_BYTES_MAX];
            bytes[..head.len()].copy_from_slice(head);
            for (name, body) in bodies::ALL {
                run(name, body, &bytes);
            }
        }
    }
}

/// The frame of a table is short whatever it says, so the length of the input bounds nothing.
#[test]
fn the_worst_tables_stay_in_bounded_memory() {
    // Ids and names of bases stand as they are, so a short input has few rows.
    let bare = vec![row(1, 0, vec![]); INPUT_BYTES_MAX / 40];
    let leaning = vec![row(1, 1, vec![[2; 8]; 16]); INPUT_BYTES_MAX / 170];
    for rows in [bare, leaning] {
        let table = pack::encode_table(&rows);
        assert!(table.len() < INPUT_BYTES_MAX);
        let mut is_read = false;

        let peak = peak_bytes(|| is_read = pack::decode_table(&table).is_ok());

        assert!(is_read);
        assert!(peak < MEMORY_BYTES_MAX, "{peak}");
    }
}

fn row(number: u8, height: u8, bases: Vec<[u8; 8]>) -> Row {
    let codec = if bases.is_empty() {
        Codec::Raw
    } else {
        Codec::Delta
    };
    Row {
        id: ChunkId([number; 32]),
        encoding: Encoding {
            codec,
            kind: ChunkKind::Data,
            run_head: false,
        },
        height,
        plain_bytes: 10,
        stored_bytes: 10,
        bases,
    }
}

#[test]
fn a_chain_of_the_greatest_height_ends() {
    let rows: Vec<Row> = (0..=u8::MAX)
        .map(|n| row(n, n, if n == 0 { vec![] } else { vec![[n - 1; 8]] }))
        .collect();

    let began = Instant::now();
    let read = bodies::read_all(&rows, &[0x55; 2560]);

    assert!(read.is_empty() && began.elapsed() < PATIENCE);
}

#[test]
fn a_tower_of_bases_is_given_up() {
    let rows: Vec<Row> = (0..40_u8)
        .map(|n| row(n, n, if n == 0 { vec![] } else { vec![[n - 1; 8]; 2] }))
        .collect();

    assert!(bodies::read_all(&rows, &[0x55; 400]).is_empty());
}

#[test]
fn many_candidates_for_many_bases_are_given_up() {
    let mut rows: Vec<Row> = (0..16).map(|_| row(1, 0, vec![])).collect();
    rows.push(row(2, 1, vec![[1; 8]; 16]));

    assert!(bodies::read_all(&rows, &[0x55; 170]).is_empty());
}

#[test]
fn a_chunk_is_not_taken_for_one_of_another_kind() {
    let plain = [7; 10];
    let id = bodies::chunk_id(ChunkKind::Data, &plain);
    let rows = [Row {
        id,
        ..row(0, 0, vec![])
    }];

    let read = bodies::read_all(&rows, &plain);

    assert_eq!(read, [(ChunkKind::Data, id, plain.to_vec())]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn noise_is_read_or_refused(bytes in vec(any::<u8>(), 0..512)) {
        for (name, body) in bodies::ALL {
            run(name, body, &bytes);
        }
    }

    #[test]
    fn small_numbers_are_read_or_refused(bytes in vec(0..5_u8, 0..300)) {
        for (name, body) in bodies::ALL {
            run(name, body, &bytes);
        }
    }

    #[test]
    fn changed_examples_are_read_or_refused(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        how in 0..4,
    ) {
        for (name, body) in bodies::ALL {
            for mut bytes in seeds_of(name) {
                for (at, value) in &changes {
                    let at = at.index(bytes.len());
                    match how {
                        0 => bytes[at] = *value,
                        1 => bytes[at] ^= 1 << (value % 8),
                        2 => bytes.insert(at, *value),
                        _ => bytes[at] = bytes[at].wrapping_add(value % 3).wrapping_sub(1),
                    }
                }
                run(name, body, &bytes);
                bytes.truncate(cut.index(bytes.len()));
                run(name, body, &bytes);
            }
        }
    }
}
