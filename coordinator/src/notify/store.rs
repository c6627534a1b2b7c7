//! Listeners and what they have still to be told, in the database.

use jiff::Timestamp;
use serde_json::json;
use sluice_common::caps;
use sluice_common::name::{AppName, OperatorName, Version};
use sluice_common::release::Release;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::event::Event;
use crate::audit::{self, Entry};
use crate::store::{self, Store, Transaction};

/// A web address that is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub url: String,
    /// Which events it is told of; none: all.
    pub events: Vec<String>,
    /// Since when.
    pub created: Timestamp,
    /// Who added it.
    pub created_by: OperatorName,
    /// How many events wait.
    pub waiting: u64,
    /// How many were given up.
    pub dropped: u64,
    /// When it was last told.
    pub delivered: Option<Timestamp>,
    /// Why the newest attempt failed.
    pub error: Option<String>,
}

/// An event on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    pub(super) number: i64,
    pub(super) listener: String,
    pub(super) url: String,
    pub(super) secret: String,
    pub(super) id: String,
    pub(super) event: String,
    pub(super) body: String,
    pub(super) tries: u32,
    pub(super) created: Timestamp,
    pub(super) due: Timestamp,
}

/// Adds a listener and its audit entry; says whether the name was free.
pub async fn add(tx: &mut Transaction, listener: &Listener, secret: &str) -> Result<bool, store::Error> {
    let Listener { name, url, events, created, created_by, .. } = listener;
    let events_text = json!(events).to_string();
    let done = sqlx::query(
        "INSERT INTO notify_listeners (name, url, secret, events, created_ms, created_by, dropped)
         VALUES ($1, $2, $3, $4, $5, $6, 0) ON CONFLICT (name) DO NOTHING",
    )
    .bind(name.clone())
    .bind(url.clone())
    .bind(secret.to_owned())
    .bind(events_text)
    .bind(store::to_millis(*created))
    .bind(created_by.as_str())
    .execute(&mut **tx)
    .await?;
    let detail = json!({ "url": url, "events": events });
    audit::append(tx, Entry { action: "notify.add", subject: name, detail }).await?;
    Ok(done.rows_affected() == 1)
}

/// Removes a listener with all that waits for it; says whether there was one.
pub async fn remove(tx: &mut Transaction, name: &str) -> Result<bool, store::Error> {
    sqlx::query("DELETE FROM notify_queue WHERE listener = $1")
        .bind(name.to_owned())
        .execute(&mut **tx)
        .await?;
    let done = sqlx::query("DELETE FROM notify_listeners WHERE name = $1")
        .bind(name.to_owned())
        .execute(&mut **tx)
        .await?;
    audit::append(tx, Entry { action: "notify.remove", subject: name, detail: json!({}) }).await?;
    Ok(done.rows_affected() == 1)
}

/// Returns every listener, by name.
pub async fn list(store: &Store) -> Result<Vec<Listener>, store::Error> {
    let rows = sqlx::query(
        "SELECT l.*, (SELECT COUNT(*) FROM notify_queue q WHERE q.listener = l.name) AS waiting
         FROM notify_listeners l ORDER BY l.name",
    )
    .fetch_all(store.read())
    .await?;
    rows.iter().map(listener).collect()
}

/// Returns address and secret of a listener.
pub async fn find(store: &Store, name: &str) -> Result<Option<(String, String)>, store::Error> {
    let row = sqlx::query("SELECT url, secret FROM notify_listeners WHERE name = $1")
        .bind(name.to_owned())
        .fetch_optional(store.read())
        .await?;
    row.map(|row| Ok((row.try_get("url")?, row.try_get("secret")?))).transpose()
}

fn listener(row: &AnyRow) -> Result<Listener, store::Error> {
    let delivered: Option<i64> = row.try_get("delivered_ms")?;
    Ok(Listener {
        name: row.try_get("name")?,
        url: row.try_get("url")?,
        events: events(row)?,
        created: store::from_millis("notify_listeners.created_ms", row.try_get("created_ms")?)?,
        created_by: store::parse("notify_listeners.created_by", row.try_get("created_by")?)?,
        waiting: store::unsigned("notify_queue", row.try_get("waiting")?)?,
        dropped: store::unsigned("notify_listeners.dropped", row.try_get("dropped")?)?,
        delivered: delivered.map(|at| store::from_millis("notify_listeners.delivered_ms", at)).transpose()?,
        error: row.try_get("error")?,
    })
}

fn events(row: &AnyRow) -> Result<Vec<String>, store::Error> {
    let text: &str = row.try_get("events")?;
    serde_json::from_str(text).map_err(|error| store::Error::damaged("notify_listeners.events", error))
}

