//! Decides an agent's next step for one application. Pure: the accepted order, what is on disk and the time in,
//! one step out. Recovery after a crash is this same function on what the crash left. What a switch consists of is
//! [`crate::sequence`]'s business.

use std::time::Duration;

use sluice_common::digest::Digest;
use sluice_common::order::Stage;

use crate::clock::BootTime;
use crate::observe::{Disk, Link};
use crate::sequence::{BackStep, SwitchStep, is_settled};
use crate::state::{AppState, Beside, HookRun, Progress, Switch, Wanted};

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, until something changes.
    Rest(Rest),
    /// Bring the wanted release to disk and verify it.
    Stage,
    /// The wanted release is on disk: note it.
    NoteStaged,
    /// Run the release's `stage` hook.
    Prepare,
    /// A restart interrupted the release's `stage` hook: the order cannot be carried out.
    FailInterrupted(HookRun),
    /// Look after what stands. Due at rest, by the clock of whoever performs the steps: it is not planned.
    LookAfter,
    /// The wanted release is no longer whole on disk: go back to fetching.
    Restage,
    /// The wanted state stands already, with nothing running to look at: note it.
    NoteActive,
    /// The wanted release runs already: see that it is healthy, without switching.
    Confirm,
    /// Stop what runs beside the live release, which nobody wants there.
    DropBeside(Beside),
    /// The host was booted since the candidate was started: start it anew.
    RenewCandidate,
    /// Verify the tree again, and note the steps and the way back.
    BeginSwitch,
    /// Take a step of the switch.
    Switch(SwitchStep),
    /// A hook was interrupted by a restart where there is no way back any more: note it, never run it again.
    SkipSwitchHook {
        /// The hook's step.
        at: SwitchStep,
        /// The run.
        run: HookRun,
    },
    /// Watch the gate.
    Gate,
    /// The gate has held: wait for the coordinator's confirmation.
    AwaitConfirmation,
    /// The coordinator has confirmed: the gate has passed.
    PassGate,
    /// Go back.
    BeginRevert(Cause),
    /// Take a step of going back.
    Back(BackStep),
    /// A hook of the revert was interrupted by a restart: note it, never run it again.
    SkipHook {
        /// The hook's step.
        at: BackStep,
        /// The run.
        run: HookRun,
    },
}

/// Why nothing is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The order is carried out, or cannot be.
    Settled,
    /// The switch may not begin until the coordinator renews the order.
    AwaitsRenewal,
}

/// Why a switch is undone without having been tried further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The agent was restarted while a hook ran.
    Interrupted(HookRun),
    /// The deadline has passed while the agent was away.
    Deadline,
    /// The coordinator has not confirmed in time.
    Unconfirmed,
    /// The host was booted while the gate was watched.
    Rebooted,
}

/// Returns the next step.
pub(crate) fn next_step(state: &AppState, disk: &Disk, now: &BootTime) -> Step {
    match &state.progress {
        Progress::Fetching | Progress::Staged | Progress::Candidate => match unwanted(state) {
            Some(beside) => Step::DropBeside(beside.clone()),
            None => match &state.wanted {
                Wanted::Release { stage, package, .. } => towards_release(state, *stage, package, disk, now),
                Wanted::Absent => towards_absent(state, disk, now),
            },
        },
        Progress::Preparing { hook: Some(run), .. } => Step::FailInterrupted(run.clone()),
        Progress::Preparing { hook: None, .. } => Step::Prepare,
        Progress::Switching { at, hook: Some(run), switch } if is_settled(&switch.steps, *at) => {
            Step::SkipSwitchHook { at: *at, run: run.clone() }
        }
        Progress::Switching { hook: Some(run), .. } => Step::BeginRevert(Cause::Interrupted(run.clone())),
        Progress::Switching { at, hook: None, .. } => Step::Switch(*at),
        Progress::Validating { deadline, bake_until, confirm_until, switch: Switch { .. } } => {
            let (bake_until, confirm_until) = (bake_until.as_ref(), confirm_until.as_ref());
            validating(deadline, bake_until, confirm_until, state.confirmed, now)
        }
        Progress::Reverting { at, hook: Some(run), .. } => Step::SkipHook { at: *at, run: run.clone() },
        Progress::Reverting { at, hook: None, .. } => Step::Back(*at),
        Progress::Active | Progress::Reverted | Progress::Failed => match &state.standing.beside {
            Some(beside) => Step::DropBeside(beside.clone()),
            None => Step::Rest(Rest::Settled),
        },
    }
}

/// Returns what runs beside the live release without being what the order wants there.
fn unwanted(state: &AppState) -> Option<&Beside> {
    let wanted = match &state.wanted {
        Wanted::Release { stage: Stage::Candidate | Stage::Active, package, .. } => Some(package),
        Wanted::Release { stage: Stage::Staged, .. } | Wanted::Absent => None,
    };
    let is_wanted = |beside: &&Beside| beside.hook.is_none() && Some(&beside.release.package) == wanted;
    state.standing.beside.as_ref().filter(|beside| !is_wanted(beside))
}

fn towards_release(state: &AppState, stage: Stage, package: &Digest, disk: &Disk, now: &BootTime) -> Step {
    match (&state.progress, disk.is_target_staged) {
        (Progress::Fetching, false) => Step::Stage,
        (Progress::Fetching, true) => Step::NoteStaged,
        (Progress::Candidate, _) => candidate(state, now),
        (_, false) => Step::Restage,
        (_, true) => match stage {
            Stage::Staged => Step::Rest(Rest::Settled),
            Stage::Active if disk.current.leads_to(package) => Step::Confirm,
            Stage::Candidate | Stage::Active if state.has_expired(now) => Step::Rest(Rest::AwaitsRenewal),
            Stage::Candidate | Stage::Active => Step::BeginSwitch,
        },
    }
}

fn candidate(state: &AppState, now: &BootTime) -> Step {
    match &state.standing.beside {
        Some(beside) if now.since(&beside.since).is_none() => Step::RenewCandidate,
        Some(_) | None => Step::Rest(Rest::Settled),
    }
}

fn towards_absent(state: &AppState, disk: &Disk, now: &BootTime) -> Step {
    match disk.current {
        Link::Nothing => Step::NoteActive,
        Link::Release(_) | Link::Broken(_) if state.has_expired(now) => Step::Rest(Rest::AwaitsRenewal),
        Link::Release(_) | Link::Broken(_) => Step::BeginSwitch,
    }
}

fn validating(
    deadline: &BootTime,
    bake_until: Option<&BootTime>,
    confirm_until: Option<&BootTime>,
    is_confirmed: bool,
    now: &BootTime,
) -> Step {
    let Some(left) = now.until(deadline) else { return Step::BeginRevert(Cause::Rebooted) };
    match (bake_until, confirm_until.and_then(|until| now.until(until))) {
        (_, Some(_)) if is_confirmed => Step::PassGate,
        (_, Some(Duration::ZERO)) => Step::BeginRevert(Cause::Unconfirmed),
        (_, Some(_)) => Step::AwaitConfirmation,
        // Once the checks have succeeded the deadline is met; the bake begins anew where it was.
        (Some(_), None) => Step::Gate,
        (None, None) if left.is_zero() => Step::BeginRevert(Cause::Deadline),
        (None, None) => Step::Gate,
    }
}

#[cfg(test)]
mod tests;
