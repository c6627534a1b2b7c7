//! What `sluice rollout plan` says each site's link will carry, and what the coordinator's socket counters then did.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_common::units::format_size;
use sluice_proto::v1;
use sluice_proto::v1::fleet_client::FleetClient;

use super::super::Options;
use super::super::board::Board;
use super::super::kills::wait_ended;
use super::super::main_job::demo_executable;
use crate::lab::{AgentOptions, Lab, noise, write_tree};

const APP: &str = "shop";
/// Hosts that are there from the start, and their sites; the last one comes when the others are at the second version.
const HOSTS: [(&str, &str); 4] = [("h1", "berlin"), ("h2", "berlin"), ("h3", "berlin"), ("h4", "lisbon")];
const LATE: (&str, &str) = ("h5", "lisbon");
/// How far what is carried may be from what was said.
const TOLERANCE: f64 = 0.05;
/// The limit of one site's link.
const THIN: &str = "8Mbit/s";

pub(super) fn run(board: &mut Board, _: &Options) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    for (host, site) in HOSTS {
        lab.add_host(host, site, AgentOptions::default())?;
    }
    lab.wait_connected()?;
    lab.operator().run(["site", "set-limit", "berlin", THIN])?;
    // A cold install, an update of a part, and an update beside a cold install at one site.
    for (version, what) in [("1", "cold install"), ("2", "update"), ("3", "update beside a cold install")] {
        if version == "3" {
            lab.add_host(LATE.0, LATE.1, AgentOptions::default())?;
            lab.wait_connected()?;
        }
        let tree = scratch.path().join(version);
        write_tree(&tree, &files(version))?;
        lab.release(APP, version, &tree)?;
        forecast(board, &lab, version, what)?;
    }
    unchanged(board, &lab)?;
    small(board, &lab, scratch.path())?;
    lab.stop()
}

/// A tree of which a part changes with each version.
fn files(version: &str) -> Vec<(&'static str, Vec<u8>, bool)> {
    let changing = 100 + version.bytes().map(u64::from).sum::<u64>();
    vec![
        ("data/kept", noise(1, 1_500_000), false),
        ("data/changed", noise(changing, 400_000), false),
        ("bin/shop", [noise(2, 600_000), noise(changing + 1, 20_000), noise(3, 300_000)].concat(), true),
        ("notes.txt", format!("version {version}\n").repeat(2_000).into_bytes(), false),
    ]
}

/// An application so small that connections weigh as much as content.
fn small(board: &mut Board, lab: &Lab, scratch: &Path) -> Result<()> {
    let tree = scratch.join("small");
    write_tree(&tree, &[("settings", noise(9, 50_000), false)])?;
    lab.release("settings", "1", &tree)?;
    let said = plan(lab, "settings", "1", 1)?;
    let carried = roll_out(lab, "settings", "1")?;
    compare(board, &said, &carried, "a small cold install")
}

fn forecast(board: &mut Board, lab: &Lab, version: &str, what: &str) -> Result<()> {
    let said = plan(lab, APP, version, 1)?;
    let carried = roll_out(lab, APP, version)?;
    compare(board, &said, &carried, what)?;
    let staged = lab.operator().newest_rollout(APP)?.context("no rollout")?;
    let hosts = staged.batches.iter().flat_map(|batch| &batch.hosts).filter(|host| host.site == "berlin");
    let slowest =
        hosts.filter_map(|host| Some(host.report.as_ref()?.stage_time_us / 1000)).max().unwrap_or_default();
    let site = site(&said, "berlin")?;
    println!(
        "       berlin staged after {:.1} s, {:.1} s were said, at {THIN}",
        slowest as f64 / 1e3,
        site["staged_seconds"].as_f64().unwrap_or_default()
    );
    Ok(())
}

