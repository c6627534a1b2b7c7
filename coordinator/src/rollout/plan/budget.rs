//! How many hosts may be out: of the whole selection, of each failure domain, and of those that somebody needs.

use std::collections::HashMap;

use super::super::model::Rollout;
use super::super::state::State;
use super::floors::{Floors, Place};
use super::look::Look;

/// Hosts that are out, and how many may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) out: usize,
    pub(super) max: usize,
}

impl Account {
    fn refuses(self, more: usize) -> bool {
        self.out + more > self.max
    }
}

/// What keeps one more host from being out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Full<'a> {
    /// As many hosts of the selection are out as may be.
    Selection,
    /// As many hosts of this domain are out as may be.
    Domain(&'a str),
    /// As few hosts are in service as this floor allows.
    Floor(Place<'a>),
}

/// The budgets of a rollout.
#[derive(Debug)]
pub(super) struct Budget<'a> {
    selection: Account,
    domains: HashMap<&'a str, Account>,
    floors: Floors<'a>,
    is_retreat: bool,
}

impl<'a> Budget<'a> {
    /// Counts the hosts that are out, as `is_out` has it.
    pub(super) fn new(rollout: &'a Rollout, looks: &[Look<'a>], is_out: impl Fn(&Look<'a>) -> bool) -> Self {
        let out = looks.iter().filter(|look| is_out(look)).count();
        let selection = Account { out, max: rollout.spec.unavailable_max(looks.len()) };
        let mut domains: HashMap<&str, Account> = HashMap::new();
        if let Some(per_domain) = &rollout.spec.per_domain {
            for look in looks {
                let Some(domain) = look.member.domain.as_deref() else { continue };
                let account = domains.entry(domain).or_insert(Account { out: 0, max: 0 });
                account.out += usize::from(is_out(look));
                account.max += 1;
            }
            for account in domains.values_mut() {
                account.max = per_domain.max_unavailable.of_rounded_down(account.max).max(1);
            }
        }
        let floors = Floors::new(rollout, looks, is_out);
        Self { selection, domains, floors, is_retreat: matches!(rollout.state, State::RollingBack { .. }) }
    }

    /// Returns the floors.
    pub(super) fn floors(&self) -> &Floors<'a> {
        &self.floors
    }

    /// Returns the hosts of the selection that are out, and how many may be.
    pub(super) fn selection(&self) -> Account {
        self.selection
    }

    /// Returns the hosts of a domain that are out, and how many may be.
    pub(super) fn domain(&self, domain: &str) -> Option<Account> {
        self.domains.get(domain).copied()
    }

    /// Says what keeps this host from being out; one that is out already `adds` nothing.
    pub(super) fn refuses(&self, look: &Look<'a>, adds: bool) -> Option<Full<'a>> {
        let more = usize::from(adds);
        if self.selection.refuses(more) {
            return Some(Full::Selection);
        }
        if let Some(domain) = look.member.domain.as_deref()
            && self.domains.get(domain).is_some_and(|account| account.refuses(more))
        {
            return Some(Full::Domain(domain));
        }
        let floor = if adds { self.floors.refuses(look, self.is_retreat) } else { None };
        floor.map(Full::Floor)
    }

    /// Counts this host as out; one that was out already `adds` nothing.
    pub(super) fn take(&mut self, look: &Look<'a>, adds: bool) {
        let more = usize::from(adds);
        self.selection.out += more;
        let domain = look.member.domain.as_deref();
        if let Some(account) = domain.and_then(|domain| self.domains.get_mut(domain)) {
            account.out += more;
        }
        if adds {
            self.floors.take(look);
        }
    }
}
