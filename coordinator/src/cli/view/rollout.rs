//! Rollouts, their batches and hosts, and the history of an application.

mod spec;

use jiff::Timestamp;
use serde::Serialize;
use sluice_common::order::Phase;
use sluice_proto::v1;

use super::{Installed, at_millis, phase, text};

pub(in crate::cli) use spec::{Floor, Spec};

/// A rollout as it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::cli) struct Rollout {
    pub(in crate::cli) id: String,
    pub(in crate::cli) app: String,
    pub(in crate::cli) version: String,
    pub(in crate::cli) state: State,
    pub(in crate::cli) reason: Option<String>,
    pub(in crate::cli) blockers: Vec<String>,
    pub(in crate::cli) batches: Vec<Batch>,
    pub(in crate::cli) spec: Option<Spec>,
    pub(in crate::cli) notes: String,
    pub(in crate::cli) started_by: String,
    pub(in crate::cli) started_at: Option<Timestamp>,
    pub(in crate::cli) ended_at: Option<Timestamp>,
    pub(in crate::cli) revision: u64,
    pub(in crate::cli) approvals: Vec<Approval>,
    pub(in crate::cli) overridden: Option<String>,
    pub(in crate::cli) checks: Vec<Check>,
    /// Hosts that a list has no room for, and those of them that are updated.
    pub(in crate::cli) hosts_left: u32,
    pub(in crate::cli) hosts_left_updated: u32,
}

/// What a check has said of a batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::cli) struct Check {
    pub(in crate::cli) name: String,
    /// The batch, counted from 1.
    pub(in crate::cli) batch: u32,
    pub(in crate::cli) samples: u64,
    pub(in crate::cli) passed: u64,
    pub(in crate::cli) outcome: Option<String>,
    pub(in crate::cli) words: Option<String>,
    pub(in crate::cli) at: Option<Timestamp>,
    pub(in crate::cli) failure: Option<String>,
}

/// An approver who agreed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::cli) struct Approval {
    pub(in crate::cli) operator: String,
    pub(in crate::cli) at: Option<Timestamp>,
}

/// Hosts that switch together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::cli) struct Batch {
    /// Counted from 1.
    pub(in crate::cli) number: usize,
    pub(in crate::cli) state: BatchState,
    pub(in crate::cli) hosts: Vec<Host>,
}

/// A host within a rollout.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::cli) struct Host {
    pub(in crate::cli) name: String,
    pub(in crate::cli) site: String,
    pub(in crate::cli) outcome: Outcome,
    pub(in crate::cli) reachable: bool,
    pub(in crate::cli) phase: Option<Phase>,
    pub(in crate::cli) healthy: Option<bool>,
    pub(in crate::cli) current: Option<Installed>,
    pub(in crate::cli) predecessor: Option<Installed>,
    pub(in crate::cli) fetched_bytes: u64,
    pub(in crate::cli) fetch_total_bytes: u64,
    pub(in crate::cli) wire_bytes: u64,
    pub(in crate::cli) stage_seconds: f64,
    pub(in crate::cli) switch_seconds: f64,
    pub(in crate::cli) reason: Option<String>,
    pub(in crate::cli) hook_output: Option<String>,
}

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum State {
    /// This version of the command line does not know the state.
    Unknown,
    Running,
    Paused,
    RollingBack,
    Succeeded,
    RolledBack,
    Failed,
    Aborted,
}

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum BatchState {
    /// This version of the command line does not know the state.
    Unknown,
    Waiting,
    Open,
    Baking,
    Passed,
}

/// What became of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum Outcome {
    /// This version of the command line does not know the outcome.
    Unknown,
    Waiting,
    Ordered,
    Updated,
    Failed,
    RollingBack,
    RolledBack,
}

/// One switch of one host.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct HistoryEntry {
    pub(in crate::cli) at: Option<Timestamp>,
    pub(in crate::cli) host: String,
    pub(in crate::cli) app: String,
    pub(in crate::cli) from: Option<Installed>,
    pub(in crate::cli) to: Option<Installed>,
    pub(in crate::cli) rollout: String,
    pub(in crate::cli) generation: u64,
    pub(in crate::cli) reason: Option<String>,
}

/// One time that a failed rollout closed its application to new ones.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct LineStop {
    pub(in crate::cli) app: String,
    pub(in crate::cli) rollout: String,
    pub(in crate::cli) reason: String,
    pub(in crate::cli) stopped_at: Option<Timestamp>,
    pub(in crate::cli) reopened_at: Option<Timestamp>,
    pub(in crate::cli) reopened_by: Option<String>,
    pub(in crate::cli) cause: Option<String>,
}

impl State {
    /// Returns the state in words.
    pub(in crate::cli) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "in an unknown state",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::RollingBack => "rolling back",
            Self::Succeeded => "succeeded",
            Self::RolledBack => "rolled back",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

impl BatchState {
    /// Returns the state in words.
    pub(in crate::cli) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Waiting => "waiting",
            Self::Open => "open",
            Self::Baking => "baking",
            Self::Passed => "passed",
        }
    }
}

impl Outcome {
    /// Every outcome, in the order in which a summary names them.
    pub(in crate::cli) const ALL: [Self; 7] = [
        Self::Updated,
        Self::Failed,
        Self::RolledBack,
        Self::RollingBack,
        Self::Ordered,
        Self::Waiting,
        Self::Unknown,
    ];

    /// Returns the outcome in words.
    pub(in crate::cli) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Waiting => "waiting",
            Self::Ordered => "ordered",
            Self::Updated => "updated",
            Self::Failed => "failed",
            Self::RollingBack => "rolling back",
            Self::RolledBack => "rolled back",
        }
    }
}

