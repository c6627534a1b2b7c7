//! The chunk index: which frame of which pack holds a chunk. Rows in the database, read and written in batches.
//!
//! Invariant: a row exists only for a chunk whose bytes were verified and whose pack is durable. A row whose bytes
//! turned out damaged is removed, so that the next push brings the chunk again.

use std::collections::{HashMap, HashSet};

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use sluice_common::chunk::Chunk;
use sluice_common::digest::Digest;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Row};

use super::collect::mismatch;
use super::objects::{Kind, Name, ObjectError, Objects};
use crate::store::{self, Actor, Store, Transaction};

/// Parameters of one statement at most. SQLite finds each by its name among all of them, which takes longer than all else where
/// there are hundreds: with 1,000 it was a tenth of the coordinator's CPU time of a push.
const PARAMETERS_MAX: usize = 120;
/// Rows that one statement asks for.
const BATCH: usize = PARAMETERS_MAX;
/// Chunks that one statement writes, and contents.
const CHUNKS_WRITTEN: usize = PARAMETERS_MAX / 6;
const CONTENTS_WRITTEN: usize = PARAMETERS_MAX / 2;

/// Chunks that one transaction of a collection forgets or moves at most: every other writer waits for it.
pub(super) const CHUNKS_FORGOTTEN: usize = 20_000;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    /// The pack.
    pub(super) pack: Digest,
    /// First byte of the frame in the pack.
    pub(super) frame_offset: u64,
    /// Length of the frame.
    pub(super) frame_len: u32,
    /// First byte of the chunk in the frame's raw bytes.
    pub(super) raw_offset: u32,
    /// Length of the chunk.
    pub(super) raw_len: u32,
}

/// A chunk of a pack that is about to be indexed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    /// The chunk.
    pub(super) digest: Digest,
    /// Where it lies; the pack's own digest is not known yet.
    pub(super) frame_offset: u64,
    pub(super) frame_len: u32,
    pub(super) raw_offset: u32,
    pub(super) raw_len: u32,
}

/// Returns where each chunk lies, in the order asked; nothing for those that the depot lacks.
pub(super) async fn locate(store: &Store, digests: &[Digest]) -> Result<Vec<Option<Location>>, store::Error> {
    let mut located = Vec::with_capacity(digests.len());
    for batch in digests.chunks(BATCH) {
        let found = rows(store, batch).await?;
        located.extend(batch.iter().map(|digest| found.get(digest).copied()));
    }
    Ok(located)
}

/// Which chunks the depot lacks, and where it has the others.
#[derive(Debug)]
pub(super) struct Held {
    /// Of each chunk, whether it is lacking.
    pub(super) lacking: Vec<bool>,
    /// The packs that are to hold those that are not.
    pub(super) packs: HashSet<Digest>,
}

/// Says of each chunk whether the depot lacks it, by its row. A chunk of that name but another length is lacking too, for good:
/// who claims it cannot have it.
pub(super) async fn lacking(
    store: &Store,
    mut chunks: impl ExactSizeIterator<Item = Chunk>,
) -> Result<Held, store::Error> {
    let (mut lacking, mut packs) = (Vec::with_capacity(chunks.len()), HashSet::new());
    loop {
        let batch: Vec<Chunk> = chunks.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return Ok(Held { lacking, packs });
        }
        let digests: Vec<Digest> = batch.iter().map(|chunk| chunk.digest).collect();
        let found = rows(store, &digests).await?;
        packs.extend(found.values().map(|at| at.pack));
        let has = |chunk: &Chunk| found.get(&chunk.digest).is_some_and(|at| at.raw_len == chunk.len);
        lacking.extend(batch.iter().map(|chunk| !has(chunk)));
    }
}

