//! Tells the service manager that the agent runs, and the guard that it has proved itself.
//!
//! One task. In: the session's connection (`watch`). Out: READY at its start and a sign of life at half of the watchdog's interval,
//! from the one thread that does everything, so that an agent which hangs is started anew.

use std::path::PathBuf;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::guard;
use crate::status::live::Connection;

/// Interval of signs of life that nobody asks for.
const UNASKED: Duration = Duration::from_secs(3600);

/// Tells until `token` is cancelled.
pub(crate) async fn tell(
    data: PathBuf,
    mut connection: watch::Receiver<Option<Connection>>,
    token: CancellationToken,
) {
    notify(&[NotifyState::Ready]);
    let watchdog = sd_notify::watchdog_enabled();
    let mut ticks = tokio::time::interval(watchdog.map_or(UNASKED, |interval| interval / 2));
    let proof = async {
        tokio::select! {
            _ = connection.wait_for(Option::is_some) => {}
            () = tokio::time::sleep(guard::PROVED_AFTER) => {}
        }
    };
    tokio::pin!(proof);
    let mut has_proved = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => if watchdog.is_some() {
                notify(&[NotifyState::Watchdog]);
            },
            () = &mut proof, if !has_proved => {
                has_proved = true;
                if let Err(error) = guard::prove(&data) {
                    tracing::warn!(%error, "that this agent runs cannot be noted");
                }
            }
            () = token.cancelled() => return,
        }
    }
}

/// Tells that the agent is about to end. One that gives way to another release does not end, to the service manager.
pub(crate) fn ends() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
