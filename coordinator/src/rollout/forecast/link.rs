//! What a transfer is at the socket, and when links have carried theirs: pure.
//!
//! Hosts share a link fairly, as the pacing has it: each gets the same rate until it has everything, bounded by its site's
//! limit shared among the site's hosts and by the coordinator's shared among all.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sluice_common::name::SiteName;
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
}

impl Limits {
    /// Returns the limit of a site.
    pub fn of(&self, site: &SiteName) -> Option<ByteRate> {
        self.sites.get(site).copied()
    }

    /// Returns what a site's link is to a plan.
    pub fn link(&self, site: &SiteName) -> Link {
        Link::of(self.of(site).or(self.total))
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
    /// Bytes at the socket.
    pub bytes: u64,
}

/// Hosts of one site that are sent the same.
struct Class {
    rate: f64,
    hosts: f64,
    left: f64,
}

/// Returns when each host has everything, all beginning at once.
pub fn arrivals(loads: &[Load<'_>], limits: &Limits) -> Vec<Duration> {
    let mut counts: BTreeMap<(&SiteName, u64), usize> = BTreeMap::new();
    for load in loads {
        *counts.entry((load.site, load.bytes)).or_default() += 1;
    }
    let mut classes: BTreeMap<(&SiteName, u64), Class> = counts
        .into_iter()
        .map(|(key, hosts)| (key, Class { rate: 0.0, hosts: hosts as f64, left: key.1 as f64 }))
        .collect();
    let mut done: HashMap<(&SiteName, u64), Duration> = HashMap::new();
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
    loads.iter().map(|load| done[&(load.site, load.bytes)]).collect()
}

/// Gives every host its rate: the same for all where only the coordinator's limit binds, less where the site's does.
fn share(classes: &mut BTreeMap<(&SiteName, u64), Class>, limits: &Limits) {
    let mut hosts: BTreeMap<&SiteName, f64> = BTreeMap::new();
    for ((site, _), class) in &*classes {
        *hosts.entry(site).or_default() += class.hosts;
    }
    // Sites by what each of their hosts could take, least first: what they leave is shared by the others.
    let mut sites: Vec<(&SiteName, f64, f64)> =
        hosts.iter().map(|(site, hosts)| (*site, limits.rate_of(site) / hosts, *hosts)).collect();
    sites.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut left = limits.total.map_or(f64::INFINITY, |rate| rate.bytes_per_second() as f64);
    let mut waiting: f64 = hosts.values().sum();
    let mut rates: BTreeMap<&SiteName, f64> = BTreeMap::new();
    for (site, own, hosts) in sites {
        let rate = own.min(left / waiting);
        rates.insert(site, rate);
        left -= rate * hosts;
        waiting -= hosts;
    }
    for ((site, _), class) in classes {
        class.rate = rates[site].max(1.0);
    }
}
