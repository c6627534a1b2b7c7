//! How long to wait before the coordinator is dialled again. Pure; the randomness is passed in.

use std::time::Duration;

use sluice_common::caps;

/// Time after a loss for which the coordinator is looked for eagerly: it was probably restarted.
const EAGER: Duration = Duration::from_secs(60);
/// Longest wait in that time.
const EAGER_MAX: Duration = Duration::from_secs(5);

/// Returns how long to wait after `attempt` failures in a row since the session was lost `outage` ago. `random` is in 0..1.
/// The wait is drawn evenly from an interval that doubles (full jitter), so that a fleet does not come back at once.
pub(crate) fn reconnect_delay(outage: Duration, attempt: u32, random: f64) -> Duration {
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
}
