//! The runner: one task that takes every environment a step further whenever there is news.
//!
//! | channel | from | carries |
//! |---|---|---|
//! | `news` of the rollouts | recorder, sessions, drivers | hosts that came, went or said something; rollouts that ended |
//! | `wake` | operators | a file was applied, a run was stopped |
//!
//! It chooses nothing: [`next()`](super::next()) says what to do. It may die at any moment: a rollout carries the run that
//! started it, so whoever comes after it finds what was begun and plans again.

use std::time::Duration;

use sluice_common::name::EnvironmentName;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handle::{Handle, declared};
use super::layout::told;
use super::next::Action;
use super::store::{self as tables, Change, Stored};
use super::view::View;
use crate::clock::Clock;
use crate::rollout::{self, Command, Origin};
use crate::store::{self, Actor, Store};

/// Time after which everything is looked at without news: a calendar's day turns, a host falls silent.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Shortest time between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest: a look may have waited for a disk that others kept busy.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// How many times as long as a look took the pause after it is, so that looking takes a tenth of a core at most.
const PAUSE_FACTOR: u32 = 10;
/// Steps of one environment in one look: more than a run of the most applications has.
const STEPS_MAX: usize = 1_000;

/// The environments, not yet running.
pub struct Service {
    handle: Handle,
}

impl Service {
    /// Makes the component and the handle by which operators speak to it.
    pub fn new(store: Store, rollouts: rollout::Handle) -> (Self, Handle) {
        let handle =
            Handle { store, rollouts, clock: Clock::of_process(), shared: std::sync::Arc::default() };
        (Self { handle: handle.clone() }, handle)
    }

    /// Takes environments further until `token` says to stop; survives failures of the database.
    pub async fn run(self, token: CancellationToken) {
        let mut news = self.handle.rollouts.news();
        loop {
            let begun = Instant::now();
            news.mark_unchanged();
            if let Err(error) = self.look().await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "environments cannot be looked at, will try again");
            }
            let pause = (begun.elapsed() * PAUSE_FACTOR).clamp(PAUSE_MIN, PAUSE_MAX);
            let at = Instant::now() + LOOK_INTERVAL;
            tokio::select! {
                () = token.cancelled() => return,
                () = self.handle.shared.wake.notified() => continue,
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = self.handle.shared.wake.notified() => {}
                Ok(()) = news.changed() => {}
                () = tokio::time::sleep_until(at) => {}
            }
        }
    }

    async fn look(&self) -> Result<(), store::Error> {
        for name in tables::names(&self.handle.store).await? {
            self.advance(&name).await?;
        }
        Ok(())
    }

    /// Takes an environment as far as it goes now.
    async fn advance(&self, name: &EnvironmentName) -> Result<(), store::Error> {
        for _ in 0..STEPS_MAX {
            let Some(stored) = tables::load(&self.handle.store, name).await? else { return Ok(()) };
            let (view, step) = self.handle.step(&stored).await?;
            if step.actions.is_empty() || !self.perform(&stored, &view, step.actions).await? {
                return Ok(());
            }
        }
        tracing::warn!(environment = %name, "environment does not come to rest");
        Ok(())
    }

    /// Does what is planned; returns whether all of it was done, so that planning again makes sense at once.
    async fn perform(
        &self,
        stored: &Stored,
        view: &View,
        actions: Vec<Action>,
    ) -> Result<bool, store::Error> {
        let mut change = Change::default();
        let mut is_done = true;
        for action in actions {
            match action {
                Action::Settle { app } => change.settled.push(app),
                Action::Enter(state) => change.state = Some(state),
                Action::Start { .. } => is_done &= self.start(stored, view, action).await?,
                Action::TakeBack { rollout, reason } => {
                    let reason = format!("environment {}: {reason}", stored.name());
                    let command = Command::RollBack { reason };
                    let done = self.handle.rollouts.command(Actor::coordinator(), &rollout, command).await;
                    if let Err(error) = done {
                        tracing::warn!(rollout.id = %rollout, %error, "rollout cannot be taken back");
                        is_done = false;
                    }
                }
            }
        }
        if change != Change::default() {
            self.commit(stored, &change).await?;
        }
        Ok(is_done)
    }

    async fn start(&self, stored: &Stored, view: &View, action: Action) -> Result<bool, store::Error> {
        let Action::Start { app, part, hosts, is_addition, beside } = action else { return Ok(true) };
        let Some(environment) = declared(stored, view, &app) else { return Ok(false) };
        let (Some(release), Some(spec)) =
            (environment.release(&app), environment.spec(&app, part.as_ref(), &hosts))
        else {
            return Ok(false);
        };
        let needs = environment.applications().get(&app).map(|of| told(of, view)).unwrap_or_default();
        let (name, run) = (stored.name().clone(), stored.run);
        let origin = Origin { environment: name, run, part, is_addition, needs, beside };
        let spec = rollout::Spec { origin: Some(origin), ..spec };
        let (rollouts, by) = (&self.handle.rollouts, &stored.applied_by);
        let started = rollouts.start(by, Actor::coordinator(), app.clone(), release.clone(), spec).await;
        match started {
            Ok(rollout) => {
                tracing::info!(environment = %stored.name(), %app, rollout.id = %rollout, "application begun");
                self.handle.shared.note(stored.name(), &app, None);
                Ok(true)
            }
            Err(rollout::StartError::Store(error)) => Err(error),
            Err(error) => {
                tracing::warn!(environment = %stored.name(), %app, %error, "application cannot begin");
                self.handle.shared.note(stored.name(), &app, Some(error.to_string()));
                Ok(false)
            }
        }
    }

    async fn commit(&self, stored: &Stored, change: &Change) -> Result<(), store::Error> {
        let mut tx = self.handle.store.begin(Actor::coordinator()).await?;
        if !tables::change(&mut tx, stored, change, self.handle.clock.now()).await? {
            tracing::debug!(environment = %stored.name(), "plan was overtaken");
            return tx.roll_back().await;
        }
        tx.commit().await?;
        for app in &change.settled {
            tracing::info!(environment = %stored.name(), %app, "application stands");
        }
        if let Some(state) = &change.state {
            tracing::info!(environment = %stored.name(), %state, reason = state.reason(), "environment");
        }
        Ok(())
    }
}
