//! What a rollout would do, and how it may go.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use sluice_proto::v1;

use super::rollout::Floor;
use super::{at_millis, digest};

/// A time of a forecast; seconds in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cli) struct Span(pub(in crate::cli) Duration);

impl Span {
    pub(super) fn of(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

/// A forecast. Times count from `begins_at`; `null` where it does not come to that.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Forecast {
    pub(in crate::cli) app: String,
    pub(in crate::cli) version: String,
    pub(in crate::cli) begins_at: Option<Timestamp>,
    pub(in crate::cli) hosts: u32,
    pub(in crate::cli) changing: u32,
    pub(in crate::cli) staged_seconds: Option<Span>,
    pub(in crate::cli) ends_seconds: Option<Span>,
    pub(in crate::cli) has_calendar: bool,
    pub(in crate::cli) fits_window: bool,
    pub(in crate::cli) bake_seconds: Span,
    pub(in crate::cli) first_site_bake_seconds: Option<Span>,
    pub(in crate::cli) floors: Vec<Floor>,
    /// Whether every host brings the release up beside the live one before any traffic moves.
    pub(in crate::cli) has_candidates: bool,
    pub(in crate::cli) approvals: u32,
    pub(in crate::cli) max_unavailable: String,
    pub(in crate::cli) max_failures: String,
    pub(in crate::cli) batches: Vec<Batch>,
    pub(in crate::cli) sites: Vec<Site>,
    pub(in crate::cli) transfers: Vec<Transfer>,
    pub(in crate::cli) waits: Vec<Wait>,
    pub(in crate::cli) obstacles: Vec<String>,
    pub(in crate::cli) short_of_disk: Vec<Disk>,
}

/// Hosts that switch together.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Batch {
    pub(in crate::cli) hosts: u32,
    pub(in crate::cli) changing: u32,
    pub(in crate::cli) names: Vec<String>,
    pub(in crate::cli) platforms: Vec<String>,
    pub(in crate::cli) opens_seconds: Option<Span>,
    pub(in crate::cli) passes_seconds: Option<Span>,
}

/// What a site's link carries; no limit is `null`.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Site {
    pub(in crate::cli) site: String,
    pub(in crate::cli) hosts: u32,
    pub(in crate::cli) changing: u32,
    pub(in crate::cli) limit_bytes_per_second: Option<u64>,
    pub(in crate::cli) bytes: u64,
    pub(in crate::cli) staged_seconds: Span,
}

/// What each of some hosts is sent.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Transfer {
    pub(in crate::cli) base: Option<String>,
    pub(in crate::cli) target: String,
    pub(in crate::cli) hosts: u32,
    pub(in crate::cli) wire_bytes: u64,
    pub(in crate::cli) disk_bytes: u64,
}

/// Something that is waited for.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Wait {
    pub(in crate::cli) what: String,
    pub(in crate::cli) from_seconds: Span,
    pub(in crate::cli) until_seconds: Option<Span>,
}

/// A host without the disk that it needs.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Disk {
    pub(in crate::cli) host: String,
    pub(in crate::cli) needed_bytes: u64,
    pub(in crate::cli) available_bytes: u64,
}

impl From<v1::RolloutForecast> for Forecast {
    fn from(message: v1::RolloutForecast) -> Self {
        let v1::RolloutForecast {
            app,
            version,
            begins_unix_ms,
            hosts,
            changing,
            batches,
            sites,
            transfers,
            waits,
            obstacles,
            short_of_disk,
            staged_ms,
            ends_ms,
            has_calendar,
            fits_window,
            spec,
        } = message;
        let spec = spec.unwrap_or_default();
        Self {
            app,
            version,
            begins_at: at_millis(begins_unix_ms),
            hosts,
            changing,
            staged_seconds: staged_ms.map(Span::of),
            ends_seconds: ends_ms.map(Span::of),
            has_calendar,
            fits_window,
            bake_seconds: Span::of(spec.bake_ms),
            first_site_bake_seconds: (spec.first_site_bake_ms > 0).then(|| Span::of(spec.first_site_bake_ms)),
            has_candidates: spec.strategy() == v1::StrategyKind::BlueGreen,
            floors: spec.floors.into_iter().map(Floor::from).collect(),
            approvals: spec.approvals,
            max_unavailable: spec.max_unavailable,
            max_failures: spec.max_failures,
            batches: batches.into_iter().map(Batch::from).collect(),
            sites: sites.into_iter().map(Site::from).collect(),
            transfers: transfers.into_iter().map(Transfer::from).collect(),
            waits: waits.into_iter().map(Wait::from).collect(),
            obstacles,
            short_of_disk: short_of_disk.into_iter().map(Disk::from).collect(),
        }
    }
}

