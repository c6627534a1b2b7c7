//! Sluice and every other tool on the same trees, as the tables of `docs/benchmarks.md`: by themselves
//! (`deploy-tests/show benchmarks`), or of the run that held the bounds (`deploy-tests/show transfer --tables FILE`).
//!
//! Progress goes to standard error.

use std::io::Write;
use std::time::Instant;

use anyhow::Result;
use sluice_common::transfer::Effort;
use sluice_common::units::format_size;

use super::Options;
use super::transfer::{self, Applied, AppliedPair, Work};
use crate::measure::Usage;
use crate::peers::{Kind, Trial, versions};
use crate::trees::Pair;

const MEBIBYTE: f64 = (1 << 20) as f64;

const HEAD: &str = "# Benchmarks

What each tool sends, and what that costs at both ends. Made by `deploy-tests/show transfer --tables docs/benchmarks.md`:
every figure of one table is of one run on one machine; trees are public packages, fetched by name.

- Bytes: everything that travels. Sluice's include manifest, plan and framing; other tools' include their index where they have
  one, and nothing of the protocol that would carry them, except for rsync.
- CPU: user and system time of all processes at that end, in seconds of one core. Memory: resident, of the largest process;
  for Sluice's agent, the anonymous memory that it holds at most (what it maps of the base is the system's cache).
- Receiver: other tools restore an archive or a tree, unverified and not synced; Sluice's agent receives over TLS, verifies every
  digest, syncs, and switches. Its time begins with the operator's command.
- A dash: not a figure that the tool has. Sluice's encoding is measured as a process of its own, reading both trees included.
";

/// Measures and prints; always succeeds when it comes to its end.
pub(super) fn run(options: &Options) -> Result<bool> {
    let mut work = Work::new(options.clone());
    let pairs = work.pairs().into_iter().filter(|pair| options.selects(pair.name())).collect();
    write(&mut std::io::stdout(), pairs, &mut work)?;
    Ok(true)
}

/// Writes the document of what was measured in this run, and measures the rest.
pub(super) fn write(out: &mut dyn Write, pairs: Vec<Pair>, work: &mut Work) -> Result<()> {
    let begun = Instant::now();
    writeln!(out, "{HEAD}")?;
    let mut tools = None;
    for pair in pairs {
        match work.prepared(pair)? {
            Some(prepared) => {
                tools = Some(prepared.tools().to_owned());
                table(out, work, pair, prepared.changed())?;
            }
            None => {
                writeln!(
                    out,
                    "## {}\n\nNot measured: no pip or npm, or no package registry.\n",
                    pair.name()
                )?;
            }
        }
        work.forget(pair);
        eprintln!("{} done after {:.0} s", pair.name(), begun.elapsed().as_secs_f64());
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let kernel = fs_err::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // Its first two numbers: what follows them names a distribution's build.
    let kernel = kernel.trim().splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    let version = env!("CARGO_PKG_VERSION");
    writeln!(out, "## Versions\n\nSluice {version}, {cores} cores, Linux {kernel}.\n")?;
    writeln!(out, "| tool | version |\n|---|---|")?;
    for (tool, version) in tools.map(|tools| versions(&tools)).unwrap_or_default() {
        writeln!(out, "| {} | {version} |", tool.name())?;
    }
    Ok(())
}

fn table(out: &mut dyn Write, work: &mut Work, pair: Pair, changed: u64) -> Result<()> {
    let Some((_, new)) = pair.fetch()? else { return Ok(()) };
    let tree = sluice_common::tree::Tree::scan(&new)?;
    let (files, bytes) = (tree.manifest().file_count(), format_size(tree.manifest().tree_bytes()));
    writeln!(
        out,
        "## {}\n\n{}: {bytes} in {files} files, {changed} of them changed.\n",
        pair.name(),
        pair.what()
    )?;
    let applied = [Effort::Quick, Effort::Best].map(|effort| (effort, applied(pair, effort)));
    for is_cold in [true, false] {
        writeln!(
            out,
            "| {} | bytes | sender CPU | sender memory | receiver CPU | receiver wall | receiver memory |",
            if is_cold { "cold" } else { "update" }
        )?;
        writeln!(out, "|---|--:|--:|--:|--:|--:|--:|")?;
        for kind in if is_cold { &[Kind::Cold][..] } else { &[Kind::Shown, Kind::Update] } {
            for peer in work.peers(*kind) {
                match work.trial(pair, peer, true) {
                    Ok(Some(trial)) => writeln!(out, "{}", peer_row(peer.name, &trial))?,
                    Ok(None) => {
                        writeln!(out, "| {} | not installed | | | | | |", peer.name.replace('|', "\\|"))?;
                    }
                    Err(error) => {
                        eprintln!("  {}: {error:#}", peer.name);
                        writeln!(out, "| {} | failed | | | | | |", peer.name.replace('|', "\\|"))?;
                    }
                }
            }
        }
        for (effort, applied) in &applied {
            let Some(ours) = work.ours(pair, is_cold, *effort)? else { continue };
            let applied = applied.as_ref().map(|applied| if is_cold { applied.cold } else { applied.update });
            writeln!(out, "{}", our_row(*effort, ours.bytes, ours.usage, applied))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Installs and updates a pair at an agent; nothing where that failed, which progress tells.
fn applied(pair: Pair, effort: Effort) -> Option<AppliedPair> {
    eprintln!("  … ours, applying, {effort:?}, on {}", pair.name());
    transfer::apply_pair(pair, effort).map_err(|error| eprintln!("  it failed: {error:#}")).ok()
}

fn peer_row(name: &str, trial: &Trial) -> String {
    let receiver = trial.apply.map_or("– | – | –".to_owned(), |usage| {
        format!(
            "{:.2} s | {:.2} s | {}",
            usage.cpu_seconds(),
            usage.wall_seconds(),
            mebibytes(usage.peak_bytes)
        )
    });
    row(name, trial.bytes, trial.encode, &receiver)
}

fn our_row(effort: Effort, bytes: u64, encode: Usage, applied: Option<Applied>) -> String {
    let receiver = applied.map_or("– | – | –".to_owned(), |applied| {
        format!("{:.2} s | {:.2} s | {}", applied.cpu, applied.wall, mebibytes(applied.anonymous_peak))
    });
    let name = match effort {
        Effort::Quick => "**Sluice**, quick",
        Effort::Best => "**Sluice**, best",
    };
    row(name, bytes, encode, &receiver)
}

fn row(name: &str, bytes: u64, encode: Usage, receiver: &str) -> String {
    let sender = format!("{:.1} s | {}", encode.cpu_seconds(), mebibytes(encode.peak_bytes));
    // A bar would end the cell.
    let name = name.replace('|', "\\|");
    format!("| {name} | {} | {sender} | {receiver} |", format_size(bytes))
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / MEBIBYTE)
}
