//! How far an order is, and the way back from there.

use serde::{Deserialize, Serialize};
use sluice_common::order::{Installed, Phase};

use crate::clock::BootTime;
use crate::sequence::{BackStep, SwitchStep, is_validated, undeclared, undeclared_back};

/// How far an order is. Each variant holds just what recovery needs there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(crate) enum Progress {
    /// Content is on its way.
    Fetching,
    /// Everything is on disk, and the release's `stage` hook is about to run, or runs.
    Preparing {
        /// The hook that was started and has not been seen to end.
        hook: Option<HookRun>,
        /// How often it has asked to be tried later.
        tries: u32,
    },
    /// Everything is on disk.
    Staged,
    /// The release runs beside the live one, and was found good.
    Candidate,
    /// The step `at` is about to be taken, or its hook runs.
    Switching {
        /// The next step.
        at: SwitchStep,
        /// The hook that was started and has not been seen to end.
        hook: Option<HookRun>,
        /// The way back.
        switch: Switch,
    },
    /// The gate is watched.
    Validating {
        /// When the checks must have succeeded.
        deadline: BootTime,
        /// They have: until when they must keep holding.
        bake_until: Option<BootTime>,
        /// They have kept holding: until when the coordinator must confirm.
        #[serde(default)]
        confirm_until: Option<BootTime>,
        /// The way back.
        switch: Switch,
    },
    /// The gate has passed.
    Active,
    /// The step `at` of going back is about to be taken, or its hook runs.
    Reverting {
        /// The next step.
        at: BackStep,
        /// The hook that was started and has not been seen to end.
        hook: Option<HookRun>,
        /// Where to go.
        switch: Switch,
    },
    /// The predecessor is back.
    Reverted,
    /// The order cannot be carried out.
    Failed,
}

/// What stood before a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Switch {
    /// What `current` pointed at: where a revert goes.
    pub(crate) predecessor: Option<Installed>,
    /// What `previous` pointed at.
    pub(crate) previous: Option<Installed>,
    /// Every step, in order.
    #[serde(default = "undeclared")]
    pub(crate) steps: Vec<SwitchStep>,
    /// Every step of going back, in order, once that has begun.
    #[serde(default = "undeclared_back")]
    pub(crate) back: Vec<BackStep>,
    /// The slot of the predecessor.
    #[serde(default)]
    pub(crate) old_slot: Option<String>,
    /// The slot of the wanted release.
    #[serde(default)]
    pub(crate) new_slot: Option<String>,
    /// What names the shared data as they were before.
    #[serde(default)]
    pub(crate) snapshot: Option<String>,
    /// How often the hook that is due has asked to be tried later.
    #[serde(default)]
    pub(crate) tries: u32,
}

/// A hook that was started: written before it starts, removed when it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HookRun {
    /// Which hook of which release.
    pub(crate) name: String,
    /// Marks the hook's processes, so that a restarted agent finds and ends them.
    pub(crate) id: String,
}

impl HookRun {
    /// Says what became of a hook that was seen to start and not to end.
    pub(crate) fn interruption(&self) -> String {
        format!("hook {} was interrupted by a restart of the agent, and is not run again", self.name)
    }
}

impl Switch {
    /// Says whether the two releases run beside each other.
    pub(crate) fn is_parallel(&self) -> bool {
        self.steps.contains(&SwitchStep::ValidateCandidate)
    }

    /// Begins with nothing but where to go back to.
    pub(crate) fn plain(predecessor: Option<Installed>) -> Self {
        Self {
            predecessor,
            previous: None,
            steps: Vec::new(),
            back: Vec::new(),
            old_slot: None,
            new_slot: None,
            snapshot: None,
            tries: 0,
        }
    }
}

impl Progress {
    /// Says whether a switch, or the way back from one, has begun and not ended.
    pub(crate) fn is_under_way(&self) -> bool {
        match self {
            Self::Switching { .. } | Self::Validating { .. } | Self::Reverting { .. } => true,
            Self::Fetching
            | Self::Preparing { .. }
            | Self::Staged
            | Self::Candidate
            | Self::Active
            | Self::Reverted
            | Self::Failed => false,
        }
    }

    /// Returns the phase as it is reported.
    pub(crate) fn phase(&self) -> Phase {
        match self {
            Self::Fetching | Self::Preparing { .. } => Phase::Fetching,
            Self::Staged => Phase::Staged,
            Self::Candidate => Phase::Candidate,
            Self::Switching { at, switch, .. } => switching_phase(*at, &switch.steps),
            Self::Validating { .. } => Phase::Validating,
            Self::Active => Phase::Active,
            Self::Reverting { .. } => Phase::Reverting,
            Self::Reverted => Phase::Reverted,
            Self::Failed => Phase::Failed,
        }
    }
}

/// Returns the phase that a step counts to. A candidate on its way counts as staged until it was found good.
fn switching_phase(at: SwitchStep, steps: &[SwitchStep]) -> Phase {
    match at {
        _ if at.is_beside() => Phase::Staged,
        _ if is_validated(steps, at) => Phase::Validating,
        SwitchStep::DrainOld => Phase::Draining,
        _ => Phase::Switching,
    }
}
