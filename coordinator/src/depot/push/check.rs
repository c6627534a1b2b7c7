//! What of a package is here already.

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use sluice_common::digest::Digest;
use sluice_common::index::PackageIndex;
use sluice_proto::v1;

use super::PushError;
use crate::depot::objects::{Kind, Name};
use crate::depot::packages::LoadError;
use crate::depot::{Depot, chunks, packages};

/// Packs looked for at once.
const LOOKS_MAX: usize = 16;

/// Returns the package when it is known and whole: manifest and index undamaged, every chunk indexed, in a pack that is there.
pub(super) async fn whole(depot: &Depot, digest: Digest) -> Result<Option<v1::Package>, PushError> {
    let Some(row) = packages::find(&depot.store, &digest).await? else { return Ok(None) };
    let _turn = depot.turn(&[digest]).await?;
    match index_of(depot, digest).await {
        Ok(index) if !lacking(depot, &index).await?.contains(&true) => {
            // Forgotten meanwhile, it is pushed like any other.
            let kept = packages::want(&depot.store, &digest, Timestamp::now()).await?;
            Ok(if kept { Some(packages::to_wire(&depot.store, &row).await?) } else { None })
        }
        Ok(_) | Err(LoadError::Unknown(_) | LoadError::Damaged { .. }) => Ok(None),
        Err(LoadError::Object(error)) => Err(error.into()),
        Err(LoadError::Store(error)) => Err(error.into()),
    }
}

/// Reads manifest and index as they lie there, past any cache: what is damaged must show.
async fn index_of(depot: &Depot, digest: Digest) -> Result<PackageIndex, LoadError> {
    depot.forget_package(&digest);
    let package = depot.package(digest).await?;
    depot.index(digest, &package).await
}

/// Says of each chunk of an index whether the depot lacks it. What is to lie in a pack that is gone is lacking, and forgotten: the
/// database may be older or younger than the objects, where both were brought back from a backup.
pub(super) async fn lacking(depot: &Depot, index: &PackageIndex) -> Result<Vec<bool>, PushError> {
    let held = chunks::lacking(&depot.store, index.chunks()).await?;
    let looks = held.packs.into_iter().map(|pack| async move {
        let is_there = depot.objects.has(Name(Kind::Pack, pack)).await?;
        Ok::<_, PushError>((!is_there).then_some(pack))
    });
    let gone: Vec<Option<Digest>> = stream::iter(looks).buffer_unordered(LOOKS_MAX).try_collect().await?;
    let gone: Vec<Digest> = gone.into_iter().flatten().collect();
    for pack in &gone {
        tracing::warn!(%pack, "a pack is gone from the depot; its chunks come again");
        chunks::forget_lost::<PushError>(&depot.store, &depot.objects, *pack).await?;
    }
    // Somebody else may have forgotten them before.
    if gone.is_empty() { Ok(held.lacking) } else { lacking_by_row(depot, index).await }
}

/// Says of each chunk of an index whether it has no row.
pub(super) async fn lacking_by_row(depot: &Depot, index: &PackageIndex) -> Result<Vec<bool>, PushError> {
    Ok(chunks::lacking(&depot.store, index.chunks()).await?.lacking)
}
