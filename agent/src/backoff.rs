//! How long to wait before the coordinator is dialled again. Pure; the randomness is passed in.

use std::time::Duration;

use sluice_common::caps;
use tokio::time::Instant;

/// Time after a loss for which the coordinator is looked for eagerly: it was probably restarted.
const EAGER: Duration = Duration::from_secs(60);
/// Longest wait in that time.
const EAGER_MAX: Duration = Duration::from_secs(5);

/// Life of a session after which the failures before it are forgotten.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// An outage as an agent lives it: since when no coordinator had it, and how often it has tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outage {
    since: Instant,
    attempt: u32,
}

impl Outage {
    /// Begins an outage.
    pub(crate) fn begin(now: Instant) -> Self {
        Self { since: now, attempt: 0 }
    }

    /// Takes in that a try ended. One that was attached, however briefly, found a coordinator: it is gone only since now,
    /// and a coordinator that is restarted again and again is looked for as eagerly as one that is restarted once.
    pub(crate) fn try_ended(&mut self, was_attached: bool, lived: Duration, now: Instant) {
        if was_attached {
            self.since = now;
        }
        if was_attached && lived >= SETTLED_AFTER {
            self.attempt = 0;
        }
    }

    /// Returns how long to wait before the next try.
    pub(crate) fn next_delay(&mut self, now: Instant, random: f64) -> Duration {
        let delay = reconnect_delay(now.saturating_duration_since(self.since), self.attempt, random);
        self.attempt = self.attempt.saturating_add(1);
        delay
    }
}

/// Returns how long to wait after `attempt` failures in a row since the session was lost `outage` ago. `random` is in 0..1.
/// The wait is drawn evenly from an interval that doubles (full jitter), so that a fleet does not come back at once.
fn reconnect_delay(outage: Duration, attempt: u32, random: f64) -> Duration {
    let longest = if outage < EAGER { EAGER_MAX } else { caps::RECONNECT_DELAY_MAX };
    let doubled = caps::RECONNECT_DELAY_MIN.saturating_mul(2_u32.saturating_pow(attempt.saturating_add(1)));
    let span = doubled.min(longest).saturating_sub(caps::RECONNECT_DELAY_MIN);
    caps::RECONNECT_DELAY_MIN + span.mul_f64(random.clamp(0.0, 1.0))
}

/// Returns a random number in 0..1.
pub(crate) fn random() -> f64 {
    let bits = uuid::Uuid::new_v4().as_u128() as u32;
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_within_their_bounds() {
        for (outage, attempt, shortest, longest) in [
            (0, 0, 1, 2),
            (3, 1, 1, 4),
            (20, 4, 1, 5),
            (59, 9, 1, 5),
            (61, 9, 1, 300),
            (9_999, 99, 1, 300),
            (61, 4, 1, 32),
        ] {
            let outage = Duration::from_secs(outage);
            assert_eq!(reconnect_delay(outage, attempt, 0.0), Duration::from_secs(shortest));
            assert_eq!(reconnect_delay(outage, attempt, 1.0), Duration::from_secs(longest));
        }
        assert!((0.0..=1.0).contains(&random()));
    }

    #[test]
    fn a_coordinator_that_keeps_restarting_is_never_waited_for_long() {
        let mut now = Instant::now();
        let mut outage = Outage::begin(now);
        for _ in 0..100 {
            now += Duration::from_secs(3);
            outage.try_ended(true, Duration::from_secs(3), now);
            let delay = outage.next_delay(now, 1.0);
            assert!(delay <= EAGER_MAX, "{delay:?}");
            now += delay;
        }
        // One that is gone for good is asked for ever more rarely.
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            now += Duration::from_secs(10);
            outage.try_ended(false, Duration::ZERO, now);
            longest = longest.max(outage.next_delay(now, 1.0));
        }
        assert_eq!(longest, caps::RECONNECT_DELAY_MAX);
    }
}
