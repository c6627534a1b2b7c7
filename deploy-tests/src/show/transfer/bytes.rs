//! Bytes of updates and cold installs beside those of every peer, and what encoding them took.

use anyhow::Result;
use sluice_common::transfer::Effort;
use sluice_common::units::format_size;

use super::work::{Ours, Work};
use crate::peers::{Kind, find};
use crate::show::board::Board;
use crate::trees::Pair;

/// A digest for each changed file: what no other tool carries.
const DIGEST_BYTES: u64 = 32;
/// What three changed files of thousands may cost, all included.
const CONFIG_BYTES_MAX: u64 = 1_000;
const MEBIBYTE: f64 = (1 << 20) as f64;

/// Returns the share of the best peer's bytes that an update may take; nothing where a number of bytes is the bound.
fn share_max(pair: Pair) -> Option<f64> {
    match pair {
        Pair::Ruff | Pair::Arm => Some(0.66),
        Pair::Python => Some(0.84),
        Pair::Spark => Some(0.30),
        Pair::Node => Some(0.95),
        Pair::Config => None,
    }
}

pub(super) fn update(board: &mut Board, work: &mut Work) -> Result<()> {
    let more = if work.options.quick { &[][..] } else { &[Pair::Arm] };
    for pair in work.pairs().into_iter().chain(more.iter().copied()) {
        let Some(prepared) = work.prepared(pair)? else {
            board.skip(pair.what(), "no pip or npm, or no package registry");
            continue;
        };
        println!("       {}: {} files changed", pair.what(), prepared.changed());
        let best = best_peer(board, work, pair)?;
        let Some(ours) = work.ours(pair, false, Effort::Best)? else { continue };
        against_best(board, pair, ours, best, prepared.changed());
        quick_plan(board, work, pair)?;
    }
    Ok(())
}

/// Runs every peer and returns the least bytes with the name of the peer.
fn best_peer(board: &mut Board, work: &mut Work, pair: Pair) -> Result<Option<(u64, &'static str)>> {
    let mut best: Option<(u64, &'static str)> = None;
    for peer in work.peers(Kind::Update) {
        // One that breaks here does not keep the others from being measured.
        match work.trial(pair, peer, false) {
            Ok(Some(trial)) => {
                let (size, cpu) = (format_size(trial.bytes), trial.encode.cpu_seconds());
                println!("       {:<34} {size:>10} {cpu:>8.1} s of CPU", peer.name);
                best = best.into_iter().chain([(trial.bytes, peer.name)]).min();
            }
            Ok(None) => board.skip(peer.name, "it is not installed, and cannot be installed here"),
            // A bound without the best of them would be a looser one.
            Err(error) => board.line(peer.name, &format!("it failed: {error:#}"), "no error", false),
        }
    }
    Ok(best)
}

fn against_best(board: &mut Board, pair: Pair, ours: Ours, best: Option<(u64, &str)>, changed: u64) {
    let figure = format!("{} = {} B", format_size(ours.bytes), ours.bytes);
    let what = format!("{}, best plan: manifest, plan and frames", pair.name());
    let Some(share) = share_max(pair) else {
        let bound = format!("<= {CONFIG_BYTES_MAX} B");
        return board.line(&what, &figure, &bound, ours.bytes <= CONFIG_BYTES_MAX);
    };
    let Some((bytes, name)) = best else { return board.skip(&what, "no peer is here") };
    let limit = (bytes as f64 * share) as u64 + DIGEST_BYTES * changed;
    let ratio = ours.bytes as f64 / bytes as f64;
    let bound = format!("<= {share}x {name} + {DIGEST_BYTES} B a file = {}", format_size(limit));
    board.line(&what, &format!("{figure}, {ratio:.3}x"), &bound, ours.bytes <= limit);
}

/// Returns what patches of zstd -9 with tables as large as the base weigh, file by file: what a quick plan has to beat.
/// Measured once; the program's own tables are smaller, and so are its chances.
fn quick_bytes_max(pair: Pair) -> Option<u64> {
    match pair {
        Pair::Ruff => Some(4_600_000),
        Pair::Python => Some(4_200_000),
        Pair::Config | Pair::Node | Pair::Spark | Pair::Arm => None,
    }
}

fn quick_plan(board: &mut Board, work: &mut Work, pair: Pair) -> Result<()> {
    let Some(limit) = quick_bytes_max(pair) else { return Ok(()) };
    let Some(ours) = work.ours(pair, false, Effort::Quick)? else { return Ok(()) };
    let peer =
        find("zstd -9 --patch-from, per file").map(|peer| work.trial(pair, peer, false)).transpose()?;
    let limit = peer.flatten().map_or(limit, |trial| trial.bytes.min(limit));
    let bound = format!("<= {}, zstd -9 patches", format_size(limit));
    let what = format!("{}, quick plan", pair.name());
    board.line(&what, &format_size(ours.bytes), &bound, ours.bytes <= limit);
    let seconds = ours.usage.cpu_seconds();
    let figure = format!("{seconds:.2} s");
    board.line("  CPU for it, reading both trees included", &figure, "<= 3 s", seconds <= 3.0);
    Ok(())
}

pub(super) fn cold(board: &mut Board, work: &mut Work) -> Result<()> {
    for pair in work.pairs() {
        if work.options.quick && pair != Pair::Ruff || pair == Pair::Config {
            continue;
        }
        for (effort, name, share) in
            [(Effort::Quick, "tar | zstd -3", 1.02), (Effort::Best, "tar | zstd -19 --long=31", 1.00)]
        {
            let Some(peer) = find(name) else { continue };
            let what = format!("{}, cold, {effort:?}", pair.name());
            let (Some(trial), Some(ours)) = (work.trial(pair, peer, false)?, work.ours(pair, true, effort)?)
            else {
                board.skip(&what, "no zstd, or no tree");
                continue;
            };
            let ratio = ours.bytes as f64 / trial.bytes as f64;
            let figure = format!("{} = {ratio:.3}x", format_size(ours.bytes));
            let bound = format!("<= {share:.2}x {name} = {}", format_size(trial.bytes));
            board.line(&what, &figure, &bound, ratio <= share);
        }
    }
    Ok(())
}

pub(super) fn encoding(board: &mut Board, work: &mut Work) -> Result<()> {
    let Some((_, new)) = Work::trees(board, Pair::Ruff)? else { return Ok(()) };
    let Some(ours) = work.ours(Pair::Ruff, false, Effort::Best)? else { return Ok(()) };
    let seconds = ours.usage.cpu_seconds();
    board.line("best plan of the ruff pair, CPU", &format!("{seconds:.1} s"), "<= 20 s", seconds <= 20.0);
    let tree = sluice_common::tree::Tree::scan(&new)?;
    let largest = tree.manifest().files().map(|(_, file)| file.size).max().unwrap_or(0);
    let ratio = ours.usage.peak_bytes as f64 / largest as f64;
    let figure = format!("{:.0} MiB = {ratio:.1}x", ours.usage.peak_bytes as f64 / MEBIBYTE);
    let bound = format!("<= 12x the largest file, {}", format_size(largest));
    board.line("  peak memory of the encoder", &figure, &bound, ratio <= 12.0);
    Ok(())
}
