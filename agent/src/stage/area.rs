//! The staging directory of one package, and the steps that make a release of it.
//!
//! ```text
//! staging/<digest12>/   0700
//!   manifest            canonical bytes, once they are known
//!   plan, base          the encoded plan and the digest of the package it leans on (or `none`)
//!   frames/<hex>.part   a frame as far as it has come (<hex>.<n>.part: one that is the same as n before it)
//!   incoming/           files on their way to their place
//!   tree/               what becomes releases/<digest12>
//!   wire                bytes that staging has cost so far, for the reports
//! ```
//! Nothing here is trusted after a restart: the manifest is checked by its digest, the tree by hashing, frames and
//! parts by theirs. A plan that lies leads to frames that do not fit, and is asked for anew.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Instant;

use fs_err as fs;
use rustix::fs::{CWD, RenameFlags};
use sluice_common::digest::Digest;
use sluice_common::durable;
use sluice_common::order::Installed;
use sluice_common::path::RelPath;

use super::place::Placer;
use super::target::{FrameFile, Known, Planned, Target};
use crate::beneath::{Beneath, failed};
use crate::crash::CrashPoints;
use crate::examine::examine_shape;
use crate::layout::{AppDir, LinkName};
use crate::linked;
use crate::observe;
use crate::seen::{Seen, Stamp};

/// The staging directory of one package.
#[derive(Debug, Clone)]
pub(crate) struct Area {
    dir: AppDir,
    package: Digest,
    path: PathBuf,
    crash: CrashPoints,
}

/// How publishing ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// The release stands, verified and synced; with what was seen of it.
    Done(Seen),
    /// So many files were not what they must be and have been removed; they are to be had anew.
    NotWhole(usize),
}

