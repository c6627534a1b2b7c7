//! Buffers that hold a frame's bytes whole.
//!
//! Used once and given back, each of their pages comes anew from the kernel. By pages of 4 KiB that was a fifth of the CPU time
//! of an update of 220 MB; by huge pages it is a hundredth, and what frames are restored into is used again ([`Buffers`]).

use std::sync::{Mutex, PoisonError};

use rustix::mm::{Advice, madvise};

/// What sizes of buffers that are used again are rounded up to: frames are of nearly the same size, and what is not written to takes no
/// memory. A multiple of the usual huge page.
const STEP_BYTES: usize = 4 << 20;
/// What the allocator puts before a buffer, and more: with it a buffer is of whole steps, which Linux places (since 6.7) where a huge
/// page begins. Elsewhere up to a thousand pages at its ends are small ones, each of which comes by itself.
const HEADER_BYTES: usize = 4 << 10;
/// Size from which huge pages are asked for: two of the usual ones, so that at least one lies within.
const HUGE_FROM: usize = STEP_BYTES - HEADER_BYTES;
/// The usual huge page.
const HUGE_BYTES: usize = 2 << 20;

/// Buffers that frames were restored into, for the next ones. Dropped with the fetch that they are of.
///
/// No buffer outlives the beginning of another frame unused, so frames that are restored together never hold more than those
/// that ran before them.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Buffer>>);

impl Buffers {
    /// Returns a buffer of at least `len` bytes, whatever they are.
    pub(super) fn take(&self, len: usize) -> Buffer {
        let mut kept = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(at) = kept.iter().position(|kept| kept.room() >= len) {
            return kept.swap_remove(at);
        }
        drop(kept);
        Buffer::new(len)
    }

    /// Gives their memory back: of use to nobody while a frame is restored in another way.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    /// Takes a buffer back.
    pub(super) fn give(&self, buffer: Buffer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// Memory that a frame is restored into. Its bytes begin where a huge page does: in the one before lies what the allocator has written,
/// and where a page has been written to, the kernel gives small ones for the rest of a huge one.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    /// Where the bytes begin.
    lead: usize,
}

impl Buffer {
    /// Makes a buffer of at least `len` bytes, which take memory as they are written to.
    fn new(len: usize) -> Self {
        // Zeros that the kernel gives without a write.
        let mut memory = vec![0; roomy(len + HUGE_BYTES)];
        let lead = memory.as_ptr().addr().wrapping_neg() % HUGE_BYTES;
        advise(&mut memory[lead..], len);
        Self { memory, lead }
    }

    /// Returns how many bytes it has.
    fn room(&self) -> usize {
        self.memory.len() - self.lead
    }

    /// Returns its first bytes.
    pub(super) fn first(&mut self, len: usize) -> &mut [u8] {
        &mut self.memory[self.lead..][..len]
    }
}

/// The buffer for what frames lean on. One frame at a time has it, for as long as it is decoded: while it is stored, the next one
/// is decoded with the same memory.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Vec<u8>>);

impl Shelf {
    /// Lends an empty buffer with room for `len` bytes, and for twice [`STEP_BYTES`] more at most.
    pub(super) fn lend<T>(&self, len: usize, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        // What a thread that panicked has left in it is not looked at.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !(len..=len + 2 * STEP_BYTES).contains(&kept.capacity()) {
            *kept = Vec::new();
            *kept = Vec::with_capacity(roomy(len));
            advise(kept.spare_capacity_mut(), len);
        }
        kept.clear();
        work(&mut kept)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().capacity() == 0
    }

    /// Gives its memory back, unless it is lent: of use to nobody while what leans on nothing is restored.
    pub(super) fn clear(&self) {
        if let Ok(mut kept) = self.0.try_lock() {
            *kept = Vec::new();
        }
    }
}

/// Returns the size of a buffer that is used again for `len` bytes and for a little more.
fn roomy(len: usize) -> usize {
    (len + HEADER_BYTES).next_multiple_of(STEP_BYTES) - HEADER_BYTES
}

/// Returns how many bytes of a mapping huge pages are to hold of which so many are used: what is used of the last one is at least half.
fn huge_bytes(used: usize) -> usize {
    (used + HUGE_BYTES / 2) / HUGE_BYTES * HUGE_BYTES
}

/// Returns an empty buffer with room for `len` bytes.
pub(super) fn buffer(len: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(len);
    advise(buffer.spare_capacity_mut(), len);
    buffer
}

