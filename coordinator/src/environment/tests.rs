//! Environments from the file to the hosts: the real runner, rollouts and store; hosts on paper.

mod world;

use super::handle::{ApplyError, AskError, Status};
use super::{State, diff};
use crate::audit;
use crate::fleet::RolloutSink as _;
use crate::rollout::Command;
use crate::store::Actor;
use world::{BAD, World};

/// Two services with a contract between them on data and their configuration.
fn fleet(data: &str, api: &str, web: &str, top: &str) -> String {
    format!(
        r#"environment = "e"
{top}
[rollout]
strategy = "all-at-once"
bake = "0s"

[applications.data]
release = "{data}"
selector = "role=data"

[applications.api]
release = "{api}"
selector = "role=web"
provides = ["1"]
needs = [{{ app = "data" }}]

[applications.web]
release = "{web}"
selector = "role=web"
needs = [{{ app = "api", contract = "1" }}]
"#
    )
}

async fn world() -> World {
    let world = World::new().await;
    for (host, role) in [("d1", "data"), ("w1", "web"), ("w2", "web")] {
        world.enrol(host, role);
    }
    world.release(&["data 1", "api 1", "web 1", "data 2", "api 2", "web 2", "web bad"]).await;
    world
}

#[tokio::test]
async fn one_file_brings_an_empty_fleet_up_in_order() {
    let world = world().await;
    world.apply(&fleet("1", "1", "1", "")).await.unwrap();
    let status = world.comes_to("standing").await;
    assert_eq!(world.runs(), "d1: data 1; w1: api 1, web 1; w2: api 1, web 1");
    assert_eq!(world.rollouts().await, ["data 1 succeeded", "api 1 succeeded", "web 1 succeeded"]);
    assert!(status.blockers.is_empty() && status.stored.ended.is_some());
    assert_eq!(world.handle.diff(status.stored.name()).await.unwrap(), (Vec::new(), 5));
    // The same file again finds everything in place.
    world.apply(&fleet("1", "1", "1", "")).await.unwrap();
    world.until(|status| status.stored.run == 2 && status.stored.state == State::Standing).await;
    assert_eq!(world.rollouts().await.len(), 3);
    assert_eq!(audit::verify(&world.store).await.unwrap().broken_at, None);
}

#[tokio::test]
async fn a_coordinator_that_is_killed_goes_on_where_it_was() {
    let mut world = world().await;
    world.apply(&fleet("1", "1", "1", "")).await.unwrap();
    for app in ["data", "api"] {
        let app = app.parse().unwrap();
        world.until(|status| status.view.get(&app).is_some_and(|seen| !seen.attempts.is_empty())).await;
        world = world.kill().await;
    }
    world.comes_to("standing").await;
    assert_eq!(world.rollouts().await, ["data 1 succeeded", "api 1 succeeded", "web 1 succeeded"]);
}

#[tokio::test]
async fn none_of_what_comes_together_switches_before_all_is_staged() {
    let mut world = world().await;
    let slow = "d1".parse().unwrap();
    world.paper.make_idle(&slow, true);
    let text = r#"environment = "e"
[rollout]
strategy = "all-at-once"
bake = "0s"
[applications.data]
release = "1"
selector = "role=data"
atomic = true
needs = [{ app = "web" }]
[applications.web]
release = "1"
selector = "role=web"
atomic = true
needs = [{ app = "data" }]
"#;
    world.apply(text).await.unwrap();
    for _ in 0..2 {
        let waits = "staged, and waiting for data, which it comes together with";
        world
            .until_rollouts(|list| list.iter().any(|s| s.blockers.iter().any(|b| b.to_string() == waits)))
            .await;
        assert_eq!(world.runs(), "d1: ; w1: ; w2: ");
        world = world.kill().await;
    }
    world.paper.make_idle(&slow, false);
    world.comes_to("standing").await;
    assert_eq!(world.runs(), "d1: data 1; w1: web 1; w2: web 1");
    assert_eq!(audit::verify(&world.store).await.unwrap().broken_at, None);
}

