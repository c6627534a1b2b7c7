//! How the value of a field says where its target lies, and how it is changed when either moves.

/// How the value of a field says where its target lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// Four bytes, counted from the field's own place.
    Relative,
    /// Eight bytes, an address.
    Absolute,
    /// Four bytes, counted from the beginning of a table at this place.
    Table { base: i32 },
    /// An A64 instruction with a distance from itself.
    Words(Words),
    /// An A64 `adrp`: a distance in pages. The target is `low` bytes into its page.
    Page { low: u16 },
    /// An A64 instruction with the place of the target in its page, in units of `1 << scale` bytes.
    Low { scale: u8 },
}

/// Which bits of an A64 instruction are a distance in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Words {
    /// 26, of `b` and `bl`.
    Branch,
    /// 19, of conditional branches and loads of literals.
    Near,
    /// 14, of `tbz` and `tbnz`.
    Test,
}

impl Words {
    /// Returns the first bit and how many there are.
    fn bits(self) -> (u32, u32) {
        match self {
            Self::Branch => (0, 26),
            Self::Near => (5, 19),
            Self::Test => (5, 14),
        }
    }

    /// Returns the distance in bytes.
    pub(super) fn distance(self, word: u32) -> i64 {
        let (first, count) = self.bits();
        signed(word >> first, count) << 2
    }
}

/// Bits of a distance in pages: two of them stand apart from the others.
const PAGE_BITS: u32 = 21;
/// Where the bits of a place in a page begin.
const LOW_FIRST: u32 = 10;
/// Bytes of a page, less one.
const LOW_MASK: u32 = 0xfff;

impl Kind {
    /// Returns the bytes of such a field.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Absolute => 8,
            Self::Relative | Self::Table { .. } | Self::Words(_) | Self::Page { .. } | Self::Low { .. } => 4,
        }
    }

    /// Returns the distance in pages of an `adrp`.
    pub(super) fn page_distance(word: u32) -> i64 {
        signed((word >> 5 & 0x7_ffff) << 2 | word >> 29 & 3, PAGE_BITS)
    }

    /// Adds to the value of a field: bytes, but pages to that of an `adrp`. What does not fit is cut off.
    pub(in super::super) fn add(self, field: &mut [u8], amount: i64) {
        match self {
            Self::Relative | Self::Absolute | Self::Table { .. } => add(field, amount),
            Self::Words(words) => set(field, |word| {
                let (first, count) = words.bits();
                put(word, first, count, (word >> first).wrapping_add((amount >> 2) as u32))
            }),
            Self::Page { .. } => set(field, |word| {
                let pages = Self::page_distance(word).wrapping_add(amount) as u32;
                put(put(word, 29, 2, pages), 5, 19, pages >> 2)
            }),
            Self::Low { scale } => set(field, |word| {
                let low = ((word >> LOW_FIRST & LOW_MASK) << scale).wrapping_add(amount as u32) & LOW_MASK;
                put(word, LOW_FIRST, 12, low >> scale)
            }),
        }
    }

    /// Returns by how much the value of a field has grown, in the units of [`Kind::add`]; of a place in a page only the
    /// place in it counts.
    pub(in super::super) fn difference(self, old: &[u8], new: &[u8]) -> i32 {
        match self {
            Self::Relative | Self::Absolute | Self::Table { .. } => difference(old, new),
            Self::Words(words) => {
                words.distance(word_of(new)).wrapping_sub(words.distance(word_of(old))) as i32
            }
            Self::Page { .. } => {
                let pages = |field| Self::page_distance(word_of(field));
                pages(new).wrapping_sub(pages(old)) as i32
            }
            Self::Low { .. } => (self.low(new) - self.low(old)) as i32,
        }
    }

    /// Returns the place in its page that a field says; zero where it says none.
    pub(in super::super) fn low(self, field: &[u8]) -> i64 {
        match self {
            Self::Low { scale } => i64::from((word_of(field) >> LOW_FIRST & LOW_MASK) << scale & LOW_MASK),
            Self::Page { low } => i64::from(low),
            Self::Relative | Self::Absolute | Self::Table { .. } | Self::Words(_) => 0,
        }
    }

    /// Replaces the value of a field by the place of its target; of an instruction the rest stays.
    pub(super) fn put_token(self, field: &mut [u8], place: i32) {
        let place_bits = place as u32;
        match self {
            Self::Relative | Self::Absolute | Self::Table { .. } => {
                field[..4].copy_from_slice(&place.to_be_bytes());
                field[4..].fill(0);
            }
            Self::Words(words) => set(field, |word| {
                let (first, count) = words.bits();
                put(word, first, count, place_bits >> 2)
            }),
            Self::Page { .. } => set(field, |word| put(put(word, 29, 2, place_bits), 5, 19, place_bits >> 2)),
            Self::Low { scale } => set(field, |word| put(word, LOW_FIRST, 12, place_bits >> scale)),
        }
    }
}

