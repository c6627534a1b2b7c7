//! Looks after what stands while nothing moves: finds drift and mends it, file by file, without a switch.
//!
//! What runs has its files open: a damaged one is never written to, but gets a sound one in its place by a rename. What the
//! package does not have is told and left alone, because what runs may need it. Directories are never removed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_common::digest::Digest;
use sluice_common::durable;
use sluice_common::manifest::{Entry, EntryKind, Manifest};
use sluice_common::order::Installed;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Engine, blocking};
use crate::beneath::Beneath;
use crate::content::Origin;
use crate::drift::{Depth, pace};
use crate::examine::{Fault, Finding, fault, survey};
use crate::history;
use crate::layout::{AppDir, LinkName};
use crate::linked::{self, Beside};
use crate::observe::{self, Link};
use crate::seen::Seen;
use crate::stage::{Attempts, Job, Progress, StageError, Work, regain};
use crate::state::{self, Wanted};

/// What a look at one release came to.
struct Looked {
    findings: Vec<Finding>,
    seen: Seen,
}

impl<O: Origin> Engine<O> {
    /// Returns when what stands is to be looked after.
    pub(crate) fn next_look(&self) -> Instant {
        self.drift.next(&self.host.upkeep.drift).0
    }

    /// Looks after what stands.
    pub(super) async fn look_after(&mut self, token: &CancellationToken) -> io::Result<()> {
        let host = self.host.clone();
        let _permit = tokio::select! {
            permit = host.verifying.acquire() => permit.map_err(io::Error::other)?,
            () = token.cancelled() => return Ok(()),
        };
        let (began, depth) = (Instant::now(), self.drift.next(&host.upkeep.drift).1);
        let (mut found, mut mended) = (Vec::new(), 0);
        if let Some(trouble) = self.mend_link().await? {
            match trouble {
                Ok(()) => mended += 1,
                Err(words) => found.push(words),
            }
        }
        let disk = self.observe().await?;
        let mut standing: Vec<Installed> =
            [&disk.current, &disk.previous].iter().filter_map(|link| link.installed().cloned()).collect();
        standing.dedup();
        let mut all_seen = Vec::new();
        for release in standing {
            let looked = match self.look(&release, depth, token).await {
                Ok(looked) => looked,
                Err(_) if token.is_cancelled() => return Ok(()),
                Err(error) => {
                    found.push(format!("release {} cannot be verified: {error}", release.version));
                    continue;
                }
            };
            let Looked { findings, seen } = looked;
            let count = findings.len();
            let left = if findings.is_empty() {
                findings
            } else {
                self.mend(&release, findings, &seen, token).await?
            };
            mended += (count - left.len()) as u64;
            found.extend(left.iter().map(|finding| {
                format!("{} of {} {}", finding.path.display(), release.version, finding.fault.as_str())
            }));
            all_seen.push(seen);
        }
        if let Some(first) = found.first() {
            tracing::warn!(app = %self.app, count = found.len(), first, "installed releases are not what they must be");
        }
        if let Some(current) = all_seen.first() {
            self.hashed.add_examined(current);
        }
        self.drift.note(depth, began, all_seen, found, mended);
        self.publish(None).await
    }

    /// Compares a release with its manifest.
    async fn look(&self, release: &Installed, depth: Depth, token: &CancellationToken) -> io::Result<Looked> {
        let (dir, package, rate) = (self.dir.clone(), release.package, self.host.upkeep.drift.rate);
        let seen = self.drift.seen(&package);
        let work = Work { token: token.clone() };
        work.run(move |stop| {
            pace::in_the_background(|| {
                let manifest = observe::manifest(&dir, &package)?;
                let mut pace = pace::Pace::new(rate, stop);
                let (findings, seen) =
                    survey(&dir.release(&package), &manifest, depth, seen.as_deref(), &mut pace)?;
                Ok(Looked { findings, seen })
            })
        })
        .await
    }

    /// Mends what can be; returns what is left.
    async fn mend(
        &mut self,
        release: &Installed,
        findings: Vec<Finding>,
        seen: &Seen,
        token: &CancellationToken,
    ) -> io::Result<Vec<Finding>> {
        for Finding { path, fault } in &findings {
            tracing::warn!(app = %self.app, release = %release.package.short(), path = %path.display(),
                fault = fault.as_str(), "installed file is not what it must be");
        }
        let (dir, package) = (self.dir.clone(), release.package);
        let left = blocking(move || mend_here(&dir, &package, findings)).await?;
        if !left.iter().any(|finding| finding.fault != Fault::Extra) {
            return Ok(left);
        }
        let wrong: Vec<PathBuf> = left
            .iter()
            .filter(|finding| finding.fault != Fault::Extra)
            .map(|finding| finding.path.clone())
            .collect();
        if let Err(error) = self.regain(release, wrong, seen, token).await {
            tracing::warn!(app = %self.app, %error, "damaged files cannot be had anew; it is tried again");
        }
        let dir = self.dir.clone();
        blocking(move || still_wrong(&dir, &package, left)).await
    }

