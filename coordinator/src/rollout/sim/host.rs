//! A simulated host: takes orders as an agent does, in as many seconds as it likes, and reports.

use sluice_common::order::{Generation, Installed, Phase};

use super::fixture::{predecessor, successor};
use super::random::Random;
use crate::rollout::Target;

/// How a host takes to the new release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    Good,
    Slow,
    CannotStage,
    CannotSwitch,
    Reverts,
    /// Becomes unhealthy some time after it was active.
    Sickens,
    /// Hangs in the switch until the faults stop.
    Hangs,
    /// Cannot go back either.
    NoReturn,
}

/// An order in transit.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) generation: Generation,
    pub(crate) target: Target,
}

/// A report in transit.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) sequence: u64,
    pub(crate) generation: Generation,
    pub(crate) phase: Phase,
    pub(crate) current: Option<Installed>,
    pub(crate) healthy: Option<bool>,
}

#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) nature: Nature,
    pub(crate) is_online: bool,
    pub(crate) current: Option<Installed>,
    before: Option<Installed>,
    order: Option<Wanted>,
    received: u64,
    pub(crate) phase: Phase,
    pub(crate) healthy: Option<bool>,
    ill_at: Option<u64>,
    busy_until: u64,
    sequence: u64,
}

/// Seconds after which an order that was not repeated begins no switch.
const TTL: u64 = 40;

impl Host {
    pub(crate) fn new(nature: Nature, has_predecessor: bool) -> Self {
        Self {
            nature,
            is_online: true,
            current: has_predecessor.then(predecessor),
            before: has_predecessor.then(predecessor),
            order: None,
            received: 0,
            phase: Phase::Active,
            healthy: has_predecessor.then_some(true),
            ill_at: None,
            busy_until: 0,
            sequence: 0,
        }
    }

    /// Takes an order: a higher generation wins, the same one is renewed, a lower one is refused.
    pub(crate) fn take(&mut self, wanted: &Wanted, now: u64, random: &mut Random) {
        let accepted = self.order.as_ref().map(|order| order.generation);
        if accepted > Some(wanted.generation) {
            return;
        }
        self.received = now;
        if accepted == Some(wanted.generation) {
            return;
        }
        self.order = Some(wanted.clone());
        self.busy_until = now + self.pace(random);
        let is_there = match &wanted.target {
            Target::Stage | Target::Candidate { .. } => false,
            Target::Activate { .. } => self.current == Some(successor()),
            Target::Restore { to } => self.current.as_ref() == Some(to),
            Target::Remove => self.current.is_none(),
        };
        self.enter(if is_there { Phase::Active } else { Phase::Fetching });
    }

    fn pace(&self, random: &mut Random) -> u64 {
        if self.nature == Nature::Slow { random.within(5, 25) } else { random.within(0, 4) }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.sequence += 1;
    }

    /// Lets health waver, as long as faults happen.
    pub(crate) fn feel(&mut self, healthy: bool) {
        if self.current.is_some() && self.healthy != Some(healthy) {
            self.healthy = Some(healthy);
            self.sequence += 1;
        }
    }

    /// Goes one step further where time has come.
    pub(crate) fn step(&mut self, now: u64, is_calm: bool, random: &mut Random) {
        if self.ill_at.is_some_and(|at| now >= at) && self.current == Some(successor()) {
            self.ill_at = None;
            self.feel(false);
        }
        if now < self.busy_until || self.phase.is_terminal() {
            return;
        }
        let Some(target) = self.order.as_ref().map(|order| order.target.clone()) else { return };
        let may_begin = now <= self.received + TTL;
        match (self.phase, &target) {
            (Phase::Fetching, Target::Stage) if self.nature == Nature::CannotStage => {
                self.enter(Phase::Failed);
            }
            (Phase::Fetching, _) => self.enter(Phase::Staged),
            (Phase::Staged, Target::Candidate { .. } | Target::Activate { .. }) if !may_begin => return,
            (Phase::Staged, Target::Candidate { .. }) => self.enter(Phase::Validating),
            (Phase::Validating, Target::Candidate { .. }) if self.nature == Nature::Hangs && !is_calm => {
                return;
            }
            (Phase::Validating, Target::Candidate { .. }) if self.nature == Nature::CannotSwitch => {
                self.enter(Phase::Failed);
            }
            (Phase::Validating, Target::Candidate { .. }) => self.enter(Phase::Candidate),
            (Phase::Staged, Target::Activate { .. }) if self.nature == Nature::CannotSwitch => {
                self.enter(Phase::Failed);
            }
            (Phase::Staged, Target::Activate { .. }) => {
                self.before = self.current.clone();
                self.enter(Phase::Switching);
            }
            (Phase::Staged, Target::Restore { .. } | Target::Remove) if self.nature == Nature::NoReturn => {
                self.enter(Phase::Failed);
            }
            (Phase::Staged, Target::Restore { .. } | Target::Remove) => self.enter(Phase::Switching),
            (Phase::Staged, Target::Stage) => return,
            (Phase::Switching, Target::Activate { .. }) if self.nature == Nature::Hangs && !is_calm => return,
            (Phase::Switching, _) => {
                self.current = match target {
                    Target::Activate { .. } => Some(successor()),
                    Target::Restore { to } => Some(to),
                    Target::Stage | Target::Candidate { .. } => self.current.clone(),
                    Target::Remove => None,
                };
                self.healthy = self.current.is_some().then_some(true);
                self.enter(Phase::Validating);
            }
            (Phase::Validating, Target::Activate { .. }) if self.nature == Nature::Reverts => {
                self.enter(Phase::Reverting);
            }
            (Phase::Validating, _) => {
                if self.nature == Nature::Sickens && matches!(target, Target::Activate { .. }) {
                    self.ill_at = Some(now + random.within(1, 30));
                }
                self.enter(Phase::Active);
            }
            (Phase::Reverting, _) => {
                self.current = self.before.clone();
                self.healthy = self.current.is_some().then_some(true);
                self.enter(Phase::Reverted);
            }
            // What runs beside the live release rests; nobody drains here.
            (Phase::Candidate | Phase::Draining, _) => {}
            (Phase::Active | Phase::Reverted | Phase::Failed, _) => {}
        }
        self.busy_until = now + self.pace(random);
    }

    /// Says how things stand; nothing before the first order.
    pub(crate) fn report(&self) -> Option<Told> {
        let order = self.order.as_ref()?;
        Some(Told {
            sequence: self.sequence,
            generation: order.generation,
            phase: self.phase,
            current: self.current.clone(),
            healthy: self.healthy,
        })
    }
}
