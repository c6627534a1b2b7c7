//! What the collection decides on, read from rows, indexes and listings.
//!
//! Memory: eight bytes a chunk that is used, and one digest for each name of a kind.

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use futures::TryStreamExt;
use jiff::Timestamp;
use sluice_common::digest::Digest;
use sluice_common::index::PackageIndex;
use sqlx::Row;

use super::CollectError;
use super::plan::{ObjectFacts, PackFacts, PackageFacts};
use crate::clock::Clock;
use crate::depot::Depot;
use crate::depot::chunks::{self, Location};
use crate::depot::objects::{Kind, Name};
use crate::depot::packages::{self, LoadError};
use crate::depot::plans::lease;
use crate::store::{self, Transaction};

/// What a dry run takes as removed already.
#[derive(Debug, Default)]
pub(super) struct AsIf {
    pub(super) packages: HashSet<Digest>,
    pub(super) packs: HashSet<Digest>,
}

/// Reads the packages.
pub(super) async fn packages(depot: &Depot) -> Result<Vec<PackageFacts>, store::Error> {
    let (mut in_use, _) = lease::in_use(&depot.store, Clock::of_process().now()).await?;
    in_use.extend(depot.works.packages());
    let released = released(depot).await?;
    let facts = |row: packages::PackageRow| PackageFacts {
        digest: row.digest,
        wanted: row.wanted,
        is_released: released.contains(&row.digest),
        is_in_use: in_use.contains(&row.digest),
    };
    Ok(packages::list(&depot.store).await?.into_iter().map(facts).collect())
}

async fn released(depot: &Depot) -> Result<HashSet<Digest>, store::Error> {
    let rows =
        sqlx::query("SELECT DISTINCT package FROM release_packages").fetch_all(depot.store.read()).await?;
    let package = |text: String| store::parse("release_packages.package", &text);
    rows.iter().map(|row| package(row.try_get(0)?)).collect()
}

/// Returns when the oldest push or encoding that still runs began here, or the oldest plan that another coordinator makes better. What else
/// another one does is kept by its age alone: [`sluice_common::caps::ORPHAN_OBJECT_TTL`].
pub(super) async fn oldest_work(depot: &Depot) -> Result<Option<Timestamp>, store::Error> {
    let (_, elsewhere) = lease::in_use(&depot.store, Clock::of_process().now()).await?;
    Ok(depot.works.oldest().into_iter().chain(elsewhere).min())
}

/// Chunks that packages or running pushes use, by the first eight bytes of their digest: two chunks that agree in them
/// keep each other.
#[derive(Debug, Default)]
pub(super) struct Used(HashSet<u64>);

impl Used {
    fn add(&mut self, index: &PackageIndex) {
        self.0.extend(index.chunks().map(|chunk| prefix(&chunk.digest)));
    }

    pub(super) fn contains(&self, chunk: &Digest) -> bool {
        self.0.contains(&prefix(chunk))
    }
}

fn prefix(digest: &Digest) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_be_bytes(first)
}

/// Which chunks and packs are used, and by which packages.
#[derive(Debug)]
pub(super) struct PackSurvey {
    pub(super) facts: Vec<PackFacts>,
    pub(super) used: Used,
    /// Packages and the digests of their indexes, as they were looked at.
    packages: HashMap<Digest, Digest>,
}

/// Reads which packs are used how much. A package whose index is damaged stops it: what it uses cannot be told.
pub(super) async fn packs(depot: &Depot, as_if: &AsIf) -> Result<PackSurvey, CollectError> {
    let mut used = Used::default();
    let mut packages = HashMap::new();
    for row in packages::list(&depot.store).await? {
        if as_if.packages.contains(&row.digest) {
            continue;
        }
        let index = match depot.package(row.digest).await {
            Ok(package) => depot.index(row.digest, &package).await,
            Err(error) => Err(error),
        };
        match index {
            Ok(index) => used.add(&index),
            // Forgotten by another coordinator meanwhile.
            Err(LoadError::Unknown(_)) => continue,
            Err(error) => return Err(error.into()),
        }
        packages.insert(row.digest, row.index_digest);
    }
    depot.works.chunks().iter().for_each(|index| used.add(index));
    let facts = pack_facts(depot, &used).await?;
    Ok(PackSurvey { facts, used, packages })
}

