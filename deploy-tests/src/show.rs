//! `deploy-tests/show`: runs what an issue promises and prints each figure beside its bound.

mod agent;
mod benchmarks;
mod board;
mod bytes;
mod kills;
mod main_job;
mod pacing;
mod proxy;
mod real_input;
mod refusals;
mod rollouts;
mod transfer;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::lab::end_all;
use board::Board;

/// Shows what Sluice promises, each figure beside its bound.
#[derive(Parser, Debug)]
#[command(name = "show", version)]
struct Args {
    #[command(subcommand)]
    list: List,
}

#[derive(Subcommand, Debug)]
enum List {
    /// The main job, end to end, on real input.
    Main(Options),
    /// The transfer engine: bytes, CPU and memory beside those of other tools.
    Transfer {
        #[command(flatten)]
        options: Options,
        /// Writes the tables of `docs/benchmarks.md` to this file too, of the same run.
        #[arg(long)]
        tables: Option<PathBuf>,
    },
    /// The agent's life: kills, power cuts, failing disks, bad hooks, what it takes.
    Agent(Options),
    /// Rollouts and environments: what the coordinator never does, and what it says beforehand.
    Rollouts(Options),
    /// The tables of `docs/benchmarks.md`, measured here.
    Benchmarks(Options),
}

/// How a list is run.
#[derive(Parser, Debug, Clone)]
pub(crate) struct Options {
    /// Smaller counts, for continuous integration.
    #[arg(long)]
    quick: bool,
    /// Runs only the sections whose name holds this text; given again, those of the other texts too.
    #[arg(long)]
    only: Vec<String>,
}

impl Options {
    /// Says whether a section of that name is run.
    fn selects(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only.as_str()))
    }
}

/// Runs the list that the command line names; the entry point of the binary.
pub fn main() -> ExitCode {
    let shown = match Args::parse().list {
        List::Main(options) => main_list(&options),
        List::Transfer { options, tables } => transfer::run(&options, tables.as_deref()),
        List::Agent(options) => agent::run(&options),
        List::Rollouts(options) => rollouts::run(&options),
        List::Benchmarks(options) => benchmarks::run(&options),
    };
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            end_all();
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn main_list(options: &Options) -> Result<bool> {
    let mut board = Board::new();
    for (name, section) in main_job::SECTIONS {
        if options.selects(name) {
            board.section(name, |board| section(board, options));
        }
    }
    Ok(board.close())
}
