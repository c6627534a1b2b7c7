//! Matching in the manner of bsdiff: exact matches are found over a suffix array of the old image and extended for as
//! long as more than half of the bytes agree (Percival, "Naive Differences of Executable Code", 2003).

use std::io;

use libsais::SuffixArrayConstruction;

/// A run of the new image that is nearly a run of the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) old: usize,
    pub(super) new: usize,
    pub(super) len: usize,
}

impl Block {
    /// Returns by how much the run is moved. Images are far below 2 GiB.
    pub(super) fn shift(&self) -> i32 {
        (self.new as i64 - self.old as i64) as i32
    }
}

/// By how many bytes an exact match must beat the running alignment to replace it: what a block costs in the control
/// streams. Measured on a 25 MB executable: 8 gives 1.73 MB, 12 gives 1.69, 16 gives 1.70.
const GAIN_MIN: isize = 12;

/// Matches from this length on are not looked for at each byte: zeros with something among them would take hours.
const LONG_BYTES: usize = 4096;

/// How many matches of the same length are looked at on either side: the nearest costs 1.3 to 1.7 % less than any.
const ALIKE_MAX: usize = 32;

/// An old image, ready to be searched.
pub(super) struct Matcher<'a> {
    old: &'a [u8],
    suffixes: Vec<i32>,
    /// For each pair of leading bytes, where its suffixes begin and end.
    buckets: Vec<(u32, u32)>,
}

/// A match found: where it begins in the old image, and how long it is.
#[derive(Debug, Clone, Copy, Default)]
struct Match {
    old: usize,
    len: usize,
    /// Its place among the sorted suffixes.
    rank: usize,
}

impl<'a> Matcher<'a> {
    /// Sorts the suffixes of `old`.
    pub(super) fn new(old: &'a [u8]) -> io::Result<Self> {
        let suffixes = if old.is_empty() {
            Vec::new()
        } else {
            let sorted = SuffixArrayConstruction::for_text(old).in_owned_buffer32().single_threaded().run();
            sorted.map_err(|error| io::Error::other(format!("cannot sort suffixes: {error:?}")))?.into_vec()
        };
        let mut buckets = vec![(0, 0); 1 << 16];
        for (rank, at) in suffixes.iter().enumerate() {
            if let Some(pair) = old.get(*at as usize..*at as usize + 2) {
                let bucket: &mut (u32, u32) = &mut buckets[pair_index(pair)];
                if bucket.0 == bucket.1 {
                    *bucket = (rank as u32, rank as u32);
                }
                bucket.1 += 1;
            }
        }
        Ok(Self { old, suffixes, buckets })
    }

    /// Returns the longest match of the beginning of `wanted`; one shorter than two bytes is none.
    fn longest(&self, wanted: &[u8]) -> Match {
        let Some(pair) = wanted.get(..2) else { return Match::default() };
        let (low, high) = self.buckets[pair_index(pair)];
        let (mut low, mut high) = (low as usize, high as usize);
        let (mut low_common, mut high_common, mut best) = (2, 2, Match::default());
        while low < high {
            let middle = (low + high) / 2;
            let old = self.suffixes[middle] as usize;
            let known: usize = low_common.min(high_common);
            let len = known + common_len(&self.old[old + known..], &wanted[known..]);
            if len > best.len {
                best = Match { old, len, rank: middle };
            }
            if len == wanted.len() {
                break;
            }
            if self.old.get(old + len).is_none_or(|byte| *byte < wanted[len]) {
                (low, low_common) = (middle + 1, len);
            } else {
                (high, high_common) = (middle, len);
            }
        }
        best
    }

    /// Returns the one nearest to `expected` of the matches as long as `found`.
    fn nearest(&self, found: Match, wanted: &[u8], expected: usize) -> Match {
        let wanted = &wanted[..found.len];
        let alike = |rank: &usize| self.old[self.suffixes[*rank] as usize..].starts_with(wanted);
        let below = (0..found.rank).rev().take(ALIKE_MAX).take_while(alike);
        let above = (found.rank + 1..self.suffixes.len()).take(ALIKE_MAX).take_while(alike);
        let others =
            below.chain(above).map(|rank| Match { old: self.suffixes[rank] as usize, rank, ..found });
        others.chain([found]).min_by_key(|found| found.old.abs_diff(expected)).unwrap_or(found)
    }

