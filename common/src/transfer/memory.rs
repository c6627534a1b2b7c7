//! Buffers that hold a frame's bytes whole.
//!
//! They are used once and given back, so each of their pages comes anew from the kernel. By pages of 4 KiB that was
//! a fifth of the CPU time of an update of 220 MB; by huge pages it is a hundredth.

use rustix::mm::{Advice, madvise};

/// Size from which huge pages are asked for: two of the usual ones, so that at least one lies within.
const HUGE_FROM: usize = 4 << 20;

/// Returns an empty buffer with room for `len` bytes.
pub(super) fn buffer(len: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(len);
    if len >= HUGE_FROM {
        advise(&mut buffer);
    }
    buffer
}

/// Asks for huge pages. Where the kernel has none to give, or gives none at all, nothing is different but the time it takes.
fn advise(buffer: &mut Vec<u8>) {
    let page = rustix::param::page_size();
    let room = buffer.spare_capacity_mut();
    // An allocation of this size is a mapping of its own, which begins a few bytes before it.
    let within = room.as_ptr().addr() % page;
    let begin = room.as_mut_ptr().wrapping_byte_sub(within);
    // SAFETY: the advice says how memory is to be backed and changes nothing of what it holds, whoever the first page may
    // be shared with.
    #[expect(unsafe_code, reason = "the standard library has no way to ask for huge pages")]
    let advised = unsafe { madvise(begin.cast(), room.len() + within, Advice::LinuxHugepage) };
    // Not every kernel has them.
    let _ = advised;
}

#[cfg(test)]
mod tests {
    use super::*;

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
