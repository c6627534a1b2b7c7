//! Content on disk, as a coordinator would serve it: every plan and frame is made beforehand, so that the process under
//! test only reads them.
//!
//! ```text
//! STORE/<target>-<base or none>.manifest, .plan
//! STORE/<frame>.frame
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use sluice_common::digest::Digest;
use sluice_common::manifest::Manifest;
use sluice_common::transfer::{
    ContentSource, Effort, NoContent, TransferPlan, encode_all, encode_manifest, plan,
};
use sluice_common::tree::Tree;

use crate::content::{
    Begun, ContentClient, ContentError, FrameChunk, FrameStream, FrameWanted, Origin, PlanReply, WireCount,
};

/// Bytes that come at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Serves what was [`fill`]ed in.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    sent: Arc<AtomicU64>,
}

/// Encodes the way from `base` to `target` into the store at `dir`; returns the target's package.
pub fn fill(dir: &Path, base: Option<&Tree>, target: &Tree) -> anyhow::Result<Digest> {
    let base_manifest = base.map(Tree::manifest);
    let base_contents = base_manifest.map(Manifest::contents).unwrap_or_default();
    let source: &dyn ContentSource = match base {
        Some(tree) => tree,
        None => &NoContent,
    };
    let contents = target.manifest().contents();
    let specs = plan(base_manifest, target.manifest(), Effort::Quick);
    let (from, to) = ((base_contents, source), (contents, target as &dyn ContentSource));
    let frames = encode_all(&specs, from, to, Effort::Quick, 1, |_, frame| Ok(frame))?;
    let package = target.manifest().digest();
    let plan = TransferPlan {
        base: base_manifest.map(Manifest::digest),
        target: package,
        frames: frames.iter().map(|frame| frame.frame.clone()).collect(),
    };
    for frame in &frames {
        fs_err::write(dir.join(format!("{}.frame", frame.frame.digest.to_hex())), &frame.bytes)?;
    }
    let base_bytes = base_manifest.map(Manifest::as_bytes).unwrap_or_default();
    let name = way(package, plan.base);
    let manifest = encode_manifest(target.manifest().as_bytes(), base_bytes)?;
    fs_err::write(dir.join(format!("{name}.manifest")), manifest)?;
    fs_err::write(dir.join(format!("{name}.plan")), plan.encode(base_contents, contents)?)?;
    Ok(package)
}

fn way(target: Digest, base: Option<Digest>) -> String {
    let base = base.map_or_else(|| "none".to_owned(), |base| base.to_hex());
    format!("{}-{base}", target.to_hex())
}

impl Store {
    /// Serves the store at `dir`.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), sent: Arc::default() }
    }

    fn answer(&self, target: Digest, bases: &[Digest]) -> std::io::Result<PlanReply> {
        let has = |base: &Digest| self.dir.join(format!("{}.plan", way(target, Some(*base)))).exists();
        let base = bases.iter().copied().find(has);
        let read = |kind: &str| fs_err::read(self.dir.join(format!("{}.{kind}", way(target, base))));
        Ok(PlanReply { base, manifest: read("manifest")?, plan: read("plan")?, spec: Vec::new() })
    }

    fn frame(&self, number: usize, wanted: FrameWanted) -> Vec<Result<FrameChunk, ContentError>> {
        let path = self.dir.join(format!("{}.frame", wanted.digest.to_hex()));
        match fs_err::read(path) {
            Ok(bytes) => {
                let bytes = Bytes::from(bytes).split_off(wanted.offset as usize);
                self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let chunks = (0..bytes.len()).step_by(CHUNK_BYTES);
                let part = |at: usize| bytes.slice(at..bytes.len().min(at + CHUNK_BYTES));
                chunks.map(|at| Ok(FrameChunk { frame: number, data: part(at) })).collect()
            }
            Err(error) => vec![Err(ContentError::Unreachable(error.to_string()))],
        }
    }
}

impl ContentClient for Store {
    fn plan<'a>(
        &'a mut self,
        target: Digest,
        bases: Vec<Digest>,
        _: &'a mut Begun,
    ) -> BoxFuture<'a, Result<PlanReply, ContentError>> {
        let answer = self.answer(target, &bases);
        Box::pin(async move { answer.map_err(|error| ContentError::Unreachable(error.to_string())) })
    }

    fn fetch(
        &mut self,
        _target: Digest,
        _base: Option<Digest>,
        frames: Vec<FrameWanted>,
    ) -> BoxFuture<'_, Result<FrameStream, ContentError>> {
        let store = self.clone();
        let frames = frames.into_iter().enumerate();
        let chunks = frames.flat_map(move |(number, wanted)| store.frame(number, wanted));
        Box::pin(async move { Ok(futures::stream::iter(chunks).boxed()) })
    }

    fn wire(&self) -> WireCount {
        let sent = self.sent.clone();
        Arc::new(move || sent.load(Ordering::Relaxed))
    }
}

impl Origin for Store {
    type Client = Self;

    fn open(&self) -> Self {
        self.clone()
    }
}
