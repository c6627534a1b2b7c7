//! What travels: content-addressed frames, and the plans that order them.
//!
//! A *frame* is a run of compressed bytes named by its digest: zstd, either plain or against base contents that
//! the receiver has. A *plan* says which frames turn one package (or nothing) into another. Both are data:
//! computed once, cached, served to any number of hosts, resumed at the byte. The receiver checks the frame's
//! digest and then each part's, so that an encoder may be clever because it cannot lie.
//!
//! `plan` decides (pure), `encode` compresses, `wire` fixes the bytes of a plan, `decode` restores and verifies.

mod archive;
mod cost;
mod decode;
mod encode;
mod filter;
mod image;
mod leans;
mod likeness;
mod manifest_frame;
mod memory;
mod plan;
mod wire;

use std::io::{self, Read};

use crate::caps;
use crate::digest::Digest;

pub use cost::{Cost, cost};
pub use decode::{DecodeFrameError, PartSink, Workspace, decode_frame};
pub use encode::{Effort, EffortError, EncodeError, EncodedFrame, encode_all, encode_frame};
pub use manifest_frame::{decode_manifest, encode_manifest, encode_once};
pub use plan::plan;
pub use wire::encode_plan;

/// Serves the contents of a package by digest. What it serves may be damaged: receivers verify.
pub trait ContentSource: Sync {
    /// Opens the content at a byte offset.
    fn reader(&self, content: &Digest, offset: u64) -> io::Result<Box<dyn Read + '_>>;
}

/// The source of nothing: the base of a cold install.
pub struct NoContent;

impl ContentSource for NoContent {
    fn reader(&self, content: &Digest, _offset: u64) -> io::Result<Box<dyn Read + '_>> {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("{content} has no base here")))
    }
}

/// A run of bytes of one content, by its number in [`crate::manifest::Manifest::contents`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The content's number.
    pub content: u32,
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// Bytes that the receiver has before a frame comes, and that the frame leans on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lean {
    /// Of a content of the base package.
    Base(Extent),
    /// Of a content of the target package: within one part of an earlier frame of the same plan.
    Produced(Extent),
}

impl Lean {
    /// Returns which bytes, of whichever package.
    pub fn extent(&self) -> &Extent {
        match self {
            Self::Base(extent) | Self::Produced(extent) => extent,
        }
    }

    /// Returns the bytes of the base package; nothing where it leans on what was produced.
    pub fn of_base(&self) -> Option<&Extent> {
        match self {
            Self::Base(extent) => Some(extent),
            Self::Produced(_) => None,
        }
    }

    /// Returns the bytes of the target package that earlier frames have produced.
    pub fn of_produced(&self) -> Option<&Extent> {
        match self {
            Self::Base(_) => None,
            Self::Produced(extent) => Some(extent),
        }
    }
}

/// A frame as planned, before it is compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSpec {
    /// What the frame leans on, in order; empty for a plain frame.
    pub base: Vec<Lean>,
    /// What of the target package the frame holds, in order.
    pub parts: Vec<Extent>,
}

impl FrameSpec {
    /// Returns the raw bytes that the frame restores.
    pub fn raw_len(&self) -> u64 {
        self.parts.iter().map(|part| part.len).sum()
    }

    /// Returns the base bytes that the frame leans on.
    pub fn base_len(&self) -> u64 {
        self.base.iter().map(|lean| lean.extent().len).sum()
    }

    /// Says whether the frame leans on the base package: then it is of use only to who has that package.
    pub fn needs_base(&self) -> bool {
        self.base.iter().any(|lean| lean.of_base().is_some())
    }
}

/// A part of a frame with the digest of its raw bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which bytes of the target.
    pub extent: Extent,
    /// SHA-256 of these bytes: the content's own digest where the part is the whole content.
    pub digest: Digest,
}

/// How the bytes of a frame are made. A number, once given, is never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// zstd, with the base as prefix where there is one.
    Zstd,
    /// Differences to the base, aware of executables.
    Image,
    /// Differences of what archives hold.
    Archive,
    /// zstd of bytes in which calls and jumps of programs for x86-64 name where they go.
    Filtered,
}

