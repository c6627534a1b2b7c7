//! The gate after a switch, and the look at a release that runs already.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sluice_common::order::Installed;
use sluice_common::spec::Spec;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::hooks::Event;
use super::{Engine, blocking};
use crate::clock::BootTime;
use crate::content::Origin;
use crate::health::{Baked, Subject, bake, reach};
use crate::hook::{self, End};
use crate::state::{Progress, SwitchAt};

/// How a gate ended.
enum Gate {
    Passed,
    Failed { reason: String, output: Option<String> },
    Interrupted,
}

impl<O: Origin> Engine<O> {
    pub(super) async fn gate(&mut self, token: &CancellationToken) -> io::Result<()> {
        let gate = self.watch_gate(token).await;
        let scope = format!("{}check", self.scope());
        // A check that was asked when the gate ended may have left a command behind.
        blocking(move || Ok(hook::end_marked(&scope))).await?;
        match gate? {
            Gate::Passed => {
                self.note_active().await?;
                self.publish(Some(true)).await
            }
            Gate::Failed { reason, output } => self.revert(SwitchAt::StartNew, reason, output).await,
            Gate::Interrupted => Ok(()),
        }
    }

    async fn watch_gate(&mut self, token: &CancellationToken) -> io::Result<Gate> {
        let state = self.state.as_ref().expect("a step is performed on an accepted order");
        let Progress::Validating { deadline, bake_until, switch } = state.progress.clone() else {
            return Ok(Gate::Interrupted);
        };
        let Some(release) = self.wanted_release() else { return Ok(Gate::Passed) };
        let (spec, subject) = match self.spec_and_subject(&release).await {
            Ok(found) => found,
            Err(error) => return Ok(Gate::Failed { reason: error.to_string(), output: None }),
        };
        let now = BootTime::now()?;
        // Once met, a deadline is met: after a restart in the bake the checks get its time anew.
        let left = match &bake_until {
            Some(_) => spec.gate.deadline,
            None => now.until(&deadline).unwrap_or(Duration::ZERO),
        };
        let reached = tokio::select! {
            reached = reach(&subject, Instant::now() + left) => reached,
            () = token.cancelled() => return Ok(Gate::Interrupted),
        };
        if let Err(reason) = reached {
            return Ok(Gate::Failed { reason, output: None });
        }
        let until = match bake_until {
            Some(until) => until,
            None => {
                let previous = switch.predecessor.as_ref();
                match self.validate(&release, &spec, previous, token).await {
                    Gate::Passed => {}
                    gate => return Ok(gate),
                }
                let until = BootTime::now()?.after(spec.gate.bake);
                let bake_until = Some(until.clone());
                if !spec.gate.bake.is_zero() {
                    self.change(|state| {
                        state.progress = Progress::Validating { deadline, bake_until, switch }
                    })
                    .await?;
                }
                until
            }
        };
        let left = BootTime::now()?.until(&until).unwrap_or(Duration::ZERO);
        if left.is_zero() {
            return Ok(Gate::Passed);
        }
        let baked = tokio::select! {
            baked = bake(&subject, Instant::now() + left) => baked,
            () = token.cancelled() => return Ok(Gate::Interrupted),
        };
        Ok(match baked {
            Baked::Held => Gate::Passed,
            Baked::Broke(reason) => Gate::Failed { reason, output: None },
        })
    }

    async fn validate(
        &self,
        release: &Installed,
        spec: &Spec,
        previous: Option<&Installed>,
        token: &CancellationToken,
    ) -> Gate {
        let Some(call) = self.call(Event::Validate, release, spec, previous) else { return Gate::Passed };
        let ended = self.run(&call, token).await;
        match ended.end {
            End::Succeeded => Gate::Passed,
            End::Interrupted => Gate::Interrupted,
            End::Failed(reason) => Gate::Failed {
                reason: format!("hook {} of {} {reason}", Event::Validate.as_str(), release.version),
                output: Some(ended.output),
            },
        }
    }

    /// Sees whether the wanted release, which runs already, is healthy.
    pub(super) async fn confirm(&mut self, token: &CancellationToken) -> io::Result<()> {
        let Some(release) = self.wanted_release() else { return Ok(()) };
        let cost = self.state.as_ref().map(|state| state.cost).unwrap_or_default();
        let (spec, subject) = match self.spec_and_subject(&release).await {
            Ok(found) => found,
            Err(error) => return self.fail(error.to_string(), cost).await,
        };
        let reached = tokio::select! {
            reached = reach(&subject, Instant::now() + spec.gate.deadline) => reached,
            () = token.cancelled() => return Ok(()),
        };
        match reached {
            Ok(()) => {
                self.note_active().await?;
                self.publish(Some(true)).await
            }
            Err(reason) => self.fail(format!("{} runs already and is {reason}", release.version), cost).await,
        }
    }

    async fn spec_and_subject(&self, release: &Installed) -> io::Result<(Spec, Arc<Subject>)> {
        Ok((self.spec(release).await?, self.subject(release).await?))
    }
}
