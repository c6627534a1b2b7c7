//! Disks that are really full, down to the last block, and really mounted read-only in the middle of a deployment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::{FallocateFlags, StatVfsMountFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::stage::{Findings, Stage};
use crate::faults::disk::{Kind, Mount, copy_image};
use crate::faults::story::{Ask, End, Version, named};
use crate::faults::{Point, Scene, Site, Story, verdict};
use crate::lab::{noise, write_tree};
use crate::show::board::Board;
use crate::show::main_job::demo_executable;

/// What takes the rest of the disk.
const FILLER: &str = "filler";
/// A block of the disk.
const BLOCK_BYTES: u64 = 4 << 10;
/// Between two amounts of space that are left: a few blocks.
const STEP_BYTES: u64 = 12 << 10;
/// The stories that are played on a full disk: one needs space for a release, one for state, one has only to let go.
const PLAYED: [&str; 3] = ["stage", "switch", "removal"];

pub(super) fn run(board: &mut Board, stage: &Stage) -> Result<()> {
    if let Some(why) = Kind::Ext4.obstacle() {
        board.skip("full and read-only disks", &why);
        return Ok(());
    }
    nearly_full(board, stage)?;
    in_the_middle(board, stage)
}

/// Orders come while there is no space, or hardly any: refused or given up, and carried out once there is some.
fn nearly_full(board: &mut Board, stage: &Stage) -> Result<()> {
    let amounts: u64 = if stage.options.quick { 4 } else { 24 };
    let mut findings = Findings::default();
    for story in PLAYED.into_iter().filter_map(named) {
        let image = prepared(&stage.scene, stage, story)?;
        for number in 0..amounts {
            let left = number * STEP_BYTES * 24 / amounts;
            let name = format!("{}-{number}", story.name);
            let wrong = on_a_copy(stage, &image, &name, |mount| short_of_space(stage, story, mount, left))?;
            findings.add(story.name, &struck(&format!("{left} bytes free")), wrong);
        }
    }
    findings.show(board, "a full disk, and ever more space left on it", PLAYED.len() * amounts as usize);
    Ok(())
}

/// What is done to the disk, as a line of shell, and whether that was done.
type Trouble = (&'static str, fn(&Path) -> Result<bool>);

// It has its name once there was no block left: what the agent lets go of afterwards may well make room for some.
const FULL: Trouble = ("dd if=/dev/zero of=$DISK/filling bs=4k || mv $DISK/filling $DISK/filler", was_filled);
// Refused while a file is being written; then it is asked for again.
const READ_ONLY: Trouble = ("until mount -o remount,ro $DISK; do sleep 0.01; done", is_read_only);

/// The moment at which it is done.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// In a hook.
    Hook(&'static str),
    /// While a phase is being reported.
    Report(&'static str),
}
use Moment::{Hook, Report};

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Hook(name) => write!(f, "hook {name}"),
            Report(phase) => write!(f, "report {phase}"),
        }
    }
}

/// Deployments in which there is trouble.
const TROUBLED: [(Story, Moment, Trouble); 22] = [
    (story("full-stage", &[("active", Some("full-stage")), FAILED, REVERTED]), Hook("stage"), FULL),
    (story("full-switch", &[("active", Some("full-switch")), REVERTED]), Hook("switch"), FULL),
    (story("full-start", &[("active", Some("full-start")), REVERTED]), Hook("start"), FULL),
    (story("full-validate", &[("active", Some("full-validate")), REVERTED]), Hook("validate"), FULL),
    (story("ro-stage", &[("active", Some("ro-stage")), FAILED, REVERTED]), Hook("stage"), READ_ONLY),
    (story("ro-switch", &[("active", Some("ro-switch")), REVERTED]), Hook("switch"), READ_ONLY),
    (story("ro-start", &[("active", Some("ro-start")), REVERTED]), Hook("start"), READ_ONLY),
    (story("ro-validate", &[("active", Some("ro-validate")), REVERTED]), Hook("validate"), READ_ONLY),
    (story("good", &[("active", Some("good")), FAILED]), Report("fetching"), FULL),
    (story("good", &[("active", Some("good")), FAILED]), Report("staged"), FULL),
    (story("good", &[("active", Some("good")), REVERTED]), Report("switching"), FULL),
    (story("good", &[("active", Some("good")), REVERTED]), Report("validating"), FULL),
    (story("good", &[("active", Some("good"))]), Report("active"), FULL),
    (story("bad", &[REVERTED]), Report("reverting"), FULL),
    (story("bad", &[REVERTED]), Report("reverted"), FULL),
    (story("good", &[("active", Some("good")), FAILED]), Report("fetching"), READ_ONLY),
    (story("good", &[("active", Some("good")), FAILED]), Report("staged"), READ_ONLY),
    (story("good", &[("active", Some("good")), REVERTED]), Report("switching"), READ_ONLY),
    (story("good", &[("active", Some("good")), REVERTED]), Report("validating"), READ_ONLY),
    (story("good", &[("active", Some("good"))]), Report("active"), READ_ONLY),
    (story("bad", &[REVERTED]), Report("reverting"), READ_ONLY),
    (story("bad", &[REVERTED]), Report("reverted"), READ_ONLY),
];
const FAILED: End = ("failed", Some("1"));
const REVERTED: End = ("reverted", Some("1"));

