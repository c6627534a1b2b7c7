//! The coordinator of the simulation: hears hosts and operators, plans, commits, delivers.

use sluice_common::name::HostName;

use super::{
    Action, Command, Contact, FleetView, HEARTBEAT, Host, HostView, Observed, RENEWAL, Sim, State, Told,
    Wanted, decide,
};

impl Sim {
    /// The coordinator hears heartbeats and reports, in whatever order they arrive.
    pub(super) fn listen(&mut self) -> Result<(), String> {
        let (second, now, is_calm) = (self.second, self.now(), self.is_calm());
        for i in 0..self.hosts.len() {
            let (name, host) = &self.hosts[i];
            let is_lost = !is_calm && self.random.once_in(4);
            if (second + i as u64).is_multiple_of(HEARTBEAT) && host.is_online && !is_lost {
                let before = self.contacts.get(name).copied();
                let contact = Contact::heard(before, now);
                self.is_stale |= before.is_none_or(|before| before.since != contact.since);
                self.contacts.insert(name.clone(), contact);
            }
        }
        let mut due = Vec::new();
        self.told.retain(|told| {
            let is_due = told.0 <= second;
            if is_due {
                due.push(told.clone());
            }
            !is_due
        });
        for (_, i, told) in due {
            if self.hosts[i].1.is_online {
                self.record(i, &told)?;
                let fleet = self.fleet();
                self.checker.heard(&self.rollout, &fleet, now);
            }
        }
        let fleet = self.fleet();
        self.checker.heard(&self.rollout, &fleet, now);
        Ok(())
    }

    fn record(&mut self, host: usize, told: &Told) -> Result<(), String> {
        let name = &self.hosts[host].0;
        if let Some(journal) = &self.journal {
            journal.record(&self.rollout, name, told, self.now())?;
        }
        let before = self.reports.get(name);
        if before.is_some_and(|(sequence, o)| (o.generation, *sequence) >= (told.generation, told.sequence)) {
            return Ok(());
        }
        let mut observed = Observed {
            generation: told.generation,
            phase: told.phase,
            current: told.current.clone(),
            healthy: told.healthy,
            reason: None,
            fetched_bytes: 0,
            fetch_total_bytes: 0,
            since: self.now(),
        };
        if let Some((_, before)) = before.filter(|(_, before)| before.is_like(&observed)) {
            observed.since = before.since;
        }
        self.reports.insert(name.clone(), (told.sequence, observed));
        self.is_stale = true;
        Ok(())
    }

    pub(super) fn fleet(&self) -> FleetView {
        let view = |(name, _): &(HostName, Host)| {
            let view = HostView {
                contact: self.contacts.get(name).copied(),
                observed: self.reports.get(name).map(|(_, observed)| observed.clone()),
                generation: self.generations.get(name).copied().unwrap_or_default(),
            };
            (name.clone(), view)
        };
        self.hosts.iter().map(view).collect()
    }

    /// Operators interfere while there are faults, and see to paused rollouts afterwards.
    pub(super) fn operate(&mut self) -> Result<(), String> {
        let reason = || "by alice".to_owned();
        let is_paused = matches!(self.rollout.state, State::Paused { .. });
        let command = if self.is_calm() && is_paused {
            match self.random.within(0, 3) {
                0 => Command::RollBack { reason: reason() },
                _ => Command::Resume,
            }
        } else if self.rollout.spec.approvals > 0 && self.random.once_in(50) {
            // Alice started it, and asks in vain.
            Command::Approve { by: self.random.pick(&["alice", "bob", "carol"]).parse().expect("a name") }
        } else if !self.is_calm() && self.random.once_in(70) {
            match self.random.within(0, 7) {
                0..=2 => Command::Pause { reason: reason() },
                3 | 4 => Command::Resume,
                5 => Command::Abort { reason: reason() },
                6 => Command::Override { reason: reason() },
                _ => Command::RollBack { reason: reason() },
            }
        } else {
            return Ok(());
        };
        match decide(&self.rollout, command) {
            Ok(Some(action)) => self.commit(&[action]),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// The driver: plans and commits until nothing is left to do, then delivers.
    pub(super) fn decide(&mut self) -> Result<(), String> {
        let now = self.now();
        if self.is_stale || self.wake.is_some_and(|wake| wake <= now) {
            for _ in 0..200 {
                let plan = (self.planner)(&self.rollout, &self.fleet(), now);
                self.wake = plan.wake;
                self.is_stale = !plan.actions.is_empty();
                if !self.is_stale {
                    break;
                }
                if !self.is_calm() && self.random.once_in(25) {
                    self.crash()?;
                    return Ok(());
                }
                self.commit(&plan.actions)?;
                if !self.is_calm() && self.random.once_in(25) {
                    self.crash()?;
                    return Ok(());
                }
            }
            if self.is_stale {
                return Err("liveness: the planner never comes to rest".to_owned());
            }
            self.deliver();
        } else if self.second.is_multiple_of(RENEWAL) {
            self.deliver();
        }
        Ok(())
    }

    fn commit(&mut self, actions: &[Action]) -> Result<(), String> {
        let (before, now) = (self.rollout.clone(), self.now());
        for action in actions {
            self.note(format_args!("{action:?}"));
            self.rollout.apply(action, now);
            if let Action::Order { member, generation, .. } = action {
                self.generations.insert(self.hosts[*member].0.clone(), *generation);
            }
        }
        self.is_stale = true;
        let fleet = self.fleet();
        if let Some(journal) = &mut self.journal {
            journal.commit(&self.rollout, actions, now)?;
            journal.differs(&self.rollout, &fleet, now)?;
        }
        self.checker.committed(&before, &self.rollout, actions, &fleet, now)?;
        self.checker.heard(&self.rollout, &fleet, now);
        Ok(())
    }

    fn deliver(&mut self) {
        for (i, member) in self.rollout.members.iter().enumerate() {
            let Some(order) = member.order.as_ref().filter(|o| self.rollout.state.delivers(&o.target)) else {
                continue;
            };
            let wanted = Wanted { generation: order.generation, target: order.target.clone() };
            let copies = if self.second >= self.faults_until { 1 } else { self.random.within(0, 2) };
            for _ in 0..copies {
                let late = if self.second >= self.faults_until { 0 } else { self.random.within(0, 10) };
                self.orders.push((self.second + late, i, wanted.clone()));
            }
        }
    }

    /// An operator takes back a rollout that had ended.
    pub(super) fn ask_back(&mut self) -> Result<(), String> {
        self.asked_back = true;
        self.faults_until = self.second + self.random.within(0, 60);
        match decide(&self.rollout, Command::RollBack { reason: "by bob".to_owned() }) {
            Ok(Some(action)) => self.commit(&[action]),
            Ok(None) | Err(_) => Ok(()),
        }
    }
}
