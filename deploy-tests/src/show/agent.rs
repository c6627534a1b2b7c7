//! The list of the agent's life: what no crash, power cut, failing disk or bad hook may do, and what the agent takes.

mod cuts;
mod disks;
mod errors;
mod hooks;
mod kills;
mod machines;
mod prefixes;
mod requests;
mod stage;
mod syncs;
mod takes;

use std::process::{Command, Stdio};

use anyhow::Result;

use super::Options;
use super::board::Board;
use crate::machines::Base;
use stage::Stage;

type Section = fn(&mut Board, &Stage) -> Result<()>;

/// What a section cannot do without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing that is not everywhere.
    Nothing,
    /// strace, which brings faults about.
    Strace,
    /// Root and the tools that machines are made with.
    Machines,
    /// A machine that does nothing else: its bounds are times and what stays in memory, so it is no part of the quick list.
    Quiet,
}

/// Every section, in the order in which it is shown.
const SECTIONS: [(&str, Needs, Section); 12] = [
    ("kill -9 at every system call", Needs::Strace, kills::run),
    ("power cuts", Needs::Strace, cuts::run),
    ("a logged device", Needs::Strace, prefixes::run),
    ("syncs left out", Needs::Strace, syncs::run),
    ("failing disks", Needs::Strace, errors::run),
    ("full and read-only disks", Needs::Nothing, disks::run),
    ("bad hooks", Needs::Nothing, hooks::run),
    ("zero failed requests", Needs::Nothing, requests::run),
    ("machines with systemd", Needs::Machines, machines::run),
    ("an idle agent", Needs::Quiet, takes::idle),
    ("the switch", Needs::Quiet, takes::switch),
    ("staging a large tree", Needs::Quiet, takes::staging),
];

/// Says whether strace is there and may trace: a container may forbid it.
fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    traced.is_ok_and(|status| status.success())
}

/// Runs the list; returns whether every line holds.
pub(super) fn run(options: &Options) -> Result<bool> {
    let mut board = Board::new();
    let stage = Stage::set(options)?;
    for (name, needs, section) in SECTIONS {
        if !options.selects(name) {
            continue;
        }
        let obstacle = match needs {
            Needs::Machines => Base::obstacle(),
            Needs::Strace | Needs::Nothing | Needs::Quiet => None,
        };
        match needs {
            Needs::Machines if obstacle.is_some() => {
                board.skip(name, &obstacle.unwrap_or_default());
            }
            Needs::Strace if !can_trace() => {
                board.skip(name, "strace is not installed, or may not trace here");
            }
            Needs::Quiet if options.quick => {
                board.skip(name, "for a quiet machine: it is in the full list");
            }
            Needs::Strace | Needs::Nothing | Needs::Quiet | Needs::Machines => {
                board.section(name, |board| section(board, &stage));
            }
        }
    }
    Ok(board.close())
}
