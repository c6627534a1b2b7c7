//! The depot.

use jiff::Timestamp;
use serde::Serialize;
use sluice_proto::v1;

use super::{at_millis, digest};

/// What the depot holds; `unused_bytes` is `null` where a damaged package keeps it from being told.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Depot {
    pub(in crate::cli) usage: Vec<Usage>,
    pub(in crate::cli) objects: u64,
    pub(in crate::cli) bytes: u64,
    pub(in crate::cli) unused_bytes: Option<u64>,
    pub(in crate::cli) packages: u64,
    pub(in crate::cli) unreleased_packages: u64,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct Usage {
    pub(in crate::cli) kind: &'static str,
    pub(in crate::cli) objects: u64,
    pub(in crate::cli) bytes: u64,
    pub(in crate::cli) unused_bytes: Option<u64>,
}

/// What a collection removed, or would.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Collected {
    pub(in crate::cli) dry_run: bool,
    pub(in crate::cli) packages: Vec<Forgotten>,
    pub(in crate::cli) sparse_packs: u64,
    pub(in crate::cli) rewritten_bytes: u64,
    pub(in crate::cli) removed: Vec<Removed>,
    pub(in crate::cli) freed_bytes: u64,
    pub(in crate::cli) waiting_bytes: u64,
    pub(in crate::cli) damaged_packages: Vec<String>,
    pub(in crate::cli) overtaken: bool,
    pub(in crate::cli) missing_packs: u64,
    pub(in crate::cli) kept_until: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct Forgotten {
    pub(in crate::cli) digest: String,
    pub(in crate::cli) pushed_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct Removed {
    pub(in crate::cli) kind: &'static str,
    pub(in crate::cli) objects: u64,
    pub(in crate::cli) bytes: u64,
}

fn kind(value: i32) -> &'static str {
    match v1::DepotKind::try_from(value).unwrap_or_default() {
        v1::DepotKind::Unspecified => "unknown",
        v1::DepotKind::Pack => "packs",
        v1::DepotKind::Manifest => "manifests",
        v1::DepotKind::Index => "indexes",
        v1::DepotKind::Frame => "frames",
        v1::DepotKind::Plan => "plans",
    }
}

impl From<v1::ShowDepotResponse> for Depot {
    fn from(message: v1::ShowDepotResponse) -> Self {
        let v1::ShowDepotResponse { usage, packages, unreleased_packages } = message;
        let usage: Vec<Usage> = usage
            .into_iter()
            .map(|v1::DepotUsage { kind: of, objects, bytes, unused_bytes }| Usage {
                kind: kind(of),
                objects,
                bytes,
                unused_bytes,
            })
            .collect();
        Self {
            objects: usage.iter().map(|usage| usage.objects).sum(),
            bytes: usage.iter().map(|usage| usage.bytes).sum(),
            unused_bytes: usage.iter().map(|usage| usage.unused_bytes).sum(),
            usage,
            packages,
            unreleased_packages,
        }
    }
}

impl Collected {
    pub(in crate::cli) fn new(message: v1::CollectDepotResponse, dry_run: bool) -> Self {
        let v1::CollectDepotResponse {
            packages,
            sparse_packs,
            rewritten_bytes,
            removed,
            freed_bytes,
            damaged_packages,
            overtaken,
            waiting_bytes,
            missing_packs,
            kept_until_unix_ms,
        } = message;
        let forgotten = |v1::ForgottenPackage { digest: package, pushed_unix_ms }| Forgotten {
            digest: digest(&package),
            pushed_at: at_millis(pushed_unix_ms),
        };
        let removal =
            |v1::DepotRemoved { kind: of, objects, bytes }| Removed { kind: kind(of), objects, bytes };
        Self {
            dry_run,
            packages: packages.into_iter().map(forgotten).collect(),
            sparse_packs,
            rewritten_bytes,
            removed: removed.into_iter().map(removal).collect(),
            freed_bytes,
            waiting_bytes,
            damaged_packages: damaged_packages.iter().map(|package| digest(package)).collect(),
            overtaken,
            missing_packs,
            kept_until: kept_until_unix_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        }
    }
}
