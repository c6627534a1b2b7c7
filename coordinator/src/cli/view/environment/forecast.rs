//! What links and disks would carry of an environment, and when it would end.

use jiff::Timestamp;
use serde::Serialize;
use sluice_proto::v1;

use super::super::forecast::{Disk, Site, Span, Wait};
use super::super::{at_millis, text};

/// A forecast. Times count from `begins_at`; `null` where it does not come to that.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Forecast {
    pub(in crate::cli) begins_at: Option<Timestamp>,
    pub(in crate::cli) ends_seconds: Option<Span>,
    pub(in crate::cli) bytes: u64,
    pub(in crate::cli) rollouts: Vec<Foreseen>,
    pub(in crate::cli) sites: Vec<SiteTotal>,
    pub(in crate::cli) short_of_disk: Vec<Disk>,
    pub(in crate::cli) unforeseen: Vec<String>,
}

/// One rollout; the times of its sites and waits count from its own beginning.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Foreseen {
    pub(in crate::cli) app: String,
    pub(in crate::cli) site: Option<String>,
    pub(in crate::cli) begins_seconds: Option<Span>,
    pub(in crate::cli) staged_seconds: Option<Span>,
    pub(in crate::cli) ends_seconds: Option<Span>,
    pub(in crate::cli) has_calendar: bool,
    pub(in crate::cli) fits_window: bool,
    pub(in crate::cli) disk_bytes: u64,
    pub(in crate::cli) sites: Vec<Site>,
    pub(in crate::cli) waits: Vec<Wait>,
}

/// What a site's link carries for all of it; no limit is `null`.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct SiteTotal {
    pub(in crate::cli) site: String,
    pub(in crate::cli) changing: u32,
    pub(in crate::cli) limit_bytes_per_second: Option<u64>,
    pub(in crate::cli) bytes: u64,
    pub(in crate::cli) staged_seconds: Option<Span>,
    pub(in crate::cli) disk_bytes: u64,
}

impl From<v1::EnvironmentForecast> for Forecast {
    fn from(message: v1::EnvironmentForecast) -> Self {
        let v1::EnvironmentForecast { begins_unix_ms, parts, sites, short_of_disk, ends_ms, unforeseen } =
            message;
        let sites: Vec<SiteTotal> = sites.into_iter().map(SiteTotal::from).collect();
        Self {
            begins_at: at_millis(begins_unix_ms),
            ends_seconds: ends_ms.map(Span::of),
            bytes: sites.iter().map(|site| site.bytes).sum(),
            rollouts: parts.into_iter().map(Foreseen::from).collect(),
            sites,
            short_of_disk: short_of_disk.into_iter().map(Disk::from).collect(),
            unforeseen,
        }
    }
}

impl From<v1::ForecastPart> for Foreseen {
    fn from(message: v1::ForecastPart) -> Self {
        let v1::ForecastPart {
            app,
            site,
            begins_ms,
            staged_ms,
            ends_ms,
            has_calendar,
            fits_window,
            sites,
            waits,
            disk_bytes,
        } = message;
        Self {
            app,
            site: text(site),
            begins_seconds: begins_ms.map(Span::of),
            staged_seconds: staged_ms.map(Span::of),
            ends_seconds: ends_ms.map(Span::of),
            has_calendar,
            fits_window,
            disk_bytes,
            sites: sites.into_iter().map(Site::from).collect(),
            waits: waits.into_iter().map(Wait::from).collect(),
        }
    }
}

impl From<v1::EnvironmentSite> for SiteTotal {
    fn from(message: v1::EnvironmentSite) -> Self {
        let v1::EnvironmentSite { site, changing, limit_bytes_per_second, bytes, staged_ms, disk_bytes } =
            message;
        Self {
            site,
            changing,
            limit_bytes_per_second: (limit_bytes_per_second > 0).then_some(limit_bytes_per_second),
            bytes,
            staged_seconds: staged_ms.map(Span::of),
            disk_bytes,
        }
    }
}
