//! The planner of an environment's run: what happens next, and what is waited for. Pure; the driver does what it says.
//!
//! | state | what it does |
//! |---|---|
//! | applying | starts a rollout of each application whose needs stand; independent ones beside each other |
//! | standing, stopped, rolled back | brings hosts that came later to what their neighbours run, needs first |
//! | rolling back | takes back what the run has brought, what depends on others first |
//!
//! An application is never tried twice in one run: a rollout that did not succeed waits for a person, who applies again.

mod additions;
mod retreat;

pub(super) use additions::in_force;

use sluice_common::name::{AppName, HostName, RolloutId, SiteName};

use super::blocker::{Blocker, Wait};
use super::file::OnFailure;
use super::graph::{Edge, Why};
use super::spec::Environment;
use super::state::State;
use super::view::{AppView, Attempt, Fate, View};

/// What is to be done, and what is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// What is waited for.
    pub blockers: Vec<Blocker>,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a rollout of an application's release.
    Start {
        /// The application.
        app: AppName,
        /// Its part: a site with a calendar of its own, or all others.
        part: Option<SiteName>,
        /// Only these hosts; none: the whole part.
        hosts: Vec<HostName>,
        /// Whether it is for hosts that came later.
        is_addition: bool,
        /// The applications that it comes together with: none of them switches before all are staged.
        beside: Vec<AppName>,
    },
    /// Take a rollout of the run back.
    TakeBack {
        /// It.
        rollout: RolloutId,
        /// Why.
        reason: String,
    },
    /// Take note that an application stands.
    Settle {
        /// The application.
        app: AppName,
    },
    /// Go over to another state.
    Enter(State),
}

/// Returns what happens next. `wanted` is what was applied last, `standing` what stood, whole, before.
pub fn next(wanted: &Environment, standing: Option<&Environment>, state: &State, view: &View) -> Step {
    match state {
        State::Applying => apply(wanted, view),
        State::RollingBack { reason } => retreat::retreat(wanted, reason, view),
        State::Standing | State::Stopped { .. } | State::RolledBack { .. } => {
            additions::additions(wanted, standing, state, view)
        }
    }
}

/// Where an application of a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing<'a> {
    /// It stands, whole.
    Settled,
    /// No host is for it.
    Vacant,
    /// Its rollouts are under way.
    UnderWay(Vec<&'a Attempt>),
    /// One of its rollouts did not succeed.
    Failed(&'a Attempt),
    /// It is to be begun, or gone on with: this part of it.
    Due(Option<SiteName>),
    /// Nothing can be done about it.
    Stuck(Wait),
}

/// Says where an application stands. What was taken back after it had stood has failed.
pub(super) fn standing_of<'a>(environment: &Environment, app: &AppName, view: &'a AppView) -> Standing<'a> {
    let open: Vec<&Attempt> =
        view.own_attempts().filter(|a| matches!(a.fate(), Fate::Open | Fate::Retreating)).collect();
    if !open.is_empty() {
        return Standing::UnderWay(open);
    }
    if let Some(lost) = view.own_attempts().find(|attempt| attempt.fate() == Fate::Lost) {
        return Standing::Failed(lost);
    }
    if view.has_stood {
        return Standing::Settled;
    }
    if view.hosts.is_empty() {
        return Standing::Vacant;
    }
    if let (false, Some(release)) = (view.is_released, environment.release(app)) {
        return Standing::Stuck(Wait::NoRelease(release.clone()));
    }
    let mut due: Vec<Option<SiteName>> = Vec::new();
    for host in view.hosts.iter().filter(|host| host.is_usable() && !host.is_settled) {
        let part = environment.part(&host.site).cloned();
        let is_done = view.own_attempts().any(|a| a.part == part && a.fate() == Fate::Done);
        if !is_done {
            due.push(part);
        }
    }
    if let Some(part) = due.into_iter().min() {
        return Standing::Due(part);
    }
    unusable(environment, app, view).map_or(Standing::Settled, Standing::Stuck)
}