const fn story(version: Version, ends: &'static [End]) -> Story {
    Story { name: version, before: &[Ask::Active("1")], last: Ask::Active(version), ends }
}

/// The disk is filled, or mounted read-only, in a hook of the deployment itself, or while it is reported: in that very moment.
fn in_the_middle(board: &mut Board, stage: &Stage) -> Result<()> {
    let mut scene = Scene::empty(&demo_executable()?, &stage.place("troubled"))?;
    write_tree(&scene.tree("1"), &[("VERSION", b"1".to_vec(), false)])?;
    for (story, moment, (line, _)) in &TROUBLED {
        let (hook, line) = match moment {
            Hook(hook) => (*hook, format!("DISK=$(df --output=target . | tail -n 1); {line}")),
            Report(_) if story.name == "bad" => ("validate", "exit 1".to_owned()),
            Report(_) => ("validate", "true".to_owned()),
        };
        let once = match moment {
            Hook(_) => format!("[ -e $LOG.done ] || {{ touch $LOG.done; {line}; }}"),
            Report(_) => line,
        };
        let spec = format!("[hooks.{hook}]\ncommand = [\"/bin/sh\", \"-c\", \"{once}\"]\n");
        let files = [
            ("sluice.toml", spec.into_bytes(), false),
            ("VERSION", story.name.into(), false),
            // So much that there is something to fetch after the report that it begins.
            ("noise", noise(1, 300_000), false),
        ];
        write_tree(&scene.tree(story.name), &files)?;
    }
    let versions: BTreeSet<Version> = TROUBLED.iter().map(|(story, ..)| story.name).chain(["1"]).collect();
    scene.pack(&versions.into_iter().collect::<Vec<_>>())?;
    let image = prepared(&scene, stage, &TROUBLED[0].0)?;
    let (mut hooks, mut reports) = (Findings::default(), Findings::default());
    for (number, (story, moment, trouble)) in TROUBLED.iter().enumerate() {
        let name = format!("{}-{number}", story.name);
        let wrong = on_a_copy(stage, &image, &name, |mount| {
            troubled(&scene, stage, story, mount, *moment, *trouble)
        })?;
        let findings = match moment {
            Hook(_) => &mut hooks,
            Report(_) => &mut reports,
        };
        findings.add(story.name, &struck(&format!("{moment}, {}", trouble.0)), wrong);
    }
    hooks.show(board, "filled, or mounted read-only, in a hook", 8);
    reports.show(board, "filled, or mounted read-only, while reporting", TROUBLED.len() - 8);
    Ok(())
}

/// Gives the last order of a story while so many bytes are left, and again when there is space; returns what was wrong.
fn short_of_space(stage: &Stage, story: &Story, mount: &Mount, left: u64) -> Result<Vec<String>> {
    let site = site(&stage.scene, stage, mount)?;
    fill(mount.path(), left)?;
    let status = site.run(&stage.scene, &[story.last_call(&stage.scene)])?;
    let mut wrong = verdict::after_fault(&stage.scene, story, &site)?;
    let failed = site.sightings()?.last().is_some_and(|last| last.phase == "failed");
    if status.success() && failed {
        wrong.append(&mut verdict::space_is_free(&stage.scene, story, &site)?);
    }
    fs_err::remove_file(mount.path().join(FILLER))?;
    wrong.append(&mut recover(&stage.scene, story, &site)?);
    Ok(wrong)
}

