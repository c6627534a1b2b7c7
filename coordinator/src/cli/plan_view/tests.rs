//! Forecast in, text out.

use super::*;
use crate::cli::view::forecast::{Disk, Transfer, Wait};

fn after(millis: u64) -> Span {
    Span(Duration::from_millis(millis))
}

fn some() -> Forecast {
    let batch = |names: &[&str], opens, passes| Batch {
        hosts: names.len() as u32,
        changing: names.len() as u32,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        platforms: vec!["linux-x86_64".to_owned()],
        opens_seconds: Some(after(opens)),
        passes_seconds: Some(after(passes)),
    };
    Forecast {
        app: "shop".to_owned(),
        version: "1.2".to_owned(),
        begins_at: Some("2027-01-15T08:00:00Z".parse().unwrap()),
        hosts: 4,
        changing: 3,
        staged_seconds: Some(after(41_000)),
        ends_seconds: Some(after(43_290_000)),
        has_calendar: true,
        fits_window: true,
        bake_seconds: after(30_000),
        first_site_bake_seconds: Some(after(600_000)),
        floors: vec![Floor { by: None, min_healthy: "60%".to_owned(), label: None }],
        has_candidates: true,
        approvals: 2,
        max_unavailable: "25%".to_owned(),
        max_failures: "0".to_owned(),
        batches: vec![
            batch(&["web-1"], 43_200_000, 43_245_000),
            batch(&["web-2", "web-3", "web-4"], 43_245_000, 43_290_000),
        ],
        sites: vec![Site {
            site: "berlin".to_owned(),
            hosts: 4,
            changing: 3,
            limit_bytes_per_second: Some(1_000_000),
            bytes: 41_000_000,
            staged_seconds: after(41_000),
        }],
        transfers: vec![Transfer {
            base: None,
            target: "sha256:0123456789abcdef".to_owned(),
            hosts: 3,
            wire_bytes: 13_600_000,
            disk_bytes: 80_000_000,
        }],
        waits: vec![Wait {
            what: "waiting for the window that opens at 20:00".to_owned(),
            from_seconds: after(41_000),
            until_seconds: Some(after(43_200_000)),
        }],
        obstacles: vec!["rollout r3 of shop is not finished on web-1".to_owned()],
        short_of_disk: vec![Disk {
            host: "web_2".to_owned(),
            needed_bytes: 80_000_000,
            available_bytes: 2_000_000,
        }],
    }
}

#[test]
fn a_forecast_as_text() {
    insta::assert_snapshot!(text(&some()), @r"
    shop 1.2: 3 of 4 hosts change, done after 12h1m
      every host has its candidate up beside the live release before any traffic moves
      each batch holds for 30s, with at most 25% of the hosts out
      batches of the first site hold for 10m
      more than 0 failed hosts end it
      at least 60% of the hosts stay in service
      2 approvals before the first switch; times count from then
      what switches fits into one window

    Waits
      now: rollout r3 of shop is not finished on web-1
      web_2 needs 80.0 MB of disk and may take 2.00 MB
      after 41s, until 12h: waiting for the window that opens at 20:00

    BATCH  HOSTS  SWITCHES              AFTER  TAKES  PLATFORMS     NAMES
        1      1  2027-01-15 20:00:00Z    12h    45s  linux-x86_64  web-1
        2      3  2027-01-15 20:00:45Z    12h    45s  linux-x86_64  web-2, web-3, web-4

    SITE    HOSTS  CHANGE    BYTES  LIMIT    STAGED
    berlin      4       3  41.0 MB  8Mbit/s     41s

    FROM  TO            HOSTS     SENT     DISK
    -     0123456789ab      3  13.6 MB  80.0 MB
    ");
}

#[test]
fn a_forecast_as_markdown() {
    insta::assert_snapshot!(document::markdown(&some()), @r"
    # shop 1.2: 3 of 4 hosts change, done after 12h1m

    - every host has its candidate up beside the live release before any traffic moves
    - each batch holds for 30s, with at most 25% of the hosts out
    - batches of the first site hold for 10m
    - more than 0 failed hosts end it
    - at least 60% of the hosts stay in service
    - 2 approvals before the first switch; times count from then
    - what switches fits into one window

    ## Waits

    - now: rollout r3 of shop is not finished on web-1
    - web\_2 needs 80.0 MB of disk and may take 2.00 MB
    - after 41s, until 12h: waiting for the window that opens at 20:00

    ## Batches

    | batch | hosts | switches | after | takes | platforms | names |
    | --- | --- | --- | --- | --- | --- | --- |
    | 1 | 1 | 2027-01-15 20:00:00Z | 12h | 45s | linux-x86\_64 | web-1 |
    | 2 | 3 | 2027-01-15 20:00:45Z | 12h | 45s | linux-x86\_64 | web-2, web-3, web-4 |

    ## Links

    | site | hosts | change | bytes | limit | staged |
    | --- | --- | --- | --- | --- | --- |
    | berlin | 4 | 3 | 41.0 MB | 8Mbit/s | 41s |

    ## Transfers

    | from | to | hosts | sent | disk |
    | --- | --- | --- | --- | --- |
    | - | 0123456789ab | 3 | 13.6 MB | 80.0 MB |
    ");
}

#[test]
fn a_forecast_as_a_chart() {
    insta::assert_snapshot!(document::mermaid(&some()), @r"
    gantt
      title shop 1.2 3 of 4 hosts change and done after 12h1m
      dateFormat x
      axisFormat %d %b %H:%M
      section Staging
      berlin (3 hosts) :1800000000000, 1800000041000
      section Switching
      batch 1 (web-1) :1800043200000, 1800043245000
      batch 2 (web-2 and web-3 and web-4) :1800043245000, 1800043290000
    ");
}

#[test]
fn one_sentence_says_what_it_comes_to() {
    let nothing = Forecast { changing: 0, ..some() };
    assert_eq!(headline(&nothing), "shop 1.2: nothing to do, 4 hosts run it");
    let endless = Forecast { ends_seconds: None, ..some() };
    assert_eq!(
        headline(&endless),
        "shop 1.2: 3 of 4 hosts change, and it would not come to its end by itself"
    );
}
