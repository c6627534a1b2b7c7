//! The engine of one application: takes orders, and performs the steps that the [`crate::planner`] names. It chooses
//! nothing itself: each step is performed, its result written down, and the planner asked again.
//!
//! Invariants: state is written before the effect it announces; an effect may be repeated after a crash without harm;
//! a hook is never run again once it was started. Owned by the application's [`crate::actor`], which performs one step at
//! a time.

mod acting;
mod beside;
mod deeds;
mod gating;
mod instance;
mod links;
mod moving;
mod orders;
mod own;
mod preparing;
mod reporting;
mod reverting;
mod specs;
mod staging;
mod storing;
mod switching;
#[cfg(test)]
pub(crate) mod tests;
mod upkeep;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use sluice_common::digest::Digest;
use sluice_common::name::AppName;
use sluice_common::order::Generation;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accept::Rules;
use crate::board::Board;
use crate::clock::BootTime;
use crate::content::Origin;
use crate::crash::CrashPoints;
use crate::drift::Watch;
use crate::health::Subject;
use crate::hook;
use crate::layout::AppDir;
use crate::observe::{Disk, observe};
use crate::planner::{Rest, Step, next_step};
use crate::retention;
use crate::seen::Hashed;
use crate::stage::{Attempts, Reuse};
use crate::state::{AppState, Progress, StateError};
use crate::update::Own;
use crate::upkeep::Upkeep;

use deeds::Poised;
pub(crate) use moving::Moving;
pub(crate) use reporting::{answer, trouble};
use specs::Specs;

/// What the applications of a host share.
pub(crate) struct Host<O> {
    /// Where applications stand.
    pub(crate) root: std::path::PathBuf,
    /// What this host takes.
    pub(crate) rules: Rules,
    /// Variables of hooks and checks, by application.
    pub(crate) variables: BTreeMap<AppName, BTreeMap<String, String>>,
    /// Where content comes from.
    pub(crate) origin: O,
    /// How releases share bytes.
    pub(crate) reuse: Reuse,
    /// How it is kept in order.
    pub(crate) upkeep: Upkeep,
    /// Held while an application is staged: one at a time, so that memory and connections stay bounded.
    pub(crate) staging: Semaphore,
    /// Held while what stands of an application is verified: one at a time, so that their rates do not add up.
    pub(crate) verifying: Semaphore,
    /// What is known of the agent's own program.
    pub(crate) own: Own,
    /// Which applications are on the move.
    pub(crate) moving: Moving,
    /// Where reports are put up.
    pub(crate) board: Board,
    /// Simulated crashes, in tests.
    pub(crate) crash: CrashPoints,
}

/// Says why an engine cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The application's state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The disk failed.
    #[error("cannot open the application's directory")]
    Io(#[from] io::Error),
    /// The disk failed, and it is known what had been accepted: how that stands was told, with the trouble.
    #[error("cannot take the application up again")]
    TakeUp {
        /// The generation that was accepted last.
        accepted: Generation,
        /// What failed.
        source: io::Error,
    },
}

/// Performs the steps of one application.
pub(crate) struct Engine<O> {
    app: AppName,
    dir: AppDir,
    host: Arc<Host<O>>,
    state: Option<AppState>,
    starts: u32,
    attempts: Attempts,
    /// What this process has hashed of the releases.
    hashed: Hashed,
    /// What the releases say of themselves.
    specs: Arc<Specs>,
    /// What is known of the drift of the releases.
    drift: Watch,
    failures: u32,
    /// What is held while the application moves.
    held: Option<moving::Held>,
    /// Whether this process has seen the checks of the switch under way succeed.
    is_reached: bool,
    /// The hook that the state file names already, while memory still holds that it was not started.
    poised: Option<Poised>,
    /// Whether the steps of a switch say more than the state file.
    is_ahead: bool,
    monitored: watch::Sender<Option<Arc<Subject>>>,
}

impl<O: Origin> Engine<O> {
    /// Opens the application: reads its state, ends what an agent left behind that was killed, and removes leftovers.
    pub(crate) async fn open(
        app: AppName,
        host: Arc<Host<O>>,
        monitored: watch::Sender<Option<Arc<Subject>>>,
    ) -> Result<Self, OpenError> {
        let dir = AppDir::new(&host.root, &app);
        let state = load(dir.clone()).await?;
        let starts = state.as_ref().map_or(0, |state| state.starts) + 1;
        let mut engine = Self {
            app,
            dir,
            host,
            state,
            starts,
            attempts: Attempts::default(),
            hashed: Hashed::default(),
            specs: Arc::default(),
            drift: Watch::new(Instant::now()),
            failures: 0,
            held: None,
            is_reached: false,
            poised: None,
            is_ahead: false,
            monitored,
        };
        let scope = engine.scope();
        blocking(move || {
            hook::end_marked(&scope);
            Ok(())
        })
        .await?;
        if let Some(accepted) = engine.state.as_ref().map(|state| state.generation)
            && let Err(source) = engine.take_up().await
        {
            engine.tell_trouble(None, &source).await;
            return Err(OpenError::TakeUp { accepted, source });
        }
        Ok(engine)
    }

