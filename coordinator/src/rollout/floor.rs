//! Floors: how many hosts of an application have to stay in service while it is rolled out, because somebody else needs them.
//!
//! Where `max_unavailable` says how many hosts may be out, a floor says how many must not: it is what a dependent asks. Hosts count as
//! in service exactly where they do not count as out; those that run nothing of the application yet are neither. Floors add up with
//! the budgets, and the stricter one holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_common::name::{AppName, HostName};
use sluice_common::units::Share;

use super::model::{Member, Rollout};
use super::spec::SpecError;

/// The label whose values are the sites of hosts.
const SITE: &str = "site";

/// At least so many hosts stay in service.
///
/// An environment makes one of each `needs.min_healthy` of a dependent: `Floor { by: Some(dependent), min_healthy, label: None }` in
/// [`super::Spec::floors`] of the rollouts of the application that is needed. It is of the selection of one rollout, and of the hosts in
/// it that run the application already; hosts that come new to it take nothing away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// The application that needs them; nothing: the operator says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<AppName>,
    /// How many, of those that run the application; a percentage is rounded up.
    pub min_healthy: Share,
    /// The label whose values are domains in each of which as many have to stay too: `site`, or the label of the spec's failure domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Floor {
    /// Returns how many of `total` hosts that run the application have to stay in service.
    pub fn needs(&self, total: usize) -> usize {
        self.min_healthy.of_rounded_up(total).max(1)
    }

    /// Returns the domain of a host in which the floor holds too; nothing where it looks at the whole selection alone.
    pub(super) fn domain<'a>(&self, member: &'a Member) -> Option<&'a str> {
        match self.label.as_deref()? {
            SITE => Some(member.site.as_str()),
            _ => member.domain.as_deref(),
        }
    }

    /// Refuses what means nothing; `domains` is the label of the spec's failure domains.
    pub(super) fn check(&self, domains: Option<&str>) -> Result<(), SpecError> {
        let refuse = |reason| Err(SpecError { field: "min_healthy", reason });
        if matches!(self.min_healthy, Share::Count(0) | Share::Percent(0)) {
            let share = self.min_healthy;
            return refuse(format!("is {share}; it must be at least 1 or 1%, or be left out"));
        }
        match self.label.as_deref() {
            None | Some(SITE) => Ok(()),
            label if label == domains => Ok(()),
            Some(label) => {
                refuse(format!("is of each {label}; that must be site, or the label of the failure domains"))
            }
        }
    }
}

/// Refuses floors that no host could ever leave: those of which hosts that run the application, `runs`, are every one needed.
pub(super) fn check_room(rollout: &Rollout, runs: impl Fn(&HostName) -> bool) -> Result<(), SpecError> {
    for floor in &rollout.spec.floors {
        let mut groups: BTreeMap<Option<&str>, (usize, bool)> = BTreeMap::new();
        for member in &rollout.members {
            for domain in [Some(None), floor.domain(member).map(Some)].into_iter().flatten() {
                let (total, serves) = groups.entry(domain).or_default();
                *total += 1;
                *serves |= runs(&member.host);
            }
        }
        for (domain, (total, serves)) in groups {
            let needs = floor.needs(total);
            if serves && needs >= total {
                let whose = floor.by.as_ref().map_or_else(|| "it".to_owned(), AppName::to_string);
                let of = domain.map(|domain| format!(" of {domain}")).unwrap_or_default();
                let reason = format!(
                    "leaves no room: {whose} needs {needs} of the {total} hosts{of} in service, and none could ever switch; \
                     lower it, or add a host"
                );
                return Err(SpecError { field: "min_healthy", reason });
            }
        }
    }
    Ok(())
}
