//! What is to be staged, and how: the package's manifest, and the plan that leads to it.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::manifest::{Content, EntryKind, FileEntry, Manifest};
use sluice_common::path::RelPath;
use sluice_common::transfer::{ContentSource, NoContent, TransferPlan};
use sluice_common::tree::Tree;

use crate::layout::AppDir;
use crate::observe;

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
    /// Where each content stands, by number of entry.
    places: HashMap<Digest, Vec<usize>>,
}

impl Target {
    /// Decodes a manifest; nothing when it is not the one of `package`.
    pub(crate) fn decode(package: Digest, bytes: Vec<u8>) -> Option<Self> {
        if bytes.len() as u64 > caps::MANIFEST_BYTES_MAX || Digest::of(&bytes) != package {
            return None;
        }
        let manifest = Manifest::decode(&bytes).ok()?;
        let contents = manifest.contents();
        let mut places: HashMap<Digest, Vec<usize>> = HashMap::with_capacity(contents.len());
        for (number, entry) in manifest.entries().iter().enumerate() {
            if let EntryKind::File(file) = &entry.kind {
                places.entry(file.digest).or_default().push(number);
            }
        }
        Some(Self { package, manifest, bytes, contents, places })
    }

    /// Returns the entries that hold a content, by number.
    pub(crate) fn places(&self, content: &Digest) -> &[usize] {
        self.places.get(content).map(Vec::as_slice).unwrap_or_default()
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
}

impl Known {
    /// Knows the package only.
    pub(crate) fn without_plan(target: Target) -> Self {
        Self { target: Arc::new(target), plan: None }
    }

    /// Takes an encoded plan from `base`; one that does not decode, or whose base is no longer installed, is dropped.
    pub(crate) fn new(dir: &AppDir, target: Target, base: Option<Digest>, encoded: Option<&[u8]>) -> Self {
        let planned = encoded.and_then(|encoded| planned(dir, &target, base, encoded));
        Self { target: Arc::new(target), plan: planned.map(Arc::new) }
    }
}

fn planned(dir: &AppDir, target: &Target, base: Option<Digest>, encoded: &[u8]) -> Option<Planned> {
    let tree = match base {
        Some(base) => Some(Tree::with_manifest(&dir.release(&base), observe::manifest(dir, &base).ok()?)),
        None => None,
    };
    let base_contents = tree.as_ref().map(|tree| tree.manifest().contents()).unwrap_or_default();
    let plan = TransferPlan::decode(encoded, &base_contents, &target.contents).ok()?;
    (plan.base == base && plan.target == target.package).then_some(Planned {
        plan,
        base_contents,
        base: tree,
    })
}
