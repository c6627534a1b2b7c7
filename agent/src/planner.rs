//! Decides an agent's next step for one application. Pure: the accepted order, what is on disk and the time in,
//! one step out. Recovery after a crash is this same function on what the crash left.

use std::time::Duration;

use sluice_common::digest::Digest;
use sluice_common::order::Stage;

use crate::clock::BootTime;
use crate::observe::{Disk, Link};
use crate::state::{AppState, HookRun, Progress, RevertAt, SwitchAt, Wanted};

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, until something changes.
    Rest(Rest),
    /// Bring the wanted release to disk and verify it.
    Stage,
    /// The wanted release is on disk: note it.
    NoteStaged,
    /// The wanted release is no longer whole on disk: go back to fetching.
    Restage,
    /// The wanted state stands already, with nothing running to look at: note it.
    NoteActive,
    /// The wanted release runs already: see that it is healthy, without switching.
    Confirm,
    /// Verify the tree again and note the way back.
    BeginSwitch,
    /// Run a hook of the switch, if the release has it.
    SwitchHook(SwitchAt),
    /// Move `previous` and `current`.
    Link,
    /// Watch the gate.
    Gate,
    /// Go back.
    BeginRevert(Cause),
    /// Run a hook of the revert, if the release has it.
    RevertHook(RevertAt),
    /// A hook of the revert was interrupted by a restart: note it, never run it again.
    SkipHook {
        /// The hook's step.
        at: RevertAt,
        /// The run.
        run: HookRun,
    },
    /// Move `current` and `previous` back.
    LinkBack,
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
    /// The host was booted while the gate was watched.
    Rebooted,
}

/// Returns the next step.
pub(crate) fn next_step(state: &AppState, disk: &Disk, now: &BootTime) -> Step {
    match &state.progress {
        Progress::Fetching | Progress::Staged => match &state.wanted {
            Wanted::Release { stage, package, .. } => towards_release(state, *stage, package, disk, now),
            Wanted::Absent => towards_absent(state, disk, now),
        },
        Progress::Switching { hook: Some(run), .. } => Step::BeginRevert(Cause::Interrupted(run.clone())),
        Progress::Switching { at, hook: None, .. } => match at {
            SwitchAt::StopOld | SwitchAt::StartNew => Step::SwitchHook(*at),
            SwitchAt::Link => Step::Link,
        },
        Progress::Validating { deadline, bake_until, .. } => validating(deadline, bake_until.as_ref(), now),
        Progress::Reverting { at, hook: Some(run), .. } => Step::SkipHook { at: *at, run: run.clone() },
        Progress::Reverting { at, hook: None, .. } => match at {
            RevertAt::StopNew | RevertAt::StartOld => Step::RevertHook(*at),
            RevertAt::LinkBack => Step::LinkBack,
        },
        Progress::Active | Progress::Reverted | Progress::Failed => Step::Rest(Rest::Settled),
    }
}

fn towards_release(state: &AppState, stage: Stage, package: &Digest, disk: &Disk, now: &BootTime) -> Step {
    match (&state.progress, disk.is_target_staged) {
        (Progress::Fetching, false) => Step::Stage,
        (Progress::Fetching, true) => Step::NoteStaged,
        (_, false) => Step::Restage,
        (_, true) => match stage {
            Stage::Staged => Step::Rest(Rest::Settled),
            Stage::Active if disk.current.leads_to(package) => Step::Confirm,
            Stage::Active if state.has_expired(now) => Step::Rest(Rest::AwaitsRenewal),
            Stage::Active => Step::BeginSwitch,
        },
    }
}

fn towards_absent(state: &AppState, disk: &Disk, now: &BootTime) -> Step {
    match disk.current {
        Link::Nothing => Step::NoteActive,
        Link::Release(_) | Link::Broken(_) if state.has_expired(now) => Step::Rest(Rest::AwaitsRenewal),
        Link::Release(_) | Link::Broken(_) => Step::BeginSwitch,
    }
}

fn validating(deadline: &BootTime, bake_until: Option<&BootTime>, now: &BootTime) -> Step {
    match (now.until(deadline), bake_until) {
        (None, _) => Step::BeginRevert(Cause::Rebooted),
        // Once the checks have succeeded the deadline is met; the bake begins anew where it was.
        (Some(_), Some(_)) => Step::Gate,
        (Some(Duration::ZERO), None) => Step::BeginRevert(Cause::Deadline),
        (Some(_), None) => Step::Gate,
    }
}

#[cfg(test)]
mod tests {
    use sluice_common::order::{Generation, Installed};

    use super::*;
    use crate::state::{Cost, Switch};

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
        Switch { predecessor: Some(installed("old")), previous: None }
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
        let validating =
            |bake| Progress::Validating { deadline: at(200), bake_until: bake, switch: switch() };
        let other_boot = BootTime::at("other", Duration::from_secs(1));
        for (name, progress, now, expected) in [
            ("stop", switching(SwitchAt::StopOld, None), at(150), Step::SwitchHook(SwitchAt::StopOld)),
            ("a switch under way does not expire", switching(SwitchAt::Link, None), at(900), Step::Link),
            ("start", switching(SwitchAt::StartNew, None), at(150), Step::SwitchHook(SwitchAt::StartNew)),
            (
                "interrupted stop",
                switching(SwitchAt::StopOld, Some(hook())),
                at(150),
                Step::BeginRevert(Cause::Interrupted(hook())),
            ),
            (
                "interrupted start",
                switching(SwitchAt::StartNew, Some(hook())),
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
            ("stop new", reverting(RevertAt::StopNew, None), at(150), Step::RevertHook(RevertAt::StopNew)),
            ("link back", reverting(RevertAt::LinkBack, None), at(150), Step::LinkBack),
            ("start old", reverting(RevertAt::StartOld, None), at(150), Step::RevertHook(RevertAt::StartOld)),
            (
                "interrupted on the way back",
                reverting(RevertAt::StartOld, Some(hook())),
                at(150),
                Step::SkipHook { at: RevertAt::StartOld, run: hook() },
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
}
