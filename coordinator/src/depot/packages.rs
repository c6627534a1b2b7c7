//! Packages that are whole in the depot: their rows, their manifests, their indexes.
//!
//! Invariant: a row exists once every chunk, the manifest and the index are durable. What damage at rest takes away
//! later, a repeated push brings back.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use sluice_common::digest::Digest;
use sluice_common::index::PackageIndex;
use sluice_common::manifest::{Contents, Manifest};
use sluice_common::{allocator, caps, transfer};
use sluice_proto::v1;
use sqlx::Row;
use sqlx::any::AnyRow;
use tokio::sync::OnceCell;

use super::objects::{Kind, Name, ObjectError};
use super::{Depot, bounded};
use crate::store::{self, Actor, Store};

/// Fewest digits of a digest that name a package.
const PREFIX_DIGITS_MIN: usize = 6;
/// Packages named when a prefix fits several.
const CANDIDATES_MAX: i64 = 5;

/// Compressed manifests from here on are large: of some 200,000 entries, which are dozens of MiB in memory.
const LARGE_MANIFEST_BYTES: u64 = 8 << 20;

/// A package as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRow {
    /// Its name.
    pub digest: Digest,
    /// Regular files.
    pub files: u64,
    /// Bytes of all of them.
    pub tree_bytes: u64,
    /// Digest of the stored index.
    pub index_digest: Digest,
    /// When it became whole.
    pub pushed: Timestamp,
    /// When it was pushed last.
    pub wanted: Timestamp,
    /// By whom.
    pub pushed_by: String,
}

/// A package's manifest, decoded.
#[derive(Debug)]
pub(super) struct Package {
    /// What it holds.
    pub(super) manifest: Manifest,
    /// Its `sluice.toml`, once it was read.
    pub(super) spec: OnceCell<Bytes>,
}

impl Package {
    pub(super) fn new(manifest: Manifest) -> Self {
        Self { manifest, spec: OnceCell::new() }
    }

    /// Returns its contents, numbered.
    pub(super) fn contents(&self) -> Contents<'_> {
        self.manifest.contents()
    }
}

