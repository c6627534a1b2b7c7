//! What a cold install and an update would send, found by encoding them.

use crate::manifest::Manifest;
use crate::spec;
use crate::tree::Tree;

use super::{ContentSource, Effort, EncodeError, NoContent, TransferPlan, encode_all, encode_manifest, plan};

/// Bytes that a transfer sends, all of them counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// The `sluice.toml` of the target, as it is.
    pub spec_bytes: u64,
    /// The manifest, compressed.
    pub manifest_bytes: u64,
    /// The plan, compressed.
    pub plan_bytes: u64,
    /// The frames.
    pub frame_bytes: u64,
}

impl Cost {
    /// Returns everything that is sent.
    pub fn total(&self) -> u64 {
        self.spec_bytes + self.manifest_bytes + self.plan_bytes + self.frame_bytes
    }
}

/// Encodes the transfer from `base` (nothing: a cold install) to `target` on `workers` threads and returns its cost.
/// `progress` is told the raw bytes of each frame as it is done.
pub fn cost(
    base: Option<&Tree>,
    target: &Tree,
    effort: Effort,
    workers: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Cost, EncodeError> {
    let base_manifest = base.map(Tree::manifest);
    let base_bytes = base_manifest.map(Manifest::as_bytes).unwrap_or_default();
    let base_contents = base_manifest.map(Manifest::contents).unwrap_or_default();
    let target_contents = target.manifest().contents();
    let source: &dyn ContentSource = match base {
        Some(tree) => tree,
        None => &NoContent,
    };
    let wanted = plan(base_manifest, target.manifest(), effort);
    let frames = encode_all(
        &wanted,
        (base_contents, source),
        (target_contents, target),
        effort,
        workers,
        |_, done| {
            progress(done.frame.raw_len());
            Ok(done.frame)
        },
    )?;
    let plan = TransferPlan {
        base: base_manifest.map(Manifest::digest),
        target: target.manifest().digest(),
        frames,
    };
    Ok(Cost {
        spec_bytes: spec::content(target.manifest()).map_or(0, |content| content.size),
        manifest_bytes: encode_manifest(target.manifest().as_bytes(), base_bytes)?.len() as u64,
        plan_bytes: plan.encode(base_contents, target_contents)?.len() as u64,
        frame_bytes: plan.wire_len(),
    })
}
