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
        needs: std::collections::BTreeMap::new(),
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
        ("rebooted", Stage::Active, Staged, disk("old", true), &rebooted, Step::Rest(Rest::AwaitsRenewal)),
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
        ("rebooted in the gate", validating(None), other_boot.clone(), Step::BeginRevert(Cause::Rebooted)),
        ("rebooted in the bake", validating(Some(at(500))), other_boot, Step::BeginRevert(Cause::Rebooted)),
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
            let step = next_step(&state(new(Stage::Active), progress.clone()), &disk(current, true), &now);
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
