//! Steps of a switch: verify, note the way back, stop the old, move the links, start the new.

use std::io;
use std::sync::atomic::AtomicBool;

use fs_err as fs;
use sluice_common::digest::Digest;
use sluice_common::durable;
use sluice_common::order::Installed;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::hooks::Event;
use super::{Engine, blocking};
use crate::accept::release_objection;
use crate::clock::BootTime;
use crate::content::Origin;
use crate::examine::{Finding, examine, examine_unseen};
use crate::history::{self, Line};
use crate::hook::End;
use crate::layout::{AppDir, LinkName};
use crate::observe::{self, Link};
use crate::stage::{Work, unmark};
use crate::state::{HookRun, Progress, RevertAt, Switch, SwitchAt, Wanted, load_signed};

impl<O: Origin> Engine<O> {
    pub(super) async fn begin_switch(&mut self, token: &CancellationToken) -> io::Result<()> {
        let state = self.state.as_ref().expect("a step is performed on an accepted order");
        let cost = state.cost;
        if let Wanted::Release { package, .. } = state.wanted.clone() {
            if let Some(reason) = self.objection(&package).await? {
                return self.fail(reason, cost).await;
            }
            let findings = self.verify(package, token).await?;
            if !findings.is_empty() {
                return self.repair(package, &findings).await;
            }
        }
        let disk = self.observe().await?;
        let switch = Switch {
            predecessor: disk.current.installed().cloned(),
            previous: disk.previous.installed().cloned(),
        };
        self.monitored.send_replace(None);
        self.change(|state| {
            state.reason = None;
            state.hook_output = None;
            state.progress = Progress::Switching { at: SwitchAt::StopOld, hook: None, switch };
        })
        .await
    }

    /// Says why the release may not run here: its key may have been unpinned since the order was accepted.
    async fn objection(&self, package: &Digest) -> io::Result<Option<String>> {
        let state = self.state.as_ref().expect("a step is performed on an accepted order");
        let path = self.dir.order(state.generation);
        let signed =
            tokio::task::spawn_blocking(move || load_signed(&path)).await.map_err(io::Error::other)?;
        Ok(match signed {
            Ok(signed) => release_objection(&self.app, &signed, package, &self.host.rules),
            Err(error) => Some(format!("{}; order the release anew", crate::content::chain(&error))),
        })
    }

