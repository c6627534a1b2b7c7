//! What is to be staged, and how: the package's manifest, and the plan that leads to it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::manifest::{Contents, Entry, FileEntry, Manifest};
use sluice_common::path::RelPath;
use sluice_common::transfer::{ContentSource, Frame, NoContent, TransferPlan};

use crate::beneath::Beneath;
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

/// Names the file in which a frame of a plan is gathered: by the frame's digest, so that another plan that names the frame finds
/// what has come of it. Of frames that are the same byte for byte each has a file of its own, which goes when it is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FrameFile {
    /// The frame's name.
    pub(crate) digest: Digest,
    /// How many frames before it in the plan are the same.
    pub(crate) repeat: u32,
}

impl FrameFile {
    /// Names the files of the frames of a plan, in its order.
    fn of_plan(plan: &TransferPlan) -> Vec<Self> {
        let mut repeats: HashMap<Digest, u32> = HashMap::new();
        let file = |frame: &Frame| {
            let repeats = repeats.entry(frame.digest).or_default();
            *repeats += 1;
            Self { digest: frame.digest, repeat: *repeats - 1 }
        };
        plan.frames.iter().map(file).collect()
    }
}

/// A plan and the base it leans on.
#[derive(Debug)]
pub(crate) struct Planned {
    /// The frames.
    pub(crate) plan: TransferPlan,
    /// Where each is gathered.
    files: Vec<FrameFile>,
    /// The base's files; nothing for a cold install.
    base: Option<Base>,
}

/// An installed release that frames lean on.
#[derive(Debug)]
struct Base {
    tree: Beneath,
    manifest: Manifest,
}

impl Base {
    /// Opens a file that is to hold a content, by number.
    fn open(&self, content: u32) -> io::Result<File> {
        let mut opened = Err(io::ErrorKind::NotFound.into());
        for place in self.manifest.places(content) {
            opened = self.tree.read(self.manifest.entry(place).path);
            if opened.is_ok() {
                break;
            }
        }
        opened
    }
}

impl ContentSource for Base {
    fn reader(&self, content: &Digest, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let number = self.manifest.content_number(content).ok_or(io::ErrorKind::NotFound)?;
        let mut file = self.open(number)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }
}

impl Planned {
    /// Returns where a frame is gathered, by number.
    pub(crate) fn file(&self, number: usize) -> &FrameFile {
        &self.files[number]
    }

    /// Returns where all frames are gathered.
    pub(crate) fn files(&self) -> &[FrameFile] {
        &self.files
    }

    /// Returns the contents of the base, numbered; none for a cold install.
    pub(crate) fn base_contents(&self) -> Contents<'_> {
        self.base.as_ref().map(|base| base.manifest.contents()).unwrap_or_default()
    }

    /// Opens a file of the base that is to hold a content, by number.
    pub(crate) fn open_base(&self, content: u32) -> Option<File> {
        self.base.as_ref()?.open(content).ok()
    }

    /// Returns what serves the base's contents.
    pub(crate) fn base(&self) -> &dyn ContentSource {
        match &self.base {
            Some(base) => base,
            None => &NoContent,
        }
    }

    /// Returns the manifest of the base if that is `package`.
    pub(crate) fn base_manifest(&self, package: &Digest) -> Option<&Manifest> {
        self.base.as_ref().filter(|_| self.plan.base == Some(*package)).map(|base| &base.manifest)
    }
}

impl Known {
    /// Knows the package only.
    pub(crate) fn without_plan(target: Target) -> Self {
        Self { target: Arc::new(target), plan: None }
    }

    /// Takes an encoded plan from `base`, given with its manifest; one that does not decode is dropped, and one whose base is gone.
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
    let (package, base) = match base {
        Some((package, manifest)) => {
            (Some(package), Some(Base { tree: Beneath::open(&dir.release(&package)).ok()?, manifest }))
        }
        None => (None, None),
    };
    let base_contents = base.as_ref().map(|base| base.manifest.contents()).unwrap_or_default();
    let plan = TransferPlan::decode(encoded, base_contents, target.contents()).ok()?;
    let files = FrameFile::of_plan(&plan);
    (plan.base == package && plan.target == target.package).then_some(Planned { plan, files, base })
}
