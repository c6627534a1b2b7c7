//! The fleet as far as an environment asks: for each application its hosts, its rollouts and whether it takes new ones.
//! The planner's only eyes.

use std::collections::BTreeMap;

use sluice_common::digest::Digest;
use sluice_common::name::{AppName, HostName, Platform, RolloutId, SiteName};
use sluice_common::order::Installed;
use sluice_common::selector::Labels;

use crate::rollout::State as RolloutState;

/// Every application of an environment, as last heard of.
pub type View = BTreeMap<AppName, AppView>;

/// One application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppView {
    /// Whether its release is registered.
    pub is_released: bool,
    /// The hosts of its selection, by name.
    pub hosts: Vec<HostView>,
    /// Hosts outside of its selection that say they run it, by name.
    pub strays: Vec<HostView>,
    /// Its rollouts of the run, oldest first.
    pub attempts: Vec<Attempt>,
    /// Its unfinished rollouts that are none of the run's.
    pub others: Vec<RolloutId>,
    /// The failed rollout that has closed it to new ones.
    pub closed_by: Option<RolloutId>,
    /// Whether it has stood, whole, in this run.
    pub has_stood: bool,
}

/// One host of an application's selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// Its name.
    pub name: HostName,
    /// Its site.
    pub site: SiteName,
    /// Its labels.
    pub labels: Labels,
    /// Its platform; nothing before its first session.
    pub platform: Option<Platform>,
    /// Whether it can be heard.
    pub is_reachable: bool,
    /// The release's package for it; nothing where there is none.
    pub package: Option<Digest>,
    /// What it says that it runs.
    pub running: Option<Installed>,
    /// What it says of its health.
    pub healthy: Option<bool>,
    /// Whether it runs the package and has said so as the end of its newest order.
    pub is_settled: bool,
    /// Whether a rollout of the run that did not succeed had it.
    pub was_tried: bool,
}

/// A rollout that the run has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The rollout.
    pub rollout: RolloutId,
    /// The part of the application: a site with a calendar of its own, or all others.
    pub part: Option<SiteName>,
    /// Whether it is for hosts that came after the run.
    pub is_addition: bool,
    /// Where it stands.
    pub state: RolloutState,
}

/// How a rollout of the run fares, as far as others turn on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on, or waits for an operator.
    Open,
    /// It takes its hosts back.
    Retreating,
    /// It has succeeded.
    Done,
    /// It has ended otherwise.
    Lost,
}

impl Attempt {
    /// Says how it fares.
    pub fn fate(&self) -> Fate {
        match &self.state {
            RolloutState::Running | RolloutState::Paused { .. } => Fate::Open,
            RolloutState::RollingBack { .. } => Fate::Retreating,
            RolloutState::Succeeded => Fate::Done,
            RolloutState::RolledBack { .. } | RolloutState::Failed { .. } | RolloutState::Aborted { .. } => {
                Fate::Lost
            }
        }
    }

    /// Says what became of it, in words.
    pub fn words(&self) -> String {
        let (rollout, state) = (&self.rollout, self.state.as_str());
        match self.state.reason() {
            Some(reason) => format!("{rollout} is {state}: {reason}"),
            None => format!("{rollout} is {state}"),
        }
    }
}

impl HostView {
    /// Says whether a rollout can have it: there is a package for it.
    pub fn is_usable(&self) -> bool {
        self.package.is_some()
    }

    /// Says whether it came with nothing and waits to be brought to what its neighbours run.
    pub fn is_addition(&self) -> bool {
        self.is_usable()
            && self.is_reachable
            && self.platform.is_some()
            && self.running.is_none()
            && !self.was_tried
    }
}

impl AppView {
    /// Says whether the run has brought it, whole, and it was not taken back since.
    pub fn stands(&self) -> bool {
        self.has_stood && self.own_attempts().all(|attempt| attempt.fate() == Fate::Done)
    }

    /// Returns the rollouts of the run itself, without those for hosts that came later.
    pub fn own_attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| !attempt.is_addition)
    }
}
