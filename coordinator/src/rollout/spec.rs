//! What an operator asks of a rollout: whom, in which batches, through which gates.
//!
//! A spec is checked once, by [`Spec::check`], before anything is stored; planners rely on it. It is stored as JSON,
//! so fields may be added with a default and are never renamed.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluice_common::caps;
use sluice_common::name::RolloutId;
use sluice_common::selector::Selector;
use sluice_common::units::{Share, duration_text, format_duration};

use super::calendar::{Calendar, Closed, Verdict};
use super::check::Check;
use super::floor::Floor;
use super::origin::Origin;

/// Longest bake and longest host deadline: a gate that holds for more than a week is a calendar, not a gate.
pub const GATE_TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Shortest host deadline: less than a heartbeat would fail hosts that are merely about to answer.
pub const HOST_DEADLINE_MIN: Duration = sluice_common::caps::HEARTBEAT_INTERVAL;

/// How a rollout goes about its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Which hosts are meant; resolved once, at the start.
    pub selector: Selector,
    /// Which hosts switch together.
    pub strategy: Strategy,
    /// How long every host of a batch must keep holding before the next batch begins.
    #[serde(with = "duration_text")]
    pub bake: Duration,
    /// How many hosts of the selection may be out at once; a percentage is rounded down, but never below one.
    pub max_unavailable: Share,
    /// How many failed hosts are tolerated; a percentage is rounded down.
    pub max_failures: Share,
    /// What happens once more hosts failed than are tolerated.
    pub on_failure: OnFailure,
    /// How long a reachable host may take from the order to switch until it has switched, before it counts as failed.
    #[serde(with = "duration_text")]
    pub host_deadline: Duration,
    /// How many of the hosts that can be heard must be staged before the first batch switches, and have their candidate up where there
    /// are any; a percentage is rounded up.
    pub stage_first: Share,
    /// How many hosts of one failure domain may be out at once; nothing: domains are not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_domain: Option<PerDomain>,
    /// When hosts may switch.
    #[serde(default, skip_serializing_if = "Calendar::is_empty")]
    pub calendar: Calendar,
    /// How many approvers have to agree before the first host switches.
    #[serde(default, skip_serializing_if = "is_none")]
    pub approvals: u32,
    /// What else has to hold while a batch bakes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Why it may start though a failed rollout has closed the application; nothing: it may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency: Option<String>,
    /// How long the batches with hosts of the site that gets the release first must keep holding; nothing: as long as others.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "duration_text::option")]
    pub first_site_bake: Option<Duration>,
    /// How many hosts have to stay in service, and who needs them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub floors: Vec<Floor>,
    /// The rollout that it is a second try of; nothing: it is a first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// The run of an environment that has started it; nothing: an operator has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// What a second try goes on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The rollout that came before, which has ended.
    pub of: RolloutId,
    /// Whether what all hosts share was migrated then, and not taken back: it must not be migrated again.
    pub is_migrated: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(approvals: &u32) -> bool {
    *approvals == 0
}

/// A budget of its own for each failure domain: what fails together must not be out together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerDomain {
    /// The label whose values are the domains, such as `rack`; `site` is each host's site. Hosts without it are in none.
    pub label: String,
    /// How many hosts of a domain may be out at once; a percentage of the domain's hosts is rounded down, but never below
    /// one.
    pub max_unavailable: Share,
    /// How many failed hosts of a domain are tolerated, whatever the whole selection tolerates; a percentage of the domain's
    /// hosts is rounded down. Nothing: failures are counted over the selection alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<Share>,
}

/// Which hosts switch together, in which order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Strategy {
    /// One batch.
    AllAtOnce,
    /// Batches of one size.
    Rolling {
        /// The size, of the whole selection; a percentage is rounded up.
        batch: Share,
    },
    /// A first batch that covers every platform, then batches of one size.
    Canary {
        /// The size of the first batch; it grows where platforms outnumber it.
        canary: Share,
        /// The size of the others, of the whole selection; a percentage is rounded up.
        batch: Share,
    },
    /// A first batch that covers every platform, then batches that each bring the hosts switched to a share of the whole
    /// selection; after the last of them, the rest.
    Waves {
        /// The shares, growing; a percentage is rounded up.
        waves: Vec<Share>,
    },
    /// A first batch that covers every platform, then batches each twice as large as the one before.
    Exponential {
        /// The size of the first; it grows where platforms outnumber it.
        first: Share,
    },
    /// One host, which migrates what all of them share, then batches of one size: none of the others begins before it holds.
    OneHostFirst {
        /// The size of the others, of the whole selection; a percentage is rounded up.
        batch: Share,
    },
    /// Every host brings up the release as a candidate beside the live one; once all are healthy the traffic moves, in batches of one size.
    BlueGreen {
        /// The size, of the whole selection; a percentage is rounded up.
        batch: Share,
    },
}

