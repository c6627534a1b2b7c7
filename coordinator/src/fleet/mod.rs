//! The fleet: which hosts and sites there are, who is connected, how fast content may go to each.
//!
//! Invariants: one live session per host, the newest wins; a host is "heard" by its own session only; a change of a
//! site's limit is durable before it takes effect. The database holds what must outlive a restart (hosts, sites,
//! facts, now and then the time last seen); presence, sessions and byte counters live in memory.
//!
//! | part | owns |
//! |---|---|
//! | [`Fleet`] | the handle that everyone else uses: snapshots, notifications, pacing |
//! | [`session`] | `Session.Attach`: the control stream of one agent |
//! | [`service`] | `Fleet.*` for operators |
//! | [`facts`] | what a host says it is |
//!
//! Tasks: one per session (ends with its stream, its replacement, or the stop of the service); [`Fleet::run`], which
//! writes times last seen every 30 seconds. Both run on the service's tracker.
//!
//! ```text
//! // Rollouts: implement `RolloutSink`; wake on `fleet.changes()`; after a commit with new orders:
//! fleet.notify_orders(&host);
//! let view = fleet.host(&host);                              // contact, site, labels, platform
//! // Depot, first thing in GetPlan and Fetch:
//! fleet.admit_content(Peer::of(&request)?, host, agent_limit)?;  // paces the connection and counts its bytes
//! ```

pub mod facts;
mod meters;
mod registry;
pub mod service;
pub mod session;
mod tables;

use async_trait::async_trait;
use jiff::Timestamp;
use sluice_common::name::{HostName, Platform, SiteName};
use sluice_common::order::{Order, Report};
use sluice_common::selector::Labels;
use sluice_common::units::ByteRate;

pub use facts::Facts;
pub use registry::{Fleet, UnknownSite};
pub use tables::{insert_host, insert_site, revoke_host};

use crate::rollout::Contact;
use crate::store;

/// What sessions need of the rollouts: where reports go, where orders come from.
#[async_trait]
pub trait RolloutSink: Send + Sync + 'static {
    /// Makes a report durable. Repeated, late and reordered reports are normal. The host is told only after this returned.
    async fn record_report(&self, host: &HostName, report: Report) -> Result<(), store::Error>;
    /// Returns what the host is to have now, one order an application.
    async fn standing_orders(&self, host: &HostName) -> Result<Vec<Order>, store::Error>;
    /// Returns the latest report of each application, of one host or of all.
    async fn latest_reports(&self, host: Option<&HostName>) -> Result<Vec<(HostName, Report)>, store::Error>;
    /// Hears that a host connected, went, enrolled, was revoked, or has new facts.
    fn host_changed(&self, host: &HostName);
}

/// A host as the coordinator knows it at one moment.
#[derive(Debug, Clone)]
pub struct HostView {
    /// Its name.
    pub name: HostName,
    /// Its site.
    pub site: SiteName,
    /// Its labels.
    pub labels: Labels,
    /// What it is; nothing before its first session.
    pub facts: Option<Facts>,
    /// Whether it has a session now.
    pub connected: bool,
    /// Its presence since this coordinator began; nothing when it was not heard since.
    pub contact: Option<Contact>,
    /// When it was heard last, before this coordinator began too.
    pub last_seen: Option<Timestamp>,
    /// When it enrolled.
    pub enrolled: Timestamp,
    /// Whether its identity was revoked.
    pub revoked: bool,
    /// Bytes that its content connections have carried since this coordinator began, at the socket.
    pub content_bytes: u64,
    /// Its own limit, as its agent announced it last since this coordinator began.
    pub limit: Option<ByteRate>,
}

impl HostView {
    /// Returns its platform, once it said so.
    pub fn platform(&self) -> Option<&Platform> {
        self.facts.as_ref().map(|facts| &facts.platform)
    }
}

/// A site as the coordinator knows it at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteView {
    /// Its name.
    pub name: SiteName,
    /// Its limit.
    pub limit: Option<ByteRate>,
    /// Its hosts that are not revoked.
    pub hosts: usize,
    /// Those of them that have a session.
    pub hosts_connected: usize,
    /// Bytes that content connections of its hosts have carried since this coordinator began.
    pub content_bytes: u64,
}

#[cfg(test)]
mod tests;
