//! Following a rollout: every change as it happens, until it ends, pauses, or the watcher leaves.
//!
//! [`follow`] owns the stream and its reconnects; what is shown is pure: [`render`] makes the live view, [`changes`]
//! the lines and events, [`summary`] the table at the end. Leaving never changes the rollout.

mod changes;
mod live;
mod render;
mod reporter;
#[cfg(test)]
mod samples;
mod summary;

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use sluice_common::units::format_duration;
use sluice_proto::v1;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::Streaming;
use v1::rollouts_client::RolloutsClient;

use super::Context;
use super::connect::Coordinator;
use super::error::{context as advice, insist};
use super::exit::Exit;
use super::pages;
use super::push::is_broken;
use super::view::rollout::{Rollout, State};
use reporter::Reporter;

/// Longest time without a coordinator before watching gives up; longer than one takes to be replaced.
const OUTAGE_MAX: Duration = Duration::from_secs(300);
/// Delay between attempts to reach the coordinator again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How often the live view moves by itself: elapsed time.
const REDRAW: Duration = Duration::from_secs(1);

/// What the watcher hopes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Every host gets the release.
    Update,
    /// Every host that switched gets back what it had: the operator asked for it.
    RollBack,
}

/// What is to be watched, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch<'a> {
    pub(super) id: &'a str,
    pub(super) goal: Goal,
    pub(super) timeout: Option<Duration>,
    /// The revision that the watcher's own command made: what is older is no news, least of all an end.
    pub(super) since_revision: u64,
}

/// Says how watching ends in `state`; nothing while the rollout goes on.
fn exit_for(state: State, goal: Goal) -> Option<Exit> {
    match (state, goal) {
        (State::Running | State::RollingBack | State::Unknown, _) => None,
        (State::Succeeded, Goal::Update) | (State::RolledBack, Goal::RollBack) => Some(Exit::Success),
        (State::RolledBack, Goal::Update) => Some(Exit::RolledBack),
        (State::Paused | State::Failed | State::Aborted, _) | (State::Succeeded, Goal::RollBack) => {
            Some(Exit::Unfinished)
        }
    }
}

/// What ended one connection's watching.
enum Ended {
    Exit(Exit),
    Broken(anyhow::Error),
}

/// Watches a rollout and says how it ended.
pub(super) async fn follow(
    context: &Context,
    coordinator: &Coordinator,
    watch: Watch<'_>,
) -> anyhow::Result<Exit> {
    let Watch { id, goal, timeout, since_revision } = watch;
    // Without a limit: a moment that no watcher lives to see.
    let limit = timeout.unwrap_or(Duration::from_secs(10 * 365 * 24 * 3600));
    let deadline = Instant::now() + limit;
    let mut watcher = Watcher {
        reporter: Reporter::new(context.output),
        goal,
        since_revision,
        last: None,
        heard: Instant::now(),
    };
    let left = tokio::select! {
        biased;
        pressed = tokio::signal::ctrl_c() => {
            pressed.context("cannot listen for ctrl-C")?;
            (Exit::Detached, "detached".to_owned())
        }
        done = timeout_at(deadline, watcher.run(coordinator, id)) => match done {
            Ok(done) => return done,
            Err(_) => (Exit::TimedOut, format!("--timeout {} reached", format_duration(limit))),
        },
    };
    let (exit, why) = left;
    watcher.reporter.leave(watcher.last.as_ref(), exit)?;
    context
        .output
        .note(format_args!("{why}; the rollout goes on. Watch it again: sluice rollout watch {id}"));
    Ok(exit)
}

/// Formats a rollout with all its hosts, for `rollout show`.
pub(super) fn full_text(rollout: &Rollout, now: Timestamp) -> String {
    let view = render::render(rollout, now, render::Hosts::None);
    let head: String = view.iter().map(|line| format!("{}\n", line.text)).collect();
    format!("{head}\n{}", summary::text(rollout))
}