/// What happens once more hosts failed than are tolerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Hosts that switched get their predecessor back.
    Rollback,
    /// Everything stays as it is until an operator decides.
    Pause,
}

/// Says which field of a spec cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct SpecError {
    /// The field's name, as operators write it.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl Strategy {
    /// Returns the budget of hosts that fits the strategy where the operator names none: one batch, or, where batches grow,
    /// a quarter of the selection.
    pub fn default_max_unavailable(&self) -> Share {
        match self {
            Self::AllAtOnce => Share::Percent(100),
            Self::Rolling { batch }
            | Self::Canary { batch, canary: _ }
            | Self::OneHostFirst { batch }
            | Self::BlueGreen { batch } => *batch,
            Self::Waves { .. } | Self::Exponential { .. } => Share::Percent(25),
        }
    }

    /// Says whether the release runs beside the live one on every host before any traffic moves.
    pub fn has_candidates(&self) -> bool {
        match self {
            Self::BlueGreen { .. } => true,
            Self::AllAtOnce
            | Self::Rolling { .. }
            | Self::Canary { .. }
            | Self::Waves { .. }
            | Self::Exponential { .. }
            | Self::OneHostFirst { .. } => false,
        }
    }
}

impl Default for Spec {
    fn default() -> Self {
        let strategy = Strategy::Canary { canary: Share::Count(1), batch: Share::Percent(25) };
        Self {
            selector: Selector::everything(),
            max_unavailable: strategy.default_max_unavailable(),
            strategy,
            bake: Duration::from_secs(30),
            max_failures: Share::Count(0),
            on_failure: OnFailure::Rollback,
            // As long as an order lives unrenewed: past it a host could not even begin.
            host_deadline: sluice_common::caps::ORDER_TTL,
            stage_first: Share::Percent(100),
            per_domain: None,
            calendar: Calendar::default(),
            approvals: 0,
            checks: Vec::new(),
            emergency: None,
            first_site_bake: None,
            floors: Vec::new(),
            retry: None,
            origin: None,
        }
    }
}

impl Spec {
    /// Refuses what could never make progress, naming the field.
    pub fn check(&self) -> Result<(), SpecError> {
        match &self.strategy {
            Strategy::AllAtOnce => {}
            Strategy::Rolling { batch }
            | Strategy::OneHostFirst { batch }
            | Strategy::BlueGreen { batch } => {
                not_none("batch", *batch)?;
            }
            Strategy::Canary { canary, batch } => {
                not_none("canary", *canary)?;
                not_none("batch", *batch)?;
            }
            Strategy::Waves { waves } => check_waves(waves)?,
            Strategy::Exponential { first } => not_none("first", *first)?,
        }
        not_none("max_unavailable", self.max_unavailable)?;
        if let Some(PerDomain { label, max_unavailable, max_failures: _ }) = &self.per_domain {
            not_none("per_domain.max_unavailable", *max_unavailable)?;
            if label.trim().is_empty() {
                let reason = "is empty; name the label whose values are the domains, such as rack".to_owned();
                return Err(SpecError { field: "per_domain.label", reason });
            }
        }
        few("windows", self.calendar.windows.len(), caps::CALENDAR_LINES_MAX)?;
        few("freezes", self.calendar.freezes.len(), caps::CALENDAR_LINES_MAX)?;
        few("approvals", self.approvals as usize, caps::APPROVALS_MAX)?;
        few("checks", self.checks.len(), caps::CHECKS_MAX)?;
        for (position, check) in self.checks.iter().enumerate() {
            if self.checks[..position].iter().any(|before| before.name == check.name) {
                let reason = format!("name {} twice; give each check a name of its own", check.name);
                return Err(SpecError { field: "checks", reason });
            }
        }
        if let Some(reason) = &self.emergency
            && (reason.trim().is_empty() || reason.len() > caps::REASON_BYTES_MAX)
        {
            let reason = format!("needs a reason of 1 to {} bytes", caps::REASON_BYTES_MAX);
            return Err(SpecError { field: "emergency", reason });
        }
        at_most("bake", self.bake, GATE_TIME_MAX)?;
        if let Some(first) = self.first_site_bake {
            at_most("first_site_bake", first, GATE_TIME_MAX)?;
            if first < self.bake {
                let (first, bake) = (format_duration(first), format_duration(self.bake));
                let reason =
                    format!("is {first}, shorter than the bake of {bake}; it must be at least as long");
                return Err(SpecError { field: "first_site_bake", reason });
            }
        }
        few("floors", self.floors.len(), caps::FLOORS_MAX)?;
        let domains = self.per_domain.as_ref().map(|domains| domains.label.as_str());
        self.floors.iter().try_for_each(|floor| floor.check(domains))?;
        at_most("host_deadline", self.host_deadline, GATE_TIME_MAX)?;
        if self.host_deadline < HOST_DEADLINE_MIN {
            let reason = format!(
                "is {}; it must be at least {}, the interval at which hosts report",
                format_duration(self.host_deadline),
                format_duration(HOST_DEADLINE_MIN)
            );
            return Err(SpecError { field: "host_deadline", reason });
        }
        Ok(())
    }

