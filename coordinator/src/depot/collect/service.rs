//! The `Depot` service: how large the depot is, and removing what nothing uses.

use std::sync::Arc;
use std::time::Duration;

use sluice_common::identity::Principal;
use sluice_proto::v1;
use tonic::{Request, Response, Status};

use super::usage::{self, Inventory, Usage};
use super::{Ages, Blocker, CollectError, Collection, Mode, Removed};
use crate::access::Caller;
use crate::depot::Depot;
use crate::depot::objects::Kind;
use crate::store::{self, Actor};

/// The service.
#[derive(Debug, Clone)]
pub struct DepotService {
    depot: Arc<Depot>,
}

impl DepotService {
    /// Makes the service.
    pub fn new(depot: Arc<Depot>) -> Self {
        Self { depot }
    }
}

impl From<CollectError> for Status {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::Object(error) => error.into(),
            CollectError::Store(error) => error.into(),
            CollectError::Load(error) => error.into(),
            CollectError::Read(error) => error.into(),
            CollectError::Frame(error) => Self::internal(error.to_string()),
            CollectError::Stopping => Self::unavailable(error.to_string()),
        }
    }
}

impl From<Kind> for v1::DepotKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Pack => Self::Pack,
            Kind::Manifest => Self::Manifest,
            Kind::Index => Self::Index,
            Kind::Frame => Self::Frame,
            Kind::Plan => Self::Plan,
        }
    }
}

impl From<Inventory> for v1::ShowDepotResponse {
    fn from(inventory: Inventory) -> Self {
        let Inventory { usage, packages, unreleased } = inventory;
        let to_wire = |usage| {
            let Usage { kind, objects, bytes, unused_bytes } = usage;
            v1::DepotUsage { kind: v1::DepotKind::from(kind).into(), objects, bytes, unused_bytes }
        };
        Self { usage: usage.into_iter().map(to_wire).collect(), packages, unreleased_packages: unreleased }
    }
}

impl From<Collection> for v1::CollectDepotResponse {
    fn from(collection: Collection) -> Self {
        let freed_bytes = collection.freed_bytes();
        let Collection { packages, sparse_packs, rewritten_bytes, removed, waiting_bytes, blockers } =
            collection;
        let removed = removed.into_iter().map(|(kind, Removed { objects, bytes })| v1::DepotRemoved {
            kind: v1::DepotKind::from(kind).into(),
            objects,
            bytes,
        });
        let packages = packages.into_iter().map(|(digest, pushed)| v1::ForgottenPackage {
            digest: digest.as_bytes().to_vec(),
            pushed_unix_ms: store::to_millis(pushed),
        });
        let mut response = Self {
            packages: packages.collect(),
            sparse_packs,
            rewritten_bytes,
            removed: removed.collect(),
            freed_bytes,
            waiting_bytes,
            ..Self::default()
        };
        for blocker in blockers {
            match blocker {
                Blocker::Damaged(package) => response.damaged_packages.push(package.as_bytes().to_vec()),
                Blocker::Overtaken => response.overtaken = true,
                Blocker::MissingPacks(packs, until) => {
                    (response.missing_packs, response.kept_until_unix_ms) =
                        (packs, Some(store::to_millis(until)));
                }
            }
        }
        response
    }
}

#[tonic::async_trait]
impl v1::depot_server::Depot for DepotService {
    async fn show(
        &self,
        request: Request<v1::ShowDepotRequest>,
    ) -> Result<Response<v1::ShowDepotResponse>, Status> {
        let v1::ShowDepotRequest {} = request.into_inner();
        Ok(Response::new(usage::inventory(&self.depot).await?.into()))
    }

    async fn collect(
        &self,
        request: Request<v1::CollectDepotRequest>,
    ) -> Result<Response<v1::CollectDepotResponse>, Status> {
        let actor = Actor::from(&Principal::Operator(Caller::of(&request)?.operator()?.clone()));
        let v1::CollectDepotRequest { dry_run, unreleased_after_seconds, accept_missing } =
            request.into_inner();
        let mut ages = Ages::default();
        ages.unreleased = unreleased_after_seconds.map_or(ages.unreleased, Duration::from_secs);
        let mode = if dry_run { Mode::DryRun } else { Mode::Remove };
        if mode == Mode::Remove {
            self.depot.note_collection(actor.clone(), ages).await?;
            if accept_missing {
                self.depot.accept_missing().await?;
            }
        }
        Ok(Response::new(self.depot.collect(ages, mode, actor).await?.into()))
    }
}
