//! The list of the agent's life: what no crash, power cut, failing disk or bad hook may do, and what the agent takes.

mod cuts;
mod errors;
mod hooks;
mod kills;
mod prefixes;
mod requests;
mod stage;
mod syncs;
mod takes;

use anyhow::Result;

use super::Options;
use super::board::Board;
use crate::faults::disk::is_installed;
use stage::Stage;

type Section = fn(&mut Board, &Stage) -> Result<()>;

/// What a section cannot do without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing that is not everywhere.
    Nothing,
    /// strace, which brings faults about.
    Strace,
}

/// Every section, in the order in which it is shown.
const SECTIONS: [(&str, Needs, Section); 10] = [
    ("kill -9 at every system call", Needs::Strace, kills::run),
    ("power cuts", Needs::Strace, cuts::run),
    ("a logged device", Needs::Strace, prefixes::run),
    ("syncs left out", Needs::Strace, syncs::run),
    ("failing disks", Needs::Strace, errors::run),
    ("bad hooks", Needs::Nothing, hooks::run),
    ("zero failed requests", Needs::Nothing, requests::run),
    ("an idle agent", Needs::Nothing, takes::idle),
    ("the switch", Needs::Nothing, takes::switch),
    ("staging a large tree", Needs::Nothing, takes::staging),
];

/// Runs the list; returns whether every line holds.
pub(super) fn run(options: &Options) -> Result<bool> {
    let mut board = Board::new();
    let stage = Stage::set(options)?;
    for (name, needs, section) in SECTIONS {
        if !options.selects(name) {
            continue;
        }
        match needs {
            Needs::Strace if !is_installed("strace") => board.skip(name, "strace is not installed"),
            Needs::Strace | Needs::Nothing => board.section(name, |board| section(board, &stage)),
        }
    }
    Ok(board.close())
}
