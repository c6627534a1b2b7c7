//! Forecasts and simulations on the wire.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_common::name::SiteName;
use sluice_proto::convert::{Invalid, millis};
use sluice_proto::v1;

use super::{Forecast, Part, Prospect, SiteForecast, Transfer, platforms};
use crate::rollout::simulate::spread::{Quantiles, Spread};
use crate::rollout::simulate::{Course, Odds, Wait};
use crate::rollout::wire::spec_message;

/// Most hosts that one forecast names: some 60 bytes each, well below the message limit.
const HOSTS_NAMED_MAX: usize = 2_000;
/// Most times as long as others that a slow host may take: beyond it, it is a host that hangs.
const SLOWNESS_MAX: u32 = 1_000;

fn optional_millis(time: Option<Duration>) -> Option<u64> {
    time.map(millis)
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Writes a forecast.
pub(super) fn forecast(prospect: &Prospect, forecast: &Forecast) -> v1::RolloutForecast {
    let Forecast { batches: _, sites, transfers, waits, short_of_disk, staged, ends, fits_window } = forecast;
    let rollout = &prospect.rollout;
    let changing = |parts: &[Part]| count(parts.iter().filter(|part| part.transfer.is_some()).count());
    let disk = |(host, needed, available): &(sluice_common::name::HostName, u64, u64)| v1::ForecastDisk {
        host: host.to_string(),
        needed_bytes: *needed,
        available_bytes: *available,
    };
    v1::RolloutForecast {
        app: rollout.app.to_string(),
        version: rollout.version.to_string(),
        begins_unix_ms: prospect.begins.as_millisecond(),
        hosts: count(rollout.members.len()),
        changing: changing(&prospect.parts),
        batches: batches(prospect, forecast, changing),
        sites: sites.iter().map(site).collect(),
        transfers: transfers.iter().map(transfer).collect(),
        waits: waits.iter().map(wait).collect(),
        obstacles: prospect.obstacles.clone(),
        short_of_disk: short_of_disk.iter().take(HOSTS_NAMED_MAX).map(disk).collect(),
        staged_ms: optional_millis(*staged),
        ends_ms: optional_millis(*ends),
        has_calendar: !rollout.spec.calendar.is_empty(),
        fits_window: *fits_window,
        spec: Some(spec_message(&rollout.spec)),
    }
}

fn batches(
    prospect: &Prospect,
    forecast: &Forecast,
    changing: impl Fn(&[Part]) -> u32,
) -> Vec<v1::ForecastBatch> {
    let mut names_left = HOSTS_NAMED_MAX;
    let ranges = prospect.rollout.batches.iter().zip(&forecast.batches);
    let batch = ranges.map(|(range, times)| {
        let parts = &prospect.parts[range.clone()];
        let named = &prospect.rollout.members[range.clone()];
        let names: Vec<String> =
            named.iter().take(names_left).map(|member| member.host.to_string()).collect();
        names_left -= names.len();
        v1::ForecastBatch {
            hosts: count(range.len()),
            changing: changing(parts),
            names,
            platforms: platforms(parts).into_iter().map(ToString::to_string).collect(),
            opens_ms: optional_millis(times.opened),
            passes_ms: optional_millis(times.passed),
        }
    });
    batch.collect()
}

pub(crate) fn site((name, forecast): (&SiteName, &SiteForecast)) -> v1::ForecastSite {
    let SiteForecast { hosts, changing, limit, bytes, staged } = forecast;
    v1::ForecastSite {
        site: name.to_string(),
        hosts: count(*hosts),
        changing: count(*changing),
        limit_bytes_per_second: limit.map_or(0, |limit| limit.bytes_per_second()),
        bytes: *bytes,
        staged_ms: millis(*staged),
    }
}

fn transfer((transfer, hosts): (&Transfer, &usize)) -> v1::ForecastTransfer {
    let Transfer { base, target, wire_bytes, frames: _, disk_bytes } = transfer;
    v1::ForecastTransfer {
        base: base.map(|base| base.as_bytes().to_vec()).unwrap_or_default(),
        target: target.as_bytes().to_vec(),
        hosts: count(*hosts),
        wire_bytes: *wire_bytes,
        disk_bytes: *disk_bytes,
    }
}

pub(crate) fn wait(wait: &Wait) -> v1::ForecastWait {
    let Wait { kind: _, what, from, until } = wait;
    v1::ForecastWait { what: what.clone(), from_ms: millis(*from), until_ms: optional_millis(*until) }
}

/// Reads what may go wrong.
pub(super) fn odds(message: &v1::SimulateRolloutRequest) -> Result<Odds, Invalid> {
    let probability = |field: &'static str, value: f64| match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err(Invalid::new(field, format!("is {value}; a probability goes from 0 to 1"))),
    };
    if message.slowness > SLOWNESS_MAX {
        let reason = format!("is {}; it may be at most {SLOWNESS_MAX}", message.slowness);
        return Err(Invalid::new("slowness", reason));
    }
    Ok(Odds {
        host_failure: probability("host_failure", message.host_failure)?,
        host_loss: probability("host_loss", message.host_loss)?,
        loss: Duration::from_millis(message.loss_ms),
        slow_host: probability("slow_host", message.slow_host)?,
        slowness: message.slowness.max(1),
        bad_release: probability("bad_release", message.bad_release)?,
        bad_after: Duration::from_millis(message.bad_after_ms),
    })
}

/// Writes what a simulation came to.
pub(super) fn simulated(
    courses: &[Course],
    sites: &BTreeMap<SiteName, SiteForecast>,
    unheard: usize,
    took: Duration,
) -> v1::SimulateRolloutResponse {
    let spread = Spread::of(courses);
    let Spread { runs, ends, succeeded, others, hurt, bad_runs, hurt_by_bad, bad_unnoticed } = spread;
    v1::SimulateRolloutResponse {
        hosts: count(sites.values().map(|site| site.hosts).sum()),
        runs: count(runs),
        ends: ends.into_iter().map(|(end, runs)| (end.to_owned(), count(runs))).collect(),
        succeeded_ms: Some(quantiles(succeeded, millis)),
        others_ms: Some(quantiles(others, millis)),
        hurt: Some(quantiles(hurt, |hosts| hosts as u64)),
        bad_runs: count(bad_runs),
        hurt_by_bad: Some(quantiles(hurt_by_bad, |hosts| hosts as u64)),
        bad_unnoticed: count(bad_unnoticed),
        sites: sites.iter().map(site).collect(),
        unheard: count(unheard),
        took_ms: millis(took),
    }
}

fn quantiles<T>(of: Quantiles<T>, number: impl Fn(T) -> u64) -> v1::Quantiles {
    let Quantiles { p50, p90, p99, max } = of;
    v1::Quantiles { p50: number(p50), p90: number(p90), p99: number(p99), max: number(max) }
}