/// Says why a package was not found by what was typed.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Too short, or no hex digits.
    #[error("{0:?} names no package; give sha256: and at least {PREFIX_DIGITS_MIN} digits of its digest")]
    Prefix(String),
    /// None fits.
    #[error("the depot has no package {0}; run: sluice package list")]
    Unknown(String),
    /// Several fit.
    #[error("{prefix} names several packages: {}; give more digits", .candidates.join(", "))]
    Ambiguous {
        /// What was typed.
        prefix: String,
        /// The first few that fit.
        candidates: Vec<String>,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Says why a package's manifest or index could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The depot does not have the package.
    #[error("the depot has no package {0}; run: sluice package push")]
    Unknown(Digest),
    /// An object of it was damaged or lost at rest.
    #[error("the {what} of package {package} was damaged in the depot; push the package again")]
    Damaged {
        /// The package.
        package: Digest,
        /// Manifest or index.
        what: &'static str,
    },
    /// The object store failed.
    #[error(transparent)]
    Object(ObjectError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Returns all packages, newest first.
pub async fn list(store: &Store) -> Result<Vec<PackageRow>, store::Error> {
    let rows =
        sqlx::query("SELECT * FROM packages ORDER BY pushed_ms DESC, digest").fetch_all(store.read()).await?;
    rows.iter().map(package_row).collect()
}

/// Returns a package.
pub async fn find(store: &Store, digest: &Digest) -> Result<Option<PackageRow>, store::Error> {
    let row = sqlx::query("SELECT * FROM packages WHERE digest = $1")
        .bind(digest.to_string())
        .fetch_optional(store.read())
        .await?;
    row.as_ref().map(package_row).transpose()
}

/// Returns the one package whose digest begins so, with or without `sha256:`.
pub async fn find_by_prefix(store: &Store, typed: &str) -> Result<PackageRow, LookupError> {
    let digits = typed.strip_prefix("sha256:").unwrap_or(typed).to_ascii_lowercase();
    if digits.len() < PREFIX_DIGITS_MIN || digits.len() > 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Err(LookupError::Prefix(typed.chars().take(80).collect()));
    }
    // Every continuation sorts before the prefix and a `g`: a range, which the primary key serves.
    let prefix = format!("sha256:{digits}");
    let rows =
        sqlx::query("SELECT * FROM packages WHERE digest >= $1 AND digest < $2 ORDER BY digest LIMIT $3")
            .bind(prefix.as_str())
            .bind(format!("{prefix}g"))
            .bind(CANDIDATES_MAX)
            .fetch_all(store.read())
            .await
            .map_err(store::Error::from)?;
    let mut found = rows.iter().map(package_row).collect::<Result<Vec<_>, _>>()?;
    match found.len() {
        0 => Err(LookupError::Unknown(prefix)),
        1 => Ok(found.remove(0)),
        _ => {
            let candidates = found.iter().map(|row| row.digest.to_string()).collect();
            Err(LookupError::Ambiguous { prefix, candidates })
        }
    }
}

/// Returns the releases that name a package, as `APP VERSION`.
pub async fn releases_of(store: &Store, package: &Digest) -> Result<Vec<String>, store::Error> {
    let rows = sqlx::query(
        "SELECT DISTINCT app, version FROM release_packages WHERE package = $1 ORDER BY app, version",
    )
    .bind(package.to_string())
    .fetch_all(store.read())
    .await?;
    rows.iter()
        .map(|row| Ok(format!("{} {}", row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?)))
        .collect()
}

/// Notes that a package was pushed again; says whether it is still there. From then on it is as young as a new one.
pub(super) async fn want(store: &Store, package: &Digest, now: Timestamp) -> Result<bool, store::Error> {
    let mut tx = store.begin(Actor::coordinator()).await?;
    let wanted = sqlx::query("UPDATE packages SET wanted_ms = $1 WHERE digest = $2")
        .bind(store::to_millis(now))
        .bind(package.to_string())
        .execute(&mut *tx)
        .await?;
    tx.commit_observation().await?;
    Ok(wanted.rows_affected() > 0)
}

/// Returns a package as the wire has it.
pub(super) async fn to_wire(store: &Store, row: &PackageRow) -> Result<v1::Package, store::Error> {
    let PackageRow { digest, files, tree_bytes, index_digest: _, pushed, wanted: _, pushed_by } = row;
    Ok(v1::Package {
        digest: digest.as_bytes().to_vec(),
        files: *files,
        tree_bytes: *tree_bytes,
        pushed_unix_ms: store::to_millis(*pushed),
        pushed_by: pushed_by.clone(),
        releases: releases_of(store, digest).await?,
    })
}

fn package_row(row: &AnyRow) -> Result<PackageRow, store::Error> {
    let index_digest: Vec<u8> = row.try_get("index_digest")?;
    let pushed = store::from_millis("packages.pushed_ms", row.try_get("pushed_ms")?)?;
    let wanted = store::from_millis("packages.wanted_ms", row.try_get("wanted_ms")?)?;
    Ok(PackageRow {
        digest: store::parse("packages.digest", &row.try_get::<String, _>("digest")?)?,
        files: store::unsigned("packages.files", row.try_get("files")?)?,
        tree_bytes: store::unsigned("packages.tree_bytes", row.try_get("tree_bytes")?)?,
        index_digest: store::digest("packages.index_digest", &index_digest)?,
        pushed,
        wanted: wanted.max(pushed),
        pushed_by: row.try_get("pushed_by")?,
    })
}

impl Depot {
    /// Returns the compressed manifest as it was pushed. Unverified: whoever decodes it compares the digest.
    pub(super) async fn compressed_manifest(&self, package: Digest) -> Result<Bytes, LoadError> {
        self.objects
            .get(Name(Kind::Manifest, package))
            .await
            .map_err(|error| lost(package, "manifest", error))
    }

    /// Returns a package's manifest, verified; kept in memory for a while.
    pub(super) async fn package(&self, digest: Digest) -> Result<Arc<Package>, LoadError> {
        let kept = || self.packages.lock().unwrap_or_else(PoisonError::into_inner).get(&digest);
        if let Some(package) = kept() {
            return Ok(package);
        }
        let _turn = self.loading.lock().await;
        if let Some(package) = kept() {
            return Ok(package);
        }
        if find(&self.store, &digest).await?.is_none() {
            return Err(LoadError::Unknown(digest));
        }
        let compressed = self.compressed_manifest(digest).await?;
        let decoding = tokio::task::spawn_blocking(move || {
            let bytes = transfer::decode_manifest(&compressed, &[]).ok()?;
            drop(compressed);
            let manifest = (Digest::of(&bytes) == digest).then(|| Manifest::decode(bytes).ok()).flatten()?;
            let weight = manifest.memory_bytes();
            Some((Arc::new(Package::new(manifest)), weight))
        });
        let decoded = decoding.await.expect("decoding a manifest does not panic");
        let (package, weight) = decoded.ok_or(LoadError::Damaged { package: digest, what: "manifest" })?;
        let mut packages = self.packages.lock().unwrap_or_else(PoisonError::into_inner);
        packages.insert(digest, package.clone(), weight);
        Ok(package)
    }

    /// Forgets what is kept in memory where a manifest comes that is large, as it travels.
    pub(super) fn make_room(&self, compressed_bytes: u64) {
        if compressed_bytes > LARGE_MANIFEST_BYTES {
            self.forget_packages_but(&[]);
            self.chunks.forget();
            allocator::give_back_what_is_between();
        }
    }

    /// Forgets the manifests kept in memory, but for these.
    pub(super) fn forget_packages_but(&self, kept: &[Digest]) {
        let mut packages = self.packages.lock().unwrap_or_else(PoisonError::into_inner);
        packages.retain(|digest, _| kept.contains(digest));
    }

    /// Forgets a manifest kept in memory.
    pub(super) fn forget_package(&self, digest: &Digest) {
        self.packages.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }

    /// Returns a package's index, verified.
    pub(super) async fn index(
        &self,
        digest: Digest,
        package: &Arc<Package>,
    ) -> Result<PackageIndex, LoadError> {
        let row = find(&self.store, &digest).await?.ok_or(LoadError::Unknown(digest))?;
        let stored = self.objects.get(Name(Kind::Index, row.index_digest)).await;
        let compressed = stored.map_err(|error| lost(digest, "index", error))?;
        let package = package.clone();
        let decoding = tokio::task::spawn_blocking(move || {
            if Digest::of(&compressed) != row.index_digest {
                return None;
            }
            let bytes = restore_index(&compressed).ok()?;
            drop(compressed);
            PackageIndex::decode(bytes, package.contents()).ok()
        });
        let decoded = decoding.await.expect("decoding an index does not panic");
        decoded.ok_or(LoadError::Damaged { package: digest, what: "index" })
    }
}

/// Says why a compressed index is none.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is no zstd of allowed size.
    #[error("package index cannot be decompressed")]
    Zstd(#[source] std::io::Error),
    /// It does not fit the manifest.
    #[error(transparent)]
    Decode(#[from] sluice_common::codec::DecodeError),
}

/// Restores the canonical bytes of an index within bounds.
pub(super) fn restore_index(compressed: &[u8]) -> Result<Vec<u8>, IndexError> {
    bounded::decode(compressed, caps::INDEX_BYTES_MAX).map_err(IndexError::Zstd)
}

fn lost(package: Digest, what: &'static str, error: ObjectError) -> LoadError {
    match error.is_damage() {
        true => LoadError::Damaged { package, what },
        false => LoadError::Object(error),
    }
}
