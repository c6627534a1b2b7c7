//! Contents that come in several frames: which of their parts are on disk, and how far each was hashed as a whole.
//!
//! A part counts by its own digest, the content by its own; so every byte is hashed twice. Parts that come in order have both done
//! at once, which takes four fifths of the time and reads nothing again; what follows the first part that did not is hashed where it was
//! gathered. That what was hashed still stands there rests on this: a plan in which two parts overlap is not read at all.

use std::collections::HashMap;

use sluice_common::digest::{Beginning, Digest};
use sluice_common::transfer::{Extent, Part};

/// The parts of contents, by number of content.
#[derive(Debug, Default)]
pub(super) struct Parts(HashMap<u32, Gathering>);

#[derive(Debug, Default)]
struct Gathering {
    parts: Vec<PartState>,
    /// The hash of the parts that came in order, from the first on; nothing while a part is being hashed with it.
    hash: Option<Beginning>,
}

#[derive(Debug)]
struct PartState {
    extent: Extent,
    digest: Digest,
    is_done: bool,
}

impl Parts {
    /// Expects a part, which is there already where it `is_done`.
    pub(super) fn expect(&mut self, part: &Part, is_done: bool) {
        let state = PartState { extent: part.extent, digest: part.digest, is_done };
        self.0.entry(part.extent.content).or_default().parts.push(state);
    }

    /// Returns the contents all of whose parts are there.
    pub(super) fn whole(&self) -> Vec<u32> {
        let whole = self.0.iter().filter(|(_, gathering)| gathering.is_whole());
        whole.map(|(content, _)| *content).collect()
    }

    /// Says whether a part is there.
    pub(super) fn has(&self, part: &Part) -> bool {
        self.states(part.extent.content).iter().any(|state| state.extent == part.extent && state.is_done)
    }

    /// Returns the bytes of a content that are there.
    pub(super) fn bytes(&self, content: u32) -> u64 {
        let done = self.states(content).iter().filter(|state| state.is_done);
        done.map(|state| state.extent.len).sum()
    }

    /// Says whether bytes lie within a part that is there.
    pub(super) fn hold(&self, extent: &Extent) -> bool {
        self.states(extent.content).iter().any(|part| {
            let end = part.extent.offset + part.extent.len;
            part.is_done && part.extent.offset <= extent.offset && extent.offset + extent.len <= end
        })
    }

    /// Takes note of a part whose digest was right; says whether its content is whole now.
    pub(super) fn note(&mut self, part: &Part) -> bool {
        let gathering = self.0.entry(part.extent.content).or_default();
        for state in &mut gathering.parts {
            state.is_done |= state.extent == part.extent && state.digest == part.digest;
        }
        gathering.is_whole()
    }

    /// Takes the parts of a content to be lost.
    pub(super) fn forget(&mut self, content: u32) {
        if let Some(gathering) = self.0.get_mut(&content) {
            gathering.hash = None;
            gathering.parts.iter_mut().for_each(|part| part.is_done = false);
        }
    }

    /// Gives away the hash of a content up to a part that it goes on with; nothing where something before that was not hashed.
    pub(super) fn hash_before(&mut self, part: &Part) -> Option<Beginning> {
        let hash = &mut self.0.entry(part.extent.content).or_default().hash;
        match part.extent.offset {
            0 => Some(Beginning::new()),
            offset => hash.take_if(|hash| hash.len() == offset),
        }
    }

    /// Takes the hash of a content up to the end of a part whose digest was right.
    pub(super) fn hash_after(&mut self, part: &Part, hash: Beginning) {
        self.0.entry(part.extent.content).or_default().hash = Some(hash);
    }

    /// Takes what there is of the hash of a content.
    pub(super) fn take_hash(&mut self, content: u32) -> Beginning {
        self.0.get_mut(&content).and_then(|gathering| gathering.hash.take()).unwrap_or_default()
    }

    fn states(&self, content: u32) -> &[PartState] {
        self.0.get(&content).map_or(&[], |gathering| &gathering.parts)
    }
}

impl Gathering {
    fn is_whole(&self) -> bool {
        self.parts.iter().all(|part| part.is_done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: &[u8] = b"what comes in three parts, one after the other";

    /// Parts of 10, 20 and 16 bytes.
    fn scene() -> (Parts, [Part; 3]) {
        let part = |offset: u64, len: u64| {
            let bytes = &CONTENT[offset as usize..(offset + len) as usize];
            Part { extent: Extent { content: 7, offset, len }, digest: Digest::of(bytes) }
        };
        let all = [part(0, 10), part(10, 20), part(30, 16)];
        let mut parts = Parts::default();
        all.iter().for_each(|part| parts.expect(part, false));
        (parts, all)
    }

    /// Has a part come; says whether it was hashed with the whole.
    fn come(parts: &mut Parts, part: &Part) -> bool {
        let hash = parts.hash_before(part);
        let came = hash.is_some();
        if let Some(mut hash) = hash {
            let begin = part.extent.offset as usize;
            hash.update(&CONTENT[begin..begin + part.extent.len as usize]);
            parts.hash_after(part, hash);
        }
        came
    }

    #[test]
    fn parts_are_hashed_with_the_whole_as_far_as_they_come_in_order() {
        for (order, expected, hashed) in [
            ([0, 1, 2], [true, true, true], 46),
            ([0, 2, 1], [true, false, true], 30),
            ([1, 0, 2], [false, true, false], 10),
            ([2, 1, 0], [false, false, true], 10),
        ] {
            let (mut parts, all) = scene();
            for (number, expected) in order.into_iter().zip(expected) {
                assert!(!parts.has(&all[number]) && parts.whole().is_empty());
                assert_eq!(come(&mut parts, &all[number]), expected, "{order:?}: {number}");
                assert_eq!(parts.note(&all[number]), number == order[2], "{order:?}: {number}");
                assert!(parts.has(&all[number]) && parts.hold(&all[number].extent));
            }
            assert_eq!((parts.whole(), parts.bytes(7), parts.bytes(8)), (vec![7], 46, 0));
            let hash = parts.take_hash(7);
            assert_eq!(hash.len(), hashed, "{order:?}");
            let (digest, len) = hash.finish(&CONTENT[hashed as usize..]).unwrap();
            assert_eq!((digest, len), (Digest::of(CONTENT), 46), "{order:?}");
        }
    }

    #[test]
    fn two_parts_that_come_at_once_do_not_wait_for_each_other() {
        let (mut parts, [one, two, _]) = scene();
        let first = parts.hash_before(&one);
        assert!(first.is_some() && parts.hash_before(&two).is_none());
        assert!(parts.take_hash(7).is_empty(), "what was given away is not given twice");
    }

    #[test]
    fn what_is_lost_is_hashed_from_its_beginning() {
        let (mut parts, all) = scene();
        come(&mut parts, &all[0]);
        parts.note(&all[0]);
        parts.forget(7);
        assert!(!parts.has(&all[0]) && parts.hash_before(&all[1]).is_none());
        assert!(come(&mut parts, &all[0]) && come(&mut parts, &all[1]));
        let (wrong, across) =
            (Part { digest: Digest::of(b"other"), ..all[1] }, Extent { content: 7, offset: 5, len: 10 });
        parts.note(&all[0]);
        assert!(!parts.note(&wrong) && !parts.has(&wrong));
        assert!(!parts.hold(&across), "bytes of two parts");
    }
}
