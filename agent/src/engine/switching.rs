//! Steps of a switch: verify, note the steps and the way back, take one step after the other.

use std::io;
use std::sync::atomic::AtomicBool;

use sluice_common::digest::Digest;
use sluice_common::spec::Spec;
use tokio_util::sync::CancellationToken;

use super::deeds::Told;
use super::{Engine, blocking};
use crate::accept::release_objection;
use crate::clock::BootTime;
use crate::content::Origin;
use crate::examine::{Finding, examine, examine_unseen};
use crate::hook;
use crate::observe::{self, Disk};
use crate::sequence::{self, Change, SwitchStep};
use crate::stage::{Work, unmark};
use crate::state::{
    AppState, Arrival, Beside, HookRun, Progress, SignedFileError, Standing, Switch, Wanted, load_signed,
};
use crate::update;

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
        let (switch, beside) = match self.sequence(&disk).await {
            Ok(planned) => planned,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return self.fail(error.to_string(), cost).await;
            }
            Err(error) => return Err(error),
        };
        let Some(first) = switch.steps.first().copied() else { return Ok(()) };
        self.is_reached = false;
        self.enter(first, switch, |state| {
            (state.reason, state.hook_output) = (None, None);
            if beside.is_some() {
                state.standing.beside = beside;
            }
        })
        .await
    }

    /// Works out the steps from what stands, and what is about to run beside the live release.
    async fn sequence(&self, disk: &Disk) -> io::Result<(Switch, Option<Beside>)> {
        let state = self.state.as_ref().expect("a step is performed on an accepted order");
        let Standing { slot, beside, prepared: _, arrival } = &state.standing;
        let (old, new) = (disk.current.installed().cloned(), state.wanted.installed());
        let old_spec = match &old {
            Some(old) => Some(self.spec(old).await?),
            None => None,
        };
        let new_spec = match &new {
            Some(new) => Some(self.spec(new).await?),
            None => None,
        };
        let now = BootTime::now()?;
        let runs = beside
            .as_ref()
            .filter(|beside| Some(&beside.release) == new.as_ref() && now.since(&beside.since).is_some());
        let arrival = arrival
            .as_ref()
            .filter(|arrival| arrival.rollout == state.rollout && arrival.from == new && old.is_some());
        let snapshot = arrival.and_then(|arrival| arrival.snapshot.clone());
        let mut steps = sequence::sequence(&Change {
            old: old_spec.as_ref(),
            new: new_spec.as_ref(),
            migrates: state.migrates,
            returns: arrival.is_some(),
            has_snapshot: snapshot.is_some(),
            runs_beside: runs.is_some(),
        });
        if self.is_agent() {
            steps = update::steps();
        }
        if state.wanted.is_candidate() {
            if !steps.contains(&SwitchStep::ValidateCandidate) {
                let reason = "the release has no [parallel] slots in its sluice.toml, so it cannot run as a candidate; order stage staged";
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            steps.retain(|step| step.is_beside());
        }
        let free = new_spec.as_ref().and_then(|spec| spec.parallel.as_ref());
        let new_slot = match runs {
            Some(beside) => beside.slot.clone(),
            None => free.map(|parallel| parallel.free(slot.as_deref()).to_owned()),
        };
        let starting = new.filter(|_| steps.contains(&SwitchStep::StartCandidate));
        let starting =
            starting.map(|release| Beside { release, slot: new_slot.clone(), since: now, hook: None });
        let switch = Switch {
            previous: disk.previous.installed().cloned(),
            steps,
            old_slot: slot.clone(),
            new_slot,
            snapshot,
            ..Switch::plain(old)
        };
        Ok((switch, starting))
    }

    /// Says why the release may not run here: its key may have been unpinned since the order was accepted.
    async fn objection(&self, package: &Digest) -> io::Result<Option<String>> {
        let state = self.state.as_ref().expect("a step is performed on an accepted order");
        let path = self.dir.order(state.generation);
        let signed =
            tokio::task::spawn_blocking(move || load_signed(&path)).await.map_err(io::Error::other)?;
        Ok(match signed {
            Ok(signed) => release_objection(&self.app, &signed, package, &self.host.rules),
            // A disk that cannot be read just now says nothing of the release.
            Err(SignedFileError::Io(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(error) => Some(format!("{}; order the release anew", crate::content::chain(&error))),
        })
    }

    /// Verifies the release: every byte of it, but for what this process has hashed when it was staged and finds as it was; of
    /// one that it has staged and looked at a moment ago, nothing.
    async fn verify(&mut self, package: Digest, token: &CancellationToken) -> io::Result<Vec<Finding>> {
        let dir = self.dir.clone();
        let seen = self.hashed.before_switch(&package);
        if seen.as_ref().is_some_and(|seen| seen.is_just_looked_at()) {
            return Ok(Vec::new());
        }
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

    /// Takes a step of the switch.
    pub(super) async fn switch_step(&mut self, at: SwitchStep, token: &CancellationToken) -> io::Result<()> {
        let Some(switch) = self.switch() else { return Ok(()) };
        let deed = match (at, at.deed()) {
            (SwitchStep::Link, _) => return self.link(switch).await,
            (SwitchStep::ValidateCandidate, _) => return self.validate_candidate(switch, token).await,
            (_, Some(deed)) => deed,
            // The gate has a progress of its own.
            (_, None) => return self.enter(at, switch, |_| {}).await,
        };
        if at == SwitchStep::StartCandidate {
            self.point_candidate(self.wanted_release()).await?;
        }
        let journal = |hook, switch| Progress::Switching { at, hook, switch };
        match self.tell_release(deed, &switch, journal, token).await? {
            Told::Done { last_line } => {
                let Some(mut switch) = self.switch() else { return Ok(()) };
                if at == SwitchStep::Snapshot {
                    match last_line {
                        Some(line) => switch.snapshot = Some(line),
                        None => {
                            let reason =
                                "the snapshot hook printed nothing; its last line must name the snapshot";
                            return self.revert(at, reason.into(), None).await;
                        }
                    }
                }
                let has_ended_beside = at == SwitchStep::StopOld && switch.is_parallel();
                self.proceed(at, switch, |state| {
                    if has_ended_beside {
                        state.standing.beside = None;
                    }
                })
                .await
            }
            Told::Failed { reason, output } => self.revert(at, reason, output).await,
            Told::Later | Told::Interrupted => Ok(()),
        }
    }

    /// Goes on to the step after `at`; what that one changed is written with it.
    pub(super) async fn proceed(
        &mut self,
        at: SwitchStep,
        switch: Switch,
        change: impl FnOnce(&mut AppState),
    ) -> io::Result<()> {
        match sequence::after(&switch.steps, at) {
            Some(next) => self.enter(next, switch, change).await,
            None => self.finish(switch, change).await,
        }
    }

    /// Notes that `at` is the next step, before anything of it is done.
    async fn enter(
        &mut self,
        at: SwitchStep,
        switch: Switch,
        change: impl FnOnce(&mut AppState),
    ) -> io::Result<()> {
        let switch = Switch { tries: 0, ..switch };
        let gate = async |engine: &Self| -> io::Result<Spec> {
            match engine.wanted_release() {
                Some(release) => engine.spec(&release).await,
                None => Ok(Spec::default()),
            }
        };
        let progress = match at {
            SwitchStep::Validate => {
                let deadline = BootTime::now()?.after(gate(self).await?.gate.deadline);
                Progress::Validating { deadline, bake_until: None, confirm_until: None, switch }
            }
            SwitchStep::Bake => {
                let now = BootTime::now()?;
                let bake_until = Some(now.after(gate(self).await?.gate.bake));
                Progress::Validating { deadline: now, bake_until, confirm_until: None, switch }
            }
            _ => {
                self.leave_unmonitored(at);
                let journal = |hook, switch| Progress::Switching { at, hook, switch };
                return self.enter_step(at.deed(), switch, journal, change).await;
            }
        };
        self.leave_unmonitored(at);
        self.change(|state| {
            change(state);
            state.progress = progress;
        })
        .await
    }

    /// Has the monitor look away from what is about to change.
    fn leave_unmonitored(&self, at: SwitchStep) {
        if !at.is_beside() {
            self.monitored.send_replace(None);
        }
    }

    /// Ends the order: every step has been taken.
    async fn finish(&mut self, switch: Switch, change: impl FnOnce(&mut AppState)) -> io::Result<()> {
        let Switch { predecessor, snapshot, .. } = switch;
        self.change(|state| {
            change(state);
            state.hook_output = None;
            if state.wanted.is_candidate() {
                (state.progress, state.reason) = (Progress::Candidate, None);
                return;
            }
            // To return is to be where the rollout began.
            let has_returned = state.standing.arrival.as_ref().is_some_and(|arrival| {
                arrival.rollout == state.rollout && arrival.from == state.wanted.installed()
            });
            let rollout = state.rollout.clone();
            state.standing.arrival =
                (!has_returned).then_some(Arrival { rollout, from: predecessor, snapshot });
            state.progress = Progress::Active;
        })
        .await?;
        self.settle().await
    }

    /// Passes over a hook that a restart interrupted once the new release had proved itself.
    pub(super) async fn skip_switch_hook(&mut self, at: SwitchStep, run: &HookRun) -> io::Result<()> {
        let Some(switch) = self.switch() else { return Ok(()) };
        let id = run.id.clone();
        blocking(move || {
            hook::end_marked(&id);
            Ok(())
        })
        .await?;
        self.pass_over(at, switch, &run.interruption()).await
    }

    /// Goes on after a step that failed where there is no way back any more.
    async fn pass_over(&mut self, at: SwitchStep, switch: Switch, trouble: &str) -> io::Result<()> {
        tracing::warn!(app = %self.app, trouble, "what is left of the switch has trouble");
        let trouble = format!("the predecessor was not ended well: {trouble}");
        // A stop that failed or was cut off is not tried again by whoever ends what runs beside the live release.
        let was_told_to_stop = at == SwitchStep::StopOld;
        self.proceed(at, switch, |state| {
            state.reason = Some(trouble);
            if was_told_to_stop {
                state.standing.beside = None;
            }
        })
        .await
    }

    /// Goes back, from a step of the switch that failed.
    pub(super) async fn revert(
        &mut self,
        at: SwitchStep,
        reason: String,
        output: Option<String>,
    ) -> io::Result<()> {
        let Some(mut switch) = self.switch() else { return Ok(()) };
        switch.back = sequence::way_back(&switch.steps, at);
        switch.tries = 0;
        let Some(first) = switch.back.first().copied() else {
            return match sequence::is_settled(&switch.steps, at) {
                true => self.pass_over(at, switch, &reason).await,
                // Nothing was touched yet.
                false => {
                    let cost = self.state.as_ref().map(|state| state.cost).unwrap_or_default();
                    self.fail(reason, cost).await
                }
            };
        };
        let journal = |hook, switch| Progress::Reverting { at: first, hook, switch };
        self.enter_step(first.deed(), switch, journal, |state| {
            state.reason = Some(reason);
            state.hook_output = output;
        })
        .await
    }

    async fn link(&mut self, switch: Switch) -> io::Result<()> {
        let wanted = self.wanted_release();
        let links = (wanted.clone(), switch.predecessor.clone());
        let switch_us = self.move_links(links, &switch.predecessor, "ordered").await?;
        self.point_candidate(None).await?;
        let beside = match &switch.predecessor {
            Some(release) if switch.is_parallel() => {
                let (release, slot) = (release.clone(), switch.old_slot.clone());
                Some(Beside { release, slot, since: BootTime::now()?, hook: None })
            }
            Some(_) | None => None,
        };
        let slot = switch.new_slot.clone();
        self.proceed(SwitchStep::Link, switch, |state| {
            state.cost.switch_us = switch_us;
            (state.standing.slot, state.standing.beside) = (slot, beside);
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
            | Progress::Preparing { .. }
            | Progress::Staged
            | Progress::Candidate
            | Progress::Active
            | Progress::Reverted
            | Progress::Failed => None,
        }
    }
}
