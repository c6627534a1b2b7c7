//! Fixtures for tests: small rollouts, and a fleet on paper that is told what happens.

use std::time::Duration;

use jiff::Timestamp;
use sluice_common::name::HostName;
use sluice_common::order::{Generation, Phase};

pub(crate) use super::sim::fixture::{at, predecessor, rollout_of, successor};
use super::*;

/// Returns a rollout with the default spec.
pub(crate) fn rollout(hosts: usize) -> Rollout {
    rollout_of(hosts, Spec::default())
}

/// A rollout and its fleet, on paper: tests tell it what hosts do and read what the planner decides.
pub(crate) struct World {
    pub(crate) rollout: Rollout,
    pub(crate) fleet: FleetView,
    pub(crate) now: Timestamp,
    pub(crate) lost: Vec<String>,
}

impl World {
    /// Returns a world in which every host is reachable and runs the predecessor.
    pub(crate) fn new(hosts: usize, spec: Spec) -> Self {
        assert_eq!(spec.check(), Ok(()));
        let rollout = rollout_of(hosts, spec);
        let view = HostView {
            contact: Some(Contact { since: at(0), last: at(0) }),
            observed: Some(Observed {
                generation: Generation(7),
                phase: Phase::Active,
                current: Some(predecessor()),
                healthy: Some(true),
                reason: None,
                fetched_bytes: 0,
                fetch_total_bytes: 0,
                since: at(0),
            }),
            generation: Generation(7),
        };
        let fleet = rollout.members.iter().map(|member| (member.host.clone(), view.clone())).collect();
        Self { rollout, fleet, now: at(0), lost: Vec::new() }
    }

    pub(crate) fn host(&mut self, host: &str) -> &mut HostView {
        self.fleet.get_mut(&host.parse::<HostName>().unwrap()).unwrap()
    }

