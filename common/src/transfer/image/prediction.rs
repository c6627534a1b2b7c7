//! Predicts the bytes of a block: the base's bytes, with each reference moved by as much as its target has moved.

use std::borrow::Cow;
use std::ops::Range;

use super::files::File;
use super::matching::Block;
use super::references::{Kind, Reference};

/// Where runs of one image lie in the other.
pub(super) struct BlockMap {
    /// Where a run begins, and by how much it is moved; sorted.
    shifts: Vec<(u32, i32)>,
}

impl BlockMap {
    /// Bytes that the map takes for a block, and what sorts the blocks while it is made.
    #[cfg(test)]
    pub(super) const BYTES_PER_BLOCK: usize = size_of::<(u32, i32)>() + size_of::<(usize, usize, i64)>();

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
    fn shift(&self, place: i32) -> i32 {
        let after = self.shifts.partition_point(|(begin, _)| i64::from(*begin) <= i64::from(place));
        self.shifts.get(after.saturating_sub(1)).map_or(0, |(_, shift)| *shift)
    }

    /// Returns where a place lies in the other image.
    pub(super) fn shifted(&self, place: i32) -> i32 {
        place.wrapping_add(self.shift(place))
    }
}

/// Targets that moved otherwise than the block map says, as corrected references have shown. What refers to the same place
/// again is then predicted right: 2 % of a release of extension modules, 0.3 % of one large executable. A fixed table: the
/// last of those that share a slot stays.
struct Corrections {
    slots: Vec<Option<(i32, i32)>>,
}

impl Corrections {
    /// Slots of the table: 3 MiB in memory, for a receiver that may use 128.
    const SLOTS: usize = 1 << 18;

    fn new() -> Self {
        Self { slots: vec![None; Self::SLOTS] }
    }

    fn slot(target: i32) -> usize {
        ((target as u32).wrapping_mul(0x9e37_79b1) >> 14) as usize
    }

    fn shift(&self, target: i32) -> Option<i32> {
        self.slots[Self::slot(target)].and_then(|(corrected, shift)| (corrected == target).then_some(shift))
    }

    fn set(&mut self, target: i32, shift: i32) {
        self.slots[Self::slot(target)] = Some((target, shift));
    }
}

/// Bytes of a page of addresses, as a power of two.
const PAGE_LOG: u32 = 12;

/// Returns the number of a page.
fn page(address: i64) -> i64 {
    address >> PAGE_LOG
}

/// Some bytes of a block, while they are predicted.
#[derive(Default)]
pub(super) struct Piece {
    /// The base's bytes: filled by the caller.
    pub(super) old: Vec<u8>,
    /// The prediction, then what is there.
    pub(super) bytes: Vec<u8>,
    /// By how much the target of each reference was taken to move.
    shifts: Vec<i32>,
}

/// Predicts blocks of one base, in order.
pub(super) struct Predictor<'a> {
    references: Cow<'a, [Reference]>,
    map: BlockMap,
    corrections: Corrections,
    /// The files of both images.
    old_files: &'a [File],
    new_files: &'a [File],
}

impl<'a> Predictor<'a> {
    /// Bytes of what is learned.
    #[cfg(test)]
    pub(super) const CORRECTIONS_BYTES: usize = Corrections::SLOTS * size_of::<Option<(i32, i32)>>();

    /// Makes a predictor for all of `blocks`.
    pub(super) fn new(
        references: Cow<'a, [Reference]>,
        blocks: &[Block],
        (old_files, new_files): (&'a [File], &'a [File]),
    ) -> Self {
        Self {
            old_files,
            new_files,
            references,
            map: BlockMap::of_old(blocks),
            corrections: Corrections::new(),
        }
    }

