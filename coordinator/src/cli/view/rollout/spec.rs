//! What an operator asked of a rollout.

use serde::Serialize;
use sluice_proto::v1;

use super::super::text;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::cli) struct Spec {
    pub(in crate::cli) selector: String,
    pub(in crate::cli) strategy: &'static str,
    pub(in crate::cli) canary: Option<String>,
    pub(in crate::cli) batch: Option<String>,
    pub(in crate::cli) bake_seconds: f64,
    pub(in crate::cli) max_unavailable: Option<String>,
    pub(in crate::cli) max_failures: Option<String>,
    pub(in crate::cli) on_failure: &'static str,
    pub(in crate::cli) host_deadline_seconds: f64,
    pub(in crate::cli) stage_first: Option<String>,
    pub(in crate::cli) waves: Vec<String>,
    pub(in crate::cli) domain: Option<String>,
    pub(in crate::cli) domain_max_unavailable: Option<String>,
    pub(in crate::cli) windows: Vec<String>,
    pub(in crate::cli) freezes: Vec<String>,
    pub(in crate::cli) approvals: u32,
    pub(in crate::cli) checks: Vec<String>,
    pub(in crate::cli) emergency: Option<String>,
}

impl From<v1::RolloutSpec> for Spec {
    fn from(message: v1::RolloutSpec) -> Self {
        let v1::RolloutSpec {
            selector,
            strategy,
            canary,
            batch,
            bake_ms,
            max_unavailable,
            max_failures,
            on_failure,
            host_deadline_ms,
            stage_first,
            waves,
            domain_label,
            domain_max_unavailable,
            windows,
            freezes,
            approvals,
            emergency,
            checks,
        } = message;
        let strategy = match v1::StrategyKind::try_from(strategy).unwrap_or_default() {
            v1::StrategyKind::Unspecified => "unknown",
            v1::StrategyKind::AllAtOnce => "all_at_once",
            v1::StrategyKind::Rolling => "rolling",
            v1::StrategyKind::Canary => "canary",
            v1::StrategyKind::Waves => "waves",
            v1::StrategyKind::Exponential => "exponential",
            v1::StrategyKind::OneHostFirst => "one_host_first",
        };
        let on_failure = match v1::OnFailure::try_from(on_failure).unwrap_or_default() {
            v1::OnFailure::Unspecified => "unknown",
            v1::OnFailure::RollBack => "rollback",
            v1::OnFailure::Pause => "pause",
        };
        Self {
            selector,
            strategy,
            canary: text(canary),
            batch: text(batch),
            bake_seconds: bake_ms as f64 / 1e3,
            max_unavailable: text(max_unavailable),
            max_failures: text(max_failures),
            on_failure,
            host_deadline_seconds: host_deadline_ms as f64 / 1e3,
            stage_first: text(stage_first),
            waves,
            domain: text(domain_label),
            domain_max_unavailable: text(domain_max_unavailable),
            windows,
            freezes,
            approvals,
            checks,
            emergency: text(emergency),
        }
    }
}
