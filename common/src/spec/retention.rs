//! `[retention]`: how many releases a host keeps.

use serde::Deserialize;

use super::SpecError;
use crate::caps;

/// How many releases of the application a host keeps, unless its own `agent.toml` says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Releases in all, what runs and what it took the place of among them.
    pub keep: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep: caps::RETENTION_RELEASES }
    }
}

impl Retention {
    /// Checks the values; the error names the field.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        check_keep(self.keep).map_err(|reason| SpecError::field("retention.keep", reason))
    }
}

/// Checks a number of releases to keep; the error says why it is none.
pub fn check_keep(keep: u32) -> Result<(), String> {
    match keep {
        0 | 1 => Err(format!("is {keep}; write at least 2: what runs, and what a host goes back to")),
        _ if keep > caps::RETENTION_RELEASES_MAX => {
            Err(format!("is {keep}; write at most {}", caps::RETENTION_RELEASES_MAX))
        }
        _ => Ok(()),
    }
}
