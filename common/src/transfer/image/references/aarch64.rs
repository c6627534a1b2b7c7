//! References of A64 instructions: branches and literals by their distance in words; `adrp` with what adds the rest.
//!
//! `adrp` gives the page of an address, an addition or a load after it the place in that page. Only both say where the
//! target lies, so the pages that registers hold are followed through the code, from one instruction to the next, until the
//! register is written again. That calls change registers and functions end makes no difference worth its code.

use std::io;

use super::{Finder, Kind, Section, Words};

/// Bytes of an instruction.
const INSTRUCTION_BYTES: usize = 4;

pub(super) fn references(section: &Section, finder: &mut Finder<'_>) -> io::Result<()> {
    let (begin, within) = finder.within(section);
    let mut pages = [None; 32];
    let mut at = within.start.next_multiple_of(INSTRUCTION_BYTES);
    while at + INSTRUCTION_BYTES <= within.end && !finder.is_over {
        let place = (begin + at as i64) as usize;
        let Some(word) = finder.window.half(place)? else { break };
        let site = Site { place, address: section.address + at as u64, word: word as u32 };
        site.distance(finder);
        site.address_in_two(&mut pages, finder);
        at += INSTRUCTION_BYTES;
    }
    Ok(())
}

/// What an `adrp` has put into a register.
#[derive(Clone, Copy)]
struct Held {
    place: usize,
    page: u64,
    /// Whether the `adrp` is among the references already: it counts with the first that uses it.
    is_known: bool,
}

/// An instruction and where it stands.
struct Site {
    place: usize,
    address: u64,
    word: u32,
}

impl Site {
    fn is(&self, mask: u32, pattern: u32) -> bool {
        self.word & mask == pattern
    }

    /// Returns a register's number that stands at a bit.
    fn register(&self, bit: u32) -> usize {
        (self.word >> bit & 31) as usize
    }

    /// Adds a branch or a load of a literal.
    fn distance(&self, finder: &mut Finder<'_>) {
        let words = if self.is(0x7c00_0000, 0x1400_0000) {
            Words::Branch
        } else if self.is(0xff00_0010, 0x5400_0000)
            || self.is(0x7e00_0000, 0x3400_0000)
            || self.is(0x3b00_0000, 0x1800_0000)
        {
            Words::Near
        } else if self.is(0x7e00_0000, 0x3600_0000) {
            Words::Test
        } else {
            return;
        };
        let distance = words.distance(self.word);
        finder.push(self.place, Kind::Words(words), self.address.wrapping_add_signed(distance));
    }

    /// Follows the pages that registers hold, and adds both instructions where one uses them.
    fn address_in_two(&self, pages: &mut [Option<Held>; 32], finder: &mut Finder<'_>) {
        if self.is(0x9f00_0000, 0x9000_0000) {
            let distance = Kind::page_distance(self.word) << 12;
            let page = (self.address & !0xfff).wrapping_add_signed(distance);
            pages[self.register(0)] = Some(Held { place: self.place, page, is_known: false });
            return;
        }
        if let Some(scale) = self.scale()
            && let Some(held) = &mut pages[self.register(5)]
        {
            let low = u64::from(self.word >> 10 & 0xfff) << scale;
            let target = held.page.wrapping_add(low);
            if !held.is_known {
                held.is_known = true;
                finder.push(held.place, Kind::Page { low: (low & 0xfff) as u16 }, target);
            }
            finder.push(self.place, Kind::Low { scale }, target);
            if self.is_addition() {
                finder.take_address(target);
            }
        }
        self.forget(pages);
    }

    fn is_addition(&self) -> bool {
        self.is(0xffc0_0000, 0x9100_0000)
    }

    /// Returns the unit of twelve bits that are added to a register, as a power of two; nothing where none are.
    fn scale(&self) -> Option<u8> {
        if self.is_addition() {
            return Some(0);
        }
        let size = (self.word >> 30) as u8;
        // A load or a store with an offset; of a whole vector where the size says a byte, and more.
        let is_vector = self.is(0x0480_0000, 0x0480_0000);
        self.is(0x3b00_0000, 0x3900_0000).then_some(if is_vector && size == 0 { 4 } else { size })
    }

    /// Forgets the page of a register that the instruction changes.
    fn forget(&self, pages: &mut [Option<Held>; 32]) {
        let is_computed = self.is(0x1c00_0000, 0x1000_0000) || self.is(0x0e00_0000, 0x0a00_0000);
        let is_loaded = self.is(0x0a00_0000, 0x0800_0000) && !self.is(0x3bc0_0000, 0x3900_0000);
        if is_computed || is_loaded {
            pages[self.register(0)] = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        // As an assembler writes them: what unit of an offset they have, whether x8 holds another value after them.
        for (name, word, scale, is_forgotten) in [
            ("add x8, x8, #16", 0x9100_4108, Some(0), true),
            ("add x8, x8, #16, lsl #12", 0x9140_4108, None, true),
            ("add w8, w8, #16", 0x1100_4108, None, true),
            ("ldrb w8, [x9, #1]", 0x3940_0528, Some(0), true),
            ("ldrh w8, [x9, #2]", 0x7940_0528, Some(1), true),
            ("ldr x8, [x9, #8]", 0xf940_0528, Some(3), true),
            ("ldr d8, [x9, #8]", 0xfd40_0528, Some(3), true),
            ("ldr q8, [x9, #16]", 0x3dc0_0528, Some(4), true),
            ("str x8, [x9, #8]", 0xf900_0528, Some(3), false),
            ("ldp x8, x10, [x9]", 0xa940_2928, None, true),
            ("mov x8, x9", 0xaa09_03e8, None, true),
            ("b +32", 0x1400_0008, None, false),
            ("ret", 0xd65f_03c0, None, false),
        ] {
            let site = Site { place: 0, address: 0, word };
            assert_eq!(site.scale(), scale, "{name}");
            let mut pages = [Some(Held { place: 0, page: 0, is_known: false }); 32];
            site.forget(&mut pages);
            assert_eq!(pages[8].is_none(), is_forgotten, "{name}");
        }
    }
}
