//! Tells a release to do something: by its hook where it has one, else by the built-in action.
//!
//! A hook is written down before it starts, so that one which the agent's own end interrupts is never run again. Actions are
//! not: they may be repeated, and after a restart they are.

use std::io;
use std::time::Duration;

use sluice_common::caps;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::instance::Instance;
use crate::content::Origin;
use crate::hook::{self, Call, End, Ended};
use crate::sequence::{Event, Whose};
use crate::state::{AppState, HookRun, Progress, Switch};

/// How what a release was told to do ended.
#[derive(Debug)]
pub(super) enum Told {
    /// It was done; of a hook, the last line that it printed.
    Done { last_line: Option<String> },
    /// It is to be told again.
    Later,
    /// It failed; in words, and what was printed.
    Failed { reason: String, output: Option<String> },
    /// The agent stops, or something newer is wanted.
    Interrupted,
}

/// A hook that is about to be started.
#[derive(Debug)]
pub(super) struct Poised {
    pub(super) run: HookRun,
    call: Call,
}

/// First delay before a hook that asks for it is run again; doubled each time.
const LATER_DELAY_MIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1_000 });

impl<O: Origin> Engine<O> {
    /// Tells the release that a step speaks to. `journal` makes the progress with the hook that runs.
    pub(super) async fn tell_release(
        &mut self,
        (event, whose): (Event, Whose),
        switch: &Switch,
        journal: impl Fn(Option<HookRun>, Switch) -> Progress,
        token: &CancellationToken,
    ) -> io::Result<Told> {
        if self.is_agent() {
            return Ok(self.tell_agent(event, whose, switch, token).await);
        }
        if let Some(poised) = self.poised.take() {
            // The file says so since the step was entered.
            if let Some(state) = &mut self.state {
                state.progress = journal(Some(poised.run.clone()), switch.clone());
            }
            return self.run_journalled(poised, switch, journal, token).await;
        }
        let instance = match self.instance_of(whose, switch).await {
            Ok(Some(instance)) => instance,
            Ok(None) => return Ok(Told::Done { last_line: None }),
            Err(error) => {
                let version = self.addressee(whose, switch).map(|release| release.version.to_string());
                let of = version.map(|version| format!(" of {version}")).unwrap_or_default();
                let reason = format!("{}{of}: {error}", event.as_str());
                return Ok(Told::Failed { reason, output: None });
            }
        };
        let Some(poised) = self.poised_of(event, &instance, switch) else {
            return Ok(self.act(event, &instance, switch, token).await);
        };
        let progress = journal(Some(poised.run.clone()), switch.clone());
        self.change(|state| state.progress = progress).await?;
        self.run_journalled(poised, switch, journal, token).await
    }

    async fn run_journalled(
        &mut self,
        Poised { run, call }: Poised,
        switch: &Switch,
        journal: impl Fn(Option<HookRun>, Switch) -> Progress,
        token: &CancellationToken,
    ) -> io::Result<Told> {
        let ended = self.run(&call, token).await;
        self.host.crash.pass()?;
        match judge(&run.name, ended, switch.tries) {
            Told::Later => {
                let tries = switch.tries + 1;
                let progress = journal(None, Switch { tries, ..switch.clone() });
                self.change(|state| state.progress = progress).await?;
                wait_before_try(tries, token).await;
                Ok(Told::Later)
            }
            told => Ok(told),
        }
    }

    fn poised_of(&self, event: Event, instance: &Instance, switch: &Switch) -> Option<Poised> {
        let call = self.call(event, instance, switch.snapshot.as_deref())?;
        let name = format!("{} of {}", event.as_str(), instance.release.version);
        Some(Poised { run: HookRun { name, id: call.id.clone() }, call })
    }

    /// Returns the hook that a step begins with; nothing where it has none, or where its release cannot be read, which the
    /// step itself will say.
    async fn poise(&self, deed: Option<(Event, Whose)>, switch: &Switch) -> Option<Poised> {
        let (event, whose) = deed.filter(|_| !self.is_agent())?;
        let instance = self.instance_of(whose, switch).await.ok()??;
        self.poised_of(event, &instance, switch)
    }

    /// Goes on to a step, and writes down the hook that it begins with in the same breath: one write of state a hook. Until it
    /// is started memory holds that it was not; a crash before that is taken as one while it ran.
    pub(super) async fn enter_step(
        &mut self,
        deed: Option<(Event, Whose)>,
        switch: Switch,
        journal: impl Fn(Option<HookRun>, Switch) -> Progress,
        change: impl FnOnce(&mut AppState),
    ) -> io::Result<()> {
        let poised = self.poise(deed, &switch).await;
        let run = poised.as_ref().map(|poised| poised.run.clone());
        self.change(|state| {
            change(state);
            state.progress = journal(run, switch.clone());
        })
        .await?;
        if let Some(state) = &mut self.state {
            state.progress = journal(None, switch);
        }
        self.poised = poised;
        Ok(())
    }

    /// Runs a hook and shortens its output to what a report carries.
    pub(super) async fn run(&self, call: &Call, token: &CancellationToken) -> Ended {
        let event = &call.environment["LIFECYCLE_EVENT"];
        tracing::info!(app = %self.app, event, "hook begins");
        let began = tokio::time::Instant::now();
        let mut ended = hook::run(call, token).await;
        ended.output = hook::shorten(&ended.output, caps::REPORT_OUTPUT_BYTES_MAX);
        tracing::info!(app = %self.app, event, end = ?ended.end,
            elapsed_ms = began.elapsed().as_millis() as u64, "hook ended");
        ended
    }
}

/// Says what the end of a hook means that had asked so many times to be tried later.
pub(super) fn judge(name: &str, ended: Ended, tries: u32) -> Told {
    let failed = |reason: String| Told::Failed {
        reason: format!("hook {name} {reason}"),
        output: Some(ended.output.clone()),
    };
    match ended.end {
        End::Succeeded => Told::Done { last_line: ended.last_line },
        End::Failed(reason) => failed(reason),
        End::TryLater if tries + 1 < caps::HOOK_TRIES_MAX => Told::Later,
        End::TryLater => failed(format!("asked {} times to be tried later", caps::HOOK_TRIES_MAX)),
        // The journal keeps the run: it is not known what it did.
        End::Interrupted => Told::Interrupted,
    }
}

/// Waits before a hook is run again that has asked for it `tries` times.
pub(super) async fn wait_before_try(tries: u32, token: &CancellationToken) {
    let delay =
        LATER_DELAY_MIN.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(caps::HOOK_LATER_MAX);
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = token.cancelled() => {}
    }
}
