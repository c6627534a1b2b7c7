//! Packages of a million entries: what each end holds in memory. Each step with two manifests alone, and the whole way of such
//! a package, from the command line through the coordinator to a host.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::applying::{Bench, Sampler};
use super::work::Work;
use crate::lab::wait_for;
use crate::measure::{self, Step};
use crate::role::Role;
use crate::show::board::Board;
use crate::show::main_job::demo_executable;
use crate::trees::text;

/// Most entries that a package may have.
const ENTRIES: u64 = sluice_common::caps::MANIFEST_ENTRIES_MAX;
/// How many the whole way is shown with where time is short.
const ENTRIES_QUICK: u64 = ENTRIES / 5;
/// What either end may hold for one of so many, in bytes.
const BOUND_BYTES: u64 = 256 << 20;
/// What a coordinator may hold for a fifth of them, whose caches have no need to give way.
const BOUND_QUICK_BYTES: u64 = 160 << 20;
/// How long plans of so many files may take.
const PATIENCE: Duration = Duration::from_secs(300);
const APP: &str = "tree";
const MEBIBYTE: f64 = (1 << 20) as f64;
/// Files of a directory.
const FILES: u64 = 999;
/// One of so many is another in the second version.
const CHANGED: u64 = 200;

pub(super) fn run(board: &mut Board, work: &mut Work) -> Result<()> {
    steps(board)?;
    // A million take 10 GB of disk.
    whole_way(board, if work.options.quick { ENTRIES_QUICK } else { ENTRIES })
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
        peak_line(board, &what, usage.peak_bytes, BOUND_BYTES);
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

fn peak_line(board: &mut Board, what: &str, peak_bytes: u64, bound_bytes: u64) {
    let holds = peak_bytes > 0 && peak_bytes <= bound_bytes;
    let bound = format!("<= {} MiB", bound_bytes >> 20);
    board.line(what, &format!("{:.0} MiB at most", peak_bytes as f64 / MEBIBYTE), &bound, holds);
}

/// Brings three versions of a tree to a host, the last one beside two that stand there; what the processes on the way hold as
/// a whole, their caches too.
fn whole_way(board: &mut Board, entries: u64) -> Result<()> {
    let mut bench = Bench::start("quick")?;
    let tree = bench.scratch.path().join("many");
    write(&tree, entries, 0)?;
    let coordinator = bench.lab.coordinator_process()?.id();
    let bound = if entries == ENTRIES { BOUND_BYTES } else { BOUND_QUICK_BYTES };
    for (number, what) in ["first version", "update", "update beside two releases"].into_iter().enumerate() {
        if number > 0 {
            write(&tree, entries, number as u64)?;
        }
        let version = &(number + 1).to_string();
        println!("     {what}, {entries} entries");
        let sampler = Sampler::start(coordinator);
        let push = bench.lab.operator().command(["package", "push", text(&tree)?]);
        let (_, usage) = measure::alone(&push).context("pushing many files")?;
        peak_line(board, "  the command line, pushing", usage.peak_bytes, BOUND_BYTES);
        peak_line(board, "  the coordinator, taking it in", sampler.stop(), bound);
        let sampler = Sampler::start(coordinator);
        bench.lab.release(APP, version, &tree)?;
        let staged = bench.roll(version, 1)?;
        wait_planned(&bench)?;
        peak_line(board, "  the coordinator, planning", sampler.stop(), bound);
        peak_line(board, "  the agent, staging it", staged.applied().anonymous_peak, BOUND_BYTES);
        println!("       staged and switched in {:.0} s", staged.applied().wall);
    }
    bench.lab.stop()
}

/// Waits until every plan is made that is wanted: for the host, and for such as may come.
fn wait_planned(bench: &Bench) -> Result<()> {
    let are_made = || {
        let answer = bench.lab.operator().run(["package", "plans", "--json"])?.stdout;
        let answer: serde_json::Value = serde_json::from_str(answer.trim())?;
        let plans = answer["plans"].as_array().context("no list of plans")?;
        let are_ready = !plans.is_empty() && plans.iter().all(|plan| plan["state"] == "ready");
        Ok(are_ready.then_some(()))
    };
    wait_for("the plans that are made ahead", PATIENCE, are_made)
}

/// Writes a tree, or of one that stands the files that differ in this version.
fn write(tree: &Path, entries: u64, version: u64) -> Result<()> {
    for number in 0..entries {
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
