//! A seeded simulation: the planner against hosts that fail, flap, vanish, answer late, twice and out of order, under
//! a coordinator that dies at any commit and operators who change their minds.
//!
//! Time goes in seconds. The coordinator plans only on news or when the last plan asked to be woken, as the driver
//! does, so that a plan that forgets to ask is found too. A failing seed prints itself.

use std::collections::BTreeMap;
use std::fmt::Write;

use sluice_common::name::HostName;
use sluice_common::order::Generation;

use self::check::Checker;
use self::host::{Host, Nature, Told, Wanted};
use self::journal::Journal;
use self::random::Random;
use self::scenario::{any_nature, any_spec};
use super::testing::{at, predecessor, rollout_of, successor};
use super::*;

mod check;
mod host;
mod journal;
mod random;
mod runs;
mod scenario;

type Planner = fn(&Rollout, &FleetView, jiff::Timestamp) -> Plan;

/// Seconds after the faults within which every rollout has to end.
const LIVELY_WITHIN: u64 = 8_000;
/// Seconds between two heartbeats, and between two repetitions of a report.
const HEARTBEAT: u64 = 5;
/// Seconds between two repetitions of standing orders.
const RENEWAL: u64 = 15;

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
        let rollout = rollout_of(random.within(1, 8) as usize, spec);
        let had_before = !random.once_in(5);
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

    /// Makes everything durable go through a database.
    fn journalled(mut self) -> Self {
        self.journal = Some(Journal::new(&self.rollout));
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
                self.disturb();
            }
            self.move_hosts();
            if self.second >= self.down_until {
                self.listen();
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

    /// Hosts vanish, come back, waver; the coordinator dies.
    fn disturb(&mut self) {
        for i in 0..self.hosts.len() {
            if self.random.once_in(40) {
                let host = &mut self.hosts[i].1;
                host.is_online = !host.is_online;
            }
            if self.random.once_in(60) {
                let healthy = self.random.once_in(2);
                self.hosts[i].1.feel(healthy);
            }
        }
        if self.random.once_in(80) {
            self.crash();
        }
    }

    fn crash(&mut self) {
        self.down_until = self.second + self.random.within(1, 30);
        self.note("crash");
        self.contacts.clear();
        self.checker.crashed();
        self.is_stale = true;
        // Orders on their way may still arrive, or not.
        if self.random.once_in(2) {
            self.orders.clear();
        }
    }

    fn move_hosts(&mut self) {
        let (second, is_calm) = (self.second, self.is_calm());
        let mut due = Vec::new();
        self.orders.retain(|order| {
            let is_due = order.0 <= second;
            if is_due {
                due.push(order.clone());
            }
            !is_due
        });
        for (_, i, wanted) in due {
            if self.hosts[i].1.is_online {
                self.hosts[i].1.take(&wanted, second, &mut self.random);
            }
        }
        for i in 0..self.hosts.len() {
            let host = &mut self.hosts[i].1;
            if is_calm {
                host.is_online = true;
                if host.nature != Nature::Sickens || host.current != Some(successor()) {
                    host.feel(true);
                }
            }
            let before = host.report().map(|told| told.sequence);
            host.step(second, is_calm, &mut self.random);
            let Some(told) = host.report() else { continue };
            if Some(told.sequence) != before || second.is_multiple_of(HEARTBEAT) {
                let copies = if is_calm { 1 } else { self.random.within(0, 2) };
                for _ in 0..copies {
                    let late = if is_calm { 0 } else { self.random.within(0, 12) };
                    self.told.push((second + late, i, told.clone()));
                }
            }
        }
    }

    /// The coordinator hears heartbeats and reports, in whatever order they arrive.
    fn listen(&mut self) {
        let (second, now, is_calm) = (self.second, self.now(), self.is_calm());
        for i in 0..self.hosts.len() {
            let (name, host) = &self.hosts[i];
            let is_lost = !is_calm && self.random.once_in(4);
            if (second + i as u64).is_multiple_of(HEARTBEAT) && host.is_online && !is_lost {
                let before = self.contacts.get(name).copied();
                let contact = Contact::heard(before, now);
                self.is_stale |= before.is_none_or(|before| before.since != contact.since);
                self.contacts.insert(name.clone(), contact);
            }
        }
        let mut due = Vec::new();
        self.told.retain(|told| {
            let is_due = told.0 <= second;
            if is_due {
                due.push(told.clone());
            }
            !is_due
        });
        for (_, i, told) in due {
            if self.hosts[i].1.is_online {
                self.record(i, &told);
                let fleet = self.fleet();
                self.checker.heard(&self.rollout, &fleet, now);
            }
        }
        let fleet = self.fleet();
        self.checker.heard(&self.rollout, &fleet, now);
    }

    fn record(&mut self, host: usize, told: &Told) {
        let name = &self.hosts[host].0;
        if let Some(journal) = &self.journal {
            journal.record(&self.rollout, name, told, self.now());
        }
        let before = self.reports.get(name);
        if before.is_some_and(|(sequence, o)| (o.generation, *sequence) >= (told.generation, told.sequence)) {
            return;
        }
        let mut observed = Observed {
            generation: told.generation,
            phase: told.phase,
            current: told.current.clone(),
            healthy: told.healthy,
            reason: None,
            fetched_bytes: 0,
            fetch_total_bytes: 0,
            since: self.now(),
        };
        if let Some((_, before)) = before.filter(|(_, before)| before.is_like(&observed)) {
            observed.since = before.since;
        }
        self.reports.insert(name.clone(), (told.sequence, observed));
        self.is_stale = true;
    }

    fn fleet(&self) -> FleetView {
        let view = |(name, _): &(HostName, Host)| {
            let view = HostView {
                contact: self.contacts.get(name).copied(),
                observed: self.reports.get(name).map(|(_, observed)| observed.clone()),
                generation: self.generations.get(name).copied().unwrap_or_default(),
            };
            (name.clone(), view)
        };
        self.hosts.iter().map(view).collect()
    }

    /// Operators interfere while there are faults, and see to paused rollouts afterwards.
    fn operate(&mut self) -> Result<(), String> {
        let reason = || "by alice".to_owned();
        let is_paused = matches!(self.rollout.state, State::Paused { .. });
        let command = if self.is_calm() && is_paused {
            match self.random.within(0, 3) {
                0 => Command::RollBack { reason: reason() },
                _ => Command::Resume,
            }
        } else if self.rollout.spec.approvals > 0 && self.random.once_in(50) {
            // Alice started it, and asks in vain.
            Command::Approve { by: self.random.pick(&["alice", "bob", "carol"]).parse().unwrap() }
        } else if !self.is_calm() && self.random.once_in(70) {
            match self.random.within(0, 7) {
                0..=2 => Command::Pause { reason: reason() },
                3 | 4 => Command::Resume,
                5 => Command::Abort { reason: reason() },
                6 => Command::Override { reason: reason() },
                _ => Command::RollBack { reason: reason() },
            }
        } else {
            return Ok(());
        };
        match decide(&self.rollout, command) {
            Ok(Some(action)) => self.commit(&[action]),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// The driver: plans and commits until nothing is left to do, then delivers.
    fn decide(&mut self) -> Result<(), String> {
        let now = self.now();
        if self.is_stale || self.wake.is_some_and(|wake| wake <= now) {
            for _ in 0..200 {
                let plan = (self.planner)(&self.rollout, &self.fleet(), now);
                self.wake = plan.wake;
                self.is_stale = !plan.actions.is_empty();
                if !self.is_stale {
                    break;
                }
                if !self.is_calm() && self.random.once_in(25) {
                    self.crash();
                    return Ok(());
                }
                self.commit(&plan.actions)?;
                if !self.is_calm() && self.random.once_in(25) {
                    self.crash();
                    return Ok(());
                }
            }
            if self.is_stale {
                return Err("liveness: the planner never comes to rest".to_owned());
            }
            self.deliver();
        } else if self.second.is_multiple_of(RENEWAL) {
            self.deliver();
        }
        Ok(())
    }

    fn commit(&mut self, actions: &[Action]) -> Result<(), String> {
        let (before, now) = (self.rollout.clone(), self.now());
        for action in actions {
            self.note(format_args!("{action:?}"));
            self.rollout.apply(action, now);
            if let Action::Order { member, generation, .. } = action {
                self.generations.insert(self.hosts[*member].0.clone(), *generation);
            }
        }
        self.is_stale = true;
        let fleet = self.fleet();
        if let Some(journal) = &mut self.journal {
            journal.commit(&self.rollout, actions, now);
            journal.differs(&self.rollout, &fleet, now)?;
        }
        self.checker.committed(&before, &self.rollout, actions, &fleet, now)?;
        self.checker.heard(&self.rollout, &fleet, now);
        Ok(())
    }

    fn deliver(&mut self) {
        for (i, member) in self.rollout.members.iter().enumerate() {
            let Some(order) = member.order.as_ref().filter(|o| self.rollout.state.delivers(&o.target)) else {
                continue;
            };
            let wanted = Wanted { generation: order.generation, target: order.target.clone() };
            let copies = if self.second >= self.faults_until { 1 } else { self.random.within(0, 2) };
            for _ in 0..copies {
                let late = if self.second >= self.faults_until { 0 } else { self.random.within(0, 10) };
                self.orders.push((self.second + late, i, wanted.clone()));
            }
        }
    }

    /// Says whether every host has taken its newest order that still goes out, and the coordinator knows.
    fn is_quiet(&self) -> bool {
        let is_told = |(name, host): &(HostName, Host)| {
            let told = host.report().map(|told| (told.generation, told.sequence));
            told == self.reports.get(name).map(|(sequence, o)| (o.generation, *sequence))
        };
        self.orders.is_empty() && self.second >= self.down_until && self.hosts.iter().all(is_told)
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

    /// An operator takes back a rollout that had ended.
    fn ask_back(&mut self) -> Result<(), String> {
        self.asked_back = true;
        self.faults_until = self.second + self.random.within(0, 60);
        match decide(&self.rollout, Command::RollBack { reason: "by bob".to_owned() }) {
            Ok(Some(action)) => self.commit(&[action]),
            Ok(None) | Err(_) => Ok(()),
        }
    }
}
