//! The decision: what a rollout does next, given the fleet and the time. No clock, no randomness, no IO.
//!
//! A plan is one layer: its actions are committed together, then the rollout is planned again until nothing is left
//! to do. What it must never do (numbers as in the invariants of the design):
//!
//! - I10: an order's generation is above every other of its host and application.
//! - I11: no order to switch is given while hosts that are ordered and unconfirmed, unhealthy or unreachable, this one
//!   included, exceed `max_unavailable`, or those of its failure domain exceed that domain's budget.
//! - Nor is it while fewer hosts would stay in service than a floor asks for.
//! - I12: no host of a batch is ordered to switch before the gate of the batch before it has durably passed.
//! - No host is ordered to switch before as many have approved as the spec asks for, nor where the calendar closes before the
//!   host's deadline; no batch begins where it closes before the batch has to be through. Going back asks neither.
//! - No batch passes before each of its checks has, and none counts as passed because nobody knows.
//! - Where releases run beside each other no host is ordered to switch before the candidates of enough hosts are healthy.
//! - One host of a rollout is told to migrate what all of them share: the first that is ordered to switch. Another one is only where that
//!   one has failed and is known to have gone back.
//! - I15: nothing is ordered once the rollout has ended or is paused.
//! - I16: a host that cannot be heard is neither good nor bad: it passes no gate, and is no failure.

use jiff::Timestamp;

use super::action::Action;
use super::blocker::{Blocker, Blockers};
use super::check::CheckName;
use super::model::Rollout;
use super::state::State;
use super::view::FleetView;

mod backward;
mod budget;
mod candidates;
mod checking;
mod floors;
mod forward;
mod look;
mod opening;
mod outcome;
mod spent;
#[cfg(test)]
mod tests;

pub use outcome::{Outcome, outcomes};

#[cfg(test)]
pub(super) use look::ILL_HEALTH_GRACE;

/// Most orders in one plan: keeps the transaction that commits them short, about 100 ms on a laptop's disk.
pub const ORDERS_MAX: usize = 2_000;

/// What a rollout does next, and what keeps it from doing more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The changes, to be committed together.
    pub actions: Vec<Action>,
    /// What it waits for.
    pub blockers: Vec<Blocker>,
    /// The checks that are to be asked now.
    pub probes: Vec<CheckName>,
    /// When time alone may change the plan; nothing when only news can.
    pub wake: Option<Timestamp>,
}

/// Decides what `rollout` does next.
pub fn plan(rollout: &Rollout, fleet: &FleetView, now: Timestamp) -> Plan {
    match &rollout.state {
        State::Running => forward::plan(rollout, fleet, now),
        State::RollingBack { reason } => backward::plan(rollout, fleet, now, reason),
        State::Paused { reason } => {
            Plan { blockers: vec![Blocker::Paused { reason: reason.clone() }], ..Plan::default() }
        }
        State::Succeeded | State::RolledBack { .. } | State::Failed { .. } | State::Aborted { .. } => {
            Plan::default()
        }
    }
}

/// A plan in the making.
#[derive(Debug, Default)]
struct Draft {
    actions: Vec<Action>,
    orders: usize,
    blockers: Blockers,
    probes: Vec<CheckName>,
    wake: Option<Timestamp>,
}

impl Draft {
    /// Adds an order, unless the plan has as many as it may; the next plan then goes on.
    fn order(&mut self, action: Action) -> bool {
        let fits = self.orders < ORDERS_MAX;
        if fits {
            self.orders += 1;
            self.actions.push(action);
        }
        fits
    }

    /// Sees to it that the plan is made again at `at`, if not before.
    fn wake_at(&mut self, at: Option<Timestamp>) {
        self.wake = self.wake.into_iter().chain(at).min();
    }

    fn finish(self) -> Plan {
        Plan { actions: self.actions, blockers: self.blockers.finish(), probes: self.probes, wake: self.wake }
    }
}
