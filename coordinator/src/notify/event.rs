//! What listeners are told: one event for each change of a rollout that people want to hear of.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::rollout::{Action, Rollout, State};

/// Every kind of event.
pub const KINDS: [&str; 10] = [
    "rollout.started",
    "rollout.approvals_wanted",
    "rollout.batch_passed",
    "rollout.paused",
    "rollout.resumed",
    "rollout.rolling_back",
    "rollout.succeeded",
    "rollout.rolled_back",
    "rollout.failed",
    "rollout.aborted",
];
/// The kind of a test.
pub const TEST: &str = "test";

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The same however often it is told: rollout, revision and kind.
    pub id: String,
    /// One of [`KINDS`].
    pub kind: &'static str,
    /// What is told, as JSON.
    pub body: Value,
}

impl Event {
    /// Returns the test of a listener.
    pub fn test(listener: &str, now: Timestamp) -> Self {
        let id = format!("test.{}", now.as_millisecond());
        let body = json!({ "id": id, "event": TEST, "at": now.to_string(), "listener": listener });
        Self { id, kind: TEST, body }
    }
}

/// Returns the kinds of event that a rollout's start brings about.
pub(crate) fn of_start(rollout: &Rollout) -> Vec<&'static str> {
    let wanted = (rollout.spec.approvals > 0).then_some("rollout.approvals_wanted");
    ["rollout.started"].into_iter().chain(wanted).collect()
}

/// Returns the kinds of event that actions bring about.
pub(crate) fn of_actions(actions: &[Action]) -> Vec<&'static str> {
    let kind = |action: &Action| match action {
        Action::BatchPassed { .. } => Some("rollout.batch_passed"),
        Action::BeginRollback { .. } => Some("rollout.rolling_back"),
        Action::Pause { .. } => Some("rollout.paused"),
        Action::Resume => Some("rollout.resumed"),
        Action::Finish { state } => match state {
            State::Succeeded => Some("rollout.succeeded"),
            State::RolledBack { .. } => Some("rollout.rolled_back"),
            State::Failed { .. } => Some("rollout.failed"),
            State::Aborted { .. } => Some("rollout.aborted"),
            State::Running | State::Paused { .. } | State::RollingBack { .. } => None,
        },
        Action::Order { .. }
        | Action::Migrates { .. }
        | Action::Ready
        | Action::HostFailed { .. }
        | Action::CheckFailed { .. }
        | Action::BatchOpened { .. }
        | Action::BakeStarted { .. }
        | Action::BakeBroken { .. }
        | Action::Approve { .. }
        | Action::Override { .. } => None,
    };
    actions.iter().filter_map(kind).collect()
}

/// Tells of a rollout as it stands now; `revision` and kind make the id.
pub(crate) fn of_rollout(
    rollout: &Rollout,
    revision: i64,
    kind: &'static str,
    notes: &str,
    now: Timestamp,
) -> Event {
    let id = format!("{}.{revision}.{kind}", rollout.id);
    let body = json!({
        "id": id,
        "event": kind,
        "at": now.to_string(),
        "rollout": rollout.id,
        "application": rollout.app,
        "version": rollout.version,
        "state": rollout.state.as_str(),
        "reason": rollout.state.reason(),
        "batches_passed": rollout.cursor.batch,
        "batches": rollout.batches.len(),
        "hosts": rollout.members.len(),
        "hosts_failed": rollout.failed(),
        "approvals_wanted": rollout.spec.approvals,
        "started_by": rollout.started_by,
        "started_at": rollout.started.to_string(),
        "notes": notes,
    });
    Event { id, kind, body }
}
