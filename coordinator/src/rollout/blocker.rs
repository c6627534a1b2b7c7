//! Why a rollout waits: one type per cause, each of which says itself in words.

use std::fmt;
use std::time::Duration;

use jiff::Zoned;
use sluice_common::name::{AppName, HostName, OperatorName};
use sluice_common::order::Phase;
use sluice_common::units::{format_duration, format_size};

use super::check::CheckName;

/// Most hosts that one plan names in its blockers: what an operator reads on one screen.
pub const HOSTS_NAMED_MAX: usize = 32;

/// Something that has to happen, or to end, before a rollout goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocker {
    /// An operator, or a failure, paused the rollout.
    Paused {
        /// Why.
        reason: String,
    },
    /// Too few hosts are staged for the first batch to begin.
    StageFirst {
        /// How many are.
        staged: usize,
        /// How many have to be.
        needed: usize,
        /// How many hosts cannot be heard.
        unreachable: usize,
        /// Bytes on disk, of the hosts that are being staged.
        fetched_bytes: u64,
        /// All bytes of the hosts that are being staged.
        fetch_total_bytes: u64,
    },
    /// Too few hosts have the release running beside what runs for the traffic to move.
    Candidates {
        /// How many have.
        up: usize,
        /// How many have to.
        needed: usize,
        /// How many hosts cannot be heard.
        unreachable: usize,
    },
    /// Too few approvers have agreed to the first switch.
    Approvals {
        /// Who has.
        approved: Vec<OperatorName>,
        /// How many have to.
        needed: usize,
    },
    /// Nothing switches for now, for a reason of its own.
    Frozen {
        /// Until when.
        until: Zoned,
        /// Why.
        reason: String,
    },
    /// Hosts may switch in a window only, and none is open for long enough.
    Window {
        /// When the next one opens; nothing when not within a year.
        opens: Option<Zoned>,
        /// How long it has to be open, where one is open now that closes before.
        needs: Option<Duration>,
    },
    /// A host of the current batch is still being staged.
    Staging {
        /// The host.
        host: HostName,
        /// Bytes on disk.
        fetched_bytes: u64,
        /// All bytes.
        fetch_total_bytes: u64,
    },
    /// A host that matters now cannot be heard.
    Unreachable {
        /// The host.
        host: HostName,
        /// Since when; nothing when it was not heard since the coordinator began.
        silent: Option<Duration>,
    },
    /// A host was ordered to switch, or to go back, and has not yet confirmed it.
    Switching {
        /// The host.
        host: HostName,
        /// Where it says it stands; nothing before it has accepted the order.
        phase: Option<Phase>,
        /// How long ago it was ordered.
        waited: Duration,
    },
    /// A host switched, and its health does not hold.
    Unhealthy {
        /// The host.
        host: HostName,
        /// Why, in its words.
        reason: String,
    },
    /// As many hosts are out as may be; others have to wait for them.
    Unavailable {
        /// The failure domain that it is about, with the name of its label; nothing: the whole selection.
        domain: Option<String>,
        /// How many are out.
        out: usize,
        /// How many may be.
        max: usize,
        /// Some of those that are out.
        hosts: Vec<HostName>,
    },
    /// As few hosts are in service as somebody needs; others have to wait until more are.
    Floor {
        /// Who needs them; nothing: an operator said so.
        by: Option<AppName>,
        /// The application whose hosts they are.
        app: AppName,
        /// The domain that it is about, with the name of its label; nothing: the whole selection.
        domain: Option<String>,
        /// How many have to be in service.
        needs: usize,
        /// Of how many that run the application.
        total: usize,
        /// How many are.
        serving: usize,
    },
    /// Others that it comes together with are not staged yet, or are held up.
    Together {
        /// They.
        apps: Vec<AppName>,
    },
    /// The gate holds, and has to keep holding.
    Baking {
        /// The batch, counted from 0.
        batch: usize,
        /// How long still.
        left: Duration,
        /// How long in all.
        bake: Duration,
    },
    /// A check has not passed, and has not failed either.
    Check {
        /// The check.
        name: CheckName,
        /// What it said last; nothing when it was not asked yet, or has not answered.
        words: Option<String>,
        /// How long that may go on before it counts as failed.
        left: Duration,
    },
    /// Further hosts wait, for causes like those named.
    MoreHosts {
        /// How many.
        count: usize,
    },
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused { reason } => write!(f, "paused: {reason}"),
            Self::StageFirst { staged, needed, unreachable, fetched_bytes, fetch_total_bytes } => {
                write!(f, "staging: {staged} of {needed} hosts")?;
                if *fetch_total_bytes > 0 {
                    let (fetched, total) = (format_size(*fetched_bytes), format_size(*fetch_total_bytes));
                    write!(f, ", {fetched} of {total} on the way")?;
                }
                if *unreachable > 0 {
                    write!(f, ", {unreachable} unreachable")?;
                }
                Ok(())
            }
            Self::Candidates { up, needed, unreachable } => {
                write!(f, "candidates: {up} of {needed} hosts have theirs up")?;
                if *unreachable > 0 { write!(f, ", {unreachable} unreachable") } else { Ok(()) }
            }
            Self::Approvals { approved, needed } => {
                let missing = needed.saturating_sub(approved.len());
                write!(f, "waiting for {missing} of {needed} approvals")?;
                for (i, operator) in approved.iter().enumerate() {
                    write!(f, "{}{operator}", if i == 0 { " (" } else { ", " })?;
                }
                f.write_str(if approved.is_empty() { "" } else { " approved)" })
            }
            Self::Frozen { until, reason } => write!(f, "frozen until {}: {reason}", minute(until)),
            Self::Window { opens, needs } => {
                match opens {
                    Some(opens) => write!(f, "waiting for the window that opens at {}", minute(opens))?,
                    None => f.write_str("waiting for a window, and none opens within a year")?,
                }
                match needs {
                    Some(needs) => {
                        write!(f, " (up to {} needed, the open one closes before)", format_duration(*needs))
                    }
                    None => Ok(()),
                }
            }
            Self::Staging { host, fetched_bytes: _, fetch_total_bytes: 0 } => {
                write!(f, "waiting for {host} to stage")
            }
            Self::Staging { host, fetched_bytes, fetch_total_bytes } => {
                let (fetched, total) = (format_size(*fetched_bytes), format_size(*fetch_total_bytes));
                write!(f, "waiting for {host} to stage ({fetched} of {total})")
            }
            Self::Unreachable { host, silent: Some(silent) } => {
                write!(f, "waiting for {host} to report (unreachable for {})", whole(*silent))
            }
            Self::Unreachable { host, silent: None } => {
                write!(f, "waiting for {host} to report (not heard since the coordinator started)")
            }
            Self::Switching { host, phase: Some(phase), waited } => {
                write!(f, "waiting for {host} ({phase}, ordered {} ago)", whole(*waited))
            }
            Self::Switching { host, phase: None, waited } => {
                write!(f, "waiting for {host} to take its order of {} ago", whole(*waited))
            }
            Self::Unhealthy { host, reason } => write!(f, "{host} is unhealthy: {reason}"),
            Self::Unavailable { domain, out, max, hosts } => {
                let whose = domain.as_deref().unwrap_or("max_unavailable");
                write!(f, "{whose}: {out} of {max} hosts out")?;
                for (i, host) in hosts.iter().enumerate() {
                    write!(f, "{}{host}", if i == 0 { " (" } else { ", " })?;
                }
                match (hosts.len(), out.saturating_sub(hosts.len())) {
                    (0, _) => Ok(()),
                    (_, 0) => f.write_str(")"),
                    (_, more) => write!(f, " and {more} more)"),
                }
            }
            Self::Floor { by, app, domain, needs, total, serving } => {
                let by = by.as_ref().map_or("min_healthy", AppName::as_str);
                write!(f, "{by} needs {needs} of {total} hosts of {app}")?;
                if let Some(domain) = domain {
                    write!(f, " ({domain})")?;
                }
                write!(f, " in service: {serving} {}", if *serving == 1 { "is" } else { "are" })
            }
            Self::Together { apps } => {
                let names: Vec<&str> = apps.iter().map(AppName::as_str).collect();
                write!(f, "staged, and waiting for {}, which it comes together with", names.join(", "))
            }
            Self::Baking { batch, left, bake } => {
                write!(f, "baking batch {}: {} of {} left", batch + 1, whole(*left), format_duration(*bake))
            }
            Self::Check { name, words, left } => {
                let words = words.as_deref().unwrap_or("no answer yet");
                write!(f, "check {name} is inconclusive: {words} (fails in {})", whole(*left))
            }
            Self::MoreHosts { count } => write!(f, "and {count} more hosts"),
        }
    }
}

