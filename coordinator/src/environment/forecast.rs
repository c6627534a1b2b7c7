//! What applying a file would carry over the links and when it would end, said before it is applied: the rollouts of its
//! plan on paper, one after another on one fleet. Pure; `gather` puts together what it takes.
//!
//! An application begins when what it needs stands, and a part of it when the part before has ended. Rollouts of one step
//! share the links from their first byte to their last, whether they begin together or not, so that none is said to be
//! faster than it can be. What earlier rollouts have put on a disk is no longer free for later ones.
//!
//! | module | owns |
//! |---|---|
//! | `gather` | each rollout of the plan as it would be started now |
//! | `wire` | forecasts for operators |

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use sluice_common::name::{AppName, HostName, SiteName};
use sluice_common::units::ByteRate;

use super::graph::Why;
use super::outline::{Outline, steps};
use super::spec::Environment;
use crate::clock::after;
use crate::rollout::forecast::{self as rollouts, Prospect};

mod gather;
#[cfg(test)]
mod tests;
pub(super) mod wire;

/// One rollout of the plan, and everything that it would meet if it were started now.
#[derive(Debug, Clone)]
pub struct Ahead {
    /// The application.
    pub app: AppName,
    /// Its part: a site with a calendar of its own, or all others.
    pub site: Option<SiteName>,
    /// The rollout; nothing where it cannot be worked out, in words why.
    pub prospect: Result<Prospect, String>,
}

/// What one rollout of the plan would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreseen {
    /// The application.
    pub app: AppName,
    /// Its part.
    pub site: Option<SiteName>,
    /// When it begins; nothing: what it needs would not come to stand.
    pub begins: Option<Duration>,
    /// What it does, from its own beginning.
    pub forecast: rollouts::Forecast,
    /// Whether a calendar holds it.
    pub has_calendar: bool,
}

/// What one site's link would carry, of all rollouts together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SiteTotal {
    /// Hosts that change.
    pub changing: usize,
    /// The link's limit.
    pub limit: Option<ByteRate>,
    /// Bytes at the socket, both ways.
    pub bytes: u64,
    /// When the last of them is there; nothing where some would never be sent.
    pub staged: Option<Duration>,
    /// The most that a host needs on its disk.
    pub disk_bytes: u64,
}

/// What applying a file would do to links, disks and clocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Foresight {
    /// When it would be applied.
    pub begins: Timestamp,
    /// Its rollouts, in the order in which they come.
    pub parts: Vec<Foreseen>,
    /// The links.
    pub sites: BTreeMap<SiteName, SiteTotal>,
    /// Hosts that lack disk: what they need for all of it, and what they have.
    pub short_of_disk: BTreeMap<HostName, (u64, u64)>,
    /// When all of it stands.
    pub ends: Option<Duration>,
    /// Rollouts that cannot be worked out, and why.
    pub unforeseen: Vec<(AppName, String)>,
}

/// Says what applying a file would do, whose rollouts would be these.
pub fn foresee(environment: &Environment, plan: &Outline, ahead: Vec<Ahead>, begins: Timestamp) -> Foresight {
    let mut paper = Paper::new(environment, plan, begins);
    for group in beside(environment, ahead).into_values() {
        paper.run(group);
    }
    let ends: Option<Vec<Duration>> = paper.ends.values().copied().collect();
    Foresight { ends: ends.map(|ends| ends.into_iter().max().unwrap_or_default()), ..paper.said }
}

/// Puts rollouts together that come beside each other: those of one step, first parts with first parts.
fn beside(environment: &Environment, ahead: Vec<Ahead>) -> BTreeMap<(usize, usize), Vec<Ahead>> {
    let steps = steps(environment);
    let mut places: BTreeMap<AppName, usize> = BTreeMap::new();
    let mut groups: BTreeMap<(usize, usize), Vec<Ahead>> = BTreeMap::new();
    for one in ahead {
        let place = places.entry(one.app.clone()).or_default();
        let step = steps.get(&one.app).copied().unwrap_or_default();
        groups.entry((step, *place)).or_default().push(one);
        *place += 1;
    }
    groups
}

/// The fleet on paper, as the rollouts so far would leave it.
struct Paper<'a> {
    environment: &'a Environment,
    /// When each application stands; nothing: never.
    ends: BTreeMap<AppName, Option<Duration>>,
    /// Applications that no host is for.
    vacant: BTreeSet<AppName>,
    /// What rollouts have put on each disk.
    taken: HashMap<HostName, u64>,
    changing: HashMap<HostName, SiteName>,
    said: Foresight,
}

