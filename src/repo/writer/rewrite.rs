//! Storing again what is stored already: copies of records, and chunks against other bases.

use crate::error::Error;
use crate::error::Result;
use crate::format::pack::ChunkKind;
use crate::format::pack::Codec;
use crate::format::pack::Encoding;
use crate::format::pack::Row;
use crate::id::ChunkId;
use crate::repo::chunks;
use crate::repo::index::Record;
use crate::repo::writer::Base;
use crate::repo::writer::Saving;
use crate::repo::writer::Writer;
use crate::repo::writer::WriterScratch;
use crate::repo::writer::encode;

/// What a record that is stored once more is to lean on.
pub struct PlannedBase {
    /// A record of the base as it is now.
    pub record: Record,
    /// The height the base will have at most. Whoever says so sees to it that it has.
    pub height: u8,
}

impl Writer<'_, '_> {
    /// Copies a record as it is: same height, same bases, same bytes. Whoever drops the original
    /// keeps a record of lower height of every base.
    pub fn copy(&self, row: Row, stored: &[u8]) -> Result<()> {
        match stored.len() == row.stored_bytes as usize {
            true => self.append(row, stored),
            false => Err(Error::corrupt(
                format!("chunk {}", row.id),
                "its record is not as long as its table says",
            )),
        }
    }

    /// Stores a chunk once more, against this base if that pays and whole otherwise. It comes to
    /// stand lower than the record it replaces, so that nothing that leans on it is cut off (I13).
    pub fn store_against(
        &self,
        scratch: &mut WriterScratch,
        kind: ChunkKind,
        record: &Record,
        base: Option<&PlannedBase>,
    ) -> Result<()> {
        let plain = self.chunks.read_record(&mut scratch.read, kind, record)?;
        let run_head = chunks::encoding(record)?.run_head;
        let base = match base {
            None => None,
            Some(base) if u16::from(base.height) + 1 >= u16::from(record.height) => {
                return Err(not_below(&record.id));
            }
            Some(base) => Some(Base {
                record: Record {
                    height: base.height,
                    ..base.record
                },
                plain: self
                    .chunks
                    .read_record(&mut scratch.read, kind, &base.record)?,
                run_head,
            }),
        };
        let mut row = Row {
            id: record.id,
            encoding: Encoding {
                codec: Codec::Raw,
                kind,
                run_head: true,
            },
            height: 0,
            plain_bytes: plain.len() as u32,
            stored_bytes: 0,
            bases: Vec::new(),
        };
        encode(scratch, &plain, base.as_ref(), Saving::Little, &mut row);
        self.verify(scratch, &plain, base.as_ref(), &row)?;
        let encoded = std::mem::take(&mut scratch.encoded);
        let appended = match row.encoding.codec {
            Codec::Raw => self.append(row, &plain),
            Codec::Zstd | Codec::Delta => self.append(row, &encoded),
        };
        scratch.encoded = encoded;
        scratch.read.recycle(plain);
        if let Some(base) = base {
            scratch.read.recycle(base.plain);
        }
        scratch.read.touched.clear();
        appended
    }
}

fn not_below(id: &ChunkId) -> Error {
    Error::corrupt(format!("chunk {id}"), "its new base is not below it")
}
