//! The fleet as the coordinator knows it at one moment, for one application: the planner's only eyes.

use std::collections::HashMap;

use jiff::Timestamp;
use sluice_common::caps;
use sluice_common::name::HostName;
use sluice_common::order::{Generation, Installed, Phase, Report};

/// Every host of a rollout's selection, as last heard of.
pub type FleetView = HashMap<HostName, HostView>;

/// One host, as last heard of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostView {
    /// Its presence; nothing when it was not heard since this coordinator began.
    pub contact: Option<Contact>,
    /// What it observed of the application last; nothing when it never said so.
    pub observed: Option<Observed>,
    /// The newest generation that anybody ordered of this application on this host.
    pub generation: Generation,
}

/// A host's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// Since when it has been heard without a gap.
    pub since: Timestamp,
    /// When it was heard last.
    pub last: Timestamp,
}

/// What a host observed, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The order it speaks of.
    pub generation: Generation,
    /// Where that order stands.
    pub phase: Phase,
    /// What runs.
    pub current: Option<Installed>,
    /// Whether its health holds; nothing where none is known.
    pub healthy: Option<bool>,
    /// Why not, in the host's words.
    pub reason: Option<String>,
    /// Bytes on disk of what is being staged.
    pub fetched_bytes: u64,
    /// All bytes of what is being staged.
    pub fetch_total_bytes: u64,
    /// Since when generation, phase, `current` and ill health have been what they are, by the coordinator's clock.
    pub since: Timestamp,
}

impl Contact {
    /// Takes note of a sign of life: a gap longer than [`caps::HEARTBEAT_LOST_AFTER`] begins a new presence.
    pub fn heard(before: Option<Self>, now: Timestamp) -> Self {
        match before {
            Some(contact) if contact.is_fresh(now) => Self { since: contact.since.min(now), last: now },
            Some(_) | None => Self { since: now, last: now },
        }
    }

    /// Says whether the host counts as reachable. One that was heard in the future was not: the clock was set back, and
    /// the next heartbeat tells.
    pub fn is_fresh(self, now: Timestamp) -> bool {
        now.duration_since(self.last).unsigned_abs() <= caps::HEARTBEAT_LOST_AFTER
    }
}

impl HostView {
    /// Says whether the host counts as reachable; one that was never heard does not.
    pub fn is_reachable(&self, now: Timestamp) -> bool {
        self.contact.is_some_and(|contact| contact.is_fresh(now))
    }
}

impl Observed {
    /// Takes what matters from a report; its decisive part has been so since `since`.
    pub fn of(report: Report, since: Timestamp) -> Self {
        let Report {
            app: _,
            generation,
            sequence: _,
            phase,
            current,
            previous: _,
            healthy,
            reason,
            hook_output: _,
            fetched_bytes,
            fetch_total_bytes,
            wire_bytes: _,
            stage_time: _,
            switch_time: _,
            drift: _,
        } = report;
        Self { generation, phase, current, healthy, reason, fetched_bytes, fetch_total_bytes, since }
    }

    /// Says whether two observations are alike in all that `since` speaks of.
    pub fn is_like(&self, other: &Self) -> bool {
        let key = |o: &Self| (o.generation, o.phase, o.is_unhealthy());
        key(self) == key(other) && self.current == other.current
    }

    /// Says whether health is known not to hold. Unknown health is neither good nor bad.
    pub fn is_unhealthy(&self) -> bool {
        self.healthy == Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_begins_anew_after_a_gap() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let first = Contact::heard(None, at(100));
        assert_eq!(first, Contact { since: at(100), last: at(100) });
        let second = Contact::heard(Some(first), at(120));
        assert_eq!(second, Contact { since: at(100), last: at(120) });
        assert!(second.is_fresh(at(140)) && !second.is_fresh(at(141)));
        assert_eq!(Contact::heard(Some(second), at(141)), Contact { since: at(141), last: at(141) });
        // A clock that was set back makes a host unknown until its next heartbeat, not fresh for an hour.
        assert!(!second.is_fresh(at(50)));
        assert_eq!(Contact::heard(Some(second), at(50)), Contact { since: at(50), last: at(50) });
        assert_eq!(Contact::heard(Some(second), at(119)), Contact { since: at(100), last: at(119) });
    }
}
