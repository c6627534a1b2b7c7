//! How long a supervisor waits before it starts an application again. Pure.

use std::time::Duration;

use sluice_common::caps;

/// Grows with each end, and begins anew once the application has run well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct BackOff {
    ends: u32,
}

impl BackOff {
    /// Counts an end of an application that had run so long; returns the time until it is to be started again.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= caps::RESTART_SETTLED {
            self.ends = 0;
        }
        let factor = 1_u32.checked_shl(self.ends).unwrap_or(u32::MAX);
        self.ends = self.ends.saturating_add(1);
        caps::RESTART_DELAY_MIN.saturating_mul(factor).min(caps::RESTART_DELAY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_a_bound_and_begins_anew() {
        let (mut back_off, short) = (BackOff::default(), Duration::from_secs(1));
        let delays: Vec<u128> = (0..4).map(|_| back_off.after(short).as_millis()).collect();
        assert_eq!(delays, [500, 1_000, 2_000, 4_000]);
        for _ in 0..100 {
            back_off.after(short);
        }
        assert_eq!(back_off.after(short), caps::RESTART_DELAY_MAX);
        assert_eq!(back_off.after(caps::RESTART_SETTLED), caps::RESTART_DELAY_MIN);
    }
}
