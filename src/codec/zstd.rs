//! Zstandard with and without a prefix, in contexts that are kept and reused.
//!
//! Parameters are set one by one, never by level alone: the default hash table of a fast level does
//! not cover a prefix, and a delta then costs eighty times as much (`docs/decisions/`). Output may
//! differ between versions of the library; only what it decodes to is format.
#![allow(unsafe_code, reason = "zstd ties a prefix to the life of the context")]

use std::io;
use std::io::BufRead;
use std::io::ErrorKind;
use std::io::Read;
use zstd_safe::CCtx;
use zstd_safe::CParameter;
use zstd_safe::DCtx;
use zstd_safe::DParameter;
use zstd_safe::InBuffer;
use zstd_safe::OutBuffer;

/// The largest window a frame may ask for when it is decoded: prefix and plain bytes at most.
const WINDOW_LOG_MAX: u32 = 27;

/// Where what is not set below comes from: two hash tables, for long and for short matches. Level 1
/// has only one, and stores a tenth more of a time series (`docs/decisions/0017-delta-policy.md`).
const DELTA_LEVEL: i32 = 3;
/// For what is written once and kept for months. Level 11 saves as much again, at a third of the
/// speed (`docs/decisions/0053-thinning-by-trees.md`).
const THOROUGH_LEVEL: i32 = 9;

/// The bytes are not a frame that decodes to the length expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it does not decompress")]
pub struct Undecodable;

/// Compresses. One per thread.
pub struct Encoder {
    whole: CCtx<'static>,
    delta: CCtx<'static>,
    out: Vec<u8>,
}

impl Encoder {
    /// Returns an encoder that takes five times as long to store a tenth less.
    pub fn thorough() -> Encoder {
        Encoder::new(THOROUGH_LEVEL)
    }

    /// Returns an encoder. Chunks without bases get this level; deltas get it too once it is higher
    /// than theirs.
    pub fn new(level: i32) -> Encoder {
        let mut whole = CCtx::create();
        set(&mut whole, CParameter::CompressionLevel(level));
        set(&mut whole, CParameter::ContentSizeFlag(false));
        let mut delta = CCtx::create();
        set(
            &mut delta,
            CParameter::CompressionLevel(level.max(DELTA_LEVEL)),
        );
        set(&mut delta, CParameter::ContentSizeFlag(false));
        Encoder {
            whole,
            delta,
            out: Vec::new(),
        }
    }

    /// Compresses on its own.
    pub fn whole(&mut self, plain: &[u8]) -> &[u8] {
        self.out.clear();
        self.out.reserve(zstd_safe::compress_bound(plain.len()));
        self.whole
            .compress2(&mut self.out, plain)
            .expect("invariant: the buffer has the bound");
        &self.out
    }

    /// Compresses with `prefix` as what came before.
    pub fn delta(&mut self, plain: &[u8], prefix: &[u8]) -> &[u8] {
        let both_log = (plain.len() + prefix.len())
            .max(1024)
            .next_power_of_two()
            .ilog2();
        set(&mut self.delta, CParameter::WindowLog(both_log));
        set(
            &mut self.delta,
            CParameter::HashLog(both_log.saturating_sub(2).clamp(12, 22)),
        );
        self.out.clear();
        self.out.reserve(zstd_safe::compress_bound(plain.len()));
        // Safety: zstd refers to a prefix for one frame only, and that frame ends in the statement
        // after the next, while `prefix` is still borrowed.
        let prefix: &'static [u8] = unsafe { std::mem::transmute(prefix) };
        self.delta
            .ref_prefix(prefix)
            .expect("invariant: no frame is under way");
        self.delta
            .compress2(&mut self.out, plain)
            .expect("invariant: the buffer has the bound");
        &self.out
    }
}

fn set(context: &mut CCtx<'static>, parameter: CParameter) {
    context
        .set_parameter(parameter)
        .expect("invariant: the parameter is in range");
}

/// Decompresses. One per thread.
pub struct Decoder {
    context: DCtx<'static>,
}

impl Decoder {
    /// Returns a decoder.
    pub fn new() -> Decoder {
        let mut context = DCtx::create();
        let window = DParameter::WindowLogMax(WINDOW_LOG_MAX);
        context
            .set_parameter(window)
            .expect("invariant: the parameter is in range");
        Decoder { context }
    }

