//! `kill -9` before every call that changes the disk, in stage, switch, roll-back and collection; and once more while the
//! restarted agent recovers.

use std::os::unix::process::ExitStatusExt;

use anyhow::{Result, ensure};

use super::stage::{Findings, Prepared, Stage, copy_disk};
use crate::faults::{Fault, Point, STORIES, Site, Story, Strike, each, spread, verdict};
use crate::show::board::Board;

/// Points of the full list.
const FULL: usize = 1_000;
/// Points of each story in the quick one.
const QUICK: usize = 8;

/// Syncs of a recovery among which the second kill is spread.
const RECOVERY_SYNCS: u32 = 9;

pub(super) fn run(board: &mut Board, stage: &Stage) -> Result<()> {
    let mut findings = Findings::default();
    for story in &STORIES {
        let prepared = stage.prepare(story)?;
        let points = match stage.options.quick {
            true => spread(&prepared.points, QUICK),
            false => prepared.points.clone(),
        };
        let wrong =
            each(story.name, &points, |worker, point| strike(stage, story, &prepared, worker, point))?;
        for (point, wrong) in points.iter().zip(wrong) {
            if let Some(wrong) = wrong {
                findings.add(story.name, point, wrong);
            }
        }
    }
    let least = if stage.options.quick { STORIES.len() * QUICK * 3 / 4 } else { FULL };
    findings.show(board, "killed, killed again while recovering, looked at", least);
    Ok(())
}

/// Kills the agent at a point and returns what was wrong then and later; nothing where it did not come to the point.
fn strike(
    stage: &Stage,
    story: &Story,
    prepared: &Prepared,
    worker: usize,
    point: &Point,
) -> Result<Option<Vec<String>>> {
    let scene = &stage.scene;
    let disk = stage.place(&format!("disk-{worker}"));
    copy_disk(&prepared.base, &disk)?;
    let site = Site::open(scene, &disk, &stage.place(&format!("evidence-{worker}")))?;
    let call = [story.last_call(scene)];
    let status = site.run_struck(scene, &call, &Strike::at(point, Fault::Kill))?;
    if status.signal().is_none() {
        ensure!(status.success(), "{}, {point}: {status}\n{}", story.name, site.log());
        return Ok(None);
    }
    let mut wrong = verdict::after_fault(scene, story, &site)?;
    // Somewhere in what recovery makes durable; where it does less than that it runs to its end.
    let call_again = if point.number.is_multiple_of(2) { "fsync" } else { "fdatasync" };
    let again = Point { call: call_again.into(), ..Point::sync(1 + point.number / 2 % RECOVERY_SYNCS) };
    site.run_struck(scene, &call, &Strike::at(&again, Fault::Kill))?;
    wrong.append(&mut verdict::after_fault(scene, story, &site)?);
    let status = site.run(scene, &call)?;
    if !status.success() {
        wrong.push(format!("the restarted agent ended with {status}: {}", site.log()));
    }
    wrong.append(&mut verdict::at_the_end(scene, story, &site, false)?);
    Ok(Some(wrong))
}
