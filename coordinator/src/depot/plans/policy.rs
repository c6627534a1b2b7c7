//! When plans get which effort.

use std::str::FromStr;

use serde::Deserialize;
use sluice_common::transfer::Effort;

/// How much CPU plans may take, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Quick plans only.
    Quick,
    /// A quick plan at once; the best one in the background, for hosts whose link is limited.
    #[default]
    Improve,
    /// Hosts wait for the best plan.
    Best,
}

/// Says that a text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an effort; write quick, improve or best")]
pub struct PolicyError(String);

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        match text {
            "quick" => Ok(Self::Quick),
            "improve" => Ok(Self::Improve),
            "best" => Ok(Self::Best),
            other => Err(PolicyError(other.to_owned())),
        }
    }
}

impl Policy {
    /// Returns the effort of a plan that somebody waits for.
    pub fn first(self) -> Effort {
        match self {
            Self::Quick | Self::Improve => Effort::Quick,
            Self::Best => Effort::Best,
        }
    }

    /// Says whether best plans are made beside quick ones.
    pub fn improves(self) -> bool {
        match self {
            Self::Quick => false,
            Self::Improve | Self::Best => true,
        }
    }
}