    /// Goes on with what an earlier process had accepted.
    async fn take_up(&mut self) -> io::Result<()> {
        let starts = self.starts;
        self.change(|state| state.starts = starts).await?;
        self.clean().await?;
        self.settle().await
    }

    /// Returns the application.
    pub(crate) fn app(&self) -> &AppName {
        &self.app
    }

    /// Returns the next step, from what is on disk now.
    pub(crate) async fn next(&self) -> io::Result<Step> {
        match &self.state {
            Some(state) => Ok(next_step(state, &self.observe().await?, &BootTime::now()?)),
            None => Ok(Step::Rest(Rest::Settled)),
        }
    }

    /// Performs a step. Cancelling `token` ends staging, a gate, or a hook early; a hook ended so stays journalled.
    pub(crate) async fn perform(&mut self, step: Step, token: &CancellationToken) -> io::Result<()> {
        if !self.hold(&step, token).await? {
            return Ok(());
        }
        match step {
            Step::Rest(_) => Ok(()),
            Step::Stage => self.stage(token).await,
            Step::NoteStaged => self.note_staged().await,
            Step::Prepare => self.prepare(token).await,
            Step::FailInterrupted(run) => self.fail_interrupted(&run).await,
            Step::LookAfter => self.look_after(token).await,
            Step::Restage => self.change(|state| state.progress = Progress::Fetching).await,
            Step::NoteActive => self.note_active().await,
            Step::Confirm => self.confirm(token).await,
            Step::DropBeside(beside) => self.drop_beside(beside, token).await,
            Step::RenewCandidate => self.renew_candidate().await,
            Step::BeginSwitch => self.begin_switch(token).await,
            Step::Switch(at) => self.switch_step(at, token).await,
            Step::SkipSwitchHook { at, run } => self.skip_switch_hook(at, &run).await,
            Step::Gate => self.gate(token).await,
            Step::AwaitConfirmation => self.await_confirmation(token).await,
            Step::PassGate => self.pass_gate().await,
            Step::BeginRevert(cause) => self.begin_revert(cause).await,
            Step::Back(at) => self.back_step(at, token).await,
            Step::SkipHook { at, run } => self.skip_hook(at, &run).await,
        }
    }

    /// Returns the accepted state.
    pub(crate) fn state(&self) -> Option<&AppState> {
        self.state.as_ref()
    }

    async fn observe(&self) -> io::Result<Disk> {
        let (dir, target) = (self.dir.clone(), self.state.as_ref().and_then(|state| state.wanted.package()));
        blocking(move || observe(&dir, target.as_ref())).await
    }

    /// Removes what crashes and earlier orders left.
    async fn clean(&self) -> io::Result<()> {
        let Some(state) = &self.state else { return Ok(()) };
        // Once it is staged, or has failed, nothing of the staging directory is of use.
        let wanted = state.wanted.package().filter(|_| state.progress == Progress::Fetching);
        let (dir, generation) = (self.dir.clone(), state.generation);
        blocking(move || retention::clean(&dir, wanted, generation)).await
    }

    /// Once nothing moves: looks after what runs, and removes what is too old.
    async fn settle(&mut self) -> io::Result<()> {
        let disk = self.observe().await?;
        let (dir, needed, retention) = (self.dir.clone(), self.needed(), self.host.upkeep.retention);
        let is_under_way = self.state.as_ref().is_some_and(|state| state.progress.is_under_way());
        if !is_under_way {
            let mut hashed = std::mem::take(&mut self.hashed);
            let collected = blocking(move || {
                retention::collect(&dir, &needed, &retention, &mut hashed)?;
                Ok(hashed)
            });
            self.hashed = collected.await?;
            let subject = match disk.current.installed() {
                Some(current) => {
                    let (slot, previous) = (self.live_slot(), disk.previous.installed().cloned());
                    let instance = self.instance(current.clone(), slot, previous).await.ok();
                    if let Some(instance) = &instance {
                        self.keep_running(instance).await;
                    }
                    instance.map(|instance| self.subject(&instance))
                }
                None => None,
            };
            self.monitored.send_if_modified(|monitored| {
                let is_new = *monitored != subject;
                *monitored = subject;
                is_new
            });
            // Last: what was collected has made room.
            self.catch_up().await?;
        }
        self.report(Some(&disk), None);
        Ok(())
    }

    /// Returns the releases that the order, a release beside the live one, or the way back need.
    fn needed(&self) -> HashSet<Digest> {
        let Some(AppState { wanted, standing, .. }) = &self.state else { return HashSet::new() };
        let beside = standing.beside.as_ref().map(|beside| beside.release.package);
        let before = standing.arrival.as_ref().and_then(|arrival| Some(arrival.from.as_ref()?.package));
        wanted.package().into_iter().chain(beside).chain(before).collect()
    }

    fn live_slot(&self) -> Option<String> {
        self.state.as_ref().and_then(|state| state.standing.slot.clone())
    }

    /// Begins the marks of everything this application runs.
    fn scope(&self) -> String {
        hook::scope(&self.dir)
    }
}

async fn load(dir: AppDir) -> Result<Option<AppState>, OpenError> {
    let loaded = tokio::task::spawn_blocking(move || AppState::load(&dir.state())).await;
    Ok(loaded.map_err(io::Error::other)??)
}

/// Runs short work that touches the disk on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
