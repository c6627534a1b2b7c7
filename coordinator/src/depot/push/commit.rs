//! The commit: every content is put together that was not while its chunks came, then manifest, index and row become durable, in
//! this order.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use sluice_common::digest::{Digest, Hasher};
use sluice_common::identity::Principal;
use sluice_common::index::{self, PackageIndex};
use sluice_common::manifest::Manifest;
use sluice_common::name::OperatorName;
use sluice_common::parallel;
use sluice_common::transfer::ContentSource;
use sluice_proto::v1;

use super::receive::Announced;
use super::{PushError, check};
use crate::audit;
use crate::depot::objects::{Kind, Name};
use crate::depot::reader::ReadError;
use crate::depot::source::PackageSource;
use crate::depot::{Depot, chunks, packages};
use crate::store::{self, Actor, Transaction};

/// A content and the digest of its list of chunks.
type Recipe = (Digest, Digest);

/// Makes the package known, of which the contents of some numbers, sorted, are `proven`. Repeated, it changes nothing.
pub(super) async fn commit(
    depot: &Arc<Depot>,
    by: &OperatorName,
    announced: &Arc<Announced>,
    proven: &[u32],
) -> Result<v1::Package, PushError> {
    let recipes = prove_contents(depot, announced, proven).await?;
    let index_digest = store_description(depot, announced).await?;
    let mut tx = begin(depot, by, announced).await?;
    chunks::prove(&mut tx, &recipes).await?;
    if insert(&mut tx, by, announced, index_digest).await? {
        tx.commit().await?;
        let files = announced.package.manifest.file_count();
        tracing::info!(package = %announced.digest, files, operator = %by, "package pushed");
    } else {
        tx.commit_observation().await?;
        tracing::info!(package = %announced.digest, operator = %by, "package pushed again");
    }
    depot.forget_package(&announced.digest);
    depot.tell();
    let row = packages::find(&depot.store, &announced.digest).await?;
    let row =
        row.ok_or_else(|| store::Error::damaged("packages.digest", "no package that was just stored"))?;
    Ok(packages::to_wire(&depot.store, &row).await?)
}

/// Refuses a commit whose chunks are not all here: damage may have been found since the push began.
async fn expect_chunks(depot: &Arc<Depot>, announced: &Announced) -> Result<(), PushError> {
    let lacking = check::lacking_by_row(depot, &announced.index).await?;
    match lacking.into_iter().filter(|lacking| *lacking).count() {
        0 => Ok(()),
        missing => Err(PushError::Incomplete(missing as u64)),
    }
}

/// Makes manifest and index durable, one after the other; returns what the index is stored as.
async fn store_description(depot: &Depot, announced: &Arc<Announced>) -> Result<Digest, PushError> {
    let compress = async |what: fn(&Announced) -> io::Result<Bytes>| {
        let announced = announced.clone();
        let compressing = tokio::task::spawn_blocking(move || what(&announced));
        compressing.await.expect("compressing does not panic").map_err(ReadError::Io)
    };
    let manifest = compress(Announced::compressed_manifest).await?;
    depot.objects.put(Name(Kind::Manifest, announced.digest), manifest).await?;
    let index = compress(Announced::compressed_index).await?;
    let index_digest = Digest::of(&index);
    depot.objects.put(Name(Kind::Index, index_digest), index).await?;
    Ok(index_digest)
}

/// Begins the transaction in which the package becomes known: every chunk is here, and the collection of no
/// coordinator forgets one before the package's row names it.
async fn begin(
    depot: &Arc<Depot>,
    by: &OperatorName,
    announced: &Announced,
) -> Result<Transaction, PushError> {
    loop {
        let looked_at = chunks::forgettings(depot.store.read()).await?;
        expect_chunks(depot, announced).await?;
        let mut tx = depot.store.begin(Actor::from(&Principal::Operator(by.clone()))).await?;
        if chunks::forgettings(&mut *tx).await? == looked_at {
            return Ok(tx);
        }
        tx.roll_back().await?;
    }
}

