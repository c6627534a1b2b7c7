//! A rollout as it stands in the database: who takes part, what each host was ordered, how far the gates are.
//!
//! All of it is durable and changes only by [`super::action::Action`]s, so that a coordinator that died goes on
//! where it was. What hosts *are* stands in the [`super::view::FleetView`] instead.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluice_common::digest::Digest;
use sluice_common::name::{AppName, HostName, OperatorName, RolloutId, SiteName, Version};
use sluice_common::order::{Generation, Installed};

use super::batches::Candidate;
use super::check::{CheckName, Tally};
use super::spec::Spec;
use super::state::State;

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
    /// Whether it waits for nothing but those that it comes together with; once set, it stays.
    pub is_ready: bool,
    /// Those of them that are not ready. As they were read: it changes without this rollout.
    pub awaits: Vec<AppName>,
    /// How many failures an operator has accepted by resuming.
    pub forgiven: usize,
    /// What its checks have said, by batch.
    pub tallies: BTreeMap<(usize, CheckName), Tally>,
    /// Who has agreed to its first switch, and when.
    pub approvals: BTreeMap<OperatorName, Timestamp>,
    /// Why its calendar does not hold it, and who said so; nothing: it does.
    pub overridden: Option<String>,
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
    /// Its failure domain when the rollout began, where the spec has domains.
    pub domain: Option<String>,
    /// The release's package for it.
    pub package: Digest,
    /// The newest order that this rollout gave it.
    pub order: Option<Issued>,
    /// Whether it is the one that migrates what all of them share; once set, it stays.
    pub migrates: bool,
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
    /// The rollout's release, running beside what runs.
    Candidate {
        /// What runs: where a roll-back leads.
        over: Option<Installed>,
    },
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
            Self::Stage | Self::Candidate { .. } => false,
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
    /// The release did not come up beside the live one; nothing changed.
    #[error("could not bring up its candidate: {reason}")]
    Candidate {
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
                let Candidate { host, site, domain, platform: _, package, settled: _ } = candidate;
                Member { host, site, domain, package, order: None, migrates: false, failure: None }
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
            is_ready: false,
            awaits: Vec::new(),
            forgiven: 0,
            tallies: BTreeMap::new(),
            approvals: BTreeMap::new(),
            overridden: None,
            started_by,
            started,
            ended: None,
        }
    }

    /// Returns how long a batch must keep holding: longer where it has hosts of the site that gets the release first, if the spec says so.
    pub fn bake(&self, batch: usize) -> Duration {
        let Some(longer) = self.spec.first_site_bake else { return self.spec.bake };
        let first = self.members.first().map(|member| &member.site);
        let mut hosts = self.batches.get(batch).into_iter().flat_map(|batch| &self.members[batch.clone()]);
        if hosts.any(|member| Some(&member.site) == first) { longer } else { self.spec.bake }
    }

    /// Returns how long a batch takes at most, from the orders to its hosts until its gate has passed, where nothing is awry.
    pub fn batch_time(&self, batch: usize) -> Duration {
        self.spec.host_deadline + self.bake(batch)
    }

    /// Returns the applications that this one comes together with, while it has not begun to switch.
    pub fn comes_with(&self) -> &[AppName] {
        let is_waiting =
            self.state == State::Running && self.cursor == Cursor { batch: 0, gate: Gate::Waiting };
        let origin = self.spec.origin.as_ref().filter(|_| is_waiting);
        origin.map_or(&[], |origin| &origin.beside)
    }

    /// Says whether what all hosts share was migrated, by this rollout or before it, and was not taken back.
    pub fn has_migrated(&self) -> bool {
        let stays = |order: &Issued| matches!(order.target, Target::Activate { .. });
        let is_kept = |member: &Member| {
            member.migrates && member.failure.is_none() && member.order.as_ref().is_some_and(stays)
        };
        self.was_migrated_before() || self.members.iter().any(is_kept)
    }

    /// Says whether what all hosts share was migrated before this rollout: when the release came, for hosts that come later, or in
    /// the first try.
    pub fn was_migrated_before(&self) -> bool {
        self.spec.origin.as_ref().is_some_and(|origin| origin.is_addition)
            || self.spec.retry.as_ref().is_some_and(|retry| retry.is_migrated)
    }

    /// Returns how many hosts have failed so far.
    pub fn failed(&self) -> usize {
        self.members.iter().filter(|member| member.failure.is_some()).count()
    }

    /// Returns the first failure domain in which more hosts have failed, with those that are failing now, than it tolerates.
    pub fn failed_domain(&self, failing: &[usize]) -> Option<FailedDomain<'_>> {
        let per_domain = self.spec.per_domain.as_ref()?;
        let tolerates = per_domain.max_failures?;
        let failing: HashSet<usize> = failing.iter().copied().collect();
        let mut domains: BTreeMap<&str, (usize, usize, bool)> = BTreeMap::new();
        for (number, member) in self.members.iter().enumerate() {
            let Some(domain) = member.domain.as_deref() else { continue };
            let (failed, total, is_news) = domains.entry(domain).or_default();
            let is_failing = failing.contains(&number);
            *failed += usize::from(member.failure.is_some() || is_failing);
            *total += 1;
            *is_news |= is_failing;
        }
        domains.into_iter().find_map(|(name, (failed, total, is_news))| {
            let tolerated = tolerates.of_rounded_down(total);
            // A domain whose failures an operator has accepted says nothing until another of its hosts fails.
            let is_over = failed > tolerated && (failing.is_empty() || is_news);
            is_over.then_some(FailedDomain { label: &per_domain.label, name, failed, total, tolerated })
        })
    }

    /// Says whether more hosts have failed than are tolerated, or every host of the first batch, or a check, and no operator has
    /// accepted it by resuming.
    pub fn is_condemned(&self) -> bool {
        let unforgiven = self.failed().saturating_sub(self.forgiven);
        let first = self.batches.first().cloned().unwrap_or_default();
        // A rollout that has left its first batch behind was let go on by somebody.
        let is_first_lost =
            self.cursor.batch == 0 && self.members[first].iter().all(|member| member.failure.is_some());
        let is_check_failed = self.tallies.values().any(|tally| tally.failure.is_some());
        is_check_failed
            || unforgiven > self.spec.max_failures.of_rounded_down(self.members.len())
            || unforgiven > 0 && (is_first_lost || self.failed_domain(&[]).is_some())
    }
}

