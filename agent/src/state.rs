//! What an agent remembers of one application: the accepted order and how far it is. Written before the effect
//! it announces, so that after a crash it says what may have happened and never less. What a switch changes step by step
//! stands in [`steps`] until it has ended.
//!
//! Owned by the application's [`crate::engine`]; read by `status` and `fsck`.

mod progress;
mod signed;
mod standing;
mod steps;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_common::digest::Digest;
use sluice_common::durable;
use sluice_common::name::{AppName, RolloutId, Version};
use sluice_common::order::{Desired, Generation, Installed, Order, Stage};

use crate::clock::BootTime;

pub(crate) use progress::{HookRun, Progress, Switch};
pub(crate) use signed::{SignedFileError, load_signed, store_signed};
pub(crate) use standing::{Arrival, Beside, Standing};
use steps::Written;

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
    /// Whether the coordinator has confirmed that the release is healthy.
    #[serde(default)]
    pub(crate) confirmed: bool,
    /// Whether this host is the one that migrates shared data.
    #[serde(default = "yes")]
    pub(crate) migrates: bool,
    /// What each need of the application is met by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) needs: BTreeMap<AppName, String>,
    /// What outlives the order.
    #[serde(default)]
    pub(crate) standing: Standing,
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

    /// Says whether a release is to run beside the live one.
    pub(crate) fn is_candidate(&self) -> bool {
        matches!(self, Self::Release { stage: Stage::Candidate, .. })
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
            confirmed: order.confirmed,
            migrates: order.migrates,
            needs: order.needs.clone(),
            standing: Standing::default(),
        }
    }

    /// Takes over what outlives an order.
    pub(crate) fn following(self, before: Option<&Self>) -> Self {
        Self { standing: before.map(|before| before.standing.clone()).unwrap_or_default(), ..self }
    }

    /// Says whether the order may no longer begin a switch. After a reboot that is unknown, which counts as yes.
    pub(crate) fn has_expired(&self, now: &BootTime) -> bool {
        now.since(&self.received).is_none_or(|age| age >= Duration::from_millis(self.ttl_ms))
    }

    /// Reads a state file; nothing where there is none.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, StateError> {
        match fs_err::read_to_string(path) {
            Ok(text) => {
                let text = steps::latest(path, &text)?.unwrap_or(text);
                toml::from_str(&text).map(Some).map_err(|error| StateError::Damaged {
                    path: path.display().to_string(),
                    reason: error.message().to_owned(),
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the state file, durably.
    pub(crate) fn store(&self, path: &Path) -> io::Result<()> {
        durable::write_private(path, self.to_text()?.as_bytes())
    }

    /// Replaces the state file as a switch begins, whose steps will follow it.
    pub(crate) fn store_beginning(&self, path: &Path) -> io::Result<()> {
        steps::make_ready(path)?;
        self.store(path)
    }

    /// Writes down what a step of a switch has changed, durably; says whether it follows the state file, which is else replaced.
    pub(crate) fn store_step(&self, path: &Path) -> io::Result<bool> {
        match steps::follow(path, &self.to_text()?) {
            Ok(Written::Entry) => Ok(true),
            // Where the one file cannot be written, the other may.
            Ok(Written::Not) | Err(_) => self.store(path).map(|()| false),
        }
    }

    fn to_text(&self) -> io::Result<String> {
        toml::to_string(self).map_err(io::Error::other)
    }
}

/// A single host migrates its own data.
fn yes() -> bool {
    true
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
    use crate::sequence::{BackStep, SwitchStep, undeclared, undeclared_back};

    fn installed(name: &str) -> Installed {
        Installed { package: Digest::of(name.as_bytes()), version: name.parse().unwrap() }
    }

    /// Files that agents wrote before sequences stood in them.
    #[test]
    fn older_files_are_read() {
        let head = "generation = 4\nrollout = \"r1\"\nstarts = 2\nttl_ms = 900000\nreason = \"ill\"\n\n\
             [received]\nboot = \"b\"\nms = 7\n\n[wanted]\nkind = \"release\"\nstage = \"active\"\n\
             package = \"PACKAGE\"\nversion = \"2\"\n\n[progress]\n";
        let way = "\n[progress.switch.predecessor]\npackage = \"PACKAGE\"\nversion = \"1\"\n";
        let switch = Switch { predecessor: Some(installed("p")), ..Switch::plain(None) };
        let switch = Switch {
            predecessor: switch
                .predecessor
                .map(|release| Installed { version: "1".parse().unwrap(), ..release }),
            steps: undeclared(),
            back: undeclared_back(),
            ..Switch::plain(None)
        };
        let hook = Some(HookRun { name: "stop of 1".into(), id: "x".into() });
        let deadline = BootTime::at("b", Duration::from_millis(9));
        for (text, expected) in [
            ("phase = \"active\"\n".to_owned(), Progress::Active),
            (
                format!(
                    "phase = \"switching\"\nat = \"stop_old\"\n\n[progress.hook]\nname = \"stop of 1\"\nid = \"x\"\n{way}"
                ),
                Progress::Switching { at: SwitchStep::StopOld, hook, switch: switch.clone() },
            ),
            (
                format!("phase = \"switching\"\nat = \"start_new\"\n{way}"),
                Progress::Switching { at: SwitchStep::StartNew, hook: None, switch: switch.clone() },
            ),
            (
                format!("phase = \"validating\"\n\n[progress.deadline]\nboot = \"b\"\nms = 9\n{way}"),
                Progress::Validating {
                    deadline,
                    bake_until: None,
                    confirm_until: None,
                    switch: switch.clone(),
                },
            ),
            (
                format!("phase = \"reverting\"\nat = \"link_back\"\n{way}"),
                Progress::Reverting { at: BackStep::LinkBack, hook: None, switch },
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.toml");
            let text = format!("{head}{text}").replace("PACKAGE", &Digest::of(b"p").to_string());
            fs_err::write(&path, &text).unwrap();
            let state = AppState::load(&path).unwrap().unwrap();
            assert_eq!(state.progress, expected, "{text}");
            assert!(state.migrates && !state.confirmed && state.standing == Standing::default());
        }
    }

    #[test]
    fn every_progress_survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.toml");
        let now = BootTime::at("boot", Duration::from_secs(7));
        let switch = Switch {
            predecessor: Some(installed("1")),
            steps: vec![SwitchStep::StartCandidate, SwitchStep::Link, SwitchStep::Bake],
            back: vec![BackStep::LinkBack],
            new_slot: Some("green".into()),
            snapshot: Some("snap-1".into()),
            tries: 2,
            ..Switch::plain(None)
        };
        let hook = Some(HookRun { name: "start of 2".into(), id: "x".into() });
        for progress in [
            Progress::Fetching,
            Progress::Preparing { hook: hook.clone(), tries: 1 },
            Progress::Staged,
            Progress::Candidate,
            Progress::Switching { at: SwitchStep::Link, hook: hook.clone(), switch: switch.clone() },
            Progress::Validating {
                deadline: now.clone(),
                bake_until: Some(now.clone()),
                confirm_until: Some(now.clone()),
                switch: switch.clone(),
            },
            Progress::Active,
            Progress::Reverting { at: BackStep::StartOld, hook: hook.clone(), switch },
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
                    confirmed: true,
                    migrates: false,
                    needs: BTreeMap::from([("search".parse().unwrap(), "lists by name".to_owned())]),
                    standing: Standing {
                        slot: Some("blue".into()),
                        beside: Some(Beside {
                            release: installed("2"),
                            slot: Some("green".into()),
                            since: now.clone(),
                            hook: hook.clone(),
                        }),
                        prepared: Some(Digest::of(b"2")),
                        arrival: Some(Arrival {
                            rollout: "r0".parse().unwrap(),
                            from: Some(installed("0")),
                            snapshot: None,
                        }),
                    },
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
