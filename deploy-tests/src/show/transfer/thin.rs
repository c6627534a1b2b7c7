//! Updates over a thin link: one that is interrupted again and again in the middle of a frame goes on at the byte, and those
//! of hosts that share it are not cut off because each of them waits.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_common::units::format_size;
use sluice_proto::v1;

use super::work::Work;
use crate::lab::{AgentOptions, Lab, compare, noise, wait_for, write_tree};
use crate::show::board::Board;
use crate::show::kills::{start_app, wait_ended};
use crate::show::main_job::demo_executable;
use crate::show::proxy::Proxy;
use crate::trees::text;

const APP: &str = "tree";
const HOST: &str = "thin";
const SITE: &str = "berlin";
/// How long the update may take: twice what the slower link needs for it with its interruptions.
const PATIENCE: Duration = Duration::from_secs(240);
/// What an interruption may cost: the message under way and the one before it, which may not be on disk yet (32 KiB
/// each), and two connections with their handshakes. A frame that were begun again would cost hundreds.
const INTERRUPTION_BYTES: u64 = 80 << 10;
/// What else comes: orders, heartbeats, and what frames messages, as a share of the plan.
const SHARE_BESIDES: f64 = 1.05;

/// How thin the link is, what travels, and how often it is interrupted.
struct Case {
    limit: &'static str,
    changed_bytes: usize,
    interruptions: u64,
}

const FULL: Case = Case { limit: "64kbit/s", changed_bytes: 500_000, interruptions: 6 };
const QUICK: Case = Case { limit: "256kbit/s", changed_bytes: 400_000, interruptions: 3 };

/// Hosts that share a link, and what an update of one of them takes: together longer than a keepalive once could wait.
const SHARING: usize = 5;
const SHARED_BYTES: usize = 160_000;

pub(super) fn run(board: &mut Board, work: &mut Work) -> Result<()> {
    interruptions(board, work)?;
    if work.options.quick {
        board.skip("a link that hosts share", "it takes two minutes: it is in the full list");
        return Ok(());
    }
    shared(board)
}

