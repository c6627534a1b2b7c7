//! One file of 4 GiB: memory does not depend on the size of a file.

use std::io::Write;
use std::path::Path;

use anyhow::Result;

use super::{APP, Bench, MEBIBYTE, Sampler, rss_line};
use crate::lab::noise;
use crate::show::board::Board;
use crate::show::transfer::work::Work;

/// What encoding may take, whatever the size of a file: twelve times one of its segments, of 64 MiB at most.
const ENCODER_MEBIBYTES_MAX: f64 = 768.0;
const BLOCK_BYTES: usize = 1 << 20;
const BLOCKS: u64 = 4 << 10;
/// Of each block: what does not compress. The rest is text, so that the file is nearly as quick to send as to read.
const NOISE_BYTES: usize = BLOCK_BYTES / 8;

pub(in crate::show::transfer) fn large_file(board: &mut Board, work: &mut Work) -> Result<()> {
    if work.options.quick {
        board.skip("a package of one file of 4 GiB", "in the full list only: it takes 16 GiB of disk");
        return Ok(());
    }
    let mut bench = Bench::start("quick")?;
    let encoder = Sampler::start(bench.lab.coordinator_process()?.id());
    let tree = bench.scratch.path().join("large");
    write(&tree, 0)?;
    bench.lab.release(APP, "1", &tree)?;
    let cold = bench.roll("1", 1)?;
    write(&tree, 100)?;
    bench.lab.release(APP, "2", &tree)?;
    let update = bench.roll("2", 1)?;
    for (what, staged) in [("cold install", cold), ("update of one block in forty", update)] {
        println!(
            "       {what}: {:.0} s, {:.1} s of CPU",
            staged.wall.as_secs_f64(),
            staged.cpu.as_secs_f64()
        );
        rss_line(board, &format!("4 GiB file, {what}: agent's RssAnon"), &staged, 64);
    }
    let mebibytes = encoder.stop() as f64 / MEBIBYTE;
    let holds = mebibytes > 0.0 && mebibytes <= ENCODER_MEBIBYTES_MAX;
    let (figure, bound) =
        (format!("{mebibytes:.0} MiB at most"), format!("<= {ENCODER_MEBIBYTES_MAX} MiB, 12x a segment"));
    board.line("4 GiB file: coordinator's RssAnon, encoding", &figure, &bound, holds);
    bench.lab.stop()
}

/// Writes the file; the first `changed` blocks of each 4,096 are others than in version 0.
fn write(tree: &Path, changed: u64) -> Result<()> {
    fs_err::create_dir_all(tree)?;
    let mut file = std::io::BufWriter::new(fs_err::File::create(tree.join("large"))?);
    for block in 0..BLOCKS {
        let seed = if block < changed { block + BLOCKS } else { block };
        file.write_all(&noise(seed + 1, NOISE_BYTES))?;
        let line = format!("block {seed}: a line of text that stands here many times over\n");
        let text = line.as_bytes().iter().copied().cycle().take(BLOCK_BYTES - NOISE_BYTES);
        file.write_all(&text.collect::<Vec<u8>>())?;
    }
    Ok(file.flush()?)
}
