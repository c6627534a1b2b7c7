//! Orders and reports: what the coordinator wants of a host, and what the host observed.
//!
//! An order is desired state, not a command: repeated, late or reordered ones are harmless, because a host
//! accepts a [`Generation`] only if it is not lower than the one it accepted last. A report is level-triggered:
//! it says how things stand and is repeated until acknowledged.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{AppName, RolloutId, Version};
use crate::release::SignedRelease;

/// A number per (host, application) that only grows; it fences stale orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// Returns the next generation.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far an order goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Fetched, verified and ready beside the running release.
    Staged,
    /// Running beside the live release in a slot of its own, and validated there.
    Candidate,
    /// Switched to, validated and running.
    Active,
}

/// What a host is to have of one application.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "orders are few and short-lived; a box would only hide the release"
)]
pub enum Desired {
    /// This release, so far.
    Release {
        /// How far.
        stage: Stage,
        /// The release, signed; the host checks it against its own pinned keys.
        release: SignedRelease,
        /// The release's package for this host's platform; must stand in the release.
        package: Digest,
    },
    /// Nothing: what a roll-back asks of a host that had nothing before.
    Absent,
}

/// What the coordinator wants of one host for one application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The application.
    pub app: AppName,
    /// The fence.
    pub generation: Generation,
    /// The rollout that asks.
    pub rollout: RolloutId,
    /// What to have.
    pub desired: Desired,
    /// How long after its receipt a switch may still begin; renewed by repetition.
    pub ttl: Duration,
    /// Whether the coordinator has heard that the release is healthy here: lets a gate pass that asks for it.
    pub confirmed: bool,
    /// Whether this host is the one of the rollout that migrates shared data.
    pub migrates: bool,
    /// What each need of the application is met by on the whole fleet: provider and version, or what is done without it. Told
    /// to hooks.
    pub needs: BTreeMap<AppName, String>,
}

/// Where a host stands with an order. The order of the variants is the order in which a good deployment passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Content is on its way.
    Fetching,
    /// Everything is on disk, verified and synced.
    Staged,
    /// The release runs beside the live one and is validated there.
    Candidate,
    /// The application that runs is let go of by its users.
    Draining,
    /// Hooks run and `current` moves.
    Switching,
    /// The gate is being watched.
    Validating,
    /// The gate has passed. Terminal.
    Active,
    /// The gate has not passed; the predecessor is coming back.
    Reverting,
    /// The predecessor is back. Terminal: a failure that was undone.
    Reverted,
    /// The order cannot be carried out; nothing was switched. Terminal.
    Failed,
}

impl Phase {
    /// Says whether an order in this phase has ended.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Active | Self::Reverted | Self::Failed => true,
            Self::Fetching
            | Self::Staged
            | Self::Candidate
            | Self::Draining
            | Self::Switching
            | Self::Validating
            | Self::Reverting => false,
        }
    }

    /// Returns the phase's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetching => "fetching",
            Self::Staged => "staged",
            Self::Candidate => "candidate",
            Self::Draining => "draining",
            Self::Switching => "switching",
            Self::Validating => "validating",
            Self::Active => "active",
            Self::Reverting => "reverting",
            Self::Reverted => "reverted",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A release as it stands on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The package.
    pub package: Digest,
    /// The release's version.
    pub version: Version,
}

/// What a host observed of one application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The application.
    pub app: AppName,
    /// The order this speaks of.
    pub generation: Generation,
    /// Grows with every change of this report; an acknowledgement names it.
    pub sequence: u64,
    /// Where the order stands.
    pub phase: Phase,
    /// What `current` points at.
    pub current: Option<Installed>,
    /// What `previous` points at.
    pub previous: Option<Installed>,
    /// Whether the health checks of `current` hold; nothing where none is known yet. True while validating says that the
    /// gate has passed but for the coordinator's confirmation.
    pub healthy: Option<bool>,
    /// Why the phase is `Reverting`, `Reverted` or `Failed`, or why health does not hold, in words.
    pub reason: Option<String>,
    /// Output of the hook that failed: head and tail.
    pub hook_output: Option<String>,
    /// Frame bytes of the plan that are on disk, and all of them.
    pub fetched_bytes: u64,
    /// Frame bytes of the plan.
    pub fetch_total_bytes: u64,
    /// What the content connections carried for this order, counted at the socket, both directions.
    pub wire_bytes: u64,
    /// Time from the first content request to `Staged`.
    pub stage_time: Duration,
    /// Time the switch of `current` took, from before the `rename` to after the directory's sync.
    pub switch_time: Duration,
    /// What of the installed releases is not what it must be, or was not; nothing where all was found right.
    pub drift: Option<Drift>,
}

/// What a host has found to differ from its installed releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Paths that are not what they must be.
    pub count: u64,
    /// The first of them, and what is wrong with it; empty where nothing is.
    pub first: String,
    /// Paths that were mended since the agent started.
    pub mended: u64,
}
