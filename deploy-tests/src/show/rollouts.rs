//! The list of rollouts and environments: what the coordinator never does, and what it says beforehand.

mod environment;
mod forecast;
mod kills;
mod large;
mod simulation;
mod tables;

use anyhow::Result;

use super::Options;
use super::board::Board;

type Section = fn(&mut Board, &Options) -> Result<()>;

/// Every section, in the order in which it is shown.
const SECTIONS: [(&str, Section); 7] = [
    ("simulation", simulation::run),
    ("each rule broken once", simulation::broken),
    ("case tables", tables::run),
    ("large fleet", large::run),
    ("forecast", forecast::run),
    ("an environment", environment::run),
    ("coordinator kills", kills::run),
];

/// Runs the list; returns whether every line holds.
pub(super) fn run(options: &Options) -> Result<bool> {
    let mut board = Board::new();
    for (name, section) in SECTIONS {
        if options.selects(name) {
            board.section(name, |board| section(board, options));
        }
    }
    Ok(board.close())
}
