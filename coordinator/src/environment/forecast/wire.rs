//! Forecasts on the wire.

use std::time::Duration;

use sluice_common::name::{HostName, SiteName};
use sluice_proto::convert::millis;
use sluice_proto::v1;

use super::{Foreseen, Foresight, SiteTotal};
use crate::rollout::forecast::wire::{site, wait};
use crate::rollout::simulate::{Kind, Wait};

/// Most hosts without disk that are named: more than a person looks at.
const HOSTS_NAMED_MAX: usize = 2_000;
/// Most waits of one rollout that are told: some 150 bytes each, of as many rollouts as an environment has.
const WAITS_MAX: usize = 8;

/// Writes a forecast.
pub(in crate::environment) fn foresight(foresight: &Foresight) -> v1::EnvironmentForecast {
    let Foresight { begins, parts, sites, short_of_disk, ends, unforeseen } = foresight;
    let disk = |(host, (needed, available)): (&HostName, &(u64, u64))| v1::ForecastDisk {
        host: host.to_string(),
        needed_bytes: *needed,
        available_bytes: *available,
    };
    v1::EnvironmentForecast {
        begins_unix_ms: begins.as_millisecond(),
        parts: parts.iter().map(part).collect(),
        sites: sites.iter().map(total).collect(),
        short_of_disk: short_of_disk.iter().take(HOSTS_NAMED_MAX).map(disk).collect(),
        ends_ms: ends.map(millis),
        unforeseen: unforeseen.iter().map(|(app, words)| format!("{app}: {words}")).collect(),
    }
}

fn part(foreseen: &Foreseen) -> v1::ForecastPart {
    let Foreseen { app, site: of, begins, forecast, has_calendar } = foreseen;
    let since = |time: Option<Duration>| begins.zip(time).map(|(begins, time)| millis(begins + time));
    // Staging, and hosts that wait for others to come back, are the work itself.
    let is_told = |wait: &&Wait| wait.until.is_none() || !matches!(wait.kind, Kind::Staging | Kind::Budget);
    let disk = forecast.transfers.keys().map(|transfer| transfer.disk_bytes).max();
    v1::ForecastPart {
        app: app.to_string(),
        site: of.as_ref().map(SiteName::to_string).unwrap_or_default(),
        begins_ms: begins.map(millis),
        staged_ms: since(forecast.staged),
        ends_ms: since(forecast.ends),
        has_calendar: *has_calendar,
        fits_window: forecast.fits_window,
        sites: forecast.sites.iter().map(site).collect(),
        waits: forecast.waits.iter().filter(is_told).take(WAITS_MAX).map(wait).collect(),
        disk_bytes: disk.unwrap_or_default(),
    }
}

fn total((name, total): (&SiteName, &SiteTotal)) -> v1::EnvironmentSite {
    let SiteTotal { changing, limit, bytes, staged, disk_bytes } = total;
    v1::EnvironmentSite {
        site: name.to_string(),
        changing: u32::try_from(*changing).unwrap_or(u32::MAX),
        limit_bytes_per_second: limit.map_or(0, |limit| limit.bytes_per_second()),
        bytes: *bytes,
        staged_ms: staged.map(millis),
        disk_bytes: *disk_bytes,
    }
}
