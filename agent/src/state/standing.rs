//! What outlives an order: which slot is live, what runs beside it, how what runs came to run.

use serde::{Deserialize, Serialize};
use sluice_common::digest::Digest;
use sluice_common::name::RolloutId;
use sluice_common::order::Installed;

use super::HookRun;
use crate::clock::BootTime;

/// What is so whatever is ordered: carried over from one order to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Standing {
    /// The slot of what `current` leads to.
    pub(crate) slot: Option<String>,
    /// What runs beside it, or may do so: a candidate, or a predecessor that is kept warm.
    pub(crate) beside: Option<Beside>,
    /// The package whose `stage` hook has succeeded.
    pub(crate) prepared: Option<Digest>,
    /// How what runs came to run.
    pub(crate) arrival: Option<Arrival>,
}

/// A release that runs beside the live one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beside {
    /// The release.
    pub(crate) release: Installed,
    /// Its slot; nothing of a release that knows no slots.
    pub(crate) slot: Option<String>,
    /// When it was started, or taken off the traffic.
    pub(crate) since: BootTime,
    /// The `stop` hook that was started and has not been seen to end.
    pub(crate) hook: Option<HookRun>,
}

/// The last switch that held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Arrival {
    /// The rollout that asked for it.
    pub(crate) rollout: RolloutId,
    /// What ran before: to go back to it in the same rollout is to return.
    pub(crate) from: Option<Installed>,
    /// What names the shared data as they were before.
    pub(crate) snapshot: Option<String>,
}
