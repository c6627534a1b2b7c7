//! Waiting for a run: what changes is told, and how it ends is the exit code.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use sluice_proto::v1;
use tokio::time::Instant;

use super::super::Context;
use super::super::connect::Coordinator;
use super::super::exit::Exit;
use super::super::output::one_line;
use super::super::view::environment::{Environment, State};
use super::{received, render};

/// Time between two questions.
const INTERVAL: Duration = Duration::from_millis(500);
/// How many times in a row a run has to say that it waits for a person: a step may be about to be taken.
const STUCK_TIMES: usize = 4;

/// Waits until a run ends, or needs a person.
pub(super) async fn follow(
    context: &Context,
    coordinator: &Coordinator,
    mut environment: Environment,
    timeout: Option<Duration>,
) -> anyhow::Result<Exit> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut told = BTreeSet::new();
    let mut stuck = 0;
    let exit = loop {
        tell(context, &environment, &mut told);
        stuck = if environment.awaits_operator { stuck + 1 } else { 0 };
        if let Some(exit) = exit_for(&environment, stuck >= STUCK_TIMES) {
            break exit;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break Exit::TimedOut;
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot listen for ctrl-C")?;
                break Exit::Detached;
            }
        }
        let request = v1::GetEnvironmentRequest { name: environment.name.clone() };
        let answer = coordinator.environments().get(request).await?.into_inner();
        environment = received(answer.environment)?;
    };
    context.output.show(&environment, || render::environment(&environment))?;
    if matches!(exit, Exit::TimedOut | Exit::Detached) {
        context.output.note(format_args!("the run goes on; see: sluice env show {}", environment.name));
    }
    Ok(exit)
}

/// Returns how the command ends, if the run has come to an end or nothing goes on by itself.
fn exit_for(environment: &Environment, is_stuck: bool) -> Option<Exit> {
    match environment.state {
        State::Standing => Some(Exit::Success),
        State::RolledBack => Some(Exit::RolledBack),
        State::Stopped => Some(Exit::Unfinished),
        State::Applying | State::RollingBack if is_stuck => Some(Exit::Unfinished),
        State::Applying | State::RollingBack | State::Unknown => None,
    }
}

/// Tells what was not told yet.
fn tell(context: &Context, environment: &Environment, told: &mut BTreeSet<String>) {
    let rollouts = environment.apps.iter().flat_map(|app| {
        app.rollouts.iter().map(move |rollout| {
            let reason = rollout.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{} {}: {} {}{reason}", app.app, app.release, rollout.rollout, rollout.state)
        })
    });
    let stands = environment.apps.iter().filter(|app| app.stands);
    let stands = stands.map(|app| format!("{} {} stands", app.app, app.release));
    for line in rollouts.chain(stands).chain(environment.blockers.iter().map(|b| format!("waits: {b}"))) {
        if told.insert(line.clone()) {
            context.output.note(one_line(&line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_map_to_exit_codes() {
        let of = |state, is_stuck| {
            let message = v1::Environment::default();
            exit_for(&Environment { state, ..message.into() }, is_stuck).map(Exit::code)
        };
        for (state, moving, stuck) in [
            (State::Unknown, None, None),
            (State::Applying, None, Some(4)),
            (State::RollingBack, None, Some(4)),
            (State::Standing, Some(0), Some(0)),
            (State::Stopped, Some(4), Some(4)),
            (State::RolledBack, Some(3), Some(3)),
        ] {
            assert_eq!((of(state, false), of(state, true)), (moving, stuck), "{state:?}");
        }
    }
}
