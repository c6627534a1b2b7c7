//! What an agent remembers of one application: the accepted order and how far it is. Written before the effect
//! it announces, so that after a crash it says what may have happened and never less.
//!
//! Owned by the application's [`crate::engine`]; read by `status` and `fsck`.

mod signed;

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_common::digest::Digest;
use sluice_common::durable;
use sluice_common::name::{RolloutId, Version};
use sluice_common::order::{Desired, Generation, Installed, Order, Phase, Stage};

use crate::clock::BootTime;

pub(crate) use signed::{load_signed, store_signed};

/// What an agent remembers of one application.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AppState {
    /// The accepted generation; lower ones are refused.
    pub(crate) generation: Generation,
    /// The rollout that asked.
    pub(crate) rollout: RolloutId,
    /// Starts of the agent since this file was made; the upper half of every report's sequence.
    pub(crate) starts: u32,
    /// How long after its receipt the order may still begin a switch.
    pub(crate) ttl_ms: u64,
    /// Why the order failed or went back.
    pub(crate) reason: Option<String>,
    /// Output of the hook that failed.
    pub(crate) hook_output: Option<String>,
    /// When the order was last received.
    pub(crate) received: BootTime,
    /// What was asked.
    pub(crate) wanted: Wanted,
    /// How far it is.
    pub(crate) progress: Progress,
    /// What it took.
    #[serde(default)]
    pub(crate) cost: Cost,
}

/// What an order asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Wanted {
    /// A release, so far.
    Release {
        /// How far.
        stage: Stage,
        /// Its package for this host.
        package: Digest,
        /// Its version.
        version: Version,
    },
    /// No release.
    Absent,
}

/// How far an order is. Each variant holds just what recovery needs there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(crate) enum Progress {
    /// Content is on its way.
    Fetching,
    /// Everything is on disk.
    Staged,
    /// The step `at` is about to be taken, or its hook runs.
    Switching {
        /// The next step.
        at: SwitchAt,
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
        /// The way back.
        switch: Switch,
    },
    /// The gate has passed.
    Active,
    /// The step `at` of going back is about to be taken, or its hook runs.
    Reverting {
        /// The next step.
        at: RevertAt,
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
}

/// The steps of a switch, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SwitchAt {
    /// The predecessor's `stop` hook.
    StopOld,
    /// `current` and `previous` move.
    Link,
    /// The new release's `start` hook.
    StartNew,
}

/// The steps of a revert, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RevertAt {
    /// The new release's `stop` hook.
    StopNew,
    /// `current` and `previous` move back.
    LinkBack,
    /// The predecessor's `start` hook.
    StartOld,
}

/// A hook that was started: written before it starts, removed when it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HookRun {
    /// Which hook of which release.
    pub(crate) name: String,
    /// Marks the hook's processes, so that a restarted agent finds and ends them.
    pub(crate) id: String,
}

/// What an order took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Cost {
    /// Frame bytes of the plan.
    pub(crate) plan_bytes: u64,
    /// Bytes of the content connections, both ways.
    pub(crate) wire_bytes: u64,
    /// From the first content request to staged.
    pub(crate) stage_us: u64,
    /// Move of `current`.
    pub(crate) switch_us: u64,
}

impl Progress {
    /// Returns the phase as it is reported.
    pub(crate) fn phase(&self) -> Phase {
        match self {
            Self::Fetching => Phase::Fetching,
            Self::Staged => Phase::Staged,
            Self::Switching { .. } => Phase::Switching,
            Self::Validating { .. } => Phase::Validating,
            Self::Active => Phase::Active,
            Self::Reverting { .. } => Phase::Reverting,
            Self::Reverted => Phase::Reverted,
            Self::Failed => Phase::Failed,
        }
    }
}

impl Wanted {
    /// Reads what `desired` asks for.
    pub(crate) fn of(desired: &Desired) -> Self {
        match desired {
            Desired::Release { stage, release, package } => {
                Self::Release { stage: *stage, package: *package, version: release.release.version.clone() }
            }
            Desired::Absent => Self::Absent,
        }
    }

