//! Compresses a stream in blocks of a fixed length on all cores, and writes them in order.
//!
//! Every block is compressed apart from the others: a gzip member, a zstd frame, or a part of one
//! deflate stream. So the same bytes give the same output, however many cores there are. The cost
//! is that no block refers to the one before. Memory is bounded by the blocks under way, three for
//! each core.

use crate::codec::gzip;
use crate::codec::gzip::Part;
use crate::codec::zstd;
use crate::error::Error;
use crate::error::Result;
use crate::ops::thread_count;
use std::io;
use std::io::Write;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::thread::Scope;

/// Changing it changes the bytes of every archive.
const BLOCK_BYTES: usize = 1 << 20;
const ZSTD_LEVEL: i32 = 3;

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Packing {
    /// Not at all.
    Stored,
    /// Gzip members.
    Gzip,
    /// Zstandard frames.
    Zstd,
    /// One bare deflate stream.
    Deflate,
}

/// Hands `produce` something to write to; what it writes arrives at `out` compressed. `name` is
/// that of the output, for errors.
pub(in crate::ops) fn compress<T>(
    packing: Packing,
    name: &str,
    out: &mut (dyn Write + Send),
    produce: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<T> {
    if packing == Packing::Stored {
        return produce(out);
    }
    thread::scope(|scope| {
        let mut blocks = Blocks {
            packing,
            scope,
            plain: Vec::new(),
            lines: Lines::Idle(out),
        };
        let produced = produce(&mut blocks);
        // An error of the output makes the producer fail, and says more than what that says.
        let finished = blocks.finish(produced.is_ok());
        finished.map_err(Error::io("write", name))?;
        produced
    })
}

fn pack(encoder: &mut zstd::Encoder, packing: Packing, plain: &[u8], part: Part) -> Vec<u8> {
    match packing {
        Packing::Stored => plain.to_vec(),
        Packing::Gzip => gzip::member(plain),
        Packing::Zstd => encoder.whole(plain).to_vec(),
        Packing::Deflate => gzip::deflate(plain, part),
    }
}

/// A block on its way to being compressed.
struct Block {
    plain: Vec<u8>,
    part: Part,
    packed: SyncSender<Vec<u8>>,
}

/// Threads are started when there is a second block: most members of a zip have only one.
enum Lines<'s, 'o> {
    Idle(&'o mut (dyn Write + Send)),
    Running {
        work: SyncSender<Block>,
        /// Blocks in their order, each with where its packed bytes will come from.
        order: SyncSender<Receiver<Vec<u8>>>,
        writer: thread::ScopedJoinHandle<'s, io::Result<()>>,
    },
    Stopped,
}

struct Blocks<'s, 'e, 'o> {
    packing: Packing,
    scope: &'s Scope<'s, 'e>,
    /// The block that is being filled. It is handed on when more comes, so the last one is known.
    plain: Vec<u8>,
    lines: Lines<'s, 'o>,
}

impl<'s, 'o: 's> Blocks<'s, '_, 'o> {
    fn start(&mut self) -> Result<(), io::Error> {
        let Lines::Idle(_) = &self.lines else {
            return Ok(());
        };
        let Lines::Idle(out) = std::mem::replace(&mut self.lines, Lines::Stopped) else {
            return Err(stopped());
        };
        let threads = thread_count();
        let (work, to_pack) = mpsc::sync_channel::<Block>(threads);
        let (order, to_write) = mpsc::sync_channel::<Receiver<Vec<u8>>>(2 * threads);
        let to_pack = std::sync::Arc::new(Mutex::new(to_pack));
        for _ in 0..threads {
            let (packing, to_pack) = (self.packing, std::sync::Arc::clone(&to_pack));
            self.scope.spawn(move || work_on(packing, &to_pack));
        }
        let writer = self.scope.spawn(move || write_in_order(&to_write, out));
        self.lines = Lines::Running {
            work,
            order,
            writer,
        };
        Ok(())
    }

    fn hand_on(&mut self, part: Part) -> io::Result<()> {
        self.start()?;
        let plain = std::mem::replace(&mut self.plain, Vec::with_capacity(BLOCK_BYTES));
        let Lines::Running { work, order, .. } = &self.lines else {
            return Err(stopped());
        };
        let (packed, to_write) = mpsc::sync_channel(1);
        let block = Block {
            plain,
            part,
            packed,
        };
        order.send(to_write).map_err(|_| stopped())?;
        work.send(block).map_err(|_| stopped())
    }

    /// Writes the last block, if everything before it was produced, and waits for all of them.
    fn finish(mut self, is_complete: bool) -> io::Result<()> {
        if is_complete && let Lines::Idle(out) = &mut self.lines {
            let mut encoder = zstd::Encoder::new(ZSTD_LEVEL);
            return out.write_all(&pack(&mut encoder, self.packing, &self.plain, Part::Last));
        }
        let handed = match is_complete {
            true => self.hand_on(Part::Last),
            false => Ok(()),
        };
        match std::mem::replace(&mut self.lines, Lines::Stopped) {
            Lines::Running {
                work,
                order,
                writer,
            } => {
                drop((work, order));
                let written = writer.join();
                written.unwrap_or_else(|_| Err(stopped())).and(handed)
            }
            Lines::Idle(_) | Lines::Stopped => handed,
        }
    }
}

impl<'s, 'o: 's> Write for Blocks<'s, '_, 'o> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.plain.len() == BLOCK_BYTES && !bytes.is_empty() {
            self.hand_on(Part::Inner)?;
        }
        let taken = bytes.len().min(BLOCK_BYTES - self.plain.len());
        self.plain.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn work_on(packing: Packing, to_pack: &Mutex<Receiver<Block>>) {
    let mut encoder = zstd::Encoder::new(ZSTD_LEVEL);
    let next = || {
        let queue = to_pack.lock().unwrap_or_else(PoisonError::into_inner);
        queue.recv()
    };
    while let Ok(block) = next() {
        let packed = pack(&mut encoder, packing, &block.plain, block.part);
        // Whoever waited for it is gone when the output failed.
        let _ = block.packed.send(packed);
    }
}

fn write_in_order(
    to_write: &Receiver<Receiver<Vec<u8>>>,
    out: &mut (dyn Write + Send),
) -> io::Result<()> {
    while let Ok(block) = to_write.recv() {
        match block.recv() {
            Ok(packed) => out.write_all(&packed)?,
            // The block was never handed out: the producer failed in between.
            Err(_) => return Err(stopped()),
        }
    }
    Ok(())
}

fn stopped() -> io::Error {
    io::Error::other("compression stopped")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn packed(packing: Packing, plain: &[u8], step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let done = compress(packing, "out", &mut out, |sink| {
            for part in plain.chunks(step) {
                sink.write_all(part).map_err(Error::io("write", "out"))?;
            }
            Ok(())
        });
        done.unwrap();
        out
    }

    fn sample(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 29) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn every_packing_is_read_back_whatever_the_writes_were() {
        for len in [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES] {
            let plain = sample(len);
            for packing in [Packing::Gzip, Packing::Zstd, Packing::Deflate] {
                let out = packed(packing, &plain, 77_777);
                assert_eq!(out, packed(packing, &plain, BLOCK_BYTES * 2));

                let mut again = Vec::new();
                let read = match packing {
                    Packing::Gzip => gzip::members(&out[..]).read_to_end(&mut again),
                    Packing::Zstd => zstd::FrameReader::new(&out[..]).read_to_end(&mut again),
                    _ => gzip::inflate(&out[..]).read_to_end(&mut again),
                };
                read.unwrap();
                assert!(again == plain, "{packing:?} {len}");
            }
        }
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
    fn an_output_that_fails_is_what_is_reported() {
        let plain = sample(20 * BLOCK_BYTES);
        for room in [0, 1 << 20] {
            let mut out = Full(room);
            let done = compress(Packing::Gzip, "out", &mut out, |sink| {
                sink.write_all(&plain).map_err(Error::io("write", "sink"))
            });
            assert!(done.unwrap_err().is_no_space(), "{room}");
        }
    }

    #[test]
    fn a_producer_that_fails_is_what_is_reported() {
        for len in [10, 3 * BLOCK_BYTES] {
            let mut out = Vec::new();
            let done = compress(Packing::Zstd, "out", &mut out, |sink| {
                sink.write_all(&sample(len))
                    .map_err(Error::io("write", "sink"))?;
                Err::<(), _>(Error::Cancelled)
            });
            assert!(matches!(done, Err(Error::Cancelled)));
        }
    }
}
