//! Which applications of the host are on the move. A configuration stops and starts another application, which must not
//! switch meanwhile: whoever moves an application holds it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use sluice_common::name::AppName;
use sluice_common::spec::Kind;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::content::Origin;
use crate::planner::Step;
use crate::state::Progress;

/// The applications of a host, each held by whoever moves it.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    turns: Mutex<HashMap<AppName, Arc<Turn<()>>>>,
}

impl Moving {
    fn turn(&self, app: &AppName) -> Arc<Turn<()>> {
        // Nothing is left half done in the map by a panic.
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(app.clone()).or_default().clone()
    }
}

impl<O: Origin> Engine<O> {
    /// Waits until nobody else moves what `step` moves, and holds it until the switch has ended; says whether it may begin.
    /// A configuration holds the application that it is of, and nothing but that: so no two wait for each other.
    pub(super) async fn hold(&mut self, step: &Step, token: &CancellationToken) -> io::Result<bool> {
        let moves = matches!(step, Step::BeginSwitch | Step::Switch(_) | Step::Back(_));
        if !moves || self.held.is_some() {
            return Ok(true);
        }
        let release = match self.wanted_release() {
            Some(release) => Some(release),
            None => self.observe().await?.current.installed().cloned(),
        };
        let app = match release {
            Some(release) => match self.spec(&release).await {
                Ok(spec) if spec.kind == Kind::Configuration => spec.of,
                // What cannot be read fails where it is used.
                Ok(_) | Err(_) => Some(self.app.clone()),
            },
            None => Some(self.app.clone()),
        };
        let Some(app) = app else { return Ok(true) };
        tokio::select! {
            held = self.host.moving.turn(&app).lock_owned() => self.held = Some(held),
            () = token.cancelled() => {}
        }
        Ok(self.held.is_some())
    }

    /// Lets others move the application, once its links and processes rest.
    pub(super) fn let_go(&mut self) {
        let is_moving = self.state.as_ref().is_some_and(|state| {
            matches!(state.progress, Progress::Switching { .. } | Progress::Reverting { .. })
        });
        if !is_moving {
            self.held = None;
        }
    }
}

/// The turn of an application.
pub(super) type Held = OwnedMutexGuard<()>;
