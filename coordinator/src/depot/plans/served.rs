//! A plan as it is served: what a host is sent before the frames, and their names and lengths.

use std::collections::HashMap;

use bytes::Bytes;
use sluice_common::digest::Digest;
use sluice_common::manifest::Manifest;
use sluice_common::spec;
use sluice_common::transfer::{Effort, FrameOutline, PlanOutline};

use super::PlanKey;

/// What a frame of a plan weighs in memory: its outline, and its place in a table of lengths.
const FRAME_BYTES: usize = 112;

/// The frame of a manifest, by name and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestFrame {
    /// Its name.
    pub digest: Digest,
    /// Length of the compressed bytes.
    pub wire_len: u64,
}

impl ManifestFrame {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), wire_len: bytes.len() as u64 }
    }
}

/// A plan with all that a host is sent before the frames.
#[derive(Debug)]
pub struct ServedPlan {
    /// The package that the host must have; nothing for a cold install.
    pub base: Option<Digest>,
    /// The package that it gets.
    pub target: Digest,
    /// The effort that made it.
    pub effort: Effort,
    /// Length of the target's `sluice.toml`, which comes with the header, as it is.
    spec_len: u64,
    /// The target's manifest, compressed against the base's: of a million files it has 37 MB, and is read as it is sent.
    pub manifest_frame: ManifestFrame,
    /// The plan, encoded.
    pub plan_bytes: Bytes,
    /// Digest of the encoded plan.
    pub(in crate::depot) plan_digest: Digest,
    /// Its frames.
    pub frames: Vec<FrameOutline>,
    lengths: HashMap<Digest, u64>,
}

impl ServedPlan {
    pub(super) fn new(
        effort: Effort,
        outline: PlanOutline,
        plan_bytes: Bytes,
        manifest_frame: ManifestFrame,
        manifest: &Manifest,
    ) -> Self {
        let PlanOutline { base, target, frames } = outline;
        let named = frames.iter().map(|frame| (frame.digest, frame.wire_len));
        let lengths = named.chain([(manifest_frame.digest, manifest_frame.wire_len)]).collect();
        let plan_digest = Digest::of(&plan_bytes);
        let spec_len = spec::content(manifest).map_or(0, |content| content.size);
        Self { base, target, effort, spec_len, manifest_frame, plan_bytes, plan_digest, frames, lengths }
    }

    /// Returns the length of a frame, or of the manifest's; nothing when the plan does not name it.
    pub fn frame_len(&self, frame: &Digest) -> Option<u64> {
        self.lengths.get(frame).copied()
    }

    /// Returns everything that a host is sent: `sluice.toml`, manifest, plan and frames.
    pub fn wire_bytes(&self) -> u64 {
        let frames: u64 = self.frames.iter().map(|frame| frame.wire_len).sum();
        self.spec_len + self.manifest_frame.wire_len + self.plan_bytes.len() as u64 + frames
    }

    pub(super) fn raw_bytes(&self) -> u64 {
        self.frames.iter().map(|frame| frame.raw_len).sum()
    }

    pub(super) fn key(&self) -> PlanKey {
        PlanKey { base: self.base, target: self.target, effort: self.effort }
    }

    pub(super) fn weight(&self) -> u64 {
        (self.plan_bytes.len() + self.frames.len() * FRAME_BYTES) as u64
    }
}
