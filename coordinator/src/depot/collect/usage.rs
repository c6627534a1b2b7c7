//! How large the depot is, and how much of it nothing uses.

use std::sync::Arc;

use super::survey::{self, AsIf};
use super::{CollectError, plan};
use crate::depot::Depot;
use crate::depot::objects::Kind;
use crate::depot::packages::LoadError;

/// The objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) kind: Kind,
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// Bytes that no package, plan or running work uses; nothing where that cannot be told.
    pub(super) unused_bytes: Option<u64>,
}

/// Everything in the depot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inventory {
    pub(super) usage: Vec<Usage>,
    pub(super) packages: u64,
    pub(super) unreleased: u64,
}

/// Counts what is in the depot.
pub(super) async fn inventory(depot: &Arc<Depot>) -> Result<Inventory, CollectError> {
    let packages = survey::packages(depot).await?;
    let live = match survey::packs(depot, &AsIf::default()).await {
        Ok(survey) => Some(survey.facts.iter().map(|pack| pack.live_bytes).sum::<u64>()),
        Err(CollectError::Load(LoadError::Damaged { .. })) => None,
        Err(error) => return Err(error),
    };
    let mut usage = Vec::new();
    for kind in Kind::ALL {
        let objects: Vec<plan::ObjectFacts> = survey::objects(depot, kind, &AsIf::default()).await?;
        let bytes = objects.iter().map(|object| object.bytes).sum();
        let unused_bytes = match kind {
            Kind::Pack => live.map(|live| u64::saturating_sub(bytes, live)),
            Kind::Manifest | Kind::Index | Kind::Frame | Kind::Plan => {
                Some(objects.iter().filter(|object| !object.is_named).map(|object| object.bytes).sum())
            }
        };
        usage.push(Usage { kind, objects: objects.len() as u64, bytes, unused_bytes });
    }
    let unreleased = packages.iter().filter(|package| !package.is_released).count() as u64;
    Ok(Inventory { usage, packages: packages.len() as u64, unreleased })
}
