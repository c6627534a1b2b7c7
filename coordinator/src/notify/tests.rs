//! Notifications to a real listener on loopback, from a real store.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_common::caps;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::store::{self as tables, Listener};
use super::{Event, Sender, signature};
use crate::checks::testing::server;
use crate::outbound::Outbound;
use crate::store::{Actor, Schema, Store};

const SECRET: &str = "s3cret";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn event(number: u32, kind: &'static str) -> Event {
    Event { id: format!("r1.{number}.{kind}"), kind, body: json!({ "id": format!("r1.{number}.{kind}") }) }
}

async fn open(dir: &std::path::Path) -> Store {
    Store::open(dir, Schema::Migrate).await.unwrap()
}

async fn add(store: &Store, name: &str, url: &str, events: &[&str]) {
    let listener = Listener {
        name: name.to_owned(),
        url: url.to_owned(),
        events: events.iter().map(|event| (*event).to_owned()).collect(),
        created: at(0),
        created_by: "alice".parse().unwrap(),
        waiting: 0,
        dropped: 0,
        delivered: None,
        error: None,
    };
    let mut tx = store.begin(Actor::console()).await.unwrap();
    assert!(tables::add(&mut tx, &listener, SECRET).await.unwrap());
    tx.commit().await.unwrap();
}

async fn queue(store: &Store, events: &[Event]) {
    let mut tx = store.begin(Actor::coordinator()).await.unwrap();
    for event in events {
        tables::queue(&mut tx, event, Timestamp::now()).await.unwrap();
    }
    tx.commit_observation().await.unwrap();
}

async fn listed(store: &Store) -> Vec<(String, u64, u64, Option<String>)> {
    let list = tables::list(store).await.unwrap();
    list.into_iter().map(|l| (l.name, l.waiting, l.dropped, l.error)).collect()
}

type Heard = Arc<Mutex<Vec<(String, Value)>>>;

/// A listener that answers what `status` says for the n-th request, and keeps what it was told when that is 200.
async fn listener(
    status: impl Fn(usize) -> u16 + Send + Sync + 'static,
) -> (String, Heard, AbortOnDropHandle<()>) {
    let heard = Heard::default();
    let (kept, asked) = (Arc::clone(&heard), Mutex::new(0));
    let (address, task) = server(move |head, body| {
        let field = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(&format!("{name}: ")))
                .unwrap_or_default()
                .to_owned()
        };
        let signed = field("sluice-signature");
        let seconds = signed.split(['=', ',']).nth(1).unwrap().parse().unwrap();
        assert_eq!(signed, signature::sign(SECRET, seconds, body.as_bytes()));
        let now = Timestamp::now().as_second();
        assert!((now - 60..=now).contains(&seconds), "{seconds}");
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        let status = status(*asked);
        if status == 200 {
            let told = (field("sluice-delivery"), serde_json::from_str::<Value>(body).unwrap());
            assert_eq!(told.1["id"].as_str(), Some(told.0.as_str()));
            kept.lock().unwrap().push(told);
        }
        (status, String::new())
    })
    .await;
    (address, heard, task)
}

#[tokio::test]
async fn every_listener_is_told_what_it_wants_in_order_and_signed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (all, heard_all, _all) = listener(|_| 200).await;
    let (bad, heard_bad, _bad) = listener(|_| 200).await;
    add(&store, "all", &all, &[]).await;
    add(&store, "bad", &bad, &["rollout.failed"]).await;
    queue(&store, &[event(1, "rollout.started"), event(2, "rollout.failed")]).await;
    Sender::new(store.clone(), Outbound::default()).tell().await.unwrap();
    let ids = |heard: &Heard| heard.lock().unwrap().iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&heard_all), ["r1.1.rollout.started", "r1.2.rollout.failed"]);
    assert_eq!(ids(&heard_bad), ["r1.2.rollout.failed"]);
    assert!(
        listed(&store)
            .await
            .iter()
            .all(|(_, waiting, dropped, error)| { (*waiting, *dropped, error) == (0, 0, &None) })
    );
}