/// A failure domain in which more hosts have failed than it tolerates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedDomain<'a> {
    /// The label whose values are domains.
    pub label: &'a str,
    /// The domain.
    pub name: &'a str,
    /// Its hosts that failed.
    pub failed: usize,
    /// Its hosts.
    pub total: usize,
    /// How many of them may fail.
    pub tolerated: usize,
}

impl fmt::Display for FailedDomain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, name, failed, total, tolerated } = self;
        write!(f, "{failed} of {total} hosts of {label} {name} failed, {tolerated} tolerated")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_of_targets_never_changes() {
        let to = Installed { package: Digest::of(b"p"), version: "1".parse().unwrap() };
        let text = |target| serde_json::to_string(&target).unwrap();
        let digest = to.package.to_string();
        assert_eq!(text(Target::Stage), r#"{"kind":"stage"}"#);
        assert_eq!(text(Target::Candidate { over: None }), r#"{"kind":"candidate","over":null}"#);
        assert_eq!(text(Target::Activate { over: None }), r#"{"kind":"activate","over":null}"#);
        let installed = format!(r#"{{"package":"{digest}","version":"1"}}"#);
        assert_eq!(
            text(Target::Activate { over: Some(to.clone()) }),
            format!(r#"{{"kind":"activate","over":{installed}}}"#)
        );
        assert_eq!(text(Target::Restore { to }), format!(r#"{{"kind":"restore","to":{installed}}}"#));
        assert_eq!(text(Target::Remove), r#"{"kind":"remove"}"#);
    }
}