async fn rows(store: &Store, batch: &[Digest]) -> Result<HashMap<Digest, Location>, store::Error> {
    let sql = format!(
        "SELECT digest, pack, frame_offset, frame_len, raw_offset, raw_len FROM depot_chunks WHERE digest IN ({})",
        parameters(1, batch.len())
    );
    let mut query = many(sql, batch.len() == BATCH);
    for digest in batch {
        query = query.bind(digest.as_bytes().to_vec());
    }
    query.fetch_all(store.read()).await?.iter().map(location).collect()
}

fn location(row: &AnyRow) -> Result<(Digest, Location), store::Error> {
    let digest = |name: &'static str, column| -> Result<Digest, store::Error> {
        store::digest(column, &row.try_get::<Vec<u8>, _>(name)?)
    };
    let number = |name: &'static str| -> Result<u32, store::Error> {
        let number: i64 = row.try_get(name)?;
        u32::try_from(number).map_err(|error| store::Error::damaged("depot_chunks", error))
    };
    let at = Location {
        pack: digest("pack", "depot_chunks.pack")?,
        frame_offset: store::unsigned("depot_chunks.frame_offset", row.try_get("frame_offset")?)?,
        frame_len: number("frame_len")?,
        raw_offset: number("raw_offset")?,
        raw_len: number("raw_len")?,
    };
    Ok((digest("digest", "depot_chunks.digest")?, at))
}

/// Indexes the chunks of a pack, which is durable by now. A chunk that came twice stays where it was first.
pub(super) async fn insert(
    store: &Store,
    pack: Digest,
    bytes: u64,
    chunks: &[Packed],
) -> Result<(), store::Error> {
    let mut tx = store.begin(Actor::coordinator()).await?;
    name_pack(&mut tx, pack, bytes).await?;
    for batch in chunks.chunks(CHUNKS_WRITTEN) {
        insert_batch(&mut tx, pack, batch).await?;
    }
    tx.commit_observation().await
}

