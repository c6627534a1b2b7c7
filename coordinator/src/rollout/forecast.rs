//! What a rollout would do, said before it is started: which hosts switch when, what each link carries, what each disk
//! needs, what it will wait for, and what would keep it from being started at all.
//!
//! The times are those of one run on paper in which nothing goes wrong ([`super::simulate`]): the planner that says them is
//! the planner that will decide. Pure; `gather` puts together what it takes.
//!
//! | module | owns |
//! |---|---|
//! | `gather` | the rollout, the fleet and the transfers as they stand |
//! | [`link`] | what a transfer is at the socket, and when links have carried theirs |
//! | `service`, `wire` | `Forecasts.*` for operators |

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::name::{HostName, Platform, SiteName};
use sluice_common::units::ByteRate;

use super::model::Rollout;
use super::simulate::{self, BatchTimes, Course, Kind, Odds, Pace, Scene, Wait};
use super::view::FleetView;
use crate::depot::plans::Link;

mod gather;
pub mod link;
mod service;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

pub(crate) use gather::ForecastError;
pub use service::ForecastsService;

use link::{Limits, Load};

/// From the order to switch until the release is up, where nobody has said otherwise: a report, a stop and a start.
const SWITCH_ASSUMED: Duration = Duration::from_secs(5);

/// What one host is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transfer {
    /// The package that it has; nothing for a cold install.
    pub base: Option<Digest>,
    /// The package that it gets.
    pub target: Digest,
    /// `sluice.toml`, manifest, plan and frames.
    pub wire_bytes: u64,
    /// Frames, each of which takes a few bytes of its own at the socket.
    pub frames: u64,
    /// What it needs on its disk: what it has not got, and the frames until they are restored.
    pub disk_bytes: u64,
}

/// A host's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Its size.
    pub bytes: u64,
    /// What is free of it.
    pub free_bytes: u64,
    /// What the host leaves free of it; nothing where it has not told that.
    pub floor_bytes: Option<u64>,
}

impl Disk {
    /// Returns what may still be put on it: some of it stays free.
    pub fn available(self) -> u64 {
        let assumed = || self.bytes / 100 * u64::from(caps::DISK_FLOOR_PERCENT);
        self.free_bytes.saturating_sub(self.floor_bytes.unwrap_or_else(assumed))
    }
}

/// What is asked of the fleet and of the depot.
#[async_trait]
pub trait Surroundings: Send + Sync + 'static {
    /// Returns the limits of the links.
    fn limits(&self) -> Limits;
    /// Returns the file systems that hosts have told of.
    fn disks(&self) -> HashMap<HostName, Disk>;
    /// Returns what a host is sent over its link that has these packages; makes the transfer plan where there is none.
    async fn transfer(&self, target: Digest, has: &[Digest], link: Link) -> Result<Transfer, String>;
    /// Returns for how long the package's own gate bakes on a host.
    async fn bake(&self, target: Digest) -> Duration;
    /// Says whether the package can run beside another release; nothing where its `sluice.toml` cannot be read.
    async fn has_slots(&self, target: Digest) -> Option<bool>;
}

/// A member's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is sent; nothing where it runs the release already.
    pub transfer: Option<Transfer>,
    /// For how long its own gate bakes.
    pub bake: Duration,
    /// Its platform.
    pub platform: Platform,
}

/// A rollout that is not started, and everything that it would meet.
#[derive(Debug, Clone)]
pub struct Prospect {
    /// The rollout.
    pub rollout: Rollout,
    /// The fleet as last heard of.
    pub fleet: FleetView,
    /// One for each member.
    pub parts: Vec<Part>,
    /// The links.
    pub limits: Limits,
    /// The disks.
    pub disks: HashMap<HostName, Disk>,
    /// What would keep it from being started, in words.
    pub obstacles: Vec<String>,
    /// Now.
    pub begins: Timestamp,
}

impl Prospect {
    /// Puts its beginning off. Whoever is heard now is taken for heard then.
    pub fn put_off(&mut self, begins: Timestamp) {
        let now = std::mem::replace(&mut self.begins, begins);
        self.rollout.started = begins;
        let heard = self.fleet.values_mut().filter_map(|view| view.contact.as_mut());
        for contact in heard.filter(|contact| contact.is_fresh(now)) {
            contact.last = begins;
        }
    }
}

/// What a site's link carries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SiteForecast {
    /// Hosts of the selection.
    pub hosts: usize,
    /// Those that do not run the release.
    pub changing: usize,
    /// The link's limit.
    pub limit: Option<ByteRate>,
    /// Bytes at the socket, both ways, all hosts together.
    pub bytes: u64,
    /// When the last of them is there.
    pub staged: Duration,
}

