//! Operators and certificates in the database.

use jiff::Timestamp;
use sluice_common::digest::Digest;
use sluice_common::identity::{Principal, Role};
use sluice_common::name::OperatorName;
use sqlx::Row;

use super::ca::Issued;
use crate::store::{self, Store, Transaction};

/// An operator as stored.
pub(super) struct StoredOperator {
    pub(super) name: OperatorName,
    pub(super) role: Role,
    pub(super) revoked: bool,
    pub(super) enrolled: Timestamp,
}

/// Adds an operator. Returns false, and changes nothing, when one of that name is there and not revoked.
pub(super) async fn insert_operator(
    tx: &mut Transaction,
    name: &OperatorName,
    role: Role,
    now: Timestamp,
) -> Result<bool, store::Error> {
    let done = sqlx::query(
        "INSERT INTO operators (name, role, enrolled_ms, revoked_ms) VALUES ($1, $2, $3, NULL)
         ON CONFLICT (name) DO UPDATE SET role = excluded.role, enrolled_ms = excluded.enrolled_ms, revoked_ms = NULL
             WHERE operators.revoked_ms IS NOT NULL",
    )
    .bind(name.to_string())
    .bind(role.as_str())
    .bind(store::to_millis(now))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Marks an operator as revoked. Returns its role; nothing when there is none, or it is revoked already.
pub(super) async fn revoke_operator(
    tx: &mut Transaction,
    name: &OperatorName,
    now: Timestamp,
) -> Result<Option<Role>, store::Error> {
    let row = sqlx::query("SELECT role FROM operators WHERE name = $1 AND revoked_ms IS NULL")
        .bind(name.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else { return Ok(None) };
    sqlx::query("UPDATE operators SET revoked_ms = $1 WHERE name = $2")
        .bind(store::to_millis(now))
        .bind(name.to_string())
        .execute(&mut **tx)
        .await?;
    store::parse("operators.role", &row.try_get::<String, _>("role")?).map(Some)
}

/// Returns how many admins are not revoked.
pub(super) async fn count_admins(tx: &mut Transaction) -> Result<i64, store::Error> {
    let row =
        sqlx::query("SELECT COUNT(*) AS admins FROM operators WHERE role = 'admin' AND revoked_ms IS NULL")
            .fetch_one(&mut **tx)
            .await?;
    Ok(row.try_get("admins")?)
}

/// Returns every operator, by name.
pub(super) async fn list_operators(store: &Store) -> Result<Vec<StoredOperator>, store::Error> {
    let rows = sqlx::query("SELECT * FROM operators ORDER BY name").fetch_all(store.read()).await?;
    rows.iter()
        .map(|row| {
            Ok(StoredOperator {
                name: store::parse("operators.name", &row.try_get::<String, _>("name")?)?,
                role: store::parse("operators.role", &row.try_get::<String, _>("role")?)?,
                revoked: row.try_get::<Option<i64>, _>("revoked_ms")?.is_some(),
                enrolled: store::from_millis("operators.enrolled_ms", row.try_get("enrolled_ms")?)?,
            })
        })
        .collect()
}

/// Adds a certificate.
pub(super) async fn insert_certificate(
    tx: &mut Transaction,
    principal: &Principal,
    issued: &Issued,
    now: Timestamp,
) -> Result<(), store::Error> {
    sqlx::query(
        "INSERT INTO certificates (fingerprint, principal, issued_ms, not_after_ms, revoked_ms)
         VALUES ($1, $2, $3, $4, NULL)",
    )
    .bind(issued.fingerprint.as_bytes().to_vec())
    .bind(principal.to_string())
    .bind(store::to_millis(now))
    .bind(store::to_millis(issued.not_after))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Marks every certificate of an identity as revoked and returns their fingerprints.
pub(super) async fn revoke_certificates(
    tx: &mut Transaction,
    principal: &Principal,
    now: Timestamp,
) -> Result<Vec<Digest>, store::Error> {
    let rows =
        sqlx::query("SELECT fingerprint FROM certificates WHERE principal = $1 AND revoked_ms IS NULL")
            .bind(principal.to_string())
            .fetch_all(&mut **tx)
            .await?;
    sqlx::query("UPDATE certificates SET revoked_ms = $1 WHERE principal = $2 AND revoked_ms IS NULL")
        .bind(store::to_millis(now))
        .bind(principal.to_string())
        .execute(&mut **tx)
        .await?;
    rows.iter()
        .map(|row| store::digest("certificates.fingerprint", &row.try_get::<Vec<u8>, _>("fingerprint")?))
        .collect()
}

/// Says whether a certificate was issued here and not revoked.
pub(super) async fn is_in_force(tx: &mut Transaction, fingerprint: Digest) -> Result<bool, store::Error> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS live FROM certificates WHERE fingerprint = $1 AND revoked_ms IS NULL",
    )
    .bind(fingerprint.as_bytes().to_vec())
    .fetch_one(&mut **tx)
    .await?;
    Ok(row.try_get::<i64, _>("live")? > 0)
}

/// Says whether the authority ever issued a certificate.
pub(super) async fn has_any(store: &Store) -> Result<bool, store::Error> {
    let row = sqlx::query("SELECT COUNT(*) AS all_of_them FROM certificates").fetch_one(store.read()).await?;
    Ok(row.try_get::<i64, _>("all_of_them")? > 0)
}

/// Says whether any operator has enrolled.
pub(super) async fn has_operator(tx: &mut Transaction) -> Result<bool, store::Error> {
    let row = sqlx::query("SELECT COUNT(*) AS operators FROM operators").fetch_one(&mut **tx).await?;
    Ok(row.try_get::<i64, _>("operators")? > 0)
}
