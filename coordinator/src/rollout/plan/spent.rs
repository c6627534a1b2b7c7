//! Says which budgets are spent, and by which hosts.

use std::collections::{BTreeMap, BTreeSet};

use sluice_common::name::HostName;

use super::super::blocker::Blocker;
use super::super::model::Rollout;
use super::Draft;
use super::budget::{Budget, Full};
use super::look::Look;

/// Hosts named in one [`Blocker::Unavailable`].
const OUT_NAMED_MAX: usize = 3;
/// Failure domains and floors of which one plan says that they are full: what an operator reads on one screen.
const NAMED_MAX: usize = 32;

/// Says which budgets are spent, of floors, of domains or of the selection, and by which hosts. One look at the fleet, however many
/// domains there are.
pub(super) fn explain(
    rollout: &Rollout,
    looks: &[Look<'_>],
    budget: &Budget<'_>,
    full: &BTreeSet<Full<'_>>,
    draft: &mut Draft,
) {
    let mut named: BTreeMap<Option<&str>, Vec<HostName>> = BTreeMap::new();
    for full in full.iter().take(NAMED_MAX) {
        match full {
            Full::Selection => drop(named.insert(None, Vec::new())),
            Full::Domain(domain) => drop(named.insert(Some(*domain), Vec::new())),
            Full::Floor(place) => draft.blockers.push(budget.floors().blocker(rollout, place)),
        }
    }
    if named.is_empty() {
        return;
    }
    for look in looks.iter().filter(|look| look.is_out()) {
        let own = look.member.domain.as_deref().map(Some);
        for domain in [Some(None), own].into_iter().flatten() {
            let hosts = named.get_mut(&domain).filter(|hosts| hosts.len() < OUT_NAMED_MAX);
            hosts.into_iter().for_each(|hosts| hosts.push(look.member.host.clone()));
        }
    }
    for (domain, hosts) in named {
        let account = domain.and_then(|domain| budget.domain(domain)).unwrap_or(budget.selection());
        let domain = domain.zip(rollout.spec.per_domain.as_ref());
        let domain = domain.map(|(domain, per_domain)| format!("{} {domain}", per_domain.label));
        draft.blockers.push(Blocker::Unavailable { domain, out: account.out, max: account.max, hosts });
    }
}
