//! The `stage` hook: what a release makes ready once it is on disk, before anything is switched. Run once for each release on
//! a host.

use std::io;

use sluice_common::spec::{Requires, Spec};
use tokio_util::sync::CancellationToken;

use super::deeds::{Told, judge, wait_before_try};
use super::{Engine, blocking};
use crate::content::Origin;
use crate::sequence::Event;
use crate::state::{Cost, HookRun, Progress};
use crate::{hook, preflight};

impl<O: Origin> Engine<O> {
    /// Notes that the wanted release is on disk: its `stage` hook is next, where it has one that has not run.
    pub(super) async fn content_is_there(&mut self, cost: Cost) -> io::Result<()> {
        let Some(release) = self.wanted_release() else { return Ok(()) };
        let spec = match self.spec(&release).await {
            Ok(spec) => spec,
            // A mistake in what was signed: better known now than when something has stopped for it.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return self.fail(error.to_string(), cost).await;
            }
            Err(error) => return Err(error),
        };
        if let Some(reason) = self.lacking(&spec).await? {
            return self.fail(reason, cost).await;
        }
        let is_prepared =
            self.state.as_ref().is_some_and(|state| state.standing.prepared == Some(release.package));
        let progress = if Event::Stage.hook(&spec).is_some() && !is_prepared {
            Progress::Preparing { hook: None, tries: 0 }
        } else {
            Progress::Staged
        };
        self.change(|state| (state.progress, state.reason, state.cost) = (progress, None, cost)).await?;
        self.settle().await
    }

    /// Says what this host lacks of what a release asks for, whose source did not send that ahead.
    async fn lacking(&self, spec: &Spec) -> io::Result<Option<String>> {
        // The disk was to be free before the release came.
        let requires = Requires { disk: None, ..spec.requires.clone() };
        let dir = self.dir.clone();
        blocking(move || preflight::lacking(&requires, dir.base())).await
    }

    pub(super) async fn prepare(&mut self, token: &CancellationToken) -> io::Result<()> {
        let Some(release) = self.wanted_release() else { return Ok(()) };
        let state = self.state.as_ref().expect("a step is performed on an accepted order");
        let (Progress::Preparing { tries, .. }, cost) = (state.progress.clone(), state.cost) else {
            return Ok(());
        };
        let current = self.observe().await?.current.installed().cloned();
        let instance = match self.instance(release, None, current).await {
            Ok(instance) => instance,
            Err(error) => return self.fail(error.to_string(), cost).await,
        };
        let Some(call) = self.call(Event::Stage, &instance, None) else { return self.prepared().await };
        let name = format!("{} of {}", Event::Stage.as_str(), instance.release.version);
        let hook = Some(HookRun { name: name.clone(), id: call.id.clone() });
        self.change(|state| state.progress = Progress::Preparing { hook, tries }).await?;
        let ended = self.run(&call, token).await;
        self.hashed.forget_look();
        self.host.crash.pass()?;
        match judge(&name, ended, tries) {
            Told::Done { .. } => self.prepared().await,
            Told::Later => {
                let tries = tries + 1;
                self.change(|state| state.progress = Progress::Preparing { hook: None, tries }).await?;
                wait_before_try(tries, token).await;
                Ok(())
            }
            Told::Failed { reason, output } => {
                self.change(|state| state.hook_output = output).await?;
                self.fail(reason, cost).await
            }
            Told::Interrupted => Ok(()),
        }
    }

    async fn prepared(&mut self) -> io::Result<()> {
        self.change(|state| {
            state.standing.prepared = state.wanted.package();
            (state.progress, state.reason) = (Progress::Staged, None);
        })
        .await?;
        self.settle().await
    }

    /// Ends the order: what its `stage` hook did before the agent's restart is not known.
    pub(super) async fn fail_interrupted(&mut self, run: &HookRun) -> io::Result<()> {
        let id = run.id.clone();
        blocking(move || {
            hook::end_marked(&id);
            Ok(())
        })
        .await?;
        let cost = self.state.as_ref().map(|state| state.cost).unwrap_or_default();
        self.fail(run.interruption(), cost).await
    }
}
