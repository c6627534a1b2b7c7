//! Power cuts before every call that changes the disk, on ext4 and XFS: the agent is killed there, its file system loses
//! whatever was not synced, and the host boots.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::stage::{Findings, Stage};
use crate::faults::disk::{Kind, Mount, copy_image};
use crate::faults::{Fault, Point, STORIES, Site, Story, Strike, each, points, spread, verdict};
use crate::show::board::Board;

/// Points of the full list, for each kind of file system.
const FULL: usize = 300;
/// Points of each story in the quick one.
const QUICK: usize = 3;

pub(super) fn run(board: &mut Board, stage: &Stage) -> Result<()> {
    for kind in Kind::ALL {
        let what = format!("{}: power cut, booted, looked at, started again", kind.as_str());
        if let Some(why) = kind.obstacle() {
            board.skip(&what, &why);
            continue;
        }
        let mut findings = Findings::default();
        for story in &STORIES {
            let cutting = Cutting::prepare(stage, kind, story)?;
            let count = if stage.options.quick { QUICK } else { FULL / 4 };
            let points = spread(&cutting.points, count);
            let wrong = each(&cutting.name(), &points, |worker, point| cutting.cut(worker, point))?;
            for (point, wrong) in points.iter().zip(wrong) {
                if let Some(wrong) = wrong {
                    findings.add(story.name, point, wrong);
                }
            }
        }
        findings.show(board, &what, if stage.options.quick { 18 } else { FULL });
    }
    Ok(())
}

/// A story on a file system that loses its power.
pub(super) struct Cutting<'a> {
    stage: &'a Stage,
    kind: Kind,
    story: &'a Story,
    base: PathBuf,
    /// The calls of the story's last order.
    pub(super) points: Vec<Point>,
}

impl<'a> Cutting<'a> {
    /// Prepares a story on an image, and finds its points on a copy.
    pub(super) fn prepare(stage: &'a Stage, kind: Kind, story: &'a Story) -> Result<Self> {
        let base = stage.place(&format!("{}-{}.img", kind.as_str(), story.name.replace(' ', "-")));
        let evidence = stage.place("prepare");
        let mount = stage.place("mnt-prepare");
        if !base.exists() {
            kind.make(&base)?;
            let mounted = Mount::new(kind, &base, &mount)?;
            Site::open(&stage.scene, mounted.path(), &evidence)?.prepare(&stage.scene, story)?;
            mounted.unmount()?;
        }
        let copy = stage.place("traced.img");
        copy_image(&base, &copy)?;
        let mounted = Mount::new(kind, &copy, &mount)?;
        let site = Site::open(&stage.scene, mounted.path(), &evidence)?;
        let points = points::find(&stage.scene, story, &site, &stage.place("trace"))?;
        mounted.unmount()?;
        Ok(Self { stage, kind, story, base, points })
    }

    fn place(&self, worker: usize, name: &str) -> PathBuf {
        self.stage.place(&format!("{name}-{worker}"))
    }

    /// Returns the image as it stands before the last order.
    pub(super) fn into_base(self) -> PathBuf {
        self.base
    }

    /// Returns the file system's and the story's name.
    pub(super) fn name(&self) -> String {
        format!("{}, {}", self.kind.as_str(), self.story.name)
    }

    /// Kills the agent at a point and cuts the power there. Returns what was wrong then and later; nothing where the agent
    /// did not come to the point.
    fn cut(&self, worker: usize, point: &Point) -> Result<Option<Vec<String>>> {
        self.strike(worker, &Strike::at(point, Fault::Kill), false)
    }

    /// Lets faults strike and cuts the power where the agent has ended, however that was; returns what was wrong.
    pub(super) fn cut_anywhere(&self, worker: usize, strike: &Strike) -> Result<Vec<String>> {
        Ok(self.strike(worker, strike, true)?.unwrap_or_default())
    }

    fn strike(&self, worker: usize, strike: &Strike, cuts_anywhere: bool) -> Result<Option<Vec<String>>> {
        let (scene, story) = (&self.stage.scene, self.story);
        let image = self.place(worker, "disk.img");
        copy_image(&self.base, &image)?;
        let mut mount = Mount::new(self.kind, &image, &self.place(worker, "mnt"))?;
        let site = Site::open(scene, mount.path(), &self.place(worker, "evidence"))?;
        let status = site.run_struck(scene, &[story.last_call(scene)], strike)?;
        if status.signal().is_none() {
            ensure!(status.success(), "{}: {status}\n{}", story.name, site.log());
            if !cuts_anywhere {
                mount.unmount()?;
                return Ok(None);
            }
        }
        mount.cut_power()?;
        let wrong = judge_booted(self.stage, story, &site)?;
        mount.unmount()?;
        Ok(Some(wrong))
    }
}

/// Judges a host that has booted after a cut, and again after its agent has run.
pub(super) fn judge_booted(stage: &Stage, story: &Story, site: &Site) -> Result<Vec<String>> {
    let mut wrong = verdict::after_fault(&stage.scene, story, site)?;
    let status = site.run_rebooted(&stage.scene, &[story.last_call(&stage.scene)])?;
    if !status.success() {
        wrong.push(format!("the agent of the booted host ended with {status}: {}", last_line(&site.log())));
    }
    wrong.append(&mut verdict::at_the_end(&stage.scene, story, site, false)?);
    Ok(wrong)
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}
