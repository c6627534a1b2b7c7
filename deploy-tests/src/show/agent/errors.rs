//! Disks that fail: out of space, out of order or read-only at one call, or from that call on.

use anyhow::Result;

use super::stage::{Findings, Prepared, Stage, copy_disk};
use crate::faults::{Fault, Point, STORIES, Site, Story, Strike, each, spread, verdict};
use crate::show::board::Board;

/// Points of each story and error in the quick list.
const QUICK: usize = 4;

/// Says which calls an error happens to.
type Choice = fn(&Point) -> bool;

/// What goes wrong, how it is called, and the calls that it happens to.
const FAILURES: [(&str, Fault, Choice); 5] = [
    ("ENOSPC at one call", Fault::Fails("ENOSPC"), takes_space),
    ("ENOSPC from one call on", Fault::KeepsFailing("ENOSPC"), |point| {
        takes_space(point) && is_told_apart(point)
    }),
    ("EIO at one call", Fault::Fails("EIO"), |_| true),
    ("EIO from one call on", Fault::KeepsFailing("EIO"), is_told_apart),
    ("read-only from one call on", Fault::KeepsFailing("EROFS"), is_told_apart),
];

/// Calls that need space on the disk.
fn takes_space(point: &Point) -> bool {
    !matches!(
        point.call.as_str(),
        "fchmod" | "chmod" | "fchmodat" | "unlink" | "unlinkat" | "rmdir" | "ioctl"
    )
}

/// Calls that only change the disk: with the others the agent could not read anything from then on either.
fn is_told_apart(point: &Point) -> bool {
    point.call != "openat"
}

pub(super) fn run(board: &mut Board, stage: &Stage) -> Result<()> {
    let prepared: Vec<(&Story, Prepared)> =
        STORIES.iter().map(|story| Ok((story, stage.prepare(story)?))).collect::<Result<_>>()?;
    for (name, fault, strikes) in FAILURES {
        let mut findings = Findings::default();
        let mut least = 0;
        for (story, prepared) in &prepared {
            let points: Vec<Point> = prepared.points.iter().filter(|point| strikes(point)).cloned().collect();
            let points = if stage.options.quick { spread(&points, QUICK) } else { points };
            least += points.len();
            let what = format!("{name}, {}", story.name);
            let wrong =
                each(&what, &points, |worker, point| fail(stage, story, prepared, worker, (point, fault)))?;
            for (point, wrong) in points.iter().zip(wrong) {
                findings.add(story.name, point, wrong);
            }
        }
        findings.show(board, name, least);
    }
    Ok(())
}

/// Lets a call fail and returns what was wrong then, and once the disk was in order again.
fn fail(
    stage: &Stage,
    story: &Story,
    prepared: &Prepared,
    worker: usize,
    (point, fault): (&Point, Fault),
) -> Result<Vec<String>> {
    let scene = &stage.scene;
    let disk = stage.place(&format!("disk-{worker}"));
    copy_disk(&prepared.base, &disk)?;
    let site = Site::open(scene, &disk, &stage.place(&format!("evidence-{worker}")))?;
    let call = [story.last_call(scene)];
    let status = site.run_struck(scene, &call, &Strike::at(point, fault))?;
    let mut wrong = verdict::after_fault(scene, story, &site)?;
    let failed = site.sightings()?.last().is_some_and(|last| last.phase == "failed");
    let may_remove = !matches!(fault, Fault::KeepsFailing(error) if error != "ENOSPC");
    if status.success() && failed && may_remove {
        wrong.append(&mut verdict::space_is_free(scene, story, &site)?);
    } else if !status.success() && status.code() != Some(i32::from(sluice_agent::rehearsal::GAVE_UP)) {
        wrong.push(format!("the agent ended with {status}"));
    }
    let status = site.run(scene, &call)?;
    if !status.success() {
        wrong.push(format!("the restarted agent ended with {status}"));
    }
    wrong.append(&mut verdict::at_the_end(scene, story, &site, true)?);
    Ok(wrong)
}
