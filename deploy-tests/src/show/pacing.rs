//! The limit as the socket sees it, heartbeats beside it, and the agent's memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sluice_common::caps;

use super::Options;
use super::board::Board;
use super::main_job::demo_executable;
use super::proxy::Proxy;
use crate::lab::{AgentOptions, Lab, PATIENCE, noise, wait_for, write_tree};
use crate::trees::Pair;

const LIMIT: &str = "8Mbit/s";
const LIMIT_BYTES_PER_SECOND: f64 = 1_000_000.0;
const MEBIBYTE: f64 = (1 << 20) as f64;

pub(super) fn run(board: &mut Board, options: &Options) -> Result<()> {
    limit(board, options)?;
    changed_limit(board)?;
    memory(board)
}

fn limit(board: &mut Board, options: &Options) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    let proxy = Proxy::start(lab.address())?;
    let agent = AgentOptions {
        limit: Some(LIMIT.to_owned()),
        dial: Some(proxy.address()),
        ..AgentOptions::default()
    };
    lab.add_host("thin", "berlin", agent)?;
    lab.wait_connected()?;
    let tree = scratch.path().join("tree");
    let megabytes = if options.quick { 14 } else { 30 };
    write_tree(&tree, &[("noise", noise(1, megabytes * 1_000_000), false)])?;
    lab.release("bulk", "1", &tree)?;
    lab.operator().run(["rollout", "start", "bulk", "1", "--detach", "--all-at-once", "--bake", "0s"])?;
    let samples = watch(&lab, &proxy)?;
    let busy = busy_windows(&samples);
    let (least, most) =
        busy.iter().fold((f64::MAX, 0.0_f64), |(least, most), rate| (least.min(*rate), most.max(*rate)));
    let figure = format!("{least:.3} to {most:.3} in {} windows", busy.len());
    let holds = !busy.is_empty() && least >= 0.95 && most <= 1.0;
    board.line("share of 8Mbit/s over any 5 s while busy", &figure, "0.95 to 1.0", holds);
    let silence = samples.iter().map(|sample| sample.silence).max().unwrap_or_default();
    let figure = format!("{:.1} s", silence.as_secs_f64());
    let bound = caps::HEARTBEAT_INTERVAL + Duration::from_secs(2);
    board.line(
        "longest silence of heartbeats meanwhile",
        &figure,
        &format!("<= {} s", bound.as_secs()),
        silence <= bound,
    );
    lab.stop()
}

/// Two hosts of one site share its limit, and feel at once that it was changed.
fn changed_limit(board: &mut Board) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    let proxy = Proxy::start(lab.address())?;
    for name in ["h1", "h2"] {
        let agent = AgentOptions { dial: Some(proxy.address()), ..AgentOptions::default() };
        lab.add_host(name, "berlin", agent)?;
    }
    lab.wait_connected()?;
    let tree = scratch.path().join("tree");
    write_tree(&tree, &[("noise", noise(2, 12_000_000), false)])?;
    lab.release("bulk", "1", &tree)?;
    lab.operator().run(["site", "set-limit", "berlin", LIMIT])?;
    lab.operator().run(["rollout", "start", "bulk", "1", "--detach", "--all-at-once", "--bake", "0s"])?;
    wait_for("content to flow to both", PATIENCE, || Ok((content_of(&proxy).len() == 2).then_some(())))?;
    let begun = content_of(&proxy);
    let before = share_of_limit(&proxy);
    lab.operator().run(["site", "set-limit", "berlin", "24Mbit/s"])?;
    let after = share_of_limit(&proxy);
    let ended = content_of(&proxy);
    let figure = format!("{before:.2}, then {after:.2}");
    let holds = (0.93..=1.02).contains(&before) && (2.79..=3.06).contains(&after);
    board.line(
        "site's limit of 8Mbit/s set to 24Mbit/s meanwhile",
        &figure,
        "1, then 3 times 8Mbit/s (-7 %, +2 %)",
        holds,
    );
    // Counted from when both were receiving: who began first had the link to itself for a while.
    let carried: Vec<u64> =
        begun.iter().filter_map(|(number, bytes)| Some(ended.get(number)? - bytes)).collect();
    let (least, most) = (carried.iter().min(), carried.iter().max());
    let fairness = least.zip(most).map_or(0.0, |(least, most)| *least as f64 / *most as f64);
    let holds = carried.len() == 2 && fairness > 0.9;
    board.line("  the host with less of it against the other", &format!("{fairness:.2}"), "> 0.9", holds);
    lab.stop()
}

