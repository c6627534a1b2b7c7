//! What operators are told of each host: the same look, in six words.

use jiff::Timestamp;

use super::super::model::{Rollout, Target};
use super::super::state::State;
use super::super::view::FleetView;
use super::look::{Look, Position, look};

/// Where a host stands, as operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was not ordered to switch.
    Waiting,
    /// It was ordered to switch, and has not confirmed it.
    Ordered,
    /// It runs the release.
    Updated,
    /// It did not come up with the release, or could not go back.
    Failed,
    /// It was ordered to go back, and has not confirmed it.
    RollingBack,
    /// It runs what it ran before.
    RolledBack,
}

/// Returns where each member stands, and whether it can be heard. What an ended rollout has established stays so,
/// whatever happened to its hosts since.
pub fn outcomes(rollout: &Rollout, fleet: &FleetView, now: Timestamp) -> Vec<(Outcome, bool)> {
    look(rollout, fleet, now).iter().map(|look| (outcome(rollout, look), look.is_reachable)).collect()
}

fn outcome(rollout: &Rollout, look: &Look<'_>) -> Outcome {
    let is_failed = look.member.failure.is_some();
    let goes_back = look.member.order.as_ref().is_some_and(|order| match order.target {
        Target::Stage | Target::Candidate { .. } | Target::Activate { .. } => false,
        Target::Restore { .. } | Target::Remove => true,
    });
    match rollout.state {
        State::Succeeded if !is_failed => Outcome::Updated,
        State::Succeeded => Outcome::Failed,
        State::RolledBack { .. } if goes_back => Outcome::RolledBack,
        State::RolledBack { .. } if is_failed => Outcome::Failed,
        State::RolledBack { .. } => Outcome::Waiting,
        State::Running
        | State::Paused { .. }
        | State::RollingBack { .. }
        | State::Failed { .. }
        | State::Aborted { .. } => now_at(look.position, is_failed),
    }
}

fn now_at(position: Position<'_>, is_failed: bool) -> Outcome {
    match position {
        Position::Returning { .. } => Outcome::RollingBack,
        Position::Returned => Outcome::RolledBack,
        Position::StagingFailed
        | Position::CandidateFailed
        | Position::NotSwitched
        | Position::ReturnFailed => Outcome::Failed,
        Position::New
        | Position::Staging { .. }
        | Position::Staged { .. }
        | Position::Starting { .. }
        | Position::Ready { .. } => {
            if is_failed {
                Outcome::Failed
            } else {
                Outcome::Waiting
            }
        }
        Position::Switching { .. } if is_failed => Outcome::Failed,
        Position::Switching { .. } => Outcome::Ordered,
        Position::There if is_failed => Outcome::Failed,
        Position::There => Outcome::Updated,
    }
}
