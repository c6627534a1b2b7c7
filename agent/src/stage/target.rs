//! What is to be staged, and how: the package's manifest, and the plan that leads to it.

use std::sync::Arc;

use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::manifest::{Content, EntryKind, FileEntry, Manifest, Places};
use sluice_common::path::RelPath;
use sluice_common::transfer::{ContentSource, NoContent, TransferPlan};
use sluice_common::tree::Tree;

use crate::layout::AppDir;

/// The package that is wanted.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) package: Digest,
    /// Its entries.
    pub(crate) manifest: Manifest,
    /// The manifest's canonical bytes.
    pub(crate) bytes: Vec<u8>,
    /// Its contents, numbered as plans number them.
    pub(crate) contents: Vec<Content>,
    places: Places,
}

impl Target {
    /// Decodes a manifest; nothing when it is not the one of `package`.
    pub(crate) fn decode(package: Digest, bytes: Vec<u8>) -> Option<Self> {
        if bytes.len() as u64 > caps::MANIFEST_BYTES_MAX || Digest::of(&bytes) != package {
            return None;
        }
        let manifest = Manifest::decode(&bytes).ok()?;
        let contents = manifest.contents();
        let places = manifest.places();
        Some(Self { package, manifest, bytes, contents, places })
    }

    /// Returns the numbers of the entries that hold a content, which is given by number.
    pub(crate) fn places(&self, content: u32) -> impl Iterator<Item = usize> {
        self.places.get(content).iter().map(|place| *place as usize)
    }

    /// Returns the number of the content with this digest.
    pub(crate) fn number(&self, content: &Digest) -> Option<u32> {
        self.places.find(&self.manifest, content)
    }

    /// Returns a file entry by number.
    pub(crate) fn file(&self, number: usize) -> Option<(&RelPath, &FileEntry)> {
        let entry = self.manifest.entries().get(number)?;
        match &entry.kind {
            EntryKind::File(file) => Some((&entry.path, file)),
            EntryKind::Directory | EntryKind::Symlink { .. } => None,
        }
    }
}

/// What is known of the way to a package.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// The package.
    pub(crate) target: Arc<Target>,
    /// The plan with the base it leans on; nothing until asked for.
    pub(crate) plan: Option<Arc<Planned>>,
}

/// A plan and the base it leans on.
#[derive(Debug)]
pub(crate) struct Planned {
    /// The frames.
    pub(crate) plan: TransferPlan,
    /// The contents of the base, numbered.
    pub(crate) base_contents: Vec<Content>,
    /// The base's files; nothing for a cold install.
    base: Option<Tree>,
}

impl Planned {
    /// Returns what serves the base's contents.
    pub(crate) fn base(&self) -> &dyn ContentSource {
        match &self.base {
            Some(tree) => tree,
            None => &NoContent,
        }
    }

    /// Returns the manifest of the base if that is `package`.
    pub(crate) fn base_manifest(&self, package: &Digest) -> Option<&Manifest> {
        self.base.as_ref().filter(|_| self.plan.base == Some(*package)).map(Tree::manifest)
    }
}

impl Known {
    /// Knows the package only.
    pub(crate) fn without_plan(target: Target) -> Self {
        Self { target: Arc::new(target), plan: None }
    }

    /// Takes an encoded plan from `base`, given with its manifest; one that does not decode is dropped.
    pub(crate) fn new(
        dir: &AppDir,
        target: Target,
        base: Option<(Digest, Manifest)>,
        encoded: &[u8],
    ) -> Self {
        let planned = planned(dir, &target, base, encoded);
        Self { target: Arc::new(target), plan: planned.map(Arc::new) }
    }
}

fn planned(
    dir: &AppDir,
    target: &Target,
    base: Option<(Digest, Manifest)>,
    encoded: &[u8],
) -> Option<Planned> {
    let (base, tree) = match base {
        Some((base, manifest)) => (Some(base), Some(Tree::with_manifest(&dir.release(&base), manifest))),
        None => (None, None),
    };
    let base_contents = tree.as_ref().map(|tree| tree.manifest().contents()).unwrap_or_default();
    let plan = TransferPlan::decode(encoded, &base_contents, &target.contents).ok()?;
    (plan.base == base && plan.target == target.package).then_some(Planned {
        plan,
        base_contents,
        base: tree,
    })
}
