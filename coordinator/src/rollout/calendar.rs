//! When hosts may switch: maintenance windows, weekly or by cron, less freezes, each in its own time zone.
//!
//! Pure: the time is an argument, the rules of time zones are data. Staging and going back never ask a calendar.
//! Invariant: a moment is open exactly if some window, or none being written down, holds it and no freeze does.

use std::time::Duration;

use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};

mod freeze;
mod recurring;
#[cfg(test)]
mod tests;
mod weekly;
mod window;

pub use freeze::{Freeze, FreezeError};
pub use window::{Window, WindowError};

use crate::clock::{after, elapsed};

/// How far ahead an opening is looked for: a freeze of more than a year is a decision to make anew.
const HORIZON: Duration = Duration::from_secs(400 * 24 * 3600);

/// Openings that are looked at: as many windows as a calendar may have, once a day up to [`HORIZON`]. Cron may begin every minute.
const OPENINGS_MAX: usize = 13_000;

/// When hosts may switch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Calendar {
    /// The windows in which they may; none: at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// When they may not, whatever the windows say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<Freeze>,
}

/// What a calendar says at one moment to somebody who needs some time without a break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is open, for long enough.
    Open,
    /// It is not.
    Closed(Closed),
}

/// Why not now, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The freeze that holds now.
    pub freeze: Option<Freeze>,
    /// Whether it is open now, though not for long enough.
    pub is_short: bool,
    /// When it opens for long enough; nothing when not within [`HORIZON`].
    pub opens: Option<Zoned>,
}

impl Calendar {
    /// Says whether anything is written down.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.freezes.is_empty()
    }

    /// Says whether the calendar is open from `now` on for as long as `needs`, and if not, when it is.
    pub fn look(&self, now: Timestamp, needs: Duration) -> Verdict {
        if self.holds(now, needs) {
            return Verdict::Open;
        }
        let freeze = self.freeze_at(now).cloned();
        let is_short = freeze.is_none() && self.open_until(now, needs) > now;
        Verdict::Closed(Closed { freeze, is_short, opens: self.next(now, needs) })
    }

    fn holds(&self, at: Timestamp, needs: Duration) -> bool {
        self.freeze_at(at).is_none() && self.is_open(at) && self.open_until(at, needs) >= after(at, needs)
    }

    /// Returns the first moment after `now` from which it is open for as long as `needs`. It opens only where a window
    /// begins or a freeze ends.
    fn next(&self, now: Timestamp, needs: Duration) -> Option<Zoned> {
        let mut at = now;
        for _ in 0..OPENINGS_MAX {
            let next = match self.freeze_at(at) {
                Some(freeze) => freeze.to.clone(),
                None => self.next_change(at)?,
            };
            at = next.timestamp();
            if elapsed(now, at) > HORIZON {
                return None;
            }
            if self.holds(at, needs) {
                return Some(next);
            }
        }
        None
    }

    fn next_change(&self, at: Timestamp) -> Option<Zoned> {
        let thaws = self.freezes.iter().map(|freeze| freeze.to.clone()).filter(|to| to.timestamp() > at);
        let begins = self.windows.iter().filter_map(|window| window.begins_after(at));
        thaws.chain(begins).min_by_key(Zoned::timestamp)
    }

    fn freeze_at(&self, at: Timestamp) -> Option<&Freeze> {
        let holding = self.freezes.iter().filter(|freeze| freeze.holds(at));
        holding.max_by_key(|freeze| freeze.to.timestamp())
    }

    fn is_open(&self, at: Timestamp) -> bool {
        self.windows.is_empty() || self.windows.iter().any(|window| window.ends_after(at).is_some())
    }

    /// Returns until when windows that meet or overlap hold from `at` on, up to the next freeze; `at` where none does. Looks no
    /// further than `needs`.
    fn open_until(&self, at: Timestamp, needs: Duration) -> Timestamp {
        let enough = after(at, needs);
        let mut until = if self.windows.is_empty() { enough } else { at };
        while until < enough {
            match self.windows.iter().filter_map(|window| window.ends_after(until)).max() {
                Some(end) => until = end,
                None => break,
            }
        }
        let frozen = self.freezes.iter().map(|freeze| freeze.from.timestamp()).filter(|from| *from >= at);
        frozen.fold(until, Timestamp::min)
    }
}