#[tokio::test]
async fn a_failure_stops_and_the_same_file_goes_on_once_the_line_is_open() {
    let world = world().await;
    world.apply(&fleet("1", "1", "1", "")).await.unwrap();
    world.comes_to("standing").await;
    world.apply(&fleet("2", "2", BAD, "")).await.unwrap();
    let status = world.comes_to("stopped").await;
    assert_eq!(world.runs(), "d1: data 2; w1: api 2, web 1; w2: api 2, web 1");
    assert!(
        status.stored.state.reason().unwrap().contains("web: r6 is rolled-back"),
        "{:?}",
        status.stored.state
    );
    // Nobody tries again before the cause is known.
    let error = world.apply(&fleet("2", "2", "2", "")).await.unwrap_err();
    assert!(
        matches!(&error, ApplyError::Closed(_)) && error.to_string().contains("sluice app reopen web"),
        "{error}"
    );
    // A host that comes now gets what its neighbours run, but for the closed application.
    world.enrol("w3", "web");
    world.until(|_| world.runs().ends_with("w3: api 2")).await;
    let says = |status: &Status| {
        status
            .blockers
            .first()
            .is_some_and(|blocker| blocker.to_string().starts_with("web: closed to new rollouts since r6"))
    };
    world.until(says).await;
    // Opened again, it gets what the others run, not what failed.
    let (by, app) = ("alice".parse().unwrap(), "web".parse().unwrap());
    world.rollouts.reopen(&by, Actor::console(), &app, "a typing error").await.unwrap();
    world.until(|_| world.runs().ends_with("w3: api 2, web 1")).await;
    world.apply(&fleet("2", "2", "2", "")).await.unwrap();
    world.comes_to("standing").await;
    assert_eq!(world.runs(), "d1: data 2; w1: api 2, web 2; w2: api 2, web 2; w3: api 2, web 2");
}

#[tokio::test]
async fn a_failure_takes_everything_back_where_the_file_says_so() {
    let world = world().await;
    let back = "on_failure = \"rollback\"";
    world.apply(&fleet("1", "1", "1", back)).await.unwrap();
    world.comes_to("standing").await;
    world.apply(&fleet("2", "2", BAD, back)).await.unwrap();
    let status = world.comes_to("rolled-back").await;
    assert_eq!(world.runs(), "d1: data 1; w1: api 1, web 1; w2: api 1, web 1");
    let states = world.rollouts().await;
    assert_eq!(states[3..], ["data 2 rolled-back", "api 2 rolled-back", "web bad rolled-back"]);
    // What stood before is in force again: nothing differs, and it is what is exported.
    let name = status.stored.name();
    assert_eq!(world.handle.diff(name).await.unwrap().0, []);
    let text = world.handle.export(Some(name)).await.unwrap();
    let exported = super::Environment::parse(&text).unwrap();
    assert_eq!(exported, super::Environment::parse(&fleet("1", "1", "1", back)).unwrap());
    let observed = super::Environment::parse(&world.handle.export(None).await.unwrap()).unwrap();
    assert_eq!(observed.release(&"web".parse().unwrap()).unwrap().as_str(), "1");
}

