//! Which transfers the fleet wants or will want: pure, from what hosts have, are ordered to have, and may be ordered to
//! have next.

use std::collections::HashMap;

use async_trait::async_trait;
use sluice_common::digest::Digest;
use sluice_common::units::ByteRate;
use tokio::sync::watch;

use crate::store;

/// What a link without a limit carries, in bytes a second: gigabit Ethernet.
const OPEN_LINK_BYTES_PER_SECOND: f64 = 125e6;
/// What a transfer that may be ordered weighs beside one that is ordered.
const FORESEEN_WEIGHT: f64 = 0.25;

/// Knows what the fleet has and will want. The depot asks; rollouts, releases and hosts answer.
#[async_trait]
pub trait Forecast: Send + Sync + 'static {
    /// Returns how things stand now.
    async fn outlook(&self) -> Result<Outlook, store::Error>;
    /// Returns a number that changes when things stand very differently; what changes little by little shows at the
    /// next look.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// What the fleet has and will want.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Every application on every host.
    pub hosts: Vec<Standing>,
    /// The packages of each application's newest release: what a new host will install.
    pub released: Vec<Digest>,
}

/// One application on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The package that it runs; nothing where it has none yet.
    pub has: Option<Digest>,
    /// The package that an unfinished rollout brings it.
    pub ordered: Option<Digest>,
    /// Its package in the newest release.
    pub newest: Option<Digest>,
    /// The limit of its link: the least of the host's own, its site's, and that of everything that the coordinator sends.
    pub limit: Option<ByteRate>,
}

/// From what (nothing: a cold install) to what.
pub(super) type Route = (Option<Digest>, Digest);

/// Who wants to get from one package to another.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Demand {
    /// Hosts whose rollout runs.
    pub(super) ordered: u64,
    /// Hosts whose application has a newer release that nobody has ordered yet.
    pub(super) foreseen: u64,
    /// Those among them whose link is limited, and whom the smallest plan suits.
    pub(super) limited: u64,
    /// Whether a newest release names the target.
    pub(super) released: bool,
    /// Whether the smallest plan will be used: by hosts on limited links, or by such as may still install the release.
    pub(super) wants_smallest: bool,
    /// The time that each byte of the plan takes of the hosts' links, in seconds, all hosts together.
    pub(super) link_seconds_per_byte: f64,
}

impl Demand {
    /// Returns the hosts that would use a plan.
    pub(super) fn hosts(&self) -> u64 {
        self.ordered + self.foreseen
    }

    fn add(&mut self, limit: Option<ByteRate>, weight: f64) {
        self.limited += u64::from(limit.is_some());
        self.wants_smallest |= limit.is_some();
        let rate = limit.map_or(OPEN_LINK_BYTES_PER_SECOND, |rate| rate.bytes_per_second() as f64);
        self.link_seconds_per_byte += weight / rate.max(1.0);
    }
}