/// Returns what keeps hosts out for which there is no package. They are no reason to wait for others.
fn unusable(environment: &Environment, app: &AppName, view: &AppView) -> Option<Wait> {
    if view.hosts.iter().any(super::view::HostView::is_usable) {
        return None;
    }
    let names = |known: bool| -> Vec<HostName> {
        let of = view.hosts.iter().filter(|host| host.platform.is_some() == known);
        of.map(|host| host.name.clone()).collect()
    };
    let (known, unheard) = (names(true), names(false));
    match known.is_empty() {
        true => Some(Wait::Unheard(unheard)),
        false => Some(Wait::NoPackage { release: environment.release(app)?.clone(), hosts: known }),
    }
}

/// Returns the hosts that a rollout of a part has to name: none where it can have all of them. Hosts without a package would
/// keep all others from beginning.
pub(super) fn named(environment: &Environment, view: &AppView, part: Option<&SiteName>) -> Vec<HostName> {
    let of_part = || view.hosts.iter().filter(|host| environment.part(&host.site) == part);
    match of_part().all(super::view::HostView::is_usable) {
        true => Vec::new(),
        false => of_part().filter(|host| host.is_usable()).map(|host| host.name.clone()).collect(),
    }
}

struct Applying<'a> {
    environment: &'a Environment,
    view: &'a View,
    step: Step,
}

fn apply(environment: &Environment, view: &View) -> Step {
    let mut planner = Applying { environment, view, step: Step::default() };
    for unit in environment.units() {
        planner.unit(unit);
    }
    planner.end();
    planner.step
}

