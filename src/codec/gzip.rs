//! gzip and the bare deflate of zip, in parts that are compressed apart from each other.
//!
//! A file of several gzip members is one gzip file to every reader. Output may differ between
//! versions of the library; for one version the same bytes give the same output.

use flate2::Compress;
use flate2::Compression;
use flate2::FlushCompress;
use flate2::Status;
use flate2::bufread::DeflateDecoder;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use std::io::BufRead;
use std::io::Read;
use std::io::Write;

/// How what was compressed before and after is connected with a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// More follows.
    Inner,
    /// The stream ends with it.
    Last,
}

/// Compresses into a gzip member without name and time.
pub fn member(plain: &[u8]) -> Vec<u8> {
    let out = Vec::with_capacity(plain.len() / 2 + 64);
    let mut encoder = GzEncoder::new(out, Compression::default());
    let done = encoder.write_all(plain).and_then(|()| encoder.finish());
    done.expect("invariant: a vector takes everything")
}

/// Compresses a part of a deflate stream: parts in their order make one stream.
pub fn deflate(plain: &[u8], part: Part) -> Vec<u8> {
    let mut compress = Compress::new(Compression::default(), false);
    // The bound of zlib, and room for the end of a part.
    let mut out = Vec::with_capacity(plain.len() + plain.len() / 1000 + 64);
    let flush = match part {
        Part::Inner => FlushCompress::Sync,
        Part::Last => FlushCompress::Finish,
    };
    loop {
        let taken = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let done = compress.compress_vec(&plain[taken.min(plain.len())..], &mut out, flush);
        let status = done.expect("invariant: a fresh compressor takes everything");
        let is_all_taken = compress.total_in() == plain.len() as u64;
        let is_done = match part {
            // Room that is left means that nothing is kept back.
            Part::Inner => is_all_taken && out.len() < out.capacity(),
            Part::Last => status == Status::StreamEnd,
        };
        if is_done {
            return out;
        }
        out.reserve(64 + plain.len() / 8);
    }
}

/// Returns a reader of what gzip members hold, one after the other. Anything else behind a member
/// is an error.
pub fn members(reader: impl BufRead) -> impl Read {
    MultiGzDecoder::new(reader)
}

/// Returns a reader of what a deflate stream holds; what follows the stream is not read.
pub fn inflate(reader: impl BufRead) -> impl Read {
    DeflateDecoder::new(reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(mut reader: impl Read) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        reader.read_to_end(&mut plain).map(|_| plain)
    }

    #[test]
    fn parts_and_members_make_one_stream() {
        let noise: Vec<u8> = (0..200_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        for plain in [&b""[..], b"abc", &noise, &[7; 300_000]] {
            let (first, second) = plain.split_at(plain.len() / 3);
            let parts = [deflate(first, Part::Inner), deflate(second, Part::Last)].concat();
            let both = [member(first), member(second)].concat();

            assert_eq!(read_all(inflate(&parts[..])).unwrap(), plain);
            assert_eq!(read_all(members(&both[..])).unwrap(), plain);
            assert_eq!(member(plain), member(plain));
        }
    }

    #[test]
    fn what_is_cut_or_followed_by_garbage_is_an_error() {
        let whole = member(b"some text");
        let garbage = [&whole[..], b"garbage"].concat();

        assert!(read_all(members(&whole[..whole.len() - 1])).is_err());
        assert!(read_all(members(&garbage[..])).is_err());
    }
}
