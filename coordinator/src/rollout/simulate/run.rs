//! One run: a clock that leaps, a queue of what will happen, and a coordinator that plans when anything has.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use jiff::Timestamp;
use sluice_common::order::Installed;

use super::host::{Event, Host};
use super::{BatchTimes, Course, End, Kind, Lasting, Odds, Planner, Scene, Wait};
use crate::clock::{after, elapsed};
use crate::rollout::sim::random::Random;
use crate::rollout::{Action, Blocker, Contact, FleetView, Rollout, State, Target};

/// Members whose news are planned on together within a second: a plan of so many takes about a millisecond, and the
/// driver of a real rollout reads the news of a busy second together as well.
const MEMBERS_PER_SECOND: usize = 4_000;
/// Heartbeats are noted at least so often: less than the silence after which a host counts as unreachable.
const HEARD_EVERY: Duration = Duration::from_secs(10);
/// Rounds of planning at one moment after which the planner is taken to be at odds with itself.
const ROUNDS_MAX: usize = 10_000;
/// Waits that are kept: more than a person reads.
const WAITS_MAX: usize = 64;

pub(super) struct Run<'a> {
    odds: &'a Odds,
    planner: Planner,
    release: Vec<Installed>,
    began: Timestamp,
    now: Timestamp,
    rollout: Rollout,
    fleet: FleetView,
    hosts: Vec<Host>,
    queue: BinaryHeap<Reverse<(Timestamp, usize, Event)>>,
    heard: Timestamp,
    unstaged: usize,
    lasting: Lasting,
    course: Course,
}

impl<'a> Run<'a> {
    pub(super) fn new(scene: &'a Scene, odds: &'a Odds, seed: u64, planner: Planner) -> Self {
        let mut random = Random::new(seed);
        let is_bad = random.chance(odds.bad_release);
        let (mut rollout, fleet) = (scene.rollout.clone(), scene.fleet.clone());
        // What somebody outside will answer is not for us to say.
        rollout.spec.checks.clear();
        let hosts: Vec<Host> = rollout
            .members
            .iter()
            .zip(&scene.paces)
            .map(|(member, pace)| {
                let is_heard = fleet.get(&member.host).is_some_and(|view| view.is_reachable(scene.begins));
                Host::new(*pace, is_heard, odds, is_bad, &mut random)
            })
            .collect();
        let release = rollout.members.iter();
        let release = release
            .map(|member| Installed { package: member.package, version: rollout.version.clone() })
            .collect();
        let course = Course {
            end: End::Waits,
            took: Duration::ZERO,
            is_bad,
            staged: None,
            batches: vec![BatchTimes::default(); rollout.batches.len()],
            switched: 0,
            hurt: 0,
            waits: Vec::new(),
            plans: 0,
        };
        Self {
            odds,
            planner,
            release,
            began: scene.begins,
            now: scene.begins,
            rollout,
            fleet,
            hosts,
            queue: BinaryHeap::new(),
            heard: scene.begins,
            unstaged: 0,
            lasting: Lasting::new(),
            course,
        }
    }

    pub(super) fn finish(mut self) -> Course {
        loop {
            let wake = self.decide();
            if self.rollout.state.is_ended() || matches!(self.rollout.state, State::Paused { .. }) {
                self.course.end = End::State(self.rollout.state.clone());
                break;
            }
            let news = self.queue.peek().map(|Reverse((at, ..))| *at);
            let Some(next) = news.into_iter().chain(wake).min() else { break };
            self.leap(next.max(self.now));
        }
        self.course.took = elapsed(self.began, self.now);
        self.course.hurt = self.hosts.iter().filter(|host| host.is_hurt).count();
        self.course.switched = self.hosts.iter().filter(|host| host.has_switched).count();
        self.course
    }

    /// Plans and commits until nothing is left to do; returns when the plan has to be made again.
    fn decide(&mut self) -> Option<Timestamp> {
        for _ in 0..ROUNDS_MAX {
            self.course.plans += 1;
            let plan = (self.planner)(&self.rollout, &self.fleet, self.now);
            if plan.actions.is_empty() {
                self.note(&plan.blockers);
                return plan.wake;
            }
            for action in plan.actions {
                self.commit(&action);
            }
        }
        None
    }

    fn commit(&mut self, action: &Action) {
        let after_begin = elapsed(self.began, self.now);
        self.rollout.apply(action, self.now);
        match action {
            Action::Order { member, generation, target } => {
                let host = &self.rollout.members[*member].host;
                self.fleet.entry(host.clone()).or_default().generation = *generation;
                self.unstaged += usize::from(*target == Target::Stage);
                for (wait, event) in self.hosts[*member].take(*generation, target.clone(), self.odds) {
                    self.queue.push(Reverse((after(self.now, wait), *member, event)));
                }
            }
            Action::BatchOpened { batch } => self.course.batches[*batch].opened = Some(after_begin),
            Action::BatchPassed { batch } => self.course.batches[*batch].passed = Some(after_begin),
            Action::Migrates { .. }
            | Action::Ready
            | Action::HostFailed { .. }
            | Action::CheckFailed { .. }
            | Action::BakeStarted { .. }
            | Action::BakeBroken { .. }
            | Action::BeginRollback { .. }
            | Action::Pause { .. }
            | Action::Resume
            | Action::Approve { .. }
            | Action::Override { .. }
            | Action::Finish { .. } => {}
        }
    }

