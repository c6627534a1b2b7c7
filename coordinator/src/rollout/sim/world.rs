//! The hosts, and what befalls them.

use sluice_common::name::HostName;

use super::{HEARTBEAT, Host, Journal, Nature, Sim, successor};

impl Sim {
    /// Hosts vanish, come back, waver; the coordinator dies.
    pub(super) fn disturb(&mut self) -> Result<(), String> {
        for i in 0..self.hosts.len() {
            if self.random.once_in(40) {
                let host = &mut self.hosts[i].1;
                host.is_online = !host.is_online;
            }
            if self.random.once_in(60) {
                let healthy = self.random.once_in(2);
                self.hosts[i].1.feel(healthy);
            }
        }
        if self.random.once_in(80) {
            self.crash()?;
        }
        Ok(())
    }

    pub(super) fn crash(&mut self) -> Result<(), String> {
        self.down_until = self.second + self.random.within(1, 30);
        self.note("crash");
        self.contacts.clear();
        self.checker.crashed();
        self.is_stale = true;
        // Orders on their way may still arrive, or not.
        if self.random.once_in(2) {
            self.orders.clear();
        }
        self.journal.as_mut().map_or(Ok(()), Journal::reopen)
    }

    pub(super) fn move_hosts(&mut self) {
        let (second, is_calm) = (self.second, self.is_calm());
        let mut due = Vec::new();
        self.orders.retain(|order| {
            let is_due = order.0 <= second;
            if is_due {
                due.push(order.clone());
            }
            !is_due
        });
        for (_, i, wanted) in due {
            if self.hosts[i].1.is_online {
                self.hosts[i].1.take(&wanted, second, &mut self.random);
            }
        }
        for i in 0..self.hosts.len() {
            let host = &mut self.hosts[i].1;
            if is_calm {
                host.is_online = true;
                if host.nature != Nature::Sickens || host.current != Some(successor()) {
                    host.feel(true);
                }
            }
            let before = host.report().map(|told| told.sequence);
            host.step(second, is_calm, &mut self.random);
            let Some(told) = host.report() else { continue };
            if Some(told.sequence) != before || second.is_multiple_of(HEARTBEAT) {
                let copies = if is_calm { 1 } else { self.random.within(0, 2) };
                for _ in 0..copies {
                    let late = if is_calm { 0 } else { self.random.within(0, 12) };
                    self.told.push((second + late, i, told.clone()));
                }
            }
        }
    }

    /// Says whether every host has taken its newest order that still goes out, and the coordinator knows.
    pub(super) fn is_quiet(&self) -> bool {
        let is_told = |(name, host): &(HostName, Host)| {
            let told = host.report().map(|told| (told.generation, told.sequence));
            told == self.reports.get(name).map(|(sequence, o)| (o.generation, *sequence))
        };
        self.orders.is_empty() && self.second >= self.down_until && self.hosts.iter().all(is_told)
    }
}
