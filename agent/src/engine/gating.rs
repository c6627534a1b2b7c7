//! The gate after a switch, and the look at a release that runs already.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sluice_common::spec::Probe;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deeds::{Told, judge, wait_before_try};
use super::instance::Instance;
use super::{Engine, blocking};
use crate::clock::BootTime;
use crate::content::Origin;
use crate::health::{Baked, Subject, bake, reach};
use crate::hook;
use crate::sequence::{Event, SwitchStep, Whose};
use crate::state::{Progress, Switch};

/// How a gate ended.
enum Gate {
    Passed,
    Failed { reason: String, output: Option<String> },
    Interrupted,
}

impl<O: Origin> Engine<O> {
    pub(super) async fn gate(&mut self, token: &CancellationToken) -> io::Result<()> {
        let state = self.state.as_ref().expect("a step is performed on an accepted order");
        let Progress::Validating { deadline, bake_until, confirm_until: _, switch } = state.progress.clone()
        else {
            return Ok(());
        };
        let at = if bake_until.is_some() { SwitchStep::Bake } else { SwitchStep::Validate };
        let Some(instance) = self.instance_of_gate(at, &switch).await? else { return Ok(()) };
        let subject = self.subject(&instance);
        let gate = match &bake_until {
            None => self.watch_validation(&instance, &subject, &deadline, switch.tries, token).await,
            Some(until) => self.watch_bake(&instance, &subject, until, token).await,
        };
        self.end_checks(&instance).await?;
        match gate? {
            Gate::Passed if at == SwitchStep::Bake && instance.spec.gate.confirm => {
                let within = instance.spec.gate.confirm_within;
                let confirm_until = Some(BootTime::now()?.after(within));
                self.change(|state| {
                    state.progress = Progress::Validating { deadline, bake_until, confirm_until, switch }
                })
                .await
            }
            Gate::Passed => self.pass_gate_at(at, switch).await,
            Gate::Failed { reason, output } => self.revert(at, reason, output).await,
            Gate::Interrupted => Ok(()),
        }
    }

    /// Goes back where what the gate watches cannot be read any more.
    async fn instance_of_gate(&mut self, at: SwitchStep, switch: &Switch) -> io::Result<Option<Instance>> {
        match self.instance_of(Whose::New, switch).await {
            Ok(instance) => Ok(instance),
            Err(error) => {
                self.revert(at, error.to_string(), None).await?;
                Ok(None)
            }
        }
    }

    /// A check that was asked when the gate ended may have left a command behind.
    pub(super) async fn end_checks(&self, instance: &Instance) -> io::Result<()> {
        if !instance.spec.health.iter().any(|check| starts_process(&check.probe)) {
            return Ok(());
        }
        let scope = format!("{}check", self.scope());
        blocking(move || {
            hook::end_marked(&scope);
            Ok(())
        })
        .await?;
        Ok(())
    }

    async fn watch_validation(
        &mut self,
        instance: &Instance,
        subject: &Arc<Subject>,
        deadline: &BootTime,
        tries: u32,
        token: &CancellationToken,
    ) -> io::Result<Gate> {
        let left = BootTime::now()?.until(deadline).unwrap_or(Duration::ZERO);
        let reached = tokio::select! {
            reached = reach(subject, Instant::now() + left) => reached,
            () = token.cancelled() => return Ok(Gate::Interrupted),
        };
        if let Err(reason) = reached {
            return Ok(Gate::Failed { reason, output: None });
        }
        let gate = self.validate(instance, tries, token).await;
        self.is_reached = matches!(gate, Gate::Passed);
        Ok(gate)
    }