fn compare(board: &mut Board, said: &Value, carried: &BTreeMap<String, u64>, what: &str) -> Result<()> {
    for (name, carried) in carried {
        let said = site(said, name)?["bytes"].as_u64().context("no bytes")?;
        let ratio = *carried as f64 / said as f64;
        let figure = format!("{} of {} said = {ratio:.3}", format_size(*carried), format_size(said));
        let holds = (1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&ratio);
        board.line(&format!("{name}, {what}: bytes at the socket"), &figure, "0.95 to 1.05", holds);
    }
    Ok(())
}

fn site<'a>(said: &'a Value, name: &str) -> Result<&'a Value> {
    let sites = said["sites"].as_array().context("no sites")?;
    sites.iter().find(|site| site["site"] == name).with_context(|| format!("no site {name}"))
}

/// Asks for the plan, which has to end with this exit code.
fn plan(lab: &Lab, app: &str, version: &str, code: i32) -> Result<Value> {
    let output = lab.operator().try_run(["rollout", "plan", app, version, "--bake", "0s", "--json"])?;
    ensure!(output.code == code, "rollout plan ended with {}, not {code}: {}", output.code, output.stderr);
    Ok(serde_json::from_str(output.stdout.trim())?)
}

/// Rolls out, and returns what each site's sockets carried.
fn roll_out(lab: &Lab, app: &str, version: &str) -> Result<BTreeMap<String, u64>> {
    let before = carried(lab)?;
    let output =
        lab.operator().run(["rollout", "start", app, version, "--detach", "--bake", "0s", "--json"])?;
    let rollout: Value = serde_json::from_str(output.stdout.trim())?;
    let id = rollout["id"].as_str().context("no id")?;
    let ended = wait_ended(lab, id)?;
    ensure!(
        ended.state() == v1::RolloutState::Succeeded,
        "{app} {version} ended {:?}: {}",
        ended.state(),
        ended.reason
    );
    let after = carried(lab)?;
    Ok(after
        .into_iter()
        .map(|(site, bytes)| (site.clone(), bytes - before.get(&site).unwrap_or(&0)))
        .collect())
}

/// Returns what the content connections of each site have carried, both ways.
fn carried(lab: &Lab) -> Result<BTreeMap<String, u64>> {
    let sites = lab.operator().ask(async |channel| {
        Ok(FleetClient::new(channel).list_sites(v1::ListSitesRequest {}).await?.into_inner().sites)
    })?;
    Ok(sites.into_iter().map(|site| (site.name, site.content_bytes)).collect())
}

/// A plan of what runs already says so, and a simulation of many runs is quick.
fn unchanged(board: &mut Board, lab: &Lab) -> Result<()> {
    let again = plan(lab, APP, "3", 0)?;
    let changing = again["changing"].as_u64().context("no count")?;
    board.line(
        "hosts that change where all run the release; exit code 0",
        &changing.to_string(),
        "0",
        changing == 0,
    );
    let missing = lab.operator().try_run(["rollout", "plan", APP, "9"])?;
    board.line("exit code of a plan that cannot be", &missing.code.to_string(), "255", missing.code == 255);
    let args =
        ["simulate", APP, "2", "--runs", "5000", "--host-failure", "1%", "--bad-release", "10%", "--json"];
    let simulated: Value = serde_json::from_str(lab.operator().run(args)?.stdout.trim())?;
    let (runs, took) = (
        simulated["runs"].as_u64().context("no runs")?,
        simulated["took_seconds"].as_f64().context("no time")?,
    );
    let again: Value = serde_json::from_str(lab.operator().run(args)?.stdout.trim())?;
    let same = simulated["ends"] == again["ends"] && simulated["hurt"] == again["hurt"];
    let quick = took < 10.0;
    let figure = format!("{runs} runs in {took:.2} s");
    board.line(
        "simulate, over this fleet, the same for the same seed",
        &figure,
        "5000 under 10 s",
        runs == 5_000 && quick && same,
    );
    Ok(())
}
