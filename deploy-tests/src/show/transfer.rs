//! The list of the transfer engine: bytes, CPU, memory and hostile input, each against its bound.

mod applying;
mod bytes;
mod corruption;
mod forecast;
mod push;
mod receivers;
mod work;

use anyhow::Result;

use super::Options;
use super::board::Board;

pub(super) use applying::{Applied, apply_pair};
pub(super) use work::Work;

type Section = fn(&mut Board, &mut Work) -> Result<()>;

/// Every section, in the order in which it is shown. Hostile input comes last: it makes this process larger, and a
/// child's peak memory is never less than what its parent held ([`crate::measure`]).
const SECTIONS: [(&str, Section); 10] = [
    ("update bytes", bytes::update),
    ("cold bytes", bytes::cold),
    ("encoding", bytes::encoding),
    ("forecast and sockets", forecast::run),
    ("applying", applying::run),
    ("agent's memory", applying::memory),
    ("push", push::run),
    ("50 receivers", receivers::run),
    ("a file of 4 GiB", applying::large_file),
    ("corruption", corruption::run),
];

/// Runs the list; returns whether every line holds.
pub(super) fn run(options: &Options) -> Result<bool> {
    let mut board = Board::new();
    let mut work = Work::new(options.clone());
    for (name, section) in SECTIONS {
        if options.selects(name) {
            board.section(name, |board| section(board, &mut work));
        }
    }
    Ok(board.close())
}
