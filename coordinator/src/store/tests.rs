use serde_json::json;
use sqlx::Row;

use super::*;
use crate::audit::{self, Entry};

async fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
    (dir, store)
}

async fn add_site(tx: &mut Transaction, name: &str) {
    sqlx::query("INSERT INTO sites (name, limit_bytes_per_second, created_ms) VALUES ($1, 0, 0)")
        .bind(name)
        .execute(&mut **tx)
        .await
        .unwrap();
}

#[tokio::test]
async fn sqlite_is_set_up_for_durable_commits() {
    let (_dir, store) = open().await;
    let mut tx = store.begin(Actor::coordinator()).await.unwrap();
    let text = sqlx::query("PRAGMA journal_mode").fetch_one(&mut *tx).await.unwrap();
    assert_eq!(text.try_get::<String, _>(0).unwrap(), "wal");
    for (pragma, value) in [("PRAGMA synchronous", 2), ("PRAGMA foreign_keys", 1)] {
        let row = sqlx::query(pragma).fetch_one(&mut *tx).await.unwrap();
        assert_eq!(row.try_get::<i64, _>(0).unwrap(), value, "{pragma}");
    }
}

#[tokio::test]
async fn a_change_without_an_audit_entry_is_refused() {
    let (_dir, store) = open().await;
    let mut tx = store.begin(Actor::coordinator()).await.unwrap();
    add_site(&mut tx, "berlin").await;
    assert!(matches!(tx.commit().await.unwrap_err(), Error::Unaudited));
    assert_eq!(count(&store).await, 0);
    let mut tx = store.begin(Actor::coordinator()).await.unwrap();
    add_site(&mut tx, "berlin").await;
    audit::append(&mut tx, Entry { action: "site.create", subject: "berlin", detail: json!({}) })
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count(&store).await, 1);
}

#[tokio::test]
async fn writers_are_serialised_and_readers_may_not_write() {
    let (_dir, store) = open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut tx = store.begin(Actor::coordinator()).await.unwrap();
            let row = sqlx::query("SELECT COUNT(*) FROM sites").fetch_one(&mut *tx).await.unwrap();
            let before: i64 = row.try_get(0).unwrap();
            add_site(&mut tx, &format!("s{number}")).await;
            tx.commit_observation().await.unwrap();
            before
        });
    }
    let mut seen = tasks.join_all().await;
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<i64>>());
    assert!(sqlx::query("DELETE FROM sites").execute(store.read()).await.is_err());
}

#[tokio::test]
async fn the_database_opens_at_a_path_with_odd_characters() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("a b?c#d%e");
    fs_err::create_dir(&odd).unwrap();
    Store::open(&odd, Schema::Migrate).await.unwrap();
    assert!(odd.join("sluice.db").exists());
}

async fn count(store: &Store) -> i64 {
    let row = sqlx::query("SELECT COUNT(*) FROM sites").fetch_one(store.read()).await.unwrap();
    row.try_get(0).unwrap()
}
