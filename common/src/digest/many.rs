//! Hashes several messages, four at a time.

use sha2::block_api::compress256;

use super::Digest;
use super::lanes::Lanes;

/// The words of a hash between two blocks.
pub(super) type State = [u32; 8];
/// What is compressed at once.
pub(super) type Block = [u8; 64];

/// The first state: H(0) of FIPS 180-4, section 5.3.3.
const FIRST: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Returns the digest of each message, in their order. The longest is begun first, so that what is left in the end for fewer
/// lanes is short.
pub(super) fn digests(lanes: Lanes, messages: &[&[u8]]) -> Vec<Digest> {
    let mut order: Vec<usize> = (0..messages.len()).collect();
    order.sort_unstable_by_key(|number| std::cmp::Reverse(messages[*number].len()));
    let mut waiting = order.into_iter().map(|number| (number, Hashing::begin(messages[number])));
    let mut digests = vec![Digest([0; Digest::BYTES]); messages.len()];
    let mut running: Vec<(usize, Hashing<'_>)> = waiting.by_ref().take(Digest::AT_ONCE).collect();
    while !running.is_empty() {
        match &mut running[..] {
            [one, two, three, four] => step(lanes, [one, two, three, four]),
            [one, two, three] => step(lanes, [one, two, three]),
            [one, two] => step(lanes, [one, two]),
            others => others.iter_mut().for_each(|(_, hashing)| hashing.end()),
        }
        running.retain_mut(|lane| {
            if !lane.1.is_done() {
                return true;
            }
            digests[lane.0] = lane.1.digest();
            waiting.next().map(|next| *lane = next).is_some()
        });
    }
    digests
}

/// Takes messages on together, as far as the nearest end of one.
fn step<const N: usize>(lanes: Lanes, mut running: [&mut (usize, Hashing<'_>); N]) {
    let mut states = running.each_ref().map(|(_, hashing)| hashing.state);
    let blocks = running.each_ref().map(|(_, hashing)| hashing.left());
    let count = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
    lanes.compress(&mut states, blocks);
    for ((_, hashing), state) in running.iter_mut().zip(states) {
        hashing.state = state;
        hashing.taken += count;
    }
}

/// A message that is being hashed.
#[derive(Debug, Clone)]
struct Hashing<'a> {
    state: State,
    /// Its whole blocks.
    whole: &'a [Block],
    /// What is left of it and its length, in one block or two.
    padded: [Block; 2],
    padded_len: usize,
    /// Blocks that are in the state.
    taken: usize,
}

impl<'a> Hashing<'a> {
    fn begin(message: &'a [u8]) -> Self {
        let (whole, rest) = message.as_chunks();
        let mut padded = [0; 128];
        padded[..rest.len()].copy_from_slice(rest);
        padded[rest.len()] = 0x80;
        let padded_len = if rest.len() < 56 { 1 } else { 2 };
        let bits = message.len() as u64 * 8;
        padded[padded_len * 64 - 8..padded_len * 64].copy_from_slice(&bits.to_be_bytes());
        let padded = [0, 64].map(|at| std::array::from_fn(|byte| padded[at + byte]));
        Self { state: FIRST, whole, padded, padded_len, taken: 0 }
    }

    /// Returns blocks that come next: of the message, then of its padding.
    fn left(&self) -> &[Block] {
        match self.whole.get(self.taken..) {
            Some(whole) if !whole.is_empty() => whole,
            _ => &self.padded[self.taken - self.whole.len()..self.padded_len],
        }
    }

    fn is_done(&self) -> bool {
        self.taken == self.whole.len() + self.padded_len
    }

    /// Takes all that is left, alone.
    fn end(&mut self) {
        while !self.is_done() {
            let (mut state, blocks) = (self.state, self.left());
            let count = blocks.len();
            compress256(&mut state, blocks);
            (self.state, self.taken) = (state, self.taken + count);
        }
    }

    fn digest(&self) -> Digest {
        let mut bytes = [0; Digest::BYTES];
        for (four, word) in bytes.as_chunks_mut().0.iter_mut().zip(self.state) {
            *four = word.to_be_bytes();
        }
        Digest(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message of this length, unlike every other.
    fn message(number: usize, len: usize) -> Vec<u8> {
        (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 7) as u8 ^ number as u8).collect()
    }

    fn assert_alike(lengths: &[usize]) {
        let messages: Vec<Vec<u8>> =
            lengths.iter().enumerate().map(|(number, len)| message(number, *len)).collect();
        let together: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let expected: Vec<Digest> = messages.iter().map(|message| Digest::of(message)).collect();
        assert_eq!(Digest::of_each(&together), expected, "{lengths:?}");
    }

    #[test]
    fn each_message_has_the_digest_that_it_has_alone() {
        for lengths in [
            &[][..],
            &[5],
            &[0, 0],
            &[0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129],
            &[1_000_000, 3],
            &[70_000, 200_000, 1],
            &[64, 64, 64, 64],
            &[10_000; 9],
            &[128, 5_000, 64, 90_000, 0, 77, 1_000_000],
        ] {
            assert_alike(lengths);
        }
    }

    proptest! {
        #[test]
        fn lengths_of_any_kind_are_hashed_right(lengths in prop::collection::vec(0_usize..700, 0..40)) {
            assert_alike(&lengths);
        }
    }

    #[test]
    fn a_message_that_is_hashed_alone_in_the_end_is_hashed_by_the_library() {
        for len in [0, 1, 64, 1_000] {
            let message = message(3, len);
            let mut hashing = Hashing::begin(&message);
            hashing.end();
            assert_eq!(hashing.digest(), Digest::of(&message));
        }
    }
}
