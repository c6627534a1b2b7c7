//! What runs beside the live release: a candidate is validated there, and what nobody wants there is stopped.

use std::io;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deeds::{Told, judge};
use super::{Engine, blocking};
use crate::content::Origin;
use crate::health::reach;
use crate::hook;
use crate::sequence::{Event, SwitchStep, Whose};
use crate::state::{Beside, HookRun, Progress, Switch};

impl<O: Origin> Engine<O> {
    /// Sees whether the candidate is healthy in its slot, bears its load, and is no worse than what is live.
    pub(super) async fn validate_candidate(
        &mut self,
        switch: Switch,
        token: &CancellationToken,
    ) -> io::Result<()> {
        let at = SwitchStep::ValidateCandidate;
        let Some(instance) = self.instance_of(Whose::New, &switch).await? else { return Ok(()) };
        let subject = self.subject(&instance);
        let reached = tokio::select! {
            reached = async {
                reach(&subject, Instant::now() + instance.spec.gate.deadline).await?;
                self.bear_load(&instance, &switch).await
            } => reached,
            () = token.cancelled() => return Ok(()),
        };
        self.end_checks(&instance).await?;
        match reached {
            Ok(()) => self.proceed(at, switch, |_| {}).await,
            Err(reason) => self.revert(at, format!("the candidate is {reason}"), None).await,
        }
    }

    /// Has the candidate started anew: the host was booted since.
    pub(super) async fn renew_candidate(&mut self) -> io::Result<()> {
        self.change(|state| state.progress = Progress::Staged).await
    }

    /// Stops what runs beside the live release.
    pub(super) async fn drop_beside(&mut self, beside: Beside, token: &CancellationToken) -> io::Result<()> {
        let trouble = match beside.hook {
            Some(run) => {
                let interruption = run.interruption();
                blocking(move || {
                    hook::end_marked(&run.id);
                    Ok(())
                })
                .await?;
                Some(interruption)
            }
            None => match self.stop_beside(beside, token).await? {
                Told::Done { .. } => None,
                Told::Failed { reason, .. } => Some(reason),
                Told::Later | Told::Interrupted => return Ok(()),
            },
        };
        if let Some(trouble) = trouble {
            tracing::warn!(app = %self.app, trouble, "what ran beside the live release was not ended well");
        }
        self.point_candidate(None).await?;
        self.change(|state| state.standing.beside = None).await?;
        self.settle().await
    }

    async fn stop_beside(&mut self, beside: Beside, token: &CancellationToken) -> io::Result<Told> {
        let (release, slot) = (beside.release.clone(), beside.slot.clone());
        let instance = match self.instance(release, slot, None).await {
            Ok(instance) => instance,
            Err(error) => return Ok(Told::Failed { reason: error.to_string(), output: None }),
        };
        let Some(call) = self.call(Event::Stop, &instance, None) else {
            return Ok(self.act(Event::Stop, &instance, &Switch::plain(None), token).await);
        };
        let name = format!("{} of {}", Event::Stop.as_str(), beside.release.version);
        let hook = Some(HookRun { name: name.clone(), id: call.id.clone() });
        self.change(|state| state.standing.beside = Some(Beside { hook, ..beside })).await?;
        let ended = self.run(&call, token).await;
        self.host.crash.pass()?;
        // It is on its way out: whatever it says, it is not asked again.
        Ok(judge(&name, ended, u32::MAX - 1))
    }
}