    /// Lets time pass until `next`, and a little more, so that a large fleet's news come together.
    fn leap(&mut self, next: Timestamp) {
        let grain = Duration::from_secs((self.hosts.len() / MEMBERS_PER_SECOND) as u64);
        let until = after(next, grain);
        let mut last = next;
        while let Some(Reverse((at, member, event))) = self.queue.peek().copied() {
            if at > until {
                break;
            }
            self.queue.pop();
            last = last.max(at);
            self.now = at.max(self.now);
            self.happen(member, event);
        }
        self.now = last.max(self.now);
        self.hear();
    }

    fn happen(&mut self, member: usize, event: Event) {
        let name = &self.rollout.members[member].host;
        let view = self.fleet.entry(name.clone()).or_default();
        let host = &mut self.hosts[member];
        match event {
            Event::Back => {
                host.is_heard = true;
                view.contact = Some(Contact { since: self.now, last: self.now });
            }
            Event::Done(generation) => {
                let runs = view.observed.as_ref().and_then(|observed| observed.current.clone());
                let Some((mut observed, switched)) = host.done(generation, runs, &self.release[member])
                else {
                    return;
                };
                observed.since = self.now;
                view.observed = Some(observed);
                host.is_hurt |= switched && self.course.is_bad;
                if switched && self.course.is_bad && !self.odds.bad_after.is_zero() {
                    let ill = Reverse((after(self.now, self.odds.bad_after), member, Event::Ill(generation)));
                    self.queue.push(ill);
                }
                self.count_staged(member);
            }
            Event::Ill(generation) => {
                if host.has(generation)
                    && let Some(observed) = &mut view.observed
                {
                    observed.healthy = Some(false);
                    observed.since = self.now;
                }
            }
        }
    }

    fn count_staged(&mut self, member: usize) {
        let is_stage = self.rollout.members[member].order.as_ref().is_some_and(|o| o.target == Target::Stage);
        self.unstaged -= usize::from(is_stage && self.unstaged > 0);
        if is_stage && self.unstaged == 0 {
            self.course.staged.get_or_insert(elapsed(self.began, self.now));
        }
    }

    /// Notes the heartbeats of every host that is there.
    fn hear(&mut self) {
        if elapsed(self.heard, self.now) < HEARD_EVERY {
            return;
        }
        self.heard = self.now;
        let heard = self.rollout.members.iter().zip(&self.hosts).filter(|(_, host)| host.is_heard);
        for (member, _) in heard {
            if let Some(contact) = self.fleet.get_mut(&member.host).and_then(|view| view.contact.as_mut()) {
                contact.last = self.now;
            }
        }
    }

    fn note(&mut self, blockers: &[Blocker]) {
        let now = elapsed(self.began, self.now);
        let kinds: Vec<(Kind, &Blocker)> =
            blockers.iter().filter_map(|blocker| Some((kind(blocker)?, blocker))).collect();
        self.lasting.retain(|lasting, place| {
            let lasts = kinds.iter().any(|(kind, _)| kind == lasting);
            if !lasts {
                self.course.waits[*place].until = Some(now);
            }
            lasts
        });
        for (kind, blocker) in kinds {
            if self.lasting.contains_key(&kind) || self.course.waits.len() == WAITS_MAX {
                continue;
            }
            self.lasting.insert(kind, self.course.waits.len());
            self.course.waits.push(Wait { kind, what: blocker.to_string(), from: now, until: None });
        }
    }
}

/// Tells apart what is worth being told of; nothing for what is only the work of a batch.
fn kind(blocker: &Blocker) -> Option<Kind> {
    match blocker {
        Blocker::Paused { .. } => Some(Kind::Paused),
        Blocker::StageFirst { .. } => Some(Kind::Staging),
        Blocker::Candidates { .. } => Some(Kind::Candidates),
        Blocker::Approvals { .. } => Some(Kind::Approvals),
        Blocker::Frozen { .. } => Some(Kind::Freeze),
        Blocker::Window { .. } => Some(Kind::Window),
        Blocker::Unreachable { .. } => Some(Kind::Unheard),
        Blocker::Unhealthy { .. } => Some(Kind::Ill),
        Blocker::Unavailable { .. } | Blocker::Floor { .. } => Some(Kind::Budget),
        Blocker::Check { .. } => Some(Kind::Check),
        Blocker::Staging { .. }
        | Blocker::Together { .. }
        | Blocker::Switching { .. }
        | Blocker::Baking { .. }
        | Blocker::MoreHosts { .. } => None,
    }
}
