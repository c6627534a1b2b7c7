//! A rollout over a fleet on paper, from its first order to its end, in as much time as the planner takes: the same
//! planner that drives the real fleet, with a clock that leaps to whatever happens next.
//!
//! Where nothing is awry it says when each batch will switch, which is the forecast of `rollout plan`; with [`Odds`] it
//! says how a rollout may go. Pure: a scene, odds and a seed give one [`Course`], always the same.
//!
//! | module | owns |
//! |---|---|
//! | [`Scene`], [`Odds`], [`Course`] | what goes in, what comes out |
//! | `run` | the clock and the coordinator |
//! | `host` | what hosts do with orders |
//! | [`spread`] | what many courses have in common |

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::model::Rollout;
use super::plan::{Plan, plan};
use super::state::State;
use super::view::FleetView;

mod host;
mod run;
pub mod spread;
#[cfg(test)]
mod tests;

/// How long a host takes for its part, where nothing is awry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the order to stage until the release is on its disk.
    pub stage: Duration,
    /// From the order to bring up a candidate until it is healthy.
    pub candidate: Duration,
    /// From the order to switch until its gate has passed; the same back.
    pub switch: Duration,
}

/// A rollout that has not begun, and the fleet that it is for.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The rollout.
    pub rollout: Rollout,
    /// The fleet as last heard of. Hosts without contact stay unheard.
    pub fleet: FleetView,
    /// One for each member.
    pub paces: Vec<Pace>,
    /// When it begins.
    pub begins: Timestamp,
}

/// What may go wrong, each as a probability from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Odds {
    /// Of each host that switches: that it goes back by itself, whatever the release.
    pub host_failure: f64,
    /// Of each host that is ordered to switch: that it falls silent then.
    pub host_loss: f64,
    /// For how long.
    pub loss: Duration,
    /// Of each host: that it takes `slowness` times as long for everything.
    pub slow_host: f64,
    /// How many times as long.
    pub slowness: u32,
    /// Of each run: that the release is bad, which means on every host.
    pub bad_release: f64,
    /// How long after a switch a bad release shows; zero: at the gate of the host, which then goes back by itself.
    pub bad_after: Duration,
}

impl Odds {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        host_failure: 0.0,
        host_loss: 0.0,
        loss: Duration::ZERO,
        slow_host: 0.0,
        slowness: 1,
        bad_release: 0.0,
        bad_after: Duration::ZERO,
    };
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The rollout ended, or was paused by its failures.
    State(State),
    /// Nothing that the run knows of would ever let it go on: hosts that stay unheard, a calendar that stays closed.
    Waits,
}

/// When a batch began to switch and passed, from the start of the rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchTimes {
    /// When its first hosts were ordered to switch.
    pub opened: Option<Duration>,
    /// When its gate had held for the whole bake.
    pub passed: Option<Duration>,
}

/// What a wait is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// For an operator to resume.
    Paused,
    /// For hosts to be staged.
    Staging,
    /// For candidates to come up.
    Candidates,
    /// For approvers.
    Approvals,
    /// For a freeze to end.
    Freeze,
    /// For a window to open.
    Window,
    /// For hosts that cannot be heard.
    Unheard,
    /// For hosts to become healthy.
    Ill,
    /// For other hosts to come back from their switch.
    Budget,
    /// For an external check.
    Check,
}

/// Something that the rollout waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Of which kind it is.
    pub kind: Kind,
    /// What, in the planner's words when it began.
    pub what: String,
    /// From when, since the start of the rollout.
    pub from: Duration,
    /// Until when; nothing: for good.
    pub until: Option<Duration>,
}

/// What became of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// How it ended.
    pub end: End,
    /// After how long.
    pub took: Duration,
    /// Whether the release was a bad one.
    pub is_bad: bool,
    /// When every host that can be heard had the release on disk.
    pub staged: Option<Duration>,
    /// The batches.
    pub batches: Vec<BatchTimes>,
    /// Hosts that were ordered to switch.
    pub switched: usize,
    /// Hosts whose application the release took away or made ill.
    pub hurt: usize,
    /// What it waited for: of each kind, without the hosts that were merely at work.
    pub waits: Vec<Wait>,
    /// How often the planner was asked.
    pub plans: usize,
}

/// Runs a rollout to its end.
pub fn run(scene: &Scene, odds: &Odds, seed: u64) -> Course {
    run::Run::new(scene, odds, seed, plan).finish()
}

type Planner = fn(&Rollout, &FleetView, Timestamp) -> Plan;

/// What is waited for, by kind: the place of each in the list of waits while it lasts.
type Lasting = BTreeMap<Kind, usize>;
