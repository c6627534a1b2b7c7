//! How many hosts may be out: of the whole selection, and of each failure domain.

use std::collections::HashMap;

use super::super::model::Rollout;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full<'a> {
    /// As many hosts of the selection are out as may be.
    Selection,
    /// As many hosts of this domain are out as may be.
    Domain(&'a str),
}

/// The budgets of a rollout.
#[derive(Debug)]
pub(super) struct Budget<'a> {
    selection: Account,
    domains: HashMap<&'a str, Account>,
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
        Self { selection, domains }
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
        let domain = look.member.domain.as_deref()?;
        self.domains.get(domain)?.refuses(more).then_some(Full::Domain(domain))
    }

    /// Counts this host as out; one that was out already `adds` nothing.
    pub(super) fn take(&mut self, look: &Look<'a>, adds: bool) {
        let more = usize::from(adds);
        self.selection.out += more;
        let domain = look.member.domain.as_deref();
        if let Some(account) = domain.and_then(|domain| self.domains.get_mut(domain)) {
            account.out += more;
        }
    }
}
