//! Real trees: public wheels, unpacked, two consecutive versions.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sluice_common::tree::Tree;
use sluice_common::units::format_size;

use super::Options;
use super::board::Board;
use super::main_job::{demo_executable, run_demo};
use crate::lab::{Operator, compare};
use crate::trees::{Pair, text};

/// Two consecutive releases of three packages: about 220 MB in 3,900 files.
pub(super) fn python(board: &mut Board, _: &Options) -> Result<()> {
    pair(board, Pair::Python)
}

/// Two consecutive releases of one static binary.
pub(super) fn ruff(board: &mut Board, _: &Options) -> Result<()> {
    pair(board, Pair::Ruff)
}

fn pair(board: &mut Board, pair: Pair) -> Result<()> {
    let Some((old, new)) = pair.fetch()? else {
        board.skip(pair.name(), "no python3 -m pip, or no package registry");
        return Ok(());
    };
    let scratch = tempfile::tempdir()?;
    let data = scratch.path().join("data");
    let trees = ["--hosts", "4", "--tree", text(&old)?, "--tree", text(&new)?];
    let (json, seconds) = run_demo(&trees, Some(&data))?;
    println!(
        "       {} files, {}, both versions in {seconds:.1} s",
        json["rollouts"][1]["files"],
        size(&json, 1, "tree_bytes")
    );
    let hosts: Vec<PathBuf> =
        fs_err::read_dir(data.join("hosts"))?.map(|host| Ok(host?.path())).collect::<Result<_>>()?;
    same_on_every_host(board, &new, &hosts)?;
    nothing_sent_twice(board, &old, &new, &hosts)?;
    as_forecast(board, &json, &old, &new)
}

fn same_on_every_host(board: &mut Board, new: &Path, hosts: &[PathBuf]) -> Result<()> {
    let mut differences = 0;
    for host in hosts {
        let current = host.join("srv/tree/current");
        for difference in compare(new, &current)?.iter().take(3) {
            println!("       {}: {}: {}", host.display(), difference.path.display(), difference.what);
            differences += 1;
        }
        let plain = Command::new("diff").arg("-r").arg(new).arg(current.join(".")).output()?;
        differences += usize::from(!plain.status.success());
    }
    let figure = format!("{differences} on {} hosts", hosts.len());
    board.line(
        "differences to the source (diff -r, modes, links)",
        &figure,
        "0 on 4 hosts",
        differences == 0 && hosts.len() == 4,
    );
    Ok(())
}

/// A file that did not travel shares its inode with the release it was taken from.
fn nothing_sent_twice(board: &mut Board, old: &Path, new: &Path, hosts: &[PathBuf]) -> Result<()> {
    let (old, new) = (Tree::scan(old)?, Tree::scan(new)?);
    let known: HashMap<_, _> = old.manifest().files().map(|(path, file)| (file.digest, path)).collect();
    let (mut shared, mut copied) = (0, 0);
    for host in hosts {
        let (current, previous) = (host.join("srv/tree/current"), host.join("srv/tree/previous"));
        let previous_inodes: std::collections::HashSet<u64> = old
            .manifest()
            .files()
            .map(|(path, _)| Ok(fs_err::metadata(path.below(&previous))?.ino()))
            .collect::<Result<_>>()?;
        for (path, _) in
            new.manifest().files().filter(|(_, file)| file.size > 0 && known.contains_key(&file.digest))
        {
            match previous_inodes.contains(&fs_err::metadata(path.below(&current))?.ino()) {
                true => shared += 1,
                false => copied += 1,
            }
        }
    }
    let figure = format!("{copied} of {}", shared + copied);
    board.line(
        "unchanged files not taken from the installed release",
        &figure,
        "0",
        copied == 0 && shared > 0,
    );
    Ok(())
}

/// Rolls both versions out and compares what the sockets carried with what `sluice package cost` forecasts.
pub(super) fn forecast(board: &mut Board, old: &Path, new: &Path) -> Result<()> {
    let (json, _) = run_demo(&["--hosts", "1", "--tree", text(old)?, "--tree", text(new)?], None)?;
    as_forecast(board, &json, old, new)
}

/// Returns one of the numbers that `sluice package cost` says.
pub(super) fn package_cost(from: &Path, to: &Path, effort: &str, field: &'static str) -> Result<u64> {
    let operator = Operator::new(&demo_executable()?, std::env::temp_dir());
    let answer = operator.run(["package", "cost", text(from)?, text(to)?, "--effort", effort, "--json"])?;
    let cost: serde_json::Value = serde_json::from_str(answer.stdout.trim())?;
    cost[field].as_u64().with_context(|| format!("no {field} in what package cost says"))
}

/// What travelled is what `sluice package cost` forecasts.
fn as_forecast(board: &mut Board, json: &serde_json::Value, old: &Path, new: &Path) -> Result<()> {
    // What is installed cold is the old tree.
    for (number, what, from, to, field) in
        [(0, "cold install", old, old, "cold_bytes"), (1, "update", old, new, "update_bytes")]
    {
        let sent = json["rollouts"][number]["wire_bytes_per_host"].as_u64().context("no wire bytes")?;
        let forecast = package_cost(from, to, "quick", field)?;
        let ratio = sent as f64 / forecast as f64;
        let figure = format!("{} = {ratio:.3} of the forecast", format_size(sent));
        board.line(
            &format!("{what}, counted at the socket, per host"),
            &figure,
            "0.98 to 1.02",
            (0.98..=1.02).contains(&ratio),
        );
    }
    Ok(())
}

fn size(json: &serde_json::Value, rollout: usize, field: &str) -> String {
    format_size(json["rollouts"][rollout][field].as_u64().unwrap_or(0))
}
