//! Orders and reports.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sluice_common::caps;
use sluice_common::name::AppName;
use sluice_common::order::{Desired, Drift, Generation, Order, Phase, Report, Stage};

use super::{Invalid, digest, micros, millis, parse, required};
use crate::v1;
use crate::v1::order::Desired as WireDesired;

impl From<Stage> for v1::Stage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Staged => Self::Staged,
            Stage::Candidate => Self::Candidate,
            Stage::Active => Self::Active,
        }
    }
}

impl TryFrom<v1::Stage> for Stage {
    type Error = Invalid;

    fn try_from(stage: v1::Stage) -> Result<Self, Invalid> {
        match stage {
            v1::Stage::Unspecified => Err(Invalid::new("stage", "is missing")),
            v1::Stage::Staged => Ok(Self::Staged),
            v1::Stage::Candidate => Ok(Self::Candidate),
            v1::Stage::Active => Ok(Self::Active),
        }
    }
}

impl From<Phase> for v1::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Fetching => Self::Fetching,
            Phase::Staged => Self::Staged,
            Phase::Candidate => Self::Candidate,
            Phase::Draining => Self::Draining,
            Phase::Switching => Self::Switching,
            Phase::Validating => Self::Validating,
            Phase::Active => Self::Active,
            Phase::Reverting => Self::Reverting,
            Phase::Reverted => Self::Reverted,
            Phase::Failed => Self::Failed,
        }
    }
}

impl TryFrom<v1::Phase> for Phase {
    type Error = Invalid;

    fn try_from(phase: v1::Phase) -> Result<Self, Invalid> {
        match phase {
            v1::Phase::Unspecified => Err(Invalid::new("phase", "is missing")),
            v1::Phase::Fetching => Ok(Self::Fetching),
            v1::Phase::Staged => Ok(Self::Staged),
            v1::Phase::Candidate => Ok(Self::Candidate),
            v1::Phase::Draining => Ok(Self::Draining),
            v1::Phase::Switching => Ok(Self::Switching),
            v1::Phase::Validating => Ok(Self::Validating),
            v1::Phase::Active => Ok(Self::Active),
            v1::Phase::Reverting => Ok(Self::Reverting),
            v1::Phase::Reverted => Ok(Self::Reverted),
            v1::Phase::Failed => Ok(Self::Failed),
        }
    }
}

impl From<&Order> for v1::Order {
    fn from(order: &Order) -> Self {
        let Order { app, generation, rollout, desired, ttl, confirmed, migrates, needs } = order;
        let desired = match desired {
            Desired::Release { stage, release, package } => WireDesired::Release(v1::DesiredRelease {
                stage: v1::Stage::from(*stage).into(),
                release: Some(release.into()),
                package: package.as_bytes().to_vec(),
            }),
            Desired::Absent => WireDesired::Absent(v1::DesiredAbsent {}),
        };
        Self {
            app: app.to_string(),
            generation: generation.0,
            rollout: rollout.to_string(),
            desired: Some(desired),
            ttl_ms: millis(*ttl),
            confirmed: *confirmed,
            // What is said by default is left out.
            migrates: (!migrates).then_some(false),
            needs: needs.iter().map(|(app, by)| (app.to_string(), by.clone())).collect(),
        }
    }
}

impl TryFrom<v1::Order> for Order {
    type Error = Invalid;

    fn try_from(message: v1::Order) -> Result<Self, Invalid> {
        let v1::Order { app, generation, rollout, desired, ttl_ms, confirmed, migrates, needs } = message;
        let desired = match required("order.desired", desired)? {
            WireDesired::Release(release) => {
                let stage = release.stage().try_into()?;
                let v1::DesiredRelease { stage: _, release, package } = release;
                Desired::Release {
                    stage,
                    release: required("order.release", release)?.try_into()?,
                    package: digest("order.package", &package)?,
                }
            }
            WireDesired::Absent(v1::DesiredAbsent {}) => Desired::Absent,
        };
        Ok(Self {
            app: parse("order.app", &app)?,
            generation: Generation(generation),
            rollout: parse("order.rollout", &rollout)?,
            desired,
            ttl: Duration::from_millis(ttl_ms),
            confirmed,
            migrates: migrates.unwrap_or(true),
            needs: read_needs(needs)?,
        })
    }
}

