//! The list of the transfer engine: bytes, CPU, memory and hostile input, each against its bound.

mod applying;
mod background;
mod bytes;
mod corruption;
mod forecast;
mod million;
mod push;
mod receivers;
mod thin;
mod work;

use std::path::Path;

use anyhow::Result;

use super::board::Board;
use super::{Options, benchmarks};

pub(super) use applying::{Applied, AppliedPair, apply_pair};
pub(super) use work::Work;

type Section = fn(&mut Board, &mut Work) -> Result<()>;

/// What a section's bounds are of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bounds {
    /// Bytes, CPU, memory: the same on any machine, near enough.
    Amounts,
    /// Wall time: of a machine that does nothing else, so no part of the quick list.
    Times,
}

/// Every section, in the order in which it is shown. Hostile input comes last: it makes this process larger, and a
/// child's peak memory is never less than what its parent held ([`crate::measure`]).
const SECTIONS: [(&str, Bounds, Section); 14] = [
    ("update bytes", Bounds::Amounts, bytes::update),
    ("cold bytes", Bounds::Amounts, bytes::cold),
    ("encoding", Bounds::Amounts, bytes::encoding),
    ("forecast and sockets", Bounds::Amounts, forecast::run),
    ("plans in the background", Bounds::Amounts, background::run),
    ("resume over a thin link", Bounds::Amounts, thin::run),
    ("applying, updates", Bounds::Times, applying::updates),
    ("applying, cold installs", Bounds::Times, applying::installs),
    ("agent's memory", Bounds::Amounts, applying::memory),
    ("push", Bounds::Times, push::run),
    ("50 receivers", Bounds::Times, receivers::run),
    ("a file of 4 GiB", Bounds::Amounts, applying::large_file),
    ("a million entries", Bounds::Amounts, million::run),
    ("corruption", Bounds::Amounts, corruption::run),
];

/// Runs the list, and writes tables of what it has measured where they are wanted; returns whether every line holds.
pub(super) fn run(options: &Options, tables: Option<&Path>) -> Result<bool> {
    let mut board = Board::new();
    let mut work = Work::new(options.clone());
    work.applies = tables.is_some();
    for (name, bounds, section) in SECTIONS {
        if !options.selects(name) {
            continue;
        }
        match bounds {
            Bounds::Times if options.quick => {
                board.skip(name, "wall times are for a quiet machine: they are in the full list");
            }
            Bounds::Times | Bounds::Amounts => board.section(name, |board| section(board, &mut work)),
        }
    }
    if let Some(path) = tables {
        let pairs = work.pairs();
        benchmarks::write(&mut fs_err::File::create(path)?, pairs, &mut work)?;
    }
    Ok(board.close())
}