impl<'a> Paper<'a> {
    fn new(environment: &'a Environment, plan: &Outline, begins: Timestamp) -> Self {
        // What has no rollout stands already, or has nothing to stand with.
        let stands = |app: &super::outline::PlannedApp| (app.settled > 0).then_some(Duration::ZERO);
        let resting = plan.apps.iter().filter(|app| app.parts.is_empty() && app.hosts > 0);
        Self {
            environment,
            ends: resting.map(|app| (app.app.clone(), stands(app))).collect(),
            vacant: plan.apps.iter().filter(|app| app.hosts == 0).map(|app| app.app.clone()).collect(),
            taken: HashMap::new(),
            changing: HashMap::new(),
            said: Foresight { begins, ..Foresight::default() },
        }
    }

    /// Lets rollouts go beside each other.
    fn run(&mut self, group: Vec<Ahead>) {
        let mut known = Vec::new();
        for Ahead { app, site, prospect } in group {
            let begins = self.begins(&app);
            match prospect {
                Ok(mut prospect) => {
                    prospect.put_off(after(self.said.begins, begins.unwrap_or_default()));
                    known.push((app, site, begins, prospect));
                }
                Err(words) => {
                    self.ends.insert(app.clone(), None);
                    self.said.unforeseen.push((app, words));
                }
            }
        }
        let prospects: Vec<&Prospect> = known.iter().map(|(.., prospect)| prospect).collect();
        let forecasts = rollouts::beside(&prospects);
        for ((app, site, begins, prospect), forecast) in known.into_iter().zip(forecasts) {
            self.ends.insert(app.clone(), begins.zip(forecast.ends).map(|(begins, ends)| begins + ends));
            self.count(&prospect, &forecast, begins);
            let has_calendar = !prospect.rollout.spec.calendar.is_empty();
            self.said.parts.push(Foreseen { app, site, begins, forecast, has_calendar });
        }
    }

    /// Returns when the next part of an application begins; nothing: what it needs never stands.
    fn begins(&self, app: &AppName) -> Option<Duration> {
        if let Some(before) = self.ends.get(app) {
            return *before;
        }
        let unit = self.environment.units().iter().find(|unit| unit.contains(app));
        let mut begins = Duration::ZERO;
        for member in unit.into_iter().flatten() {
            for edge in self.environment.edges_of(member) {
                let is_within = unit.is_some_and(|unit| unit.contains(&edge.to));
                let is_instead =
                    matches!(&edge.why, Why::InsteadOf(preferred) if !self.vacant.contains(preferred));
                let is_missed = self.vacant.contains(&edge.to);
                if is_within || (edge.optional && (is_instead || is_missed)) {
                    continue;
                }
                begins = begins.max((*self.ends.get(&edge.to)?)?);
            }
        }
        Some(begins)
    }

    /// Counts what a rollout takes of links and disks.
    fn count(&mut self, prospect: &Prospect, forecast: &rollouts::Forecast, begins: Option<Duration>) {
        for (name, site) in &forecast.sites {
            let is_first = !self.said.sites.contains_key(name);
            let total = self.said.sites.entry(name.clone()).or_default();
            total.limit = site.limit;
            total.bytes += site.bytes;
            let staged = begins.map(|begins| begins + site.staged);
            total.staged = match (is_first, site.bytes) {
                (true, _) => staged,
                (false, 0) => total.staged,
                (false, _) => total.staged.zip(staged).map(|(one, other)| one.max(other)),
            };
        }
        for (member, part) in prospect.rollout.members.iter().zip(&prospect.parts) {
            let Some(transfer) = part.transfer else { continue };
            let total = self.said.sites.entry(member.site.clone()).or_default();
            if self.changing.insert(member.host.clone(), member.site.clone()).is_none() {
                total.changing += 1;
            }
            let taken = self.taken.entry(member.host.clone()).or_default();
            let needed = *taken + transfer.disk_bytes;
            total.disk_bytes = total.disk_bytes.max(needed);
            // What was sent goes when it has been restored.
            *taken += transfer.disk_bytes.saturating_sub(transfer.wire_bytes);
            let available = prospect.disks.get(&member.host).map(|disk| disk.available());
            if let Some(available) = available.filter(|available| needed > *available) {
                let short = self.said.short_of_disk.entry(member.host.clone()).or_default();
                *short = (needed.max(short.0), available);
            }
        }
    }
}
