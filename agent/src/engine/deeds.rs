//! Tells a release to do something: by its hook where it has one, else by the built-in action.
//!
//! A hook is written down before it starts, so that one which the agent's own end interrupts is never run again. Actions are
//! not: they may be repeated, and after a restart they are.

use std::io;
use std::time::Duration;

use sluice_common::caps;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::content::Origin;
use crate::hook::{self, Call, End, Ended};
use crate::sequence::{Event, Whose};
use crate::state::{HookRun, Progress, Switch};

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
        let Some(call) = self.call(event, &instance, switch.snapshot.as_deref()) else {
            return Ok(self.act(event, &instance, switch, token).await);
        };
        let name = format!("{} of {}", event.as_str(), instance.release.version);
        let run = HookRun { name: name.clone(), id: call.id.clone() };
        let progress = journal(Some(run), switch.clone());
        self.change(|state| state.progress = progress).await?;
        let ended = self.run(&call, token).await;
        self.host.crash.pass()?;
        match judge(&name, ended, switch.tries) {
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
