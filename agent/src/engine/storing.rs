//! How the state is written: first to disk, then believed, then told.

use std::io;
use std::path::Path;

use super::{Engine, blocking};
use crate::content::Origin;
use crate::state::AppState;

impl<O: Origin> Engine<O> {
    /// Changes the state: writes it first, then believes it, then reports it.
    pub(super) async fn change(&mut self, change: impl FnOnce(&mut AppState)) -> io::Result<()> {
        let mut state = self.state.clone().expect("a step is performed on an accepted order");
        change(&mut state);
        self.store(state).await
    }

    pub(super) async fn store(&mut self, state: AppState) -> io::Result<()> {
        self.poised = None;
        let (dir, crash, written) = (self.dir.clone(), self.host.crash.clone(), state.clone());
        let write = self.writing(&state);
        self.is_ahead = blocking(move || {
            crash.pass()?;
            let is_ahead = write(&written, &dir.state())?;
            crash.pass()?;
            Ok(is_ahead)
        })
        .await?;
        let before = self.state.as_ref().map(|state| (state.generation, state.progress.phase()));
        let now = (state.generation, state.progress.phase());
        self.state = Some(state);
        if before != Some(now) {
            self.tell(now.1);
        }
        self.let_go();
        self.publish(None).await
    }

    /// Returns how the next state is written; it says whether the state file is then behind. A release of the agent itself is
    /// switched to by whichever agent runs: it reads the state file alone.
    fn writing(&self, next: &AppState) -> fn(&AppState, &Path) -> io::Result<bool> {
        let is_of_same_order = |state: &&AppState| state.generation == next.generation;
        let before = self.state.as_ref().filter(is_of_same_order);
        let was_under_way = before.is_some_and(|state| state.progress.is_under_way());
        match (was_under_way, next.progress.is_under_way()) {
            _ if self.is_agent() => |state, path| state.store(path).map(|()| false),
            (true, _) => AppState::store_step,
            (false, true) => |state, path| state.store_beginning(path).map(|()| false),
            (false, false) => |state, path| state.store(path).map(|()| false),
        }
    }

    /// Has the state file say again what its steps do.
    pub(super) async fn catch_up(&mut self) -> io::Result<()> {
        let Some(state) = self.state.clone().filter(|_| self.is_ahead) else { return Ok(()) };
        let (dir, crash) = (self.dir.clone(), self.host.crash.clone());
        blocking(move || {
            crash.pass()?;
            state.store(&dir.state())?;
            crash.pass()
        })
        .await?;
        self.is_ahead = false;
        Ok(())
    }
}
