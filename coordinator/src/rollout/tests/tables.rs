//! What the tables make of reports and of two writers.

use sluice_common::digest::Digest;
use sluice_common::name::{HostName, Platform};
use sluice_common::order::{Generation, Installed, Phase, Report};

use super::world::{World, a_report, app, spec};
use crate::audit;
use crate::clock::Clock;
use crate::fleet::RolloutSink;
use crate::rollout::{Action, Candidate, Rollout, Target, store};
use crate::store::Actor;

#[tokio::test]
async fn a_host_may_fetch_what_its_newest_orders_name() {
    let world = World::new(1).await;
    let id = world.start("1", spec()).await.unwrap();
    world.ended(&id).await;
    let host = "h1".parse().unwrap();
    let may = async |package: &[u8]| world.handle.may_fetch(&host, &Digest::of(package)).await.unwrap();
    assert!(may(b"1").await && !may(b"2").await);
    let id = world.start("2", spec()).await.unwrap();
    world.ended(&id).await;
    assert!(may(b"2").await && !may(b"1").await);
    assert!(!world.handle.may_fetch(&"h2".parse().unwrap(), &Digest::of(b"2")).await.unwrap());
}

#[tokio::test]
async fn reports_are_believed_in_order_but_for_the_first_of_a_session() {
    let world = World::new(1).await;
    let host: HostName = "h9".parse().unwrap();
    let report = |generation, sequence, phase| Report { sequence, ..a_report(generation, phase) };
    let tell = async |report: Report| {
        world.handle.record_report(&host, report).await.unwrap();
        world.handle.latest_reports(Some(&host)).await.unwrap()[0].1.clone()
    };
    assert_eq!(tell(report(5, 7, Phase::Staged)).await.sequence, 7);
    assert_eq!(tell(report(5, 6, Phase::Fetching)).await.phase, Phase::Staged, "late");
    assert_eq!(tell(report(4, 9, Phase::Active)).await.phase, Phase::Staged, "of an older order");
    assert_eq!(tell(report(5, 8, Phase::Active)).await.phase, Phase::Active);
    // An agent that lost count begins with 1 again.
    world.handle.host_changed(&host);
    assert_eq!(tell(report(5, 1, Phase::Failed)).await.phase, Phase::Failed);
    assert_eq!(tell(report(5, 1, Phase::Active)).await.phase, Phase::Failed);
}

#[tokio::test]
async fn history_has_one_line_a_switch_and_none_for_what_is_not_known() {
    let world = World::new(1).await;
    let host: HostName = "h9".parse().unwrap();
    let installed = |version: &str| Installed {
        package: Digest::of(version.as_bytes()),
        version: version.parse().unwrap(),
    };
    let steps = [
        (1, Phase::Active, Some("1")),
        (2, Phase::Staged, Some("1")),
        (3, Phase::Validating, Some("2")),
        (3, Phase::Active, Some("2")),
        (4, Phase::Failed, None),
        (5, Phase::Staged, Some("2")),
        (6, Phase::Validating, Some("3")),
        (6, Phase::Reverted, Some("2")),
        (7, Phase::Active, None),
    ];
    for (sequence, (generation, phase, current)) in steps.into_iter().enumerate() {
        let report = Report {
            current: current.map(installed),
            sequence: sequence as u64,
            ..a_report(generation, phase)
        };
        world.handle.record_report(&host, report).await.unwrap();
    }
    let lines = world.handle.history(&app(), Some(&host), 10).await.unwrap();
    let version =
        |installed: &Option<Installed>| installed.as_ref().map_or("-".to_owned(), |i| i.version.to_string());
    let lines: Vec<String> =
        lines.iter().rev().map(|l| format!("{}>{}", version(&l.from), version(&l.to))).collect();
    assert_eq!(lines, ["->1", "1>2", "2>3", "3>2", "2>-"]);
}

#[tokio::test]
async fn of_two_writers_one_starts_over() {
    let world = World::new(1).await;
    let by = "alice".parse().unwrap();
    let candidate = Candidate {
        domain: Some("r1".into()),
        host: "h9".parse().unwrap(),
        site: "berlin".parse().unwrap(),
        platform: Platform::any(),
        package: Digest::of(b"1"),
        settled: false,
    };
    let version = "1".parse().unwrap();
    let now = Clock::of_process().now();
    let id = "r1".parse().unwrap();
    let mut rollout = Rollout::new(id, app(), version, spec(), vec![vec![candidate]], by, now);
    let mut tx = world.store.begin(Actor::console()).await.unwrap();
    store::insert(&mut tx, &rollout, 1).await.unwrap();
    tx.commit().await.unwrap();
    let mut commit = async |revision, generation| {
        let action = Action::Order { member: 0, generation: Generation(generation), target: Target::Stage };
        rollout.apply(&action, now);
        let mut tx = world.store.begin(Actor::coordinator()).await.unwrap();
        let done = store::commit(&mut tx, &rollout, revision, &[action], now).await;
        match done {
            Ok(()) => tx.commit().await.is_ok(),
            Err(store::CommitError::Conflict) => false,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(commit(1, 4).await);
    assert!(!commit(1, 5).await, "planned on a revision that is gone");
    assert!(!commit(2, 4).await, "a generation that was given");
    assert!(!commit(2, 3).await, "an older one");
    assert!(commit(2, 5).await);
    assert_eq!(audit::verify(&world.store).await.unwrap().entries, 3 + 3, "3 releases, a start, two commits");
}
