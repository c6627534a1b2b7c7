//! Hashes several messages, four at a time.

use sha2::block_api::compress256;

use super::beginning::{digest, padded};
use super::lanes::Lanes;
use super::{Beginning, Digest};

/// The words of a hash between two blocks.
pub(super) type State = [u32; 8];
/// What is compressed at once.
pub(super) type Block = [u8; BLOCK_BYTES];
/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 64;

/// The first state: H(0) of FIPS 180-4, section 5.3.3.
pub(super) const FIRST: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Returns the digest of each message, in their order, and takes each beginning on by the bytes beside it. The longest
/// is begun first, so that what is left in the end for fewer lanes is short.
pub(super) fn hash(lanes: Lanes, messages: &[&[u8]], beginnings: &mut [(&[u8], Beginning)]) -> Vec<Digest> {
    let begun: Vec<(State, &[Block])> =
        beginnings.iter_mut().map(|(bytes, beginning)| beginning.take(bytes)).collect();
    let lengths = messages.iter().map(|message| message.len() / BLOCK_BYTES);
    let lengths: Vec<usize> = lengths.chain(begun.iter().map(|(_, blocks)| blocks.len())).collect();
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_unstable_by_key(|number| std::cmp::Reverse(lengths[*number]));
    let mut waiting = order.into_iter().map(|number| {
        let hashing = match messages.get(number) {
            Some(message) => Hashing::whole(message),
            None => Hashing::on(begun[number - messages.len()]),
        };
        (number, hashing)
    });
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
            match digests.get_mut(lane.0) {
                Some(found) => *found = digest(&lane.1.state),
                None => beginnings[lane.0 - messages.len()].1.go_on(lane.1.state),
            }
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
    blocks: &'a [Block],
    /// What is left of it and its length, in one block or two; in none where more of it follows later.
    padding: [Block; 2],
    padding_len: usize,
    /// Blocks that are in the state.
    taken: usize,
}

impl<'a> Hashing<'a> {
    /// Begins a message of which nothing follows.
    fn whole(message: &'a [u8]) -> Self {
        let (blocks, rest) = message.as_chunks();
        let (padding, padding_len) = padded(rest, message.len() as u64);
        Self { state: FIRST, blocks, padding, padding_len, taken: 0 }
    }

    /// Takes on what was begun, of which more follows.
    fn on((state, blocks): (State, &'a [Block])) -> Self {
        Self { state, blocks, padding: [[0; BLOCK_BYTES]; 2], padding_len: 0, taken: 0 }
    }

    /// Returns blocks that come next: of the message, then of its padding.
    fn left(&self) -> &[Block] {
        match self.blocks.get(self.taken..) {
            Some(blocks) if !blocks.is_empty() => blocks,
            _ => &self.padding[self.taken - self.blocks.len()..self.padding_len],
        }
    }

    fn is_done(&self) -> bool {
        self.taken == self.blocks.len() + self.padding_len
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
            let mut hashing = Hashing::whole(&message);
            hashing.end();
            assert_eq!(digest(&hashing.state), Digest::of(&message));
        }
    }

    #[test]
    fn what_is_begun_is_taken_on_beside_the_messages_that_it_goes_on_with() {
        for (begun, lengths, numbers) in [
            (&[0, 64, 1_000_000][..], &[100_000][..], &[0, 0, 0][..]),
            (&[63], &[1, 64, 200], &[1]),
            (&[64, 65], &[5_000, 0, 777, 64, 3], &[4, 1]),
            (&[], &[5_000, 77], &[]),
            (&[10], &[], &[]),
        ] {
            let messages: Vec<Vec<u8>> =
                lengths.iter().enumerate().map(|(number, len)| message(number, *len)).collect();
            let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
            let begun: Vec<Vec<u8>> = begun.iter().map(|len| message(99, *len)).collect();
            let mut beginnings: Vec<(&[u8], Beginning)> = numbers
                .iter()
                .zip(&begun)
                .map(|(number, bytes)| {
                    let mut beginning = Beginning::new();
                    beginning.update(bytes);
                    (messages[*number], beginning)
                })
                .collect();
            let digests = Digest::of_each_and(&messages, &mut beginnings);
            let alone: Vec<Digest> = messages.iter().map(|message| Digest::of(message)).collect();
            assert_eq!(digests, alone, "{lengths:?}");
            for ((later, beginning), bytes) in beginnings.into_iter().zip(&begun) {
                let whole = [&bytes[..], later, b"end"].concat();
                let expected = (Digest::of(&whole), whole.len() as u64);
                assert_eq!(beginning.digest(), Digest::of(&[&bytes[..], later].concat()));
                assert_eq!(
                    beginning.finish(&b"end"[..]).unwrap(),
                    expected,
                    "{} {}",
                    bytes.len(),
                    later.len()
                );
            }
        }
    }
}
