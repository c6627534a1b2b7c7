//! The base as a decoder reads it: by place, a page at a time, so that its size does not count in memory.

use std::io;
use std::ops::Range;

use super::files::File;

/// Bytes of one page: what a seek on disk or an opened file is worth.
const PAGE_BYTES: usize = 64 * 1024;
/// Pages kept: blocks of one function come from few places.
const PAGES_MAX: usize = 128;

/// Reads the base of a frame, its files end to end, by place.
pub(in crate::transfer) trait ReadAt {
    /// Fills `out` with the bytes from `at` on; fails where the base has fewer.
    fn read_at(&self, at: usize, out: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        (&self[..]).read_at(at, out)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        let bytes = at.checked_add(out.len()).and_then(|end| self.get(at..end));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A base and the files in it, in order.
#[derive(Clone, Copy)]
pub(in crate::transfer) struct Base<'a> {
    pub(in crate::transfer) source: &'a dyn ReadAt,
    pub(in crate::transfer) len: usize,
    pub(in crate::transfer) files: &'a [File],
}

/// The pages read last.
pub(super) struct Pages<'a> {
    base: Base<'a>,
    /// Which of `kept` holds each page of the base.
    slots: Vec<Option<u8>>,
    kept: Vec<(usize, Vec<u8>)>,
    /// The next to be replaced.
    oldest: usize,
}

impl<'a> Pages<'a> {
    /// Bytes in memory at most.
    #[cfg(test)]
    pub(super) const BYTES_MAX: usize = PAGES_MAX * PAGE_BYTES;

    pub(super) fn new(base: Base<'a>) -> Self {
        Self { base, slots: vec![None; base.len.div_ceil(PAGE_BYTES)], kept: Vec::new(), oldest: 0 }
    }

    /// Puts the bytes `range`, which lies within the base, into `out`.
    pub(super) fn read(&mut self, range: Range<usize>, out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        while out.len() < range.len() {
            let at = range.start + out.len();
            let (page, within) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let bytes = self.page(page)?.get(within..).unwrap_or_default();
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            out.extend_from_slice(&bytes[..bytes.len().min(range.end - at)]);
        }
        Ok(())
    }

    fn page(&mut self, page: usize) -> io::Result<&[u8]> {
        let slot = match self.slots.get(page).ok_or(io::ErrorKind::UnexpectedEof)? {
            Some(slot) => usize::from(*slot),
            None => self.load(page)?,
        };
        Ok(&self.kept[slot].1)
    }

    fn load(&mut self, page: usize) -> io::Result<usize> {
        let slot = self.oldest;
        self.oldest = (slot + 1) % PAGES_MAX;
        let mut bytes = match self.kept.get_mut(slot) {
            Some((replaced, bytes)) => {
                self.slots[*replaced] = None;
                std::mem::take(bytes)
            }
            None => {
                self.kept.push((page, Vec::new()));
                Vec::new()
            }
        };
        let begin = page * PAGE_BYTES;
        bytes.resize(PAGE_BYTES.min(self.base.len - begin), 0);
        self.base.source.read_at(begin, &mut bytes)?;
        self.kept[slot] = (page, bytes);
        self.slots[page] = Some(slot as u8);
        Ok(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_give_what_the_base_holds_in_any_order() {
        let bytes: Vec<u8> =
            (0..(PAGES_MAX + 40) * PAGE_BYTES + 77).map(|i| (i * 7 + i / PAGE_BYTES) as u8).collect();
        let source = &bytes[..];
        let mut pages = Pages::new(Base { source: &source, len: bytes.len(), files: &[] });
        let mut out = Vec::new();
        for i in 0..2_000_usize {
            let at = i.wrapping_mul(2_654_435_761) % bytes.len();
            let range = at..(at + i * 97).min(bytes.len());
            pages.read(range.clone(), &mut out).unwrap();
            assert!(out == bytes[range], "read {i}");
        }
        assert!(pages.kept.len() <= PAGES_MAX);
        assert!(pages.read(bytes.len() - 1..bytes.len() + 1, &mut out).is_err());
    }
}
