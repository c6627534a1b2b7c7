//! The most anonymous memory that a process holds over a while, sampled by a thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::lab::memory_of;

/// Between two samples: the largest frames take longer than this to decode.
const INTERVAL: Duration = Duration::from_millis(8);

/// Samples until it is stopped.
pub(in crate::show::transfer) struct Sampler {
    ended: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Sampler {
    /// Begins to sample a process.
    pub(in crate::show::transfer) fn start(process: u32) -> Self {
        let (ended, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (ended, peak) = (ended.clone(), peak.clone());
            move || {
                while !ended.load(Ordering::Relaxed) {
                    // A process that has ended holds nothing more.
                    let anonymous = memory_of(process).map_or(0, |memory| memory.anonymous);
                    peak.fetch_max(anonymous, Ordering::Relaxed);
                    // The interval of a measurement, not a wait for a condition.
                    std::thread::sleep(INTERVAL);
                }
            }
        });
        Self { ended, peak, thread }
    }

    /// Ends the sampling and returns the peak in bytes.
    pub(in crate::show::transfer) fn stop(self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        // A sampler that panicked has no figure to offer, which shows as 0 and fails its line.
        let joined = self.thread.join();
        if joined.is_ok() { self.peak.load(Ordering::Relaxed) } else { 0 }
    }
}