/// Says why publishing failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// Verification could not read the tree, or was interrupted.
    #[error("cannot verify what was staged")]
    Verify(#[source] io::Error),
    /// Syncing or moving failed. The staged tree is not to be used: the kernel may have dropped its pages.
    #[error("cannot make the staged release durable")]
    Sync(#[source] io::Error),
}

impl Area {
    /// Opens the staging directory of `package`, making it where there is none. A release that stands without a valid
    /// marker is taken back into it, unless a link leads to it.
    pub(crate) fn open(dir: &AppDir, package: Digest, crash: CrashPoints) -> io::Result<Self> {
        let path = dir.staging(&package);
        let area = Self { dir: dir.clone(), package, path, crash };
        make_directory(dir.base(), 0o755)?;
        make_directory(&dir.releases(), 0o755)?;
        for private in [dir.staging_root(), area.path.clone(), area.frames(), area.incoming()] {
            make_directory(&private, 0o700)?;
        }
        let tally = area.path.join("wire");
        if !tally.exists() {
            fs::write(tally, b"")?;
        }
        area.take_back()?;
        make_directory(&area.tree(), 0o755)?;
        area.clear_incoming()?;
        Ok(area)
    }

    /// Returns the tree that becomes the release.
    pub(crate) fn tree(&self) -> PathBuf {
        self.path.join("tree")
    }

    /// Returns the application's directory.
    pub(crate) fn dir(&self) -> &AppDir {
        &self.dir
    }

    /// Returns where the file of a content stands before it is put in its place.
    pub(crate) fn incoming_file(&self, content: &Digest, suffix: &str) -> PathBuf {
        self.incoming().join(format!("{}{suffix}", content.to_hex()))
    }

    /// Returns where a frame is gathered.
    pub(crate) fn frame(&self, FrameFile { digest, repeat }: &FrameFile) -> PathBuf {
        let name = match repeat {
            0 => format!("{}.part", digest.to_hex()),
            repeat => format!("{}.{repeat}.part", digest.to_hex()),
        };
        self.frames().join(name)
    }

    /// Returns how many bytes of a frame have come.
    pub(crate) fn frame_len(&self, frame: &FrameFile) -> u64 {
        fs::symlink_metadata(self.frame(frame)).map_or(0, |metadata| metadata.len())
    }

    /// Returns the bytes of frames, given by number, that have not come.
    pub(crate) fn lacking_bytes(&self, planned: &Planned, frames: &[usize]) -> u64 {
        let lacking = |number: &usize| {
            let wire_len = planned.plan.frames[*number].wire_len;
            wire_len.saturating_sub(self.frame_len(planned.file(*number)))
        };
        frames.iter().map(lacking).sum()
    }

    /// Keeps what a content source answered. What has come of frames that the plan names is of use; other frames go.
    pub(crate) fn store_plan(
        &self,
        manifest: &[u8],
        base: Option<Digest>,
        encoded: &[u8],
        planned: &Planned,
    ) -> io::Result<()> {
        let base = base.map_or_else(|| "none".to_owned(), |base| base.to_string());
        // Not synced: what a crash leaves of them is not trusted, and asked for anew where it is wrong.
        fs::write(self.path.join("base"), base)?;
        fs::write(self.path.join("plan"), encoded)?;
        fs::write(self.path.join("manifest"), manifest)?;
        let named: HashSet<PathBuf> = planned.files().iter().map(|file| self.frame(file)).collect();
        for entry in fs::read_dir(self.frames())? {
            let path = entry?.path();
            if !named.contains(&path) {
                discard(&path)?;
            }
        }
        Ok(())
    }

    /// Forgets the plan; the next one may lean on another base, and name some of the same frames.
    pub(crate) fn discard_plan(&self) -> io::Result<()> {
        remove_if_there(&self.path.join("plan"))
    }

    /// Returns what is known of the package already, from this directory or from an earlier installation.
    pub(crate) fn load(&self) -> io::Result<Option<Known>> {
        let manifest = match read_if_there(&self.path.join("manifest"))? {
            Some(bytes) => Some(bytes),
            None => read_if_there(&self.dir.manifest(&self.package))?,
        };
        let Some(target) = manifest.and_then(|bytes| Target::decode(self.package, bytes)) else {
            return Ok(None);
        };
        let base = match read_if_there(&self.path.join("base"))? {
            Some(text) if text == b"none" => None,
            Some(text) => match String::from_utf8_lossy(&text).parse() {
                Ok(base) => Some(base),
                Err(_) => return Ok(Some(Known::without_plan(target))),
            },
            None => return Ok(Some(Known::without_plan(target))),
        };
        let Some(plan) = read_if_there(&self.path.join("plan"))? else {
            return Ok(Some(Known::without_plan(target)));
        };
        let base = match base {
            // A base that is no longer installed cannot be leaned on.
            Some(base) => match observe::manifest(&self.dir, &base) {
                Ok(manifest) => Some((base, manifest)),
                Err(_) => return Ok(Some(Known::without_plan(target))),
            },
            None => None,
        };
        Ok(Some(Known::new(&self.dir, target, base, &plan)))
    }

    /// Syncs the tree and gives it its name; the marker comes last. Takes a placer that is whole as the proof that every
    /// file was hashed where it stands, and makes sure that nothing else stands there, while the disk is busy with the sync.
    pub(crate) fn publish(
        &self,
        placer: Placer,
        installed: &Installed,
        stop: &AtomicBool,
    ) -> Result<Published, PublishError> {
        let (target, tree) = (placer.target().clone(), placer.tree().clone());
        linked::provide(&self.dir, &self.tree(), &target.manifest).map_err(PublishError::Verify)?;
        let looked = Instant::now();
        let (synced, shape) = thread::scope(|scope| {
            let syncing = scope.spawn(|| self.sync(&target, &tree));
            let shape = examine_shape(&self.tree(), &target.manifest, stop);
            (syncing.join().expect("syncing does not panic"), shape)
        });
        let unsynced = |error| {
            self.withdraw();
            PublishError::Sync(error)
        };
        // First of all, because the kernel tells once of what it could not write.
        synced.map_err(unsynced)?;
        let (findings, found) = shape.map_err(PublishError::Verify)?;
        if !findings.is_empty() {
            for finding in &findings {
                tracing::warn!(path = %finding.path.display(), fault = finding.fault.as_str(),
                    "staged file is not what it must be and is had anew");
                discard(&self.tree().join(&finding.path)).map_err(PublishError::Verify)?;
            }
            return Ok(Published::NotWhole(findings.len()));
        }
        let marker = self.make_release(installed).map_err(unsynced)?;
        let hashed_since = placer.hashed_since();
        let stamps = placer.into_stamps(&found);
        Ok(Published::Done(Seen::new(self.package, stamps, marker, hashed_since, looked)))
    }

    /// Puts the manifest where it stays, and brings it and the tree to disk.
    fn sync(&self, target: &Target, tree: &Beneath) -> io::Result<()> {
        self.crash.pass()?;
        // Synced with the tree, with all that the file system holds.
        fs::write(self.dir.manifest(&self.package), target.manifest.as_bytes())?;
        self.crash.pass()?;
        tree.sync_filesystem()?;
        self.crash.pass()
    }

    /// Makes a release of the synced tree and returns the stamp of its marker.
    fn make_release(&self, installed: &Installed) -> io::Result<Stamp> {
        let release = self.dir.release(&self.package);
        if fs::symlink_metadata(&release).is_ok() {
            // A link leads to a release that lost its marker: whoever follows it sees the old tree or the new one.
            rustix::fs::renameat_with(CWD, self.tree(), CWD, &release, RenameFlags::EXCHANGE)
                .map_err(|errno| failed("exchange", &release, errno))?;
        } else {
            fs::rename(self.tree(), &release)?;
        }
        durable::sync_dir(&self.dir.releases())?;
        self.crash.pass()?;
        observe::write_marker(&self.dir, installed)?;
        self.crash.pass()?;
        Ok(Stamp::of(&fs::symlink_metadata(self.dir.marker(&self.package))?))
    }

    /// Puts files of the tree, every one of which was hashed, into the places of the release that stands.
    pub(crate) fn give_back(&self, placer: &Placer, wrong: &[PathBuf]) -> io::Result<()> {
        placer.tree().sync_filesystem()?;
        let release = Beneath::open(&self.dir.release(&self.package))?;
        for path in wrong {
            let path = RelPath::from_path(path).map_err(io::Error::other)?;
            self.crash.pass()?;
            release.adopt(&path.below(&self.tree()), path)?;
        }
        release.sync_filesystem()
    }

    /// Removes the staging directory.
    pub(crate) fn remove(&self) -> io::Result<()> {
        discard(&self.path)
    }

    /// Takes a release without a valid marker back, so that what is right of it need not be had anew.
    fn take_back(&self) -> io::Result<()> {
        let release = self.dir.release(&self.package);
        if fs::symlink_metadata(&release).is_err() || observe::marker(&self.dir, &self.package)?.is_some() {
            return Ok(());
        }
        if self.is_linked() {
            return Ok(());
        }
        if fs::symlink_metadata(self.tree()).is_ok() {
            return discard(&release);
        }
        self.crash.pass()?;
        fs::rename(&release, self.tree())
    }

    /// Says whether a link leads to the package: something may run in it.
    fn is_linked(&self) -> bool {
        let name = AppDir::link_target(&self.package);
        let leads = |link: &LinkName| fs::read_link(self.dir.link(*link)).is_ok_and(|target| target == name);
        [LinkName::Current, LinkName::Previous, LinkName::Candidate].iter().any(leads)
    }

    /// Takes away a release that could not be made durable, as far as the disk lets it.
    fn withdraw(&self) {
        if self.is_linked() {
            return;
        }
        let withdrawn = unmark(&self.dir, &self.package)
            .and_then(|()| discard(&self.dir.release(&self.package)))
            .and_then(|()| discard(&self.dir.manifest(&self.package)));
        if let Err(error) = withdrawn {
            tracing::warn!(%error, "release that could not be made durable is left over; it is removed later");
        }
    }

    /// Removes files that a crash left on their way; partial contents stay, their parts are checked.
    fn clear_incoming(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.incoming())? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "partial") {
                discard(&path)?;
            }
        }
        Ok(())
    }

    fn frames(&self) -> PathBuf {
        self.path.join("frames")
    }

    /// Returns the directory of what is on its way to its place.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.path.join("incoming")
    }
}

/// Removes the marker of a release, durably: from then on it is not used.
pub(crate) fn unmark(dir: &AppDir, package: &Digest) -> io::Result<()> {
    remove_if_there(&dir.marker(package))?;
    durable::sync_dir(&dir.releases())
}

/// Removes whatever stands at `path`, not following links; nothing standing there is as good.
pub(crate) fn discard(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if is_absent(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a directory with exactly this mode, or gives it to the one that stands.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(path)?;
            if !metadata.is_dir() {
                return Err(error);
            }
            if metadata.permissions().mode() & 0o7777 == mode {
                return Ok(());
            }
        }
        Err(error) => return Err(error),
    }
    fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
