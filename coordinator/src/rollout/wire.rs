//! Rollouts on the wire, and back.

use jiff::Timestamp;
use sluice_common::name::OperatorName;
use sluice_common::order::Installed;
use sluice_proto::v1;

use super::check::{CheckName, Tally};
use super::line::{LineStop, Reopened};
use super::model::{Gate, Member, Target};
use super::plan::Outcome;
use super::snapshot::{HostSnapshot, Snapshot};
use super::state::State;
use super::store::Line;

mod pieces;
mod spec;

pub(super) use pieces::{fitted, named, piece};
pub(super) use spec::{message as spec_message, spec};

/// Most hosts whose reports all travel; beyond it only of those that are neither done nor yet to begin.
const REPORTED_WHOLE: usize = 2_000;
/// Most hosts whose hooks' output travels: each is up to 16 KiB, and a message 4 MiB.
const OUTPUTS_MAX: usize = 16;

/// Writes a rollout; with the reports of its hosts, or without.
pub(super) fn rollout(snapshot: &Snapshot, notes: String, with_reports: bool) -> v1::Rollout {
    let Snapshot { rollout, revision, hosts, blockers } = snapshot;
    let (reports_all, mut outputs_left) = (hosts.len() <= REPORTED_WHOLE, OUTPUTS_MAX);
    let mut host = |position: usize| {
        let (member, seen) = (&rollout.members[position], &hosts[position]);
        let is_at_rest = matches!(seen.outcome, Outcome::Waiting | Outcome::Updated);
        let with_report = with_reports && (reports_all || !is_at_rest);
        host_message(member, seen, with_report, &mut outputs_left)
    };
    let batches = rollout.batches.iter().enumerate().map(|(batch, range)| v1::RolloutBatch {
        state: batch_state(rollout.cursor.batch, rollout.cursor.gate, batch).into(),
        hosts: range.clone().map(&mut host).collect(),
    });
    v1::Rollout {
        id: rollout.id.to_string(),
        app: rollout.app.to_string(),
        version: rollout.version.to_string(),
        spec: Some(spec::message(&rollout.spec)),
        state: state(&rollout.state).into(),
        reason: rollout.state.reason().unwrap_or_default().to_owned(),
        batches: batches.collect(),
        blockers: blockers.iter().map(ToString::to_string).collect(),
        started_by: rollout.started_by.to_string(),
        started_unix_ms: rollout.started.as_millisecond(),
        ended_unix_ms: rollout.ended.map_or(0, Timestamp::as_millisecond),
        notes,
        revision: *revision,
        approvals: rollout.approvals.iter().map(|(by, at)| approval(by, *at)).collect(),
        overridden: rollout.overridden.clone().unwrap_or_default(),
        checks: rollout.tallies.iter().map(|((batch, name), tally)| check(*batch, name, tally)).collect(),
        hosts_left: 0,
        hosts_left_updated: 0,
    }
}

fn check(batch: usize, name: &CheckName, tally: &Tally) -> v1::RolloutCheck {
    let Tally { samples, passed, first: _, newest, failure } = tally;
    let said = newest.as_ref();
    v1::RolloutCheck {
        name: name.to_string(),
        batch: u32::try_from(batch).unwrap_or(u32::MAX),
        samples: *samples,
        passed: *passed,
        outcome: said.map(|said| said.outcome.to_string()).unwrap_or_default(),
        words: said.map(|said| said.words.clone()).unwrap_or_default(),
        at_unix_ms: said.map_or(0, |said| said.at.as_millisecond()),
        failure: failure.clone().unwrap_or_default(),
    }
}

fn approval(by: &OperatorName, at: Timestamp) -> v1::RolloutApproval {
    v1::RolloutApproval { operator: by.to_string(), at_unix_ms: at.as_millisecond() }
}

fn state(state: &State) -> v1::RolloutState {
    match state {
        State::Running => v1::RolloutState::Running,
        State::Paused { .. } => v1::RolloutState::Paused,
        State::RollingBack { .. } => v1::RolloutState::RollingBack,
        State::Succeeded => v1::RolloutState::Succeeded,
        State::RolledBack { .. } => v1::RolloutState::RolledBack,
        State::Failed { .. } => v1::RolloutState::Failed,
        State::Aborted { .. } => v1::RolloutState::Aborted,
    }
}

fn batch_state(current: usize, gate: Gate, batch: usize) -> v1::BatchState {
    match (batch.cmp(&current), gate) {
        (std::cmp::Ordering::Less, _) => v1::BatchState::Passed,
        (std::cmp::Ordering::Greater, _) | (_, Gate::Waiting) => v1::BatchState::Waiting,
        (std::cmp::Ordering::Equal, Gate::Open) => v1::BatchState::Open,
        (std::cmp::Ordering::Equal, Gate::Baking { .. }) => v1::BatchState::Baking,
    }
}

fn host_message(
    member: &Member,
    seen: &HostSnapshot,
    with_report: bool,
    outputs_left: &mut usize,
) -> v1::RolloutHost {
    let HostSnapshot { outcome, is_reachable, report } = seen;
    let mut report = report.as_ref().filter(|_| with_report).map(v1::Report::from);
    if let Some(report) = report.as_mut().filter(|report| report.hook_output.is_some()) {
        match outputs_left.checked_sub(1) {
            Some(left) => *outputs_left = left,
            None => report.hook_output = None,
        }
    }
    // Why a host failed outlives the report in which it said so.
    if let (Some(report), Some(failure)) = (&mut report, &member.failure) {
        report.reason = Some(failure.to_string());
    }
    let outcome = match outcome {
        Outcome::Waiting => v1::HostOutcome::Waiting,
        Outcome::Ordered => v1::HostOutcome::Ordered,
        Outcome::Updated => v1::HostOutcome::Updated,
        Outcome::Failed => v1::HostOutcome::Failed,
        Outcome::RollingBack => v1::HostOutcome::RollingBack,
        Outcome::RolledBack => v1::HostOutcome::RolledBack,
    };
    v1::RolloutHost {
        name: member.host.to_string(),
        site: member.site.to_string(),
        outcome: outcome.into(),
        reachable: *is_reachable,
        report,
        predecessor: predecessor(member).map(Into::into),
    }
}

fn predecessor(member: &Member) -> Option<&Installed> {
    match &member.order.as_ref()?.target {
        Target::Candidate { over } | Target::Activate { over } => over.as_ref(),
        Target::Restore { to } => Some(to),
        Target::Stage | Target::Remove => None,
    }
}

/// Writes a line of history.
pub(super) fn line(line: Line) -> v1::HistoryEntry {
    let Line { at, host, app, from, to, rollout, generation, reason } = line;
    v1::HistoryEntry {
        at_unix_ms: at.as_millisecond(),
        host: host.to_string(),
        app: app.to_string(),
        from: from.as_ref().map(Into::into),
        to: to.as_ref().map(Into::into),
        rollout: rollout.map(String::from).unwrap_or_default(),
        generation: generation.0,
        reason,
    }
}

/// Writes what closed an application.
pub(super) fn line_stop(stop: LineStop) -> v1::LineStop {
    let LineStop { app, rollout, reason, at, reopened } = stop;
    let (reopened_unix_ms, reopened_by, cause) = match reopened {
        None => (0, String::new(), String::new()),
        Some(Reopened { at, by, cause }) => (at.as_millisecond(), by.to_string(), cause),
    };
    v1::LineStop {
        app: app.to_string(),
        rollout: rollout.to_string(),
        reason,
        stopped_unix_ms: at.as_millisecond(),
        reopened_unix_ms,
        reopened_by,
        cause,
    }
}