    /// Replaces `out` by the plain bytes, which must be exactly `plain_bytes` long. Never writes
    /// more than that, whatever the frame says.
    pub fn decode(
        &mut self,
        encoded: &[u8],
        prefix: &[u8],
        plain_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Undecodable> {
        out.clear();
        // The library would go on with frames behind the first, other readers would not.
        if zstd_safe::find_frame_compressed_size(encoded) != Ok(encoded.len()) {
            return Err(Undecodable);
        }
        out.try_reserve_exact(plain_bytes)
            .map_err(|_| Undecodable)?;
        // Safety: as in `Encoder::delta`; the frame ends, one way or the other, in the next
        // statement, and a failed one is forgotten by the reset.
        let prefix: &'static [u8] = unsafe { std::mem::transmute(prefix) };
        self.context.ref_prefix(prefix).map_err(|_| Undecodable)?;
        let done = self.context.decompress(out, encoded);
        if done.is_err() {
            let session = zstd_safe::ResetDirective::SessionOnly;
            self.context.reset(session).map_err(|_| Undecodable)?;
        }
        match done {
            Ok(len) if len == plain_bytes && out.len() == plain_bytes => Ok(()),
            _ => Err(Undecodable),
        }
    }
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

/// Reads what frames hold, one after the other. Anything else behind a frame is an error.
pub struct FrameReader<R> {
    reader: R,
    context: DCtx<'static>,
    /// Whether the bytes so far end in the middle of a frame.
    is_inside: bool,
}

impl<R: BufRead> FrameReader<R> {
    /// Returns a reader of the frames that `reader` yields.
    pub fn new(reader: R) -> FrameReader<R> {
        FrameReader {
            reader,
            context: Decoder::new().context,
            is_inside: false,
        }
    }
}

impl<R: BufRead> Read for FrameReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let encoded = self.reader.fill_buf()?;
            let is_end = encoded.is_empty();
            let mut input = InBuffer::around(encoded);
            let mut output = OutBuffer::around(&mut *buffer);
            if is_end && !self.is_inside {
                return Ok(0);
            }
            let step = self.context.decompress_stream(&mut output, &mut input);
            let hint = step.map_err(|_| io::Error::new(ErrorKind::InvalidData, Undecodable))?;
            let (taken, given) = (input.pos(), output.pos());
            self.reader.consume(taken);
            self.is_inside = hint != 0;
            match (given, is_end) {
                (0, true) => return Err(ErrorKind::UnexpectedEof.into()),
                (0, false) => {}
                (given, _) => return Ok(given),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, mut seed: u64) -> Vec<u8> {
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn a_delta_of_scattered_changes_is_small_and_decodes() {
        let (mut encoder, mut decoder) = (Encoder::new(3), Decoder::new());
        let base = noise(256 * 1024, 1);
        let mut plain = base.clone();
        (0..20).for_each(|i| plain[i * 13_000] ^= 0xff);

        let encoded = encoder.delta(&plain, &base).to_vec();

        assert!(encoded.len() < 600, "{}", encoded.len());
        let mut out = Vec::new();
        decoder
            .decode(&encoded, &base, plain.len(), &mut out)
            .unwrap();
        assert_eq!(out, plain);
        assert_eq!(
            decoder.decode(&encoded, &[], plain.len(), &mut out),
            Err(Undecodable)
        );
        decoder
            .decode(&encoded, &base, plain.len(), &mut out)
            .unwrap();
        assert_eq!(out, plain);
    }

    #[test]
    fn a_bomb_is_refused_without_the_memory_it_asks_for() {
        let bomb = Encoder::new(3).whole(&vec![0; 8 << 20]).to_vec();
        let mut out = Vec::new();

        assert_eq!(
            Decoder::new().decode(&bomb, &[], 1000, &mut out),
            Err(Undecodable)
        );
        assert!(out.capacity() < 4096);
    }

    #[test]
    fn exactly_one_frame_is_accepted() {
        let frame = Encoder::new(3).whole(b"once").to_vec();
        let twice = [&frame[..], &frame].concat();
        let mut out = Vec::new();
        let mut decoded = |bytes: &[u8], len| Decoder::new().decode(bytes, &[], len, &mut out);

        assert_eq!(decoded(&frame, 4), Ok(()));
        assert_eq!(decoded(&twice, 8), Err(Undecodable));
        assert_eq!(decoded(&[&frame[..], &[0]].concat(), 4), Err(Undecodable));
        assert_eq!(decoded(&[], 0), Err(Undecodable));
    }

    #[test]
    fn empty_and_tiny_inputs_round_trip() {
        let (mut encoder, mut decoder) = (Encoder::new(3), Decoder::new());
        for plain in [&b""[..], b"a", b"ab"] {
            for prefix in [&b""[..], b"x", b"ab"] {
                let encoded = encoder.delta(plain, prefix).to_vec();
                let mut out = Vec::new();
                decoder
                    .decode(&encoded, prefix, plain.len(), &mut out)
                    .unwrap();
                assert_eq!(out, plain);
            }
        }
    }

    #[test]
    fn frames_are_read_one_after_the_other_and_nothing_else_is() {
        let mut encoder = Encoder::new(3);
        let (first, second) = (noise(300_000, 7), vec![1; 500_000]);
        let frames = [
            encoder.whole(&first).to_vec(),
            encoder.whole(&second).to_vec(),
        ]
        .concat();
        let read = |frames: &[u8]| {
            let mut plain = Vec::new();
            let buffered = io::BufReader::with_capacity(1000, frames);
            let read = FrameReader::new(buffered).read_to_end(&mut plain);
            read.map(|_| plain)
        };

        assert_eq!(read(&frames).unwrap(), [first, second].concat());
        assert_eq!(read(&[]).unwrap(), b"");
        assert!(read(&frames[..frames.len() - 1]).is_err());
        assert!(read(&[&frames[..], b"garbage"].concat()).is_err());
    }
}