impl Rollout {
    /// Returns all hosts with the number of their batch.
    pub(in crate::cli) fn hosts(&self) -> impl Iterator<Item = (usize, &Host)> {
        self.batches.iter().flat_map(|batch| batch.hosts.iter().map(|host| (batch.number, host)))
    }
}

impl From<v1::Rollout> for Rollout {
    fn from(message: v1::Rollout) -> Self {
        let v1::Rollout {
            id,
            app,
            version,
            spec,
            state,
            reason,
            batches,
            blockers,
            started_by,
            started_unix_ms,
            ended_unix_ms,
            notes,
            revision,
            approvals,
            overridden,
            checks,
            hosts_left,
            hosts_left_updated,
        } = message;
        let approval =
            |v1::RolloutApproval { operator, at_unix_ms }| Approval { operator, at: at_millis(at_unix_ms) };
        Self {
            id,
            app,
            version,
            state: state_of(state),
            reason: text(reason),
            blockers,
            batches: batches.into_iter().enumerate().map(|(i, batch)| batch_of(i + 1, batch)).collect(),
            spec: spec.map(Spec::from),
            notes,
            started_by,
            started_at: at_millis(started_unix_ms),
            ended_at: at_millis(ended_unix_ms),
            revision,
            approvals: approvals.into_iter().map(approval).collect(),
            overridden: text(overridden),
            checks: checks.into_iter().map(Check::from).collect(),
            hosts_left,
            hosts_left_updated,
        }
    }
}

impl From<v1::RolloutCheck> for Check {
    fn from(message: v1::RolloutCheck) -> Self {
        let v1::RolloutCheck { name, batch, samples, passed, outcome, words, at_unix_ms, failure } = message;
        Self {
            name,
            batch: batch.saturating_add(1),
            samples,
            passed,
            outcome: text(outcome),
            words: text(words),
            at: at_millis(at_unix_ms),
            failure: text(failure),
        }
    }
}

fn state_of(value: i32) -> State {
    match v1::RolloutState::try_from(value).unwrap_or_default() {
        v1::RolloutState::Unspecified => State::Unknown,
        v1::RolloutState::Running => State::Running,
        v1::RolloutState::Paused => State::Paused,
        v1::RolloutState::RollingBack => State::RollingBack,
        v1::RolloutState::Succeeded => State::Succeeded,
        v1::RolloutState::RolledBack => State::RolledBack,
        v1::RolloutState::Failed => State::Failed,
        v1::RolloutState::Aborted => State::Aborted,
    }
}

fn batch_of(number: usize, message: v1::RolloutBatch) -> Batch {
    let v1::RolloutBatch { state, hosts } = message;
    let state = match v1::BatchState::try_from(state).unwrap_or_default() {
        v1::BatchState::Unspecified => BatchState::Unknown,
        v1::BatchState::Waiting => BatchState::Waiting,
        v1::BatchState::Open => BatchState::Open,
        v1::BatchState::Baking => BatchState::Baking,
        v1::BatchState::Passed => BatchState::Passed,
    };
    Batch { number, state, hosts: hosts.into_iter().map(Host::from).collect() }
}

fn outcome_of(value: i32) -> Outcome {
    match v1::HostOutcome::try_from(value).unwrap_or_default() {
        v1::HostOutcome::Unspecified => Outcome::Unknown,
        v1::HostOutcome::Waiting => Outcome::Waiting,
        v1::HostOutcome::Ordered => Outcome::Ordered,
        v1::HostOutcome::Updated => Outcome::Updated,
        v1::HostOutcome::Failed => Outcome::Failed,
        v1::HostOutcome::RollingBack => Outcome::RollingBack,
        v1::HostOutcome::RolledBack => Outcome::RolledBack,
    }
}

impl From<v1::RolloutHost> for Host {
    fn from(message: v1::RolloutHost) -> Self {
        let v1::RolloutHost { name, site, outcome, reachable, report, predecessor } = message;
        let report = report.unwrap_or_default();
        Self {
            name,
            site,
            outcome: outcome_of(outcome),
            reachable,
            phase: phase(report.phase),
            healthy: report.healthy,
            current: Installed::from_wire(report.current),
            predecessor: Installed::from_wire(predecessor),
            fetched_bytes: report.fetched_bytes,
            fetch_total_bytes: report.fetch_total_bytes,
            wire_bytes: report.wire_bytes,
            stage_seconds: report.stage_time_us as f64 / 1e6,
            switch_seconds: report.switch_time_us as f64 / 1e6,
            reason: report.reason.and_then(text),
            hook_output: report.hook_output.and_then(text),
        }
    }
}

impl From<v1::HistoryEntry> for HistoryEntry {
    fn from(message: v1::HistoryEntry) -> Self {
        let v1::HistoryEntry { at_unix_ms, host, app, from, to, rollout, generation, reason } = message;
        Self {
            at: at_millis(at_unix_ms),
            host,
            app,
            from: Installed::from_wire(from),
            to: Installed::from_wire(to),
            rollout,
            generation,
            reason: text(reason),
        }
    }
}

impl From<v1::LineStop> for LineStop {
    fn from(message: v1::LineStop) -> Self {
        let v1::LineStop { app, rollout, reason, stopped_unix_ms, reopened_unix_ms, reopened_by, cause } =
            message;
        Self {
            app,
            rollout,
            reason,
            stopped_at: at_millis(stopped_unix_ms),
            reopened_at: at_millis(reopened_unix_ms),
            reopened_by: text(reopened_by),
            cause: text(cause),
        }
    }
}