impl<'a> Applying<'a> {
    fn standing(&self, app: &AppName) -> Standing<'a> {
        self.view.get(app).map_or(Standing::Vacant, |view| standing_of(self.environment, app, view))
    }

    fn block(&mut self, app: &AppName, wait: Wait) {
        self.step.blockers.push(Blocker { app: app.clone(), wait });
    }

    /// Goes on with applications that come together. Where one waits, all do that have not begun.
    fn unit(&mut self, unit: &[AppName]) {
        let mut due = Vec::new();
        let lost = unit.iter().find(|app| matches!(self.standing(app), Standing::Failed(_)));
        for app in unit {
            match self.standing(app) {
                Standing::Settled if self.view.get(app).is_some_and(|view| !view.has_stood) => {
                    self.step.actions.push(Action::Settle { app: app.clone() });
                }
                Standing::Settled => {}
                Standing::Vacant => self.block(app, Wait::NoHost),
                Standing::UnderWay(attempts) => self.under_way(app, &attempts),
                Standing::Failed(attempt) => self.block(app, Wait::Failed { words: attempt.words() }),
                Standing::Stuck(wait) => self.block(app, wait),
                Standing::Due(part) => due.push((app, part)),
            }
        }
        if let Some(lost) = lost {
            return self.take_back(unit, lost);
        }
        let waits: Vec<(AppName, Wait)> = unit
            .iter()
            .flat_map(|app| self.waits(app, unit).into_iter().map(|wait| (app.clone(), wait)))
            .collect();
        for (app, part) in &due {
            let own: Vec<Wait> =
                waits.iter().filter(|(of, _)| of == *app).map(|(_, wait)| wait.clone()).collect();
            match (own.is_empty(), waits.first()) {
                (true, None) => self.start(app, part.as_ref(), self.beside(unit, app, part.as_ref(), &due)),
                (true, Some((_, wait))) => self.block(app, wait.clone()),
                (false, _) => own.into_iter().for_each(|wait| self.block(app, wait)),
            }
        }
    }

    fn under_way(&mut self, app: &AppName, attempts: &[&Attempt]) {
        for attempt in attempts {
            let is_moving = !matches!(attempt.state, crate::rollout::State::Paused { .. });
            self.block(app, Wait::Rollout { words: attempt.words(), is_moving });
        }
    }

    /// Returns what an application waits for before it may begin.
    fn waits(&self, app: &AppName, unit: &[AppName]) -> Vec<Wait> {
        let mut waits = Vec::new();
        if let Some(view) = self.view.get(app) {
            waits.extend(view.closed_by.clone().map(Wait::Closed));
            waits.extend(view.others.first().cloned().map(Wait::Other));
        }
        let edges = self.environment.edges_of(app).filter(|edge| !unit.contains(&edge.to));
        waits.extend(edges.filter_map(|edge| self.need(edge)));
        waits
    }

    /// Returns what an edge makes its application wait for; nothing where the other end stands.
    fn need(&self, edge: &Edge) -> Option<Wait> {
        if let (Why::InsteadOf(preferred), true) = (&edge.why, edge.optional)
            && !matches!(self.standing(preferred), Standing::Vacant | Standing::Failed(_))
        {
            return None;
        }
        // Whoever needs one of a unit needs it whole: it came as one, and it may still go back as one.
        let unit = self.environment.units().iter().find(|unit| unit.contains(&edge.to))?;
        let is_substitute = matches!(edge.why, Why::InsteadOf(_));
        match self.standing(&edge.to) {
            Standing::Settled if unit.iter().all(|app| matches!(self.standing(app), Standing::Settled)) => {
                None
            }
            Standing::Vacant | Standing::Failed(_) if edge.optional && !is_substitute => None,
            Standing::Vacant => Some(Wait::NeedNoHost(edge.clone())),
            Standing::Settled
            | Standing::Failed(_)
            | Standing::UnderWay(_)
            | Standing::Due(_)
            | Standing::Stuck(_) => Some(Wait::Need(edge.clone())),
        }
    }

    /// Returns the others of its unit whose same part is begun with it, or was just before.
    fn beside(
        &self,
        unit: &[AppName],
        app: &AppName,
        part: Option<&SiteName>,
        due: &[(&AppName, Option<SiteName>)],
    ) -> Vec<AppName> {
        let comes = |other: &&AppName| match self.standing(other) {
            Standing::UnderWay(attempts) => attempts.iter().any(|attempt| attempt.part.as_ref() == part),
            Standing::Due(_) => due.iter().any(|(due, its)| due == other && its.as_ref() == part),
            Standing::Settled | Standing::Vacant | Standing::Failed(_) | Standing::Stuck(_) => false,
        };
        unit.iter().filter(|other| *other != app).filter(comes).cloned().collect()
    }

    fn start(&mut self, app: &AppName, part: Option<&SiteName>, beside: Vec<AppName>) {
        let Some(view) = self.view.get(app) else { return };
        let (hosts, part) = (named(self.environment, view, part), part.cloned());
        let app = app.clone();
        self.step.actions.push(Action::Start { app, part, hosts, is_addition: false, beside });
    }

    /// Takes back what an atomic unit has brought beside the application that failed.
    fn take_back(&mut self, unit: &[AppName], lost: &AppName) {
        for app in unit {
            let attempts = self.view.get(app).into_iter().flat_map(AppView::own_attempts);
            for attempt in attempts.filter(|a| matches!(a.fate(), Fate::Open | Fate::Done)) {
                let reason = format!("{lost} failed, and the two switch as one");
                self.step.actions.push(Action::TakeBack { rollout: attempt.rollout.clone(), reason });
            }
        }
    }

    /// Looks whether the run has come to its end.
    fn end(&mut self) {
        let all: Vec<(&AppName, Standing<'a>)> =
            self.environment.applications().keys().map(|app| (app, self.standing(app))).collect();
        let is_at_rest = self.step.actions.iter().all(|action| matches!(action, Action::Settle { .. }));
        let failed = all.iter().find_map(|(app, standing)| match standing {
            Standing::Failed(attempt) => Some(format!("{app}: {}", attempt.words())),
            _ => None,
        });
        let is_under_way = all.iter().any(|(_, standing)| matches!(standing, Standing::UnderWay(_)));
        match (failed, self.environment.on_failure()) {
            (Some(reason), OnFailure::Rollback) => {
                self.step =
                    Step { actions: vec![Action::Enter(State::RollingBack { reason })], ..Step::default() };
            }
            (Some(reason), OnFailure::Stop) if is_at_rest && !is_under_way => {
                self.step.actions.push(Action::Enter(State::Stopped { reason }));
            }
            (Some(_), OnFailure::Stop) => {}
            (None, _) => {
                if all.iter().all(|(_, s)| matches!(s, Standing::Settled | Standing::Vacant)) {
                    self.step.actions.push(Action::Enter(State::Standing));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
