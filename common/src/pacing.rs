//! Byte pacing: token buckets as pure state, no clock and no waiting inside.
//!
//! A bucket is a line at a counter. [`Bucket::reserve`] gives out the next place in the line, [`Bucket::wait`]
//! says how long until that place is served. Places are served at the bucket's rate in the order in which they
//! were given out, so senders that reserve one quantum at a time share the rate fairly. A change of rate moves
//! everyone in the line at once. A hierarchy (coordinator, site, host) is passed one bucket after the other.
//!
//! The algorithm is the generic cell rate algorithm (ITU-T I.371) with the line kept in bytes, not in time:
//! that is what lets the rate change under waiting senders.

use std::time::Duration;

use crate::caps;
use crate::units::ByteRate;

/// A place in a bucket's line: everything up to this many bytes since the bucket was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A rate limit with a bounded burst. `now` is any clock that does not go back, as time since a fixed point.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate: Option<ByteRate>,
    /// Bytes given out as tickets.
    reserved: u64,
    /// Bytes served up to `updated`, in nanobytes, so that slow rates lose nothing to rounding.
    served_nano: u128,
    updated: Duration,
}

const NANO: u128 = 1_000_000_000;

impl Bucket {
    /// Makes a bucket; without a rate it never makes anyone wait.
    pub fn new(rate: Option<ByteRate>, now: Duration) -> Self {
        Self { rate, reserved: 0, served_nano: 0, updated: now }
    }

    /// Returns the rate.
    pub fn rate(&self) -> Option<ByteRate> {
        self.rate
    }

    /// Changes the rate from now on, for those who wait too.
    pub fn set_rate(&mut self, rate: Option<ByteRate>, now: Duration) {
        self.advance(now);
        self.rate = rate;
    }

    /// Takes the next place in the line for `bytes`.
    pub fn reserve(&mut self, bytes: u64, now: Duration) -> Ticket {
        self.advance(now);
        self.reserved += bytes;
        Ticket(self.reserved)
    }

    /// Takes back `bytes` that were given out and will not be sent: whoever is still in the line moves up by as many. Those who
    /// stand before the place that was given up may go so much early, once.
    pub fn give_back(&mut self, bytes: u64, now: Duration) {
        self.served_nano += u128::from(bytes) * NANO;
        self.advance(now);
    }

