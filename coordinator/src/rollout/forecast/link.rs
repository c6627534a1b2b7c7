//! What a transfer is at the socket, and when links have carried theirs: pure.
//!
//! Hosts share a link fairly, as the pacing has it: each gets the same rate until it has everything, bounded by its own limit, by
//! its site's shared among the site's hosts and by the coordinator's shared among all.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sluice_common::name::{HostName, SiteName};
use sluice_common::units::ByteRate;

use super::Transfer;
use crate::depot::plans::Link;

/// What a content connection carries before and after content, both ways: TLS, HTTP/2 settings, the requests' heads. Fitted,
/// with [`WRAPPING_PER_MILLE`], to what the sockets carried of transfers of 50 kB to 3 MB.
const CONNECTION_BYTES: u64 = 2_000;
/// What a frame takes beside its bytes: its place in the request and in the plan's answer.
const FRAME_BYTES: u64 = 60;
/// What content grows by in TLS records, HTTP/2 frames and messages, in 1,000ths: 22 B and 9 B in every 16 KiB, and some
/// for the windows that the other way opens.
const WRAPPING_PER_MILLE: u64 = 2;
/// What a link without a limit carries, in bytes a second: gigabit Ethernet.
const OPEN_LINK_BYTES_PER_SECOND: f64 = 125e6;

/// Returns what a transfer is at the socket, both ways.
pub fn socket_bytes(transfer: Transfer) -> u64 {
    match transfer.wire_bytes {
        0 => 0,
        bytes => CONNECTION_BYTES + bytes + bytes * WRAPPING_PER_MILLE / 1000 + transfer.frames * FRAME_BYTES,
    }
}

/// The limits of the links.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Of everything that the coordinator sends.
    pub total: Option<ByteRate>,
    /// Of each site; those that are missing have none.
    pub sites: HashMap<SiteName, ByteRate>,
    /// Of hosts by themselves; those that are missing have none, or were not heard since the coordinator began.
    pub hosts: HashMap<HostName, ByteRate>,
}

impl Limits {
    /// Returns the limit of a site.
    pub fn of(&self, site: &SiteName) -> Option<ByteRate> {
        self.sites.get(site).copied()
    }

    /// Returns the least of the limits that a host is under: its own, its site's, the coordinator's.
    pub fn least(&self, host: &HostName, site: &SiteName) -> Option<ByteRate> {
        [self.hosts.get(host).copied(), self.of(site), self.total].into_iter().flatten().min()
    }

    /// Returns what the link of a host is to a plan.
    pub fn link(&self, host: &HostName, site: &SiteName) -> Link {
        Link::of(self.least(host, site))
    }

    fn rate_of(&self, site: &SiteName) -> f64 {
        self.of(site).map_or(OPEN_LINK_BYTES_PER_SECOND, |rate| rate.bytes_per_second() as f64)
    }
}

/// What one host is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load<'a> {
    /// Its site.
    pub site: &'a SiteName,
    /// Its own limit.
    pub limit: Option<ByteRate>,
    /// Bytes at the socket.
    pub bytes: u64,
}

/// What tells hosts apart: site, own limit, bytes.
type Key<'a> = (&'a SiteName, Option<ByteRate>, u64);

impl<'a> Load<'a> {
    fn key(&self) -> Key<'a> {
        (self.site, self.limit, self.bytes)
    }
}

/// Hosts of one site and of the same limit that are sent the same.
struct Class {
    rate: f64,
    hosts: f64,
    left: f64,
}

/// Returns when each host has everything, all beginning at once.
pub fn arrivals(loads: &[Load<'_>], limits: &Limits) -> Vec<Duration> {
    let mut classes: BTreeMap<Key<'_>, Class> = BTreeMap::new();
    for load in loads {
        let class = Class { rate: 0.0, hosts: 0.0, left: load.bytes as f64 };
        classes.entry(load.key()).or_insert(class).hosts += 1.0;
    }
    let mut done: HashMap<Key<'_>, Duration> = HashMap::new();
    let mut now = 0.0;
    while !classes.is_empty() {
        share(&mut classes, limits);
        let next = classes.values().map(|class| class.left / class.rate).fold(f64::INFINITY, f64::min);
        now += next;
        classes.retain(|key, class| {
            class.left -= class.rate * next;
            // What is left of rounding is less than a byte.
            let is_done = class.left < 1.0;
            if is_done {
                done.insert(*key, Duration::from_secs_f64(now));
            }
            !is_done
        });
    }
    loads.iter().map(|load| done[&load.key()]).collect()
}

/// Gives every host its rate: the same for all where only the coordinator's limit binds, less where the site's or its own does.
fn share(classes: &mut BTreeMap<Key<'_>, Class>, limits: &Limits) {
    let mut sites: BTreeMap<&SiteName, Vec<(f64, f64)>> = BTreeMap::new();
    for ((site, own, _), class) in &mut *classes {
        class.rate = own.map_or(f64::INFINITY, |rate| rate.bytes_per_second() as f64);
        sites.entry(*site).or_default().push((class.rate, class.hosts));
    }
    let levels: BTreeMap<&SiteName, f64> =
        sites.into_iter().map(|(site, bounds)| (site, level(bounds, limits.rate_of(site)))).collect();
    for ((site, ..), class) in &mut *classes {
        class.rate = class.rate.min(levels[site]);
    }
    if let Some(total) = limits.total {
        let bounds = classes.values().map(|class| (class.rate, class.hosts)).collect();
        let level = level(bounds, total.bytes_per_second() as f64);
        classes.values_mut().for_each(|class| class.rate = class.rate.min(level));
    }
    classes.values_mut().for_each(|class| class.rate = class.rate.max(1.0));
}

/// Returns the rate that each host gets of `limit` unless it takes less: what those leave is shared by the others. `bounds` are what
/// hosts could take, and how many of them there are.
fn level(mut bounds: Vec<(f64, f64)>, limit: f64) -> f64 {
    bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut left, mut waiting) = (limit, bounds.iter().map(|(_, hosts)| hosts).sum::<f64>());
    for (bound, hosts) in bounds {
        if left / waiting <= bound {
            return left / waiting;
        }
        left -= bound * hosts;
        waiting -= hosts;
    }
    f64::INFINITY
}
