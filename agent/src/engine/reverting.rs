//! Steps of going back: stop the new, move the links back, start the old. Each goes on whatever the one before it came
//! to, because the predecessor is to run again; what went wrong is added to the reason.

use std::io;

use tokio_util::sync::CancellationToken;

use super::hooks::Event;
use super::{Engine, blocking};
use crate::content::Origin;
use crate::hook::{self, End};
use crate::planner::Cause;
use crate::state::{HookRun, Progress, RevertAt, SwitchAt};

impl<O: Origin> Engine<O> {
    pub(super) async fn begin_revert(&mut self, cause: Cause) -> io::Result<()> {
        let at = match self.state.as_ref().map(|state| &state.progress) {
            Some(Progress::Switching { at, .. }) => *at,
            Some(_) | None => SwitchAt::StartNew,
        };
        let reason = match cause {
            Cause::Interrupted(run) => {
                let interrupted = interrupted(&run);
                blocking(move || Ok(hook::end_marked(&run.id))).await?;
                interrupted
            }
            Cause::Deadline => "not healthy by the deadline, which passed while the agent was away".into(),
            Cause::Rebooted => "the host was booted while the release was being validated".into(),
        };
        self.revert(at, reason, None).await
    }

    pub(super) async fn revert_hook(&mut self, at: RevertAt, token: &CancellationToken) -> io::Result<()> {
        let Some(switch) = self.switch() else { return Ok(()) };
        let (event, release, previous) = match at {
            RevertAt::StopNew => (Event::Stop, self.wanted_release(), switch.predecessor.as_ref()),
            RevertAt::StartOld => (Event::Start, switch.predecessor.clone(), switch.previous.as_ref()),
            RevertAt::LinkBack => return Ok(()),
        };
        let Some(release) = release else { return self.after_revert_hook(at, None).await };
        let name = format!("{} of {}", event.as_str(), release.version);
        let spec = match self.spec(&release).await {
            Ok(spec) => spec,
            Err(error) => return self.after_revert_hook(at, Some(format!("hook {name}: {error}"))).await,
        };
        let Some(call) = self.call(event, &release, &spec, previous) else {
            return self.after_revert_hook(at, None).await;
        };
        let run = HookRun { name: name.clone(), id: call.id.clone() };
        self.change(|state| state.progress = Progress::Reverting { at, hook: Some(run), switch }).await?;
        let ended = self.run(&call, token).await;
        self.host.crash.pass()?;
        match ended.end {
            End::Succeeded => self.after_revert_hook(at, None).await,
            End::Failed(reason) => self.after_revert_hook(at, Some(format!("hook {name} {reason}"))).await,
            // The journal keeps the run: it is not known what it did.
            End::Interrupted => Ok(()),
        }
    }

    /// Passes over a hook that a restart interrupted: what it did is unknown, so it is not run again.
    pub(super) async fn skip_hook(&mut self, at: RevertAt, run: &HookRun) -> io::Result<()> {
        let id = run.id.clone();
        blocking(move || Ok(hook::end_marked(&id))).await?;
        self.after_revert_hook(at, Some(interrupted(run))).await
    }

    async fn after_revert_hook(&mut self, at: RevertAt, trouble: Option<String>) -> io::Result<()> {
        let Some(switch) = self.switch() else { return Ok(()) };
        self.change(|state| {
            state.progress = match at {
                RevertAt::StopNew => Progress::Reverting { at: RevertAt::LinkBack, hook: None, switch },
                RevertAt::LinkBack => Progress::Reverting { at: RevertAt::StartOld, hook: None, switch },
                RevertAt::StartOld => Progress::Reverted,
            };
            if let Some(trouble) = trouble {
                let reason = state.reason.take().map(|reason| format!("{reason}; ")).unwrap_or_default();
                state.reason = Some(format!("{reason}on the way back {trouble}"));
            }
        })
        .await?;
        if self.switch().is_none() {
            self.settle().await?;
        }
        Ok(())
    }

    pub(super) async fn link_back(&mut self) -> io::Result<()> {
        let Some(switch) = self.switch() else { return Ok(()) };
        let state = self.state.as_ref().expect("a step is performed on an accepted order");
        let why = format!("reverted: {}", state.reason.as_deref().unwrap_or("the switch failed"));
        let links = (switch.predecessor.clone(), switch.previous.clone());
        self.move_links(links, &self.wanted_release(), &why).await?;
        self.after_revert_hook(RevertAt::LinkBack, None).await
    }
}

fn interrupted(run: &HookRun) -> String {
    format!("hook {} was interrupted by a restart of the agent, and is not run again", run.name)
}
