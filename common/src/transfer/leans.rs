//! What a frame leans on, laid end to end and read by place.

use std::cell::RefCell;
use std::io::{self, Read};

use super::encode::Side;
use super::image::{File, ReadAt};
use super::{Extent, Lean};

/// Reads leans where they are wanted; remembers the first failure, which is the base's and not the frame's.
pub(super) struct LeanReader<'a> {
    leans: &'a [Lean],
    /// Where each of them ends.
    ends: Vec<u64>,
    base: Side<'a>,
    produced: Side<'a>,
    failure: RefCell<Option<io::Error>>,
}

impl<'a> LeanReader<'a> {
    pub(super) fn new(leans: &'a [Lean], base: Side<'a>, produced: Side<'a>) -> Self {
        let mut end = 0;
        let ends = leans.iter().map(|lean| {
            end += lean.extent().len;
            end
        });
        Self { leans, ends: ends.collect(), base, produced, failure: RefCell::new(None) }
    }

    /// Returns the bytes of all leans.
    pub(super) fn len(&self) -> usize {
        self.ends.last().map_or(0, |end| *end as usize)
    }

    /// Returns what reads all leans end to end, once.
    pub(super) fn stream(&self) -> impl Read + '_ {
        LeanStream { leans: self, at: 0 }
    }

    /// Returns the files that the leans are runs of.
    pub(super) fn files(&self) -> io::Result<Vec<File>> {
        let mut at = 0;
        let mut files = Vec::with_capacity(self.leans.len());
        for lean in self.leans {
            let extent = *lean.extent();
            let begin = at;
            at += extent.len as usize;
            let side = self.side(lean);
            let size = side.size(&extent);
            let read = |offset: u64, out: &mut [u8]| {
                let wanted = Extent { offset, len: out.len() as u64, ..extent };
                self.remember(side.reader(&wanted).and_then(|mut reader| reader.read_exact(out)))
            };
            files.push(File::read(begin..at, extent.offset, size, read)?);
        }
        Ok(files)
    }

    fn side(&self, lean: &Lean) -> &Side<'a> {
        match lean {
            Lean::Base(_) => &self.base,
            Lean::Produced(_) => &self.produced,
        }
    }

    /// Remembers why something could not be read, and tells only that.
    fn remember(&self, read: io::Result<()>) -> io::Result<()> {
        read.map_err(|error| {
            let told = io::Error::new(error.kind(), "cannot read the base");
            self.failure.borrow_mut().get_or_insert(error);
            told
        })
    }

    /// Takes why the base could not be read, if it could not.
    pub(super) fn into_failure(self) -> Option<io::Error> {
        self.failure.into_inner()
    }

    fn fill(&self, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
        let mut number = self.ends.partition_point(|end| *end <= at);
        while !out.is_empty() {
            let lean = self.leans.get(number).ok_or(io::ErrorKind::UnexpectedEof)?;
            let left = self.ends[number] - at;
            let (filled, rest) = out.split_at_mut(left.min(out.len() as u64) as usize);
            let offset = lean.extent().offset + lean.extent().len - left;
            let wanted = Extent { offset, len: filled.len() as u64, ..*lean.extent() };
            self.side(lean).reader(&wanted)?.read_exact(filled)?;
            (at, number, out) = (self.ends[number], number + 1, rest);
        }
        Ok(())
    }
}

impl ReadAt for LeanReader<'_> {
    fn read_at(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        self.remember(self.fill(at as u64, out))
    }
}

/// Reads leans from the first byte on.
struct LeanStream<'a> {
    leans: &'a LeanReader<'a>,
    at: usize,
}

impl Read for LeanStream<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = out.len().min(self.leans.len() - self.at);
        self.leans.read_at(self.at, &mut out[..n])?;
        self.at += n;
        Ok(n)
    }
}
