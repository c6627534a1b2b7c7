//! The agent's own update, as an ordinary application; bad agents give way to the one before by themselves.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sluice_proto::v1::RolloutState;

use super::applications::running;
use super::{end, expect, roll_out};
use crate::machines::{Machine, Site};
use crate::show::board::Board;
use crate::show::kills::start_app;

const APP: &str = "sluice-agent";
/// What an agent that hangs is noticed by, shortened: two minutes and one are for hosts under load.
const IMPATIENT: &str = "[Service]\nWatchdogSec=6\nTimeoutStartSec=6\n";
/// A name that the agent looks for in the coordinator's certificate, and one of the same length that is not there.
const NAMES: [&str; 2] = ["coordinator.sluice.internal", "coordinator.sluice.nowhere-"];

pub(super) fn run(board: &mut Board, site: &Site, agent: &Path) -> Result<()> {
    let program = fs_err::read(agent)?;
    for machine in site.machines() {
        machine.write("/etc/systemd/system/sluice-agent.service.d/impatient.conf", IMPATIENT)?;
        machine.run("systemctl daemon-reload && systemctl restart sluice-agent")?;
    }
    let all = site.machines().len();
    site.wait_connected(all)?;
    let before = site.machines().iter().map(running).collect::<Result<Vec<_>>>()?;
    for version in ["1", "2"] {
        release(site, version, program.clone())?;
        let rollout = roll_out(site, APP, version)?;
        expect(site, &rollout, RolloutState::Succeeded)?;
    }
    let updated = site.machines().iter().map(runs).collect::<Result<Vec<_>>>()?;
    let good = updated
        .iter()
        .filter(|runs| runs.ends_with("/bin/sluice-agent") && runs.starts_with("/srv/sluice"))
        .count();
    board.line(
        "the agent updated twice by rollouts",
        &format!("{good} run the release"),
        &all.to_string(),
        good == all,
    );
    let bad = [
        ("exits at once", script("exit 1"), "did not start", 30),
        ("hangs", script("exec sleep infinity"), "did not start", 45),
        ("starts and cannot connect", without_connection(program)?, "not confirmed", 45),
    ];
    for (number, (what, program, why, seconds)) in bad.into_iter().enumerate() {
        let version = format!("3.{number}");
        release(site, &version, program)?;
        let begun = Instant::now();
        let id = start_app(site.lab(), APP, &version, &[])?;
        let rollout = end(site, APP, &id)?;
        let took = begun.elapsed();
        let again = site.machines().iter().map(runs).collect::<Result<Vec<_>>>()?;
        board.line(
            &format!("  an agent that {what}"),
            &format!(
                "{} after {:.0} s",
                if again == updated { "the one before" } else { "another" },
                took.as_secs_f64()
            ),
            &format!("the one before within {seconds} s"),
            again == updated && took.as_secs() <= seconds,
        );
        expect(site, &rollout, RolloutState::RolledBack)?;
        ensure!(rollout.reason.contains(why), "not {why:?}, but {}", rollout.reason);
    }
    let starts = site.machines()[0].run("cat /run/starts")?.lines().count();
    ensure!(starts == 6, "two agents that did not start were started {starts} times, not three each");
    let after = site.machines().iter().map(running).collect::<Result<Vec<_>>>()?;
    let touched = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    board.line("  applications touched by all of it", &touched.to_string(), "0", touched == 0);
    Ok(())
}

fn release(site: &Site, version: &str, program: Vec<u8>) -> Result<()> {
    let spec = b"[gate]\nconfirm_within = \"10s\"\n".to_vec();
    site.release(APP, version, &[("sluice.toml", spec, false), ("bin/sluice-agent", program, true)])
}

/// Returns a program that is no agent; it leaves a line for each of its starts.
fn script(line: &str) -> Vec<u8> {
    format!("#!/bin/sh\necho started >> /run/starts\n{line}\n").into_bytes()
}

/// Returns the program that the agent of a machine is.
fn runs(machine: &Machine) -> Result<String> {
    machine.run("readlink /proc/$(systemctl show -p MainPID --value sluice-agent)/exe")
}

/// Returns a whole agent that expects another coordinator than there is.
fn without_connection(mut program: Vec<u8>) -> Result<Vec<u8>> {
    let [name, other] = NAMES.map(str::as_bytes);
    let mut found = 0;
    while let Some(at) = program.windows(name.len()).position(|window| window == name) {
        program[at..at + name.len()].copy_from_slice(other);
        found += 1;
    }
    (found > 0).then_some(program).context("the agent's program does not hold the coordinator's name")
}
