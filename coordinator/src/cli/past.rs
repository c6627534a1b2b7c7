//! `host history`, `release where`: the past, as hosts reported it.

use jiff::Timestamp;
use serde::Serialize;
use sluice_common::name::{AppName, HostName, Version};
use sluice_proto::v1;

use super::Context;
use super::exit::Exit;
use super::output::{moment, or_dash, table};
use super::view::rollout::HistoryEntry;
use super::view::{Installed, at_millis, short, text};

/// Stays asked for at once: some 200 KiB.
const PAGE: u32 = 1_000;

#[derive(Serialize)]
struct History {
    host: String,
    at: Option<Timestamp>,
    history: Vec<HistoryEntry>,
}

#[derive(Serialize)]
struct Stays {
    app: String,
    version: String,
    stays: Vec<Stay>,
}

/// A time in which a host ran a release.
#[derive(Debug, Serialize)]
struct Stay {
    host: String,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    rollout: Option<String>,
    next: Option<Installed>,
}

pub(super) async fn host(
    context: &Context,
    host: HostName,
    at: Option<Timestamp>,
    limit: u32,
) -> anyhow::Result<Exit> {
    let request = v1::HostHistoryRequest {
        host: host.to_string(),
        at_unix_ms: at.map_or(0, Timestamp::as_millisecond),
        limit,
    };
    let answer = context.connect().await?.records().host_history(request).await?.into_inner();
    let history = answer.entries.into_iter().map(HistoryEntry::from).collect();
    let history = History { host: host.to_string(), at, history };
    context.output.show(&history, || match at {
        Some(_) => then_table(&history.history),
        None => switch_table(&history.history),
    })?;
    Ok(Exit::Success)
}

fn name(installed: Option<&Installed>) -> String {
    installed.map_or_else(
        || "nothing".to_owned(),
        |installed| format!("{} ({})", installed.version, short(&installed.package)),
    )
}

fn then_table(entries: &[HistoryEntry]) -> String {
    let rows = entries.iter().map(|entry| {
        vec![entry.app.clone(), name(entry.to.as_ref()), moment(entry.at), or_dash(&entry.rollout)]
    });
    table(&["APP", "RAN", "SINCE", "ROLLOUT"], &[], rows.collect())
}

fn switch_table(entries: &[HistoryEntry]) -> String {
    let rows = entries.iter().map(|entry| {
        vec![
            moment(entry.at),
            entry.app.clone(),
            name(entry.from.as_ref()),
            name(entry.to.as_ref()),
            or_dash(&entry.rollout),
            or_dash(entry.reason.as_deref().unwrap_or_default()),
        ]
    });
    table(&["AT", "APP", "FROM", "TO", "ROLLOUT", "REASON"], &[], rows.collect())
}

pub(super) async fn release(
    context: &Context,
    app: AppName,
    version: Version,
    limit: u32,
) -> anyhow::Result<Exit> {
    let mut records = context.connect().await?.records();
    let (mut stays, mut before) = (Vec::new(), 0);
    loop {
        let left = limit.saturating_sub(u32::try_from(stays.len()).unwrap_or(u32::MAX));
        let request = v1::ReleaseHistoryRequest {
            app: app.to_string(),
            version: version.to_string(),
            limit: left.min(PAGE),
            before,
        };
        let v1::ReleaseHistoryResponse { stays: page, more } =
            records.release_history(request).await?.into_inner();
        before = page.last().map_or(0, |stay| stay.number);
        let is_last = !more || page.is_empty();
        stays.extend(page.into_iter().map(stay));
        if is_last || stays.len() >= limit as usize {
            break;
        }
    }
    let stays = Stays { app: app.to_string(), version: version.to_string(), stays };
    context.output.show(&stays, || stay_table(&stays.stays))?;
    Ok(Exit::Success)
}

fn stay(message: v1::ReleaseStay) -> Stay {
    let v1::ReleaseStay { number: _, host, from_unix_ms, until_unix_ms, rollout, next } = message;
    Stay {
        host,
        from: at_millis(from_unix_ms),
        until: at_millis(until_unix_ms),
        rollout: text(rollout),
        next: Installed::from_wire(next),
    }
}

fn stay_table(stays: &[Stay]) -> String {
    let rows = stays.iter().map(|stay| {
        let (until, next) = match stay.until {
            Some(until) => (moment(Some(until)), name(stay.next.as_ref())),
            None => ("still there".to_owned(), "-".to_owned()),
        };
        vec![
            stay.host.clone(),
            moment(stay.from),
            until,
            next,
            or_dash(stay.rollout.as_deref().unwrap_or_default()),
        ]
    });
    table(&["HOST", "FROM", "UNTIL", "THEN", "ROLLOUT"], &[], rows.collect())
}
