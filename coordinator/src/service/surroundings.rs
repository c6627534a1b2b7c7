//! What forecasts of rollouts ask of the fleet and of the depot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluice_common::digest::Digest;
use sluice_common::name::HostName;
use sluice_common::spec::Spec;

use crate::depot::plans::ahead::Ahead;
use crate::depot::plans::{Link, Plans};
use crate::fleet::Fleet;
use crate::rollout::forecast::link::Limits;
use crate::rollout::forecast::{Disk, Surroundings, Transfer};

/// The fleet and the transfer plans.
pub(super) struct Around {
    pub(super) fleet: Fleet,
    pub(super) plans: Arc<Plans>,
}

/// Returns the limits of the links as the fleet has them now.
pub(super) fn limits(fleet: &Fleet) -> Limits {
    let sites = fleet.sites().into_iter().filter_map(|site| Some((site.name, site.limit?)));
    let hosts = fleet.hosts().into_iter().filter_map(|host| Some((host.name, host.limit?)));
    Limits { total: fleet.total_limit(), sites: sites.collect(), hosts: hosts.collect() }
}

#[async_trait]
impl Surroundings for Around {
    fn limits(&self) -> Limits {
        limits(&self.fleet)
    }

    fn disks(&self) -> HashMap<HostName, Disk> {
        let disk = |host: crate::fleet::HostView| {
            let facts = host.facts?;
            let disk = Disk {
                bytes: facts.disk_bytes,
                free_bytes: facts.disk_free_bytes,
                floor_bytes: facts.disk_floor_bytes,
            };
            Some((host.name, disk))
        };
        self.fleet.hosts().into_iter().filter_map(disk).collect()
    }

    async fn transfer(&self, target: Digest, has: &[Digest], link: Link) -> Result<Transfer, String> {
        let ahead = self.plans.ahead(target, has, link).await;
        let Ahead { base, wire_bytes, frames, new_bytes } = ahead.map_err(|error| error.to_string())?;
        Ok(Transfer { base, target, wire_bytes, frames, disk_bytes: new_bytes + wire_bytes })
    }

    async fn bake(&self, target: Digest) -> Duration {
        // A file that cannot be read is told to whoever installs it; here it only says how long a gate takes.
        Spec::parse(&self.plans.spec_text(target).await).map_or(Duration::ZERO, |spec| spec.gate.bake)
    }

    async fn has_slots(&self, target: Digest) -> Option<bool> {
        let spec = Spec::parse(&self.plans.spec_text(target).await).ok()?;
        Some(spec.parallel.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Actor;
    use crate::testing::Harness;

    #[tokio::test]
    async fn a_host_is_under_its_own_limit_its_sites_and_the_coordinators() {
        let harness = Harness::start().await;
        let (host, site) = ("web-1".parse::<HostName>().unwrap(), "berlin".parse().unwrap());
        let credentials = harness.new_host("web-1").await;
        let least = || limits(&harness.fleet).least(&host, &site).map(|rate| rate.bytes_per_second());
        assert_eq!(least(), None);
        let mut session = harness.attach_limited(&credentials, 500_000).await;
        session.hear().await.unwrap();
        assert_eq!(least(), Some(500_000), "nobody else limits it");
        for (rate, expected) in [("1MB/s", 500_000), ("100kB/s", 100_000)] {
            let set = harness.fleet.set_site_limit(Actor::console(), &site, rate.parse().ok()).await;
            set.unwrap().unwrap();
            assert_eq!(least(), Some(expected), "its site has {rate}");
        }
        let whole = Limits { total: "50kB/s".parse().ok(), ..limits(&harness.fleet) };
        assert_eq!(whole.least(&host, &site), whole.total);
        harness.stop().await;
    }
}
