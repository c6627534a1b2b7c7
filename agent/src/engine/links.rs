//! The links of an application: `current` and `previous` move together, `candidate` by itself.

use std::io;

use fs_err as fs;
use sluice_common::durable;
use sluice_common::order::Installed;
use tokio::time::Instant;

use super::{Engine, blocking};
use crate::content::Origin;
use crate::history::{self, Line};
use crate::layout::{AppDir, LinkName};
use crate::observe::{self, Link};

impl<O: Origin> Engine<O> {
    /// Points `current` and `previous` at `links` and writes the history; returns the microseconds that `current` took.
    /// May be repeated.
    pub(super) async fn move_links(
        &self,
        links: (Option<Installed>, Option<Installed>),
        from: &Option<Installed>,
        why: &str,
    ) -> io::Result<u64> {
        let state = self.state.as_ref().expect("a step is performed on an accepted order");
        let (rollout, generation) = (state.rollout.clone(), state.generation);
        let (dir, crash, from, why) =
            (self.dir.clone(), self.host.crash.clone(), from.clone(), why.to_owned());
        blocking(move || {
            let (current, previous) = links;
            crash.pass()?;
            // Not synced by itself: one sync of the directory follows for both.
            move_link(&dir, LinkName::Previous, previous.as_ref())?;
            crash.pass()?;
            let began = Instant::now();
            move_link(&dir, LinkName::Current, current.as_ref())?;
            crash.pass()?;
            let line =
                Line { from: from.as_ref(), to: current.as_ref(), rollout: &rollout, generation, why: &why };
            // Before the directory: what commits this line commits the renames on most file systems, and the next sync finds
            // little to do.
            history::append(&dir.history(), &line)?;
            crash.pass()?;
            durable::sync_parent(&dir.link(LinkName::Current))?;
            let took = began.elapsed();
            crash.pass()?;
            Ok(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
        })
        .await
    }

    /// Points `candidate` at a release, or removes it. May be repeated.
    pub(super) async fn point_candidate(&self, release: Option<Installed>) -> io::Result<()> {
        let (dir, crash) = (self.dir.clone(), self.host.crash.clone());
        blocking(move || {
            // Nearly always there is none, and nothing to sync.
            if release.is_none() && observe::link(&dir, LinkName::Candidate)? == Link::Nothing {
                return Ok(());
            }
            crash.pass()?;
            point(&dir, LinkName::Candidate, release.as_ref())
        })
        .await
    }
}

/// Points a link at a release by one rename, or removes it, and syncs its directory.
fn point(dir: &AppDir, name: LinkName, release: Option<&Installed>) -> io::Result<()> {
    move_link(dir, name, release)?;
    durable::sync_parent(&dir.link(name))
}

fn move_link(dir: &AppDir, name: LinkName, release: Option<&Installed>) -> io::Result<()> {
    let path = dir.link(name);
    match release {
        Some(release) if observe::link(dir, name)? == Link::Release(release.clone()) => Ok(()),
        Some(release) => durable::move_symlink(&path, &AppDir::link_target(&release.package)),
        None => match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}
