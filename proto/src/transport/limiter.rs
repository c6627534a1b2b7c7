//! A token bucket that connections share: the async edge of [`sluice_common::pacing`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluice_common::pacing::{self, Bucket, Ticket};
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

    /// Waits until some of `wanted` payload bytes may pass, with the headers of their link, and returns how many: a quantum
    /// of the rate of the moment. Dropped, it leaves the line.
    async fn acquire(&self, wanted: u64) -> u64 {
        loop {
            let payload = wanted.min(pacing::quantum(self.rate()));
            let place = Place::take(self, pacing::link_bytes(payload));
            loop {
                let wait = self.with(|bucket, now| bucket.wait(place.ticket, now));
                if wait < RESOLUTION {
                    place.leave();
                    return payload;
                }
                tokio::time::sleep(wait.min(RECHECK)).await;
                if wanted.min(pacing::quantum(self.rate())) < payload / 2 {
                    // At the new rate this would be silent for long, and then send too much at once.
                    break;
                }
            }
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

/// A place in a limit's line, which others move up by where it is not waited for.
struct Place<'a> {
    limiter: &'a Limiter,
    ticket: Ticket,
    bytes: u64,
}

impl<'a> Place<'a> {
    fn take(limiter: &'a Limiter, bytes: u64) -> Self {
        Self { limiter, ticket: limiter.with(|bucket, now| bucket.reserve(bytes, now)), bytes }
    }

    /// Leaves the line at its head.
    fn leave(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.limiter.with(|bucket, now| bucket.give_back(self.bytes, now));
        }
    }
}

/// What a connection holds of one limit: payload bytes that it has waited for and not sent. Given back where it ends.
struct Held {
    limiter: Limiter,
    payload: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.payload > 0 {
            self.limiter.with(|bucket, now| bucket.give_back(pacing::link_bytes(self.payload), now));
        }
    }
}

/// What a connection holds of each limit of its chain.
///
/// Every limit gives out quanta of its own, so that senders have equal turns there: a host that a lower limit holds back
/// comes for its turn more seldom, instead of taking smaller ones as often as all others.
#[derive(Default)]
pub(crate) struct Account(Vec<Held>);

impl Account {
    /// Waits until up to `wanted` payload bytes may pass every limit of `chain` (host first, then site, then all) and
    /// returns how many may. Headers of the link are counted in.
    pub(crate) async fn grant(mut self, chain: Vec<Limiter>, wanted: u64) -> (u64, Self) {
        let is_same = |(held, limiter): (&Held, &Limiter)| Arc::ptr_eq(&held.limiter.shared, &limiter.shared);
        if self.0.len() != chain.len() || !self.0.iter().zip(&chain).all(is_same) {
            self.0 = chain.into_iter().map(|limiter| Held { limiter, payload: 0 }).collect();
        }
        let mut granted = wanted;
        for held in self.0.iter_mut().filter(|held| held.limiter.rate().is_some()) {
            if held.payload == 0 {
                held.payload = held.limiter.acquire(wanted).await;
            }
            granted = granted.min(held.payload);
        }
        for held in &mut self.0 {
            held.payload = held.payload.saturating_sub(granted);
        }
        (granted, self)
    }
}

#[cfg(test)]
mod tests {
    use sluice_common::caps;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_chain_is_as_slow_as_its_slowest_limit() {
        let chain = vec![
            Limiter::new("8Mbit/s".parse().ok()),
            Limiter::new("1Mbit/s".parse().ok()),
            Limiter::new(None),
        ];
        let sent = sent_within(Duration::from_secs(10), chain).await;
        let share = sent as f64 / 1_250_000.0;
        assert!((0.95..=1.0).contains(&share), "{share}");
    }

    /// Returns the payload bytes that pass a chain within `span` where as many wait as a connection holds.
    async fn sent_within(span: Duration, chain: Vec<Limiter>) -> u64 {
        let (start, mut sent, mut account) = (Instant::now(), 0, Account::default());
        while start.elapsed() < span {
            let (granted, rest) = account.grant(chain.clone(), 64 << 10).await;
            (sent, account) = (sent + granted, rest);
        }
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_on_a_thin_link_has_its_share_of_what_many_hosts_share() {
        for (all, thin, fast, fair) in [
            // Each of 51 may have 1.96 Mbit/s.
            ("100Mbit/s", "2Mbit/s", 50, 245_000),
            ("2Mbit/s", "400kbit/s", 9, 25_000),
            ("2Mbit/s", "64kbit/s", 9, 8_000),
        ] {
            let shared = Limiter::new(all.parse().ok());
            let span = Duration::from_secs(20);
            let mut others = JoinSet::new();
            for _ in 0..fast {
                others.spawn(sent_within(span, vec![shared.clone()]));
            }
            let sent = sent_within(span, vec![Limiter::new(thin.parse().ok()), shared]).await / 20;
            // It does not wait for its next turn while it sends what it has, so it has less than all of it.
            assert!(sent * 2 > fair && sent < fair * 11 / 10, "{thin} of {all}: {sent} of {fair}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_when_a_limit_is_lowered_waits_at_the_new_one_and_leaves_nothing_behind() {
        let limiter = Limiter::new("50Mbit/s".parse().ok());
        let mut others = JoinSet::new();
        for _ in 0..100 {
            others.spawn(sent_within(Duration::MAX, vec![limiter.clone()]));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        limiter.set_rate("2Mbit/s".parse().ok());
        tokio::time::sleep(2 * RECHECK).await;
        let turn = Instant::now();
        limiter.acquire(64 << 10).await;
        // A hundred quanta of 20 ms each.
        assert!(turn.elapsed() < Duration::from_millis(2_200), "{:?}", turn.elapsed());
        others.shutdown().await;
        let turn = Instant::now();
        limiter.acquire(64 << 10).await;
        assert!(turn.elapsed() < 2 * RECHECK, "{:?}", turn.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_raised_limit_frees_a_waiter_at_once() {
        let limiter = Limiter::new("8kbit/s".parse().ok());
        let start = Instant::now();
        let waiter = limiter.clone();
        let wait = async move {
            for _ in 0..1_000_000 / caps::PACING_QUANTUM_BYTES_MIN {
                waiter.acquire(caps::PACING_QUANTUM_BYTES_MIN).await;
            }
        };
        let raise = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            limiter.set_rate(None);
        };
        tokio::join!(wait, raise);
        assert!(start.elapsed() < Duration::from_millis(1_200), "{:?}", start.elapsed());
    }
}
