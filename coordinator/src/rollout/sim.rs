//! A seeded simulation: the planner against hosts that fail, flap, vanish, answer late, twice and out of order, under
//! a coordinator that dies at any commit and operators who change their minds.
//!
//! Time goes in seconds. The coordinator plans only on news or when the last plan asked to be woken, as the driver
//! does, so that a plan that forgets to ask is found too. A failing seed prints itself. Nothing of it is reachable from a
//! command line: it is here for the tests of this crate and for the list of promises, which runs many more seeds.
//!
//! | module | owns |
//! |---|---|
//! | `scenario`, `fixture` | what a seed decides before a run begins |
//! | `world`, `host` | the hosts, and what befalls them |
//! | `coordinator` | what hears, plans, commits and delivers |
//! | `journal` | the same over the real tables |
//! | `check` | what must never happen |
//! | [`breaks`] | each rule broken once, to see that the simulation finds it |

use std::collections::BTreeMap;
use std::fmt::Write;

use sluice_common::name::HostName;
use sluice_common::order::Generation;

use self::check::Checker;
use self::fixture::{at, predecessor, rollout_of, successor};
use self::host::{Host, Nature, Told, Wanted};
use self::journal::{Journal, Slip};
use self::random::Random;
use self::scenario::{any_nature, any_spec};
use super::Action;
use super::command::{Command, decide};
use super::floor::check_room;
use super::model::{Member, Rollout, Target};
use super::plan::{Plan, plan};
use super::state::State;
use super::view::{Contact, FleetView, HostView, Observed};

pub mod breaks;
mod check;
mod coordinator;
pub(crate) mod fixture;
mod host;
mod journal;
pub(crate) mod random;
#[cfg(test)]
mod runs;
mod scenario;
mod world;

type Planner = fn(&Rollout, &FleetView, jiff::Timestamp) -> Plan;

/// Seconds after the faults within which every rollout has to end.
const LIVELY_WITHIN: u64 = 8_000;
/// Seconds between two heartbeats, and between two repetitions of a report.
const HEARTBEAT: u64 = 5;
/// Seconds between two repetitions of standing orders.
const RENEWAL: u64 = 15;

/// What the coordinator keeps its decisions in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// Memory: fast, and perfect.
    Paper,
    /// The real tables, read back after every commit.
    Database,
}

/// Runs one seed with the real planner. Returns what happened, or the same with the rule that was broken as its last line.
pub fn run(seed: u64, records: Records) -> Result<String, String> {
    let sim = Sim::new(seed, plan);
    match records {
        Records::Paper => sim.run(),
        Records::Database => sim.journalled(None).run(),
    }
}

/// One run.
struct Sim {
    random: Random,
    planner: Planner,
    second: u64,
    faults_until: u64,
    // What survives a crash of the coordinator.
    rollout: Rollout,
    reports: BTreeMap<HostName, (u64, Observed)>,
    generations: BTreeMap<HostName, Generation>,
    // What does not.
    contacts: BTreeMap<HostName, Contact>,
    is_stale: bool,
    wake: Option<jiff::Timestamp>,
    down_until: u64,
    // The world.
    hosts: Vec<(HostName, Host)>,
    orders: Vec<(u64, usize, Wanted)>,
    told: Vec<(u64, usize, Told)>,
    checker: Checker,
    journal: Option<Journal>,
    asked_back: bool,
    log: String,
}

impl Sim {
    fn new(seed: u64, planner: Planner) -> Self {
        let mut random = Random::new(seed);
        let spec = any_spec(&mut random);
        let mut rollout = rollout_of(random.within(1, 8) as usize, spec);
        let had_before = !random.once_in(5);
        if check_room(&rollout, |_| had_before).is_err() {
            rollout.spec.floors.clear();
        }
        // Most fleets are good: bad ones end early and teach little.
        let is_good = random.once_in(2);
        let host = |member: &Member| {
            let nature = if is_good { Nature::Good } else { any_nature(&mut random) };
            (member.host.clone(), Host::new(nature, had_before))
        };
        let hosts = rollout.members.iter().map(host).collect();
        let faults_until = random.within(0, 200);
        Self {
            random,
            planner,
            second: 0,
            faults_until,
            rollout,
            reports: BTreeMap::new(),
            generations: BTreeMap::new(),
            contacts: BTreeMap::new(),
            is_stale: true,
            wake: None,
            down_until: 0,
            hosts,
            orders: Vec::new(),
            told: Vec::new(),
            checker: Checker::default(),
            journal: None,
            asked_back: false,
            log: String::new(),
        }
    }

    /// Makes everything durable go through a database, which may have a slip.
    fn journalled(mut self, slip: Option<Slip>) -> Self {
        self.journal = Some(Journal::new(&self.rollout, slip));
        self
    }

    fn now(&self) -> jiff::Timestamp {
        at(self.second as i64)
    }

    fn is_calm(&self) -> bool {
        self.second >= self.faults_until
    }

    fn note(&mut self, what: impl std::fmt::Display) {
        let _ = writeln!(self.log, "{:>5} {what}", self.second);
    }

    /// Runs until the rollout has ended for good; returns what happened, or what must not have.
    fn run(mut self) -> Result<String, String> {
        let ended = self.live();
        match ended {
            Ok(()) => Ok(self.log),
            Err(error) => Err(format!("{}{error}", self.log)),
        }
    }

    fn live(&mut self) -> Result<(), String> {
        loop {
            if self.second > self.faults_until + LIVELY_WITHIN {
                let waits = (self.planner)(&self.rollout, &self.fleet(), self.now());
                return Err(format!(
                    "liveness: still {}, waits for {:?}",
                    self.rollout.state, waits.blockers
                ));
            }
            if !self.is_calm() {
                self.disturb()?;
            }
            self.move_hosts();
            if self.second >= self.down_until {
                self.listen()?;
                self.operate()?;
                self.decide()?;
            }
            if self.rollout.state.is_ended() && self.is_calm() && self.is_quiet() {
                self.judge()?;
                if let Some(journal) = &self.journal {
                    journal.audited()?;
                    journal.closes(&self.rollout, self.checker.is_line_stopped)?;
                }
                if self.asked_back || !self.random.once_in(3) {
                    return Ok(());
                }
                self.ask_back()?;
            }
            self.second += 1;
        }
    }

    /// What is said of an ended rollout must be so on the hosts.
    fn judge(&mut self) -> Result<(), String> {
        self.note(self.rollout.state.clone());
        for (member, (name, host)) in self.rollout.members.iter().zip(&self.hosts) {
            let runs = host.current.as_ref();
            let wrong = match (&self.rollout.state, member.order.as_ref().map(|order| &order.target)) {
                (State::Succeeded, _) if member.failure.is_none() => runs != Some(&successor()),
                (State::RolledBack { .. }, Some(Target::Restore { .. })) => runs != Some(&predecessor()),
                (State::RolledBack { .. }, Some(Target::Remove)) => runs.is_some(),
                (State::RolledBack { .. }, _) => runs == Some(&successor()),
                (_, _) => false,
            };
            if wrong {
                return Err(format!("{name} runs {runs:?} though the rollout {}", self.rollout.state));
            }
        }
        Ok(())
    }
}
