//! A time in which nothing switches, with its reason: `2026-12-23 18:00 to 2027-01-02 06:00 Europe/Berlin: year end`.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};

use super::weekly::{first, time, zone_name, zone_of};

/// Longest reason of a freeze: a line to read.
const REASON_BYTES_MAX: usize = 200;

/// A time in which nothing switches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Freeze {
    /// When it begins.
    pub from: Zoned,
    /// When it has ended.
    pub to: Zoned,
    /// Why.
    pub reason: String,
}

/// Says what is wrong with the text of a freeze.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "freeze {text:?} is not valid: {reason}; write beginning, end, time zone and reason, such as \"2026-12-23 18:00 to 2027-01-02 06:00 Europe/Berlin: year end\""
)]
pub struct FreezeError {
    text: String,
    reason: String,
}

impl Freeze {
    /// Says whether nothing switches at this moment.
    pub fn holds(&self, at: Timestamp) -> bool {
        (self.from.timestamp()..self.to.timestamp()).contains(&at)
    }
}

impl FromStr for Freeze {
    type Err = FreezeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|reason| FreezeError { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<Freeze, String> {
    // The times have colons too: the reason's stands after a word, and before a blank.
    let (times, reason) = text.split_once(": ").ok_or("it has no reason after \": \"")?;
    let reason = reason.trim();
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        return Err(format!("its reason is not one line of 1 to {REASON_BYTES_MAX} bytes"));
    }
    let words: Vec<&str> = times.split_whitespace().collect();
    let [from_day, from_time, "to", to_day, to_time, zone] = words.as_slice() else {
        return Err("it is not of the form DATE TIME to DATE TIME ZONE".to_owned());
    };
    let zone = zone_of(zone)?;
    let (from, to) = (moment(from_day, from_time, &zone)?, moment(to_day, to_time, &zone)?);
    if from.timestamp() >= to.timestamp() {
        return Err("it ends before it begins".to_owned());
    }
    Ok(Freeze { from, to, reason: reason.to_owned() })
}

fn moment(day: &str, hour: &str, zone: &TimeZone) -> Result<Zoned, String> {
    let bad = || format!("{day} is not a date, such as 2026-12-23");
    let day: Date = day.parse().map_err(|_| bad())?;
    let moment = first(day.to_datetime(time(hour)?), zone).ok_or_else(bad)?;
    Ok(moment.to_zoned(zone.clone()))
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, reason } = self;
        let (from_text, to_text) = (from.strftime("%F %H:%M"), to.strftime("%F %H:%M"));
        write!(f, "{from_text} to {to_text} {}: {reason}", zone_name(from.time_zone()))
    }
}

impl From<Freeze> for String {
    fn from(freeze: Freeze) -> Self {
        freeze.to_string()
    }
}

impl TryFrom<String> for Freeze {
    type Error = FreezeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
