//! A quick plan at once, the best one a little later: what the first and the second host of an update receive.

use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_common::units::format_size;
use sluice_proto::v1;

use super::work::Work;
use crate::lab::{AgentOptions, Lab, wait_for};
use crate::show::board::Board;
use crate::show::kills::{start_app, wait_ended};
use crate::show::main_job::demo_executable;
use crate::show::proxy::Proxy;
use crate::show::real_input;
use crate::trees::Pair;

const APP: &str = "tree";
/// How long the best plans of one pair may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) fn run(board: &mut Board, _: &mut Work) -> Result<()> {
    let Some((old, new)) = Work::trees(board, Pair::Ruff)? else { return Ok(()) };
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start_with(&demo_executable()?, &scratch.path().join("lab"), &[])?;
    let proxies = [Proxy::start(lab.address())?, Proxy::start(lab.address())?];
    for (name, proxy) in ["first", "second"].iter().zip(&proxies) {
        let agent = AgentOptions { dial: Some(proxy.address()), ..AgentOptions::default() };
        lab.add_host(name, "berlin", agent)?;
    }
    lab.wait_connected()?;
    // A limit that slows nothing down: it says that the bytes of this link count.
    lab.operator().run(["site", "set-limit", "berlin", "10Gbit/s"])?;
    lab.release(APP, "1", &old)?;
    for name in ["first", "second"] {
        update(&lab, "1", name)?;
    }
    lab.release(APP, "2", &new)?;
    let received = |number: usize| proxies[number].counts().iter().sum::<u64>();
    let before = received(0);
    update(&lab, "2", "first")?;
    let first = received(0) - before;
    wait_for("the best plan of the update", PATIENCE, || Ok(has_best_update(&lab)?.then_some(())))?;
    println!("{}", lab.operator().run(["package", "plans"])?.stdout.trim_end());
    let before = received(1);
    update(&lab, "2", "second")?;
    let second = received(1) - before;
    board.line(
        "update of the second host, after the best plan was made",
        &format!("{} after {}", format_size(second), format_size(first)),
        "<= 0.6x the first's",
        second as f64 <= 0.6 * first as f64,
    );
    let forecast = real_input::package_cost(&old, &new, "best", "update_bytes")?;
    let ratio = second as f64 / forecast as f64;
    board.line(
        "  counted at the socket",
        &format!("{ratio:.3} of the forecast"),
        "0.98 to 1.02",
        (0.98..=1.02).contains(&ratio),
    );
    lab.stop()
}

fn update(lab: &Lab, version: &str, host: &str) -> Result<()> {
    let id = start_app(lab, APP, version, &["--selector", &format!("host={host}")])?;
    let rollout = wait_ended(lab, &id)?;
    ensure!(rollout.state() == v1::RolloutState::Succeeded, "{:?}: {}", rollout.state(), rollout.reason);
    Ok(())
}

fn has_best_update(lab: &Lab) -> Result<bool> {
    let answer = lab.operator().run(["package", "plans", "--json"])?.stdout;
    let answer: serde_json::Value = serde_json::from_str(answer.trim())?;
    let plans = answer["plans"].as_array().into_iter().flatten();
    Ok(plans
        .into_iter()
        .any(|plan| !plan["base"].is_null() && plan["effort"] == "best" && plan["state"] == "ready"))
}
