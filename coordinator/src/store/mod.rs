//! The coordinator's database: one SQL text for SQLite (`DATA/sluice.db`, the default) and, later, PostgreSQL.
//!
//! Invariants: writers are serialised; a commit that returned survives a power cut (WAL, `synchronous=FULL`); what
//! changes state commits together with its audit entry. Every module of the coordinator that keeps something calls here.
//!
//! ```text
//! // Reading: any number at once, never in the way of a writer.
//! let row = sqlx::query("SELECT site FROM hosts WHERE name = $1").bind(name).fetch_optional(store.read()).await?;
//! let site: String = row.try_get("site")?;
//!
//! // Writing: one at a time. The actor goes into the audit entries.
//! let mut tx = store.begin(&caller).await?;
//! sqlx::query("UPDATE ... WHERE name = $1").bind(name).execute(&mut *tx).await?;   // `&mut **tx` from `tx: &mut Transaction`
//! audit::append(&mut tx, Entry { action: "site.set_limit", subject: name, detail: json!({"to": 5}) }).await?;
//! tx.commit().await?;              // refuses without an audit entry (I17)
//! tx.commit_observation().await?;  // for what hosts reported, uploaded chunks, times seen: state nobody decided
//! ```
//!
//! Rules of the one SQL text: `$1` parameters, each number used once and in order (SQLite and PostgreSQL then agree);
//! columns only `BIGINT` (`i64`), `TEXT` (`String`) and `BLOB` (`Vec<u8>`); no `RETURNING`, no `AUTOINCREMENT`;
//! upserts as `INSERT .. ON CONFLICT (key) DO UPDATE SET column = excluded.column`. A transaction that is dropped rolls back.
//! Keep transactions short and await nothing but the database inside: every other writer waits.

mod migrations;
pub(crate) mod strike;
mod transaction;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool};

pub use migrations::MigrationError;
pub use strike::Strike;
pub use transaction::{Actor, Transaction};

/// Connections for reading: more than a busy dashboard needs, few enough to stay cheap.
const READ_CONNECTIONS: u32 = 8;
/// Time a writer waits for another process (an offline command) before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
/// Time anyone waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    read: AnyPool,
    write: AnyPool,
}

/// Whether opening may bring the schema up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// Yes: the service, which owns the directory.
    Migrate,
    /// No: a command beside a service that may be running.
    MustMatch,
}

/// Says why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be reached or read.
    #[error("cannot open the database {path}")]
    Database {
        /// Where.
        path: String,
        /// Why.
        source: sqlx::Error,
    },
    /// Its schema does not fit this program.
    #[error(transparent)]
    Schema(#[from] MigrationError),
}

/// Says why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// A row holds what this program cannot have written.
    #[error("the database is damaged: {column} holds {reason}")]
    Damaged {
        /// Table and column.
        column: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A change of state was about to be committed without an audit entry.
    #[error("a change of state lacks its audit entry")]
    Unaudited,
}

impl Error {
    /// Makes an error about a stored value.
    pub fn damaged(column: &'static str, reason: impl ToString) -> Self {
        Self::Damaged { column, reason: reason.to_string() }
    }

    /// Says whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Database(error) => matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::Io(_)),
            Self::Damaged { .. } | Self::Unaudited => false,
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        // Handled here: the caller learns that it is not their fault, the log learns the rest.
        tracing::error!(error = &error as &dyn std::error::Error, "store failed");
        if error.is_retryable() {
            Self::unavailable("the coordinator's store is busy; try again")
        } else {
            Self::internal("the coordinator's store failed; see its log")
        }
    }
}

impl Store {
    /// Opens `DATA/sluice.db`; makes it where [`Schema::Migrate`] allows.
    pub async fn open(data: &Path, schema: Schema) -> Result<Self, OpenError> {
        let path = data.join("sluice.db");
        let failed = |source| OpenError::Database { path: path.display().to_string(), source };
        sqlx::any::install_default_drivers();
        let mode = match schema {
            Schema::Migrate => "rwc",
            Schema::MustMatch => "rw",
        };
        let url = format!("sqlite://{}?mode={mode}", escape(&path.to_string_lossy()));
        let options = |max: u32| {
            AnyPoolOptions::new()
                .max_connections(max)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        // The writer connects first: it makes the file and switches it to WAL.
        let write = options(1).after_connect(|connection, _| Box::pin(prepare(connection, WRITER)));
        let write = write.connect(&url).await.map_err(failed)?;
        migrations::run(&write, schema).await?;
        let read = options(READ_CONNECTIONS)
            .after_connect(|connection, _| Box::pin(prepare(connection, READER)))
            .connect(&url)
            .await
            .map_err(failed)?;
        Ok(Self { read, write })
    }

    /// Returns the connections for reading. They refuse to write.
    pub fn read(&self) -> &AnyPool {
        &self.read
    }

    /// Begins a writing transaction; waits for the one before it.
    pub async fn begin(&self, actor: impl Into<Actor>) -> Result<Transaction, Error> {
        // IMMEDIATE: a transaction that reads first must not find at its first write that another process was faster.
        let inner = self.write.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Transaction::new(inner, actor.into()))
    }

    /// Closes all connections; the last one folds the write-ahead log into the database.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

const WRITER: &str = "PRAGMA query_only = OFF";
const READER: &str = "PRAGMA query_only = ON";

async fn prepare(connection: &mut AnyConnection, role: &'static str) -> Result<(), sqlx::Error> {
    if connection.backend_name() != "SQLite" {
        return Ok(());
    }
    let busy = format!("PRAGMA busy_timeout = {}", BUSY_TIMEOUT.as_millis());
    sqlx::raw_sql(sqlx::AssertSqlSafe(busy)).execute(&mut *connection).await?;
    sqlx::raw_sql("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")
        .execute(&mut *connection)
        .await?;
    sqlx::raw_sql(role).execute(connection).await?;
    Ok(())
}

/// Escapes a path for the database's URL.
fn escape(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Returns a time as the database keeps it.
pub fn to_millis(time: Timestamp) -> i64 {
    time.as_millisecond()
}

/// Takes a time from the database.
pub fn from_millis(column: &'static str, millis: i64) -> Result<Timestamp, Error> {
    Timestamp::from_millisecond(millis).map_err(|error| Error::damaged(column, error))
}

/// Takes a stored text as the value it was made from.
pub fn parse<T>(column: &'static str, text: &str) -> Result<T, Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|error: T::Err| Error::damaged(column, error))
}

/// Takes a stored number that is never negative.
pub fn unsigned(column: &'static str, number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::damaged(column, number))
}

/// Takes a stored SHA-256.
pub fn digest(column: &'static str, bytes: &[u8]) -> Result<sluice_common::digest::Digest, Error> {
    sluice_common::digest::Digest::from_slice(bytes)
        .ok_or_else(|| Error::damaged(column, format!("{} bytes instead of a SHA-256", bytes.len())))
}

#[cfg(test)]
mod tests;