/// Counts who wants which plan. A base that the depot does not know is none: such hosts install cold.
pub(super) fn tally(outlook: &Outlook, is_known: impl Fn(&Digest) -> bool) -> HashMap<Route, Demand> {
    let mut demands: HashMap<Route, Demand> = HashMap::new();
    for Standing { has, ordered, newest, limit } in &outlook.hosts {
        let Some(target) = ordered.or(*newest).filter(|target| *has != Some(*target)) else { continue };
        let demand = demands.entry((has.filter(&is_known), target)).or_default();
        match ordered {
            Some(_) => {
                demand.ordered += 1;
                demand.add(*limit, 1.0);
            }
            None => {
                demand.foreseen += 1;
                demand.add(*limit, FORESEEN_WEIGHT);
            }
        }
    }
    let some_link_is_limited = outlook.hosts.iter().any(|host| host.limit.is_some());
    for target in &outlook.released {
        let demand = demands.entry((None, *target)).or_default();
        if !demand.released {
            demand.released = true;
            demand.add(None, FORESEEN_WEIGHT);
            demand.wants_smallest |= some_link_is_limited;
        }
    }
    demands.retain(|(_, target), _| is_known(target));
    demands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn standing(has: &str, ordered: &str, newest: &str) -> Standing {
        let named = |name: &str| (!name.is_empty()).then(|| package(name));
        Standing { has: named(has), ordered: named(ordered), newest: named(newest), limit: None }
    }

    #[test]
    fn hosts_are_counted_where_they_stand_and_where_they_go() {
        type Case = (&'static str, Standing, Option<(Option<&'static str>, &'static str, u64, u64)>);
        let cases: [Case; 8] = [
            ("ordered", standing("1", "2", "2"), Some((Some("1"), "2", 1, 0))),
            ("an order wins over a newer release", standing("1", "2", "3"), Some((Some("1"), "2", 1, 0))),
            ("foreseen", standing("1", "", "3"), Some((Some("1"), "3", 0, 1))),
            ("installs cold", standing("", "2", "2"), Some((None, "2", 1, 0))),
            ("has what it is ordered to have", standing("2", "2", "3"), None),
            ("has the newest", standing("3", "", "3"), None),
            ("runs what the depot lost", standing("lost", "2", "2"), Some((None, "2", 1, 0))),
            ("is to get what the depot lost", standing("1", "lost", "2"), None),
        ];
        for (name, standing, expected) in cases {
            let outlook = Outlook { hosts: vec![standing], released: Vec::new() };
            let demands = tally(&outlook, |digest| *digest != package("lost"));
            let found =
                demands.iter().next().map(|(route, demand)| (*route, demand.ordered, demand.foreseen));
            let expected = expected.map(|(base, target, ordered, foreseen)| {
                ((base.map(package), package(target)), ordered, foreseen)
            });
            assert_eq!((found, demands.len()), (expected, usize::from(expected.is_some())), "{name}");
        }
    }

    #[test]
    fn a_thin_link_counts_by_the_time_that_a_byte_takes_of_it() {
        let seconds = |limit: Option<&str>, ordered: &str| {
            let limit = limit.map(|rate| rate.parse().unwrap());
            let hosts = vec![Standing { limit, ..standing("1", ordered, "2") }; 3];
            let demands = tally(&Outlook { hosts, released: Vec::new() }, |_| true);
            demands.values().next().unwrap().link_seconds_per_byte
        };
        assert!((seconds(Some("1MB/s"), "2") - 3e-6).abs() < 1e-9);
        assert!((seconds(None, "2") - 3.0 / 125e6).abs() < 1e-12);
        assert!(seconds(Some("1MB/s"), "") < seconds(Some("1MB/s"), "2"));
    }

    #[test]
    fn what_is_released_is_wanted_cold_though_no_host_is_known() {
        let released = vec![package("1"), package("1"), package("lost")];
        let demands = tally(&Outlook { hosts: Vec::new(), released }, |digest| *digest != package("lost"));
        let demand = demands[&(None, package("1"))];
        assert_eq!((demands.len(), demand.hosts(), demand.released), (1, 0, true));
        assert!((demand.link_seconds_per_byte - 0.25 / 125e6).abs() < 1e-12);
    }

    #[test]
    fn the_smallest_plan_is_wanted_where_a_link_is_limited() {
        let limited = |standing: Standing| Standing { limit: "1MB/s".parse().ok(), ..standing };
        for (name, hosts, expected) in [
            ("open links", vec![standing("1", "2", "2"); 2], [(0, false), (0, false)]),
            (
                "one of two",
                vec![standing("1", "2", "2"), limited(standing("1", "2", "2"))],
                [(1, true), (0, true)],
            ),
            (
                "of another application",
                vec![standing("1", "2", "2"), limited(standing("8", "", "9"))],
                [(0, false), (0, true)],
            ),
        ] {
            let demands = tally(&Outlook { hosts, released: vec![package("2")] }, |_| true);
            let found = |base: Option<&str>| {
                let demand = demands[&(base.map(package), package("2"))];
                (demand.limited, demand.wants_smallest)
            };
            assert_eq!([found(Some("1")), found(None)], expected, "{name}");
        }
    }
}
