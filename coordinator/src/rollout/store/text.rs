//! Reports as JSON, the form in which the database keeps them. Fields may be added with a default, and never renamed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_common::name::AppName;
use sluice_common::order::{Drift, Generation, Installed, Phase, Report};

use crate::store;

#[derive(Serialize, Deserialize)]
struct Text {
    generation: Generation,
    sequence: u64,
    phase: Phase,
    current: Option<Installed>,
    previous: Option<Installed>,
    healthy: Option<bool>,
    reason: Option<String>,
    hook_output: Option<String>,
    fetched_bytes: u64,
    fetch_total_bytes: u64,
    wire_bytes: u64,
    stage_time_us: u64,
    switch_time_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drift: Option<Drift>,
}

/// Writes a report; its application stands beside it.
pub(super) fn from_report(report: &Report) -> Result<String, store::Error> {
    let Report {
        app: _,
        generation,
        sequence,
        phase,
        current,
        previous,
        healthy,
        reason,
        hook_output,
        fetched_bytes,
        fetch_total_bytes,
        wire_bytes,
        stage_time,
        switch_time,
        drift,
    } = report.clone();
    let text = Text {
        generation,
        sequence,
        phase,
        current,
        previous,
        healthy,
        reason,
        hook_output,
        fetched_bytes,
        fetch_total_bytes,
        wire_bytes,
        stage_time_us: sluice_proto::convert::micros(stage_time),
        switch_time_us: sluice_proto::convert::micros(switch_time),
        drift,
    };
    json(&text)
}

/// Reads a report of `app`.
pub(super) fn to_report(column: &'static str, app: &AppName, text: &str) -> Result<Report, store::Error> {
    let Text {
        generation,
        sequence,
        phase,
        current,
        previous,
        healthy,
        reason,
        hook_output,
        fetched_bytes,
        fetch_total_bytes,
        wire_bytes,
        stage_time_us,
        switch_time_us,
        drift,
    } = from_json(column, text)?;
    Ok(Report {
        app: app.clone(),
        generation,
        sequence,
        phase,
        current,
        previous,
        healthy,
        reason,
        hook_output,
        fetched_bytes,
        fetch_total_bytes,
        wire_bytes,
        stage_time: Duration::from_micros(stage_time_us),
        switch_time: Duration::from_micros(switch_time_us),
        drift,
    })
}

/// Writes a value as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Result<String, store::Error> {
    serde_json::to_string(value).map_err(|error| store::Error::damaged("a value to be stored", error))
}

/// Reads a value from JSON.
pub(super) fn from_json<T: for<'a> Deserialize<'a>>(
    column: &'static str,
    text: &str,
) -> Result<T, store::Error> {
    serde_json::from_str(text).map_err(|error| store::Error::damaged(column, error))
}

/// Makes a number fit the database; those beyond it, which no honest host reports, become the largest.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use sluice_common::digest::Digest;

    use super::*;

    #[test]
    fn a_report_reads_back_whole() {
        let installed =
            |name: &str| Installed { package: Digest::of(name.as_bytes()), version: name.parse().unwrap() };
        let report = Report {
            app: "shop".parse().unwrap(),
            generation: Generation(7),
            sequence: 3,
            phase: Phase::Reverted,
            current: Some(installed("1")),
            previous: Some(installed("2")),
            healthy: Some(true),
            reason: Some("503".into()),
            hook_output: Some("no such file".into()),
            fetched_bytes: 5,
            fetch_total_bytes: 6,
            wire_bytes: 7,
            stage_time: Duration::from_micros(8),
            switch_time: Duration::from_micros(9),
            drift: Some(Drift { count: 1, first: "a: gone".into(), mended: 2 }),
        };
        let text = from_report(&report).unwrap();
        assert_eq!(to_report("reports.report", &report.app, &text).unwrap(), report);
        assert!(to_report("reports.report", &report.app, "{}").is_err());
    }
}
