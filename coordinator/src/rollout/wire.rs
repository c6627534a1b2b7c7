//! Rollouts on the wire, and back.

use std::time::Duration;

use jiff::Timestamp;
use sluice_common::order::Installed;
use sluice_common::selector::Selector;
use sluice_common::units::Share;
use sluice_proto::convert::{Invalid, millis, parse};
use sluice_proto::v1;

use super::model::{Gate, Member, Target};
use super::plan::Outcome;
use super::snapshot::{HostSnapshot, Snapshot};
use super::spec::{OnFailure, PerDomain, Spec, Strategy};
use super::state::State;
use super::store::Line;

/// Most hosts whose reports all travel; beyond it only of those that are neither done nor yet to begin.
const REPORTED_WHOLE: usize = 2_000;
/// Most hosts whose hooks' output travels: each is up to 16 KiB, and a message 4 MiB.
const OUTPUTS_MAX: usize = 16;

/// Reads a spec; what is not said takes its default.
pub(super) fn spec(message: v1::RolloutSpec) -> Result<Spec, Invalid> {
    let (kind, on_failure) = (message.strategy(), message.on_failure());
    let v1::RolloutSpec {
        selector,
        strategy: _,
        canary,
        batch,
        bake_ms,
        max_unavailable,
        max_failures,
        on_failure: _,
        host_deadline_ms,
        stage_first,
        waves,
        domain_label,
        domain_max_unavailable,
    } = message;
    let standard = Spec::default();
    let strategy = strategy(kind, &canary, &batch, &waves)?;
    Ok(Spec {
        selector: if selector.is_empty() {
            Selector::everything()
        } else {
            parse("spec.selector", &selector)?
        },
        max_unavailable: share("spec.max_unavailable", &max_unavailable, strategy.default_max_unavailable())?,
        strategy,
        bake: Duration::from_millis(bake_ms),
        max_failures: share("spec.max_failures", &max_failures, standard.max_failures)?,
        on_failure: match on_failure {
            v1::OnFailure::Unspecified | v1::OnFailure::RollBack => OnFailure::Rollback,
            v1::OnFailure::Pause => OnFailure::Pause,
        },
        host_deadline: match host_deadline_ms {
            0 => standard.host_deadline,
            millis => Duration::from_millis(millis),
        },
        stage_first: share("spec.stage_first", &stage_first, standard.stage_first)?,
        per_domain: match domain_label.is_empty() {
            true => None,
            false => Some(PerDomain {
                label: domain_label,
                max_unavailable: share(
                    "spec.domain_max_unavailable",
                    &domain_max_unavailable,
                    Share::Count(1),
                )?,
            }),
        },
    })
}

fn strategy(
    kind: v1::StrategyKind,
    canary: &str,
    batch: &str,
    waves: &[String],
) -> Result<Strategy, Invalid> {
    let batch = share("spec.batch", batch, Share::Percent(25))?;
    match kind {
        v1::StrategyKind::AllAtOnce => Ok(Strategy::AllAtOnce),
        v1::StrategyKind::Rolling => Ok(Strategy::Rolling { batch }),
        v1::StrategyKind::Unspecified | v1::StrategyKind::Canary => {
            Ok(Strategy::Canary { canary: share("spec.canary", canary, Share::Count(1))?, batch })
        }
        v1::StrategyKind::Waves => {
            let waves = waves.iter().map(|wave| parse("spec.waves", wave)).collect::<Result<_, _>>()?;
            Ok(Strategy::Waves { waves })
        }
        v1::StrategyKind::Exponential => {
            Ok(Strategy::Exponential { first: share("spec.canary", canary, Share::Count(1))? })
        }
    }
}

fn share(field: &'static str, text: &str, standard: Share) -> Result<Share, Invalid> {
    if text.is_empty() { Ok(standard) } else { parse(field, text) }
}