    /// Returns how long the holder of `ticket` still has to wait; zero when it may go.
    pub fn wait(&mut self, ticket: Ticket, now: Duration) -> Duration {
        self.advance(now);
        let Some(rate) = self.rate else { return Duration::ZERO };
        let due = u128::from(ticket.0) * NANO;
        let missing = due.saturating_sub(self.served_nano);
        let nanos = missing.div_ceil(u128::from(rate.bytes_per_second()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Serves what the time since the last call was worth; an idle bucket saves up one burst and no more.
    fn advance(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.updated);
        self.updated = self.updated.max(now);
        let reserved = u128::from(self.reserved) * NANO;
        let Some(rate) = self.rate else {
            self.served_nano = reserved;
            return;
        };
        let per_second = u128::from(rate.bytes_per_second());
        let ceiling = reserved + per_second * caps::PACING_BURST.as_nanos();
        self.served_nano = (self.served_nano + per_second * elapsed.as_nanos()).min(ceiling);
    }
}

/// Returns how many bytes to send at once under `rate`: 20 ms worth, within the bounds of [`caps`].
pub fn quantum(rate: Option<ByteRate>) -> u64 {
    rate.map_or(caps::PACING_QUANTUM_BYTES_MAX, |rate| {
        rate.bytes_in(Duration::from_millis(20))
            .clamp(caps::PACING_QUANTUM_BYTES_MIN, caps::PACING_QUANTUM_BYTES_MAX)
    })
}

/// Returns what `payload` bytes on a TCP stream weigh on the link, headers included.
pub fn link_bytes(payload: u64) -> u64 {
    payload + payload.div_ceil(caps::SEGMENT_PAYLOAD_BYTES) * caps::SEGMENT_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> Option<ByteRate> {
        Some(text.parse().unwrap())
    }

    /// Sends quanta as fast as the bucket lets it from `start` for `span`; returns the bytes sent.
    fn run(bucket: &mut Bucket, start: Duration, span: Duration) -> u64 {
        let (mut now, mut sent) = (start, 0);
        loop {
            let quantum = quantum(bucket.rate());
            let ticket = bucket.reserve(quantum, now);
            now += bucket.wait(ticket, now);
            if now >= start + span {
                return sent;
            }
            sent += quantum;
        }
    }

    #[test]
    fn a_rate_is_kept_to_within_two_percent_from_64_kbit_to_10_gbit() {
        for text in ["64kbit/s", "1Mbit/s", "8Mbit/s", "100Mbit/s", "1Gbit/s", "10Gbit/s"] {
            let mut bucket = Bucket::new(rate(text), Duration::ZERO);
            let sent = run(&mut bucket, Duration::ZERO, Duration::from_secs(10)) as f64;
            let due = rate(text).unwrap().bytes_in(Duration::from_secs(10)) as f64;
            assert!((0.98..=1.02).contains(&(sent / due)), "{text}: {}", sent / due);
        }
    }

    #[test]
    fn idle_time_is_worth_one_burst_at_most() {
        let mut bucket = Bucket::new(rate("8Mbit/s"), Duration::ZERO);
        let hour = Duration::from_secs(3600);
        let sent = run(&mut bucket, hour, Duration::from_millis(100));
        assert!(sent <= rate("8Mbit/s").unwrap().bytes_in(Duration::from_millis(100) + caps::PACING_BURST));
    }

    #[test]
    fn a_new_rate_holds_for_those_who_wait_already() {
        let mut bucket = Bucket::new(rate("8kbit/s"), Duration::ZERO);
        let ticket = bucket.reserve(100_000, Duration::ZERO);
        assert!(bucket.wait(ticket, Duration::ZERO) > Duration::from_secs(90));
        bucket.set_rate(rate("8Mbit/s"), Duration::from_secs(1));
        assert!(bucket.wait(ticket, Duration::from_secs(1)) < Duration::from_millis(100));
        bucket.set_rate(None, Duration::from_secs(1));
        assert_eq!(bucket.wait(ticket, Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn a_place_that_is_given_up_is_nobodys_time() {
        let mut bucket = Bucket::new(rate("8kbit/s"), Duration::ZERO);
        bucket.reserve(5_000, Duration::ZERO);
        let last = bucket.reserve(1_000, Duration::ZERO);
        assert_eq!(bucket.wait(last, Duration::ZERO), Duration::from_secs(6));
        bucket.give_back(5_000, Duration::ZERO);
        assert_eq!(bucket.wait(last, Duration::ZERO), Duration::from_secs(1));
        // Given back into an idle bucket, it is a burst like any other.
        bucket.give_back(1 << 40, Duration::from_secs(1));
        let next = bucket.reserve(2_000, Duration::from_secs(1));
        assert_eq!(bucket.wait(next, Duration::from_secs(1)), Duration::from_millis(1_900));
    }

    #[test]
    fn the_time_before_a_change_counts_at_the_rate_it_had() {
        let mut bucket = Bucket::new(rate("8kbit/s"), Duration::ZERO);
        let ticket = bucket.reserve(100_000, Duration::ZERO);
        let change = Duration::from_secs(10);
        bucket.set_rate(rate("16kbit/s"), change);
        assert_eq!(bucket.wait(ticket, change), Duration::from_secs(45));
    }

    #[test]
    fn senders_share_fairly() {
        let mut bucket = Bucket::new(rate("8Mbit/s"), Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut tickets: Vec<_> = (0..4).map(|i| (bucket.reserve(20_000, now), i)).collect();
        let mut sent = [0_u64; 4];
        while now < Duration::from_secs(10) {
            tickets.sort();
            let (ticket, sender) = tickets.remove(0);
            now += bucket.wait(ticket, now);
            sent[sender] += 20_000;
            tickets.push((bucket.reserve(20_000, now), sender));
        }
        assert!(sent.iter().max().unwrap() - sent.iter().min().unwrap() <= 20_000, "{sent:?}");
    }

    proptest! {
        #[test]
        fn no_window_carries_more_than_rate_and_burst(
            bytes_per_second in 1_000_u64..10_000_000,
            steps in proptest::collection::vec((1_u64..20_000, 0_u64..200), 1..200),
        ) {
            let rate = ByteRate::from_bytes_per_second(bytes_per_second).unwrap();
            let mut bucket = Bucket::new(Some(rate), Duration::ZERO);
            let (mut now, mut sent) = (Duration::ZERO, Vec::new());
            for (bytes, pause) in steps {
                now += Duration::from_millis(pause);
                let ticket = bucket.reserve(bytes, now);
                now += bucket.wait(ticket, now);
                sent.push((now, bytes));
            }
            for (i, (from, first)) in sent.iter().enumerate() {
                let mut total = 0;
                for (to, bytes) in &sent[i + 1..] {
                    total += bytes;
                    let limit = rate.bytes_in(*to - *from + caps::PACING_BURST) + first + 1;
                    prop_assert!(total <= limit, "{total} bytes in {:?}, limit {limit}", *to - *from);
                }
            }
        }
    }
}
