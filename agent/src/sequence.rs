//! The steps of a switch, and the steps of going back from any of them, as data. Pure.
//!
//! A sequence is made once, before the first step, from what the two releases say of themselves; the state file names it
//! and the step it is at, so that a restarted agent goes on with what was begun. Which release's hook each step runs is
//! said here and nowhere else: [`SwitchStep::deed`], [`BackStep::deed`].

mod event;

use serde::{Deserialize, Serialize};
use sluice_common::spec::{Kind, Spec};

pub(crate) use event::Event;

/// A step of a switch. A sequence holds each at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SwitchStep {
    /// The new release is started in its slot.
    StartCandidate,
    /// The candidate's health, load and likeness to the live release are seen.
    ValidateCandidate,
    /// Requests are kept from the predecessor.
    DrainOld,
    /// The predecessor is stopped.
    StopOld,
    /// The application that a configuration is of is stopped.
    StopApplication,
    /// The shared data are kept as they are.
    Snapshot,
    /// The shared data are changed to what the new release needs.
    Migrate,
    /// The release that is left for its predecessor undoes what it did.
    Rollback,
    /// The shared data are brought back to what the predecessor knew.
    Restore,
    /// `current` and `previous` move.
    Link,
    /// What points at the application besides `current` moves.
    SwitchNew,
    /// The new release is started.
    StartNew,
    /// What runs takes the new release without a restart.
    ReloadNew,
    /// The application that a configuration is of is started.
    StartApplication,
    /// The checks reach their successes in a row, and the new release validates itself.
    Validate,
    /// Requests are let to the new release.
    UndrainNew,
    /// The checks keep holding, and the coordinator confirms where that is asked for. The last step that can go back.
    Bake,
}

/// A step of going back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BackStep {
    /// What points at the application points at the predecessor, which still runs.
    SwitchBack,
    /// Requests are kept from the new release.
    DrainNew,
    /// The new release is stopped.
    StopNew,
    /// The application that a configuration is of is stopped.
    StopApplication,
    /// The new release undoes what it did.
    Rollback,
    /// The shared data are brought back to the snapshot.
    Restore,
    /// `current` and `previous` move back.
    LinkBack,
    /// What points at the application besides `current` moves back.
    SwitchOld,
    /// The predecessor is started.
    StartOld,
    /// What runs takes the predecessor again without a restart.
    ReloadOld,
    /// The application that a configuration is of is started.
    StartApplication,
    /// Requests are let to the predecessor.
    UndrainOld,
    /// The candidate is stopped; nothing else had been touched.
    StopCandidate,
}

/// Whose hook or action a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The predecessor's.
    Old,
    /// The wanted release's.
    New,
    /// That of the application that the configuration is of.
    Application,
}

impl SwitchStep {
    /// Returns what the step tells to which release; nothing where the agent does it itself.
    pub(crate) fn deed(self) -> Option<(Event, Whose)> {
        Some(match self {
            Self::StartCandidate => (Event::Candidate, Whose::New),
            Self::DrainOld => (Event::Drain, Whose::Old),
            Self::StopOld => (Event::Stop, Whose::Old),
            Self::StopApplication => (Event::Stop, Whose::Application),
            Self::Snapshot => (Event::Snapshot, Whose::New),
            Self::Migrate => (Event::Migrate, Whose::New),
            Self::Rollback => (Event::Rollback, Whose::Old),
            Self::Restore => (Event::Restore, Whose::Old),
            Self::SwitchNew => (Event::Switch, Whose::New),
            Self::StartNew => (Event::Start, Whose::New),
            Self::ReloadNew => (Event::Reload, Whose::New),
            Self::StartApplication => (Event::Start, Whose::Application),
            Self::UndrainNew => (Event::Undrain, Whose::New),
            Self::ValidateCandidate | Self::Link | Self::Validate | Self::Bake => return None,
        })
    }

    /// Says whether the live release is as it was while this step is under way.
    pub(crate) fn is_beside(self) -> bool {
        matches!(self, Self::StartCandidate | Self::ValidateCandidate)
    }
}

