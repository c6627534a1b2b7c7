//! A machine that is booted between a switch and its confirmation, with nobody to confirm: it goes back by itself.

use std::time::Instant;

use anyhow::Result;
use sluice_proto::v1::{Phase, RolloutState};

use super::applications::{UNIT, release, served};
use super::{end, expect, roll_out};
use crate::lab::{PATIENCE, wait_for};
use crate::machines::{Machine, Site};
use crate::show::board::Board;
use crate::show::kills::{start_app, wait_for_phase};

/// A way of booting a machine.
type Boot = fn(&mut Machine) -> Result<()>;

pub(super) fn run(board: &mut Board, site: &mut Site) -> Result<()> {
    release(site, "5", true, "")?;
    expect(site, &roll_out(site, UNIT, "5")?, RolloutState::Succeeded)?;
    let ways: [(&str, Boot); 2] = [("rebooted", Machine::reboot), ("reset", Machine::reset)];
    for (number, (what, boot)) in ways.into_iter().enumerate() {
        let version = format!("6.{number}");
        release(site, &version, true, "bake = \"60s\"\nconfirm = true")?;
        let id = start_app(site.lab(), UNIT, &version, &[])?;
        wait_for_phase(site.lab(), &id, Phase::Validating)?;
        wait_for("the new version to serve", PATIENCE, || {
            Ok((served(&site.machines()[0])? == version).then_some(()))
        })?;
        // So that nobody can tell it.
        site.lab_mut().kill_coordinator()?;
        let begun = Instant::now();
        boot(site.machine_mut(0))?;
        wait_for("the predecessor to serve again", PATIENCE, || {
            Ok((served(&site.machines()[0])? == "5").then_some(()))
        })?;
        let took = begun.elapsed();
        site.lab_mut().start_coordinator()?;
        let rollout = end(site, UNIT, &id)?;
        let holds = rollout.state() == RolloutState::RolledBack;
        board.line(
            &format!("a machine {what} between switch and confirmation"),
            &format!("back by itself after {:.1} s", took.as_secs_f64()),
            "back without coordinator",
            holds,
        );
        if !holds {
            println!("       {:?}: {}", rollout.state(), rollout.reason);
        }
        site.wait_connected(site.machines().len())?;
    }
    Ok(())
}
