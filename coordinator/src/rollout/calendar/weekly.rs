//! A weekly span of local time: `mon-fri 20:00-23:00 Europe/Berlin`.
//!
//! A day on which the clock is put forward may lack the hour that a window names: what is missing is cut off, and a window that
//! lies in it whole does not take place. On the day on which the clock is put back, a time that comes twice means its first, so that a
//! window over the change lasts an hour longer.

use std::fmt;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

/// Days within which a window that takes place at all takes place again: it may fall into a missing hour once.
const DAYS_AHEAD: i32 = 15;
/// The days of a week as they are written.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A span of local time on some days of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Weekly {
    /// The days on which it begins, Monday first.
    days: [bool; 7],
    begins: Time,
    /// On the next day where it is not after `begins`.
    ends: Time,
    zone: TimeZone,
}

impl Weekly {
    /// Returns when the window ends that holds `at`; nothing when it does not.
    pub(super) fn ends_after(&self, at: Timestamp) -> Option<Timestamp> {
        let today = at.to_zoned(self.zone.clone()).date();
        let days = [today.yesterday().ok(), Some(today)];
        let spans = days.into_iter().flatten().filter_map(|day| self.on(day));
        spans.filter(|(begins, ends)| (*begins..*ends).contains(&at)).map(|(_, ends)| ends).max()
    }

    /// Returns when the window begins next, after `at`.
    pub(super) fn begins_after(&self, at: Timestamp) -> Option<Zoned> {
        let today = at.to_zoned(self.zone.clone()).date();
        let days = (0..=DAYS_AHEAD).map_while(|ahead| today.checked_add(ahead.days()).ok());
        let begins =
            days.filter_map(|day| self.on(day)).map(|(begins, _)| begins).find(|begins| *begins > at)?;
        Some(begins.to_zoned(self.zone.clone()))
    }

    /// Returns the span of the window that begins on a day; nothing when none does.
    fn on(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days[index(day.weekday())] {
            return None;
        }
        let last = if self.ends > self.begins { day } else { day.tomorrow().ok()? };
        let span = (
            first(day.to_datetime(self.begins), &self.zone)?,
            first(last.to_datetime(self.ends), &self.zone)?,
        );
        (span.0 < span.1).then_some(span)
    }
}

fn index(weekday: Weekday) -> usize {
    usize::try_from(weekday.to_monday_zero_offset()).unwrap_or_default()
}

/// Returns the first moment at which the local clock shows `local` or has gone past it.
pub(super) fn first(local: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let moment = zone.to_ambiguous_timestamp(local);
    if !matches!(moment.offset(), jiff::tz::AmbiguousOffset::Gap { .. }) {
        return moment.earlier().ok();
    }
    // Read as before the change it lies behind it, read as after it before it.
    let (before, behind) = (moment.earlier().ok()?, moment.later().ok()?);
    let change = zone.following(before).next().map(|change| change.timestamp());
    Some(change.unwrap_or(behind).min(behind))
}

impl Weekly {
    /// Reads `DAYS HH:MM-HH:MM ZONE`, in words.
    pub(super) fn read(words: &[&str]) -> Result<Self, String> {
        let [days, hours, zone] = words else {
            return Err(format!("it has {} words instead of 3", words.len()));
        };
        let (begins, ends) = hours
            .split_once('-')
            .ok_or_else(|| format!("{hours} has no beginning and end, such as 20:00-23:00"))?;
        let ends = if ends == "24:00" { "00:00" } else { ends };
        Ok(Self { days: days_of(days)?, begins: time(begins)?, ends: time(ends)?, zone: zone_of(zone)? })
    }
}

/// Reads days: `daily`, `sat`, `mon-fri`, `fri-mon`, `mon,wed,fri-sun`.
fn days_of(text: &str) -> Result<[bool; 7], String> {
    if text == "daily" {
        return Ok([true; 7]);
    }
    let day = |name: &str| {
        let known = DAYS.iter().position(|day| name.eq_ignore_ascii_case(day));
        known.ok_or_else(|| format!("{name} is not a day; days are {} and daily", DAYS.join(", ")))
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        for ahead in 0..=(last + 7 - first) % 7 {
            days[(first + ahead) % 7] = true;
        }
    }
    Ok(days)
}

/// Reads hours and minutes: `20:00`.
pub(super) fn time(text: &str) -> Result<Time, String> {
    let bad = || format!("{text} is not a time of day, such as 20:00");
    let (hour, minute) = text.split_once(':').ok_or_else(bad)?;
    let number = |digits: &str| -> Option<i8> {
        let is_number = (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().ok()).flatten()
    };
    let (hour, minute) = number(hour).zip(number(minute)).ok_or_else(bad)?;
    Time::new(hour, minute, 0, 0).map_err(|_| bad())
}

/// Finds a time zone by its IANA name.
pub(super) fn zone_of(name: &str) -> Result<TimeZone, String> {
    let zone = TimeZone::get(name).ok().filter(|zone| zone.iana_name().is_some());
    zone.ok_or_else(|| {
        format!("{name} is not a time zone of the IANA database, such as Europe/Berlin or UTC")
    })
}

/// Writes a time zone as its IANA name.
pub(super) fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("UTC")
}

impl fmt::Display for Weekly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_days(&self.days, f)?;
        let (begins, ends) = (self.begins.strftime("%H:%M"), self.ends.strftime("%H:%M"));
        write!(f, " {begins}-{ends} {}", zone_name(&self.zone))
    }
}

fn write_days(days: &[bool; 7], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if days.iter().all(|day| *day) {
        return f.write_str("daily");
    }
    let (mut day, mut is_first) = (0, true);
    while day < days.len() {
        let last = day + days[day..].iter().take_while(|day| **day).count();
        if last == day {
            day += 1;
            continue;
        }
        f.write_str(if is_first { "" } else { "," })?;
        f.write_str(DAYS[day])?;
        if last - day > 1 {
            write!(f, "{}{}", if last - day > 2 { '-' } else { ',' }, DAYS[last - 1])?;
        }
        (day, is_first) = (last, false);
    }
    Ok(())
}
