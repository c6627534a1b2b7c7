//! One look at one host: what its last report means for the order it has from this rollout.

use std::time::Duration;

use jiff::Timestamp;
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::order::{Generation, Installed, Phase};
use sluice_common::units::format_duration;

use super::super::model::{Failure, Issued, Member, Rollout, Target};
use super::super::view::{FleetView, HostView, Observed};
use crate::clock::{after, elapsed};

/// How long ill health has to last on a host that runs the release before the host counts as failed: three
/// heartbeats, so that one lost probe stops nothing.
pub(crate) const ILL_HEALTH_GRACE: Duration = Duration::from_secs(3 * caps::HEARTBEAT_INTERVAL.as_secs());

/// Where a host stands in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position<'a> {
    /// It was ordered nothing, and runs something else.
    New,
    /// It was ordered to stage, and has not yet.
    Staging { fetched_bytes: u64, fetch_total_bytes: u64 },
    /// It could not stage.
    StagingFailed,
    /// It is ready to switch; this is what it would leave.
    Staged { current: Option<&'a Installed> },
    /// It was ordered to bring up the release beside what runs, and has not yet.
    Starting { phase: Option<Phase> },
    /// The release did not come up beside what runs.
    CandidateFailed,
    /// The release runs beside what runs, and is healthy there; this is what it would leave.
    Ready { current: Option<&'a Installed> },
    /// It was ordered to switch, and nobody knows whether it has.
    Switching { phase: Option<Phase> },
    /// It runs the release.
    There,
    /// It was ordered to switch, and said that it did not, or that it went back.
    NotSwitched,
    /// It was ordered to go back, and nobody knows whether it has.
    Returning { phase: Option<Phase> },
    /// It went back as ordered.
    Returned,
    /// It could not go back as ordered.
    ReturnFailed,
}

/// One host as the planner sees it.
#[derive(Debug)]
pub(super) struct Look<'a> {
    /// The host's part in the rollout.
    pub(super) member: &'a Member,
    /// The host, as last heard of.
    pub(super) view: &'a HostView,
    /// Whether it can be heard.
    pub(super) is_reachable: bool,
    /// Whether its health is known not to hold.
    pub(super) is_unhealthy: bool,
    /// Where it stands.
    pub(super) position: Position<'a>,
}

static NEVER_HEARD: HostView = HostView { contact: None, observed: None, generation: Generation(0) };

/// Looks at every member, in order.
pub(super) fn look<'a>(rollout: &'a Rollout, fleet: &'a FleetView, now: Timestamp) -> Vec<Look<'a>> {
    let look = |member: &'a Member| {
        let view = fleet.get(&member.host).unwrap_or(&NEVER_HEARD);
        Look {
            member,
            view,
            is_reachable: view.is_reachable(now),
            is_unhealthy: view.observed.as_ref().is_some_and(Observed::is_unhealthy),
            position: position(member, view),
        }
    };
    rollout.members.iter().map(look).collect()
}

fn runs(observed: &Observed, wanted: Option<&Digest>) -> bool {
    observed.current.as_ref().map(|current| &current.package) == wanted
}

fn position<'a>(member: &Member, view: &'a HostView) -> Position<'a> {
    let observed = view.observed.as_ref();
    let Some(order) = &member.order else {
        let there = |o: &&Observed| o.phase == Phase::Active && runs(o, Some(&member.package));
        return if observed.is_some_and(|o| there(&o)) { Position::There } else { Position::New };
    };
    // Reports about any other order say nothing about this one.
    let answer = observed.filter(|o| o.generation == order.generation);
    match &order.target {
        Target::Stage => staging(answer),
        Target::Candidate { .. } => starting(answer),
        Target::Activate { .. } => switching(answer, member),
        Target::Restore { to } => returning(answer, Some(&to.package)),
        Target::Remove => returning(answer, None),
    }
}

