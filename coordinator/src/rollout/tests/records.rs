//! The past over a real database, and what listeners are to be told of.

use std::collections::BTreeMap;

use sluice_proto::v1;
use sluice_proto::v1::records_server::Records;
use tonic::Request;

use super::*;
use crate::notify::store as listeners;
use crate::store::Store;

async fn stays(world: &World, version: &str, limit: u32, before: u64) -> v1::ReleaseHistoryResponse {
    let request =
        v1::ReleaseHistoryRequest { app: app().to_string(), version: version.to_owned(), limit, before };
    let service = RecordsService::new(world.store.clone());
    service.release_history(Request::new(request)).await.unwrap().into_inner()
}

async fn ran(world: &World, host: &str, at_unix_ms: i64) -> Vec<String> {
    let request = v1::HostHistoryRequest { host: host.to_owned(), at_unix_ms, limit: 0 };
    let service = RecordsService::new(world.store.clone());
    let answer = service.host_history(Request::new(request)).await.unwrap().into_inner();
    let version = |entry: v1::HistoryEntry| entry.to.map_or_else(|| "-".to_owned(), |to| to.version);
    answer.entries.into_iter().map(version).collect()
}

#[tokio::test]
async fn what_ran_where_and_when_is_answered() {
    let world = World::new(3).await;
    let before = Clock::of_process().now().as_millisecond() - 1;
    let mut ends = Vec::new();
    for version in ["1", "2"] {
        let id = world.start(version, spec()).await.unwrap();
        world.ended(&id).await;
        ends.push(Clock::of_process().now().as_millisecond());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(ran(&world, "h2", 0).await, ["2", "1"]);
    assert!(ran(&world, "h2", before).await.is_empty());
    assert_eq!(
        (ran(&world, "h2", ends[0]).await, ran(&world, "h2", ends[1]).await),
        (vec!["1".to_owned()], vec!["2".to_owned()])
    );
    let one = stays(&world, "1", 0, 0).await;
    assert!(one.stays.iter().all(|stay| stay.until_unix_ms >= stay.from_unix_ms && stay.rollout == "r1"));
    assert!(one.stays.iter().all(|stay| stay.next.as_ref().unwrap().version == "2"));
    let two = stays(&world, "2", 2, 0).await;
    assert_eq!((two.stays.len(), two.more), (2, true));
    assert!(two.stays.iter().all(|stay| stay.until_unix_ms == 0 && stay.next.is_none()));
    let rest = stays(&world, "2", 2, two.stays[1].number).await;
    assert_eq!((rest.stays.len(), rest.more), (1, false));
}

/// Returns what waits for a listener: kind of event and body.
async fn waiting(store: &Store) -> Vec<(String, serde_json::Value)> {
    let rows = sqlx::query("SELECT event, body FROM notify_queue ORDER BY number");
    let rows = rows.fetch_all(store.read()).await.unwrap();
    let text = |row: &sqlx::any::AnyRow, column| sqlx::Row::try_get::<String, usize>(row, column).unwrap();
    rows.iter().map(|row| (text(row, 0), serde_json::from_str(&text(row, 1)).unwrap())).collect()
}

#[tokio::test]
async fn listeners_are_to_be_told_of_what_was_committed_and_of_nothing_else() {
    let world = World::new(3).await;
    let listener = listeners::Listener {
        name: "chat".to_owned(),
        url: "http://127.0.0.1:1/".to_owned(),
        events: Vec::new(),
        created: Clock::of_process().now(),
        created_by: "alice".parse().unwrap(),
        waiting: 0,
        dropped: 0,
        delivered: None,
        error: None,
    };
    let mut tx = world.store.begin(Actor::console()).await.unwrap();
    assert!(listeners::add(&mut tx, &listener, "secret").await.unwrap());
    tx.commit().await.unwrap();
    let good = world.start("1", spec()).await.unwrap();
    world.ended(&good).await;
    let bad = world.start(BAD, spec()).await.unwrap();
    world.ended(&bad).await;
    assert!(world.start("2", spec()).await.is_err(), "the line is stopped");
    let told = waiting(&world.store).await;
    let kinds: Vec<&str> = told.iter().map(|(kind, _)| kind.trim_start_matches("rollout.")).collect();
    let expected =
        ["started", "batch_passed", "batch_passed", "succeeded", "started", "rolling_back", "rolled_back"];
    assert_eq!(kinds, expected);
    let last = &told.last().unwrap().1;
    assert_eq!((last["rollout"].as_str(), last["notes"].as_str()), (Some("r2"), Some("faster")));
    assert!(last["reason"].as_str().unwrap().contains("503 from /health"));
    let ids: BTreeMap<&str, ()> = told.iter().map(|(_, body)| (body["id"].as_str().unwrap(), ())).collect();
    assert_eq!(ids.len(), told.len(), "ids repeat");
}