impl PackSurvey {
    /// Says whether every package there is now was looked at.
    pub(super) async fn holds(&self, tx: &mut Transaction) -> Result<bool, store::Error> {
        let rows = sqlx::query("SELECT digest, index_digest FROM packages").fetch_all(&mut **tx).await?;
        for row in rows {
            let package = store::parse("packages.digest", &row.try_get::<String, _>(0)?)?;
            let index = store::digest("packages.index_digest", &row.try_get::<Vec<u8>, _>(1)?)?;
            if self.packages.get(&package) != Some(&index) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A frame of a pack while its chunks are counted.
#[derive(Debug, Clone, Copy)]
struct Frame {
    at: Location,
    raw_end: u64,
    raw_used: u64,
}

impl Frame {
    /// Returns its share of compressed bytes that are used.
    fn live_bytes(&self) -> u64 {
        (u64::from(self.at.frame_len) * self.raw_used).div_ceil(self.raw_end.max(1))
    }
}

/// Packs are listed before their chunks are counted: one that comes in between must not look as if it had none.
async fn pack_facts(depot: &Depot, used: &Used) -> Result<Vec<PackFacts>, store::Error> {
    let rows = sqlx::query("SELECT * FROM depot_packs ORDER BY digest").fetch_all(depot.store.read()).await?;
    let mut live: HashMap<Digest, u64> = HashMap::new();
    let mut open: Option<Frame> = None;
    let mut chunks = pin!(chunks::all(&depot.store));
    while let Some((chunk, at)) = chunks.try_next().await? {
        let mut frame = match open.take() {
            Some(frame) if (frame.at.pack, frame.at.frame_offset) == (at.pack, at.frame_offset) => frame,
            ended => {
                ended.iter().for_each(|frame| *live.entry(frame.at.pack).or_default() += frame.live_bytes());
                Frame { at, raw_end: 0, raw_used: 0 }
            }
        };
        frame.raw_end = frame.raw_end.max(u64::from(at.raw_offset) + u64::from(at.raw_len));
        frame.raw_used += if used.contains(&chunk) { u64::from(at.raw_len) } else { 0 };
        open = Some(frame);
    }
    open.iter().for_each(|frame| *live.entry(frame.at.pack).or_default() += frame.live_bytes());
    let facts = |row: &sqlx::any::AnyRow| {
        let digest = store::digest("depot_packs.digest", &row.try_get::<Vec<u8>, _>("digest")?)?;
        let live = live.get(&digest);
        Ok(PackFacts {
            digest,
            bytes: store::unsigned("depot_packs.bytes", row.try_get("bytes")?)?,
            stored: store::from_millis("depot_packs.stored_ms", row.try_get("stored_ms")?)?,
            is_indexed: live.is_some(),
            live_bytes: live.copied().unwrap_or_default(),
        })
    };
    rows.iter().map(facts).collect()
}

/// Returns the packs that chunks are to lie in and that are not there: a disk lost them, or an older database was brought back.
pub(super) async fn missing_packs(depot: &Depot) -> Result<HashSet<Digest>, CollectError> {
    let found: HashSet<Digest> =
        depot.objects.list(Kind::Pack).map_ok(|object| object.digest).try_collect().await?;
    let rows = sqlx::query(
        "SELECT digest FROM depot_packs
         WHERE EXISTS (SELECT 1 FROM depot_chunks WHERE depot_chunks.pack = depot_packs.digest)",
    );
    let rows = rows.fetch_all(depot.store.read()).await.map_err(store::Error::from)?;
    let mut missing = HashSet::new();
    for row in rows {
        let name = row.try_get::<Vec<u8>, _>(0).map_err(store::Error::from)?;
        let pack = store::digest("depot_packs.digest", &name)?;
        // One that came since the list was made is there.
        if !found.contains(&pack) && !depot.objects.has(Name(Kind::Pack, pack)).await? {
            missing.insert(pack);
        }
    }
    Ok(missing)
}

/// Lists the objects of a kind, then says of each whether a row names it: in this order, so that what was named
/// meanwhile counts.
pub(super) async fn objects(
    depot: &Depot,
    kind: Kind,
    as_if: &AsIf,
) -> Result<Vec<ObjectFacts>, CollectError> {
    let found: Vec<_> = depot.objects.list(kind).try_collect().await?;
    let named = named(depot, kind, as_if).await?;
    let facts = found.into_iter().map(|object| ObjectFacts {
        name: Name(kind, object.digest),
        bytes: object.bytes,
        modified: object.modified,
        is_named: named.contains(&object.digest),
    });
    Ok(facts.collect())
}

/// Returns what rows name of a kind. The first two columns are the packages without which the row would not be.
async fn named(depot: &Depot, kind: Kind, as_if: &AsIf) -> Result<HashSet<Digest>, store::Error> {
    let sql = match kind {
        Kind::Pack => "SELECT '', '', digest FROM depot_packs",
        Kind::Manifest => return manifests(depot, as_if).await,
        Kind::Index => "SELECT digest, '', index_digest FROM packages",
        Kind::Frame => "SELECT target, base, frame FROM depot_plan_frames",
        Kind::Plan => "SELECT target, base, plan FROM depot_plans",
    };
    let gone: HashSet<String> = as_if.packages.iter().map(ToString::to_string).collect();
    let mut rows = sqlx::query(sql).fetch(depot.store.read());
    let mut named = HashSet::new();
    while let Some(row) = rows.try_next().await? {
        let (target, base): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if gone.contains(&target) || gone.contains(&base) {
            continue;
        }
        let digest = store::digest("depot", &row.try_get::<Vec<u8>, _>(2)?)?;
        if kind != Kind::Pack || !as_if.packs.contains(&digest) {
            named.insert(digest);
        }
    }
    Ok(named)
}

async fn manifests(depot: &Depot, as_if: &AsIf) -> Result<HashSet<Digest>, store::Error> {
    let packages = packages::list(&depot.store).await?.into_iter().map(|row| row.digest);
    Ok(packages.filter(|package| !as_if.packages.contains(package)).collect())
}
