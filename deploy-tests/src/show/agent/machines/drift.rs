//! Drift on a machine: what somebody has done to the active release is found, mended, and told.

use std::time::Instant;

use anyhow::{Context, Result};

use super::applications::UNIT;
use crate::lab::{PATIENCE, wait_for};
use crate::machines::Site;
use crate::show::board::Board;

/// What is done to the release in `current`, and a line of shell that says whether it is undone.
const DONE: [(&str, &str, &str); 3] = [
    ("a file changed", "echo changed > index.txt", "grep -q '^shop' index.txt"),
    ("a file removed", "rm health", "[ -f health ]"),
    ("a mode changed", "chmod 600 bin/serve", "[ $(stat -c %a bin/serve) = 755 ]"),
];

pub(super) fn run(board: &mut Board, site: &Site) -> Result<()> {
    let machine = &site.machines()[0];
    machine.run(
        "printf '\\n[drift]\\nlook = \"1s\"\\n' >> /etc/sluice/agent.toml && systemctl restart sluice-agent",
    )?;
    site.wait_connected(site.machines().len())?;
    let before = mended(site)?;
    for (number, (what, line, is_undone)) in DONE.into_iter().enumerate() {
        machine.run(&format!("cd /srv/sluice/{UNIT}/current && {line}"))?;
        let begun = Instant::now();
        wait_for(&format!("{what} to be mended"), PATIENCE, || {
            Ok((machine.try_run(&format!("cd /srv/sluice/{UNIT}/current && {is_undone}"))?.code == 0)
                .then_some(()))
        })?;
        let took = begun.elapsed();
        let expected = before + number as u64 + 1;
        wait_for("the coordinator to be told", PATIENCE, || Ok((mended(site)? >= expected).then_some(())))?;
        board.line(
            &format!("drift: {what}"),
            &format!("mended in {:.1} s, told", took.as_secs_f64()),
            "looked for each second",
            mended(site)? == expected,
        );
    }
    // What is not Sluice's is not Sluice's to remove: it is told until somebody does.
    machine.run(&format!("cd /srv/sluice/{UNIT}/current && echo added > added"))?;
    wait_for("the coordinator to be told", PATIENCE, || Ok(shown(site)?.contains("added of").then_some(())))?;
    let line = shown(site)?;
    machine.run(&format!("rm /srv/sluice/{UNIT}/current/added"))?;
    wait_for("the coordinator to be told", PATIENCE, || {
        Ok(shown(site)?.contains("none any more").then_some(()))
    })?;
    board.line("drift: a file added", "told, left, told when it is gone", "sluice host show", true);
    println!("       {line}");
    Ok(())
}

/// Returns what `sluice host show` tells of drift.
fn shown(site: &Site) -> Result<String> {
    let shown = site.lab().operator().run(["host", "show", site.machines()[0].name()])?.stdout;
    Ok(shown.lines().find(|line| line.starts_with("drift of")).unwrap_or_default().to_owned())
}

/// Says how many entries of the first machine's release were mended, as the coordinator knows it.
fn mended(site: &Site) -> Result<u64> {
    let hosts = site.lab().operator().hosts()?;
    let host = hosts.iter().find(|host| host.name == site.machines()[0].name()).context("no such host")?;
    let reports = host.reports.iter().filter(|report| report.app == UNIT);
    Ok(reports.filter_map(|report| report.drift.as_ref()).map(|drift| drift.mended).sum())
}
