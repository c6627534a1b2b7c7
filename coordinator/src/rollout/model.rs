//! A rollout as it stands in the database: who takes part, what each host was ordered, how far the gates are.
//!
//! All of it is durable and changes only by [`super::action::Action`]s, so that a coordinator that died goes on
//! where it was. What hosts *are* stands in the [`super::view::FleetView`] instead.

use std::fmt;
use std::ops::Range;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluice_common::digest::Digest;
use sluice_common::name::{AppName, HostName, OperatorName, RolloutId, SiteName, Version};
use sluice_common::order::{Generation, Installed};

use super::batches::Candidate;
use super::spec::Spec;

/// One release brought to a selection of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Its name.
    pub id: RolloutId,
    /// The application.
    pub app: AppName,
    /// The release's version.
    pub version: Version,
    /// What was asked.
    pub spec: Spec,
    /// The hosts, batch by batch.
    pub members: Vec<Member>,
    /// The batches: ranges of `members`, without gaps, none empty.
    pub batches: Vec<Range<usize>>,
    /// Where it stands.
    pub state: State,
    /// How far the gates are.
    pub cursor: Cursor,
    /// How many failures an operator has accepted by resuming.
    pub forgiven: usize,
    /// Who started it.
    pub started_by: OperatorName,
    /// When.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// A host's part in a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The host.
    pub host: HostName,
    /// Its site when the rollout began.
    pub site: SiteName,
    /// The release's package for it.
    pub package: Digest,
    /// The newest order that this rollout gave it.
    pub order: Option<Issued>,
    /// Why it counts as failed; once set, it stays.
    pub failure: Option<Failure>,
}

/// An order that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Its fence.
    pub generation: Generation,
    /// What it asks.
    pub target: Target,
    /// When it was given.
    pub at: Timestamp,
}

/// What an order asks of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Target {
    /// The rollout's release, ready beside the running one.
    Stage,
    /// The rollout's release, running.
    Activate {
        /// What ran before: where a roll-back leads.
        over: Option<Installed>,
    },
    /// The predecessor, running.
    Restore {
        /// The predecessor.
        to: Installed,
    },
    /// Nothing: there was no predecessor.
    Remove,
}

impl Target {
    /// Says whether the order may take the application away for a moment.
    pub fn is_disruptive(&self) -> bool {
        match self {
            Self::Stage => false,
            Self::Activate { .. } | Self::Restore { .. } | Self::Remove => true,
        }
    }
}

/// Why a host counts as failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Failure {
    /// The release could not be staged.
    #[error("could not stage the release: {reason}")]
    Staging {
        /// Why, in the host's words.
        reason: String,
    },
    /// The release could not be switched to; nothing changed.
    #[error("could not switch: {reason}")]
    Switch {
        /// Why, in the host's words.
        reason: String,
    },
    /// The host switched, its gate did not pass, and it went back by itself.
    #[error("went back by itself: {reason}")]
    Reverted {
        /// Why, in the host's words.
        reason: String,
    },
    /// The host was reachable, and yet did not switch in time.
    #[error("did not switch within its deadline")]
    Deadline,
    /// The host runs the release, and its health does not hold.
    #[error("unhealthy with the release: {reason}")]
    Unhealthy {
        /// Why, in the host's words.
        reason: String,
    },
}

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Batches are on their way.
    Running,
    /// No new order is given until an operator resumes.
    Paused {
        /// Why.
        reason: String,
    },
    /// Hosts that switched get their predecessor back.
    RollingBack {
        /// Why.
        reason: String,
    },
    /// Every gate has passed. Ended.
    Succeeded,
    /// Every host that switched has its predecessor back. Ended.
    RolledBack {
        /// Why it was rolled back.
        reason: String,
    },
    /// Some host could not be rolled back. Ended.
    Failed {
        /// Which, and why.
        reason: String,
    },
    /// An operator gave it up; hosts stay as they are. Ended.
    Aborted {
        /// Why.
        reason: String,
    },
}

