//! The audit log: who changed what, when, as a hash chain in the database.
//!
//! Invariant (I17): whatever changes state appends its entry in the same transaction; [`store::Transaction::commit`]
//! refuses otherwise. Each entry's hash covers the one before it, so that a changed, removed or inserted entry shows.
//! An entry never holds a secret: name a token by the start of its digest, a key by its fingerprint.
//!
//! ```text
//! let mut tx = store.begin(&caller).await?;          // the caller becomes the entry's actor
//! audit::append(&mut tx, Entry { action: "rollout.pause", subject: id.as_str(), detail: json!({"reason": reason}) }).await?;
//! tx.commit().await?;
//! ```
//!
//! Actions are `noun.verb` in lower case: `host.enroll`, `token.create`, `site.set_limit`, `release.create`.

use futures::TryStreamExt;
use jiff::Timestamp;
use serde_json::Value;
use sluice_common::digest::{Digest, Hasher};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::store::{self, Store, Transaction};

/// What an entry says besides its actor and time.
#[derive(Debug)]
pub struct Entry<'a> {
    /// `noun.verb`.
    pub action: &'a str,
    /// What was changed: a name or id.
    pub subject: &'a str,
    /// More, as a JSON object; no secrets.
    pub detail: Value,
}

/// An entry as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// 1, 2, 3, ...
    pub number: u64,
    /// When, to the millisecond.
    pub at_ms: i64,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To what.
    pub subject: String,
    /// JSON object.
    pub detail: String,
    /// Hash of the entry before.
    pub previous: Digest,
    /// Hash of this entry.
    pub hash: Digest,
}

/// What a check of the whole log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How many entries were looked at.
    pub entries: u64,
    /// Hash of the last good entry: compare it with one noted elsewhere to see whether the end was cut off.
    pub head: Digest,
    /// Number of the first entry that does not fit.
    pub broken_at: Option<u64>,
}

/// Hash "before" the first entry.
const GENESIS: Digest = Digest::from_bytes([0; 32]);

/// Appends an entry, made by the transaction's actor, now.
pub async fn append(tx: &mut Transaction, entry: Entry<'_>) -> Result<(), store::Error> {
    let (number, previous) = head(tx).await?;
    let mut recorded = Recorded {
        number: number + 1,
        at_ms: Timestamp::now().as_millisecond(),
        actor: tx.actor().to_string(),
        action: entry.action.to_owned(),
        subject: entry.subject.to_owned(),
        detail: entry.detail.to_string(),
        previous,
        hash: GENESIS,
    };
    recorded.hash = recorded.computed_hash();
    insert(tx, recorded).await?;
    tx.mark_audited(entry.action);
    Ok(())
}

async fn head(tx: &mut Transaction) -> Result<(u64, Digest), store::Error> {
    let row = sqlx::query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else { return Ok((0, GENESIS)) };
    let hash: Vec<u8> = row.try_get("hash")?;
    Ok((store::unsigned("audit.number", row.try_get("number")?)?, store::digest("audit.hash", &hash)?))
}

