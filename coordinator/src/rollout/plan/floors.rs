//! How many hosts are in service, and how many have to be: of the whole selection, and of each domain that a floor names.

use std::collections::BTreeMap;

use super::super::blocker::Blocker;
use super::super::floor::Floor;
use super::super::model::Rollout;
use super::look::Look;

/// Hosts that run the application, and those of them that are in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Serving {
    total: usize,
    serving: usize,
}

/// A floor, by its place in the spec, and the domain in which it holds; nothing: the whole selection.
pub(super) type Place<'a> = (usize, Option<&'a str>);

/// The floors of a rollout.
#[derive(Debug)]
pub(super) struct Floors<'a> {
    floors: &'a [Floor],
    accounts: BTreeMap<Place<'a>, Serving>,
}

impl<'a> Floors<'a> {
    /// Counts the hosts that run the application, and those that are not out, as `is_out` has it.
    pub(super) fn new(rollout: &'a Rollout, looks: &[Look<'a>], is_out: impl Fn(&Look<'a>) -> bool) -> Self {
        let mut floors = Self { floors: &rollout.spec.floors, accounts: BTreeMap::new() };
        if floors.floors.is_empty() {
            return floors;
        }
        for look in looks.iter().filter(|look| look.runs()) {
            let serves = usize::from(!is_out(look));
            for place in floors.places(look) {
                let account = floors.accounts.entry(place).or_default();
                account.total += 1;
                account.serving += serves;
            }
        }
        floors
    }

    /// Returns where a host counts.
    fn places(&self, look: &Look<'a>) -> Vec<Place<'a>> {
        let of = |(place, floor): (usize, &Floor)| {
            [Some((place, None)), floor.domain(look.member).map(|domain| (place, Some(domain)))]
        };
        self.floors.iter().enumerate().flat_map(of).flatten().collect()
    }

    /// Says which floor a host may not leave. On the way back (`is_retreat`) there is always room for one: it must come to its end.
    pub(super) fn refuses(&self, look: &Look<'a>, is_retreat: bool) -> Option<Place<'a>> {
        if self.floors.is_empty() || !look.runs() {
            return None;
        }
        self.places(look).into_iter().find(|place| {
            let Serving { total, serving } = self.account(place);
            let needs = self.floors[place.0].needs(total);
            let needs = if is_retreat { needs.min(total.saturating_sub(1)) } else { needs };
            serving <= needs
        })
    }

    /// Counts a host as out that was in service.
    pub(super) fn take(&mut self, look: &Look<'a>) {
        if self.floors.is_empty() || !look.runs() {
            return;
        }
        for place in self.places(look) {
            if let Some(account) = self.accounts.get_mut(&place) {
                account.serving = account.serving.saturating_sub(1);
            }
        }
    }

    fn account(&self, place: &Place<'a>) -> Serving {
        self.accounts.get(place).copied().unwrap_or_default()
    }

    /// Says in which way a floor holds others up.
    pub(super) fn blocker(&self, rollout: &Rollout, place: &Place<'_>) -> Blocker {
        let Serving { total, serving } = self.account(place);
        let floor = &self.floors[place.0];
        let label = floor.label.as_deref().unwrap_or_default();
        Blocker::Floor {
            by: floor.by.clone(),
            app: rollout.app.clone(),
            domain: place.1.map(|domain| format!("{label} {domain}")),
            needs: floor.needs(total),
            total,
            serving,
        }
    }
}
