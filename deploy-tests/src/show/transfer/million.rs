//! Packages of a million entries: what each end holds in memory. Each step with two manifests alone, and the whole way of such
//! a package, from the command line through the coordinator to a host.

use std::path::Path;

use anyhow::{Context, Result};

use super::applying::{Bench, Sampler};
use super::work::Work;
use crate::lab::memory_of;
use crate::measure::{self, Step};
use crate::role::Role;
use crate::show::board::Board;
use crate::show::main_job::demo_executable;
use crate::trees::text;

/// Most entries that a package may have.
const ENTRIES: u64 = sluice_common::caps::MANIFEST_ENTRIES_MAX;
/// What either end may hold for one of so many, in bytes.
const BOUND_BYTES: u64 = 256 << 20;
const APP: &str = "tree";
const MEBIBYTE: f64 = (1 << 20) as f64;
/// Files of a directory.
const FILES: u64 = 999;
/// One of so many is another in the second version.
const CHANGED: u64 = 200;

pub(super) fn run(board: &mut Board, work: &mut Work) -> Result<()> {
    steps(board)?;
    if work.options.quick {
        board.skip("a million files, the whole way", "in the full list only: they take 10 GB of disk");
        return Ok(());
    }
    whole_way(board)
}

/// Takes each step in a process of its own.
fn steps(board: &mut Board) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = |step: Step| {
        let mut command = Role::Manifests.command(&demo_executable()?);
        command.arg(step.as_str()).arg(folder.path()).arg(ENTRIES.to_string());
        measure::alone(&command)
    };
    run(Step::Make)?;
    for step in Step::ALL {
        let (output, usage) = run(step)?;
        let what = format!("{} ({})", words(step), String::from_utf8_lossy(&output.stdout).trim());
        peak_line(board, &what, usage.peak_bytes);
        println!("       {:.1} s of CPU", usage.cpu_seconds());
    }
    Ok(())
}

fn words(step: Step) -> &'static str {
    match step {
        Step::Make => "making both",
        Step::Decode => "taking a manifest in",
        Step::PlanCold => "planning a cold install",
        Step::PlanUpdate => "planning an update",
        Step::Compress => "compressing a manifest",
        Step::CompressUpdate => "compressing it against another",
        Step::Restore => "restoring it",
        Step::RestoreUpdate => "restoring it against another",
    }
}

fn peak_line(board: &mut Board, what: &str, peak_bytes: u64) {
    let holds = peak_bytes > 0 && peak_bytes <= BOUND_BYTES;
    board.line(what, &format!("{:.0} MiB at most", peak_bytes as f64 / MEBIBYTE), "<= 256 MiB", holds);
}

/// Brings two versions of a tree to a host; what processes that stay hold beside what they held before.
fn whole_way(board: &mut Board) -> Result<()> {
    let mut bench = Bench::start("quick")?;
    let tree = bench.scratch.path().join("million");
    write(&tree, 0)?;
    let coordinator = bench.lab.coordinator_process()?.id();
    for (version, what) in [("1", "first version"), ("2", "update")] {
        if version == "2" {
            write(&tree, 1)?;
        }
        let before = memory_of(coordinator)?.anonymous;
        let sampler = Sampler::start(coordinator);
        let push = bench.lab.operator().command(["package", "push", text(&tree)?]);
        let (_, usage) = measure::alone(&push).context("pushing a million files")?;
        peak_line(board, &format!("{what}: the command line, pushing"), usage.peak_bytes);
        peak_line(
            board,
            "  the coordinator, taking it in, beside what it held",
            sampler.stop().saturating_sub(before),
        );
        bench.lab.release(APP, version, &tree)?;
        let staged = bench.roll(version, 1)?;
        peak_line(board, "  the agent, staging it", staged.applied().anonymous_peak);
        println!("       staged and switched in {:.0} s", staged.applied().wall);
        // Its caches and the plan that it makes ahead among them, which no bound is promised for yet.
        let whole = memory_of(coordinator)?.resident_peak as f64 / MEBIBYTE;
        println!("       the coordinator as a whole has held {whole:.0} MiB at most");
    }
    bench.lab.stop()
}

/// Writes a tree, or of one that stands the files that differ in this version.
fn write(tree: &Path, version: u64) -> Result<()> {
    for number in 0..ENTRIES {
        let directory = tree.join(format!("usr-share-package-{:04}", number / (FILES + 1)));
        match number % (FILES + 1) {
            0 if version == 0 => fs_err::create_dir_all(directory)?,
            0 => {}
            file if version == 0 || number % CHANGED == 1 => {
                let path = directory.join(format!("module-file-{file:05}"));
                fs_err::write(path, format!("file {number} of version {version}\n"))?;
            }
            _ => {}
        }
    }
    Ok(())
}