    /// Has files of a release anew, from other releases or the coordinator, and puts them in their places.
    async fn regain(
        &mut self,
        release: &Installed,
        wrong: Vec<PathBuf>,
        seen: &Seen,
        token: &CancellationToken,
    ) -> Result<(), StageError> {
        let host = self.host.clone();
        let _permit = tokio::select! {
            permit = host.staging.acquire() => permit.map_err(io::Error::other)?,
            () = token.cancelled() => return Err(StageError::Cancelled),
        };
        let job = Job {
            dir: self.dir.clone(),
            release: release.clone(),
            reuse: host.reuse,
            floor: host.upkeep.retention.disk_floor,
            hashed: Some(Arc::new(seen.clone())),
            crash: host.crash.clone(),
        };
        let mut client = host.origin.open();
        regain(&job, &mut client, &mut Attempts::default(), &Progress::default(), wrong, token).await
    }

    /// Points `current` at what it last led to, where it leads nowhere. Returns whether that was done, or why not; nothing
    /// where it leads where it should.
    async fn mend_link(&self) -> io::Result<Option<Result<(), String>>> {
        let wanted = self.state.as_ref().and_then(|state| match (&state.progress, &state.wanted) {
            (state::Progress::Active, Wanted::Release { package, .. }) => Some(*package),
            (_, _) => None,
        });
        let dir = self.dir.clone();
        let mended = blocking(move || {
            let trouble = match observe::link(&dir, LinkName::Current)? {
                Link::Release(_) => return Ok(None),
                Link::Nothing => "current is missing".to_owned(),
                Link::Broken(reason) => reason,
            };
            let Some(release) = last_current(&dir, wanted)? else {
                return Ok((trouble != "current is missing").then_some(Err(trouble)));
            };
            let link = dir.link(LinkName::Current);
            if fs_err::symlink_metadata(&link).is_ok_and(|found| found.is_dir()) {
                return Ok(Some(Err(format!("{trouble}; remove it, and it is made anew"))));
            }
            durable::replace_symlink(&link, &AppDir::link_target(&release.package))?;
            tracing::warn!(trouble, version = %release.version, "current leads where it did again");
            Ok(Some(Ok(())))
        });
        mended.await
    }
}

/// Returns the installed release that `current` last led to.
fn last_current(dir: &AppDir, wanted: Option<Digest>) -> io::Result<Option<Installed>> {
    let short = match wanted {
        Some(package) => Some(package.short()),
        None => history::last_current(&dir.history())?,
    };
    let installed = observe::installed(dir)?.into_iter();
    Ok(short.and_then(|short| installed.into_iter().find(|release| release.package.short() == short)))
}

/// Mends what needs no content: modes, directories, links. Returns what is left.
fn mend_here(dir: &AppDir, package: &Digest, findings: Vec<Finding>) -> io::Result<Vec<Finding>> {
    let (root, manifest) = (dir.release(package), observe::manifest(dir, package)?);
    let beneath = Beneath::open(&root)?;
    let linked = linked::entries(&root, &manifest);
    let mut left = Vec::new();
    // Directories come before what stands in them.
    for finding in findings {
        let is_mended = match entry(&manifest, &linked, &finding.path) {
            Some(entry) => {
                mend_entry(&beneath, &root, entry, finding.fault).is_ok() && fault(&beneath, entry)?.is_none()
            }
            None => false,
        };
        if !is_mended {
            left.push(finding);
        }
    }
    beneath.sync_filesystem()?;
    Ok(left)
}

fn mend_entry(beneath: &Beneath, root: &Path, entry: Entry<'_>, fault: Fault) -> io::Result<()> {
    match (entry.kind, fault) {
        (EntryKind::File(file), Fault::Mode) => beneath.set_mode(entry.path, file.mode()),
        (EntryKind::File(_), _) => Ok(()),
        (EntryKind::Directory | EntryKind::Symlink { .. }, Fault::Kind | Fault::Bytes) => {
            let place = entry.path.below(root);
            // Never a directory with something in it: that may be somebody's data.
            match fs_err::symlink_metadata(&place)?.is_dir() {
                true => fs_err::remove_dir(&place)?,
                false => fs_err::remove_file(&place)?,
            }
            linked::mend(beneath, root, entry)
        }
        (EntryKind::Directory | EntryKind::Symlink { .. }, _) => linked::mend(beneath, root, entry),
    }
}

fn entry<'a>(manifest: &'a Manifest, linked: &'a [Beside], path: &Path) -> Option<Entry<'a>> {
    let mut linked = linked.iter().map(Beside::entry);
    path.to_str()
        .and_then(|path| manifest.get(path))
        .or_else(|| linked.find(|entry| entry.path.as_path() == path))
}

/// Returns the findings that still hold.
fn still_wrong(dir: &AppDir, package: &Digest, findings: Vec<Finding>) -> io::Result<Vec<Finding>> {
    let (root, manifest) = (dir.release(package), observe::manifest(dir, package)?);
    let beneath = Beneath::open(&root)?;
    let linked = linked::entries(&root, &manifest);
    let mut left = Vec::new();
    for finding in findings {
        let is_right = match entry(&manifest, &linked, &finding.path) {
            Some(entry) => fault(&beneath, entry)?.is_none(),
            None => false,
        };
        if !is_right {
            left.push(finding);
        }
    }
    Ok(left)
}
