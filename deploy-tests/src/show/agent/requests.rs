//! Zero failed requests: deployments of a web application behind a real HAProxy and a real nginx, rolling over four hosts
//! and in parallel production on one, under an open-loop load; and bad versions that go back by themselves.

mod balancer;
mod farm;
mod load;

use anyhow::{Result, ensure};
use sluice_proto::v1::RolloutState;

use super::stage::Stage;
use crate::lab::{PATIENCE, wait_for};
use crate::show::board::Board;
use crate::show::kills::{reopen, start_app, wait_ended};
use balancer::Kind;
use farm::{APP, Farm, Quality, Style};
use load::Load;

/// Requests a second.
const RATE: u32 = 2_000;
/// Of how many deployments one is of a bad version.
const BAD_ONE_IN: usize = 5;

pub(super) fn run(board: &mut Board, stage: &Stage) -> Result<()> {
    let (deployments, requests) = if stage.options.quick { (2, 6_000) } else { (20, 500_000) };
    for kind in Kind::ALL {
        for style in Style::ALL {
            let what = format!("{deployments} deployments, {}, behind {}", style.as_str(), kind.as_str());
            match kind.obstacle() {
                Some(why) => board.skip(&what, &why),
                None => deploy(board, &what, (kind, style), (deployments, requests / 2))?,
            }
        }
    }
    Ok(())
}

/// Deploys so many versions one after the other, and one bad one for some of them; at least so many requests are sent meanwhile.
fn deploy(
    board: &mut Board,
    what: &str,
    (kind, style): (Kind, Style),
    (deployments, requests): (usize, u64),
) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let farm = Farm::start(scratch.path(), kind, style)?;
    roll_out(&farm, "0", Quality::Good)?;
    let load = Load::start(farm.port(), RATE)?;
    let mut bad = 0;
    for number in 1..=deployments {
        roll_out(&farm, &number.to_string(), Quality::Good)?;
        if number % BAD_ONE_IN == 0 || number == deployments {
            bad += 1;
            roll_out(&farm, &format!("{number}-bad"), Quality::Bad)?;
        }
        load.check_version(&number.to_string())?;
    }
    // Its gate fails after the traffic has moved to it.
    let late = format!("{deployments}-late");
    let id = start(&farm, &late, Quality::FailsLate)?;
    load.check_version(&late)?;
    end(&farm, &id, &late, Quality::FailsLate)?;
    load.check_version(&deployments.to_string())?;
    wait_for("the requests to be sent", PATIENCE * 3, || Ok((load.answered() >= requests).then_some(())))?;
    let count = load.end();
    let figure = format!("{} of {}", count.failed, count.sent);
    board.line(what, &figure, "0 failed", count.failed == 0 && count.sent >= requests);
    if let Some(reason) = &count.first_failure {
        println!("       the first: {reason}");
    }
    println!(
        "       {bad} bad versions went back, and one that had the traffic; p50 {:.1} ms, p99 {:.1} ms, longest {:.0} ms; {} sent again on a new connection",
        count.quantile_ms(0.5),
        count.quantile_ms(0.99),
        count.quantile_ms(1.0),
        count.resent
    );
    farm.stop()
}

/// Rolls a version out, and sees that it ends as it should.
fn roll_out(farm: &Farm, version: &str, quality: Quality) -> Result<()> {
    let id = start(farm, version, quality)?;
    end(farm, &id, version, quality)
}

fn start(farm: &Farm, version: &str, quality: Quality) -> Result<String> {
    farm.release(version, quality)?;
    start_app(farm.lab(), APP, version, &[])
}

fn end(farm: &Farm, id: &str, version: &str, quality: Quality) -> Result<()> {
    let rollout = wait_ended(farm.lab(), id)?;
    let is_complete = rollout.state() == RolloutState::Succeeded;
    ensure!(
        is_complete == (quality == Quality::Good),
        "version {version} ended {:?}: {}; the applications said:\n{}",
        rollout.state(),
        rollout.reason,
        farm.output()
    );
    if is_complete { Ok(()) } else { reopen(farm.lab(), APP) }
}
