//! The case tables: strategies, calendar edges, needs.

use anyhow::Result;
use sluice_coordinator::environment;
use sluice_coordinator::rollout::tables;

use super::super::Options;
use super::super::board::Board;

pub(super) fn run(board: &mut Board, _: &Options) -> Result<()> {
    for table in tables::run().into_iter().chain(environment::tables::run()) {
        let figure = format!("{} cases, {} wrong", table.cases, table.wrong.len());
        board.line(&format!("table of {}", table.name), &figure, "0 wrong", table.wrong.is_empty());
        for wrong in table.wrong {
            println!("       {wrong}");
        }
    }
    Ok(())
}