/// Updates hosts that share one link, all but the canary at once.
fn shared(board: &mut Board) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    let proxy = Proxy::start(lab.address())?;
    for number in 0..SHARING {
        let agent = AgentOptions { dial: Some(proxy.address()), ..AgentOptions::default() };
        lab.add_host(&format!("{HOST}-{number}"), SITE, agent)?;
    }
    lab.wait_connected()?;
    let tree = scratch.path().join("tree");
    write_tree(&tree, &[("data", noise(1, SHARED_BYTES), false)])?;
    lab.release(APP, "1", &tree)?;
    lab.operator().run(["site", "set-limit", SITE, FULL.limit])?;
    let (connections, start) = (proxy.counts().len(), Instant::now());
    let all = (SHARING - 1).to_string();
    let steps = ["--canary", "1", "--batch", &all, "--max-unavailable", &all, "--bake", "0s"];
    lab.operator().run(["rollout", "start", APP, "1", "--detach"].into_iter().chain(steps))?;
    let id = lab.operator().newest_rollout(APP)?.context("no rollout was started")?.id;
    wait_for("every host to have it", PATIENCE, || {
        for host in lab.hosts() {
            let current = host.current(APP);
            if !current.exists() || !compare(&tree, &current)?.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    let (needed, took) = (proxy.counts().len() - connections, start.elapsed());
    let rollout = wait_ended(&lab, &id)?;
    ensure!(rollout.state() == v1::RolloutState::Succeeded, "{:?}: {}", rollout.state(), rollout.reason);
    board.line(
        &format!("{SHARING} hosts that share {}, {} s", FULL.limit, took.as_secs()),
        &format!("{needed} connections"),
        &format!("<= {SHARING}: none is cut off"),
        needed <= SHARING,
    );
    lab.stop()
}

fn interruptions(board: &mut Board, work: &mut Work) -> Result<()> {
    let case = if work.options.quick { QUICK } else { FULL };
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    let proxy = Proxy::start(lab.address())?;
    let agent = AgentOptions { dial: Some(proxy.address()), ..AgentOptions::default() };
    lab.add_host(HOST, SITE, agent)?;
    lab.wait_connected()?;
    let (old, new) = (scratch.path().join("old"), scratch.path().join("new"));
    write_tree(&old, &[("data", noise(1, 2_000_000), false)])?;
    // All in one frame, that leans on the file before.
    let changed = [noise(2, case.changed_bytes), noise(1, 2_000_000).split_off(case.changed_bytes)].concat();
    write_tree(&new, &[("data", changed, false)])?;
    lab.release(APP, "1", &old)?;
    let first = start_app(&lab, APP, "1", &[])?;
    ensure!(wait_ended(&lab, &first)?.state() == v1::RolloutState::Succeeded, "the base is not installed");
    lab.release(APP, "2", &new)?;
    let answer = lab.operator().run(["package", "cost", text(&old)?, text(&new)?, "--json"])?.stdout;
    let cost: serde_json::Value = serde_json::from_str(answer.trim())?;
    let plan_bytes = cost["update_bytes"].as_u64().context("no update_bytes")?;
    lab.operator().run(["site", "set-limit", SITE, case.limit])?;

    let before = carried(&proxy);
    let id = start_app(&lab, APP, "2", &[])?;
    interrupted(&mut lab, &case, || carried(&proxy) - before, plan_bytes)?;
    wait_for("the update to be current", PATIENCE, || {
        Ok(compare(&new, &lab.hosts()[0].current(APP))?.is_empty().then_some(()))
    })?;
    let bytes = carried(&proxy) - before;
    let rollout = wait_ended(&lab, &id)?;
    ensure!(rollout.state() == v1::RolloutState::Succeeded, "{:?}: {}", rollout.state(), rollout.reason);
    lab.hosts()[0].fsck(lab.executable())?;
    let bound = (plan_bytes as f64 * SHARE_BESIDES) as u64 + case.interruptions * INTERRUPTION_BYTES;
    board.line(
        &format!("{} at {}, interrupted {} times", format_size(plan_bytes), case.limit, case.interruptions),
        &format!("{} came", format_size(bytes)),
        &format!("<= {}: 80 KiB an interruption", format_size(bound)),
        bytes <= bound,
    );
    let each = bytes.saturating_sub(plan_bytes) / case.interruptions;
    println!("       beyond the plan, for each interruption: {}", format_size(each));
    lab.stop()
}

/// Kills agent and coordinator in turn, each time after an even share of the plan has come.
fn interrupted(lab: &mut Lab, case: &Case, came: impl Fn() -> u64, plan_bytes: u64) -> Result<()> {
    let share = plan_bytes / (case.interruptions + 1);
    let mut gathered = 0;
    for number in 0..case.interruptions {
        let from = came();
        wait_for("a share of the plan to come", PATIENCE, || Ok((came() - from >= share).then_some(())))?;
        if number % 2 == 0 {
            lab.host_mut(HOST)?.kill()?;
        } else {
            lab.kill_coordinator()?;
        }
        let kept = gathered_bytes(lab)?;
        ensure!(kept >= gathered, "after interruption {number} {kept} bytes are kept, {gathered} before it");
        gathered = kept;
        if number % 2 == 0 {
            lab.restart_agent(HOST)?;
        } else {
            lab.start_coordinator()?;
        }
    }
    Ok(())
}

/// Returns the bytes of frames that the host has kept.
fn gathered_bytes(lab: &Lab) -> Result<u64> {
    let mut bytes = 0;
    for staging in fs_err::read_dir(lab.hosts()[0].app_dir(APP).join("staging"))? {
        for frame in fs_err::read_dir(staging?.path().join("frames"))? {
            bytes += frame?.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn carried(proxy: &Proxy) -> u64 {
    proxy.counts().iter().sum()
}
