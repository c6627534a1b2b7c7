//! Where an environment's run stands.

use std::fmt;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its applications come, in order.
    Applying,
    /// Every application stands; hosts that come later are brought to it.
    Standing,
    /// A rollout failed, or an operator said so: nothing more is begun, what was brought stays.
    Stopped {
        /// Why.
        reason: String,
    },
    /// What the run has brought goes back, in reverse order.
    RollingBack {
        /// Why.
        reason: String,
    },
    /// It has gone back; what stood before it holds again.
    RolledBack {
        /// Why.
        reason: String,
    },
}

impl State {
    /// Returns the state's name.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Applying => "applying",
            Self::Standing => "standing",
            Self::Stopped { .. } => "stopped",
            Self::RollingBack { .. } => "rolling-back",
            Self::RolledBack { .. } => "rolled-back",
        }
    }

    /// Returns why, where something or somebody decided so.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Applying | Self::Standing => None,
            Self::Stopped { reason } | Self::RollingBack { reason } | Self::RolledBack { reason } => {
                Some(reason)
            }
        }
    }

    /// Says whether the run has come to its end, good or bad.
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Applying | Self::RollingBack { .. } => false,
            Self::Standing | Self::Stopped { .. } | Self::RolledBack { .. } => true,
        }
    }

    /// Puts name and reason together again.
    pub fn from_parts(name: &str, reason: Option<String>) -> Option<Self> {
        let reason = reason.unwrap_or_default();
        Some(match name {
            "applying" => Self::Applying,
            "standing" => Self::Standing,
            "stopped" => Self::Stopped { reason },
            "rolling-back" => Self::RollingBack { reason },
            "rolled-back" => Self::RolledBack { reason },
            _ => return None,
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let reason = || "because".to_owned();
        for state in [
            State::Applying,
            State::Standing,
            State::Stopped { reason: reason() },
            State::RollingBack { reason: reason() },
            State::RolledBack { reason: reason() },
        ] {
            let back = State::from_parts(state.as_str(), state.reason().map(str::to_owned));
            assert_eq!(back.as_ref(), Some(&state));
        }
        assert_eq!(State::from_parts("asleep", None), None);
    }
}
