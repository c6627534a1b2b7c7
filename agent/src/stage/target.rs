//! What is to be staged, and how: the package's manifest, and the plan that leads to it.

use std::path::PathBuf;
use std::sync::Arc;

use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::manifest::{Contents, Entry, FileEntry, Manifest};
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
}

impl Target {
    /// Decodes a manifest; nothing when it is not the one of `package`.
    pub(crate) fn decode(package: Digest, bytes: Vec<u8>) -> Option<Self> {
        if bytes.len() as u64 > caps::MANIFEST_BYTES_MAX || Digest::of(&bytes) != package {
            return None;
        }
        Some(Self { package, manifest: Manifest::decode(bytes).ok()? })
    }

    /// Returns its contents, numbered as plans number them.
    pub(crate) fn contents(&self) -> Contents<'_> {
        self.manifest.contents()
    }

    /// Returns the numbers of the entries that hold a content, which is given by number.
    pub(crate) fn places(&self, content: u32) -> impl Iterator<Item = usize> {
        self.manifest.places(content)
    }

    /// Returns the number of the content with this digest.
    pub(crate) fn number(&self, content: &Digest) -> Option<u32> {
        self.manifest.content_number(content)
    }

    /// Returns a file entry by number.
    pub(crate) fn file(&self, number: usize) -> Option<(&RelPath, FileEntry)> {
        (number < self.manifest.len()).then(|| self.manifest.entry(number)).and_then(Entry::file)
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
    /// The base's files; nothing for a cold install.
    base: Option<Tree>,
}

impl Planned {
    /// Returns the contents of the base, numbered; none for a cold install.
    pub(crate) fn base_contents(&self) -> Contents<'_> {
        self.base.as_ref().map(|base| base.manifest().contents()).unwrap_or_default()
    }

    /// Returns a file of the base that holds a content, by number.
    pub(crate) fn base_file(&self, content: u32) -> Option<PathBuf> {
        let base = self.base.as_ref()?;
        let place = base.manifest().places(content).next()?;
        Some(base.manifest().entry(place).path.below(base.root()))
    }

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
    let plan = TransferPlan::decode(encoded, base_contents, target.contents()).ok()?;
    (plan.base == base && plan.target == target.package).then_some(Planned { plan, base: tree })
}
