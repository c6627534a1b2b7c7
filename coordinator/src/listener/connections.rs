//! The open connections of each identity: how many it may hold, and how to end them all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_common::caps;
use sluice_common::identity::Principal;
use tokio_util::sync::CancellationToken;

/// Open connections by identity. Cheap to clone.
#[derive(Clone, Default)]
pub struct Connections {
    open: Arc<Mutex<HashMap<Principal, VecDeque<CancellationToken>>>>,
}

impl Connections {
    /// Adds a connection. One too many ends the oldest: a host that lost its power comes back before the coordinator
    /// has noticed, and whoever holds the key now is who counts.
    pub(super) fn add(&self, principal: &Principal, end: CancellationToken) {
        let mut open = self.lock();
        let tokens = open.entry(principal.clone()).or_default();
        tokens.retain(|token| !token.is_cancelled());
        tokens.push_back(end);
        while tokens.len() > most(principal) {
            if let Some(oldest) = tokens.pop_front() {
                tracing::warn!(identity = %principal, "too many connections of one identity: the oldest is closed");
                oldest.cancel();
            }
        }
        // Identities whose connections have all ended are forgotten once they are the majority.
        if open.len() > 64 && open.len().is_power_of_two() {
            open.retain(|_, tokens| tokens.iter().any(|token| !token.is_cancelled()));
        }
    }

    /// Ends every connection of an identity: it was revoked.
    pub fn end(&self, principal: &Principal) {
        for token in self.lock().remove(principal).unwrap_or_default() {
            token.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Principal, VecDeque<CancellationToken>>> {
        // A list of tokens: whatever a panicking holder left is still one.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn most(principal: &Principal) -> usize {
    match principal {
        Principal::Host(_) | Principal::Coordinator => caps::CONNECTIONS_PER_IDENTITY,
        Principal::Operator(_) => caps::CONNECTIONS_PER_OPERATOR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_connection_of_an_identity_makes_room() {
        let connections = Connections::default();
        let host: Principal = "sluice://host/web-1".parse().unwrap();
        let other: Principal = "sluice://host/web-2".parse().unwrap();
        let tokens: Vec<_> = (0..6).map(|_| CancellationToken::new()).collect();
        tokens[1].cancel();
        for token in &tokens {
            connections.add(&host, token.clone());
        }
        let elsewhere = CancellationToken::new();
        connections.add(&other, elsewhere.clone());
        let ended: Vec<bool> = tokens.iter().map(CancellationToken::is_cancelled).collect();
        assert_eq!(ended, [true, true, false, false, false, false]);
        connections.end(&host);
        assert!(tokens.iter().all(CancellationToken::is_cancelled) && !elsewhere.is_cancelled());
    }
}
