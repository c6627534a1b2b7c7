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
    pub(in crate::cli) domain_max_failures: Option<String>,
    pub(in crate::cli) windows: Vec<String>,
    pub(in crate::cli) freezes: Vec<String>,
    pub(in crate::cli) approvals: u32,
    pub(in crate::cli) checks: Vec<String>,
    pub(in crate::cli) emergency: Option<String>,
    pub(in crate::cli) first_site_bake_seconds: Option<f64>,
    pub(in crate::cli) floors: Vec<Floor>,
}

/// How many hosts have to stay in service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Floor {
    pub(in crate::cli) by: Option<String>,
    pub(in crate::cli) min_healthy: String,
    pub(in crate::cli) label: Option<String>,
}

impl Floor {
    /// Says what it asks for.
    pub(in crate::cli) fn says(&self) -> String {
        let Self { by, min_healthy, label } = self;
        let each = label.as_ref().map(|label| format!(", of each {label} too")).unwrap_or_default();
        let by = by.as_ref().map(|by| format!(", for {by}")).unwrap_or_default();
        format!("at least {min_healthy} of the hosts stay in service{each}{by}")
    }
}

impl From<v1::RolloutFloor> for Floor {
    fn from(message: v1::RolloutFloor) -> Self {
        let v1::RolloutFloor { by, min_healthy, label } = message;
        Self { by: text(by), min_healthy, label: text(label) }
    }
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
            domain_max_failures,
            windows,
            freezes,
            approvals,
            emergency,
            checks,
            first_site_bake_ms,
            floors,
        } = message;
        let strategy = match v1::StrategyKind::try_from(strategy).unwrap_or_default() {
            v1::StrategyKind::Unspecified => "unknown",
            v1::StrategyKind::AllAtOnce => "all_at_once",
            v1::StrategyKind::Rolling => "rolling",
            v1::StrategyKind::Canary => "canary",
            v1::StrategyKind::Waves => "waves",
            v1::StrategyKind::Exponential => "exponential",
            v1::StrategyKind::OneHostFirst => "one_host_first",
            v1::StrategyKind::BlueGreen => "blue_green",
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
            domain_max_failures: text(domain_max_failures),
            windows,
            freezes,
            approvals,
            checks,
            emergency: text(emergency),
            first_site_bake_seconds: (first_site_bake_ms > 0).then_some(first_site_bake_ms as f64 / 1e3),
            floors: floors.into_iter().map(Floor::from).collect(),
        }
    }
}