fn spec_message(spec: &Spec) -> v1::RolloutSpec {
    let Spec {
        selector,
        strategy,
        bake,
        max_unavailable,
        max_failures,
        on_failure,
        host_deadline,
        stage_first,
        per_domain,
    } = spec;
    let (kind, canary, batch) = match strategy {
        Strategy::AllAtOnce => (v1::StrategyKind::AllAtOnce, String::new(), String::new()),
        Strategy::Rolling { batch } => (v1::StrategyKind::Rolling, String::new(), batch.to_string()),
        Strategy::Canary { canary, batch } => {
            (v1::StrategyKind::Canary, canary.to_string(), batch.to_string())
        }
        Strategy::Waves { .. } => (v1::StrategyKind::Waves, String::new(), String::new()),
        Strategy::Exponential { first } => (v1::StrategyKind::Exponential, first.to_string(), String::new()),
    };
    let waves = match strategy {
        Strategy::Waves { waves } => waves.iter().map(Share::to_string).collect(),
        Strategy::AllAtOnce
        | Strategy::Rolling { .. }
        | Strategy::Canary { .. }
        | Strategy::Exponential { .. } => Vec::new(),
    };
    let on_failure = match on_failure {
        OnFailure::Rollback => v1::OnFailure::RollBack,
        OnFailure::Pause => v1::OnFailure::Pause,
    };
    v1::RolloutSpec {
        selector: selector.to_string(),
        strategy: kind.into(),
        canary,
        batch,
        bake_ms: millis(*bake),
        max_unavailable: max_unavailable.to_string(),
        max_failures: max_failures.to_string(),
        on_failure: on_failure.into(),
        host_deadline_ms: millis(*host_deadline),
        stage_first: stage_first.to_string(),
        waves,
        domain_label: per_domain.as_ref().map(|domains| domains.label.clone()).unwrap_or_default(),
        domain_max_unavailable: per_domain
            .as_ref()
            .map(|domains| domains.max_unavailable.to_string())
            .unwrap_or_default(),
    }
}

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
        spec: Some(spec_message(&rollout.spec)),
        state: state(&rollout.state).into(),
        reason: rollout.state.reason().unwrap_or_default().to_owned(),
        batches: batches.collect(),
        blockers: blockers.iter().map(ToString::to_string).collect(),
        started_by: rollout.started_by.to_string(),
        started_unix_ms: rollout.started.as_millisecond(),
        ended_unix_ms: rollout.ended.map_or(0, Timestamp::as_millisecond),
        notes,
        revision: *revision,
    }
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
        Target::Activate { over } => over.as_ref(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spec_does_not_say_takes_its_default() {
        let standard = Spec { bake: Duration::ZERO, ..Spec::default() };
        assert_eq!(spec(v1::RolloutSpec::default()).unwrap(), standard);
        let at_once = v1::RolloutSpec { strategy: v1::StrategyKind::AllAtOnce.into(), ..Default::default() };
        assert_eq!(spec(at_once).unwrap().max_unavailable, Share::Percent(100));
    }

    #[test]
    fn a_spec_goes_over_the_wire_and_back() {
        for strategy in [
            Strategy::AllAtOnce,
            Strategy::Rolling { batch: Share::Count(3) },
            Strategy::Canary { canary: Share::Percent(5), batch: Share::Percent(20) },
        ] {
            let there = Spec {
                selector: "site=berlin,role in (api,web)".parse().unwrap(),
                strategy,
                bake: Duration::from_millis(1_500),
                max_unavailable: Share::Count(2),
                max_failures: Share::Percent(3),
                on_failure: OnFailure::Pause,
                host_deadline: Duration::from_secs(77),
                ..Spec::default()
            };
            assert_eq!(spec(spec_message(&there)).unwrap(), there);
        }
    }

    #[test]
    fn a_field_that_does_not_parse_is_named() {
        let broken = |change: fn(&mut v1::RolloutSpec)| {
            let mut message = v1::RolloutSpec::default();
            change(&mut message);
            spec(message).unwrap_err().field
        };
        assert_eq!(broken(|m| m.selector = "a b".into()), "spec.selector");
        assert_eq!(broken(|m| m.canary = "x".into()), "spec.canary");
        assert_eq!(broken(|m| m.batch = "101%".into()), "spec.batch");
        assert_eq!(broken(|m| m.max_unavailable = "-1".into()), "spec.max_unavailable");
        assert_eq!(broken(|m| m.max_failures = "1.5".into()), "spec.max_failures");
    }
}
