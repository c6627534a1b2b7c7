//! A hash that stops in the middle of a message and is taken on later, with others at the same time.

use std::io::{self, Read};

use sha2::block_api::compress256;

use super::Digest;
use super::many::{BLOCK_BYTES, Block, FIRST, State};

/// Bytes read at once: whole blocks.
const BUFFER_BYTES: usize = 128 * 1024;

/// The SHA-256 of the beginning of a message, which is taken on by what follows.
#[derive(Debug, Clone)]
pub struct Beginning {
    state: State,
    /// Bytes that were taken.
    len: u64,
    /// The last of them, which fill no block.
    rest: Vec<u8>,
}

impl Default for Beginning {
    fn default() -> Self {
        Self { state: FIRST, len: 0, rest: Vec::new() }
    }
}

impl Beginning {
    /// Begins with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many bytes were taken.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Says whether no byte was taken yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        let (mut state, blocks) = self.take(bytes);
        compress256(&mut state, blocks);
        self.go_on(state);
    }

    /// Takes all that a reader gives, and returns the digest of the whole message with its length.
    pub fn finish(mut self, mut reader: impl Read) -> io::Result<(Digest, u64)> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok((self.digest(), self.len)),
                Ok(n) => self.update(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the bytes that follow, but for the blocks that it returns: these are to be compressed into the state beside them, and
    /// [`Self::go_on`] from there.
    pub(super) fn take<'a>(&mut self, mut bytes: &'a [u8]) -> (State, &'a [Block]) {
        self.len += bytes.len() as u64;
        if !self.rest.is_empty() {
            let (filling, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.rest.len()));
            self.rest.extend_from_slice(filling);
            bytes = later;
            if let ([block], _) = self.rest.as_chunks() {
                compress256(&mut self.state, &[*block]);
                self.rest.clear();
            }
        }
        let (blocks, rest) = bytes.as_chunks();
        self.rest.extend_from_slice(rest);
        (self.state, blocks)
    }

    /// Goes on from the state after the blocks that were taken.
    pub(super) fn go_on(&mut self, state: State) {
        self.state = state;
    }

    /// Returns the digest of what was taken.
    pub fn digest(&self) -> Digest {
        let (mut state, (padding, blocks)) = (self.state, padded(&self.rest, self.len));
        compress256(&mut state, &padding[..blocks]);
        digest(&state)
    }
}

/// Returns the last bytes of a message and its length, in one block or two, as FIPS 180-4, section 5.1.1, has it.
pub(super) fn padded(rest: &[u8], len: u64) -> ([Block; 2], usize) {
    let mut padded = [0; 2 * BLOCK_BYTES];
    padded[..rest.len()].copy_from_slice(rest);
    padded[rest.len()] = 0x80;
    let blocks = if rest.len() < BLOCK_BYTES - 8 { 1 } else { 2 };
    padded[blocks * BLOCK_BYTES - 8..blocks * BLOCK_BYTES].copy_from_slice(&(len * 8).to_be_bytes());
    ([0, BLOCK_BYTES].map(|at| std::array::from_fn(|byte| padded[at + byte])), blocks)
}

/// Returns the digest that a last state is.
pub(super) fn digest(state: &State) -> Digest {
    let mut bytes = [0; Digest::BYTES];
    for (four, word) in bytes.as_chunks_mut().0.iter_mut().zip(state) {
        *four = word.to_be_bytes();
    }
    Digest(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wherever_a_message_is_cut_its_digest_is_the_same() {
        let message: Vec<u8> = (0..1_000_u32).map(|at| (at * 7) as u8).collect();
        for cuts in
            [&[][..], &[0], &[64], &[63, 64], &[1, 2, 3], &[55, 56, 120, 128], &[999], &[128, 512, 1_000]]
        {
            let (mut beginning, mut at) = (Beginning::new(), 0);
            for cut in cuts {
                beginning.update(&message[at..*cut]);
                at = *cut;
                assert_eq!(beginning.len(), at as u64);
            }
            assert_eq!(beginning.finish(&message[at..]).unwrap(), (Digest::of(&message), 1_000), "{cuts:?}");
        }
        assert_eq!(Beginning::new().finish(io::empty()).unwrap(), (Digest::of(b""), 0));
    }
}
