//! Checks what runs, for as long as it runs.
//!
//! One task per application, joined by its actor. In: the subject, by `watch` (nothing while a switch is under way, when
//! the gate asks instead). Out: [`Board::set_health`].

use std::sync::Arc;
use std::time::Duration;

use sluice_common::name::AppName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Streaks, Subject, Watcher};
use crate::board::Board;

/// Least time between two askings of one check: what runs is looked at slowly.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Failures in a row after which an application counts as unhealthy: one may be a restart or a lost packet.
const FAILURES: u32 = 2;

/// Checks what runs of one application.
pub(crate) struct Monitor {
    /// The application.
    pub(crate) app: AppName,
    /// What runs.
    pub(crate) subject: watch::Receiver<Option<Arc<Subject>>>,
    /// Where its health is told.
    pub(crate) board: Board,
}

impl Monitor {
    /// Runs until `token` is cancelled or the actor is gone.
    pub(crate) async fn run(self, token: CancellationToken) {
        let Self { app, mut subject, board } = self;
        loop {
            let now = subject.borrow_and_update().clone();
            tokio::select! {
                changed = subject.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = watch_subject(&app, &board, now) => {}
                () = token.cancelled() => return,
            }
        }
    }
}

/// Never ends; cancel-safe.
async fn watch_subject(app: &AppName, board: &Board, subject: Option<Arc<Subject>>) {
    let Some(subject) = subject else { return std::future::pending().await };
    if subject.checks.is_empty() {
        board.set_health(app, Ok(()));
    }
    let mut streaks = Streaks::new(&subject.checks);
    let mut watcher = Watcher::new(subject, INTERVAL_MIN);
    loop {
        let (check, answer) = watcher.next().await;
        streaks.count(check, answer);
        if streaks.all_hold() {
            board.set_health(app, Ok(()));
        } else if streaks.any_failed(FAILURES) {
            board.set_health(app, Err(streaks.complaint()));
        }
    }
}