    async fn watch_bake(
        &self,
        instance: &Instance,
        subject: &Arc<Subject>,
        until: &BootTime,
        token: &CancellationToken,
    ) -> io::Result<Gate> {
        // Once met, a deadline is met: after a restart in the bake the checks get its time anew.
        if !self.is_reached {
            let reached = tokio::select! {
                reached = reach(subject, Instant::now() + instance.spec.gate.deadline) => reached,
                () = token.cancelled() => return Ok(Gate::Interrupted),
            };
            if let Err(reason) = reached {
                return Ok(Gate::Failed { reason, output: None });
            }
        }
        let left = BootTime::now()?.until(until).unwrap_or(Duration::ZERO);
        if left.is_zero() {
            return Ok(Gate::Passed);
        }
        let baked = tokio::select! {
            baked = bake(subject, Instant::now() + left) => baked,
            () = token.cancelled() => return Ok(Gate::Interrupted),
        };
        Ok(match baked {
            Baked::Held => Gate::Passed,
            Baked::Broke(reason) => Gate::Failed { reason, output: None },
        })
    }

    /// Waits for the coordinator's confirmation, while the checks keep holding. What arrives ends this early.
    pub(super) async fn await_confirmation(&mut self, token: &CancellationToken) -> io::Result<()> {
        let state = self.state.as_ref().expect("a step is performed on an accepted order");
        let Progress::Validating { confirm_until: Some(until), switch, .. } = state.progress.clone() else {
            return Ok(());
        };
        let Some(instance) = self.instance_of_gate(SwitchStep::Bake, &switch).await? else { return Ok(()) };
        self.publish(Some(true)).await?;
        let gate = self.watch_bake(&instance, &self.subject(&instance), &until, token).await;
        self.end_checks(&instance).await?;
        match gate? {
            // The time is over, which the planner sees too.
            Gate::Passed | Gate::Interrupted => Ok(()),
            Gate::Failed { reason, output } => self.revert(SwitchStep::Bake, reason, output).await,
        }
    }

    /// Goes on after the gate.
    pub(super) async fn pass_gate(&mut self) -> io::Result<()> {
        match self.switch() {
            Some(switch) => self.pass_gate_at(SwitchStep::Bake, switch).await,
            None => Ok(()),
        }
    }

    async fn pass_gate_at(&mut self, at: SwitchStep, switch: Switch) -> io::Result<()> {
        self.proceed(at, switch, |_| {}).await?;
        if self.switch().is_none() {
            self.publish(Some(true)).await?;
        }
        Ok(())
    }

    async fn validate(&self, instance: &Instance, tries: u32, token: &CancellationToken) -> Gate {
        let Some(call) = self.call(Event::Validate, instance, None) else { return Gate::Passed };
        let name = format!("{} of {}", Event::Validate.as_str(), instance.release.version);
        let mut tries = tries;
        loop {
            match judge(&name, self.run(&call, token).await, tries) {
                Told::Done { .. } => return Gate::Passed,
                Told::Interrupted => return Gate::Interrupted,
                Told::Failed { reason, output } => return Gate::Failed { reason, output },
                Told::Later => {
                    tries += 1;
                    wait_before_try(tries, token).await;
                }
            }
        }
    }

    /// Sees whether the wanted release, which runs already, is healthy.
    pub(super) async fn confirm(&mut self, token: &CancellationToken) -> io::Result<()> {
        let Some(release) = self.wanted_release() else { return Ok(()) };
        let cost = self.state.as_ref().map(|state| state.cost).unwrap_or_default();
        let slot = self.live_slot();
        let instance = match self.instance(release, slot, None).await {
            Ok(instance) => instance,
            Err(error) => return self.fail(error.to_string(), cost).await,
        };
        let subject = self.subject(&instance);
        let reached = tokio::select! {
            reached = reach(&subject, Instant::now() + instance.spec.gate.deadline) => reached,
            () = token.cancelled() => return Ok(()),
        };
        match reached {
            Ok(()) => {
                self.note_active().await?;
                self.publish(Some(true)).await
            }
            Err(reason) => {
                self.fail(format!("{} runs already and is {reason}", instance.release.version), cost).await
            }
        }
    }
}

fn starts_process(probe: &Probe) -> bool {
    match probe {
        Probe::Command(_) | Probe::Systemd(_) => true,
        Probe::Http(_) | Probe::Tcp(_) | Probe::Resources(_) => false,
    }
}