    /// Lets time pass; hosts that are not lost are heard at its end, and without a gap.
    pub(crate) fn wait(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            for (host, view) in &mut self.fleet {
                if !self.lost.iter().any(|lost| lost == host.as_str()) {
                    view.contact = Some(Contact::heard(view.contact, self.now));
                }
            }
        }
    }

    /// Silences hosts, for long enough to count as unreachable.
    pub(crate) fn lose(&mut self, hosts: &[&str]) {
        self.lost.extend(hosts.iter().map(|&host| host.to_owned()));
        self.wait(21);
    }

    /// Lets silenced hosts be heard again.
    pub(crate) fn find(&mut self, hosts: &[&str]) {
        self.lost.retain(|host| !hosts.contains(&host.as_str()));
        self.wait(1);
    }

    /// Lets hosts answer their newest order of the rollout; what they run follows from the phase.
    pub(crate) fn answer(&mut self, hosts: &[&str], phase: Phase) {
        let now = self.now;
        for host in hosts {
            let name = host.parse::<HostName>().unwrap();
            let member = self.rollout.members.iter().find(|member| member.host == name).unwrap();
            let order = member.order.clone().unwrap();
            let view = self.host(host);
            let before = view.observed.clone().unwrap();
            let current = match (phase, &order.target) {
                (Phase::Active, Target::Activate { .. }) => Some(successor()),
                (Phase::Active, Target::Restore { to }) => Some(to.clone()),
                (Phase::Active, Target::Remove) => None,
                (Phase::Reverted, Target::Activate { over }) => over.clone(),
                _ => before.current.clone(),
            };
            let reason = matches!(phase, Phase::Failed | Phase::Reverted).then(|| "it said no".to_owned());
            let mut next =
                Observed { generation: order.generation, phase, current, reason, since: now, ..before };
            if view.observed.as_ref().is_some_and(|o| o.is_like(&next)) {
                next.since = before.since;
            }
            view.observed = Some(next);
        }
    }

    /// Changes what hosts say of their health.
    pub(crate) fn health(&mut self, hosts: &[&str], healthy: Option<bool>) {
        let now = self.now;
        for host in hosts {
            let observed = self.host(host).observed.as_mut().unwrap();
            if observed.healthy != healthy {
                observed.since = now;
            }
            observed.healthy = healthy;
            observed.reason = (healthy == Some(false)).then(|| "503".to_owned());
        }
    }

    /// Asks what an operator may ask.
    pub(crate) fn command(&mut self, command: Command) {
        if let Some(action) = decide(&self.rollout, command).unwrap() {
            self.commit(&[action]);
        }
    }

    fn commit(&mut self, actions: &[Action]) {
        for action in actions {
            self.rollout.apply(action, self.now);
            if let Action::Order { member, generation, .. } = action {
                let host = self.rollout.members[*member].host.clone();
                let view = self.fleet.get_mut(&host).unwrap();
                assert!(*generation > view.generation, "{host} had {} before {generation}", view.generation);
                view.generation = *generation;
            }
        }
    }

    /// Returns the hosts that were told to migrate what all of them share.
    pub(crate) fn migrators(&self) -> Vec<&str> {
        let members = self.rollout.members.iter().filter(|member| member.migrates);
        members.map(|member| member.host.as_str()).collect()
    }

    /// Plans and commits until nothing is left to do; returns what was done, in short words. Who migrates is asked for by itself.
    pub(crate) fn go(&mut self) -> String {
        let mut words = Vec::new();
        for _ in 0..1_000 {
            let plan = plan(&self.rollout, &self.fleet, self.now);
            if plan.actions.is_empty() {
                return words.join(", ");
            }
            let told = plan.actions.iter().filter(|action| !matches!(action, Action::Migrates { .. }));
            words.extend(told.map(|action| self.word(action)));
            self.commit(&plan.actions);
        }
        panic!("the planner never comes to rest: {}", words.join(", "));
    }

    fn word(&self, action: &Action) -> String {
        let host = |member: &usize| self.rollout.members[*member].host.clone();
        match action {
            Action::Order { member, target: Target::Stage, .. } => format!("stage {}", host(member)),
            Action::Order { member, target: Target::Candidate { .. }, .. } => {
                format!("candidate {}", host(member))
            }
            Action::Order { member, target: Target::Activate { .. }, .. } => {
                format!("activate {}", host(member))
            }
            Action::Order { member, target: Target::Restore { .. }, .. } => {
                format!("restore {}", host(member))
            }
            Action::Order { member, target: Target::Remove, .. } => format!("remove {}", host(member)),
            Action::Migrates { member } => format!("migrates {}", host(member)),
            Action::Ready => "ready".to_owned(),
            Action::HostFailed { member, .. } => format!("fail {}", host(member)),
            Action::CheckFailed { name, .. } => format!("fail check {name}"),
            Action::BatchOpened { batch } => format!("open {batch}"),
            Action::BakeStarted { batch, .. } => format!("bake {batch}"),
            Action::BakeBroken { batch } => format!("unbake {batch}"),
            Action::BatchPassed { batch } => format!("pass {batch}"),
            Action::BeginRollback { .. } => "roll back".to_owned(),
            Action::Pause { .. } => "pause".to_owned(),
            Action::Resume => "resume".to_owned(),
            Action::Approve { by } => format!("approve {by}"),
            Action::Override { .. } => "override".to_owned(),
            Action::Finish { state } => format!("finish {}", state.as_str()),
        }
    }

    /// Returns the blockers in words.
    pub(crate) fn blockers(&self) -> Vec<String> {
        plan(&self.rollout, &self.fleet, self.now).blockers.iter().map(Blocker::to_string).collect()
    }

    /// Returns when the plan has to be made again, in seconds from now.
    pub(crate) fn wakes_in(&self) -> Option<f64> {
        let wake = plan(&self.rollout, &self.fleet, self.now).wake?;
        Some(wake.duration_since(self.now).as_secs_f64())
    }
}
