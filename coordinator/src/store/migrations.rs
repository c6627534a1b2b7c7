//! The schema, as an ordered list of embedded SQL texts. Each is applied once, all of them in one transaction.
//!
//! A migration that was released never changes. A module that needs tables adds a file and one line to [`MIGRATIONS`].

use jiff::Timestamp;
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Row};

use super::Schema;

struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

macro_rules! migration {
    ($version:literal, $file:literal) => {
        Migration { version: $version, name: $file, sql: include_str!(concat!("../../migrations/", $file)) }
    };
}

/// Every migration, oldest first.
const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_core.sql"),
    migration!(2, "0002_rollouts.sql"),
    migration!(3, "0003_depot.sql"),
    migration!(4, "0004_better_plans.sql"),
    migration!(5, "0005_collection.sql"),
    migration!(6, "0006_domains.sql"),
    migration!(7, "0007_gates.sql"),
    migration!(8, "0008_environments.sql"),
    migration!(9, "0009_checks.sql"),
    migration!(10, "0010_migrating_host.sql"),
    migration!(11, "0011_needs.sql"),
    migration!(12, "0012_units.sql"),
    migration!(13, "0013_plans_by_effort.sql"),
    migration!(14, "0014_plans_by_base.sql"),
    migration!(15, "0015_missing_packs.sql"),
];

/// Says why the schema does not fit.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database was written by a newer Sluice.
    #[error(
        "the database has schema {found}, this program knows {known} at most; run the newer sluice-coordinator, or restore a backup made before the upgrade"
    )]
    Newer {
        /// Version in the database.
        found: i64,
        /// Newest version in this program.
        known: i64,
    },
    /// The database was written by an older Sluice, and this command may not change it.
    #[error("the database lacks schema {0}; run sluice-coordinator serve once, then try again")]
    Older(&'static str),
    /// A statement failed; nothing was changed.
    #[error("cannot bring the database to schema {name}")]
    Failed {
        /// The migration.
        name: &'static str,
        /// Why.
        source: sqlx::Error,
    },
}

/// Brings the schema up to date, or checks that it is.
pub(super) async fn run(pool: &AnyPool, schema: Schema) -> Result<(), MigrationError> {
    apply(pool, schema, MIGRATIONS).await
}

async fn apply(pool: &AnyPool, schema: Schema, migrations: &[Migration]) -> Result<(), MigrationError> {
    let failed = |name| move |source| MigrationError::Failed { name, source };
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed("schema_version"))?;
    let applied = applied(&mut tx).await.map_err(failed("schema_version"))?;
    let known = migrations.iter().map(|migration| migration.version).max().unwrap_or(0);
    if let Some(&found) = applied.iter().find(|version| **version > known) {
        return Err(MigrationError::Newer { found, known });
    }
    for migration in migrations.iter().filter(|migration| !applied.contains(&migration.version)) {
        if schema == Schema::MustMatch {
            return Err(MigrationError::Older(migration.name));
        }
        apply_one(&mut tx, migration).await.map_err(failed(migration.name))?;
        tracing::info!(schema = migration.name, "database schema applied");
    }
    tx.commit().await.map_err(failed("schema_version"))
}

async fn applied(connection: &mut AnyConnection) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_ms BIGINT NOT NULL)",
    )
    .execute(&mut *connection)
    .await?;
    let rows =
        sqlx::query("SELECT version FROM schema_version ORDER BY version").fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

async fn apply_one(connection: &mut AnyConnection, migration: &Migration) -> Result<(), sqlx::Error> {
    // The one word in which the two databases differ.
    let sql = match connection.backend_name() {
        "SQLite" => migration.sql.to_owned(),
        _ => migration.sql.replace(" BLOB", " BYTEA"),
    };
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
    sqlx::query("INSERT INTO schema_version (version, name, applied_ms) VALUES ($1, $2, $3)")
        .bind(migration.version)
        .bind(migration.name)
        .bind(Timestamp::now().as_millisecond())
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    const NEXT: Migration =
        Migration { version: 9_000, name: "9000_next.sql", sql: "CREATE TABLE next (id BIGINT)" };

    #[tokio::test]
    async fn a_newer_schema_is_refused_and_an_older_one_is_raised_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        let mut all: Vec<Migration> =
            MIGRATIONS.iter().map(|m| Migration { version: m.version, name: m.name, sql: m.sql }).collect();
        all.push(NEXT);
        let missing = apply(&store.write, Schema::MustMatch, &all).await.unwrap_err();
        assert!(matches!(missing, MigrationError::Older("9000_next.sql")), "{missing}");
        apply(&store.write, Schema::Migrate, &all).await.unwrap();
        apply(&store.write, Schema::Migrate, &all).await.unwrap();
        store.close().await;
        for schema in [Schema::Migrate, Schema::MustMatch] {
            let error = Store::open(dir.path(), schema).await.unwrap_err().to_string();
            assert!(error.contains("schema 9000") && error.contains("newer sluice-coordinator"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_failing_migration_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        let bad = Migration {
            version: 9_001,
            name: "9001_bad.sql",
            sql: "CREATE TABLE half (id BIGINT); CREATE TABLE half (id BIGINT)",
        };
        assert!(apply(&store.write, Schema::Migrate, &[bad]).await.is_err());
        assert!(sqlx::query("SELECT * FROM half").fetch_all(store.read()).await.is_err());
    }
}
