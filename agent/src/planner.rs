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
mod tests {
    use sluice_common::order::{Generation, Installed};

    use super::*;
    use crate::state::{Cost, Standing};

    fn installed(name: &str) -> Installed {
        Installed { package: Digest::of(name.as_bytes()), version: name.parse().unwrap() }
    }

    fn at(seconds: u64) -> BootTime {
        BootTime::at("boot", Duration::from_secs(seconds))
    }

    fn state(wanted: Wanted, progress: Progress) -> AppState {
        AppState {
            generation: Generation(3),
            rollout: "r1".parse().unwrap(),
            starts: 1,
            ttl_ms: 60_000,
            reason: None,
            hook_output: None,
            received: at(100),
            wanted,
            progress,
            cost: Cost::default(),
            confirmed: false,
            migrates: true,
            standing: Standing::default(),
        }
    }

    fn new(stage: Stage) -> Wanted {
        let Installed { package, version } = installed("new");
        Wanted::Release { stage, package, version }
    }

    fn disk(current: &str, is_target_staged: bool) -> Disk {
        let current = match current {
            "" => Link::Nothing,
            "?" => Link::Broken("x".into()),
            name => Link::Release(installed(name)),
        };
        Disk { current, previous: Link::Nothing, is_target_staged }
    }

    fn switch() -> Switch {
        Switch { steps: crate::sequence::undeclared(), ..Switch::plain(Some(installed("old"))) }
    }

    fn hook() -> HookRun {
        HookRun { name: "start".into(), id: "1".into() }
    }

    #[test]
    fn towards_a_release() {
        use Progress::{Active, Failed, Fetching, Reverted, Staged};
        let (later, expired, rebooted) = (at(110), at(160), BootTime::at("other", Duration::from_secs(101)));
        for (name, stage, progress, disk, now, expected) in [
            ("nothing yet", Stage::Active, Fetching, disk("old", false), &later, Step::Stage),
            ("fetching does not expire", Stage::Active, Fetching, disk("old", false), &expired, Step::Stage),
            ("crash after the marker", Stage::Staged, Fetching, disk("old", true), &later, Step::NoteStaged),
            ("staged suffices", Stage::Staged, Staged, disk("old", true), &later, Step::Rest(Rest::Settled)),
            ("staged is gone", Stage::Staged, Staged, disk("old", false), &later, Step::Restage),
            ("gone before the switch", Stage::Active, Staged, disk("old", false), &later, Step::Restage),
            ("switch", Stage::Active, Staged, disk("old", true), &later, Step::BeginSwitch),
            ("first install", Stage::Active, Staged, disk("", true), &later, Step::BeginSwitch),
            ("out of a broken link", Stage::Active, Staged, disk("?", true), &later, Step::BeginSwitch),
            ("expired", Stage::Active, Staged, disk("old", true), &expired, Step::Rest(Rest::AwaitsRenewal)),
            (
                "rebooted",
                Stage::Active,
                Staged,
                disk("old", true),
                &rebooted,
                Step::Rest(Rest::AwaitsRenewal),
            ),
            ("runs already", Stage::Active, Staged, disk("new", true), &expired, Step::Confirm),
            ("active", Stage::Active, Active, disk("new", true), &later, Step::Rest(Rest::Settled)),
            ("reverted", Stage::Active, Reverted, disk("old", true), &later, Step::Rest(Rest::Settled)),
            ("failed", Stage::Active, Failed, disk("old", false), &later, Step::Rest(Rest::Settled)),
        ] {
            assert_eq!(next_step(&state(new(stage), progress), &disk, now), expected, "{name}");
        }
    }

    #[test]
    fn towards_nothing() {
        use Progress::{Active, Fetching};
        for (name, progress, disk, now, expected) in [
            ("remove", Fetching, disk("old", false), at(110), Step::BeginSwitch),
            ("remove a broken link", Fetching, disk("?", false), at(110), Step::BeginSwitch),
            ("expired", Fetching, disk("old", false), at(160), Step::Rest(Rest::AwaitsRenewal)),
            ("nothing there", Fetching, disk("", false), at(160), Step::NoteActive),
            ("done", Active, disk("", false), at(110), Step::Rest(Rest::Settled)),
        ] {
            assert_eq!(next_step(&state(Wanted::Absent, progress), &disk, &now), expected, "{name}");
        }
    }

