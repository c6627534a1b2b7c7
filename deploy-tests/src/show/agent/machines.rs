//! Machines with systemd: real units, the agent as its package installs it, its own update, reboots, and drift.

mod applications;
mod drift;
mod reboots;
mod update;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use sluice_proto::v1::{Rollout, RolloutState};

use super::stage::Stage;
use crate::machines::{Base, Machine, Site, alone};
use crate::show::board::Board;
use crate::show::kills::{reopen, start_app, wait_ended};
use crate::show::main_job::demo_executable;

/// How exposed the unit of the agent may be, as `systemd-analyze security` counts it.
const EXPOSURE_MAX: f64 = 7.2;
/// How large the package of the agent may be as it is shipped: 20 hosts behind 2 Mbit/s have it within ten minutes.
const PACKAGE_MIB_MAX: f64 = 5.0;
/// The same in the quick list, whose agent is built as everything else is.
const QUICK_PACKAGE_MIB_MAX: f64 = 7.0;
/// What it installs.
const INSTALLED: &str = "/usr/bin/sluice-agent /usr/lib/systemd/system/sluice-agent.service";

pub(super) fn run(board: &mut Board, stage: &Stage) -> Result<()> {
    let base = Base::get(&base_dir()?)?;
    let count = if stage.options.quick { 1 } else { 3 };
    let scratch = tempfile::tempdir()?;
    let agent = agent(stage)?;
    alone(scratch.path(), || {
        let mut site = Site::start(&base, scratch.path(), &demo_executable()?, &agent, count)?;
        package(board, stage, &site)?;
        installed(board, &site)?;
        applications::run(board, &site)?;
        update::run(board, &site, &agent)?;
        reboots::run(board, &mut site)?;
        drift::run(board, &site)?;
        sound(board, &site)?;
        site.lab_mut().stop()
    })
}

/// Beside the build, which is kept from run to run.
fn base_dir() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    Ok(executable.ancestors().nth(2).context("no directory of the build")?.join("machines"))
}

/// Returns the shipped program; in the quick list the one that is built beside this one.
fn agent(stage: &Stage) -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("sluice-agent");
    if stage.options.quick {
        return Ok(beside);
    }
    let built = beside.ancestors().nth(2).context("no directory of the build")?;
    Ok(built.join("dist/sluice-agent"))
}

/// Shows how large the package is, and what it has put on a machine.
fn package(board: &mut Board, stage: &Stage, site: &Site) -> Result<()> {
    let mib = fs_err::metadata(site.package())?.len() as f64 / f64::from(1 << 20);
    let most = if stage.options.quick { QUICK_PACKAGE_MIB_MAX } else { PACKAGE_MIB_MAX };
    let bound = format!("<= {most} MiB");
    board.line("the agent's package", &format!("{mib:.1} MiB"), &bound, mib <= most);
    let files = site.machines()[0].run(
        "dpkg -L sluice-agent | while read -r path; do [ ! -f \"$path\" ] || echo \"$path\"; done | sort | xargs",
    )?;
    board.line("  installs", &files, "the agent and its unit", files == INSTALLED);
    Ok(())
}

fn installed(board: &mut Board, site: &Site) -> Result<()> {
    let mut active = 0;
    for machine in site.machines() {
        active += usize::from(machine.run("systemctl is-active sluice-agent")? == "active");
    }
    let all = site.machines().len();
    board.line(
        "the agent installed by the commands of docs/operations.md",
        &format!("active on {active}"),
        &format!("{all}"),
        active == all,
    );
    let said =
        site.machines()[0].run("systemd-analyze --no-pager security sluice-agent.service | tail -n 1")?;
    let exposure = said.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    let exposure = exposure.with_context(|| format!("no figure in {said:?}"))?;
    board.line(
        "  exposure of its unit, by systemd-analyze security",
        &exposure.to_string(),
        &format!("<= {EXPOSURE_MAX}"),
        exposure <= EXPOSURE_MAX,
    );
    Ok(())
}

/// Nothing that happened has left anything wrong behind.
fn sound(board: &mut Board, site: &Site) -> Result<()> {
    let mut found = Vec::new();
    for machine in site.machines() {
        let output = machine.try_run("sluice-agent fsck")?;
        found.extend(output.stdout.lines().map(|line| format!("{}: {line}", machine.name())));
        if output.code > 1 {
            found.push(output.stderr);
        }
        let failed = machine.run("systemctl list-units --state=failed --plain --no-legend")?;
        found.extend(failed.lines().map(|line| format!("{}: {line}", machine.name())));
    }
    board.line(
        "findings of fsck and failed units in the end",
        &found.len().to_string(),
        "0",
        found.is_empty(),
    );
    for line in found {
        println!("       {line}");
    }
    Ok(())
}

/// Rolls a version out to all machines and waits for its end.
fn roll_out(site: &Site, app: &str, version: &str) -> Result<Rollout> {
    let id = start_app(site.lab(), app, version, &[])?;
    end(site, app, &id)
}

/// Waits for the end of a rollout; one that failed leaves the application open.
fn end(site: &Site, app: &str, id: &str) -> Result<Rollout> {
    let rollout = wait_ended(site.lab(), id)?;
    if rollout.state() != RolloutState::Succeeded {
        reopen(site.lab(), app)?;
    }
    Ok(rollout)
}

/// Fails, with what the agents have logged, when a rollout did not end as it should.
fn expect(site: &Site, rollout: &Rollout, state: RolloutState) -> Result<()> {
    let logs = || -> Vec<String> {
        let log = |machine: &Machine| machine.run("journalctl --no-pager -n 20 -u sluice-agent");
        site.machines().iter().map(|machine| log(machine).unwrap_or_default()).collect()
    };
    ensure!(
        rollout.state() == state,
        "rollout of {} {} ended {:?}: {}\n{}",
        rollout.app,
        rollout.version,
        rollout.state(),
        rollout.reason,
        logs().join("\n")
    );
    Ok(())
}
