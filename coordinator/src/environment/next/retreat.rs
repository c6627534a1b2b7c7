//! The way back of a run: what depends on others goes first, and each application only when nothing of the run is left above it.

use sluice_common::name::AppName;

use super::super::blocker::{Blocker, Wait};
use super::super::spec::Environment;
use super::super::state::State;
use super::super::view::{AppView, Attempt, Fate, View};
use super::{Action, Step};

/// Returns what goes back next.
pub(super) fn retreat(environment: &Environment, reason: &str, view: &View) -> Step {
    let mut step = Step::default();
    let mut is_over = true;
    for unit in environment.units().iter().rev() {
        for app in unit {
            let left: Vec<&Attempt> = left(view, app).collect();
            if left.is_empty() {
                continue;
            }
            is_over = false;
            match dependent(environment, view, unit, app) {
                Some(other) => {
                    let wait = Wait::Dependent(other.clone());
                    step.blockers.push(Blocker { app: app.clone(), wait });
                }
                None => left.into_iter().for_each(|attempt| take_back(&mut step, app, attempt, reason)),
            }
        }
    }
    if is_over {
        step.actions.push(Action::Enter(State::RolledBack { reason: reason.to_owned() }));
    }
    step
}

/// Returns the rollouts of the run that have not gone back.
fn left<'a>(view: &'a View, app: &AppName) -> impl Iterator<Item = &'a Attempt> {
    let attempts = view.get(app).into_iter().flat_map(AppView::own_attempts);
    attempts.filter(|attempt| attempt.fate() != Fate::Lost)
}

/// Finds an application outside of the unit that needs this one and has something left.
fn dependent<'a>(
    environment: &'a Environment,
    view: &View,
    unit: &[AppName],
    app: &AppName,
) -> Option<&'a AppName> {
    let dependents = environment.edges().iter().filter(|edge| edge.to == *app).map(|edge| &edge.from);
    dependents.filter(|from| !unit.contains(from)).find(|from| left(view, from).next().is_some())
}

fn take_back(step: &mut Step, app: &AppName, attempt: &Attempt, reason: &str) {
    match attempt.fate() {
        Fate::Open | Fate::Done => {
            let (rollout, reason) = (attempt.rollout.clone(), reason.to_owned());
            step.actions.push(Action::TakeBack { rollout, reason });
        }
        Fate::Retreating => {
            let wait = Wait::Rollout { words: attempt.words(), is_moving: true };
            step.blockers.push(Blocker { app: app.clone(), wait });
        }
        Fate::Lost => {}
    }
}