async fn insert(tx: &mut Transaction, recorded: Recorded) -> Result<(), store::Error> {
    let Recorded { number, at_ms, actor, action, subject, detail, previous, hash } = recorded;
    sqlx::query(
        "INSERT INTO audit (number, at_ms, actor, action, subject, detail, previous, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(i64::try_from(number).map_err(|error| store::Error::damaged("audit.number", error))?)
    .bind(at_ms)
    .bind(actor)
    .bind(action)
    .bind(subject)
    .bind(detail)
    .bind(previous.as_bytes().to_vec())
    .bind(hash.as_bytes().to_vec())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl Recorded {
    /// Computes the hash that an untouched entry has: fields with their lengths, so that none can borrow from the next.
    fn computed_hash(&self) -> Digest {
        let Self { number, at_ms, actor, action, subject, detail, previous, hash: _ } = self;
        let mut hasher = Hasher::new();
        hasher.update(b"sluice-audit 1\n");
        hasher.update(previous.as_bytes());
        hasher.update(&number.to_be_bytes());
        hasher.update(&at_ms.to_be_bytes());
        for text in [actor, action, subject, detail] {
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finish()
    }

    fn from_row(row: &AnyRow) -> Result<Self, store::Error> {
        let digest = |column, name: &str| -> Result<Digest, store::Error> {
            store::digest(column, &row.try_get::<Vec<u8>, _>(name)?)
        };
        Ok(Self {
            number: store::unsigned("audit.number", row.try_get("number")?)?,
            at_ms: row.try_get("at_ms")?,
            actor: row.try_get("actor")?,
            action: row.try_get("action")?,
            subject: row.try_get("subject")?,
            detail: row.try_get("detail")?,
            previous: digest("audit.previous", "previous")?,
            hash: digest("audit.hash", "hash")?,
        })
    }
}

/// Returns up to `limit` entries after number `after`, oldest first.
pub async fn list(store: &Store, after: u64, limit: u32) -> Result<Vec<Recorded>, store::Error> {
    let rows = sqlx::query("SELECT * FROM audit WHERE number > $1 ORDER BY number LIMIT $2")
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(store.read())
        .await?;
    rows.iter().map(Recorded::from_row).collect()
}

/// Recomputes the whole chain.
pub async fn verify(store: &Store) -> Result<Verdict, store::Error> {
    let mut verdict = Verdict { entries: 0, head: GENESIS, broken_at: None };
    let mut rows = sqlx::query("SELECT * FROM audit ORDER BY number").fetch(store.read());
    while let Some(row) = rows.try_next().await? {
        let number = store::unsigned("audit.number", row.try_get("number")?)?;
        let expected = verdict.entries + 1;
        let fits = Recorded::from_row(&row).is_ok_and(|entry| {
            entry.number == expected && entry.previous == verdict.head && entry.hash == entry.computed_hash()
        });
        if !fits {
            verdict.broken_at = Some(number);
            break;
        }
        verdict.entries = expected;
        verdict.head = store::digest("audit.hash", &row.try_get::<Vec<u8>, _>("hash")?)?;
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::{Actor, Schema};

    async fn log(entries: u64) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        for number in 1..=entries {
            let mut tx = store.begin(Actor::console()).await.unwrap();
            let subject = format!("host-{number}");
            append(&mut tx, Entry { action: "host.enroll", subject: &subject, detail: json!({"n": number}) })
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
        (dir, store)
    }

    #[tokio::test]
    async fn an_untouched_chain_verifies_and_lists_in_order() {
        let (_dir, store) = log(5).await;
        let verdict = verify(&store).await.unwrap();
        assert_eq!((verdict.entries, verdict.broken_at), (5, None));
        let page = list(&store, 2, 2).await.unwrap();
        assert_eq!(page.iter().map(|entry| entry.number).collect::<Vec<_>>(), [3, 4]);
        assert_eq!((page[0].actor.as_str(), page[0].detail.as_str()), ("console", r#"{"n":3}"#));
        assert_eq!(list(&store, 4, 9).await.unwrap()[0].hash, verdict.head);
    }

    #[tokio::test]
    async fn any_change_of_history_is_found_where_it_was_made() {
        let cases = [
            ("another actor", "UPDATE audit SET actor = 'console2' WHERE number = 3", 3),
            ("another time", "UPDATE audit SET at_ms = at_ms + 1 WHERE number = 3", 3),
            (
                "text moved between fields",
                "UPDATE audit SET action = 'host.enrollh', subject = 'ost-3' WHERE number = 3",
                3,
            ),
            ("an entry removed", "DELETE FROM audit WHERE number = 3", 4),
            ("the first removed", "DELETE FROM audit WHERE number = 1", 2),
            ("a damaged hash", "UPDATE audit SET hash = 'x' WHERE number = 4", 4),
            (
                "an entry copied over",
                "UPDATE audit SET detail = (SELECT detail FROM audit WHERE number = 1), subject = 'host-1' WHERE number = 2",
                2,
            ),
        ];
        for (name, tamper, found_at) in cases {
            let (_dir, store) = log(5).await;
            let mut tx = store.begin(Actor::console()).await.unwrap();
            sqlx::query(tamper).execute(&mut *tx).await.unwrap();
            tx.commit_observation().await.unwrap();
            assert_eq!(verify(&store).await.unwrap().broken_at, Some(found_at), "{name}");
        }
    }

    #[tokio::test]
    async fn a_rewritten_entry_whose_own_hash_fits_betrays_itself_to_the_next() {
        let (_dir, store) = log(5).await;
        let mut forged = list(&store, 2, 1).await.unwrap().remove(0);
        forged.actor = "somebody else".to_owned();
        forged.hash = forged.computed_hash();
        let mut tx = store.begin(Actor::console()).await.unwrap();
        sqlx::query("DELETE FROM audit WHERE number = 3").execute(&mut *tx).await.unwrap();
        insert(&mut tx, forged).await.unwrap();
        tx.commit_observation().await.unwrap();
        assert_eq!(verify(&store).await.unwrap().broken_at, Some(4));
    }

    #[tokio::test]
    async fn an_entry_of_an_abandoned_transaction_leaves_no_gap() {
        let (_dir, store) = log(1).await;
        let mut tx = store.begin(Actor::console()).await.unwrap();
        append(&mut tx, Entry { action: "a.b", subject: "c", detail: json!({}) }).await.unwrap();
        drop(tx);
        let mut tx = store.begin(Actor::console()).await.unwrap();
        append(&mut tx, Entry { action: "d.e", subject: "f", detail: json!({}) }).await.unwrap();
        tx.commit().await.unwrap();
        let verdict = verify(&store).await.unwrap();
        assert_eq!((verdict.entries, verdict.broken_at), (2, None));
    }
}
