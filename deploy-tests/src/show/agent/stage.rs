//! What the sections share: the scene, scratch space in memory, and how findings are shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::apart;
use crate::faults::{Scene, Site, Story, points, points::Point};
use crate::show::Options;
use crate::show::board::Board;
use crate::show::main_job::demo_executable;

/// Findings of one kind that are printed; the rest is only counted.
const SHOWN: usize = 5;

/// What the sections share.
pub(super) struct Stage {
    pub(super) options: Options,
    pub(super) scene: Scene,
    scratch: tempfile::TempDir,
}

impl Stage {
    pub(super) fn set(options: &Options) -> Result<Self> {
        // In memory: syncs cost nothing there, and what a power cut loses is decided by the file system, not by its disk.
        let scratch = tempfile::tempdir_in(apart::memory())?;
        let scene = Scene::make(&demo_executable()?, &scratch.path().join("scene"))?;
        Ok(Self { options: options.clone(), scene, scratch })
    }

    /// Returns a place for something of this name.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Prepares a story on a disk of its own, and finds its points on a copy.
    pub(super) fn prepare(&self, story: &Story) -> Result<Prepared> {
        let base = self.place(&format!("base-{}", story.name.replace(' ', "-")));
        let evidence = self.place("prepare");
        if !base.exists() {
            Site::open(&self.scene, &base, &evidence)?.prepare(&self.scene, story)?;
        }
        let copy = self.place("traced");
        copy_disk(&base, &copy)?;
        let site = Site::open(&self.scene, &copy, &evidence)?;
        let points = points::find(&self.scene, story, &site, &self.place("trace"))?;
        fs_err::remove_dir_all(&copy)?;
        Ok(Prepared { base, points })
    }
}

/// A story before its last order.
pub(super) struct Prepared {
    /// The disk as it stands.
    pub(super) base: PathBuf,
    /// What the last order does to it.
    pub(super) points: Vec<Point>,
}

/// Makes `to` the same as `from`, links between files included.
pub(super) fn copy_disk(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs_err::remove_dir_all(to)?;
    }
    crate::measure::run({
        let mut command = Command::new("cp");
        command.arg("-a").args([from, to]);
        command
    })?;
    Ok(())
}

/// What was found wrong after faults, by story.
#[derive(Default)]
pub(super) struct Findings {
    struck: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

impl Findings {
    /// Counts a fault that struck, and keeps what was wrong after it.
    pub(super) fn add(&mut self, story: &'static str, point: &Point, wrong: Vec<String>) {
        *self.struck.entry(story).or_default() += 1;
        self.wrong.extend(wrong.iter().map(|wrong| format!("{story}, {point}: {wrong}")));
    }

    pub(super) fn struck(&self) -> usize {
        self.struck.values().sum()
    }

    /// Shows a line, the stories that were struck, and the first findings.
    pub(super) fn show(&self, board: &mut Board, what: &str, least: usize) {
        let figure = format!("{} violations in {} points", self.wrong.len(), self.struck());
        let holds = self.wrong.is_empty() && self.struck() >= least;
        board.line(what, &figure, &format!("0 in >= {least}"), holds);
        let stories: Vec<String> =
            self.struck.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("       {}", stories.join(", "));
        for wrong in self.wrong.iter().take(SHOWN) {
            println!("       {wrong}");
        }
    }
}