struct Watcher {
    reporter: Reporter,
    goal: Goal,
    since_revision: u64,
    last: Option<Rollout>,
    /// When the coordinator was last heard.
    heard: Instant,
}

impl Watcher {
    async fn run(&mut self, coordinator: &Coordinator, id: &str) -> anyhow::Result<Exit> {
        let mut client = coordinator.rollouts();
        loop {
            let error = match self.connection(&mut client, id).await? {
                Ended::Exit(exit) => return Ok(exit),
                Ended::Broken(error) => error,
            };
            self.reporter.interrupted(self.last.as_ref());
            if self.heard.elapsed() >= OUTAGE_MAX {
                let hint = format!("the rollout itself goes on; watch it again: sluice rollout watch {id}");
                return Err(error.context(insist("the coordinator cannot be reached any more", hint)));
            }
            sleep(RETRY_DELAY).await;
            if let Ok(channel) = coordinator.redial().await {
                client = RolloutsClient::new(channel);
            }
        }
    }

    /// Watches over one connection.
    async fn connection(
        &mut self,
        client: &mut RolloutsClient<tonic::transport::Channel>,
        id: &str,
    ) -> anyhow::Result<Ended> {
        let request = v1::WatchRolloutRequest { id: id.to_owned() };
        let stream = match client.watch(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if is_broken(&status) => return Ok(Ended::Broken(status.into())),
            Err(status) => {
                let hint = "sluice rollout list shows what there is";
                return Err(status).with_context(|| advice(format!("cannot watch the rollout {id}"), hint));
            }
        };
        self.stream(stream).await
    }

    async fn stream(&mut self, mut stream: Streaming<v1::WatchRolloutResponse>) -> anyhow::Result<Ended> {
        // The pieces so far of a rollout that no single message has room for.
        let mut pieces: Option<v1::Rollout> = None;
        loop {
            let message = tokio::select! {
                biased;
                message = stream.message() => message,
                () = sleep_until(Instant::now() + REDRAW) => {
                    self.reporter.tick(self.last.as_ref());
                    continue;
                }
            };
            match message {
                Ok(Some(v1::WatchRolloutResponse { rollout: Some(rollout) })) => {
                    let whole = match pieces.take() {
                        Some(mut whole) => {
                            pages::join(&mut whole, rollout);
                            whole
                        }
                        None => rollout,
                    };
                    if whole.hosts_left > 0 {
                        pieces = Some(whole);
                        continue;
                    }
                    if let Some(exit) = self.take(whole.into())? {
                        return Ok(Ended::Exit(exit));
                    }
                }
                Ok(Some(v1::WatchRolloutResponse { rollout: None })) => {}
                Ok(None) => return Ok(Ended::Broken(anyhow::anyhow!("the coordinator ended the watch"))),
                Err(status) if is_broken(&status) => return Ok(Ended::Broken(status.into())),
                Err(status) => return Err(status.into()),
            }
        }
    }

    fn take(&mut self, rollout: Rollout) -> anyhow::Result<Option<Exit>> {
        self.heard = Instant::now();
        if rollout.revision < self.since_revision {
            return Ok(None);
        }
        let exit = exit_for(rollout.state, self.goal);
        self.reporter.update(self.last.as_ref(), &rollout)?;
        if let Some(exit) = exit {
            self.reporter.end(&rollout, exit)?;
        }
        self.last = Some(rollout);
        Ok(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_map_to_exit_codes() {
        let table = [
            (State::Unknown, None, None),
            (State::Running, None, None),
            (State::RollingBack, None, None),
            (State::Succeeded, Some(0), Some(4)),
            (State::RolledBack, Some(3), Some(0)),
            (State::Failed, Some(4), Some(4)),
            (State::Paused, Some(4), Some(4)),
            (State::Aborted, Some(4), Some(4)),
        ];
        for (state, update, roll_back) in table {
            let code = |goal| exit_for(state, goal).map(Exit::code);
            assert_eq!((code(Goal::Update), code(Goal::RollBack)), (update, roll_back), "{state:?}");
        }
    }
}
