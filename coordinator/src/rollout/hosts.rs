//! The hosts around the rollouts: who is enrolled, who is heard, who has to be told of new orders.

use sluice_common::name::{AppName, HostName, Platform, SiteName};
use sluice_common::release::Release;
use sluice_common::selector::{Labels, Selector};

use super::batches::Candidate;
use super::spec::Spec;
use super::store::{Fleet as Known, is_settled};
use super::view::Contact;
use crate::fleet::Fleet;

/// What rollouts ask of the fleet, and tell it. One interface, so that a simulation can stand in for it.
pub trait Hosts: Send + Sync + 'static {
    /// Returns every host that is enrolled and not revoked.
    fn enrolled(&self) -> Vec<Enrolled>;
    /// Returns a host's presence; nothing when it was not heard since this coordinator began.
    fn contact(&self, host: &HostName) -> Option<Contact>;
    /// Makes a host's session fetch its standing orders again.
    fn notify_orders(&self, host: &HostName);
}

/// An enrolled host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// Its name.
    pub name: HostName,
    /// Its site.
    pub site: SiteName,
    /// Its labels.
    pub labels: Labels,
    /// Its platform; nothing before its first session.
    pub platform: Option<Platform>,
}

impl Hosts for Fleet {
    fn enrolled(&self) -> Vec<Enrolled> {
        let enrolled = self.hosts().into_iter().filter(|host| !host.revoked).map(|host| {
            let platform = host.platform().cloned();
            Enrolled { name: host.name, site: host.site, labels: host.labels, platform }
        });
        enrolled.collect()
    }

    fn contact(&self, host: &HostName) -> Option<Contact> {
        self.host(host)?.contact
    }

    fn notify_orders(&self, host: &HostName) {
        Self::notify_orders(self, host);
    }
}

/// Says why a selection cannot have a release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The selector chooses nobody.
    #[error(
        "selector {selector} chooses none of {enrolled} enrolled hosts; see their sites and labels with: sluice host list"
    )]
    NoHost {
        /// The selector.
        selector: Selector,
        /// How many hosts there are.
        enrolled: usize,
    },
    /// Hosts have a platform for which the release has no package.
    #[error(
        "release {app} {version} has no package for {hosts}; build one for that platform, or choose other hosts"
    )]
    NoPackage {
        /// The application.
        app: AppName,
        /// The release's version.
        version: String,
        /// Some of the hosts, each with its platform.
        hosts: String,
    },
}

/// Most hosts that one error names.
const HOSTS_NAMED_MAX: usize = 5;

/// Chooses the hosts of a rollout, each with its package and, where the spec has domains, its failure domain.
pub(super) fn select(
    enrolled: &[Enrolled],
    known: &Known,
    spec: &Spec,
    release: &Release,
) -> Result<Vec<Candidate>, SelectError> {
    let selector = &spec.selector;
    let (mut chosen, mut without) = (Vec::new(), Vec::new());
    for host in enrolled.iter().filter(|host| selector.matches(&host.name, &host.site, &host.labels)) {
        // A host of unknown platform can still take what runs everywhere.
        let platform = host.platform.clone().unwrap_or_else(Platform::any);
        let Some(package) = release.package_for(&platform) else {
            without.push(host);
            continue;
        };
        let observed = known.get(&host.name).and_then(|(observed, _)| observed.as_ref());
        chosen.push(Candidate {
            host: host.name.clone(),
            site: host.site.clone(),
            domain: spec.per_domain.as_ref().and_then(|domains| domain(host, &domains.label)),
            platform,
            package,
            settled: is_settled(observed, &package),
        });
    }
    if !without.is_empty() {
        let (app, version) = (release.app.clone(), release.version.to_string());
        return Err(SelectError::NoPackage { app, version, hosts: named(&without) });
    }
    if chosen.is_empty() {
        return Err(SelectError::NoHost { selector: selector.clone(), enrolled: enrolled.len() });
    }
    Ok(chosen)
}

/// Returns the failure domain of a host: the value of a label, or its site.
fn domain(host: &Enrolled, label: &str) -> Option<String> {
    match label {
        "site" => Some(host.site.to_string()),
        label => host.labels.get(label).cloned(),
    }
}

fn named(hosts: &[&Enrolled]) -> String {
    let name = |host: &&Enrolled| match &host.platform {
        Some(platform) => format!("{} ({platform})", host.name),
        None => format!("{} (platform unknown until its agent has connected once)", host.name),
    };
    let mut names: Vec<String> = hosts.iter().take(HOSTS_NAMED_MAX).map(name).collect();
    if hosts.len() > HOSTS_NAMED_MAX {
        names.push(format!("{} more", hosts.len() - HOSTS_NAMED_MAX));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sluice_common::digest::Digest;
    use sluice_common::units::Share;

    use super::*;
    use crate::rollout::spec::PerDomain;

    fn host(name: &str, platform: Option<&str>) -> Enrolled {
        Enrolled {
            name: name.parse().unwrap(),
            site: "berlin".parse().unwrap(),
            labels: Labels::new(),
            platform: platform.map(|platform| platform.parse().unwrap()),
        }
    }

    fn release(platforms: &[&str]) -> Release {
        let package = |platform: &&str| (platform.parse().unwrap(), Digest::of(platform.as_bytes()));
        let packages: BTreeMap<Platform, Digest> = platforms.iter().map(package).collect();
        Release {
            app: "shop".parse().unwrap(),
            version: "2".parse().unwrap(),
            packages,
            notes: String::new(),
        }
    }

    #[test]
    fn the_domain_is_what_a_label_says() {
        let mut in_rack = host("a", None);
        in_rack.labels.insert("rack".into(), "r2".into());
        let enrolled = [in_rack, host("b", None)];
        for (label, expected) in [
            (None, [None, None]),
            (Some("rack"), [Some("r2"), None]),
            (Some("site"), [Some("berlin"), Some("berlin")]),
        ] {
            let per_domain = label.map(|label| PerDomain {
                label: label.into(),
                max_unavailable: Share::Count(1),
                max_failures: None,
            });
            let spec = Spec { per_domain, ..Spec::default() };
            let chosen = select(&enrolled, &Known::new(), &spec, &release(&["any"])).unwrap();
            let domains: Vec<Option<&str>> = chosen.iter().map(|c| c.domain.as_deref()).collect();
            assert_eq!(domains, expected, "{label:?}");
        }
    }

    #[test]
    fn each_host_gets_the_package_of_its_platform() {
        let enrolled = [host("a", Some("linux-x86_64")), host("b", Some("linux-arm")), host("c", None)];
        let select = |selector: &str, platforms: &[&str]| {
            let spec = Spec { selector: selector.parse().unwrap(), ..Spec::default() };
            select(&enrolled, &Known::new(), &spec, &release(platforms))
        };
        let chosen = select("*", &["any", "linux-arm"]).unwrap();
        let packages: Vec<Digest> = chosen.iter().map(|candidate| candidate.package).collect();
        assert_eq!(packages, [b"any".as_slice(), b"linux-arm", b"any"].map(Digest::of));
        assert_eq!(select("host=a", &["linux-x86_64"]).unwrap().len(), 1);
        assert_eq!(
            select("*", &["linux-x86_64"]).unwrap_err().to_string(),
            "release shop 2 has no package for b (linux-arm), c (platform unknown until its agent has connected once); \
             build one for that platform, or choose other hosts"
        );
        assert_eq!(
            select("site=rome", &["any"]).unwrap_err().to_string(),
            "selector site=rome chooses none of 3 enrolled hosts; see their sites and labels with: sluice host list"
        );
    }
}
