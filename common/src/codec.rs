//! Canonical binary building blocks: minimal varints, length-prefixed bytes, bounded reading.
//!
//! Every value has exactly one encoding, so that a digest of the bytes names the value.

use crate::digest::Digest;

/// Says why bytes are not canonical.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("{what} ends early at byte {at}")]
    Truncated {
        /// What was read.
        what: &'static str,
        /// The offset at which bytes were missing.
        at: usize,
    },
    /// Bytes follow the value.
    #[error("{what} has {extra} bytes after its end")]
    Trailing {
        /// What was read.
        what: &'static str,
        /// How many bytes follow.
        extra: usize,
    },
    /// The value breaks a rule.
    #[error("{what} is not valid at byte {at}: {reason}")]
    Invalid {
        /// What was read.
        what: &'static str,
        /// The offset of the offence.
        at: usize,
        /// The rule.
        reason: String,
    },
}

/// Appends an unsigned LEB128 number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads canonical values from a slice; remembers what it reads for its errors.
pub struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    /// Returns how many bytes are left: an upper bound for any count of what follows.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Returns an error at the current place.
    pub fn invalid(&self, reason: impl ToString) -> DecodeError {
        DecodeError::Invalid { what: self.what, at: self.at, reason: reason.to_string() }
    }

    /// Reads `n` bytes.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(DecodeError::Truncated { what: self.what, at: self.bytes.len() })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// Reads one byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    /// Reads a minimal varint of at most `max`.
    #[inline]
    pub fn varint(&mut self, max: u64) -> Result<u64, DecodeError> {
        // Nearly all of them are lengths of less than a byte.
        match self.bytes.get(self.at) {
            Some(byte) if *byte < 0x80 && u64::from(*byte) <= max => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            Some(_) | None => self.long_varint(max),
        }
    }

    fn long_varint(&mut self, max: u64) -> Result<u64, DecodeError> {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || (shift == 63 && bits > 1) {
                return Err(self.invalid("number over 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.invalid("number is not in its shortest form"));
                }
                break;
            }
            shift += 7;
        }
        if value > max {
            Err(self.invalid(format_args!("{value} is over the limit of {max}")))
        } else {
            Ok(value)
        }
    }

    /// Reads a length of at most `max` and that many bytes.
    #[inline]
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = self.varint(max as u64)? as usize;
        self.take(len)
    }

    /// Reads a length of at most `max` and that many bytes of UTF-8.
    pub fn text(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes(max)?;
        std::str::from_utf8(bytes).map_err(|_| self.invalid("text is not UTF-8"))
    }

    /// Reads a digest.
    pub fn digest(&mut self) -> Result<Digest, DecodeError> {
        let bytes = self.take(Digest::BYTES)?;
        Ok(Digest::from_slice(bytes).expect("took exactly 32 bytes"))
    }

    /// Reads fixed bytes.
    pub fn magic(&mut self, magic: &[u8]) -> Result<(), DecodeError> {
        if self.take(magic.len())? == magic { Ok(()) } else { Err(self.invalid("unknown format or version")) }
    }

    /// Ends reading; bytes left over are an error.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing { what: self.what, extra }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_in_one_form_only() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new("number", &out);
            assert_eq!(reader.varint(u64::MAX).unwrap(), value);
            reader.finish().unwrap();
        }
        for bad in [
            &[0x80, 0x00][..],
            &[0x80],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert!(Reader::new("number", bad).varint(u64::MAX).is_err(), "{bad:x?}");
        }
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_taken() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        assert!(Reader::new("bytes", &out).bytes(10).is_err());
        assert!(Reader::new("bytes", &[5, 1, 2]).bytes(10).is_err());
    }
}