fn staging(answer: Option<&Observed>) -> Position<'_> {
    let Some(answer) = answer else {
        return Position::Staging { fetched_bytes: 0, fetch_total_bytes: 0 };
    };
    match answer.phase {
        Phase::Staged | Phase::Candidate | Phase::Active => {
            Position::Staged { current: answer.current.as_ref() }
        }
        Phase::Reverted | Phase::Failed => Position::StagingFailed,
        Phase::Fetching | Phase::Draining | Phase::Switching | Phase::Validating | Phase::Reverting => {
            Position::Staging {
                fetched_bytes: answer.fetched_bytes,
                fetch_total_bytes: answer.fetch_total_bytes,
            }
        }
    }
}

fn starting(answer: Option<&Observed>) -> Position<'_> {
    match answer.map(|answer| (answer.phase, answer)) {
        Some((Phase::Candidate, answer)) => Position::Ready { current: answer.current.as_ref() },
        Some((Phase::Reverted | Phase::Failed, _)) => Position::CandidateFailed,
        answer => Position::Starting { phase: answer.map(|(phase, _)| phase) },
    }
}

fn switching<'a>(answer: Option<&Observed>, member: &Member) -> Position<'a> {
    let phase = answer.map(|answer| answer.phase);
    match answer {
        Some(answer) if answer.phase == Phase::Active && runs(answer, Some(&member.package)) => {
            Position::There
        }
        Some(answer) if answer.phase.is_terminal() && answer.phase != Phase::Active => Position::NotSwitched,
        Some(_) | None => Position::Switching { phase },
    }
}

fn returning<'a>(answer: Option<&Observed>, to: Option<&Digest>) -> Position<'a> {
    let phase = answer.map(|answer| answer.phase);
    let Some(answer) = answer.filter(|answer| answer.phase.is_terminal()) else {
        return Position::Returning { phase };
    };
    // A host that refuses an order may not know what it runs: its silence is no proof that nothing runs.
    let is_told = answer.phase == Phase::Active || to.is_some();
    if is_told && runs(answer, to) { Position::Returned } else { Position::ReturnFailed }
}

