//! Predicts the bytes of a block: the base's bytes, with each reference moved by as much as its target has moved.

use std::ops::Range;

use super::matching::Block;
use super::references::{Image, Kind, Reference};

/// Where runs of one image lie in the other.
pub(super) struct BlockMap {
    /// Where a run begins, and by how much it is moved; sorted.
    shifts: Vec<(u32, i32)>,
}

impl BlockMap {
    /// Maps places of the old image.
    fn of_old(blocks: &[Block]) -> Self {
        let mut runs: Vec<_> = blocks.iter().map(|b| (b.old, b.len, b.new as i64 - b.old as i64)).collect();
        runs.sort_unstable();
        let (mut shifts, mut end) = (Vec::with_capacity(runs.len()), 0);
        for (begin, len, shift) in runs {
            // A run inside of another says nothing new; the longer one is more likely right.
            if begin + len > end {
                shifts.push((begin as u32, shift as i32));
                end = begin + len;
            }
        }
        Self { shifts }
    }

    /// Maps places of the new image back.
    pub(super) fn of_new(blocks: &[Block]) -> Self {
        Self { shifts: blocks.iter().map(|b| (b.new as u32, (b.old as i64 - b.new as i64) as i32)).collect() }
    }

    /// Returns by how much a place is moved: as the nearest run that begins before it.
    fn shift(&self, place: u32) -> i32 {
        let after = self.shifts.partition_point(|(begin, _)| *begin <= place);
        self.shifts.get(after.saturating_sub(1)).map_or(0, |(_, shift)| *shift)
    }

    /// Returns where a place lies in the other image.
    pub(super) fn shifted(&self, place: u32) -> u32 {
        place.wrapping_add_signed(self.shift(place))
    }
}

/// Predicts blocks of one base.
pub(super) struct Predictor<'a> {
    base: &'a [u8],
    references: Vec<Reference>,
    map: BlockMap,
}

impl<'a> Predictor<'a> {
    /// Makes a predictor for all of `blocks`.
    pub(super) fn new(base: &'a [u8], image: &Image, blocks: &[Block]) -> Self {
        Self { base, references: image.references().to_vec(), map: BlockMap::of_old(blocks) }
    }

    /// Returns an end of at most `from + len` at which no reference is cut in two.
    pub(super) fn safe_end(&self, block: &Block, from: usize, len: usize) -> usize {
        let end = block.len.min(from + len);
        if end == block.len {
            return end;
        }
        let cut = block.old + end;
        let before = self.references.partition_point(|reference| reference.end() <= cut);
        match self.references.get(before) {
            Some(reference) if reference.at() < cut && reference.at() > block.old + from => {
                reference.at() - block.old
            }
            _ => end,
        }
    }

    /// Predicts the bytes `range` of a block into `out`.
    pub(super) fn predict(&self, block: &Block, range: Range<usize>, out: &mut Vec<u8>) {
        let (begin, end) = (block.old + range.start, block.old + range.end);
        out.clear();
        out.extend_from_slice(&self.base[begin..end]);
        let site_shift = (block.new as i64 - block.old as i64) as i32;
        let first = self.references.partition_point(|reference| reference.at() < begin);
        for reference in self.references[first..].iter().take_while(|reference| reference.end() <= end) {
            let field = &mut out[reference.at() - begin..reference.end() - begin];
            let target_shift = reference.target.map_or(0, |target| self.map.shift(target));
            match reference.kind {
                Kind::Absolute => add(field, i64::from(target_shift)),
                Kind::Relative => add(field, i64::from(target_shift) - i64::from(site_shift)),
                Kind::Table { base } => add(field, i64::from(target_shift) - i64::from(self.map.shift(base))),
            }
        }
    }
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
    use super::*;

    #[test]
    fn a_block_predicted_in_pieces_is_the_same_because_no_reference_is_cut() {
        let base = fs_err::read("/bin/sh").unwrap();
        let files = std::slice::from_ref(&(0..base.len())).to_vec();
        let image = Image::of(super::super::Bytes { bytes: &base, files: &files });
        // The second half moved, and with it what refers across the middle.
        let half = base.len() / 2;
        let blocks = [
            Block { old: 0, new: 0, len: half },
            Block { old: half, new: half + 999, len: base.len() - half },
        ];
        let predictor = Predictor::new(&base, &image, &blocks);
        let (mut whole, mut piece, mut pieces) = (Vec::new(), Vec::new(), Vec::new());
        for block in &blocks {
            predictor.predict(block, 0..block.len, &mut whole);
            for len in [11, 13, 64] {
                pieces.clear();
                while pieces.len() < block.len {
                    let end = predictor.safe_end(block, pieces.len(), len);
                    predictor.predict(block, pieces.len()..end, &mut piece);
                    pieces.extend_from_slice(&piece);
                }
                assert!(pieces == whole, "pieces of {len} bytes differ");
            }
        }
    }

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
}