/// Writes the package's row with its audit entry; says whether it is new.
async fn insert(
    tx: &mut Transaction,
    by: &OperatorName,
    announced: &Announced,
    index_digest: Digest,
) -> Result<bool, store::Error> {
    let (digest, manifest) = (announced.digest.to_string(), &announced.package.manifest);
    let now = store::to_millis(Timestamp::now());
    let renewed = sqlx::query("UPDATE packages SET index_digest = $1, wanted_ms = $2 WHERE digest = $3")
        .bind(index_digest.as_bytes().to_vec())
        .bind(now)
        .bind(digest.as_str())
        .execute(&mut **tx)
        .await?;
    if renewed.rows_affected() > 0 {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO packages (digest, files, tree_bytes, index_digest, pushed_ms, pushed_by)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(digest.as_str())
    .bind(manifest.file_count() as i64)
    .bind(manifest.tree_bytes() as i64)
    .bind(index_digest.as_bytes().to_vec())
    .bind(now)
    .bind(by.as_str())
    .execute(&mut **tx)
    .await?;
    let detail = json!({ "files": manifest.file_count(), "tree_bytes": manifest.tree_bytes() });
    audit::append(tx, audit::Entry { action: "package.push", subject: &digest, detail }).await?;
    Ok(true)
}

/// Puts every content of several chunks together, unless the same chunks have made it up before or just now, and compares its
/// digest. Returns what was proven anew.
async fn prove_contents(
    depot: &Arc<Depot>,
    announced: &Arc<Announced>,
    proven_now: &[u32],
) -> Result<Vec<Recipe>, PushError> {
    let contents = announced.package.contents();
    let several = (0..contents.len() as u32).filter(|i| announced.index.content(*i).len() > 1);
    let several: Vec<u32> = several.collect();
    let recipes: Vec<Recipe> =
        several.iter().map(|i| (contents.at(*i).digest, recipe(&announced.index, *i))).collect();
    let proven = chunks::proven(&depot.store, &recipes).await?;
    let new = |i: &usize| !proven[*i];
    let unread = (0..several.len()).filter(new).map(|i| several[i]);
    let unread: Vec<u32> = unread.filter(|number| proven_now.binary_search(number).is_err()).collect();
    if !unread.is_empty() {
        expect_chunks(depot, announced).await?;
        read_contents(depot, announced, &unread).await?;
    }
    Ok((0..recipes.len()).filter(new).map(|i| recipes[i]).collect())
}

/// Puts the contents of these numbers together from what is stored, and compares their digests.
async fn read_contents(
    depot: &Arc<Depot>,
    announced: &Arc<Announced>,
    numbers: &[u32],
) -> Result<(), PushError> {
    let (reader, package) = (depot.chunks.clone(), announced.package.clone());
    let source =
        PackageSource::open(reader, &depot.store, &package, Some(&*announced.index), numbers).await?;
    let wanted: Vec<Digest> = numbers.iter().map(|number| package.contents().at(*number).digest).collect();
    let proving = tokio::task::spawn_blocking(move || {
        parallel::each(&wanted, |content| prove(content, &package.manifest, &source))
    });
    proving.await.expect("hashing does not panic").map(drop)
}

fn recipe(index: &PackageIndex, content: u32) -> Digest {
    let mut hasher = Hasher::new();
    for chunk in index.content(content) {
        hasher.update(index.chunk(chunk).digest.as_bytes());
    }
    hasher.finish()
}

fn prove(content: &Digest, manifest: &Manifest, source: &PackageSource) -> Result<(), PushError> {
    let found = source.reader(content, 0).and_then(Digest::of_reader);
    match found {
        Ok((found, _)) if found == *content => Ok(()),
        Ok(_) => Err(PushError::Content(index::path_of(manifest, content))),
        Err(error) => Err(ReadError::from(error).into()),
    }
}