/// Asks for huge pages for the first `len` bytes of memory that is large enough, and for small ones where the last of them would be filled by less than half. Where the
/// kernel has none to give, or gives none at all, nothing is different but the time it takes.
fn advise<T>(memory: &mut [T], len: usize) {
    let (begin, capacity) = (memory.as_mut_ptr(), size_of_val(memory));
    if capacity < HUGE_FROM {
        return;
    }
    let page = rustix::param::page_size();
    // Memory of this size lies in a mapping of its own, which may begin a few bytes before it.
    let within = begin.addr() % page;
    let begin = begin.wrapping_byte_sub(within);
    let advised = huge_bytes(within + len).min(within + capacity);
    // SAFETY: the advice says how memory is to be backed and changes nothing of what it holds, whoever the first page may
    // be shared with.
    #[expect(unsafe_code, reason = "the standard library has no way to ask for huge pages")]
    let advised = unsafe { madvise(begin.cast(), advised, Advice::LinuxHugepage) };
    // Not every kernel has them.
    let _ = advised;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_STEP: usize = STEP_BYTES - HEADER_BYTES;

    #[test]
    fn a_buffer_is_used_again_where_it_is_large_enough_and_no_other_is_kept() {
        let buffers = Buffers::default();
        let (mut small, mut large) = (buffers.take(10), buffers.take(STEP_BYTES));
        let (small_at, large_at) = (small.first(10).as_ptr(), large.first(STEP_BYTES).as_ptr());
        buffers.give(small);
        buffers.give(large);
        let mut again = buffers.take(STEP_BYTES + 2);
        let again_at = again.first(STEP_BYTES + 2).as_ptr();
        assert_eq!((again_at, buffers.0.lock().unwrap().len()), (large_at, 0), "not {small_at:?}");
        buffers.give(again);
        assert_eq!(buffers.take(3 * STEP_BYTES).first(3 * STEP_BYTES).len(), 3 * STEP_BYTES);
        assert_eq!(buffers.0.lock().unwrap().len(), 0);
        buffers.give(buffers.take(1));
        buffers.clear();
        assert!(buffers.is_empty());
    }

    #[test]
    fn a_buffer_begins_where_a_huge_page_does_and_has_room_for_what_was_asked() {
        for len in [0, 10, HUGE_BYTES, STEP_BYTES + 1, 4 * STEP_BYTES] {
            let mut buffer = Buffer::new(len);
            assert!(
                buffer.room() >= len && buffer.first(len).as_ptr().addr().is_multiple_of(HUGE_BYTES),
                "{len}"
            );
            assert!(buffer.first(len).iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_shelf_lends_the_same_memory_to_what_needs_about_as_much() {
        let shelf = Shelf::default();
        let lend = |len: usize| {
            shelf.lend(len, |buffer| {
                let room = len..=len + 2 * STEP_BYTES;
                assert!(buffer.is_empty() && room.contains(&buffer.capacity()), "{len}");
                buffer.resize(len, 7);
                buffer.as_ptr()
            })
        };
        let first = lend(2 * STEP_BYTES);
        assert_eq!([lend(2 * STEP_BYTES + 1), lend(2 * STEP_BYTES - 1), lend(STEP_BYTES)], [first; 3]);
        lend(STEP_BYTES - HEADER_BYTES - 1);
        assert_eq!(shelf.0.lock().unwrap().capacity(), ONE_STEP, "what is too large is not kept");
        shelf.lend(10, |_| shelf.clear());
        assert_eq!(shelf.0.lock().unwrap().capacity(), ONE_STEP, "what is lent is not taken away");
        shelf.clear();
        assert!(shelf.is_empty());
    }

    #[test]
    fn huge_pages_hold_no_more_than_half_a_page_beyond_what_is_used() {
        for (used, expected) in [
            (16, 0),
            (HUGE_BYTES / 2 - 1, 0),
            (HUGE_BYTES / 2, 1),
            ((8 << 20) - (64 << 10) + 16, 4),
            ((16 << 20) + 16, 8),
            ((28 << 20) + 16, 14),
        ] {
            assert_eq!(huge_bytes(used), expected * HUGE_BYTES, "{used}");
        }
    }

    #[test]
    fn a_buffer_holds_what_is_put_into_it_whatever_backs_it() {
        for len in [0, 1, HUGE_FROM - 1, HUGE_FROM, HUGE_FROM + 4_097, 5 * HUGE_FROM] {
            let mut filled = buffer(len);
            assert!(filled.is_empty() && filled.capacity() >= len);
            filled.extend((0..len).map(|number| number as u8));
            assert!(filled.iter().enumerate().all(|(number, byte)| *byte == number as u8), "{len}");
        }
    }
}
