//! Memory for frames that wait to be restored, in blocks that are used again.

use std::io::{self, BufRead};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a block: what the smallest of frames takes of a [`Room`].
pub(super) const BLOCK_BYTES: usize = 128 * 1024;

/// Memory for frames that have come and are not restored, in blocks that are used again: the kernel clears each page once, and
/// messages can be let go of as they come.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Mutex<Vec<Vec<u8>>>>);

impl Room {
    /// Makes a room of so many bytes, which take memory as they are used.
    pub(super) fn new(bytes: u64) -> Self {
        let count = bytes / BLOCK_BYTES as u64;
        Self(Arc::new(Mutex::new((0..count).map(|_| Vec::new()).collect())))
    }

    /// Takes as many blocks as so many bytes fill, where there are as many.
    pub(super) fn take(&self, bytes: u64) -> Option<Blocks> {
        let wanted = usize::try_from(bytes.div_ceil(BLOCK_BYTES as u64)).ok()?;
        let mut free = self.free();
        // Used ones are at the end.
        let kept = free.len().checked_sub(wanted)?;
        Some(Blocks { blocks: free.split_off(kept), full: 0, room: self.clone() })
    }

    /// Returns how many blocks are free.
    #[cfg(test)]
    pub(super) fn free_blocks(&self) -> usize {
        self.free().len()
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocks of a [`Room`], which has them back when this is dropped.
#[derive(Debug)]
pub(super) struct Blocks {
    blocks: Vec<Vec<u8>>,
    /// How many of them are full: the next bytes go to the one after.
    full: usize,
    room: Room,
}

impl Blocks {
    /// Adds bytes, for which there is room.
    pub(super) fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let block = &mut self.blocks[self.full];
            if block.capacity() == 0 {
                block.reserve_exact(BLOCK_BYTES);
            }
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - block.len()));
            block.extend_from_slice(now);
            self.full += usize::from(block.len() == BLOCK_BYTES);
            bytes = later;
        }
    }

    /// Returns what was added, block by block.
    pub(super) fn filled(&self) -> &[Vec<u8>] {
        &self.blocks
    }

    /// Reads what was added.
    pub(super) fn read(&self) -> impl BufRead {
        Reader { blocks: &self.blocks, taken: 0 }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.blocks.iter_mut().for_each(Vec::clear);
        self.room.free().append(&mut self.blocks);
    }
}

/// Blocks that are read one after the other.
struct Reader<'a> {
    blocks: &'a [Vec<u8>],
    /// How much was taken of the first.
    taken: usize,
}

impl BufRead for Reader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.blocks.first().map_or(&[], |block| &block[self.taken..]))
    }

    fn consume(&mut self, amount: usize) {
        self.taken += amount;
        while let Some(block) = self.blocks.first()
            && self.taken >= block.len()
        {
            self.taken -= block.len();
            self.blocks = &self.blocks[1..];
        }
    }
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let len = available.len().min(buffer.len());
        buffer[..len].copy_from_slice(&available[..len]);
        self.consume(len);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_BLOCK: u64 = BLOCK_BYTES as u64;

    #[test]
    fn blocks_are_filled_one_after_the_other_and_used_again() {
        let bytes: Vec<u8> = (0..3 * BLOCK_BYTES + 5).map(|at| (at / 7) as u8).collect();
        let room = Room::new(6 * ONE_BLOCK);
        for piece in [1_000, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, bytes.len()] {
            let mut blocks = room.take(bytes.len() as u64).unwrap();
            assert!(room.take(2 * ONE_BLOCK + 1).is_none());
            bytes.chunks(piece).for_each(|piece| blocks.extend(piece));
            let mut read = Vec::new();
            io::Read::read_to_end(&mut blocks.read(), &mut read).unwrap();
            assert!(read == bytes, "{piece}");
        }
        let has_memory = |block: &&Vec<u8>| block.capacity() > 0;
        let free = room.free();
        assert_eq!((free.len(), free.iter().filter(has_memory).count()), (6, 4), "the same four each time");
        assert!(free.iter().all(Vec::is_empty));
    }
}
