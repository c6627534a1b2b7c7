//! What a plan may change, and how each change looks in the model.
//!
//! Planner and operators only ever produce [`Action`]s; the store writes them, [`Rollout::apply`] mirrors them in
//! memory, and both see the same.

use jiff::Timestamp;
use sluice_common::name::OperatorName;
use sluice_common::order::Generation;

use super::check::{CheckName, Tally};
use super::model::{Cursor, Failure, Gate, Issued, Rollout, Target};
use super::state::State;

/// One durable change of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A host is given an order.
    Order {
        /// The host's place among the members.
        member: usize,
        /// The order's fence: higher than any before for this host and application.
        generation: Generation,
        /// What it asks.
        target: Target,
    },
    /// A host, ordered to switch in the same plan, is the one that migrates what all of them share.
    Migrates {
        /// The host's place among the members.
        member: usize,
    },
    /// A host counts as failed from now on.
    HostFailed {
        /// The host's place among the members.
        member: usize,
        /// Why.
        failure: Failure,
    },
    /// A check of the current batch counts as failed from now on.
    CheckFailed {
        /// The batch.
        batch: usize,
        /// The check.
        name: CheckName,
        /// Why.
        reason: String,
    },
    /// It waits for nothing but those that it comes together with.
    Ready,
    /// The current batch may be ordered to switch.
    BatchOpened {
        /// The batch.
        batch: usize,
    },
    /// All hosts of the current batch hold, and have since then.
    BakeStarted {
        /// The batch.
        batch: usize,
        /// Since when.
        since: Timestamp,
    },
    /// Some host of the current batch no longer holds.
    BakeBroken {
        /// The batch.
        batch: usize,
    },
    /// The current batch's gate has held for the whole bake.
    BatchPassed {
        /// The batch.
        batch: usize,
    },
    /// Hosts that switched are to get their predecessor back.
    BeginRollback {
        /// Why.
        reason: String,
    },
    /// No new order is given from now on.
    Pause {
        /// Why.
        reason: String,
    },
    /// Orders are given again; failures so far are accepted.
    Resume,
    /// An operator agrees to the first switch.
    Approve {
        /// Who.
        by: OperatorName,
    },
    /// The calendar no longer holds the rollout.
    Override {
        /// Why, and by whom.
        reason: String,
    },
    /// The rollout ends.
    Finish {
        /// How.
        state: State,
    },
}

impl Rollout {
    /// Carries out one change in the model. An action that names no member changes nothing.
    pub fn apply(&mut self, action: &Action, at: Timestamp) {
        match action {
            Action::Order { member, generation, target } => {
                if let Some(member) = self.members.get_mut(*member) {
                    member.order = Some(Issued { generation: *generation, target: target.clone(), at });
                }
            }
            Action::Migrates { member } => {
                if let Some(member) = self.members.get_mut(*member) {
                    member.migrates = true;
                }
            }
            Action::Ready => self.is_ready = true,
            Action::HostFailed { member, failure } => {
                if let Some(member) = self.members.get_mut(*member) {
                    member.failure = Some(failure.clone());
                }
            }
            Action::CheckFailed { batch, name, reason } => {
                self.tallies.entry((*batch, name.clone())).or_default().failure = Some(reason.clone());
            }
            Action::BatchOpened { batch } | Action::BakeBroken { batch } => {
                self.cursor = Cursor { batch: *batch, gate: Gate::Open };
            }
            Action::BakeStarted { batch, since } => {
                self.cursor = Cursor { batch: *batch, gate: Gate::Baking { since: *since } };
            }
            Action::BatchPassed { batch } => self.cursor = Cursor { batch: batch + 1, gate: Gate::Waiting },
            Action::BeginRollback { reason } => self.enter(State::RollingBack { reason: reason.clone() }, at),
            Action::Pause { reason } => self.enter(State::Paused { reason: reason.clone() }, at),
            Action::Resume => {
                self.forgiven = self.failed();
                self.tallies.values_mut().for_each(Tally::forgive);
                self.enter(State::Running, at);
            }
            Action::Approve { by } => {
                self.approvals.insert(by.clone(), at);
            }
            Action::Override { reason } => self.overridden = Some(reason.clone()),
            Action::Finish { state } => self.enter(state.clone(), at),
        }
    }

    fn enter(&mut self, state: State, at: Timestamp) {
        self.ended = state.is_ended().then_some(at);
        self.state = state;
    }
}
