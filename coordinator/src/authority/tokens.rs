//! Join tokens: what their bearer becomes, how often, until when. The database knows the SHA-256 of the secret only.

use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sluice_common::digest::Digest;
use sluice_common::identity::Role;
use sluice_common::name::{HostName, OperatorName, SiteName};
use sluice_common::selector::Labels;
use sluice_proto::token::JoinToken;
use sqlx::Row;

use crate::audit::{self, Entry};
use crate::fleet;
use crate::store::{self, Transaction};

/// Longest life of a token: a day of racking hosts.
pub const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most uses of one token: a hall of racks.
pub const USES_MAX: u32 = 1_000;

/// What the bearer of a token becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Subject {
    /// A host.
    Host {
        /// At this site.
        site: SiteName,
        /// With these labels, over those that it claims.
        labels: Labels,
        /// Of this name; any, when there is none.
        name: Option<HostName>,
    },
    /// An operator.
    Operator {
        /// Of this name.
        name: OperatorName,
        /// With this role.
        role: Role,
    },
}

/// Says why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// No such token was ever made here.
    #[error("token is not known here; ask an admin for a new one with sluice token create")]
    Unknown,
    /// All its uses are spent.
    #[error("token was used already; ask an admin for a new one with sluice token create")]
    Used,
    /// Its time is over.
    #[error("token expired; ask an admin for a new one with sluice token create")]
    Expired,
}

/// Makes a token and its audit entry. Returns it with the time at which it expires.
pub(super) async fn create(
    tx: &mut Transaction,
    subject: &Subject,
    ttl: Duration,
    uses: u32,
    authority: Digest,
) -> Result<(JoinToken, Timestamp), store::Error> {
    let token = JoinToken::new(&random(), authority);
    let secret_digest = Digest::of(token.secret().as_bytes());
    let now = Timestamp::now();
    let expires = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
    if let Subject::Host { site, .. } = subject {
        fleet::insert_site(tx, site).await?;
    }
    let json =
        serde_json::to_value(subject).map_err(|error| store::Error::damaged("tokens.subject", error))?;
    sqlx::query(
        "INSERT INTO tokens (secret_digest, subject, uses_left, created_by, created_ms, expires_ms)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(secret_digest.as_bytes().to_vec())
    .bind(json.to_string())
    .bind(i64::from(uses))
    .bind(tx.actor().to_string())
    .bind(store::to_millis(now))
    .bind(store::to_millis(expires))
    .execute(&mut **tx)
    .await?;
    let detail = json!({"for": json, "uses": uses, "expires": expires.to_string()});
    audit::append(tx, Entry { action: "token.create", subject: &secret_digest.short(), detail }).await?;
    Ok((token, expires))
}

/// Spends one use of a token. The caller commits that together with what the bearer became, or neither.
pub(super) async fn consume(
    tx: &mut Transaction,
    secret: &str,
    now: Timestamp,
) -> Result<Result<Subject, TokenRefusal>, store::Error> {
    let secret_digest = Digest::of(secret.as_bytes()).as_bytes().to_vec();
    let row = sqlx::query("SELECT subject, uses_left, expires_ms FROM tokens WHERE secret_digest = $1")
        .bind(secret_digest.clone())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else { return Ok(Err(TokenRefusal::Unknown)) };
    if row.try_get::<i64, _>("uses_left")? <= 0 {
        return Ok(Err(TokenRefusal::Used));
    }
    if row.try_get::<i64, _>("expires_ms")? <= store::to_millis(now) {
        return Ok(Err(TokenRefusal::Expired));
    }
    sqlx::query("UPDATE tokens SET uses_left = uses_left - 1 WHERE secret_digest = $1")
        .bind(secret_digest)
        .execute(&mut **tx)
        .await?;
    let subject: String = row.try_get("subject")?;
    let subject = serde_json::from_str(&subject).map_err(|e| store::Error::damaged("tokens.subject", e))?;
    Ok(Ok(subject))
}

/// Says whether a token could still be used.
pub(super) async fn is_open(
    tx: &mut Transaction,
    secret: &str,
    now: Timestamp,
) -> Result<bool, store::Error> {
    let row = sqlx::query("SELECT uses_left, expires_ms FROM tokens WHERE secret_digest = $1")
        .bind(Digest::of(secret.as_bytes()).as_bytes().to_vec())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else { return Ok(false) };
    Ok(row.try_get::<i64, _>("uses_left")? > 0
        && row.try_get::<i64, _>("expires_ms")? > store::to_millis(now))
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    let source = aws_lc_rs::default_provider().secure_random;
    source.fill(&mut bytes).expect("the system's random source works");
    bytes
}
