//! A flipped byte, wherever it strikes, is refused and fetched anew.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sluice_proto::v1;

use super::Options;
use super::board::Board;
use super::kills::{start_app, wait_ended, wait_for_phase};
use super::main_job::demo_executable;
use crate::lab::{AgentOptions, Lab, PATIENCE, compare, noise, wait_for, write_tree};

const APP: &str = "flip";

pub(super) fn run(board: &mut Board, _: &Options) -> Result<()> {
    frame_on_its_way(board)?;
    frame_in_the_depot(board)?;
    pack_in_the_depot(board)?;
    staged_file(board)
}

/// Inverts the byte in the middle of a file.
fn flip(path: &Path) -> Result<()> {
    let mut file = fs_err::OpenOptions::new().read(true).write(true).open(path)?;
    let middle = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.seek(SeekFrom::Start(middle))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(middle))?;
    Ok(file.write_all(&[!byte[0]])?)
}

/// Returns the files below `dir` that hold at least `least` bytes.
fn large_files(dir: &Path, least: u64) -> Result<Vec<PathBuf>> {
    let (mut found, mut pending) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = pending.pop() {
        for entry in fs_err::read_dir(&dir)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => pending.push(entry.path()),
                kind if kind.is_file() && entry.metadata()?.len() >= least => found.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(found)
}

struct Bench {
    scratch: tempfile::TempDir,
    lab: Lab,
}

impl Bench {
    fn start(hosts: &[(&str, Option<&str>)]) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
        for (name, limit) in hosts {
            let options = AgentOptions { limit: limit.map(str::to_owned), ..AgentOptions::default() };
            lab.add_host(name, "berlin", options)?;
        }
        lab.wait_connected()?;
        Ok(Self { scratch, lab })
    }

    /// Makes and registers a release; returns its tree.
    fn release(&self, version: &str, seed: u64) -> Result<PathBuf> {
        let tree = self.scratch.path().join(version);
        write_tree(
            &tree,
            &[("bin/noise", noise(seed, 3_000_000), true), ("small", noise(seed + 1, 5_000), false)],
        )?;
        self.lab.release(APP, version, &tree)?;
        Ok(tree)
    }

    /// Waits for the rollout to succeed and returns how many hosts differ from `tree`.
    fn differing(&self, id: &str, tree: &Path, hosts: &[&str]) -> Result<usize> {
        let rollout = wait_ended(&self.lab, id)?;
        ensure!(rollout.state() == v1::RolloutState::Succeeded, "{:?}: {}", rollout.state(), rollout.reason);
        let mut differing = 0;
        for host in self.lab.hosts().iter().filter(|host| hosts.contains(&host.name())) {
            differing += usize::from(!compare(tree, &host.current(APP))?.is_empty());
            host.fsck(self.lab.executable())?;
        }
        Ok(differing)
    }
}

fn show(board: &mut Board, what: &str, differing: usize) {
    board.line(what, &format!("{differing} hosts differ"), "refused, fetched anew: 0", differing == 0);
}

/// A frame half received: the agent is stopped, a byte of what it has is flipped, it goes on.
fn frame_on_its_way(board: &mut Board) -> Result<()> {
    let mut bench = Bench::start(&[("h1", Some("8Mbit/s"))])?;
    let tree = bench.release("1", 10)?;
    let id = start_app(&bench.lab, APP, "1", &[])?;
    let staging = bench.lab.hosts()[0].app_dir(APP).join("staging");
    let part = wait_for("a frame to be half received", PATIENCE, || {
        Ok(large_files(&staging, 1_000_000).unwrap_or_default().pop())
    })?;
    bench.lab.host_mut("h1")?.kill()?;
    flip(&part)?;
    bench.lab.restart_agent("h1")?;
    show(board, "byte flipped in a frame half received", bench.differing(&id, &tree, &["h1"])?);
    bench.lab.stop()
}

/// A stored frame: served to one host, damaged, asked for by another.
fn frame_in_the_depot(board: &mut Board) -> Result<()> {
    let mut bench = Bench::start(&[("h1", None), ("h2", None)])?;
    let tree = bench.release("1", 20)?;
    let first = start_app(&bench.lab, APP, "1", &["--selector", "host=h1"])?;
    bench.differing(&first, &tree, &["h1"])?;
    let frames = large_files(&bench.lab.coordinator_dir().join("depot/frames"), 1_000_000)?;
    ensure!(!frames.is_empty(), "no frame in the depot");
    frames.iter().try_for_each(|frame| flip(frame))?;
    let second = start_app(&bench.lab, APP, "1", &["--selector", "host=h2"])?;
    show(board, "byte flipped in a frame of the depot", bench.differing(&second, &tree, &["h2"])?);
    bench.lab.stop()
}

/// A stored pack: what it held is refused until it is pushed again, and then rolls out.
fn pack_in_the_depot(board: &mut Board) -> Result<()> {
    let mut bench = Bench::start(&[("h1", None)])?;
    let tree = bench.release("1", 30)?;
    // What the coordinator still has in memory is not read from disk.
    bench.lab.kill_coordinator()?;
    for pack in large_files(&bench.lab.coordinator_dir().join("depot/packs"), 1_000_000)? {
        flip(&pack)?;
    }
    bench.lab.start_coordinator()?;
    bench.lab.wait_connected()?;
    let id = start_app(&bench.lab, APP, "1", &[])?;
    let log = bench.lab.dir().join("coordinator.log");
    wait_for("the coordinator to find the damage", PATIENCE, || {
        Ok(fs_err::read_to_string(&log)?.contains("damaged").then_some(()))
    })?;
    let current = bench.lab.hosts()[0].current(APP);
    ensure!(fs_err::read_link(&current).is_err(), "a damaged package was switched to");
    let tree_text = tree.to_str().context("a path that is not UTF-8")?;
    bench.lab.operator().run(["package", "push", tree_text])?;
    show(board, "byte flipped in a pack of the depot, pushed again", bench.differing(&id, &tree, &["h1"])?);
    bench.lab.stop()
}

/// A file of a staged release that waits for its turn behind a slow host.
fn staged_file(board: &mut Board) -> Result<()> {
    let mut bench = Bench::start(&[("fast", None), ("slow", Some("8Mbit/s"))])?;
    let tree = bench.release("1", 40)?;
    let id = start_app(&bench.lab, APP, "1", &[])?;
    wait_for_phase(&bench.lab, &id, v1::Phase::Staged)?;
    let releases = bench.lab.hosts()[0].app_dir(APP).join("releases");
    let staged = large_files(&releases, 1_000_000)?.pop().context("nothing is staged")?;
    flip(&staged)?;
    show(board, "byte flipped in a staged file", bench.differing(&id, &tree, &["fast", "slow"])?);
    bench.lab.stop()
}
