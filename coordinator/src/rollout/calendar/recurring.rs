//! A beginning by cron, and how long it lasts: `cron 0 22 * * 6#1 for 4h Europe/Berlin`.
//!
//! Five fields, as cron has them, with `L`, `W` and `#` for the last day, the nearest working day and the so-manieth weekday of a month.
//! It lasts as long as it says on every day, whatever the clock does. Where the clock is put forward over its beginning, it begins
//! when the clock has been; where a time comes twice, it begins at the first of the two.

use std::fmt;
use std::time::Duration;

use cronexpr::{Crontab, MakeTimestamp};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use sluice_common::units::{format_duration, parse_duration};

use super::weekly::{first, zone_name, zone_of};
use crate::clock::after;

/// Shortest and longest time that a window lasts: below a minute nothing switches, and beyond a week it is no window.
const LASTS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(7 * 24 * 3600));
/// How far a clock is put forward at most, and an hour to spare.
const MISSING_MAX: Duration = Duration::from_secs(3 * 3600);

/// A time that begins when a pattern says so.
#[derive(Debug, Clone)]
pub(super) struct Recurring {
    /// Five fields, with one blank between them.
    fields: String,
    /// The same, of times of day that know no zone: UTC stands for none.
    pattern: Crontab,
    lasts: Duration,
    zone: TimeZone,
}

impl PartialEq for Recurring {
    fn eq(&self, other: &Self) -> bool {
        (&self.fields, self.lasts, &self.zone) == (&other.fields, other.lasts, &other.zone)
    }
}

impl Eq for Recurring {}

impl Recurring {
    /// Reads `MINUTE HOUR DAY MONTH WEEKDAY for TIME ZONE`, in words.
    pub(super) fn read(words: &[&str]) -> Result<Self, String> {
        let Some((fields, [word, lasts, zone])) = words.split_at_checked(5) else {
            return Err("it is not of the form cron MINUTE HOUR DAY MONTH WEEKDAY for TIME ZONE".to_owned());
        };
        if *word != "for" {
            return Err(format!("{word} stands where for must, before how long it lasts"));
        }
        let fields = fields.join(" ");
        let pattern = cronexpr::parse_crontab(&format!("{fields} UTC"));
        let pattern = pattern.map_err(|error| format!("{fields} is not cron: {}", words_of(&error)))?;
        let lasts = parse_duration(lasts).map_err(|error| error.to_string())?;
        if lasts < LASTS.0 || lasts > LASTS.1 {
            let (least, most) = (format_duration(LASTS.0), format_duration(LASTS.1));
            return Err(format!("it lasts {}; it must be {least} to {most}", format_duration(lasts)));
        }
        let read = Self { fields, pattern, lasts, zone: zone_of(zone)? };
        // One that never comes, such as the 30th of February, is a slip.
        match read.begins_after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(read),
            None => Err(format!("{} never comes", read.fields)),
        }
    }

    /// Returns when a window ends that holds `at`; nothing when none does. Where several do, one of them.
    pub(super) fn ends_after(&self, at: Timestamp) -> Option<Timestamp> {
        // An hour that is missing makes times of day run ahead of what has gone by.
        let mut local = self.local(at.checked_sub(self.lasts).ok()?).checked_sub(MISSING_MAX).ok()?;
        loop {
            local = self.next(local)?;
            let begins = first(local, &self.zone)?;
            let ends = after(begins, self.lasts);
            if ends > at {
                return (begins <= at).then_some(ends);
            }
        }
    }

    /// Returns when the window begins next, after `at`.
    pub(super) fn begins_after(&self, at: Timestamp) -> Option<Zoned> {
        let mut local = self.local(at);
        loop {
            local = self.next(local)?;
            let begins = first(local, &self.zone)?;
            if begins > at {
                return Some(begins.to_zoned(self.zone.clone()));
            }
        }
    }

    fn local(&self, at: Timestamp) -> DateTime {
        at.to_zoned(self.zone.clone()).datetime()
    }

    /// Returns the next time of day that fits the pattern; nothing where none does within four years.
    fn next(&self, local: DateTime) -> Option<DateTime> {
        let at = local.to_zoned(TimeZone::UTC).ok()?.timestamp();
        self.pattern.find_next(MakeTimestamp(at)).ok().map(|next| next.datetime())
    }
}

/// Takes the first line of what may be a drawing.
fn words_of(error: &cronexpr::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

impl fmt::Display for Recurring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cron {} for {} {}", self.fields, format_duration(self.lasts), zone_name(&self.zone))
    }
}
