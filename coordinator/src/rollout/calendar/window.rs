//! A time in which hosts may switch: a weekly span, or a beginning by cron and how long it lasts.

use std::fmt;
use std::str::FromStr;

use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};

use super::recurring::Recurring;
use super::weekly::Weekly;

/// A time that comes again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Weekly(Weekly),
    Recurring(Recurring),
}

/// Says what is wrong with the text of a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "window {text:?} is not valid: {reason}; write days, hours and a time zone, such as \"mon-fri 20:00-23:00 Europe/Berlin\", \
     or cron, how long and a time zone, such as \"cron 0 22 * * 6#1 for 4h Europe/Berlin\""
)]
pub struct WindowError {
    text: String,
    reason: String,
}

impl Window {
    /// Returns when the window ends that holds `at`; nothing when it does not.
    pub fn ends_after(&self, at: Timestamp) -> Option<Timestamp> {
        match &self.0 {
            Kind::Weekly(weekly) => weekly.ends_after(at),
            Kind::Recurring(recurring) => recurring.ends_after(at),
        }
    }

    /// Returns when the window begins next, after `at`.
    pub fn begins_after(&self, at: Timestamp) -> Option<Zoned> {
        match &self.0 {
            Kind::Weekly(weekly) => weekly.begins_after(at),
            Kind::Recurring(recurring) => recurring.begins_after(at),
        }
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let read = match words.as_slice() {
            ["cron", rest @ ..] => Recurring::read(rest).map(Kind::Recurring),
            words => Weekly::read(words).map(Kind::Weekly),
        };
        read.map(Self).map_err(|reason| WindowError { text: text.to_owned(), reason })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Weekly(weekly) => weekly.fmt(f),
            Kind::Recurring(recurring) => recurring.fmt(f),
        }
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

impl TryFrom<String> for Window {
    type Error = WindowError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