/// Returns the low bits of a word as a signed number.
fn signed(word: u32, bits: u32) -> i64 {
    i64::from((word << (32 - bits)) as i32 >> (32 - bits))
}

/// Returns a word with `count` bits from `first` on replaced by the low ones of `value`.
fn put(word: u32, first: u32, count: u32, value: u32) -> u32 {
    let mask = ((1 << count) - 1) << first;
    word & !mask | value << first & mask
}

fn set(field: &mut [u8], change: impl FnOnce(u32) -> u32) {
    let word = change(word_of(field));
    field.copy_from_slice(&word.to_le_bytes());
}

fn word_of(field: &[u8]) -> u32 {
    low_half(field) as u32
}

/// Returns the low four bytes of a field.
fn low_half(field: &[u8]) -> i32 {
    field.iter().take(4).rev().fold(0_i32, |value, byte| value << 8 | i32::from(*byte))
}

/// Returns the difference of the low four bytes of two fields.
fn difference(old: &[u8], new: &[u8]) -> i32 {
    low_half(new).wrapping_sub(low_half(old))
}

/// Adds to a little-endian field of four or eight bytes.
fn add(field: &mut [u8], shift: i64) {
    let mut carry = shift;
    for byte in field {
        let sum = i64::from(*byte) + (carry & 0xff);
        *byte = sum as u8;
        carry = (carry >> 8) + (sum >> 8);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addition_carries_and_borrows() {
        for (value, shift) in
            [(0_u32, 1_i64), (0xffff_ffff, 1), (256, -1), (0, -1), (0x1234_5678, -0x2000), (7, 1 << 20)]
        {
            let mut field = value.to_le_bytes();
            add(&mut field, shift);
            assert_eq!(u32::from_le_bytes(field), value.wrapping_add(shift as u32), "{value} {shift}");
        }
        let mut field = 5_u64.to_le_bytes();
        add(&mut field, -6);
        assert_eq!(u64::from_le_bytes(field), u64::MAX);
    }

    #[test]
    fn instructions_keep_what_is_not_their_distance() {
        // As an assembler writes them: before, what is added, after.
        for (name, kind, before, amount, after) in [
            ("bl +4 to -4", Kind::Words(Words::Branch), 0x9400_0001, -8, 0x97ff_ffff_u32),
            ("cbz x3, +8 to -8", Kind::Words(Words::Near), 0xb400_0043, -16, 0xb4ff_ffc3),
            ("tbz w1, #5, +4 to +32764", Kind::Words(Words::Test), 0x3628_0021, 32_760, 0x362b_ffe1),
            ("adrp x8, +3 to -1", Kind::Page { low: 0 }, 0xf000_0008, -4, 0xf0ff_ffe8),
            ("add x8, x8, #0xff0 to #0x10", Kind::Low { scale: 0 }, 0x913f_c108, 0x20, 0x9100_4108),
            ("ldr x0, [x8, #8] to [x8, #0xff8]", Kind::Low { scale: 3 }, 0xf940_0500, -16, 0xf947_fd00),
        ] {
            let mut field = u32::to_le_bytes(before);
            kind.add(&mut field, amount);
            assert_eq!(u32::from_le_bytes(field), after, "{name}: {:08x}", u32::from_le_bytes(field));
        }
    }

    proptest! {
        #[test]
        fn what_was_added_is_the_difference(word in any::<u32>(), amount in -2_000_i32..2_000) {
            for kind in [Kind::Relative, Kind::Words(Words::Branch), Kind::Page { low: 7 }] {
                let words = amount & !3;
                let (old, mut new) = (word.to_le_bytes(), word.to_le_bytes());
                kind.add(&mut new, i64::from(words));
                // At the end of the numbers that fit the rest is cut off.
                let (is_whole, may_cut) = (kind.difference(&old, &new) == words, kind != Kind::Relative);
                kind.add(&mut new, i64::from(-words));
                prop_assert_eq!(old, new);
                prop_assert!(is_whole || may_cut);
            }
        }
    }
}