    /// Returns the release that is wanted.
    pub(crate) fn installed(&self) -> Option<Installed> {
        match self {
            Self::Release { package, version, .. } => {
                Some(Installed { package: *package, version: version.clone() })
            }
            Self::Absent => None,
        }
    }

    /// Returns the package that is wanted.
    pub(crate) fn package(&self) -> Option<Digest> {
        match self {
            Self::Release { package, .. } => Some(*package),
            Self::Absent => None,
        }
    }
}

impl AppState {
    /// Begins with a newly accepted order.
    pub(crate) fn accepted(order: &Order, now: BootTime, starts: u32) -> Self {
        Self {
            generation: order.generation,
            rollout: order.rollout.clone(),
            starts,
            ttl_ms: u64::try_from(order.ttl.as_millis()).unwrap_or(u64::MAX).min(i64::MAX as u64),
            reason: None,
            hook_output: None,
            received: now,
            wanted: Wanted::of(&order.desired),
            progress: Progress::Fetching,
            cost: Cost::default(),
        }
    }

    /// Says whether the order may no longer begin a switch. After a reboot that is unknown, which counts as yes.
    pub(crate) fn has_expired(&self, now: &BootTime) -> bool {
        now.since(&self.received).is_none_or(|age| age >= Duration::from_millis(self.ttl_ms))
    }

    /// Reads a state file; nothing where there is none.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, StateError> {
        match fs_err::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map(Some).map_err(|error| StateError::Damaged {
                path: path.display().to_string(),
                reason: error.message().to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the state file, durably.
    pub(crate) fn store(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        durable::write_private(path, text.as_bytes())
    }
}

/// Says why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// It is not what an agent writes.
    #[error(
        "{path} is damaged ({reason}), so the last accepted generation is unknown; restore it from a backup, \
         or remove it to accept any generation"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Reading failed.
    #[error("cannot read the application's state")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(name: &str) -> Installed {
        Installed { package: Digest::of(name.as_bytes()), version: name.parse().unwrap() }
    }

    #[test]
    fn every_progress_survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.toml");
        let now = BootTime::at("boot", Duration::from_secs(7));
        let switch = Switch { predecessor: Some(installed("1")), previous: None };
        let hook = Some(HookRun { name: "start of 2".into(), id: "x".into() });
        for progress in [
            Progress::Fetching,
            Progress::Staged,
            Progress::Switching { at: SwitchAt::Link, hook: hook.clone(), switch: switch.clone() },
            Progress::Validating {
                deadline: now.clone(),
                bake_until: Some(now.clone()),
                switch: switch.clone(),
            },
            Progress::Active,
            Progress::Reverting { at: RevertAt::StartOld, hook, switch },
            Progress::Reverted,
            Progress::Failed,
        ] {
            for wanted in [
                Wanted::Absent,
                Wanted::Release {
                    stage: Stage::Active,
                    package: Digest::of(b"2"),
                    version: "2".parse().unwrap(),
                },
            ] {
                let state = AppState {
                    generation: Generation(4),
                    rollout: "r1".parse().unwrap(),
                    starts: 2,
                    ttl_ms: 900_000,
                    reason: Some("a \"reason\"\nof two lines".into()),
                    hook_output: None,
                    received: now.clone(),
                    wanted,
                    progress: progress.clone(),
                    cost: Cost { wire_bytes: 5, ..Cost::default() },
                };
                state.store(&path).unwrap();
                assert_eq!(AppState::load(&path).unwrap(), Some(state));
            }
        }
        fs_err::write(&path, "generation = ").unwrap();
        assert!(matches!(AppState::load(&path), Err(StateError::Damaged { .. })));
        assert!(AppState::load(&dir.path().join("none")).unwrap().is_none());
    }
}
