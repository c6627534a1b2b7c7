//! Where a receiver keeps an expanded base: a file without a name, gone with the process that opened it.

use std::cell::RefCell;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::image::ReadAt;

/// Such a file. Remembers the first failure, which is the disk's and not the frame's.
pub(in crate::transfer) struct Scratch {
    file: RefCell<BufWriter<std::fs::File>>,
    failure: RefCell<Option<io::Error>>,
}

impl Scratch {
    /// Bytes written at once: members are small.
    pub(super) const BUFFER_BYTES: usize = 128 * 1024;

    /// Makes an empty one in a directory.
    pub(in crate::transfer) fn new(directory: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(Self::BUFFER_BYTES, tempfile::tempfile_in(directory)?);
        Ok(Self { file: RefCell::new(file), failure: RefCell::new(None) })
    }

    /// Takes why the file could not be written or read, if it could not.
    pub(in crate::transfer) fn into_failure(self) -> Option<io::Error> {
        self.failure.into_inner()
    }

    /// Remembers why something failed, and tells only that it did.
    fn remember<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let told = io::Error::new(error.kind(), "cannot keep the expanded base");
            self.failure.borrow_mut().get_or_insert(error);
            told
        })
    }
}

impl Write for &Scratch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.remember(self.file.borrow_mut().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.remember(self.file.borrow_mut().flush())
    }
}

impl ReadAt for &Scratch {
    fn read_at(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        self.remember(self.file.borrow().get_ref().read_exact_at(out, at as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_by_place_and_a_failure_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(directory.path()).unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i / 7) as u8).collect();
        (&scratch).write_all(&bytes).unwrap();
        (&scratch).flush().unwrap();
        let mut out = vec![0; 1_000];
        (&scratch).read_at(200_000, &mut out).unwrap();
        assert_eq!(out, bytes[200_000..201_000]);
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 0);
        assert!((&scratch).read_at(299_500, &mut out).is_err());
        assert!(scratch.into_failure().is_some());
    }
}
