//! What sections share: prepared trees, and what was measured on them already in this run.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use sluice_common::transfer::Effort;

use crate::measure::{self, Usage};
use crate::peers::{ALL, Kind, Peer, Prepared, Trial};
use crate::role::Role;
use crate::show::Options;
use crate::show::board::Board;
use crate::show::main_job::demo_executable;
use crate::trees::Pair;

/// A plan of ours: its bytes, and what encoding it took.
#[derive(Debug, Clone, Copy)]
pub(in crate::show) struct Ours {
    /// Everything that travels: manifest, plan and frames.
    pub(in crate::show) bytes: u64,
    /// What it took, reading both trees included.
    pub(in crate::show) usage: Usage,
}

/// Trees and trials of this run.
pub(in crate::show) struct Work {
    pub(super) options: Options,
    /// Whether every trial runs to its far end: a table wants that.
    pub(super) applies: bool,
    prepared: HashMap<&'static str, Option<Rc<Prepared>>>,
    trials: HashMap<(&'static str, &'static str), Option<Trial>>,
    ours: HashMap<(&'static str, bool, Effort), Ours>,
}

impl Work {
    pub(in crate::show) fn new(options: Options) -> Self {
        Self {
            options,
            applies: false,
            prepared: HashMap::new(),
            trials: HashMap::new(),
            ours: HashMap::new(),
        }
    }

    /// Returns the pairs that this run shows.
    pub(in crate::show) fn pairs(&self) -> Vec<Pair> {
        let shown = |pair: &Pair| !self.options.quick || matches!(pair, Pair::Ruff | Pair::Config);
        Pair::ALL.into_iter().filter(shown).collect()
    }

    /// Returns a pair, ready for peers; nothing where it cannot be fetched.
    pub(in crate::show) fn prepared(&mut self, pair: Pair) -> Result<Option<Rc<Prepared>>> {
        if let Some(known) = self.prepared.get(pair.name()) {
            return Ok(known.clone());
        }
        eprintln!("  … fetching and packing {}", pair.what());
        let prepared = match pair.fetch()? {
            Some((old, new)) => Some(Rc::new(Prepared::new(&old, &new)?)),
            None => None,
        };
        self.prepared.insert(pair.name(), prepared.clone());
        Ok(prepared)
    }

    /// Runs a peer on a pair, once in a run; nothing where its program is missing or the run is a quick one.
    pub(in crate::show) fn trial(
        &mut self,
        pair: Pair,
        peer: &'static Peer,
        apply: bool,
    ) -> Result<Option<Trial>> {
        let key = (pair.name(), peer.name);
        if let Some(known) = self.trials.get(&key) {
            return Ok(*known);
        }
        let Some(prepared) = self.prepared(pair)? else { return Ok(None) };
        let trial = if peer.tool.is_available(prepared.tools()) {
            eprintln!("  … {} on {}", peer.name, pair.name());
            Some(prepared.run(peer, apply || self.applies)?)
        } else {
            None
        };
        self.trials.insert(key, trial);
        Ok(trial)
    }

    /// Returns the peers of a kind that this run tries.
    pub(in crate::show) fn peers(&self, kind: Kind) -> impl Iterator<Item = &'static Peer> + use<> {
        // What takes minutes on a large tree takes half a minute on a small one.
        let left_out = self.options.quick;
        ALL.iter().filter(move |peer| peer.kind == kind && !(left_out && peer.is_slow))
    }

    /// Encodes a transfer of ours in a process of its own, once in a run.
    pub(in crate::show) fn ours(
        &mut self,
        pair: Pair,
        is_cold: bool,
        effort: Effort,
    ) -> Result<Option<Ours>> {
        let key = (pair.name(), is_cold, effort);
        if let Some(known) = self.ours.get(&key) {
            return Ok(Some(*known));
        }
        let Some((old, new)) = pair.fetch()? else { return Ok(None) };
        eprintln!("  … ours, {}, {effort:?}, on {}", if is_cold { "cold" } else { "update" }, pair.name());
        let what = if is_cold { "cold" } else { "update" };
        let how = if effort == Effort::Best { "best" } else { "quick" };
        let mut command = Role::Encode.command(&demo_executable()?);
        command.args([what, how]).arg(old).arg(new);
        let (output, usage) = measure::alone(&command)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Ok(bytes) = text.trim().parse() else { bail!("no bytes in {text:?}") };
        let ours = Ours { bytes, usage };
        self.ours.insert(key, ours);
        Ok(Some(ours))
    }

    /// Gives the disk back that a pair's archives take.
    pub(in crate::show) fn forget(&mut self, pair: Pair) {
        self.prepared.remove(pair.name());
    }

    /// Returns a pair's trees or says, on the board, that they are missing.
    pub(super) fn trees(board: &mut Board, pair: Pair) -> Result<Option<(PathBuf, PathBuf)>> {
        let trees = pair.fetch().with_context(|| pair.name())?;
        if trees.is_none() {
            board.skip(pair.what(), "no pip or npm, or no package registry");
        }
        Ok(trees)
    }
}
