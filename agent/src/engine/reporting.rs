//! What the engine tells: a line in the log where the phase changes, and a report on the board, made from the state and the disk.

use std::io;
use std::time::Duration;

use sluice_common::order::{Order, Phase, Report};

use super::Engine;
use crate::content::{Origin, chain};
use crate::observe::Disk;
use crate::state::{AppState, Cost};

impl<O: Origin> Engine<O> {
    pub(super) fn tell(&self, phase: Phase) {
        let state = self.state.as_ref().expect("it was just stored");
        let (app, generation) = (&self.app, state.generation.0);
        match (phase, &state.reason) {
            (Phase::Reverting | Phase::Reverted | Phase::Failed, Some(reason)) => {
                tracing::warn!(app = %app, generation, phase = phase.as_str(), reason, "phase changed");
            }
            _ => tracing::info!(app = %app, generation, phase = phase.as_str(), "phase changed"),
        }
    }

    /// Puts up what keeps this application from going on: with `order`, that it cannot be accepted yet. Neither is an end of an
    /// order, and nothing of it is written down: it is told anew after a restart, if it lasts.
    pub(crate) async fn tell_trouble(&self, order: Option<&Order>, error: &io::Error) {
        let reason = trouble(error);
        let newer =
            order.filter(|order| self.state.as_ref().is_none_or(|state| order.generation > state.generation));
        let disk = self.observe().await.ok();
        match (newer, &self.state) {
            (Some(order), _) => self.host.board.publish(Report {
                sequence: u64::from(self.starts) << 32,
                current: disk.as_ref().and_then(|disk| disk.current.installed().cloned()),
                previous: disk.as_ref().and_then(|disk| disk.previous.installed().cloned()),
                ..answer(order, Phase::Fetching, &reason)
            }),
            (None, Some(state)) => {
                let state = AppState { reason: Some(reason), ..state.clone() };
                self.put_up(&state, disk.as_ref(), None, state.cost, None);
            }
            (None, None) => {}
        }
    }

    /// Puts up a report of how things stand; `healthy` where that is known here.
    pub(crate) async fn publish(&self, healthy: Option<bool>) -> io::Result<()> {
        let disk = self.observe().await?;
        self.report(Some(&disk), healthy);
        Ok(())
    }

    pub(super) fn report(&self, disk: Option<&Disk>, healthy: Option<bool>) {
        self.report_with(
            disk,
            healthy,
            self.state.as_ref().map(|state| state.cost).unwrap_or_default(),
            None,
        );
    }

    pub(super) fn report_with(
        &self,
        disk: Option<&Disk>,
        healthy: Option<bool>,
        cost: Cost,
        fetched: Option<u64>,
    ) {
        if let Some(state) = &self.state {
            self.put_up(state, disk, healthy, cost, fetched);
        }
    }

    fn put_up(
        &self,
        state: &AppState,
        disk: Option<&Disk>,
        healthy: Option<bool>,
        cost: Cost,
        fetched: Option<u64>,
    ) {
        self.host.board.publish(Report {
            app: self.app.clone(),
            generation: state.generation,
            sequence: u64::from(state.starts) << 32,
            phase: state.progress.phase(),
            current: disk.and_then(|disk| disk.current.installed().cloned()),
            previous: disk.and_then(|disk| disk.previous.installed().cloned()),
            healthy,
            reason: state.reason.clone(),
            hook_output: state.hook_output.clone(),
            fetched_bytes: fetched.unwrap_or(cost.plan_bytes),
            fetch_total_bytes: cost.plan_bytes,
            wire_bytes: cost.wire_bytes,
            stage_time: Duration::from_micros(cost.stage_us),
            switch_time: Duration::from_micros(cost.switch_us),
            drift: self.drift.report(),
        });
    }
}

/// Says what keeps an application from going on, and what is to be done about it.
pub(crate) fn trouble(error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on its disk",
        io::ErrorKind::ReadOnlyFilesystem => "see why its file system is read-only, and mount it writable",
        _ => "see that the agent can write to its directory, and what the kernel's log says of its disk",
    };
    format!("waits for its disk: {}; {remedy}; it is tried again until then", chain(error))
}

/// Answers an order of which nothing is known but how it stands, and why.
pub(crate) fn answer(order: &Order, phase: Phase, reason: &str) -> Report {
    Report {
        app: order.app.clone(),
        generation: order.generation,
        sequence: 0,
        phase,
        current: None,
        previous: None,
        healthy: None,
        reason: Some(reason.to_owned()),
        hook_output: None,
        fetched_bytes: 0,
        fetch_total_bytes: 0,
        wire_bytes: 0,
        stage_time: Duration::ZERO,
        switch_time: Duration::ZERO,
        drift: None,
    }
}
