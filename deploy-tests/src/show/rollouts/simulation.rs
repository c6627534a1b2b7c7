//! The seeded simulation: many seeds without a violation, and each rule broken once, which it has to find.

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Result, anyhow};
use sluice_coordinator::rollout::sim::breaks::BREAKS;
use sluice_coordinator::rollout::sim::{self, Records};

use super::super::Options;
use super::super::board::Board;

/// Seeds within which each broken rule has to show.
const FIND_WITHIN: u64 = 2_000;
/// Violations beside the first of which the last line is printed.
const SHOWN: usize = 10;

pub(super) fn run(board: &mut Board, options: &Options) -> Result<()> {
    let (paper, stored) = if options.quick { (2_000, 40) } else { (10_000, 1_000) };
    seeds(board, "seeds without a violation of I10-I17, each ended", paper, Records::Paper)?;
    seeds(board, "the same over the real tables, reopened at each crash", stored, Records::Database)
}

/// What many seeds came to: how many rollouts ended how, and the violations.
#[derive(Default)]
struct Tally {
    ends: BTreeMap<String, u64>,
    violations: Vec<(u64, String)>,
}

fn seeds(board: &mut Board, what: &str, seeds: u64, records: Records) -> Result<()> {
    let tally = on_every_core(seeds, records)?;
    let ends: Vec<String> = tally.ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
    println!("       {}", ends.join(", "));
    for (seed, log) in tally.violations.iter().take(1) {
        println!("{log}\nagain with: SLUICE_SIM_SEED={seed} cargo test -p sluice-coordinator rollout::sim");
    }
    for (seed, log) in tally.violations.iter().skip(1).take(SHOWN) {
        println!("       seed {seed}: {}", log.lines().last().unwrap_or_default());
    }
    let found = tally.violations.len();
    let ended: u64 = tally.ends.values().sum();
    let bound = format!("{seeds} seeds, 0 violations");
    // A simulation that never gets anywhere would find nothing.
    board.line(
        what,
        &format!("{ended} ended, {found} violations"),
        &bound,
        ended == seeds && tally.ends.len() >= 3,
    );
    Ok(())
}

fn on_every_core(seeds: u64, records: Records) -> Result<Tally> {
    let workers = thread::available_parallelism().map_or(1, usize::from) as u64;
    let tallies = thread::scope(|scope| {
        let worker = |first: u64| {
            move || (first..seeds).step_by(workers as usize).fold(Tally::default(), |t, s| add(t, s, records))
        };
        let workers: Vec<_> = (0..workers).map(|first| scope.spawn(worker(first))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow!("a simulation panicked")))
            .collect::<Result<Vec<_>>>()
    })?;
    let mut all = Tally::default();
    for Tally { ends, violations } in tallies {
        for (end, count) in ends {
            *all.ends.entry(end).or_default() += count;
        }
        all.violations.extend(violations);
    }
    Ok(all)
}

fn add(mut tally: Tally, seed: u64, records: Records) -> Tally {
    match sim::run(seed, records) {
        Ok(log) => {
            let last = log.lines().last().unwrap_or_default();
            let end = last.split([' ', ':']).filter(|word| !word.is_empty()).nth(1).unwrap_or_default();
            *tally.ends.entry(end.to_owned()).or_default() += 1;
        }
        Err(log) => tally.violations.push((seed, log)),
    }
    tally
}

pub(super) fn broken(board: &mut Board, _: &Options) -> Result<()> {
    for broken in &BREAKS {
        let found = broken.find(FIND_WITHIN);
        let figure =
            found.as_ref().map_or("not found".to_owned(), |found| format!("found at seed {}", found.seeds));
        let what = format!("{}: {}", broken.rule, broken.what);
        board.line(&what, &figure, &format!("within {FIND_WITHIN} seeds"), found.is_some());
        if let Some(found) = found {
            println!("       {}", found.said.chars().take(140).collect::<String>());
        }
    }
    Ok(())
}