    /// Verifies the release: every byte of it, but for what this process has hashed when it was staged and finds as it was.
    async fn verify(&mut self, package: Digest, token: &CancellationToken) -> io::Result<Vec<Finding>> {
        let dir = self.dir.clone();
        // Of use once: whatever follows a switch finds a release that has run.
        let seen = self.seen.take().filter(|seen| *seen.package() == package);
        Work { token: token.clone() }
            .run(move |stop: &AtomicBool| {
                // A manifest that cannot be read makes the release as bad as a damaged file does.
                match observe::manifest(&dir, &package) {
                    Ok(manifest) => match seen {
                        Some(seen) => examine_unseen(&dir.release(&package), &manifest, &seen, stop),
                        None => examine(&dir.release(&package), &manifest, stop),
                    },
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                        Ok(vec![Finding { path: "manifest".into(), fault: crate::examine::Fault::Bytes }])
                    }
                    Err(error) => Err(error),
                }
            })
            .await
    }

    /// Sends a staged release that is no longer whole back to staging, which has the wrong files anew.
    async fn repair(&mut self, package: Digest, findings: &[Finding]) -> io::Result<()> {
        for finding in findings {
            tracing::warn!(app = %self.app, release = %package.short(), path = %finding.path.display(),
                fault = finding.fault.as_str(), "staged file is not what it must be and is had anew");
        }
        let dir = self.dir.clone();
        blocking(move || unmark(&dir, &package)).await?;
        self.change(|state| state.progress = Progress::Fetching).await
    }

    pub(super) async fn note_active(&mut self) -> io::Result<()> {
        self.change(|state| {
            (state.progress, state.reason, state.hook_output) = (Progress::Active, None, None);
        })
        .await?;
        self.settle().await
    }

    pub(super) async fn switch_hook(&mut self, at: SwitchAt, token: &CancellationToken) -> io::Result<()> {
        let Some(switch) = self.switch() else { return Ok(()) };
        // PREVIOUS_VERSION is what `previous` leads to at that moment.
        let (event, release, previous) = match at {
            SwitchAt::StopOld => (Event::Stop, switch.predecessor.clone(), switch.previous.as_ref()),
            SwitchAt::StartNew => (Event::Start, self.wanted_release(), switch.predecessor.as_ref()),
            SwitchAt::Link => return Ok(()),
        };
        let Some(release) = release else { return self.after_switch_hook(at).await };
        let spec = match self.spec(&release).await {
            Ok(spec) => spec,
            Err(error) => {
                return self
                    .revert(at, format!("{} of {}: {error}", event.as_str(), release.version), None)
                    .await;
            }
        };
        let Some(call) = self.call(event, &release, &spec, previous) else {
            return self.after_switch_hook(at).await;
        };
        let name = format!("{} of {}", event.as_str(), release.version);
        let run = HookRun { name: name.clone(), id: call.id.clone() };
        self.change(|state| {
            state.progress = Progress::Switching { at, hook: Some(run), switch: switch.clone() };
        })
        .await?;
        let ended = self.run(&call, token).await;
        self.host.crash.pass()?;
        match ended.end {
            End::Succeeded => self.after_switch_hook(at).await,
            End::Failed(reason) => self.revert(at, format!("hook {name} {reason}"), Some(ended.output)).await,
            // The journal keeps the run: it is not known what it did.
            End::Interrupted => Ok(()),
        }
    }

    async fn after_switch_hook(&mut self, at: SwitchAt) -> io::Result<()> {
        let Some(switch) = self.switch() else { return Ok(()) };
        let progress = match at {
            SwitchAt::StopOld => Progress::Switching { at: SwitchAt::Link, hook: None, switch },
            SwitchAt::Link | SwitchAt::StartNew => {
                let spec = match self.wanted_release() {
                    Some(release) => self.spec(&release).await?,
                    None => sluice_common::spec::Spec::default(),
                };
                let deadline = BootTime::now()?.after(spec.gate.deadline);
                Progress::Validating { deadline, bake_until: None, switch }
            }
        };
        self.change(|state| state.progress = progress).await
    }

    /// Goes back, from a step of the switch that failed.
    pub(super) async fn revert(
        &mut self,
        at: SwitchAt,
        reason: String,
        output: Option<String>,
    ) -> io::Result<()> {
        let Some(switch) = self.switch() else { return Ok(()) };
        let back = match at {
            // Nothing has moved yet.
            SwitchAt::StopOld => RevertAt::StartOld,
            // The new release was never started.
            SwitchAt::Link => RevertAt::LinkBack,
            SwitchAt::StartNew => RevertAt::StopNew,
        };
        self.change(|state| {
            state.reason = Some(reason);
            state.hook_output = output;
            state.progress = Progress::Reverting { at: back, hook: None, switch };
        })
        .await
    }

    pub(super) async fn link(&mut self) -> io::Result<()> {
        let Some(switch) = self.switch() else { return Ok(()) };
        let wanted = self.wanted_release();
        let links = (wanted.clone(), switch.predecessor.clone());
        let switch_us = self.move_links(links, &switch.predecessor, "ordered").await?;
        self.change(|state| {
            state.cost.switch_us = switch_us;
            state.progress = match wanted {
                Some(_) => Progress::Switching { at: SwitchAt::StartNew, hook: None, switch },
                None => Progress::Active,
            };
        })
        .await?;
        if self.state.as_ref().is_some_and(|state| state.progress == Progress::Active) {
            self.settle().await?;
        }
        Ok(())
    }

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
            point(&dir, LinkName::Previous, previous.as_ref())?;
            crash.pass()?;
            let began = Instant::now();
            point(&dir, LinkName::Current, current.as_ref())?;
            let took = began.elapsed();
            crash.pass()?;
            let line =
                Line { from: from.as_ref(), to: current.as_ref(), rollout: &rollout, generation, why: &why };
            history::append(&dir.history(), &line)?;
            crash.pass()?;
            Ok(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
        })
        .await
    }

    /// Returns the switch that is under way.
    pub(super) fn switch(&self) -> Option<Switch> {
        match &self.state.as_ref()?.progress {
            Progress::Switching { switch, .. }
            | Progress::Validating { switch, .. }
            | Progress::Reverting { switch, .. } => Some(switch.clone()),
            Progress::Fetching
            | Progress::Staged
            | Progress::Active
            | Progress::Reverted
            | Progress::Failed => None,
        }
    }
}

/// Points a link at a release by one rename, or removes it.
fn point(dir: &AppDir, name: LinkName, release: Option<&Installed>) -> io::Result<()> {
    let path = dir.link(name);
    match release {
        Some(release) if observe::link(dir, name)? == Link::Release(release.clone()) => Ok(()),
        Some(release) => durable::replace_symlink(&path, &AppDir::link_target(&release.package)),
        None => match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => durable::sync_parent(&path),
        },
    }
}