impl Look<'_> {
    /// Says whether the host counts against `max_unavailable`.
    pub(super) fn is_out(&self) -> bool {
        let is_underway = match self.position {
            Position::Switching { .. } | Position::Returning { .. } => true,
            Position::New
            | Position::Staging { .. }
            | Position::StagingFailed
            | Position::Staged { .. }
            | Position::Starting { .. }
            | Position::CandidateFailed
            | Position::Ready { .. }
            | Position::There
            | Position::NotSwitched
            | Position::Returned
            | Position::ReturnFailed => false,
        };
        is_underway || self.is_unhealthy || !self.is_reachable
    }

    /// Says whether the host runs something of the application, or did before it was ordered to switch: only then can it be missed.
    pub(super) fn runs(&self) -> bool {
        let had = self.member.order.as_ref().is_some_and(|order| match &order.target {
            Target::Candidate { over } | Target::Activate { over } => over.is_some(),
            Target::Restore { .. } => true,
            Target::Stage | Target::Remove => false,
        });
        had || self.view.observed.as_ref().is_some_and(|observed| observed.current.is_some())
    }

    /// Says since when the host has held the gate; nothing when it does not. A host that cannot be heard never does.
    pub(super) fn holds_since(&self) -> Option<Timestamp> {
        let holds = self.position == Position::There && self.is_reachable && !self.is_unhealthy;
        let (contact, observed) = (self.view.contact?, self.view.observed.as_ref()?);
        holds.then(|| contact.since.max(observed.since))
    }

    /// Says why the host counts as failed from now on; nothing when it does not, or already did.
    pub(super) fn new_failure(&self, host_deadline: Duration, now: Timestamp) -> Option<Failure> {
        if self.member.failure.is_some() {
            return None;
        }
        let reason = || self.reason();
        let observed = self.view.observed.as_ref();
        match self.position {
            Position::StagingFailed => Some(Failure::Staging { reason: reason() }),
            Position::NotSwitched if observed.is_some_and(|o| o.phase == Phase::Reverted) => {
                Some(Failure::Reverted { reason: reason() })
            }
            Position::NotSwitched => Some(Failure::Switch { reason: reason() }),
            Position::CandidateFailed => Some(Failure::Candidate { reason: reason() }),
            Position::Starting { .. } if self.is_reachable => {
                let reason = || format!("it is not healthy within {}", format_duration(host_deadline));
                (now >= self.deadline(host_deadline)?).then(|| Failure::Candidate { reason: reason() })
            }
            Position::Switching { .. } if self.is_reachable => {
                (now >= self.deadline(host_deadline)?).then_some(Failure::Deadline)
            }
            Position::There if self.is_unhealthy && self.is_reachable => {
                (now >= self.ill_until()?).then(|| Failure::Unhealthy { reason: reason() })
            }
            Position::New
            | Position::Staging { .. }
            | Position::Staged { .. }
            | Position::Starting { .. }
            | Position::Ready { .. }
            | Position::Switching { .. }
            | Position::There
            | Position::Returning { .. }
            | Position::Returned
            | Position::ReturnFailed => None,
        }
    }

    /// Returns when the host is overdue: time runs only while it can be heard.
    pub(super) fn deadline(&self, host_deadline: Duration) -> Option<Timestamp> {
        let ordered = self.member.order.as_ref()?.at;
        Some(after(ordered.max(self.view.contact?.since), host_deadline))
    }

    fn ill_until(&self) -> Option<Timestamp> {
        Some(after(self.view.observed.as_ref()?.since, ILL_HEALTH_GRACE))
    }

    /// Returns the next moment at which time alone changes what follows from this look. That a host falls silent is
    /// none: it lets nothing happen, and whatever would happen is decided on what is known then.
    pub(super) fn changes_at(&self, host_deadline: Duration) -> Option<Timestamp> {
        if !self.is_reachable {
            return None;
        }
        match self.position {
            Position::Starting { .. } | Position::Switching { .. } | Position::Returning { .. } => {
                self.deadline(host_deadline)
            }
            Position::There if self.is_unhealthy => self.ill_until(),
            Position::New
            | Position::Staging { .. }
            | Position::StagingFailed
            | Position::Staged { .. }
            | Position::CandidateFailed
            | Position::Ready { .. }
            | Position::There
            | Position::NotSwitched
            | Position::Returned
            | Position::ReturnFailed => None,
        }
    }

    /// Says why, in the host's words.
    pub(super) fn reason(&self) -> String {
        let reason = self.view.observed.as_ref().and_then(|observed| observed.reason.clone());
        reason.unwrap_or_else(|| "the host gave no reason".to_owned())
    }

    /// Returns how long the host has not been heard.
    pub(super) fn silent(&self, now: Timestamp) -> Option<Duration> {
        self.view.contact.map(|contact| elapsed(contact.last, now))
    }

    /// Returns how long ago the newest order was given.
    pub(super) fn waited(&self, now: Timestamp) -> Duration {
        self.member.order.as_ref().map(|order: &Issued| elapsed(order.at, now)).unwrap_or_default()
    }

    /// Returns the generation of the next order for this host: above all that anybody gave or the host accepted.
    pub(super) fn next_generation(&self) -> Generation {
        let own = self.member.order.as_ref().map(|order| order.generation);
        let accepted = self.view.observed.as_ref().map(|observed| observed.generation);
        own.max(accepted).max(Some(self.view.generation)).unwrap_or_default().next()
    }

    /// Says whether somebody else has ordered this host since: then it is no longer this rollout's to take back.
    pub(super) fn is_superseded(&self) -> bool {
        self.member.order.as_ref().is_some_and(|order| order.generation < self.view.generation)
    }
}