/// Returns the notes of a release, within a transaction.
pub(crate) async fn notes(
    tx: &mut Transaction,
    app: &AppName,
    version: &Version,
) -> Result<String, store::Error> {
    let row = sqlx::query("SELECT statement FROM releases WHERE app = $1 AND version = $2")
        .bind(app.as_str())
        .bind(version.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else { return Ok(String::new()) };
    let statement: Vec<u8> = row.try_get("statement")?;
    let release = Release::decode(&statement);
    Ok(release.map_err(|error| store::Error::damaged("releases.statement", error))?.notes)
}

/// Says whether anybody listens.
pub(crate) async fn has_listeners(tx: &mut Transaction) -> Result<bool, store::Error> {
    Ok(sqlx::query("SELECT name FROM notify_listeners LIMIT 1").fetch_optional(&mut **tx).await?.is_some())
}

/// Queues an event for everybody who wants to hear of it. Where too many wait for a listener, its oldest is given up.
pub(crate) async fn queue(tx: &mut Transaction, event: &Event, now: Timestamp) -> Result<(), store::Error> {
    let rows =
        sqlx::query("SELECT name, events FROM notify_listeners ORDER BY name").fetch_all(&mut **tx).await?;
    for row in &rows {
        let wanted = events(row)?;
        if wanted.is_empty() || wanted.iter().any(|kind| kind == event.kind) {
            queue_for(tx, row.try_get("name")?, event, now).await?;
        }
    }
    Ok(())
}

async fn queue_for(
    tx: &mut Transaction,
    listener: &str,
    event: &Event,
    now: Timestamp,
) -> Result<(), store::Error> {
    let row = sqlx::query("SELECT COUNT(*), MIN(number) FROM notify_queue WHERE listener = $1")
        .bind(listener.to_owned())
        .fetch_one(&mut **tx)
        .await?;
    let (waiting, oldest): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    if let Some(oldest) = oldest.filter(|_| waiting >= caps::NOTIFICATIONS_WAITING_MAX) {
        drop_one(tx, oldest, listener).await?;
    }
    let row = sqlx::query("SELECT MAX(number) FROM notify_queue").fetch_one(&mut **tx).await?;
    let last: Option<i64> = row.try_get(0)?;
    sqlx::query(
        "INSERT INTO notify_queue (number, listener, id, event, body, tries, created_ms, due_ms)
         VALUES ($1, $2, $3, $4, $5, 0, $6, $7)",
    )
    .bind(last.unwrap_or(0) + 1)
    .bind(listener.to_owned())
    .bind(event.id.clone())
    .bind(event.kind)
    .bind(event.body.to_string())
    .bind(store::to_millis(now))
    .bind(store::to_millis(now))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn drop_one(tx: &mut Transaction, number: i64, listener: &str) -> Result<(), store::Error> {
    sqlx::query("DELETE FROM notify_queue WHERE number = $1").bind(number).execute(&mut **tx).await?;
    sqlx::query("UPDATE notify_listeners SET dropped = dropped + 1 WHERE name = $1")
        .bind(listener.to_owned())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Returns the oldest event of every listener: those behind it wait for it, so that each hears of things in order.
pub(super) async fn heads(store: &Store) -> Result<Vec<Queued>, store::Error> {
    let rows = sqlx::query(
        "SELECT q.*, l.url, l.secret FROM notify_queue q JOIN notify_listeners l ON l.name = q.listener
         WHERE q.number IN (SELECT MIN(number) FROM notify_queue GROUP BY listener) ORDER BY q.number",
    )
    .fetch_all(store.read())
    .await?;
    rows.iter().map(queued).collect()
}

fn queued(row: &AnyRow) -> Result<Queued, store::Error> {
    let tries: i64 = row.try_get("tries")?;
    Ok(Queued {
        number: row.try_get("number")?,
        listener: row.try_get("listener")?,
        url: row.try_get("url")?,
        secret: row.try_get("secret")?,
        id: row.try_get("id")?,
        event: row.try_get("event")?,
        body: row.try_get("body")?,
        tries: u32::try_from(tries).map_err(|_| store::Error::damaged("notify_queue.tries", tries))?,
        created: store::from_millis("notify_queue.created_ms", row.try_get("created_ms")?)?,
        due: store::from_millis("notify_queue.due_ms", row.try_get("due_ms")?)?,
    })
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// The listener has taken it.
    Delivered,
    /// It is tried again.
    Again {
        /// When.
        due: Timestamp,
        /// Why the attempt failed.
        error: String,
    },
    /// It was tried for too long.
    Dropped {
        /// Why the last attempt failed.
        error: String,
    },
}

/// Writes what became of an attempt.
pub(super) async fn ended(
    store: &Store,
    queued: &Queued,
    ended: &Ended,
    now: Timestamp,
) -> Result<(), store::Error> {
    let mut tx = store.begin(store::Actor::coordinator()).await?;
    let (delivered, error) = match ended {
        Ended::Delivered => {
            sqlx::query("DELETE FROM notify_queue WHERE number = $1")
                .bind(queued.number)
                .execute(&mut *tx)
                .await?;
            (Some(store::to_millis(now)), None)
        }
        Ended::Again { due, error } => {
            sqlx::query("UPDATE notify_queue SET tries = tries + 1, due_ms = $1 WHERE number = $2")
                .bind(store::to_millis(*due))
                .bind(queued.number)
                .execute(&mut *tx)
                .await?;
            (None, Some(error.clone()))
        }
        Ended::Dropped { error } => {
            drop_one(&mut tx, queued.number, &queued.listener).await?;
            (None, Some(error.clone()))
        }
    };
    sqlx::query(
        "UPDATE notify_listeners SET delivered_ms = COALESCE($1, delivered_ms), error = $2 WHERE name = $3",
    )
    .bind(delivered)
    .bind(error)
    .bind(queued.listener.clone())
    .execute(&mut *tx)
    .await?;
    tx.commit_observation().await
}
