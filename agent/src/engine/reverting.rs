//! Steps of going back. Each goes on whatever the one before it came to, because the predecessor is to run again; what went
//! wrong is added to the reason.

use std::io;

use tokio_util::sync::CancellationToken;

use super::deeds::Told;
use super::{Engine, blocking};
use crate::clock::BootTime;
use crate::content::Origin;
use crate::hook;
use crate::planner::Cause;
use crate::sequence::{self, BackStep, SwitchStep};
use crate::state::{AppState, Beside, HookRun, Progress, Switch};

impl<O: Origin> Engine<O> {
    pub(super) async fn begin_revert(&mut self, cause: Cause) -> io::Result<()> {
        let at = match self.state.as_ref().map(|state| &state.progress) {
            Some(Progress::Switching { at, .. }) => *at,
            Some(Progress::Validating { bake_until: Some(_), .. }) => SwitchStep::Bake,
            Some(_) | None => SwitchStep::Validate,
        };
        let reason = match cause {
            Cause::Interrupted(run) => {
                let interruption = run.interruption();
                blocking(move || {
                    hook::end_marked(&run.id);
                    Ok(())
                })
                .await?;
                interruption
            }
            Cause::Deadline => "not healthy by the deadline, which passed while the agent was away".into(),
            Cause::Unconfirmed => "healthy, but not confirmed by the coordinator in time".into(),
            Cause::Rebooted => "the host was booted while the release was being validated".into(),
        };
        self.revert(at, reason, None).await
    }

    /// Takes a step of going back.
    pub(super) async fn back_step(&mut self, at: BackStep, token: &CancellationToken) -> io::Result<()> {
        let Some(switch) = self.switch() else { return Ok(()) };
        let Some(deed) = at.deed() else { return self.link_back(switch).await };
        let journal = |hook, switch| Progress::Reverting { at, hook, switch };
        match self.tell_release(deed, &switch, journal, token).await? {
            Told::Done { .. } => self.after_back_step(at, None).await,
            Told::Failed { reason, .. } => self.after_back_step(at, Some(reason)).await,
            Told::Later | Told::Interrupted => Ok(()),
        }
    }

    /// Passes over a hook that a restart interrupted: what it did is unknown, so it is not run again.
    pub(super) async fn skip_hook(&mut self, at: BackStep, run: &HookRun) -> io::Result<()> {
        let id = run.id.clone();
        blocking(move || {
            hook::end_marked(&id);
            Ok(())
        })
        .await?;
        self.after_back_step(at, Some(run.interruption())).await
    }

    async fn after_back_step(&mut self, at: BackStep, trouble: Option<String>) -> io::Result<()> {
        if at == BackStep::StopCandidate {
            self.point_candidate(None).await?;
        }
        self.step_back(at, |state| {
            if at == BackStep::StopCandidate {
                state.standing.beside = None;
            }
            if let Some(trouble) = trouble {
                let reason = state.reason.take().map(|reason| format!("{reason}; ")).unwrap_or_default();
                state.reason = Some(format!("{reason}on the way back {trouble}"));
            }
        })
        .await
    }

    /// Goes on to the step back after `at`; what that one changed is written with it.
    async fn step_back(&mut self, at: BackStep, change: impl FnOnce(&mut AppState)) -> io::Result<()> {
        let Some(switch) = self.switch() else { return Ok(()) };
        let switch = Switch { tries: 0, ..switch };
        if let Some(next) = sequence::after(&switch.back, at) {
            let journal = |hook, switch| Progress::Reverting { at: next, hook, switch };
            return self.enter_step(next.deed(), switch, journal, change).await;
        }
        self.change(|state| {
            change(state);
            // Where there was no more than a candidate, what was live was never touched.
            let was_beside = switch.back == [BackStep::StopCandidate];
            state.progress = if was_beside { Progress::Failed } else { Progress::Reverted };
        })
        .await?;
        self.settle().await
    }

    async fn link_back(&mut self, switch: Switch) -> io::Result<()> {
        let state = self.state.as_ref().expect("a step is performed on an accepted order");
        let why = format!("reverted: {}", state.reason.as_deref().unwrap_or("the switch failed"));
        let links = (switch.predecessor.clone(), switch.previous.clone());
        self.move_links(links, &self.wanted_release(), &why).await?;
        let beside = match self.wanted_release() {
            Some(release) if switch.is_parallel() => {
                let slot = switch.new_slot.clone();
                Some(Beside { release, slot, since: BootTime::now()?, hook: None })
            }
            Some(_) | None => None,
        };
        self.step_back(BackStep::LinkBack, |state| {
            (state.standing.slot, state.standing.beside) = (switch.old_slot, beside);
        })
        .await
    }
}
