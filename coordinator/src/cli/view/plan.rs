//! Transfer plans.

use jiff::Timestamp;
use serde::Serialize;
use sluice_proto::v1;

use super::{at_millis, digest};

/// A plan; `effort` is `quick` or `best`, and `wire_bytes` is nothing while it is not there.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Plan {
    pub(in crate::cli) base: Option<String>,
    pub(in crate::cli) base_releases: Vec<String>,
    pub(in crate::cli) target: String,
    pub(in crate::cli) target_releases: Vec<String>,
    pub(in crate::cli) effort: Option<&'static str>,
    pub(in crate::cli) state: &'static str,
    pub(in crate::cli) frames_done: Option<u32>,
    pub(in crate::cli) frames: Option<u32>,
    pub(in crate::cli) place: Option<u32>,
    pub(in crate::cli) wire_bytes: Option<u64>,
    pub(in crate::cli) tree_bytes: u64,
    pub(in crate::cli) hosts: u64,
    pub(in crate::cli) cpu_seconds: f64,
    pub(in crate::cli) made_at: Option<Timestamp>,
}

/// Names an effort; nothing where it is one that this version does not know.
fn effort(value: i32) -> Option<&'static str> {
    match v1::PlanEffort::try_from(value).unwrap_or_default() {
        v1::PlanEffort::Unspecified => None,
        v1::PlanEffort::Quick => Some("quick"),
        v1::PlanEffort::Best => Some("best"),
    }
}

fn state(value: i32) -> &'static str {
    match v1::PlanState::try_from(value).unwrap_or_default() {
        v1::PlanState::Unspecified => "unknown",
        v1::PlanState::Ready => "ready",
        v1::PlanState::Encoding => "encoding",
        v1::PlanState::Queued => "queued",
    }
}

impl From<v1::TransferPlan> for Plan {
    fn from(message: v1::TransferPlan) -> Self {
        let v1::TransferPlan {
            base,
            base_releases,
            target,
            target_releases,
            effort: made_with,
            state: stands,
            frames_done,
            frames,
            place,
            wire_bytes,
            tree_bytes,
            hosts,
            cpu_ms,
            made_unix_ms,
        } = message;
        Self {
            base: (!base.is_empty()).then(|| digest(&base)),
            base_releases,
            target: digest(&target),
            target_releases,
            effort: effort(made_with),
            state: state(stands),
            frames_done: (frames > 0).then_some(frames_done),
            frames: (frames > 0).then_some(frames),
            place: (place > 0).then_some(place),
            wire_bytes: (wire_bytes > 0).then_some(wire_bytes),
            tree_bytes,
            hosts,
            cpu_seconds: cpu_ms as f64 / 1000.0,
            made_at: at_millis(made_unix_ms),
        }
    }
}