    /// Returns where the piece of a block that begins at `from` ends: where no reference is cut in two.
    pub(super) fn piece_end(&self, block: &Block, from: usize, len: usize) -> usize {
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

    /// Returns the references that lie in `range` of the base.
    fn within(&self, range: Range<usize>) -> &[Reference] {
        let first = self.references.partition_point(|reference| reference.at() < range.start);
        let rest = &self.references[first..];
        // References do not overlap, and each has four bytes at least.
        let near = &rest[..rest.len().min(range.len() / 4)];
        &near[..near.partition_point(|reference| reference.end() <= range.end)]
    }

    /// Returns by how much the value of a reference grows, in the units of its kind, when its target moves by `shift`.
    fn growth(&self, reference: &Reference, site_shift: i32, shift: i32) -> i64 {
        let grown = i64::from(shift) + self.offset(reference, site_shift);
        match reference.kind() {
            Kind::Page { low } => page(i64::from(low) + grown) - self.site_pages(reference, site_shift),
            Kind::Relative | Kind::Absolute | Kind::Table { .. } | Kind::Words(_) | Kind::Low { .. } => grown,
        }
    }

    /// Returns by how much a target has moved, given a field of which it is the target before and now. Where that does
    /// not say all of it, what it says is put into `guess`.
    fn shift_shown(
        &self,
        reference: &Reference,
        site_shift: i32,
        guess: i32,
        (old, new): (&[u8], &[u8]),
    ) -> i32 {
        let kind = reference.kind();
        let (grown, offset) = (kind.difference(old, new), self.offset(reference, site_shift));
        let low = kind.low(old);
        let guessed = low + i64::from(guess) + offset;
        let place = match kind {
            Kind::Relative | Kind::Absolute | Kind::Table { .. } | Kind::Words(_) => {
                return grown.wrapping_sub(offset as i32);
            }
            Kind::Page { .. } => {
                let pages = i64::from(grown) + self.site_pages(reference, site_shift);
                (pages << PAGE_LOG) + (guessed - (page(guessed) << PAGE_LOG))
            }
            Kind::Low { .. } => (page(guessed) << PAGE_LOG) + low + i64::from(grown),
        };
        (place - low - offset) as i32
    }

    /// Returns by how much the value of a reference at `site_shift` grows besides what its target moves.
    fn offset(&self, reference: &Reference, site_shift: i32) -> i64 {
        match reference.kind() {
            Kind::Absolute | Kind::Page { .. } | Kind::Low { .. } => -self.drift(reference.at(), site_shift),
            Kind::Relative | Kind::Words(_) => -i64::from(site_shift),
            Kind::Table { base } => -i64::from(self.map.shift(base)),
        }
    }

    /// Returns by how many pages the address of a reference grows.
    fn site_pages(&self, reference: &Reference, site_shift: i32) -> i64 {
        let begin = File::at(self.old_files, reference.at()).map_or(0, File::begin);
        // Files are laid out so that a place in them and its address are at the same place in their pages.
        let address = reference.at() as i64 - begin;
        let moved = address + i64::from(site_shift) - self.drift(reference.at(), site_shift);
        page(moved) - page(address)
    }

    /// Returns by how much the file of a place is moved as a whole: addresses count from its beginning.
    fn drift(&self, place: usize, shift: i32) -> i64 {
        let new_place = usize::try_from(place as i64 + i64::from(shift)).ok();
        let new = new_place.and_then(|place| File::at(self.new_files, place));
        match (File::at(self.old_files, place), new) {
            (Some(old), Some(new)) => new.begin() - old.begin(),
            (None, _) | (_, None) => 0,
        }
    }

    /// Predicts the bytes `range` of a block, given the base's.
    pub(super) fn predict(&self, block: &Block, range: &Range<usize>, piece: &mut Piece) {
        let Piece { old, bytes, shifts } = piece;
        bytes.clone_from(old);
        shifts.clear();
        let begin = block.old + range.start;
        for reference in self.within(begin..block.old + range.end) {
            let shift = reference
                .target()
                .map_or(0, |target| self.corrections.shift(target).unwrap_or_else(|| self.map.shift(target)));
            shifts.push(shift);
            let field = &mut bytes[reference.at() - begin..reference.end() - begin];
            reference.kind().add(field, self.growth(reference, block.shift(), shift));
        }
    }

    /// Learns from the bytes that are there, in place of those predicted, where targets have moved.
    pub(super) fn learn(&mut self, block: &Block, range: &Range<usize>, piece: &Piece) {
        let begin = block.old + range.start;
        let mut corrections = std::mem::replace(&mut self.corrections, Corrections { slots: Vec::new() });
        for (reference, predicted) in self.within(begin..block.old + range.end).iter().zip(&piece.shifts) {
            let Some(target) = reference.target() else { continue };
            let field = reference.at() - begin..reference.end() - begin;
            let fields = (&piece.old[field.clone()], &piece.bytes[field]);
            let guess = match reference.kind() {
                // The page was corrected a moment ago, perhaps.
                Kind::Low { .. } => corrections.shift(target).unwrap_or(*predicted),
                _ => *predicted,
            };
            let shift = self.shift_shown(reference, block.shift(), guess, fields);
            if shift != guess {
                corrections.set(target, shift);
            }
        }
        self.corrections = corrections;
    }
}
