//! The bytes of a file as they are searched for references: a part at a time.

use std::io;
use std::ops::Range;

use super::super::base::Base;

/// Bytes read at once.
const WINDOW_BYTES: usize = 256 * 1024;

/// The bytes of a file that were read last.
pub(super) struct Window<'a> {
    image: Base<'a>,
    /// Where the file lies in the image.
    place: Range<usize>,
    /// Where the bytes at hand begin.
    begin: usize,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(super) fn new(image: Base<'a>, place: Range<usize>) -> Self {
        Self { image, begin: place.start, place, bytes: Vec::new() }
    }

    /// Returns the bytes from `at` on: `wanted` at least, but for the end of the file.
    pub(super) fn from(&mut self, at: usize, wanted: usize) -> io::Result<&[u8]> {
        if at < self.place.start || at > self.place.end {
            return Ok(&[]);
        }
        let end = (at + wanted).min(self.place.end);
        if at < self.begin || end > self.begin + self.bytes.len() {
            self.begin = at;
            self.bytes.resize(WINDOW_BYTES.min(self.place.end - at), 0);
            self.image.source.read_at(at, &mut self.bytes)?;
        }
        Ok(&self.bytes[at - self.begin..])
    }

    /// Returns the eight bytes at a place as a number.
    pub(super) fn word(&mut self, at: usize) -> io::Result<Option<u64>> {
        Ok(self.from(at, 8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)))
    }

    /// Returns the four bytes at a place as a number.
    pub(super) fn half(&mut self, at: usize) -> io::Result<Option<i32>> {
        Ok(self.from(at, 4)?.first_chunk().map(|bytes| i32::from_le_bytes(*bytes)))
    }
}
