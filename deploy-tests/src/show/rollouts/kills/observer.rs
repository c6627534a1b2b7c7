//! Looks at the agents from outside, all the time: how many hosts are out at one moment, as their own states have it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use fs_err as fs;

use super::{APP, BUDGET};
use crate::lab::Lab;
use crate::show::board::Board;

/// Looks at the states of all agents all the time.
pub(super) struct Observer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    states: Vec<PathBuf>,
    looks: AtomicUsize,
    /// The most hosts that were out at one moment.
    most: AtomicUsize,
    stop: AtomicBool,
}

impl Observer {
    pub(super) fn start(lab: &Lab) -> Self {
        let states = lab.hosts().iter().map(|host| host.app_dir(APP).join("state.toml")).collect();
        let shared = Arc::new(Shared { states, ..Shared::default() });
        let all = shared.clone();
        let thread = std::thread::spawn(move || {
            let mut before = all.scan();
            while !all.stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
                let now = all.scan();
                all.judge(&before, &now);
                before = now;
            }
        });
        Self { shared, thread: Some(thread) }
    }

    pub(super) fn show(mut self, board: &mut Board) -> Result<()> {
        self.stop();
        let most = self.shared.most.load(Ordering::Relaxed);
        let looks = self.shared.looks.load(Ordering::Relaxed);
        let figure = format!("{most} at most, {looks} looks");
        // Fewer would mean that the looks were too few to see anything.
        let holds = (2..=BUDGET).contains(&most);
        board.line("  hosts out at once, by their own states", &figure, &format!("{BUDGET}"), holds);
        Ok(())
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in the observer has been printed by its own thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Returns for each host the order that has it out, if one has.
    fn scan(&self) -> Vec<Option<i64>> {
        self.states.iter().map(|path| out_for(path)).collect()
    }

    /// Counts the hosts that the same order had out in two scans: it had them out in between too, all at one moment.
    fn judge(&self, before: &[Option<i64>], now: &[Option<i64>]) {
        let out = before.iter().zip(now).filter(|(before, now)| before.is_some() && before == now).count();
        self.most.fetch_max(out, Ordering::Relaxed);
        self.looks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns the generation of the order for which a host is out, as its state says.
fn out_for(state: &Path) -> Option<i64> {
    let state: toml::Table = fs::read_to_string(state).ok()?.parse().ok()?;
    let phase = state.get("progress")?.get("phase")?.as_str()?;
    matches!(phase, "switching" | "validating" | "reverting")
        .then(|| state.get("generation")?.as_integer())?
}
