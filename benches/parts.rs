//! What the parts of the data path can do, one core, on data made here.
//!
//! `cargo bench --bench parts` prints MB/s of plain bytes, the best of several rounds. These are
//! for finding where time goes; comparisons with other tools are made with whole commands.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use statekeep::chunker::Cutter;
use statekeep::chunker::MAX_BYTES;
use statekeep::codec::cipher::Suite;
use statekeep::codec::zstd::Decoder;
use statekeep::codec::zstd::Encoder;
use statekeep::format::container;
use statekeep::format::container::DataKeys;
use statekeep::format::container::ObjectKind;
use std::hint::black_box;
use std::time::Instant;

const CHUNK_BYTES: usize = 256 * 1024;
const ROUNDS: usize = 7;

/// Rows of text with numbers in them, as databases and configurations hold.
fn rows(len: usize) -> Vec<u8> {
    let mut seed = 88_172_645_463_325_252_u64;
    let mut text = Vec::with_capacity(len + 128);
    while text.len() < len {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let (agent, tokens, note) = (seed % 500, seed >> 40, seed >> 16);
        let row =
            format!("{{\"agent\":\"agent-{agent}\",\"tokens\":{tokens},\"note\":\"w{note:x}\"}}\n");
        text.extend_from_slice(row.as_bytes());
    }
    text.truncate(len);
    text
}

fn measure(name: &str, bytes: usize, mut work: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        work();
        best = best.min(started.elapsed().as_secs_f64());
    }
    println!("{name:40} {:8.0} MB/s", bytes as f64 / 1e6 / best);
}

fn main() {
    let data = rows(32 << 20);
    let chunk = &data[..CHUNK_BYTES];
    let mut changed = chunk.to_vec();
    (0..CHUNK_BYTES)
        .step_by(9_973)
        .for_each(|at| changed[at] ^= 0x55);

    let cutter = Cutter::new(&[1; 32]);
    measure("cut by content", data.len() - MAX_BYTES, || {
        let mut at = 0;
        while at + MAX_BYTES < data.len() {
            at += cutter.cut(&data[at..]);
        }
        black_box(at);
    });
    measure("hash", data.len(), || {
        for chunk in data.chunks(CHUNK_BYTES) {
            black_box(blake3::keyed_hash(&[1; 32], chunk));
        }
    });
    let (mut encoder, mut decoder) = (Encoder::new(3), Decoder::new());
    let whole = encoder.whole(chunk).to_vec();
    let delta = encoder.delta(&changed, chunk).to_vec();
    println!(
        "whole {} bytes, delta {} bytes of {CHUNK_BYTES}",
        whole.len(),
        delta.len()
    );
    measure("compress", CHUNK_BYTES, || {
        black_box(encoder.whole(chunk).len());
    });
    measure("delta", CHUNK_BYTES, || {
        black_box(encoder.delta(&changed, chunk).len());
    });
    let mut out = Vec::new();
    measure("decompress", CHUNK_BYTES, || {
        black_box(decoder.decode(&whole, &[], CHUNK_BYTES, &mut out).is_ok());
    });
    measure("decode a delta", CHUNK_BYTES, || {
        black_box(decoder.decode(&delta, chunk, CHUNK_BYTES, &mut out).is_ok());
    });
    for suite in [Suite::Plain, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let keys = DataKeys::new(suite, vec![(1, [1; 32])]).expect("invariant: there is a key");
        measure(&format!("seal with {suite:?}"), data.len(), || {
            black_box(container::seal(&keys, ObjectKind::Pack, [2; 24], &data));
        });
    }
}
