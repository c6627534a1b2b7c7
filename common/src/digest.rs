//! SHA-256 digests: the names of packages, files, chunks and frames.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

mod beginning;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(not(target_arch = "x86_64"))]
#[path = "digest/no_lanes.rs"]
mod lanes;
mod many;

pub use beginning::Beginning;

/// The SHA-256 of some bytes, written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

/// Says why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: {text:?}; expected sha256:<64 hex digits>")]
pub struct ParseError {
    text: String,
}

impl Digest {
    /// Length of the raw digest.
    pub const BYTES: usize = 32;
    /// Messages that [`Self::of_each`] hashes together: as many as make it faster.
    pub const AT_ONCE: usize = 4;

    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Hashes each of `messages`, in their order: together where the processor can, in about half of the time.
    pub fn of_each(messages: &[&[u8]]) -> Vec<Self> {
        Self::of_each_and(messages, &mut [])
    }

    /// Hashes as [`Self::of_each`] does, and together with the messages takes beginnings on, each by the bytes beside it.
    pub fn of_each_and(messages: &[&[u8]], beginnings: &mut [(&[u8], Beginning)]) -> Vec<Self> {
        match lanes::Lanes::detect() {
            Some(lanes) if messages.len() + beginnings.len() > 1 => many::hash(lanes, messages, beginnings),
            Some(_) | None => {
                for (bytes, beginning) in beginnings {
                    beginning.update(bytes);
                }
                messages.iter().map(|message| Self::of(message)).collect()
            }
        }
    }

    /// Hashes a reader to its end and returns the digest with the length read.
    pub fn of_reader(mut reader: impl Read) -> io::Result<(Self, u64)> {
        let mut hasher = Hasher::new();
        // Most files are small: a large buffer would take longer to clear than they to hash.
        let (mut small, mut large) = ([0; 16 * 1024], Vec::new());
        loop {
            if hasher.len() >= small.len() as u64 {
                large.resize(128 * 1024, 0);
            }
            let buffer = if large.is_empty() { &mut small[..] } else { &mut large[..] };
            match reader.read(buffer) {
                Ok(0) => return Ok((hasher.finish(), hasher.len())),
                Ok(n) => hasher.update(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Wraps raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Wraps a slice, or returns nothing when it is not 32 bytes long.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns all 64 hex digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Returns the first eight bytes as a number: enough to tell a few million digests apart nearly always, in a quarter of the room.
    pub fn beginning(&self) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().expect("a digest has more than eight bytes"))
    }

    /// Returns the first 12 hex digits: what people read and what release directories are called.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.short())
    }
}

impl FromStr for Digest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError { text: text.chars().take(80).collect() };
        let digits = text.strip_prefix("sha256:").ok_or_else(error)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| error())?;
        Ok(Self(bytes))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

/// Hashes bytes as they pass.
#[derive(Clone, Default)]
pub struct Hasher {
    inner: sha2::Sha256,
    len: u64,
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
        self.len += bytes.len() as u64;
    }

    /// Returns how many bytes were added.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Says whether no byte was added yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the digest of all bytes added so far.
    pub fn finish(&self) -> Digest {
        Digest(self.inner.clone().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_rejects_everything_else() {
        let digest = Digest::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
        assert_eq!(digest.short(), "ba7816bf8f01");
        for bad in ["", "abc", &text[7..], "sha256:zz", &text[..70], &format!("{text}0")] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn streaming_and_single_shot_agree() {
        let bytes = vec![7_u8; 300_000];
        assert_eq!(Digest::of_reader(&bytes[..]).unwrap(), (Digest::of(&bytes), 300_000));
    }
}