/// Reads what needs are met by: lines that can be variables of a hook.
fn read_needs(needs: HashMap<String, String>) -> Result<BTreeMap<AppName, String>, Invalid> {
    let invalid = |reason: String| Invalid::new("order.needs", reason);
    if needs.len() > caps::NEEDS_MAX {
        return Err(invalid(format!("are {}, more than {}", needs.len(), caps::NEEDS_MAX)));
    }
    let need = |(app, by): (String, String)| {
        if by.len() > caps::FALLBACK_BYTES_MAX || by.chars().any(char::is_control) {
            let max = caps::FALLBACK_BYTES_MAX;
            return Err(invalid(format!("of {app} is not one line of at most {max} bytes")));
        }
        Ok((parse("order.needs", &app)?, by))
    };
    needs.into_iter().map(need).collect()
}

impl From<&Report> for v1::Report {
    fn from(report: &Report) -> Self {
        let Report {
            app,
            generation,
            sequence,
            phase,
            current,
            previous,
            healthy,
            reason,
            hook_output,
            fetched_bytes,
            fetch_total_bytes,
            wire_bytes,
            stage_time,
            switch_time,
            drift,
        } = report;
        Self {
            app: app.to_string(),
            generation: generation.0,
            sequence: *sequence,
            phase: v1::Phase::from(*phase).into(),
            current: current.as_ref().map(Into::into),
            previous: previous.as_ref().map(Into::into),
            healthy: *healthy,
            reason: reason.clone(),
            hook_output: hook_output.clone(),
            fetched_bytes: *fetched_bytes,
            fetch_total_bytes: *fetch_total_bytes,
            wire_bytes: *wire_bytes,
            stage_time_us: micros(*stage_time),
            switch_time_us: micros(*switch_time),
            drift: drift.as_ref().map(|Drift { count, first, mended }| v1::Drift {
                count: *count,
                first: first.clone(),
                mended: *mended,
            }),
        }
    }
}

impl TryFrom<v1::Report> for Report {
    type Error = Invalid;

    fn try_from(message: v1::Report) -> Result<Self, Invalid> {
        let phase = message.phase().try_into()?;
        let v1::Report {
            app,
            generation,
            sequence,
            phase: _,
            current,
            previous,
            healthy,
            reason,
            hook_output,
            fetched_bytes,
            fetch_total_bytes,
            wire_bytes,
            stage_time_us,
            switch_time_us,
            drift,
        } = message;
        let bounded = |field, text: &Option<String>| match text {
            Some(text) if text.len() > 2 * caps::REPORT_OUTPUT_BYTES_MAX => {
                Err(Invalid::new(field, format!("{} bytes are too many", text.len())))
            }
            _ => Ok(()),
        };
        bounded("report.reason", &reason)?;
        bounded("report.hook_output", &hook_output)?;
        let drift = drift.map(|v1::Drift { count, first, mended }| Drift { count, first, mended });
        bounded("report.drift.first", &drift.as_ref().map(|drift| drift.first.clone()))?;
        Ok(Self {
            app: parse("report.app", &app)?,
            generation: Generation(generation),
            sequence,
            phase,
            current: current.map(TryInto::try_into).transpose()?,
            previous: previous.map(TryInto::try_into).transpose()?,
            healthy,
            reason,
            hook_output,
            fetched_bytes,
            fetch_total_bytes,
            wire_bytes,
            stage_time: Duration::from_micros(stage_time_us),
            switch_time: Duration::from_micros(switch_time_us),
            drift,
        })
    }
}
