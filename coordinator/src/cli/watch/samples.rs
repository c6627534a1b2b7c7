//! Rollouts as tests look at them.

use jiff::Timestamp;
use sluice_common::order::Phase;

use crate::cli::view::Installed;
use crate::cli::view::rollout::{Batch, BatchState, Host, Outcome, Rollout, State};

/// The moment so many seconds after a sample's start.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn host(name: &str, site: &str, outcome: Outcome, phase: Option<Phase>) -> Host {
    let done = matches!(outcome, Outcome::Updated | Outcome::Failed | Outcome::RolledBack);
    Host {
        name: name.into(),
        site: site.into(),
        outcome,
        reachable: true,
        phase,
        healthy: None,
        current: None,
        predecessor: Some(Installed { package: "sha256:00".into(), version: "1.1.0".into() }),
        fetched_bytes: 12_250_000,
        fetch_total_bytes: 24_500_000,
        wire_bytes: if phase.is_some() { 3_120_000 } else { 0 },
        stage_seconds: 2.5,
        switch_seconds: if done { 0.0042 } else { 0.0 },
        reason: None,
        hook_output: None,
    }
}

fn rollout(state: State, batches: Vec<(BatchState, Vec<Host>)>) -> Rollout {
    let batches =
        batches.into_iter().enumerate().map(|(i, (state, hosts))| Batch { number: i + 1, state, hosts });
    Rollout {
        id: "r42".into(),
        app: "shop".into(),
        version: "1.2.0".into(),
        state,
        reason: None,
        blockers: Vec::new(),
        batches: batches.collect(),
        spec: None,
        notes: String::new(),
        started_by: "alice".into(),
        started_at: Some(at(0)),
        ended_at: None,
        revision: 1,
        approvals: Vec::new(),
        overridden: None,
        checks: Vec::new(),
        hosts_left: 0,
        hosts_left_updated: 0,
    }
}

/// The canary is through, a host is switching, another fetches.
pub(super) fn running() -> Rollout {
    let hosts = vec![
        host("web-2", "berlin", Outcome::Ordered, Some(Phase::Validating)),
        host("web-10", "rome", Outcome::Ordered, Some(Phase::Staged)),
    ];
    let waiting = vec![
        host("web-4", "rome", Outcome::Waiting, Some(Phase::Fetching)),
        Host { reachable: false, ..host("web-5", "rome", Outcome::Waiting, None) },
    ];
    rollout(
        State::Running,
        vec![
            (BatchState::Passed, vec![host("web-1", "berlin", Outcome::Updated, Some(Phase::Active))]),
            (BatchState::Open, hosts),
            (BatchState::Waiting, waiting),
        ],
    )
}

/// Batch 2 holds and has to keep holding.
pub(super) fn baking() -> Rollout {
    let mut baking = running();
    baking.batches[1].state = BatchState::Baking;
    for host in &mut baking.batches[1].hosts {
        (host.outcome, host.phase, host.switch_seconds) = (Outcome::Updated, Some(Phase::Active), 0.0123);
    }
    baking.blockers = vec!["baking batch 2: 18s of 30s left".into()];
    baking
}

/// More blockers than are shown.
pub(super) fn blocked() -> Rollout {
    let mut blocked = running();
    blocked.blockers = vec!["waiting for web-5 to report (unreachable for 4m)".into()];
    blocked.blockers.extend((0..6).map(|i| format!("waiting for app-{i} to stage (4.1 MB of 24.5 MB)")));
    blocked
}

/// A host did not come up, and the rollout stopped there.
pub(super) fn failed() -> Rollout {
    let mut failed = running();
    failed.state = State::Failed;
    failed.reason = Some("1 host failed, 0 are tolerated".into());
    failed.ended_at = Some(at(65));
    let host = &mut failed.batches[1].hosts[0];
    (host.outcome, host.phase) = (Outcome::Failed, Some(Phase::Reverted));
    host.reason = Some("health[0]: GET http://127.0.0.1:8080/: 500\x1b[31m, expected 200".into());
    failed
}

/// A host failed; those that had switched went back.
pub(super) fn rolled_back() -> Rollout {
    let mut back = failed();
    back.state = State::RolledBack;
    back.reason = Some("1 host failed, 0 are tolerated".into());
    let canary = &mut back.batches[0].hosts[0];
    (canary.outcome, canary.switch_seconds) = (Outcome::RolledBack, 0.0123);
    back.batches[1].hosts[0].hook_output = Some("starting\nbind: address \x1b[1min use\n".into());
    back
}

/// Thirty hosts, some of them interesting.
pub(super) fn large() -> Rollout {
    let mut hosts: Vec<Host> =
        (0..30).map(|i| host(&format!("h{i}"), "s", Outcome::Waiting, Some(Phase::Staged))).collect();
    hosts[7].phase = Some(Phase::Fetching);
    hosts[20].outcome = Outcome::Failed;
    hosts[21].outcome = Outcome::Ordered;
    rollout(State::Running, vec![(BatchState::Open, hosts)])
}
