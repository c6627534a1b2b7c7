//! Where a rollout stands as a whole, and what that means for its orders.

use std::fmt;

use super::model::Target;

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
            (
                Self::Running | Self::Paused { .. } | Self::Succeeded,
                Target::Stage | Target::Candidate { .. } | Target::Activate { .. },
            ) => true,
            (
                Self::RollingBack { .. }
                | Self::RolledBack { .. }
                | Self::Failed { .. }
                | Self::Aborted { .. },
                Target::Stage | Target::Candidate { .. } | Target::Activate { .. },
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

#[cfg(test)]
mod tests {
    use sluice_common::digest::Digest;
    use sluice_common::order::Installed;

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
        assert_eq!(names(&Target::Candidate { over: None }), "running paused succeeded");
        assert_eq!(names(&Target::Activate { over: None }), "running paused succeeded");
        assert_eq!(names(&Target::Restore { to }), all);
        assert_eq!(names(&Target::Remove), all);
    }
}
