//! A content source in memory, with the faults that networks and depots have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

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

/// Serves packed trees; clones share everything.
#[derive(Clone, Default)]
pub(crate) struct MemorySource {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    trees: HashMap<Digest, Arc<Tree>>,
    frames: HashMap<Digest, Vec<u8>>,
    faults: Faults,
    seen: Seen,
}

/// What goes wrong.
#[derive(Default, Clone)]
pub(crate) struct Faults {
    /// Fetches end after so many bytes, each taken once.
    pub(crate) cuts: Vec<usize>,
    /// In so many fetches to come a byte of the first frame is flipped.
    pub(crate) flips: u32,
    /// A byte of the first frame is flipped in the source itself, so that its digest fits no more... for ever.
    pub(crate) rotten: bool,
    /// Nobody answers.
    pub(crate) away: bool,
    /// The source refuses.
    pub(crate) refuses: bool,
    /// Bases are no use to the source: its plans are those of cold installs.
    pub(crate) is_plain: bool,
}

/// What was asked.
#[derive(Default, Clone)]
pub(crate) struct Seen {
    /// Bases offered, request by request.
    pub(crate) bases: Vec<Vec<Digest>>,
    /// Frames wanted, request by request.
    pub(crate) fetches: Vec<Vec<FrameWanted>>,
    /// Frame bytes sent.
    pub(crate) sent: usize,
}

impl MemorySource {
    /// Adds a package and returns its name.
    pub(crate) fn add(&self, root: &std::path::Path) -> Digest {
        let tree = Tree::scan(root).unwrap();
        let package = tree.manifest().digest();
        self.inner.lock().unwrap().trees.insert(package, Arc::new(tree));
        package
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.inner.lock().unwrap().faults);
    }

    pub(crate) fn seen(&self) -> Seen {
        self.inner.lock().unwrap().seen.clone()
    }
}

impl Inner {
    fn answer_plan(&mut self, target: Digest, bases: Vec<Digest>) -> Result<PlanReply, ContentError> {
        if self.faults.away {
            return Err(ContentError::Unreachable("away".into()));
        }
        if self.faults.refuses {
            return Err(ContentError::Refused("not in an order of this host".into()));
        }
        self.seen.bases.push(bases.clone());
        let usable = bases.iter().filter(|_| !self.faults.is_plain);
        let base = usable.filter_map(|base| self.trees.get(base)).next().cloned();
        let target = self.trees.get(&target).cloned().expect("tests ask for what they added");
        let base_manifest = base.as_deref().map(Tree::manifest);
        let base_contents = base_manifest.map(Manifest::contents).unwrap_or_default();
        let source: &dyn ContentSource = match base.as_deref() {
            Some(tree) => tree,
            None => &NoContent,
        };
        let contents = target.manifest().contents();
        let specs = plan(base_manifest, target.manifest(), Effort::Quick);
        let frames = encode_all(
            &specs,
            (base_contents, source),
            (contents, target.as_ref()),
            Effort::Quick,
            1,
            |_, frame| Ok(frame),
        )
        .unwrap();
        let plan = TransferPlan {
            base: base_manifest.map(Manifest::digest),
            target: target.manifest().digest(),
            frames: frames.iter().map(|frame| frame.frame.clone()).collect(),
        };
        self.frames.extend(frames.into_iter().map(|frame| (frame.frame.digest, frame.bytes)));
        let base_bytes = base_manifest.map(Manifest::as_bytes).unwrap_or_default();
        Ok(PlanReply {
            base: plan.base,
            manifest: encode_manifest(target.manifest().as_bytes(), base_bytes).unwrap(),
            plan: plan.encode(base_contents, contents).unwrap(),
            spec: fs_err::read(target.root().join("sluice.toml")).unwrap_or_default(),
        })
    }

    fn answer_frames(&mut self, wanted: Vec<FrameWanted>) -> Result<FrameStream, ContentError> {
        if self.faults.away {
            return Err(ContentError::Unreachable("away".into()));
        }
        self.seen.fetches.push(wanted.clone());
        let mut left = if self.faults.cuts.is_empty() { usize::MAX } else { self.faults.cuts.remove(0) };
        let flips = self.faults.rotten || self.faults.flips > 0;
        self.faults.flips = self.faults.flips.saturating_sub(1);
        let mut items = Vec::new();
        for (number, frame) in wanted.iter().enumerate() {
            let Some(bytes) = self.frames.get(&frame.digest) else {
                return Err(ContentError::Refused("no such frame".into()));
            };
            let mut bytes = bytes[frame.offset as usize..].to_vec();
            if flips && number == 0 {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x40;
            }
            for chunk in bytes.chunks(7_000) {
                let chunk = &chunk[..chunk.len().min(left)];
                left -= chunk.len();
                self.seen.sent += chunk.len();
                items.push(Ok(FrameChunk { frame: number, data: Bytes::copy_from_slice(chunk) }));
                if left == 0 {
                    items.push(Err(ContentError::Unreachable("cut".into())));
                    return Ok(futures::stream::iter(items).boxed());
                }
            }
        }
        Ok(futures::stream::iter(items).boxed())
    }
}

impl ContentClient for MemorySource {
    fn plan<'a>(
        &'a mut self,
        target: Digest,
        bases: Vec<Digest>,
        _: &'a mut Begun,
    ) -> BoxFuture<'a, Result<PlanReply, ContentError>> {
        let answer = self.inner.lock().unwrap().answer_plan(target, bases);
        Box::pin(async move { answer })
    }

    fn fetch(
        &mut self,
        _target: Digest,
        _base: Option<Digest>,
        frames: Vec<FrameWanted>,
    ) -> BoxFuture<'_, Result<FrameStream, ContentError>> {
        let answer = self.inner.lock().unwrap().answer_frames(frames);
        Box::pin(async move { answer })
    }

    fn wire(&self) -> WireCount {
        let source = self.clone();
        Arc::new(move || source.seen().sent as u64)
    }
}

impl Origin for MemorySource {
    type Client = Self;

    fn open(&self) -> Self {
        self.clone()
    }
}

/// Writes files into a new directory; a path that ends with `!` is executable, one with `@` is a link to its bytes.
pub(crate) fn package(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let name = path.trim_end_matches(['!', '@', '/']);
        let to = dir.path().join(name);
        if path.ends_with('/') {
            fs_err::create_dir_all(&to).unwrap();
            continue;
        }
        fs_err::create_dir_all(to.parent().unwrap()).unwrap();
        if path.ends_with('@') {
            symlink(std::str::from_utf8(bytes).unwrap(), &to).unwrap();
            continue;
        }
        fs_err::write(&to, bytes).unwrap();
        let mode = if path.ends_with('!') { 0o755 } else { 0o644 };
        fs_err::set_permissions(&to, PermissionsExt::from_mode(mode)).unwrap();
    }
    dir
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
    .take(len)
    .collect()
}
