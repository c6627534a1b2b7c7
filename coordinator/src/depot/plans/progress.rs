//! How far plans in the making are, and the CPU that they took.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Frames that are done, of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Frames that are stored.
    pub(super) done: u32,
    /// All of them; zero while the plan is being decided.
    pub(super) frames: u32,
}

/// A plan in the making: encoders write, onlookers read.
#[derive(Debug, Default)]
pub(super) struct Making {
    done: AtomicU32,
    frames: AtomicU32,
    cpu_micros: AtomicU64,
    is_abandoned: AtomicBool,
}

thread_local! {
    /// CPU of this thread that was counted already.
    static COUNTED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

impl Making {
    /// Returns how far it is.
    pub(super) fn progress(&self) -> Progress {
        Progress { done: self.done.load(Ordering::Relaxed), frames: self.frames.load(Ordering::Relaxed) }
    }

    /// Returns the CPU that its frames took so far, to a millisecond.
    pub(super) fn cpu(&self) -> Duration {
        Duration::from_micros(self.cpu_micros.load(Ordering::Relaxed))
    }

    /// Tells the encoders that nobody wants the plan any more: they end with the frame at hand.
    pub(super) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    /// Says whether nobody wants the plan any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }

    /// Notes how many frames there are.
    pub(super) fn begin(&self, frames: usize) {
        self.frames.store(u32::try_from(frames).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Notes that the calling thread has finished a frame: what it has computed since the last one counts.
    pub(super) fn frame_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        let now = thread_cpu();
        let spent = now.saturating_sub(COUNTED.replace(now));
        self.cpu_micros.fetch_add(spent.as_micros() as u64, Ordering::Relaxed);
    }
}

/// Returns the CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