/// Names a pack; one that is stored again is as young as a new one.
async fn name_pack(tx: &mut Transaction, pack: Digest, bytes: u64) -> Result<(), store::Error> {
    sqlx::query(
        "INSERT INTO depot_packs (digest, bytes, stored_ms) VALUES ($1, $2, $3)
         ON CONFLICT (digest) DO UPDATE SET stored_ms = excluded.stored_ms",
    )
    .bind(pack.as_bytes().to_vec())
    .bind(bytes as i64)
    .bind(store::to_millis(Timestamp::now()))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn insert_batch(tx: &mut Transaction, pack: Digest, batch: &[Packed]) -> Result<(), store::Error> {
    let rows: Vec<String> = (0..batch.len()).map(|i| format!("({})", parameters(i * 6 + 1, 6))).collect();
    let sql = format!(
        "INSERT INTO depot_chunks (digest, pack, frame_offset, frame_len, raw_offset, raw_len) VALUES {}
         ON CONFLICT (digest) DO NOTHING",
        rows.join(", ")
    );
    let mut query = many(sql, batch.len() == CHUNKS_WRITTEN);
    for chunk in batch {
        query = query
            .bind(chunk.digest.as_bytes().to_vec())
            .bind(pack.as_bytes().to_vec())
            .bind(chunk.frame_offset as i64)
            .bind(i64::from(chunk.frame_len))
            .bind(i64::from(chunk.raw_offset))
            .bind(i64::from(chunk.raw_len));
    }
    query.execute(&mut **tx).await?;
    Ok(())
}

/// Forgets the chunks of a damaged frame and returns how many there were.
pub(super) async fn forget(store: &Store, pack: Digest, frame_offset: u64) -> Result<u64, store::Error> {
    let mut tx = store.begin(Actor::coordinator()).await?;
    let forgotten = sqlx::query("DELETE FROM depot_chunks WHERE pack = $1 AND frame_offset = $2")
        .bind(pack.as_bytes().to_vec())
        .bind(frame_offset as i64)
        .execute(&mut *tx)
        .await?;
    count_forgetting(&mut tx).await?;
    tx.commit_observation().await?;
    Ok(forgotten.rows_affected())
}

/// Forgets the chunks of a pack whose object is gone and returns how many there were: none, where the pack is there after all, or is
/// stored again meanwhile.
pub(super) async fn forget_lost<E>(store: &Store, objects: &Objects, pack: Digest) -> Result<u64, E>
where
    E: From<ObjectError> + From<store::Error>,
{
    let stored = stored_ms(store.read(), pack).await?;
    if objects.has(Name(Kind::Pack, pack)).await? {
        return Ok(0);
    }
    let mut tx = store.begin(Actor::coordinator()).await?;
    if stored_ms(&mut *tx, pack).await? != stored {
        tx.roll_back().await?;
        return Ok(0);
    }
    let forgotten = sqlx::query("DELETE FROM depot_chunks WHERE pack = $1")
        .bind(pack.as_bytes().to_vec())
        .execute(&mut *tx)
        .await
        .map_err(store::Error::from)?;
    if forgotten.rows_affected() > 0 {
        // With its rows goes what tells that the database may be older than the objects.
        mismatch::note(&mut tx, Timestamp::now()).await?;
    }
    count_forgetting(&mut tx).await?;
    tx.commit_observation().await?;
    Ok(forgotten.rows_affected())
}

async fn stored_ms<'a, E>(executor: E, pack: Digest) -> Result<Option<i64>, store::Error>
where
    E: sqlx::Executor<'a, Database = Any>,
{
    let query = sqlx::query("SELECT stored_ms FROM depot_packs WHERE digest = $1");
    let row = query.bind(pack.as_bytes().to_vec()).fetch_optional(executor).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Has pushes that found chunks before look again.
async fn count_forgetting(tx: &mut Transaction) -> Result<(), store::Error> {
    sqlx::query("UPDATE depot_forgettings SET number = number + 1 WHERE id = 1").execute(&mut **tx).await?;
    Ok(())
}

/// Moves chunks to a pack that is durable by now. Chunks that were forgotten meanwhile stay so.
pub(super) async fn move_to(
    tx: &mut Transaction,
    pack: Digest,
    bytes: u64,
    chunks: &[Packed],
) -> Result<(), store::Error> {
    name_pack(tx, pack, bytes).await?;
    for chunk in chunks {
        sqlx::query(
            "UPDATE depot_chunks SET pack = $1, frame_offset = $2, frame_len = $3, raw_offset = $4 WHERE digest = $5",
        )
        .bind(pack.as_bytes().to_vec())
        .bind(chunk.frame_offset as i64)
        .bind(i64::from(chunk.frame_len))
        .bind(i64::from(chunk.raw_offset))
        .bind(chunk.digest.as_bytes().to_vec())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// Forgets packs with their chunks, of which no more than so many; says whether none is left. A pack goes after its chunks.
pub(super) async fn forget_packs(
    tx: &mut Transaction,
    packs: &[Digest],
    chunks_max: usize,
) -> Result<bool, store::Error> {
    count_forgetting(tx).await?;
    let mut left = chunks_max as u64;
    for pack in packs {
        let forgotten = sqlx::query(
            "DELETE FROM depot_chunks WHERE digest IN (SELECT digest FROM depot_chunks WHERE pack = $1 LIMIT $2)",
        )
        .bind(pack.as_bytes().to_vec())
        .bind(left as i64)
        .execute(&mut **tx)
        .await?;
        left = left.saturating_sub(forgotten.rows_affected());
        if left == 0 {
            return Ok(false);
        }
        let sql = "DELETE FROM depot_packs WHERE digest = $1";
        sqlx::query(sql).bind(pack.as_bytes().to_vec()).execute(&mut **tx).await?;
    }
    Ok(true)
}

/// Returns how often chunks were forgotten.
pub(super) async fn forgettings<'a, E>(executor: E) -> Result<i64, store::Error>
where
    E: sqlx::Executor<'a, Database = Any>,
{
    let row = sqlx::query("SELECT number FROM depot_forgettings WHERE id = 1").fetch_one(executor).await?;
    Ok(row.try_get(0)?)
}

/// Returns the chunks of a pack.
pub(super) async fn names_of_pack(tx: &mut Transaction, pack: Digest) -> Result<Vec<Digest>, store::Error> {
    let rows = sqlx::query("SELECT digest FROM depot_chunks WHERE pack = $1")
        .bind(pack.as_bytes().to_vec())
        .fetch_all(&mut **tx)
        .await?;
    let name = |row: &AnyRow| store::digest("depot_chunks.digest", &row.try_get::<Vec<u8>, _>("digest")?);
    rows.iter().map(name).collect()
}

/// Returns the chunks of a pack with their places, in the order of these.
pub(super) async fn of_pack(store: &Store, pack: Digest) -> Result<Vec<(Digest, Location)>, store::Error> {
    let rows = sqlx::query(
        "SELECT digest, pack, frame_offset, frame_len, raw_offset, raw_len FROM depot_chunks
         WHERE pack = $1 ORDER BY frame_offset, raw_offset",
    )
    .bind(pack.as_bytes().to_vec())
    .fetch_all(store.read())
    .await?;
    rows.iter().map(location).collect()
}

/// Returns every chunk with its place, pack after pack and frame after frame.
pub(super) fn all(store: &Store) -> impl Stream<Item = Result<(Digest, Location), store::Error>> + '_ {
    let rows = sqlx::query(
        "SELECT digest, pack, frame_offset, frame_len, raw_offset, raw_len FROM depot_chunks
         ORDER BY pack, frame_offset",
    );
    rows.fetch(store.read()).map(|row| location(&row?))
}

/// Returns which contents were put together from the same chunks before.
pub(super) async fn proven(store: &Store, recipes: &[(Digest, Digest)]) -> Result<Vec<bool>, store::Error> {
    let mut proven = Vec::with_capacity(recipes.len());
    for batch in recipes.chunks(BATCH) {
        let sql = format!(
            "SELECT digest, recipe FROM depot_contents WHERE digest IN ({})",
            parameters(1, batch.len())
        );
        let mut query = many(sql, batch.len() == BATCH);
        for (content, _) in batch {
            query = query.bind(content.as_bytes().to_vec());
        }
        let mut found = HashMap::new();
        for row in query.fetch_all(store.read()).await? {
            let digest = |name: &'static str| -> Result<Digest, store::Error> {
                store::digest("depot_contents", &row.try_get::<Vec<u8>, _>(name)?)
            };
            found.insert(digest("digest")?, digest("recipe")?);
        }
        proven.extend(batch.iter().map(|(content, recipe)| found.get(content) == Some(recipe)));
    }
    Ok(proven)
}

/// Notes contents that were put together and had their digest.
pub(super) async fn prove(tx: &mut Transaction, recipes: &[(Digest, Digest)]) -> Result<(), store::Error> {
    for batch in recipes.chunks(CONTENTS_WRITTEN) {
        let rows: Vec<String> = (0..batch.len()).map(|i| format!("({})", parameters(i * 2 + 1, 2))).collect();
        let sql = format!(
            "INSERT INTO depot_contents (digest, recipe) VALUES {}
             ON CONFLICT (digest) DO UPDATE SET recipe = excluded.recipe",
            rows.join(", ")
        );
        let mut query = many(sql, batch.len() == CONTENTS_WRITTEN);
        for (content, recipe) in batch {
            query = query.bind(content.as_bytes().to_vec()).bind(recipe.as_bytes().to_vec());
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// Returns `$first, $first+1, ...`.
fn parameters(first: usize, count: usize) -> String {
    let names: Vec<String> = (first..first + count).map(|number| format!("${number}")).collect();
    names.join(", ")
}

/// Makes a query of a generated text. Only full batches are worth a place in the connection's statement cache.
fn many(sql: String, is_full: bool) -> Query<'static, Any, AnyArguments> {
    sqlx::query(AssertSqlSafe(sql)).persistent(is_full)
}
