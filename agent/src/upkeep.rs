//! What an operator says of the upkeep of a host: `[retention]` and `[drift]` in `agent.toml`.

use std::time::Duration;

use serde::Deserialize;
use sluice_common::caps;
use sluice_common::spec::check_keep;
use sluice_common::units::{ByteRate, duration_text};

use crate::stage::Floor;

/// How a host is kept in order.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Upkeep {
    /// What is kept of old releases.
    pub(crate) retention: Retention,
    /// When and how fast installed releases are verified.
    pub(crate) drift: Timetable,
}

/// What is kept of old releases; `[retention]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retention {
    /// Releases of each application, whatever the applications say.
    pub(crate) keep: Option<u32>,
    /// What stays free of the disk: where it is touched, old releases go.
    pub(crate) disk_floor: Floor,
}

/// When and how fast installed releases are verified; `[drift]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timetable {
    /// Time between two looks at what may have changed.
    #[serde(with = "duration_text")]
    pub(crate) look: Duration,
    /// Time between two verifications of every byte.
    #[serde(with = "duration_text")]
    pub(crate) hash: Duration,
    /// How fast files are read for it.
    pub(crate) rate: ByteRate,
}

impl Default for Timetable {
    fn default() -> Self {
        Self { look: caps::DRIFT_LOOK_INTERVAL, hash: caps::DRIFT_HASH_INTERVAL, rate: caps::DRIFT_RATE }
    }
}

impl Upkeep {
    /// Checks the values; the error names the field.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { retention, drift } = self;
        retention.keep.map_or(Ok(()), check_keep).map_err(|reason| format!("retention.keep: {reason}"))?;
        for (field, time) in [("look", drift.look), ("hash", drift.hash)] {
            if time < caps::DRIFT_INTERVAL_MIN {
                let least = sluice_common::units::format_duration(caps::DRIFT_INTERVAL_MIN);
                return Err(format!("drift.{field}: is shorter than {least}; write a longer time"));
            }
        }
        Ok(())
    }
}