    #[test]
    fn through_a_switch_and_back() {
        let switching = |at, hook| Progress::Switching { at, hook, switch: switch() };
        let reverting = |at, hook| Progress::Reverting { at, hook, switch: switch() };
        let validating = |bake| Progress::Validating {
            deadline: at(200),
            bake_until: bake,
            confirm_until: None,
            switch: switch(),
        };
        let other_boot = BootTime::at("other", Duration::from_secs(1));
        for (name, progress, now, expected) in [
            ("stop", switching(SwitchStep::StopOld, None), at(150), Step::Switch(SwitchStep::StopOld)),
            (
                "a switch under way does not expire",
                switching(SwitchStep::Link, None),
                at(900),
                Step::Switch(SwitchStep::Link),
            ),
            ("start", switching(SwitchStep::StartNew, None), at(150), Step::Switch(SwitchStep::StartNew)),
            (
                "interrupted stop",
                switching(SwitchStep::StopOld, Some(hook())),
                at(150),
                Step::BeginRevert(Cause::Interrupted(hook())),
            ),
            (
                "interrupted start",
                switching(SwitchStep::StartNew, Some(hook())),
                at(150),
                Step::BeginRevert(Cause::Interrupted(hook())),
            ),
            ("gate", validating(None), at(199), Step::Gate),
            ("too late", validating(None), at(200), Step::BeginRevert(Cause::Deadline)),
            ("baking", validating(Some(at(500))), at(300), Step::Gate),
            (
                "rebooted in the gate",
                validating(None),
                other_boot.clone(),
                Step::BeginRevert(Cause::Rebooted),
            ),
            (
                "rebooted in the bake",
                validating(Some(at(500))),
                other_boot,
                Step::BeginRevert(Cause::Rebooted),
            ),
            ("stop new", reverting(BackStep::StopNew, None), at(150), Step::Back(BackStep::StopNew)),
            ("link back", reverting(BackStep::LinkBack, None), at(150), Step::Back(BackStep::LinkBack)),
            ("start old", reverting(BackStep::StartOld, None), at(150), Step::Back(BackStep::StartOld)),
            (
                "interrupted on the way back",
                reverting(BackStep::StartOld, Some(hook())),
                at(150),
                Step::SkipHook { at: BackStep::StartOld, run: hook() },
            ),
        ] {
            // On the way the disk may show either side of the rename.
            for current in ["old", "new", ""] {
                let step =
                    next_step(&state(new(Stage::Active), progress.clone()), &disk(current, true), &now);
                assert_eq!(step, expected, "{name}, current {current:?}");
            }
        }
    }

    fn beside(name: &str) -> Beside {
        Beside { release: installed(name), slot: Some("green".into()), since: at(100), hook: None }
    }

    #[test]
    fn what_runs_beside_is_wanted_or_stopped() {
        let standing = |beside| Standing { beside: Some(beside), ..Standing::default() };
        let interrupted = Beside { hook: Some(hook()), ..beside("new") };
        let (later, rebooted) = (at(110), BootTime::at("other", Duration::from_secs(1)));
        let (rest, drop) = (Step::Rest(Rest::Settled), |name| Step::DropBeside(beside(name)));
        for (name, stage, progress, ran, now, expected) in [
            ("candidate", Stage::Candidate, Progress::Candidate, beside("new"), &later, rest),
            ("goes on", Stage::Active, Progress::Staged, beside("new"), &later, Step::BeginSwitch),
            ("another", Stage::Active, Progress::Fetching, beside("other"), &later, drop("other")),
            ("only staged", Stage::Staged, Progress::Staged, beside("new"), &later, drop("new")),
            ("failed", Stage::Candidate, Progress::Failed, beside("new"), &later, drop("new")),
            ("warm for too long", Stage::Active, Progress::Active, beside("old"), &later, drop("old")),
            ("booted", Stage::Candidate, Progress::Candidate, beside("new"), &rebooted, Step::RenewCandidate),
            (
                "stopping",
                Stage::Candidate,
                Progress::Staged,
                interrupted.clone(),
                &later,
                Step::DropBeside(interrupted),
            ),
        ] {
            let state = AppState { standing: standing(ran), ..state(new(stage), progress) };
            assert_eq!(next_step(&state, &disk("old", true), now), expected, "{name}");
        }
    }

    #[test]
    fn a_confirmation_is_awaited_until_its_time() {
        let waiting = || Progress::Validating {
            deadline: at(100),
            bake_until: Some(at(150)),
            confirm_until: Some(at(200)),
            switch: switch(),
        };
        let other_boot = BootTime::at("other", Duration::from_secs(1));
        for (name, confirmed, now, expected) in [
            ("waits", false, at(199), Step::AwaitConfirmation),
            ("confirmed", true, at(199), Step::PassGate),
            ("confirmed at the last moment", true, at(200), Step::PassGate),
            ("too late", false, at(200), Step::BeginRevert(Cause::Unconfirmed)),
            ("booted", true, other_boot, Step::BeginRevert(Cause::Rebooted)),
        ] {
            let state = AppState { confirmed, ..state(new(Stage::Active), waiting()) };
            assert_eq!(next_step(&state, &disk("new", true), &now), expected, "{name}");
        }
    }

    #[test]
    fn hooks_that_a_restart_cut_off_are_never_run_again() {
        let steps =
            vec![SwitchStep::ValidateCandidate, SwitchStep::Validate, SwitchStep::Bake, SwitchStep::StopOld];
        let switch = Switch { steps, ..switch() };
        let at_stop = |hook| Progress::Switching { at: SwitchStep::StopOld, hook, switch: switch.clone() };
        for (name, progress, expected) in [
            ("stage", Progress::Preparing { hook: None, tries: 0 }, Step::Prepare),
            (
                "stage, cut off",
                Progress::Preparing { hook: Some(hook()), tries: 1 },
                Step::FailInterrupted(hook()),
            ),
            ("once proved", at_stop(None), Step::Switch(SwitchStep::StopOld)),
            (
                "once proved, cut off",
                at_stop(Some(hook())),
                Step::SkipSwitchHook { at: SwitchStep::StopOld, run: hook() },
            ),
        ] {
            let state = state(new(Stage::Active), progress);
            assert_eq!(next_step(&state, &disk("new", true), &at(110)), expected, "{name}");
        }
    }
}