/// What a rollout would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// When each batch begins to switch and has passed.
    pub batches: Vec<BatchTimes>,
    /// What each site's link carries.
    pub sites: BTreeMap<SiteName, SiteForecast>,
    /// What is sent to how many hosts.
    pub transfers: BTreeMap<Transfer, usize>,
    /// What it waits for.
    pub waits: Vec<Wait>,
    /// Hosts that lack disk: what they need, and what they have.
    pub short_of_disk: Vec<(HostName, u64, u64)>,
    /// When all that can be heard have the release on disk.
    pub staged: Option<Duration>,
    /// When it has succeeded.
    pub ends: Option<Duration>,
    /// Whether no calendar interrupts it once it has begun to switch.
    pub fits_window: bool,
}

/// Says what a rollout would do.
pub fn forecast(prospect: &Prospect) -> Forecast {
    foreseen(prospect, &link::arrivals(&loads(prospect), &prospect.limits))
}

/// Says what rollouts would do that begin beside each other, and so share the links.
pub fn beside(prospects: &[&Prospect]) -> Vec<Forecast> {
    let Some(first) = prospects.first() else { return Vec::new() };
    let together: Vec<Load<'_>> = prospects.iter().flat_map(|prospect| loads(prospect)).collect();
    let arrivals = link::arrivals(&together, &first.limits);
    let mut rest = arrivals.as_slice();
    let own = |prospect: &&Prospect| {
        let (own, others) = rest.split_at(prospect.parts.len());
        rest = others;
        foreseen(prospect, own)
    };
    prospects.iter().map(own).collect()
}

/// Says what a rollout would do whose members have the release on disk by these times.
fn foreseen(prospect: &Prospect, arrivals: &[Duration]) -> Forecast {
    let (scene, sites) = scene(prospect, arrivals);
    let Course { batches, waits, staged, took, end, .. } = simulate::run(&scene, &Odds::NONE, 0);
    let succeeded = end == simulate::End::State(super::state::State::Succeeded);
    let mut transfers = BTreeMap::new();
    for transfer in prospect.parts.iter().filter_map(|part| part.transfer) {
        *transfers.entry(transfer).or_default() += 1;
    }
    Forecast {
        fits_window: fits(&batches, &waits),
        short_of_disk: short_of_disk(prospect),
        ends: succeeded.then_some(took),
        batches,
        sites,
        transfers,
        waits,
        staged,
    }
}

/// Sets the scene: how long each host takes to stage, as the links go, and to switch.
pub fn staged(prospect: &Prospect) -> (Scene, BTreeMap<SiteName, SiteForecast>) {
    scene(prospect, &link::arrivals(&loads(prospect), &prospect.limits))
}

/// Returns what each member is to be sent.
fn loads(prospect: &Prospect) -> Vec<Load<'_>> {
    let members = prospect.rollout.members.iter().zip(&prospect.parts);
    members
        .map(|(member, part)| Load {
            site: &member.site,
            limit: prospect.limits.hosts.get(&member.host).copied(),
            bytes: part.transfer.map_or(0, link::socket_bytes),
        })
        .collect()
}

fn scene(prospect: &Prospect, arrivals: &[Duration]) -> (Scene, BTreeMap<SiteName, SiteForecast>) {
    let Prospect { rollout, fleet, parts, limits, begins, .. } = prospect;
    let mut sites: BTreeMap<SiteName, SiteForecast> = BTreeMap::new();
    for ((load, part), arrival) in loads(prospect).iter().zip(parts).zip(arrivals) {
        let site = sites.entry(load.site.clone()).or_default();
        site.hosts += 1;
        site.changing += usize::from(part.transfer.is_some());
        site.limit = limits.of(load.site);
        site.bytes += load.bytes;
        site.staged = site.staged.max(*arrival);
    }
    let pace = |(part, stage): (&Part, &Duration)| Pace {
        stage: *stage,
        candidate: SWITCH_ASSUMED,
        switch: SWITCH_ASSUMED + part.bake,
    };
    let paces = parts.iter().zip(arrivals).map(pace).collect();
    let mut rollout = rollout.clone();
    // Nobody can say when people will agree: times count as if they had.
    rollout.spec.approvals = 0;
    (Scene { rollout, fleet: fleet.clone(), paces, begins: *begins }, sites)
}

fn fits(batches: &[BatchTimes], waits: &[Wait]) -> bool {
    let Some(first) = batches.iter().filter_map(|batch| batch.opened).min() else { return false };
    let interrupts = |wait: &Wait| matches!(wait.kind, Kind::Freeze | Kind::Window) && wait.from >= first;
    !waits.iter().any(interrupts)
}

fn short_of_disk(prospect: &Prospect) -> Vec<(HostName, u64, u64)> {
    let short = |(member, part): (&super::model::Member, &Part)| {
        let needed = part.transfer?.disk_bytes;
        let available = prospect.disks.get(&member.host)?.available();
        (needed > available).then(|| (member.host.clone(), needed, available))
    };
    prospect.rollout.members.iter().zip(&prospect.parts).filter_map(short).collect()
}

/// Returns the platforms of a batch, in order.
fn platforms(parts: &[Part]) -> BTreeSet<&Platform> {
    parts.iter().map(|part| &part.platform).collect()
}
