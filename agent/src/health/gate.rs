//! The gate of a switch: every check reaches its successes in a row before the deadline, and then keeps holding.

use std::sync::Arc;
use std::time::Duration;

use sluice_common::units::format_duration;
use tokio::time::Instant;

use super::{Streaks, Subject, Watcher};

/// Waits until every check of `subject` has its successes in a row; the error says which has not by the deadline.
/// Cancel-safe.
pub(crate) async fn reach(subject: &Arc<Subject>, deadline: Instant) -> Result<(), String> {
    let mut streaks = Streaks::new(&subject.checks);
    let mut watcher = Watcher::new(subject.clone(), Duration::ZERO);
    let began = Instant::now();
    while !streaks.all_hold() {
        match tokio::time::timeout_at(deadline, watcher.next()).await {
            Ok((check, answer)) => streaks.count(check, answer),
            Err(_) => {
                return Err(format!(
                    "not healthy after {}: {}",
                    format_duration(began.elapsed()),
                    streaks.complaint()
                ));
            }
        }
    }
    Ok(())
}

/// How a bake ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Baked {
    /// Every check kept holding.
    Held,
    /// One did not; in words.
    Broke(String),
}

/// Sees that every check keeps holding until `until`. Cancel-safe.
pub(crate) async fn bake(subject: &Arc<Subject>, until: Instant) -> Baked {
    let mut watcher = Watcher::new(subject.clone(), Duration::ZERO);
    loop {
        match tokio::time::timeout_at(until, watcher.next()).await {
            Ok((_, Ok(()))) => {}
            Ok((_, Err(reason))) => return Baked::Broke(format!("did not stay healthy: {reason}")),
            Err(_) => return Baked::Held,
        }
    }
}