impl Codec {
    /// Returns the codec's number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Zstd => 0,
            Self::Image => 1,
            Self::Archive => 2,
            Self::Filtered => 3,
        }
    }

    /// Says whether a frame of so many raw bytes that leans on so many can be restored in bounded memory.
    pub fn fits(self, raw_bytes: u64, base_bytes: u64) -> bool {
        match self {
            // The prefix and the window are held in memory.
            Self::Zstd | Self::Filtered => {
                raw_bytes <= caps::ZSTD_FRAME_BYTES_MAX && base_bytes <= caps::ZSTD_FRAME_BASE_BYTES_MAX
            }
            // The base is read by place, and what is restored is not read again.
            Self::Image | Self::Archive => {
                raw_bytes <= caps::FRAME_BYTES_MAX && base_bytes <= caps::FRAME_BASE_BYTES_MAX
            }
        }
    }

    /// Returns the codec of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        let known = [Self::Zstd, Self::Image, Self::Archive, Self::Filtered];
        known.into_iter().find(|codec| codec.number() == number)
    }
}

/// A frame as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// SHA-256 of the compressed bytes: the frame's name.
    pub digest: Digest,
    /// Length of the compressed bytes.
    pub wire_len: u64,
    /// How they are made.
    pub codec: Codec,
    /// What it leans on, in order.
    pub base: Vec<Lean>,
    /// What it holds.
    pub parts: Vec<Part>,
}

impl Frame {
    /// Returns the raw bytes that the frame restores.
    pub fn raw_len(&self) -> u64 {
        self.parts.iter().map(|part| part.extent.len).sum()
    }

    /// Returns what serving it takes.
    pub fn outline(&self) -> FrameOutline {
        FrameOutline { digest: self.digest, wire_len: self.wire_len, raw_len: self.raw_len() }
    }

    /// Says whether the frame leans on what other frames of its plan restore, and so comes after them.
    pub fn is_chained(&self) -> bool {
        self.base.iter().any(|lean| Lean::of_produced(lean).is_some())
    }

    /// Returns about how much memory it takes to restore the frame. Of a zstd frame that is the window and what it leans
    /// on. Of the others, the frame as it came, references (0.65 bytes for each byte of the base and executables have no
    /// more), blocks (0.5 for each raw byte), and streams, pages and buffers.
    pub fn restoring_bytes(&self) -> u64 {
        match self.codec {
            Codec::Zstd | Codec::Filtered => self.raw_len() + self.base_len(),
            Codec::Image | Codec::Archive => {
                self.wire_len + self.base_len() / 20 * 13 + self.raw_len() / 2 + caps::AWARE_WORKING_BYTES
            }
        }
    }

    /// Returns how much of [`Self::restoring_bytes`] is memory that one frame at a time has, for as long as it is decoded: the
    /// [`Workspace`] hands it on.
    pub fn shared_bytes(&self) -> u64 {
        match self.codec {
            Codec::Zstd if !self.is_chained() => self.base_len(),
            Codec::Zstd | Codec::Filtered | Codec::Image | Codec::Archive => 0,
        }
    }

    /// Returns the bytes that the frame leans on.
    fn base_len(&self) -> u64 {
        self.base.iter().map(|lean| lean.extent().len).sum()
    }
}

/// The frames that turn `base` into `target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferPlan {
    /// The package that the receiver has; nothing for a cold install.
    pub base: Option<Digest>,
    /// The package that it gets.
    pub target: Digest,
    /// The frames, in the order in which they are sent: each leans on the base and on frames before it only.
    pub frames: Vec<Frame>,
}

impl TransferPlan {
    /// Returns the compressed bytes of all frames.
    pub fn wire_len(&self) -> u64 {
        self.frames.iter().map(|frame| frame.wire_len).sum()
    }
}

/// What is to be known of a frame to serve it: of a million small files this is a few dozen bytes, where their parts are 56 MB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameOutline {
    /// The frame's name.
    pub digest: Digest,
    /// Length of the compressed bytes.
    pub wire_len: u64,
    /// Raw bytes that the frame restores.
    pub raw_len: u64,
}

/// A plan without what its frames hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanOutline {
    /// The package that the receiver has; nothing for a cold install.
    pub base: Option<Digest>,
    /// The package that it gets.
    pub target: Digest,
    /// The frames, in the order in which they are sent.
    pub frames: Vec<FrameOutline>,
}

#[cfg(test)]
mod tests;
