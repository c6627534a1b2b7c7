//! Chooses what frames without a base lean on: bytes of the same package that earlier frames restore.
//!
//! A solid archive finds a repetition wherever it is, because its reader keeps everything. A receiver of frames keeps
//! no more than [`caps::ZSTD_FRAME_BASE_BYTES_MAX`] at hand, so the encoder says which: first the pages in which most of the
//! frame's own fingerprints have been seen before, then what was restored last. A fingerprint is the state of a
//! rolling hash where some of its bits are zero, as in content-defined chunking. A function of the contents alone:
//! the same package leans the same way wherever it is encoded.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Read};

use crate::caps;

use super::encode::Side;
use super::{Extent, Frame, FrameSpec, Lean, Part};

/// What is leaned on or not: small enough that little beside what is alike comes with it.
const PAGE_BYTES: u64 = 256 * 1024;
/// Mean distance of fingerprints: finds repetitions of a few hundred bytes.
const DISTANCE_BYTES: u64 = 256;
/// Fingerprints that a package has at most, about: 100 MiB of memory while a large one is looked through.
const FINGERPRINTS_MAX: u64 = 4 << 20;

/// Returns `specs` with leans on earlier ones for those that lean on nothing yet.
pub(super) fn lean_on_produced(specs: &[FrameSpec], target: &Side<'_>) -> io::Result<Vec<FrameSpec>> {
    lean_within(caps::PLAN_MEMORY_MAX, specs, target)
}

/// Does that where whoever reads the plan has so many bytes of memory for it: of files of a few bytes each is a lean of its own.
pub(super) fn lean_within(
    memory: usize,
    specs: &[FrameSpec],
    target: &Side<'_>,
) -> io::Result<Vec<FrameSpec>> {
    let taken: usize = specs.iter().map(memory_of).sum();
    let leans_max = memory.saturating_sub(taken) / size_of::<Lean>() / specs.len().max(1);
    let total = specs.iter().map(FrameSpec::raw_len).sum::<u64>();
    let distance = (total / FINGERPRINTS_MAX).max(DISTANCE_BYTES).next_power_of_two();
    let mut seen = Seen { mask: distance - 1, pages: Vec::new(), places: HashMap::new() };
    let mut leaning = specs.to_vec();
    for spec in &mut leaning {
        let known = seen.pages.len();
        let likeness = seen.look_through(&spec.parts, target)?;
        if spec.base.is_empty() {
            spec.base = seen.choose(known, likeness, leans_max);
        }
    }
    Ok(leaning)
}

/// Returns the bytes that a frame takes in memory in a plan that was read.
fn memory_of(spec: &FrameSpec) -> usize {
    size_of::<Frame>() + spec.parts.len() * size_of::<Part>() + spec.base.len() * size_of::<Lean>()
}

/// A piece of a part.
#[derive(Clone, Copy)]
struct Page {
    extent: Extent,
    /// Whether it goes on where the page before it ends, in the same part.
    continues: bool,
}

/// What the frames looked through so far hold.
struct Seen {
    /// A fingerprint is a hash with these bits zero.
    mask: u64,
    pages: Vec<Page>,
    /// The page in which a fingerprint was seen last.
    places: HashMap<u64, u32>,
}

impl Seen {
    /// Adds the pages of a frame. Returns in which earlier pages its fingerprints have been seen, and how many.
    fn look_through(&mut self, parts: &[Extent], target: &Side<'_>) -> io::Result<HashMap<u32, u32>> {
        let known = self.pages.len() as u32;
        let mut likeness = HashMap::new();
        let mut buffer = Vec::new();
        for part in parts {
            let mut hash = 0;
            let mut reader = target.reader(part)?;
            let mut at = 0;
            while at < part.len {
                let len = PAGE_BYTES.min(part.len - at);
                buffer.clear();
                (&mut reader).take(len).read_to_end(&mut buffer)?;
                let extent = Extent { content: part.content, offset: part.offset + at, len };
                self.pages.push(Page { extent, continues: at > 0 });
                hash = self.fingerprints(hash, &buffer, known, &mut likeness);
                at += len;
            }
        }
        Ok(likeness)
    }

    fn fingerprints(
        &mut self,
        mut hash: u64,
        bytes: &[u8],
        known: u32,
        likeness: &mut HashMap<u32, u32>,
    ) -> u64 {
        let page = self.pages.len() as u32 - 1;
        for byte in bytes {
            hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
            if (hash >> 40) & self.mask != 0 {
                continue;
            }
            match self.places.entry(hash) {
                Entry::Vacant(place) => {
                    place.insert(page);
                }
                Entry::Occupied(mut place) => {
                    // Once for each frame: a fingerprint that repeats in it says no more.
                    if *place.get() < known {
                        *likeness.entry(*place.get()).or_default() += 1;
                    }
                    place.insert(page);
                }
            }
        }
        hash
    }

    /// Chooses of the first `known` pages those most alike, then the last ones, as far as the limits go.
    fn choose(&self, known: usize, likeness: HashMap<u32, u32>, pages_max: usize) -> Vec<Lean> {
        let mut alike: Vec<(u32, u32)> = likeness.into_iter().map(|(page, count)| (count, page)).collect();
        alike.sort_unstable_by(|a, b| b.cmp(a));
        let recent = (0..known as u32).rev();
        let (mut room, mut pages_left) = (caps::ZSTD_FRAME_BASE_BYTES_MAX, pages_max);
        let mut chosen = vec![false; known];
        for page in alike.into_iter().map(|(_, page)| page).chain(recent) {
            if pages_left == 0 {
                break;
            }
            let len = self.pages[page as usize].extent.len;
            if !chosen[page as usize] && len <= room {
                chosen[page as usize] = true;
                (room, pages_left) = (room - len, pages_left - 1);
            }
            if room == 0 {
                break;
            }
        }
        self.join(&chosen)
    }

    /// Joins chosen pages that follow each other in a part.
    fn join(&self, chosen: &[bool]) -> Vec<Lean> {
        let mut leans: Vec<Extent> = Vec::new();
        let mut follows = false;
        for (page, is_chosen) in self.pages.iter().zip(chosen) {
            match leans.last_mut() {
                Some(last) if *is_chosen && follows && page.continues => last.len += page.extent.len,
                _ if *is_chosen => leans.push(page.extent),
                _ => {}
            }
            follows = *is_chosen;
        }
        leans.into_iter().map(Lean::Produced).collect()
    }
}

/// One number for each byte, by SplitMix64: any well-mixed table does.
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut state = 0_u64;
    let mut byte = 0;
    while byte < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[byte] = mixed ^ (mixed >> 31);
        byte += 1;
    }
    table
};
