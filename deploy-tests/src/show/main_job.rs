//! The list of the main job.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::board::Board;
use super::{Options, bytes, kills, pacing, real_input, refusals};

/// A section of the list.
pub(super) type Section = fn(&mut Board, &Options) -> Result<()>;

/// Every section, in the order in which it is shown.
pub(super) const SECTIONS: [(&str, Section); 8] = [
    ("the demonstration", demonstration),
    ("first screen of the README", readme),
    ("real input: numpy, scipy and pandas", real_input::python),
    ("real input: ruff", real_input::ruff),
    ("kill -9", kills::run),
    ("flipped bytes", bytes::run),
    ("refusals", refusals::run),
    ("pacing, heartbeats and memory", pacing::run),
];

/// Returns the executable beside this one that is the demonstration.
pub(super) fn demo_executable() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("sluice-demo"))
}

/// Runs the demonstration and returns its JSON and its wall time in seconds.
pub(super) fn run_demo(args: &[&str], data: Option<&Path>) -> Result<(Value, f64)> {
    let mut command = Command::new(demo_executable()?);
    command.arg("--json").args(args).stderr(Stdio::inherit());
    if let Some(data) = data {
        command.arg("--data").arg(data);
    }
    let begun = Instant::now();
    let output = command.output().context("cannot start sluice-demo")?;
    let seconds = begun.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("sluice-demo ended with {}: {text}", output.status);
    }
    let last = text.lines().last().context("sluice-demo printed nothing")?;
    Ok((serde_json::from_str(last)?, seconds))
}

fn demonstration(board: &mut Board, _: &Options) -> Result<()> {
    let (json, seconds) = run_demo(&[], None)?;
    board.line("sluice-demo ends", &format!("{seconds:.1} s"), "< 60 s", seconds < 60.0);
    let rollouts = json["rollouts"].as_array().context("no rollouts")?;
    let outcomes: Vec<&str> = rollouts.iter().filter_map(|rollout| rollout["outcome"].as_str()).collect();
    let expected = ["succeeded", "succeeded", "rolled_back"];
    board.line(
        "outcomes of the three versions",
        &outcomes.join(", "),
        "the third rolled back",
        outcomes == expected,
    );
    let sum = |field: &str| rollouts.iter().filter_map(|rollout| rollout[field].as_u64()).sum::<u64>();
    let (requests, failed) = (sum("requests"), sum("failed_requests"));
    board.line(
        "failed requests",
        &format!("{failed} of {requests}"),
        "0 of at least 500",
        failed == 0 && requests >= 500,
    );
    let switch =
        rollouts.iter().filter_map(|rollout| rollout["switch_seconds_max"].as_f64()).fold(0.0, f64::max);
    board.line("longest switch", &format!("{:.1} ms", switch * 1e3), "< 1 s", switch > 0.0 && switch < 1.0);
    Ok(())
}

fn readme(board: &mut Board, _: &Options) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs_err::read_to_string(path)?;
    let screen: Vec<&str> = text.lines().take(30).collect();
    for command in ["cargo run --release --bin sluice-demo", "cargo test --workspace"] {
        let line = screen.iter().position(|line| line.trim() == command);
        let figure = line.map_or("missing".to_owned(), |line| format!("line {}", line + 1));
        board.line(command, &figure, "in the first 30 lines", line.is_some());
    }
    Ok(())
}