impl State {
    /// Says whether nothing more will happen unless an operator asks for it.
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Running | Self::Paused { .. } | Self::RollingBack { .. } => false,
            Self::Succeeded | Self::RolledBack { .. } | Self::Failed { .. } | Self::Aborted { .. } => true,
        }
    }

    /// Returns the state's name.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused { .. } => "paused",
            Self::RollingBack { .. } => "rolling-back",
            Self::Succeeded => "succeeded",
            Self::RolledBack { .. } => "rolled-back",
            Self::Failed { .. } => "failed",
            Self::Aborted { .. } => "aborted",
        }
    }

    /// Returns why the rollout is in this state, where somebody or something decided so.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Running | Self::Succeeded => None,
            Self::Paused { reason }
            | Self::RollingBack { reason }
            | Self::RolledBack { reason }
            | Self::Failed { reason }
            | Self::Aborted { reason } => Some(reason),
        }
    }

    /// Puts name and reason together again.
    pub fn from_parts(name: &str, reason: Option<String>) -> Option<Self> {
        let reason = reason.unwrap_or_default();
        Some(match name {
            "running" => Self::Running,
            "paused" => Self::Paused { reason },
            "rolling-back" => Self::RollingBack { reason },
            "succeeded" => Self::Succeeded,
            "rolled-back" => Self::RolledBack { reason },
            "failed" => Self::Failed { reason },
            "aborted" => Self::Aborted { reason },
            _ => return None,
        })
    }

    /// Says whether a standing order still goes out to its host while its rollout is in this state.
    ///
    /// After an abort no host begins to switch that has not heard of it yet (I15); once a release is being taken
    /// back it is no longer staged. An order that leads back always stands.
    pub fn delivers(&self, target: &Target) -> bool {
        match (self, target) {
            (_, Target::Restore { .. } | Target::Remove) => true,
            (Self::Running | Self::Paused { .. } | Self::Succeeded, Target::Stage | Target::Activate { .. }) => true,
            (
                Self::RollingBack { .. } | Self::RolledBack { .. } | Self::Failed { .. } | Self::Aborted { .. },
                Target::Stage | Target::Activate { .. },
            ) => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(f, "{}: {reason}", self.as_str()),
            None => f.write_str(self.as_str()),
        }
    }
}

/// How far the gates are: every batch before `batch` has passed, none after it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The current batch, counted from 0; the number of batches once all have passed.
    pub batch: usize,
    /// Its gate.
    pub gate: Gate,
}

/// The gate of the current batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// No host of it was ordered to switch.
    Waiting,
    /// Its hosts are being ordered to switch.
    Open,
    /// All of its hosts have been holding since then.
    Baking {
        /// Since when.
        since: Timestamp,
    },
}

impl Rollout {
    /// Begins a rollout over lowered batches; nothing is ordered yet.
    pub fn new(
        id: RolloutId,
        app: AppName,
        version: Version,
        spec: Spec,
        lowered: Vec<Vec<Candidate>>,
        started_by: OperatorName,
        started: Timestamp,
    ) -> Self {
        let (mut members, mut batches) = (Vec::new(), Vec::new());
        for batch in lowered {
            let first = members.len();
            members.extend(batch.into_iter().map(|candidate| {
                let Candidate { host, site, platform: _, package, settled: _ } = candidate;
                Member { host, site, package, order: None, failure: None }
            }));
            batches.push(first..members.len());
        }
        let cursor = Cursor { batch: 0, gate: Gate::Waiting };
        Self {
            id,
            app,
            version,
            spec,
            members,
            batches,
            state: State::Running,
            cursor,
            forgiven: 0,
            started_by,
            started,
            ended: None,
        }
    }

    /// Returns how many hosts have failed so far.
    pub fn failed(&self) -> usize {
        self.members.iter().filter(|member| member.failure.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states() -> [State; 7] {
        let reason = || "because".to_owned();
        [
            State::Running,
            State::Paused { reason: reason() },
            State::RollingBack { reason: reason() },
            State::Succeeded,
            State::RolledBack { reason: reason() },
            State::Failed { reason: reason() },
            State::Aborted { reason: reason() },
        ]
    }

    #[test]
    fn states_read_back_from_their_parts() {
        for state in states() {
            assert_eq!(State::from_parts(state.as_str(), state.reason().map(str::to_owned)), Some(state));
        }
        assert_eq!(State::from_parts("lost", None), None);
    }

    #[test]
    fn orders_that_lead_back_always_go_out_and_others_only_while_wanted() {
        let to = Installed { package: Digest::of(b"p"), version: "1".parse().unwrap() };
        let names = |target: &Target| {
            states().iter().filter(|s| s.delivers(target)).map(State::as_str).collect::<Vec<_>>().join(" ")
        };
        let all = "running paused rolling-back succeeded rolled-back failed aborted";
        assert_eq!(names(&Target::Stage), "running paused succeeded");
        assert_eq!(names(&Target::Activate { over: None }), "running paused succeeded");
        assert_eq!(names(&Target::Restore { to }), all);
        assert_eq!(names(&Target::Remove), all);
    }

    #[test]
    fn the_stored_form_of_targets_never_changes() {
        let to = Installed { package: Digest::of(b"p"), version: "1".parse().unwrap() };
        let text = |target| serde_json::to_string(&target).unwrap();
        let digest = to.package.to_string();
        assert_eq!(text(Target::Stage), r#"{"kind":"stage"}"#);
        assert_eq!(text(Target::Activate { over: None }), r#"{"kind":"activate","over":null}"#);
        let installed = format!(r#"{{"package":"{digest}","version":"1"}}"#);
        assert_eq!(text(Target::Activate { over: Some(to.clone()) }), format!(r#"{{"kind":"activate","over":{installed}}}"#));
        assert_eq!(text(Target::Restore { to }), format!(r#"{{"kind":"restore","to":{installed}}}"#));
        assert_eq!(text(Target::Remove), r#"{"kind":"remove"}"#);
    }
}
