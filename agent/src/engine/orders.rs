//! Orders that arrive: judged, then accepted, refused or taken as a renewal, and remembered before anything is done about them.

use std::io;

use sluice_common::order::{Desired, Order};

use super::{Engine, blocking};
use crate::accept::{Verdict, judge};
use crate::clock::BootTime;
use crate::content::Origin;
use crate::stage::{Attempts, make_directory};
use crate::state::{AppState, Cost, Progress, store_signed};

impl<O: Origin> Engine<O> {
    /// Takes an order that arrived; says whether there is something new to do.
    pub(crate) async fn take(&mut self, order: Order) -> io::Result<bool> {
        let (app, generation) = (&self.app, order.generation.0);
        match judge(&order, self.state.as_ref(), &self.host.rules) {
            Verdict::Stale { accepted } => {
                tracing::warn!(app = %app, generation, accepted = accepted.0, "stale order is refused");
                Ok(false)
            }
            Verdict::Conflicts => {
                tracing::error!(app = %app, generation, "order asks for something else under an accepted generation; it is refused");
                Ok(false)
            }
            Verdict::Renews => {
                let now = BootTime::now()?;
                let waits = self.state.as_ref().is_some_and(|state| !state.progress.phase().is_terminal());
                if waits {
                    self.change(|state| {
                        state.received = now;
                        state.confirmed |= order.confirmed;
                    })
                    .await?;
                }
                Ok(waits)
            }
            Verdict::Refuse { reason } => {
                tracing::warn!(app = %app, generation, rollout.id = %order.rollout, reason, "order is refused");
                self.refuse(&order, reason).await?;
                Ok(true)
            }
            Verdict::Accept => {
                tracing::info!(app = %app, generation, rollout.id = %order.rollout, "order is accepted");
                self.accept(&order).await?;
                Ok(true)
            }
        }
    }

    async fn accept(&mut self, order: &Order) -> io::Result<()> {
        let mut state =
            AppState::accepted(order, BootTime::now()?, self.starts).following(self.state.as_ref());
        state.cost = self.cost_so_far(&state);
        let (dir, generation, crash) = (self.dir.clone(), order.generation, self.host.crash.clone());
        let release = match &order.desired {
            Desired::Release { release, .. } => Some(release.clone()),
            Desired::Absent => None,
        };
        blocking(move || {
            make_directory(dir.base(), 0o755)?;
            crash.pass()?;
            release.map_or(Ok(()), |release| store_signed(&dir.order(generation), &release))
        })
        .await?;
        self.store(state).await?;
        (self.attempts, self.failures) = (Attempts::default(), 0);
        self.clean().await
    }

    /// Refuses an order: it ends here, and is remembered like any other, unless its application may not stand here.
    async fn refuse(&mut self, order: &Order, reason: String) -> io::Result<()> {
        let mut state =
            AppState::accepted(order, BootTime::now()?, self.starts).following(self.state.as_ref());
        state.progress = Progress::Failed;
        state.reason = Some(reason);
        if !self.host.rules.policy.may_deploy(&self.app) {
            self.state = Some(state);
            self.report(None, None);
            return Ok(());
        }
        let dir = self.dir.clone();
        blocking(move || make_directory(dir.base(), 0o755)).await?;
        self.store(state).await?;
        self.settle().await
    }

    /// Returns what the same rollout has spent here already: the order to switch follows the one to stage, and the one to
    /// go back follows both.
    fn cost_so_far(&self, new: &AppState) -> Cost {
        match &self.state {
            Some(old) if old.rollout == new.rollout => old.cost,
            _ => Cost::default(),
        }
    }
}
