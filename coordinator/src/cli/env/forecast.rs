//! What links and disks would carry and when it would end, in sentences and in the cells of tables.

use std::time::Duration;

use sluice_common::units::{ByteRate, format_size};

use super::super::output::{moment, table};
use super::super::plan_view::{for_so_long, lasts};
use super::super::view::environment::forecast::{Forecast, Foreseen, SiteTotal};
use super::super::view::forecast::Span;

const ROLLOUT_HEAD: [&str; 7] = ["ROLLOUT", "SENT", "DISK", "BEGINS", "STAGED", "STANDS", "WINDOWS"];
const SITE_HEAD: [&str; 6] = ["SITE", "CHANGE", "SENT", "LIMIT", "STAGED", "DISK"];

/// Says in a sentence what it comes to.
pub(super) fn headline(forecast: &Forecast) -> String {
    let sent = format_size(forecast.bytes);
    let Some(ends) = forecast.ends_seconds else {
        return format!("applied now, it would not come to stand by itself; {sent} sent");
    };
    let at = forecast.begins_at.and_then(|begins| begins.checked_add(ends.0).ok());
    format!("applied now, all of it stands after {}, at {}; {sent} sent", lasts(ends.0), moment(at))
}

/// Formats the tables of rollouts and of links.
pub(super) fn tables(forecast: &Forecast) -> String {
    let rollouts = table(&ROLLOUT_HEAD, &ROLLOUT_HEAD[1..6], rollout_rows(forecast));
    let sites = table(&SITE_HEAD, &SITE_HEAD[1..], site_rows(forecast));
    format!("\n{rollouts}\n{sites}")
}

pub(super) fn rollout_rows(forecast: &Forecast) -> Vec<Vec<String>> {
    let row = |foreseen: &Foreseen| {
        vec![
            name(foreseen),
            format_size(foreseen.sites.iter().map(|site| site.bytes).sum()),
            format_size(foreseen.disk_bytes),
            since(foreseen.begins_seconds),
            since(foreseen.staged_seconds),
            since(foreseen.ends_seconds),
            window(foreseen).to_owned(),
        ]
    };
    forecast.rollouts.iter().map(row).collect()
}

/// Formats a time from the beginning of the run.
fn since(time: Option<Span>) -> String {
    match time {
        Some(Span(time)) if time < Duration::from_millis(500) => "now".to_owned(),
        time => for_so_long(time.map(|time| time.0)),
    }
}

fn window(foreseen: &Foreseen) -> &'static str {
    match (foreseen.has_calendar, foreseen.begins_seconds, foreseen.fits_window) {
        (false, ..) | (_, None, _) => "-",
        (true, Some(_), true) => "one",
        (true, Some(_), false) => "more than one",
    }
}

fn name(foreseen: &Foreseen) -> String {
    let site = foreseen.site.as_ref().map(|site| format!(" at {site}")).unwrap_or_default();
    format!("{}{site}", foreseen.app)
}

pub(super) fn site_rows(forecast: &Forecast) -> Vec<Vec<String>> {
    let row = |site: &SiteTotal| {
        let rate = site.limit_bytes_per_second.and_then(ByteRate::from_bytes_per_second);
        vec![
            site.site.clone(),
            site.changing.to_string(),
            format_size(site.bytes),
            rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string()),
            since(site.staged_seconds),
            format_size(site.disk_bytes),
        ]
    };
    forecast.sites.iter().map(row).collect()
}

/// Says what rollouts wait for on the way, what cannot be foreseen, and which hosts lack disk.
pub(super) fn notes(forecast: &Forecast) -> Vec<(&'static str, Vec<String>)> {
    let wait = |foreseen: &Foreseen| {
        let begins = foreseen.begins_seconds.unwrap_or_default().0;
        let name = name(foreseen);
        let line = |wait: &super::super::view::forecast::Wait| {
            let from = lasts(begins + wait.from_seconds.0);
            let until = wait.until_seconds.map(|until| format!("until {}", lasts(begins + until.0)));
            format!("{name}: after {from}, {}: {}", until.as_deref().unwrap_or("for good"), wait.what)
        };
        foreseen.waits.iter().map(line).collect::<Vec<_>>()
    };
    let disk = |disk: &super::super::view::forecast::Disk| {
        let (needed, available) = (format_size(disk.needed_bytes), format_size(disk.available_bytes));
        format!("{} needs {needed} and may take {available}", disk.host)
    };
    vec![
        ("on the way", forecast.rollouts.iter().flat_map(wait).collect()),
        ("short of disk", forecast.short_of_disk.iter().map(disk).collect()),
        ("cannot be foreseen", forecast.unforeseen.clone()),
    ]
}