#[tokio::test]
async fn what_was_not_taken_waits_and_holds_up_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (good, heard, _good) = listener(|_| 200).await;
    add(&store, "down", "http://127.0.0.1:1/", &[]).await;
    add(&store, "good", &good, &[]).await;
    queue(&store, &[event(1, "rollout.started"), event(2, "rollout.failed")]).await;
    Sender::new(store.clone(), Outbound::default()).tell().await.unwrap();
    assert_eq!(heard.lock().unwrap().len(), 2);
    // The queue outlives the coordinator.
    store.close().await;
    let store = open(dir.path()).await;
    let list = listed(&store).await;
    assert_eq!((list[0].1, list[1].1), (2, 0));
    assert!(list[0].3.as_ref().is_some_and(|error| error.contains("refused")), "{list:?}");
    let head = tables::heads(&store).await.unwrap().remove(0);
    assert_eq!((head.id.as_str(), head.tries), ("r1.1.rollout.started", 1));
    assert!(head.due > Timestamp::now(), "it is not tried at once again");
}

#[tokio::test]
async fn a_listener_that_comes_back_hears_everything_at_least_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (url, heard, _task) = listener(|request| if request == 1 { 503 } else { 200 }).await;
    add(&store, "flaky", &url, &[]).await;
    queue(&store, &[event(1, "rollout.started"), event(2, "rollout.succeeded")]).await;
    let stop = CancellationToken::new();
    let sender = Sender::new(store.clone(), Outbound::default());
    sender.tell().await.unwrap();
    assert_eq!(listed(&store).await[0].3.as_deref(), Some("answered 503 Service Unavailable"));
    // Its time comes.
    let mut tx = store.begin(Actor::coordinator()).await.unwrap();
    sqlx::query("UPDATE notify_queue SET due_ms = 0").execute(&mut *tx).await.unwrap();
    tx.commit_observation().await.unwrap();
    let task = {
        let stop = stop.clone();
        AbortOnDropHandle::new(tokio_util::task::TaskTracker::new().spawn(sender.run(stop)))
    };
    for _ in 0..1_000 {
        if listed(&store).await[0].1 == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    task.await.unwrap();
    let heard = heard.lock().unwrap();
    let ids: HashSet<&str> = heard.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, HashSet::from(["r1.1.rollout.started", "r1.2.rollout.succeeded"]));
    assert_eq!(heard[0].0, "r1.1.rollout.started");
}

#[tokio::test]
async fn a_queue_is_bounded_and_says_what_it_gave_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    add(&store, "down", "http://127.0.0.1:1/", &[]).await;
    let most = u32::try_from(caps::NOTIFICATIONS_WAITING_MAX).unwrap();
    let events: Vec<Event> = (1..=most + 2).map(|number| event(number, "rollout.started")).collect();
    queue(&store, &events).await;
    let list = listed(&store).await;
    assert_eq!((list[0].1, list[0].2), (u64::from(most), 2));
    assert_eq!(tables::heads(&store).await.unwrap()[0].id, "r1.3.rollout.started");
    // One that is too old is given up with its next failure.
    let mut tx = store.begin(Actor::coordinator()).await.unwrap();
    sqlx::query("DELETE FROM notify_queue WHERE number > 3").execute(&mut *tx).await.unwrap();
    sqlx::query("UPDATE notify_queue SET created_ms = 0").execute(&mut *tx).await.unwrap();
    tx.commit_observation().await.unwrap();
    Sender::new(store.clone(), Outbound::default()).tell().await.unwrap();
    let list = listed(&store).await;
    assert_eq!((list[0].1, list[0].2), (0, 3));
    let mut tx = store.begin(Actor::console()).await.unwrap();
    assert!(tables::remove(&mut tx, "down").await.unwrap());
    tx.commit().await.unwrap();
    assert!(listed(&store).await.is_empty());
}