/// Formats a moment as a clock on the wall there shows it, with the name of the time zone.
fn minute(at: &Zoned) -> impl fmt::Display {
    at.strftime("%F %H:%M %Q")
}

/// Formats without fractions of a second, rounded up: people watch it count.
fn whole(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    format_duration(Duration::from_secs(seconds)).replace("0ms", "0s")
}

/// Collects blockers, naming so many hosts and counting the others.
#[derive(Debug, Default)]
pub(super) struct Blockers {
    list: Vec<Blocker>,
    hosts: usize,
}

impl Blockers {
    /// Adds a cause that is no single host's.
    pub(super) fn push(&mut self, blocker: Blocker) {
        self.list.push(blocker);
    }

    /// Adds a host's cause, made only if it will be named.
    pub(super) fn push_host(&mut self, blocker: impl FnOnce() -> Blocker) {
        if self.hosts < HOSTS_NAMED_MAX {
            self.list.push(blocker());
        }
        self.hosts += 1;
    }

    /// Returns all of them.
    pub(super) fn finish(mut self) -> Vec<Blocker> {
        if self.hosts > HOSTS_NAMED_MAX {
            self.list.push(Blocker::MoreHosts { count: self.hosts - HOSTS_NAMED_MAX });
        }
        self.list
    }
}

#[cfg(test)]
mod tests;