#[tokio::test]
async fn hosts_are_told_what_their_needs_are_met_by() {
    let world = world().await;
    let needs = "needs = [{ app = \"api\", contract = \"1\" }, { app = \"search\", optional = true, fallback = \"lists by name\" }]";
    let file = fleet("1", "1", "1", "").replace("needs = [{ app = \"api\", contract = \"1\" }]", needs);
    world.apply(&file).await.unwrap();
    let status = world.comes_to("standing").await;
    let orders = world.rollouts.standing_orders(&"w1".parse().unwrap()).await.unwrap();
    let told: Vec<String> = orders.iter().map(|order| format!("{} {:?}", order.app, order.needs)).collect();
    let web = r#"web {AppName("api"): "api 1", AppName("search"): "lists by name"}"#;
    assert_eq!(told, [r#"api {AppName("data"): "data 1"}"#, web]);
    let layout = world.handle.layout(status.stored.name()).await.unwrap();
    let by: Vec<_> = layout.iter().flat_map(|row| &row.needs).map(|need| need.by.as_deref()).collect();
    assert_eq!(by, [Some("data 1"), Some("api 1"), Some("lists by name")]);
}

#[tokio::test]
async fn hosts_that_enrol_later_come_up_by_themselves() {
    let world = world().await;
    world.apply(&fleet("1", "1", "1", "")).await.unwrap();
    world.comes_to("standing").await;
    world.enrol("w3", "web");
    world.enrol("x1", "other");
    world.until(|_| world.runs().contains("w3: api 1, web 1")).await;
    let status = world.until(|status| status.blockers.is_empty()).await;
    assert_eq!(status.stored.state, State::Standing);
    assert_eq!(world.runs(), "d1: data 1; w1: api 1, web 1; w2: api 1, web 1; w3: api 1, web 1; x1: ");
    assert_eq!(world.rollouts().await.len(), 5);
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused_with_its_reason() {
    let world = world().await;
    let words = |result: Result<_, ApplyError>| result.unwrap_err().to_string();
    assert!(words(world.apply("environment = 1").await).contains("line 1"));
    let error = words(world.apply(&fleet("1", "9", "8", "")).await);
    assert_eq!(error, "there is no release api 9, web 8; register it with: sluice release create");
    world.apply(&fleet("1", "1", "1", "")).await.unwrap();
    world.comes_to("standing").await;
    // Another environment may not take the same application on the same host.
    let other = fleet("1", "1", "1", "").replace("environment = \"e\"", "environment = \"f\"");
    assert!(words(world.apply(&other).await).starts_with("environment e has api on w1 too"));
    // A provider may not drop the contract that what still runs needs.
    let dropped = fleet("1", "2", "2", "").replace("provides = [\"1\"]", "provides = [\"2\"]");
    let dropped = dropped.replace("contract = \"1\"", "contract = \"2\"");
    let error = words(world.apply(&dropped).await);
    assert!(error.starts_with("api 2 no longer provides contract 1, which web 1 needs"), "{error}");
    let as_one = dropped.replace("selector = \"role=web\"", "selector = \"role=web\"\natomic = true");
    world.apply(&as_one).await.unwrap();
    world.comes_to("standing").await;
}

#[tokio::test]
async fn a_plan_says_what_would_happen_and_changes_nothing() {
    let world = world().await;
    let (_, _, outline) = world.handle.plan(&fleet("1", "1", "1", "")).await.unwrap();
    let words: Vec<String> = outline
        .apps
        .iter()
        .map(|app| format!("{} {} {}/{}", app.step, app.app, app.settled, app.hosts))
        .collect();
    assert_eq!(words, ["1 data 0/1", "2 api 0/2", "3 web 0/2"]);
    assert!(outline.has_changes() && outline.problems.is_empty());
    assert!(matches!(world.handle.status(&"e".parse().unwrap()).await, Err(AskError::None(_))));
    world.apply(&fleet("1", "1", "1", "")).await.unwrap();
    world.comes_to("standing").await;
    let (_, _, outline) = world.handle.plan(&fleet("1", "1", "1", "")).await.unwrap();
    assert!(!outline.has_changes());
    assert!(outline.apps.iter().all(|app| app.parts.is_empty() && app.blockers.is_empty()));
}

#[tokio::test]
async fn a_run_can_be_stopped_and_taken_back_by_hand() {
    let world = world().await;
    let slow = fleet("1", "1", "1", "").replace("bake = \"0s\"", "approvals = 1");
    world.apply(&slow).await.unwrap();
    let name = "e".parse().unwrap();
    world.until(|status| status.view.values().any(|seen| !seen.attempts.is_empty())).await;
    world.handle.stop(Actor::console(), &name, "by alice".into(), false).await.unwrap();
    assert_eq!(world.status().await.stored.state.as_str(), "stopped");
    assert!(world.handle.stop(Actor::console(), &name, "again".into(), false).await.is_err());
    world.handle.stop(Actor::console(), &name, "by alice".into(), true).await.unwrap();
    world.comes_to("rolled-back").await;
    assert_eq!(world.rollouts().await, ["data 1 rolled-back"]);
    let differences = world.handle.diff(&name).await.unwrap().0;
    assert!(differences.iter().all(|difference| difference.kind == diff::Kind::Missing));
}

#[tokio::test]
async fn what_was_taken_back_by_hand_is_not_brought_to_hosts_that_come_later() {
    let world = world().await;
    world.apply(&fleet("1", "1", "1", "")).await.unwrap();
    world.comes_to("standing").await;
    world.apply(&fleet("2", "2", BAD, "")).await.unwrap();
    let status = world.comes_to("stopped").await;
    let api = &status.view[&"api".parse().unwrap()].attempts[0].rollout;
    let command = Command::RollBack { reason: "slow".into() };
    world.rollouts.command(Actor::console(), api, command).await.unwrap();
    world.until(|_| world.runs().contains("w2: api 1")).await;
    world.enrol("w3", "web");
    world.until(|_| world.runs().ends_with("w3: api 1")).await;
}
