//! What a host on paper does with its orders: everything that is asked, in its own time, unless the odds are against it.

use std::time::Duration;

use sluice_common::order::{Generation, Installed, Phase};

use super::super::model::Target;
use super::super::view::Observed;
use super::{Odds, Pace};
use crate::rollout::sim::random::Random;

/// Something that will happen to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// It has done what its order of this generation asks.
    Done(Generation),
    /// The release that it runs makes it ill.
    Ill(Generation),
    /// It is heard again.
    Back,
}

/// A host on paper.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pace: Pace,
    /// Whether it falls silent when it is ordered to switch.
    is_to_be_lost: bool,
    /// Whether it will go back by itself.
    fails: bool,
    pub(super) is_heard: bool,
    pub(super) is_hurt: bool,
    pub(super) has_switched: bool,
    order: Option<(Generation, Target)>,
}

impl Host {
    pub(super) fn new(pace: Pace, is_heard: bool, odds: &Odds, is_bad: bool, random: &mut Random) -> Self {
        let times = if random.chance(odds.slow_host) { odds.slowness.max(1) } else { 1 };
        let fails = random.chance(odds.host_failure) || (is_bad && odds.bad_after.is_zero());
        Self {
            pace: Pace {
                stage: pace.stage * times,
                candidate: pace.candidate * times,
                switch: pace.switch * times,
            },
            is_to_be_lost: random.chance(odds.host_loss),
            fails,
            is_heard,
            is_hurt: false,
            has_switched: false,
            order: None,
        }
    }

    /// Takes an order; returns after how long something happens, and what.
    pub(super) fn take(
        &mut self,
        generation: Generation,
        target: Target,
        odds: &Odds,
    ) -> Vec<(Duration, Event)> {
        let is_disruptive = target.is_disruptive();
        let needs = match target {
            Target::Stage => self.pace.stage,
            Target::Candidate { .. } => self.pace.candidate,
            Target::Activate { .. } | Target::Restore { .. } | Target::Remove => self.pace.switch,
        };
        self.has_switched |= matches!(target, Target::Activate { .. });
        self.order = Some((generation, target));
        if !(is_disruptive && std::mem::take(&mut self.is_to_be_lost)) {
            return vec![(needs, Event::Done(generation))];
        }
        self.is_heard = false;
        vec![(odds.loss, Event::Back), (odds.loss + needs, Event::Done(generation))]
    }

    /// Carries an order out; returns what the host reports, and whether the release will make it ill.
    pub(super) fn done(
        &mut self,
        generation: Generation,
        runs: Option<Installed>,
        release: &Installed,
    ) -> Option<(Observed, bool)> {
        let (_, target) = self.order.as_ref().filter(|(newest, _)| *newest == generation)?;
        let (phase, current) = match target {
            Target::Stage => (Phase::Staged, runs),
            // What its own checks find they find on the candidate; nobody is hurt.
            Target::Candidate { .. } if self.fails => (Phase::Failed, runs),
            Target::Candidate { .. } => (Phase::Candidate, runs),
            Target::Activate { over } if self.fails => (Phase::Reverted, over.clone()),
            Target::Activate { .. } => (Phase::Active, Some(release.clone())),
            Target::Restore { to } => (Phase::Active, Some(to.clone())),
            Target::Remove => (Phase::Active, None),
        };
        self.is_hurt |= phase == Phase::Reverted;
        let switched = phase == Phase::Active && matches!(target, Target::Activate { .. });
        let reason =
            matches!(phase, Phase::Reverted | Phase::Failed).then(|| "its gate did not pass".to_owned());
        let observed = Observed {
            generation,
            phase,
            healthy: current.is_some().then_some(true),
            current,
            reason,
            fetched_bytes: 0,
            fetch_total_bytes: 0,
            since: jiff::Timestamp::UNIX_EPOCH,
        };
        Some((observed, switched))
    }

    /// Says whether an order of this generation is still its newest.
    pub(super) fn has(&self, generation: Generation) -> bool {
        self.order.as_ref().is_some_and(|(newest, _)| *newest == generation)
    }
}
