//! `package plans`: which transfers are ready, how small they are, and what is being done about them.

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use sluice_common::units::format_size;
use sluice_proto::v1;

use crate::cli::Context;
use crate::cli::error::context as advice;
use crate::cli::exit::Exit;
use crate::cli::output::{or_dash, table};
use crate::cli::view::plan::Plan;
use crate::cli::view::short;

#[derive(Serialize)]
struct Plans {
    plans: Vec<Plan>,
}

pub(super) async fn run(context: &Context, package: Option<String>) -> anyhow::Result<Exit> {
    let request = v1::ListPlansRequest { digest_prefix: package.unwrap_or_default() };
    let pages = context.connect().await?.packages().list_plans(request).await.with_context(|| {
        advice(
            "cannot list transfer plans".to_owned(),
            "sluice package list shows the packages that there are",
        )
    })?;
    let (mut pages, mut plans) = (pages.into_inner(), Plans { plans: Vec::new() });
    while let Some(page) = pages.message().await? {
        plans.plans.extend(page.plans.into_iter().map(Plan::from));
    }
    context.output.show(&plans, || text(&plans.plans, Timestamp::now()))?;
    Ok(Exit::Success)
}

fn text(plans: &[Plan], now: Timestamp) -> String {
    let rows = plans.iter().map(|plan| {
        vec![
            plan.base
                .as_deref()
                .map_or_else(|| "(nothing)".to_owned(), |base| name(base, &plan.base_releases)),
            name(&plan.target, &plan.target_releases),
            or_dash(plan.effort.unwrap_or_default()),
            state(plan),
            plan.wire_bytes.map_or_else(|| "-".to_owned(), format_size),
            plan.wire_bytes.map_or_else(|| "-".to_owned(), |bytes| share(bytes, plan.tree_bytes)),
            plan.hosts.to_string(),
            format!("{:.1} s", plan.cpu_seconds),
            plan.made_at.map_or_else(|| "-".to_owned(), |made| age(made, now)),
        ]
    });
    table(
        &["FROM", "TO", "EFFORT", "STATE", "SENDS", "OF TREE", "HOSTS", "CPU", "AGE"],
        &["SENDS", "OF TREE", "HOSTS", "CPU", "AGE"],
        rows.collect(),
    )
}

/// Names a package by the newest release that has it, else by its digest.
fn name(package: &str, releases: &[String]) -> String {
    releases.first().cloned().unwrap_or_else(|| short(package))
}

/// Says what is being done, briefly.
fn state(plan: &Plan) -> String {
    match (plan.state, plan.frames_done.zip(plan.frames), plan.place) {
        ("encoding", Some((done, frames)), _) => format!("{done}/{frames} frames"),
        ("encoding", None, _) => "begun".to_owned(),
        ("queued", _, Some(place)) => format!("queued ({place})"),
        (state, _, _) => state.to_owned(),
    }
}

fn share(bytes: u64, tree_bytes: u64) -> String {
    let percent = bytes as f64 * 100.0 / tree_bytes.max(1) as f64;
    if percent < 0.01 {
        "<0.01 %".to_owned()
    } else {
        format!("{percent:.*} %", usize::from(percent < 10.0) + 1)
    }
}

/// Returns the time since a moment in its largest unit.
fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = (now.as_second() - then.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use sluice_common::digest::Digest;

    use super::*;

    fn message(effort: v1::PlanEffort, state: v1::PlanState) -> v1::TransferPlan {
        v1::TransferPlan {
            base: Digest::of(b"1").as_bytes().to_vec(),
            base_releases: vec!["shop 1.1.0".into(), "shop 1.0.9".into()],
            target: Digest::of(b"2").as_bytes().to_vec(),
            target_releases: vec!["shop 1.2.0".into()],
            effort: effort.into(),
            state: state.into(),
            wire_bytes: 4_600_000,
            tree_bytes: 220_000_000,
            hosts: 120,
            cpu_ms: 1_234,
            made_unix_ms: 1_000_000,
            ..Default::default()
        }
    }

    #[test]
    fn every_state_fits_on_a_line_of_a_terminal() {
        use v1::{PlanEffort as Effort, PlanState as State};
        let messages = [
            message(Effort::Quick, State::Ready),
            v1::TransferPlan {
                frames: 14,
                frames_done: 3,
                wire_bytes: 0,
                cpu_ms: 0,
                made_unix_ms: 0,
                ..message(Effort::Best, State::Encoding)
            },
            v1::TransferPlan {
                place: 2,
                base: vec![],
                wire_bytes: 0,
                cpu_ms: 0,
                made_unix_ms: 0,
                ..message(Effort::Best, State::Queued)
            },
            v1::TransferPlan { target_releases: vec![], ..message(Effort::Quick, State::Encoding) },
        ];
        let plans: Vec<Plan> = messages.into_iter().map(Plan::from).collect();
        let text = text(&plans, Timestamp::from_second(4_700).unwrap());
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        insta::assert_snapshot!(text, @r"
        FROM        TO            EFFORT  STATE          SENDS  OF TREE  HOSTS    CPU  AGE
        shop 1.1.0  shop 1.2.0    quick   ready        4.60 MB   2.09 %    120  1.2 s   1h
        shop 1.1.0  shop 1.2.0    best    3/14 frames        -        -    120  0.0 s    -
        (nothing)   shop 1.2.0    best    queued (2)         -        -    120  0.0 s    -
        shop 1.1.0  d4735e3a265e  quick   begun        4.60 MB   2.09 %    120  1.2 s   1h
        ");
    }

    #[test]
    fn shares_keep_two_digits() {
        let cases = [(0, "<0.01 %"), (1_230, "1.23 %"), (12_300, "12.3 %"), (100_000, "100.0 %")];
        for (bytes, expected) in cases {
            assert_eq!(share(bytes, 100_000), expected);
        }
    }
}