impl BackStep {
    /// Returns what the step tells to which release; nothing where the agent does it itself.
    pub(crate) fn deed(self) -> Option<(Event, Whose)> {
        Some(match self {
            Self::SwitchBack | Self::SwitchOld => (Event::Switch, Whose::Old),
            Self::DrainNew => (Event::Drain, Whose::New),
            Self::StopNew | Self::StopCandidate => (Event::Stop, Whose::New),
            Self::StopApplication => (Event::Stop, Whose::Application),
            Self::Rollback => (Event::Rollback, Whose::New),
            Self::Restore => (Event::Restore, Whose::New),
            Self::StartOld => (Event::Start, Whose::Old),
            Self::ReloadOld => (Event::Reload, Whose::Old),
            Self::StartApplication => (Event::Start, Whose::Application),
            Self::UndrainOld => (Event::Undrain, Whose::Old),
            Self::LinkBack => return None,
        })
    }
}

/// Two releases, and what is known of the change from one to the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    /// What runs.
    pub(crate) old: Option<&'a Spec>,
    /// What is wanted.
    pub(crate) new: Option<&'a Spec>,
    /// Whether this host is the one that migrates shared data.
    pub(crate) migrates: bool,
    /// Whether the old release is left for what it took the place of, in the same rollout.
    pub(crate) returns: bool,
    /// Whether the old release kept the shared data before it changed them.
    pub(crate) has_snapshot: bool,
    /// Whether the new release runs in its slot already.
    pub(crate) runs_beside: bool,
}

/// Returns the steps of a switch.
pub(crate) fn sequence(change: &Change<'_>) -> Vec<SwitchStep> {
    use SwitchStep as S;
    let Some(new) = change.new else {
        return answered(change, &[S::DrainOld, S::StopOld, S::Rollback, S::Restore, S::Link]);
    };
    let steps: &[S] = if new.parallel.is_some() {
        &[
            S::StartCandidate,
            S::ValidateCandidate,
            S::Snapshot,
            S::Migrate,
            S::Rollback,
            S::Restore,
            S::Link,
            S::SwitchNew,
            S::Validate,
            S::UndrainNew,
            S::Bake,
            S::DrainOld,
            S::StopOld,
        ]
    } else if reloads(change) {
        &[
            S::Snapshot,
            S::Migrate,
            S::Rollback,
            S::Restore,
            S::Link,
            S::SwitchNew,
            S::ReloadNew,
            S::Validate,
            S::Bake,
        ]
    } else {
        &[
            S::DrainOld,
            S::StopOld,
            S::StopApplication,
            S::Snapshot,
            S::Migrate,
            S::Rollback,
            S::Restore,
            S::Link,
            S::SwitchNew,
            S::StartNew,
            S::StartApplication,
            S::Validate,
            S::UndrainNew,
            S::Bake,
        ]
    };
    answered(change, steps)
}

/// Says whether what runs takes the new release without a restart. Both must be able to: going back is a reload too.
fn reloads(change: &Change<'_>) -> bool {
    let can = |spec: &Spec| Event::Reload.is_answered(spec, false);
    match (change.old, change.new) {
        // What reads a configuration runs, whether it had one before or not.
        (None, Some(new)) => new.kind == Kind::Configuration && can(new),
        (Some(old), Some(new)) => can(old) && can(new),
        (_, None) => false,
    }
}

