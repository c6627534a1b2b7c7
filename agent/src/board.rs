//! The board of reports: the latest of each application, numbered as they change.
//!
//! Written by the applications' actors and monitors, read by the session. Level-triggered: a reader that was away sees
//! the latest state, never a backlog.

use std::collections::BTreeMap;

use sluice_common::name::AppName;
use sluice_common::order::{Phase, Report};
use tokio::sync::watch;

/// The latest report of each application. Cheap to clone; all clones are the same board.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    reports: watch::Sender<BTreeMap<AppName, Report>>,
}

impl Default for Board {
    fn default() -> Self {
        Self { reports: watch::Sender::new(BTreeMap::new()) }
    }
}

impl Board {
    /// Returns what changes are seen on.
    pub(crate) fn watch(&self) -> watch::Receiver<BTreeMap<AppName, Report>> {
        self.reports.subscribe()
    }

    /// Puts up a report. Its sequence is the least it may have; it grows with every change. Health is kept from the
    /// monitor while the same release stands in the same generation, unless the report says it.
    pub(crate) fn publish(&self, mut report: Report) {
        self.reports.send_if_modified(|reports| {
            if let Some(old) = reports.get(&report.app) {
                report.sequence = report.sequence.max(old.sequence);
                if report.healthy.is_none() && report.current == old.current && !is_moving(report.phase) {
                    report.healthy = old.healthy;
                }
                if *old == report {
                    return false;
                }
                report.sequence += 1;
            }
            reports.insert(report.app.clone(), report.clone());
            true
        });
    }

    /// Takes every report down.
    #[cfg(test)]
    pub(crate) fn clear(&self) {
        self.reports.send_replace(BTreeMap::new());
    }

    /// Tells the health of what runs; the error says what is wrong.
    pub(crate) fn set_health(&self, app: &AppName, health: Result<(), String>) {
        self.reports.send_if_modified(|reports| {
            let Some(report) = reports.get_mut(app) else { return false };
            if report.healthy == Some(health.is_ok()) {
                return false;
            }
            match &health {
                Ok(()) => tracing::info!(app = %app, "application is healthy"),
                Err(reason) => tracing::warn!(app = %app, reason, "application is not healthy"),
            }
            report.healthy = Some(health.is_ok());
            // The reason of a failed order is not overwritten by that of its predecessor's health.
            if report.phase == Phase::Active {
                report.reason = health.err();
            }
            report.sequence += 1;
            true
        });
    }
}

/// Says whether what runs is being changed, so that its health of before says nothing.
fn is_moving(phase: Phase) -> bool {
    match phase {
        Phase::Draining | Phase::Switching | Phase::Validating | Phase::Reverting => true,
        Phase::Fetching
        | Phase::Staged
        | Phase::Candidate
        | Phase::Active
        | Phase::Reverted
        | Phase::Failed => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_common::order::Generation;

    use super::*;

    fn report(phase: Phase) -> Report {
        Report {
            app: "shop".parse().unwrap(),
            generation: Generation(1),
            sequence: 1 << 32,
            phase,
            current: None,
            previous: None,
            healthy: None,
            reason: None,
            hook_output: None,
            fetched_bytes: 0,
            fetch_total_bytes: 0,
            wire_bytes: 0,
            stage_time: Duration::ZERO,
            switch_time: Duration::ZERO,
            drift: None,
        }
    }

    #[test]
    fn only_changes_are_numbered_and_told() {
        let board = Board::default();
        let mut watch = board.watch();
        let seen = |watch: &mut watch::Receiver<BTreeMap<AppName, Report>>| {
            let changed = watch.has_changed().unwrap();
            let report = watch.borrow_and_update().values().next().cloned().unwrap();
            (changed, report.sequence - (1 << 32), report.healthy)
        };
        let app = "shop".parse().unwrap();
        board.publish(report(Phase::Active));
        assert_eq!(seen(&mut watch), (true, 0, None));
        board.publish(report(Phase::Active));
        assert_eq!(seen(&mut watch), (false, 0, None));
        board.set_health(&app, Ok(()));
        assert_eq!(seen(&mut watch), (true, 1, Some(true)));
        board.set_health(&app, Ok(()));
        board.publish(report(Phase::Active));
        assert_eq!(seen(&mut watch), (false, 1, Some(true)));
        board.set_health(&app, Err("down".into()));
        assert_eq!(seen(&mut watch), (true, 2, Some(false)));
        board.publish(report(Phase::Switching));
        assert_eq!(seen(&mut watch), (true, 3, None));
    }
}
