//! `[gate]`: what must hold after a switch, and for how long.

use std::time::Duration;

use serde::Deserialize;

use crate::units::duration_text;

/// How health is judged.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// Time from the switch within which every check must have reached its successes in a row.
    #[serde(with = "duration_text")]
    pub deadline: Duration,
    /// Time for which every check must then keep holding.
    #[serde(with = "duration_text")]
    pub bake: Duration,
    /// Whether the coordinator must have heard that the release is healthy before it counts as active.
    pub confirm: bool,
    /// Time from the end of the bake within which the coordinator must have confirmed.
    #[serde(with = "duration_text")]
    pub confirm_within: Duration,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            bake: Duration::ZERO,
            confirm: false,
            // A restart of the coordinator, and of a network that the release itself has changed.
            confirm_within: Duration::from_secs(5 * 60),
        }
    }
}