    /// Refuses a calendar that has no place for a batch.
    pub fn check_calendar(&self, now: Timestamp) -> Result<(), SpecError> {
        match self.calendar.look(now, self.batch_time()) {
            Verdict::Open | Verdict::Closed(Closed { opens: Some(_), .. }) => Ok(()),
            Verdict::Closed(Closed { opens: None, .. }) => {
                let reason = format!(
                    "have no place for a batch within a year: host deadline and bake take up to {}; \
                     choose a longer window, or less of them",
                    format_duration(self.batch_time())
                );
                Err(SpecError { field: "windows", reason })
            }
        }
    }

    /// Returns how long any batch takes at most, from the orders to its hosts until its gate has passed, where nothing is awry.
    pub fn batch_time(&self) -> Duration {
        self.host_deadline + self.bake.max(self.first_site_bake.unwrap_or_default())
    }

    /// Returns how many of `total` hosts may be out at once: at least one, or nothing could ever switch.
    pub fn unavailable_max(&self, total: usize) -> usize {
        self.max_unavailable.of_rounded_down(total).max(1)
    }
}

fn not_none(field: &'static str, share: Share) -> Result<(), SpecError> {
    match share {
        Share::Count(0) | Share::Percent(0) => {
            let reason = format!("is {share}; it must be at least 1 or 1%, or no host would ever switch");
            Err(SpecError { field, reason })
        }
        Share::Count(_) | Share::Percent(_) => Ok(()),
    }
}

/// Refuses waves that do not grow. Whether a count is less than a percentage shows with the selection: a wave that would
/// bring nobody is left out then.
fn check_waves(waves: &[Share]) -> Result<(), SpecError> {
    if waves.is_empty() {
        let reason = "is empty; write growing shares of the selection, such as 1,5%,25%,100%".to_owned();
        return Err(SpecError { field: "waves", reason });
    }
    let (mut count, mut percent) = (0, 0);
    for wave in waves {
        not_none("waves", *wave)?;
        let has_grown = match wave {
            Share::Count(next) => std::mem::replace(&mut count, *next) < *next,
            Share::Percent(next) => std::mem::replace(&mut percent, *next) < *next,
        };
        if !has_grown {
            let reason =
                format!("has {wave} after as much or more; each wave must be larger than those before");
            return Err(SpecError { field: "waves", reason });
        }
    }
    Ok(())
}

fn few(field: &'static str, count: usize, max: usize) -> Result<(), SpecError> {
    if count > max {
        return Err(SpecError { field, reason: format!("are {count}; there may be at most {max}") });
    }
    Ok(())
}

fn at_most(field: &'static str, time: Duration, max: Duration) -> Result<(), SpecError> {
    if time > max {
        let reason = format!("is {}; it must be at most {}", format_duration(time), format_duration(max));
        return Err(SpecError { field, reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