impl From<v1::ForecastBatch> for Batch {
    fn from(message: v1::ForecastBatch) -> Self {
        let v1::ForecastBatch { hosts, changing, names, platforms, opens_ms, passes_ms } = message;
        let (opens_seconds, passes_seconds) = (opens_ms.map(Span::of), passes_ms.map(Span::of));
        Self { hosts, changing, names, platforms, opens_seconds, passes_seconds }
    }
}

impl From<v1::ForecastSite> for Site {
    fn from(message: v1::ForecastSite) -> Self {
        let v1::ForecastSite { site, hosts, changing, limit_bytes_per_second, bytes, staged_ms } = message;
        let limit_bytes_per_second = (limit_bytes_per_second > 0).then_some(limit_bytes_per_second);
        Self { site, hosts, changing, limit_bytes_per_second, bytes, staged_seconds: Span::of(staged_ms) }
    }
}

impl From<v1::ForecastTransfer> for Transfer {
    fn from(message: v1::ForecastTransfer) -> Self {
        let v1::ForecastTransfer { base, target, hosts, wire_bytes, disk_bytes } = message;
        let base = (!base.is_empty()).then(|| digest(&base));
        Self { base, target: digest(&target), hosts, wire_bytes, disk_bytes }
    }
}

impl From<v1::ForecastWait> for Wait {
    fn from(message: v1::ForecastWait) -> Self {
        let v1::ForecastWait { what, from_ms, until_ms } = message;
        Self { what, from_seconds: Span::of(from_ms), until_seconds: until_ms.map(Span::of) }
    }
}

impl From<v1::ForecastDisk> for Disk {
    fn from(message: v1::ForecastDisk) -> Self {
        let v1::ForecastDisk { host, needed_bytes, available_bytes } = message;
        Self { host, needed_bytes, available_bytes }
    }
}

/// What half, nine of ten, 99 of 100 and all runs stay within.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(in crate::cli) struct Quantiles<T> {
    pub(in crate::cli) p50: T,
    pub(in crate::cli) p90: T,
    pub(in crate::cli) p99: T,
    pub(in crate::cli) max: T,
}

impl<T> Quantiles<T> {
    fn of(message: Option<v1::Quantiles>, value: impl Fn(u64) -> T) -> Self {
        let v1::Quantiles { p50, p90, p99, max } = message.unwrap_or_default();
        Self { p50: value(p50), p90: value(p90), p99: value(p99), max: value(max) }
    }
}

/// Many runs of a rollout on paper.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Simulated {
    pub(in crate::cli) hosts: u32,
    pub(in crate::cli) unheard: u32,
    pub(in crate::cli) runs: u32,
    pub(in crate::cli) ends: BTreeMap<String, u32>,
    pub(in crate::cli) succeeded_seconds: Quantiles<Span>,
    pub(in crate::cli) others_seconds: Quantiles<Span>,
    pub(in crate::cli) hurt: Quantiles<u64>,
    pub(in crate::cli) bad_runs: u32,
    pub(in crate::cli) bad_unnoticed: u32,
    pub(in crate::cli) hurt_by_bad: Quantiles<u64>,
    pub(in crate::cli) sites: Vec<Site>,
    pub(in crate::cli) took_seconds: Span,
}

impl From<v1::SimulateRolloutResponse> for Simulated {
    fn from(message: v1::SimulateRolloutResponse) -> Self {
        let v1::SimulateRolloutResponse {
            hosts,
            runs,
            ends,
            succeeded_ms,
            others_ms,
            hurt,
            bad_runs,
            hurt_by_bad,
            bad_unnoticed,
            sites,
            unheard,
            took_ms,
        } = message;
        Self {
            hosts,
            unheard,
            runs,
            ends: ends.into_iter().map(|(end, runs)| (end.replace('-', "_"), runs)).collect(),
            succeeded_seconds: Quantiles::of(succeeded_ms, Span::of),
            others_seconds: Quantiles::of(others_ms, Span::of),
            hurt: Quantiles::of(hurt, |hosts| hosts),
            bad_runs,
            bad_unnoticed,
            hurt_by_bad: Quantiles::of(hurt_by_bad, |hosts| hosts),
            sites: sites.into_iter().map(Site::from).collect(),
            took_seconds: Span::of(took_ms),
        }
    }
}