/// Leaves out the steps to which the releases have no answer, and those that this change has no use for.
fn answered(change: &Change<'_>, steps: &[SwitchStep]) -> Vec<SwitchStep> {
    let is_parallel = change.new.is_some_and(|new| new.parallel.is_some());
    let says =
        |spec: Option<&Spec>, event: Event| spec.is_some_and(|spec| event.is_answered(spec, is_parallel));
    let is_of_application = change.new.is_some_and(|new| new.of.is_some());
    let keep = |step: &SwitchStep| match step {
        SwitchStep::StartCandidate => !change.runs_beside && says(change.new, Event::Candidate),
        SwitchStep::Snapshot | SwitchStep::Migrate => {
            change.migrates
                && !change.returns
                && step.deed().is_some_and(|(event, _)| says(change.new, event))
        }
        SwitchStep::Rollback => change.returns && says(change.old, Event::Rollback),
        SwitchStep::Restore => change.returns && change.has_snapshot && says(change.old, Event::Restore),
        SwitchStep::StopApplication | SwitchStep::StartApplication => is_of_application,
        SwitchStep::Link | SwitchStep::Validate | SwitchStep::ValidateCandidate => true,
        SwitchStep::Bake => change.new.is_some_and(|new| !new.gate.bake.is_zero() || new.gate.confirm),
        SwitchStep::DrainOld
        | SwitchStep::StopOld
        | SwitchStep::SwitchNew
        | SwitchStep::StartNew
        | SwitchStep::ReloadNew
        | SwitchStep::UndrainNew => match step.deed() {
            Some((event, Whose::Old)) => says(change.old, event),
            Some((event, Whose::New)) => says(change.new, event),
            Some((_, Whose::Application)) | None => true,
        },
    };
    steps.iter().copied().filter(keep).collect()
}

/// Returns the steps of going back from `reached` of `steps`, which was begun and may have been done in part. Nothing where
/// there is no way back any more: the new release has proved itself.
pub(crate) fn way_back(steps: &[SwitchStep], reached: SwitchStep) -> Vec<BackStep> {
    use BackStep as B;
    use SwitchStep as S;
    if is_settled(steps, reached) {
        return Vec::new();
    }
    let end = position(steps, reached).map_or(steps.len(), |at| at + 1);
    let begun = |step: S| steps[..end].contains(&step);
    let ran_beside = begun(S::StartCandidate) || begun(S::ValidateCandidate);
    let ways = [
        // What still runs takes the traffic back before anything else is done.
        (B::SwitchBack, ran_beside && begun(S::SwitchNew)),
        (B::DrainNew, begun(S::UndrainNew)),
        (B::StopNew, begun(S::StartNew)),
        (B::StopApplication, begun(S::StartApplication)),
        (B::Rollback, begun(S::Link)),
        (B::Restore, begun(S::Migrate)),
        (B::LinkBack, begun(S::Link)),
        (B::SwitchOld, !ran_beside && begun(S::SwitchNew)),
        (B::StartOld, begun(S::StopOld)),
        (B::ReloadOld, begun(S::ReloadNew)),
        (B::StartApplication, begun(S::StopApplication)),
        (B::UndrainOld, begun(S::DrainOld)),
        (B::StopCandidate, ran_beside),
    ];
    ways.into_iter().filter_map(|(step, is_needed)| is_needed.then_some(step)).collect()
}

/// Returns the step after `at`.
pub(crate) fn after<T: Copy + PartialEq>(steps: &[T], at: T) -> Option<T> {
    steps.get(position(steps, at)? + 1).copied()
}

/// Says whether `at` comes after the last step that can go back.
pub(crate) fn is_settled(steps: &[SwitchStep], at: SwitchStep) -> bool {
    let last = position(steps, SwitchStep::Bake).or(position(steps, SwitchStep::Validate));
    matches!((position(steps, at), last), (Some(at), Some(last)) if at > last)
        && matches!(at, SwitchStep::DrainOld | SwitchStep::StopOld)
}

/// Says whether `at` comes after the checks have had their successes.
pub(crate) fn is_validated(steps: &[SwitchStep], at: SwitchStep) -> bool {
    let validate = position(steps, SwitchStep::Validate);
    matches!((position(steps, at), validate), (Some(at), Some(validate)) if at > validate)
}

fn position<T: PartialEq>(steps: &[T], step: T) -> Option<usize> {
    steps.iter().position(|found| *found == step)
}

/// Returns the steps that every switch took before sequences were written down.
pub(crate) fn undeclared() -> Vec<SwitchStep> {
    use SwitchStep as S;
    vec![S::StopOld, S::Link, S::StartNew, S::Validate, S::Bake]
}

/// Returns the steps back that were taken before sequences were written down.
pub(crate) fn undeclared_back() -> Vec<BackStep> {
    vec![BackStep::StopNew, BackStep::LinkBack, BackStep::StartOld]
}

#[cfg(test)]
pub(crate) mod tests;
