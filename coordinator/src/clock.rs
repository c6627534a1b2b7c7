//! The coordinator's time: the wall clock read once, then carried on by the monotonic one.
//!
//! Deadlines and bakes must not jump when somebody sets the clock. Whole milliseconds, as the database keeps them.

use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Tells the time. Cheap to copy; copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Timestamp,
    origin: Instant,
}

impl Clock {
    /// Returns the clock of this process: whoever compares times with somebody else has to use this one.
    pub fn of_process() -> Self {
        static CLOCK: OnceLock<Clock> = OnceLock::new();
        *CLOCK.get_or_init(|| Self { wall: Timestamp::now(), origin: Instant::now() })
    }

    /// Returns the time, in whole milliseconds.
    pub fn now(self) -> Timestamp {
        let now = after(self.wall, self.origin.elapsed());
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    /// Returns the monotonic moment of a time; now, if it has passed.
    pub fn instant(self, at: Timestamp) -> Instant {
        Instant::now() + elapsed(self.now(), at)
    }
}

/// Returns the time from `then` to `now`; zero where the clock went back.
pub(crate) fn elapsed(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

/// Returns the moment that is `time` after `then`; the end of time where that is beyond it.
pub(crate) fn after(then: Timestamp, time: Duration) -> Timestamp {
    then.checked_add(time).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward_in_whole_milliseconds() {
        let clock = Clock::of_process();
        let now = clock.now();
        assert_eq!(now.as_nanosecond() % 1_000_000, 0);
        assert!(clock.now() >= now);
        let soon = clock.instant(after(now, Duration::from_secs(60)));
        assert!(soon > Instant::now() + Duration::from_secs(50));
        assert!(clock.instant(now) <= Instant::now() + Duration::from_secs(1));
    }
}