    /// Returns the blocks that cover `new`, in the order of `new`, without overlap.
    pub(super) fn blocks(&self, new: &[u8]) -> Vec<Block> {
        let mut scan = Scan {
            matcher: self,
            new,
            at: 0,
            found: Match::default(),
            last: Block { old: 0, new: 0, len: 0 },
        };
        let mut blocks = Vec::new();
        while scan.at < new.len() {
            if scan.advance() {
                scan.emit(&mut blocks);
            }
        }
        blocks
    }
}

/// One pass over the new image.
struct Scan<'a> {
    matcher: &'a Matcher<'a>,
    new: &'a [u8],
    at: usize,
    found: Match,
    /// Where the running alignment began.
    last: Block,
}

impl Scan<'_> {
    /// Says whether the byte at `at` is what the running alignment expects.
    fn agrees(&self, at: usize) -> bool {
        let old = (self.last.old + at).checked_sub(self.last.new);
        old.and_then(|old| self.matcher.old.get(old)).is_some_and(|byte| *byte == self.new[at])
    }

    /// Goes to the next place where another match beats the running alignment, or to the end; says whether it is one.
    fn advance(&mut self) -> bool {
        let mut score = 0_isize;
        self.at += self.found.len;
        let mut scored = self.at;
        while self.at < self.new.len() {
            self.found = self.matcher.longest(&self.new[self.at..]);
            while scored < self.at + self.found.len {
                score += isize::from(self.agrees(scored));
                scored += 1;
            }
            let len = self.found.len as isize;
            if len > score + GAIN_MIN {
                let expected = (self.last.old + self.at).saturating_sub(self.last.new);
                self.found = self.matcher.nearest(self.found, &self.new[self.at..], expected);
                break;
            }
            if len == score && len != 0 {
                break;
            }
            // A long match that is hardly better is so for as long as the running alignment agrees: what begins in between is looked for
            // backwards anyway, and each search costs as much as what it finds is long.
            if self.found.len >= LONG_BYTES {
                let alike = (self.at..scored - 1).take_while(|at| self.agrees(*at)).count();
                (self.at, score) = (self.at + alike, score - alike as isize);
            }
            score -= isize::from(self.agrees(self.at));
            self.at += 1;
        }
        self.found.len as isize != score || self.at == self.new.len()
    }

    /// Closes the running alignment before the match that was found, and begins the next with it.
    fn emit(&mut self, blocks: &mut Vec<Block>) {
        let (old, new) = (self.matcher.old, self.new);
        let Block { old: last_old, new: last_new, .. } = self.last;
        let room = (self.at - last_new).min(old.len() - last_old);
        let mut forward = best_extension((0..room).map(|i| old[last_old + i] == new[last_new + i]));
        let mut backward = 0;
        if self.at < new.len() {
            let room = (self.at - last_new).min(self.found.old);
            backward = best_extension((1..=room).map(|i| old[self.found.old - i] == new[self.at - i]));
        }
        let overlap = (last_new + forward).saturating_sub(self.at - backward);
        if overlap > 0 {
            let left = |i| old[last_old + forward - overlap + i] == new[last_new + forward - overlap + i];
            let right = |i| old[self.found.old - backward + i] == new[self.at - backward + i];
            let keep = best_split((0..overlap).map(|i| isize::from(left(i)) - isize::from(right(i))));
            forward = forward - overlap + keep;
            backward -= keep;
        }
        if forward > 0 {
            blocks.push(Block { old: last_old, new: last_new, len: forward });
        }
        self.last = Block { old: self.found.old - backward, new: self.at - backward, len: 0 };
    }
}

fn pair_index(pair: &[u8]) -> usize {
    usize::from(pair[0]) << 8 | usize::from(pair[1])
}

/// Returns how many leading bytes are the same.
fn common_len(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
}

/// Returns the length at which the bytes that agree outnumber the others most.
fn best_extension(agreements: impl Iterator<Item = bool>) -> usize {
    best_split(agreements.map(|agrees| if agrees { 1 } else { -1 }))
}

/// Returns how many leading gains add up to the most.
fn best_split(gains: impl Iterator<Item = isize>) -> usize {
    let (mut sum, mut best, mut len) = (0, 0, 0);
    for (i, gain) in gains.enumerate() {
        sum += gain;
        if sum > best {
            (best, len) = (sum, i + 1);
        }
    }
    len
}
