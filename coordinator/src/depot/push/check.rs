//! What of a package is here already.

use jiff::Timestamp;
use sluice_common::digest::Digest;
use sluice_common::index::PackageIndex;
use sluice_proto::v1;

use super::PushError;
use crate::depot::packages::LoadError;
use crate::depot::{Depot, chunks, packages};

/// Returns the package when it is known and whole: manifest and index undamaged, every chunk indexed.
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

/// Says of each chunk of an index whether the depot lacks it.
pub(super) async fn lacking(depot: &Depot, index: &PackageIndex) -> Result<Vec<bool>, PushError> {
    Ok(chunks::lacking(&depot.store, index.chunks()).await?)
}
