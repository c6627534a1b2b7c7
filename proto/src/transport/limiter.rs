//! A token bucket that connections share: the async edge of [`sluice_common::pacing`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluice_common::pacing::{self, Bucket};
use sluice_common::units::ByteRate;
use tokio::time::Instant;

/// Longest sleep before the rate is looked at again, so that a change of limit is felt at once.
const RECHECK: Duration = Duration::from_millis(100);
/// Waits below the resolution of the timer are not slept; the bucket carries them over to the next grant.
const RESOLUTION: Duration = Duration::from_millis(1);

/// One shared limit. Cheap to clone; all clones are the same bucket.
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

struct Shared {
    started: Instant,
    bucket: Mutex<Bucket>,
}

impl Limiter {
    /// Makes a bucket; without a rate it makes nobody wait. Needs no runtime until it has to wait.
    pub fn new(rate: Option<ByteRate>) -> Self {
        let bucket = Mutex::new(Bucket::new(rate, Duration::ZERO));
        Self { shared: Arc::new(Shared { started: Instant::now(), bucket }) }
    }

    /// Changes the limit, for those who wait too.
    pub fn set_rate(&self, rate: Option<ByteRate>) {
        self.with(|bucket, now| bucket.set_rate(rate, now));
    }

    /// Returns the limit.
    pub fn rate(&self) -> Option<ByteRate> {
        self.with(|bucket, _| bucket.rate())
    }

    /// Waits until `bytes` may pass. Cancel-safe in that nothing blocks; a cancelled reservation is spent.
    async fn acquire(&self, bytes: u64) {
        let ticket = self.with(|bucket, now| bucket.reserve(bytes, now));
        loop {
            let wait = self.with(|bucket, now| bucket.wait(ticket, now));
            if wait < RESOLUTION {
                return;
            }
            tokio::time::sleep(wait.min(RECHECK)).await;
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Bucket, Duration) -> T) -> T {
        let now = self.shared.started.elapsed();
        // A bucket is plain numbers: whatever a panicking holder left is still a bucket.
        f(&mut self.shared.bucket.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Limiter").field(&self.rate()).finish()
    }
}

/// Waits until up to `wanted` payload bytes may pass every limit of `chain` (host first, then site, then all) and
/// returns how many may. Headers of the link are counted in.
pub(crate) async fn grant(chain: Vec<Limiter>, wanted: u64) -> u64 {
    let quantum = chain.iter().map(|limiter| pacing::quantum(limiter.rate())).min().unwrap_or(u64::MAX);
    let granted = wanted.min(quantum);
    for limiter in &chain {
        limiter.acquire(pacing::link_bytes(granted)).await;
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_chain_is_as_slow_as_its_slowest_limit() {
        let chain = vec![
            Limiter::new("8Mbit/s".parse().ok()),
            Limiter::new("1Mbit/s".parse().ok()),
            Limiter::new(None),
        ];
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < Duration::from_secs(10) {
            sent += grant(chain.clone(), 1 << 20).await;
        }
        let share = sent as f64 / 1_250_000.0;
        assert!((0.95..=1.0).contains(&share), "{share}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_raised_limit_frees_a_waiter_at_once() {
        let limiter = Limiter::new("8kbit/s".parse().ok());
        let start = Instant::now();
        let waiter = limiter.clone();
        let wait = async move { waiter.acquire(1_000_000).await };
        let raise = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            limiter.set_rate(None);
        };
        tokio::join!(wait, raise);
        assert!(start.elapsed() < Duration::from_millis(1_200), "{:?}", start.elapsed());
    }
}