/// Returns the bytes of each connection that carries content, by the connection's number.
fn content_of(proxy: &Proxy) -> BTreeMap<usize, u64> {
    proxy.counts().into_iter().enumerate().filter(|(_, bytes)| *bytes > 100_000).collect()
}

/// Returns what all connections carry over three seconds, as a share of [`LIMIT`].
fn share_of_limit(proxy: &Proxy) -> f64 {
    let (begun, before) = (Instant::now(), proxy.counts().iter().sum::<u64>());
    // The span of a measurement, not a wait for a condition.
    std::thread::sleep(Duration::from_secs(3));
    let carried = proxy.counts().iter().sum::<u64>() - before;
    carried as f64 / begun.elapsed().as_secs_f64() / LIMIT_BYTES_PER_SECOND
}

struct Sample {
    at: Instant,
    bytes: u64,
    silence: Duration,
}

/// Samples the busiest connection and the age of the last heartbeat until the rollout has ended.
fn watch(lab: &Lab, proxy: &Proxy) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    wait_for("the paced rollout to end", PATIENCE, || {
        let host = lab.operator().hosts()?.pop().context("no host")?;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let silence = Duration::from_millis(u64::try_from(now_ms - host.last_seen_unix_ms).unwrap_or(0));
        let bytes = proxy.counts().into_iter().max().unwrap_or(0);
        samples.push(Sample { at: Instant::now(), bytes, silence });
        Ok(host.reports.iter().any(|report| report.phase() == sluice_proto::v1::Phase::Active).then_some(()))
    })?;
    Ok(samples)
}

/// Returns the share of the limit over every window of 5 s that lies between the first and the last content byte.
fn busy_windows(samples: &[Sample]) -> Vec<f64> {
    let content = 100_000;
    let last = samples.last().map_or(0, |sample| sample.bytes);
    let busy: Vec<&Sample> =
        samples.iter().filter(|sample| sample.bytes > content && sample.bytes + content < last).collect();
    let window = Duration::from_secs(5);
    let ends = |from: &Sample| busy.iter().find(|to| to.at - from.at >= window).copied();
    busy.iter()
        .filter_map(|from| {
            let to = ends(from)?;
            let seconds = (to.at - from.at).as_secs_f64();
            Some((to.bytes - from.bytes) as f64 / seconds / LIMIT_BYTES_PER_SECOND)
        })
        .collect()
}

fn memory(board: &mut Board) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    lab.add_host("idle", "berlin", AgentOptions::default())?;
    lab.wait_connected()?;
    // Two heartbeats: what an agent needs to be idle has happened by then.
    wait_heartbeats(&lab, 2)?;
    let idle = lab.hosts()[0].memory()?;
    let figure = format!("{:.1} MiB", idle.resident as f64 / MEBIBYTE);
    board.line("idle agent, resident", &figure, "< 15 MiB", idle.resident < 15 << 20);
    match Pair::Python.fetch()? {
        Some((_, tree)) => at_full_speed(&lab, &tree)?,
        None => board.skip("agent at full speed, resident", "no python3 -m pip, or no package registry"),
    }
    lab.stop()
}

fn at_full_speed(lab: &Lab, tree: &Path) -> Result<()> {
    lab.release("bulk", "1", tree)?;
    lab.operator().run(["rollout", "start", "bulk", "1", "--all-at-once", "--bake", "0s"])?;
    let memory = lab.hosts()[0].memory()?;
    let mebibytes = |bytes: u64| bytes as f64 / MEBIBYTE;
    println!(
        "       agent after 220 MB at full speed: peak {:.1} MiB, now {:.1} MiB resident",
        mebibytes(memory.resident_peak),
        mebibytes(memory.resident)
    );
    Ok(())
}

fn wait_heartbeats(lab: &Lab, count: usize) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    wait_for("heartbeats", PATIENCE, || {
        seen.insert(lab.operator().hosts()?.pop().context("no host")?.last_seen_unix_ms);
        Ok((seen.len() > count).then_some(()))
    })
}