/// Gives the last order of a story with trouble in it, and again when that is over; returns what was wrong.
fn troubled(
    scene: &Scene,
    stage: &Stage,
    story: &Story,
    mount: &Mount,
    moment: Moment,
    (line, was_done): Trouble,
) -> Result<Vec<String>> {
    let site = site(scene, stage, mount)?;
    // Whether it gives up or comes to an end: what it leaves is judged.
    let last = [story.last_call(scene)];
    match moment {
        Hook(_) => site.run(scene, &last)?,
        Report(phase) => {
            let line = format!("DISK={}; {line}", mount.path().display());
            site.run_troubled(scene, &last, (phase, &line))?
        }
    };
    let mut wrong = verdict::after_fault(scene, story, &site)?;
    if !was_done(mount.path())? {
        wrong.push(format!("nothing was done to the disk: {}", site.log()));
    }
    mount.make_writable()?;
    let filler = mount.path().join(FILLER);
    if filler.exists() {
        fs_err::remove_file(filler)?;
    }
    wrong.append(&mut recover(scene, story, &site)?);
    Ok(wrong)
}

/// Has the agent go on with a disk that is in order again, and says what is wrong in the end.
fn recover(scene: &Scene, story: &Story, site: &Site) -> Result<Vec<String>> {
    let status = site.run(scene, &[story.last_call(scene)])?;
    let mut wrong = verdict::at_the_end(scene, story, site, true)?;
    if !status.success() {
        wrong.push(format!("the restarted agent ended with {status}"));
    }
    Ok(wrong)
}

/// Makes an image with a story before its last order.
fn prepared(scene: &Scene, stage: &Stage, story: &Story) -> Result<PathBuf> {
    let image = stage.place(&format!("disk-{}.img", story.name));
    Kind::Ext4.make(&image)?;
    let mount = Mount::new(Kind::Ext4, &image, &stage.place("disk"))?;
    site(scene, stage, &mount)?.prepare(scene, story)?;
    mount.unmount()?;
    Ok(image)
}

/// Calls `work` with a copy of an image, mounted.
fn on_a_copy<T>(
    stage: &Stage,
    image: &Path,
    name: &str,
    work: impl FnOnce(&Mount) -> Result<T>,
) -> Result<T> {
    // Each of its own name: where somebody's namespace still holds the last mount, its name would lead to what is cached of it.
    let copy = stage.place(&format!("disk-{name}-copy.img"));
    copy_image(image, &copy)?;
    let mount = Mount::new(Kind::Ext4, &copy, &stage.place("disk"))?;
    let done = work(&mount)?;
    mount.unmount()?;
    fs_err::remove_file(copy)?;
    Ok(done)
}

fn site(scene: &Scene, stage: &Stage, mount: &Mount) -> Result<Site> {
    Site::open(scene, mount.path(), &stage.place("disk-evidence"))
}

/// Takes the disk at `path`, what is kept for root included, but for so many bytes.
fn fill(path: &Path, left: u64) -> Result<()> {
    let file = fs_err::File::create(path.join(FILLER))?;
    let (mut taken, mut piece) = (0, 1 << 20);
    while piece >= BLOCK_BYTES {
        match fallocate(&file, FallocateFlags::empty(), taken, piece) {
            Ok(()) => taken += piece,
            Err(Errno::NOSPC) => piece /= 2,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(file.set_len(taken.saturating_sub(left))?)
}

fn is_read_only(path: &Path) -> Result<bool> {
    Ok(statvfs(path)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn was_filled(path: &Path) -> Result<bool> {
    Ok(path.join(FILLER).try_exists()?)
}

fn struck(shown: &str) -> Point {
    Point { call: "disk".into(), number: 0, file: None, shown: shown.to_owned() }
}
