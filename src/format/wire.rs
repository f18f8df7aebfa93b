//! The small change of the format: varints, length-prefixed bytes, numbered fields.
//!
//! Numbered fields let a format grow: a reader skips an even number it does not know and refuses an
//! odd one. `docs/format.md`, section "Notation".

use crate::error::Error;

/// Bytes that are not what the format says. The caller knows the object and names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes contradict the format.
    Bytes(&'static str),
    /// An odd field or a version that this program does not know.
    Unknown(&'static str, u64),
}

impl Malformed {
    /// Returns the error for the object these bytes came from.
    pub fn of(self, object: impl Into<String>) -> Error {
        match self {
            Malformed::Bytes(reason) => Error::corrupt(object, reason),
            Malformed::Unknown(what, number) => Error::TooNew {
                object: object.into(),
                reason: format!("unknown {what} {number}"),
            },
        }
    }
}

/// What decoders return.
pub type Decoded<T> = Result<T, Malformed>;

/// Returns zero for even, and folds the sign into the lowest bit.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Reverses `zigzag`.
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Appends an unsigned LEB128 number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a numbered field.
pub fn put_field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number);
    put_bytes(out, bytes);
}

/// Appends a numbered field that holds one varint, unless it is zero: zero is what absence means.
pub fn put_number_field(out: &mut Vec<u8>, number: u64, value: u64) {
    if value != 0 {
        let mut bytes = Vec::with_capacity(10);
        put_varint(&mut bytes, value);
        put_field(out, number, &bytes);
    }
}

/// Takes bytes apart from the front. Never reads past the end, never trusts a length.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// Returns true at the end.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns what was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes so many bytes.
    pub fn take(&mut self, len: usize) -> Decoded<&'a [u8]> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Malformed::Bytes("cut short"))?;
        self.rest = rest;
        Ok(head)
    }

    /// Takes an array.
    pub fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("invariant: took N bytes"))
    }

    /// Takes one byte.
    pub fn byte(&mut self) -> Decoded<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Takes four bytes, little-endian.
    pub fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Takes eight bytes, little-endian.
    pub fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Takes a varint. The longest form that fits 64 bits is accepted, a padded one is not.
    pub fn varint(&mut self) -> Decoded<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                return Err(Malformed::Bytes("a number is not in its shortest form"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Bytes("a number is too long"))
    }

    /// Takes a varint that must fit 32 bits.
    pub fn varint_u32(&mut self) -> Decoded<u32> {
        u32::try_from(self.varint()?).map_err(|_| Malformed::Bytes("a number is too large"))
    }

    /// Takes a count of things that each take at least `least_bytes` of what is left, so that a
    /// hostile count cannot make the caller reserve more than the input justifies.
    pub fn count(&mut self, least_bytes: usize) -> Decoded<usize> {
        let count = self.varint()?;
        let most = (self.rest.len() / least_bytes.max(1)) as u64;
        if count > most {
            return Err(Malformed::Bytes("a count exceeds the object"));
        }
        usize::try_from(count).map_err(|_| Malformed::Bytes("a number is too large"))
    }

    /// Takes a length and that many bytes.
    pub fn bytes(&mut self) -> Decoded<&'a [u8]> {
        let len = self.count(1)?;
        self.take(len)
    }

    /// Takes the next numbered field, `None` at the end.
    pub fn field(&mut self) -> Decoded<Option<(u64, &'a [u8])>> {
        if self.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.varint()?, self.bytes()?)))
    }

    /// Fails unless everything was read.
    pub fn finish(self) -> Decoded<()> {
        match self.rest {
            [] => Ok(()),
            _ => Err(Malformed::Bytes("bytes are left over")),
        }
    }
}

/// Reads a field that holds exactly one varint.
pub fn number(field: &[u8]) -> Decoded<u64> {
    let mut reader = Reader::new(field);
    let value = reader.varint()?;
    reader.finish()?;
    Ok(value)
}

/// Reads a field that holds exactly one array.
pub fn array<const N: usize>(field: &[u8]) -> Decoded<[u8; N]> {
    field
        .try_into()
        .map_err(|_| Malformed::Bytes("a field has the wrong length"))
}

/// Reads a field that holds UTF-8 text.
pub fn text(field: &[u8]) -> Decoded<String> {
    String::from_utf8(field.to_vec()).map_err(|_| Malformed::Bytes("a text is not UTF-8"))
}

/// Decides about a field nobody asked for: even ones are skipped, odd ones refused.
pub fn unknown_field(number: u64) -> Decoded<()> {
    match number.is_multiple_of(2) {
        true => Ok(()),
        false => Err(Malformed::Unknown("field", number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(value: u64, signed: i64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(&out);

            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert!(reader.is_empty());
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while let Ok(Some((_, field))) = reader.field() {
                prop_assert!(field.len() <= bytes.len());
            }
            let _ = Reader::new(&bytes).count(3).map(|count| assert!(count * 3 <= bytes.len()));
        }
    }

    #[test]
    fn a_padded_number_is_refused() {
        assert!(Reader::new(&[0x80, 0x00]).varint().is_err());
        assert!(Reader::new(&[0xff; 10]).varint().is_err());
        assert_eq!(Reader::new(&[0x80, 0x01]).varint(), Ok(128));
    }

    #[test]
    fn odd_unknown_fields_are_refused_and_even_ones_skipped() {
        assert_eq!(unknown_field(8), Ok(()));
        assert_eq!(unknown_field(9), Err(Malformed::Unknown("field", 9)));
    }
}
