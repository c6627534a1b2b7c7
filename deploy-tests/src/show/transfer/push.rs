//! How fast a tree is pushed, and what a second push of it sends.

use std::time::Instant;

use anyhow::Result;

use super::work::Work;
use crate::lab::{Lab, Operator};
use crate::measure;
use crate::show::board::Board;
use crate::show::main_job::demo_executable;
use crate::show::proxy::Proxy;
use crate::trees::{Pair, text};

/// Bytes that a push of a known tree may send for each thousand files.
const BYTES_PER_THOUSAND_FILES: f64 = 1_000.0;

pub(super) fn run(board: &mut Board, _: &mut Work) -> Result<()> {
    let Some((_, tree)) = Work::trees(board, Pair::Python)? else { return Ok(()) };
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    let manifest = sluice_common::tree::Tree::scan(&tree)?.manifest().clone();
    measure::settle()?;
    let begun = Instant::now();
    lab.operator().run(["package", "push", text(&tree)?])?;
    let seconds = begun.elapsed().as_secs_f64();
    let megabytes = manifest.tree_bytes() as f64 / 1e6;
    let figure = format!("{megabytes:.0} MB in {seconds:.2} s = {:.0} MB/s", megabytes / seconds);
    board.line(
        "first push, reading and chunking included",
        &figure,
        ">= 150 MB/s",
        megabytes / seconds >= 150.0,
    );
    second(board, &lab, &tree, manifest.file_count())?;
    lab.stop()
}

/// Pushes again, through a proxy that counts what the operator's machine sends.
fn second(board: &mut Board, lab: &Lab, tree: &std::path::Path, files: u64) -> Result<()> {
    let proxy = Proxy::start(lab.address())?;
    let operator = Operator::new(lab.executable(), lab.dir().join("operator-by-proxy"));
    operator.copy_of(lab.operator(), &lab.address(), &proxy.address())?;
    let asked = |operator: &Operator| -> Result<u64> {
        let before = proxy.sent();
        operator.run(["package", "list"])?;
        Ok(proxy.sent() - before)
    };
    // What any command sends to be let in is not of the push.
    let greeting = asked(&operator)?;
    let before = proxy.sent();
    operator.run(["package", "push", text(tree)?])?;
    let sent = (proxy.sent() - before).saturating_sub(greeting);
    let per_thousand = sent as f64 * 1e3 / files as f64;
    let figure = format!("{sent} B for {files} files = {per_thousand:.0}");
    board.line(
        "second push, sent per 1,000 files (handshake apart)",
        &figure,
        "< 1,000 B",
        per_thousand < BYTES_PER_THOUSAND_FILES,
    );
    Ok(())
}
