//! External checks: gates that ask somebody else, sampled while a batch bakes.
//!
//! A [`Check`] is one line of text, on the command line, in a file and in the store alike:
//!
//! ```text
//! errors=prometheus http://prometheus:9090 sum(rate(http_errors_total[1m])) < 0.5
//! smoke(every=30s,timeout=20s,patience=15m)=webhook https://ci.example.com/gate
//! load=webhook https://ci.example.com/load <= 0.8
//! basket=command basket-check --fast
//! ```
//!
//! Nothing but a pass is a success. What never became conclusive within its patience counts as failed ([`mod@verdict`], pure);
//! who asks and how stands in [`crate::checks`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_common::caps;
use sluice_common::units::{format_duration, parse_duration};

mod probe;
pub mod verdict;

pub(crate) use probe::url;
pub use probe::{Bound, Probe};
pub use verdict::{Outcome, Said, Tally, Verdict, verdict};

/// Time between two samples where none is named: often enough for a bake of half a minute.
const EVERY: Duration = Duration::from_secs(10);
/// Time that one sample may take where none is named.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time beyond the bake for which a check may be inconclusive where none is named.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Shortest of each of them.
const SHORTEST: Duration = Duration::from_millis(100);

/// A gate that asks somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Check {
    /// Its name, unique within a rollout.
    pub name: CheckName,
    /// Time between two samples.
    pub every: Duration,
    /// Time that one sample may take.
    pub timeout: Duration,
    /// Time beyond the bake for which it may be inconclusive before it counts as failed.
    pub patience: Duration,
    /// Whom it asks, and what the answer must be.
    pub probe: Probe,
}

/// The name of a check: lower case letters, digits and dashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CheckName(String);

/// Says what is wrong with the text of a check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "check {text:?} is not valid: {reason}; write for example \"errors=prometheus http://prometheus:9090 rate(errors_total[1m]) < 0.5\", \"smoke=webhook https://ci.example.com/gate\" or \"smoke(every=30s,timeout=20s,patience=15m)=command smoke-check\""
)]
pub struct CheckError {
    text: String,
    reason: String,
}

impl Check {
    /// Reads a check whose name stands apart, as in a table of a file: `"prometheus ..."` or `"(every=30s)=webhook ..."`.
    pub fn named(name: &str, text: &str) -> Result<Self, CheckError> {
        let text = text.trim();
        let separator = if text.starts_with('(') { "" } else { "=" };
        format!("{name}{separator}{text}").parse()
    }
}

impl CheckName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CheckName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > caps::NAME_BYTES_MAX || !text.bytes().all(fits) {
            return Err(format!(
                "its name {text:?} is not 1 to {} lower case letters, digits and dashes",
                caps::NAME_BYTES_MAX
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for CheckName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<CheckName> for String {
    fn from(name: CheckName) -> Self {
        name.0
    }
}

impl FromStr for Check {
    type Err = CheckError;

    fn from_str(text: &str) -> Result<Self, CheckError> {
        parse(text).map_err(|reason| CheckError { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<Check, String> {
    if text.len() > caps::CHECK_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("it is not one line of at most {} bytes", caps::CHECK_BYTES_MAX));
    }
    let (head, probe) = text.split_once('=').ok_or("it has no \"=\" after its name")?;
    let Some((name, _)) = head.split_once('(') else {
        return Ok(Check {
            name: head.trim().parse()?,
            every: EVERY,
            timeout: TIMEOUT,
            patience: PATIENCE,
            probe: probe.parse()?,
        });
    };
    // The times have equals signs too.
    let (times, probe) = text[name.len() + 1..].split_once(")=").ok_or("its times do not end with \")=\"")?;
    let mut check = Check {
        name: name.trim().parse()?,
        every: EVERY,
        timeout: TIMEOUT,
        patience: PATIENCE,
        probe: probe.parse()?,
    };
    for time in times.split(',') {
        let (what, value) = time.split_once('=').ok_or_else(|| format!("{time:?} is no WHAT=TIME"))?;
        let value = parse_duration(value.trim()).map_err(|error| error.to_string())?;
        let field = match what.trim() {
            "every" => &mut check.every,
            "timeout" => &mut check.timeout,
            "patience" => &mut check.patience,
            other => return Err(format!("{other:?} is none of every, timeout, patience")),
        };
        if !(SHORTEST..=super::spec::GATE_TIME_MAX).contains(&value) {
            return Err(format!("{what} is not between {} and a week", format_duration(SHORTEST)));
        }
        *field = value;
    }
    Ok(check)
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, every, timeout, patience, probe } = self;
        let times: Vec<String> =
            [("every", every, EVERY), ("timeout", timeout, TIMEOUT), ("patience", patience, PATIENCE)]
                .into_iter()
                .filter(|(_, time, standard)| **time != *standard)
                .map(|(what, time, _)| format!("{what}={}", format_duration(*time)))
                .collect();
        match times.is_empty() {
            true => write!(f, "{name}={probe}"),
            false => write!(f, "{name}({})={probe}", times.join(",")),
        }
    }
}

impl TryFrom<String> for Check {
    type Error = CheckError;

    fn try_from(text: String) -> Result<Self, CheckError> {
        text.parse()
    }
}

impl From<Check> for String {
    fn from(check: Check) -> Self {
        check.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_as_they_are_written() {
        for text in [
            "errors=prometheus http://prometheus:9090/ sum(rate(errors[1m])) / 2 < 0.5",
            "p99=prometheus https://p.example.com/prefix histogram_quantile(0.99, rate(x{a=\"b\"}[5m])) <= 1.25",
            "smoke=webhook https://ci.example.com/gate",
            "load(every=30s,timeout=20s,patience=15m)=webhook http://127.0.0.1:8080/load?app=shop >= 0.8",
            "basket(timeout=1m)=command basket-check --fast 3 < 4",
        ] {
            let check: Check = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(check.to_string(), text);
            let json = serde_json::to_string(&check).unwrap();
            assert_eq!(serde_json::from_str::<Check>(&json).unwrap(), check);
        }
        let named = Check::named("smoke", "(every=1m)=webhook http://h/").unwrap();
        assert_eq!(named.to_string(), "smoke(every=1m)=webhook http://h/");
        assert_eq!(Check::named("smoke", " command smoke").unwrap().to_string(), "smoke=command smoke");
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_its_reason() {
        for (text, reason) in [
            ("smoke", "no \"=\""),
            ("Smoke=webhook http://h/", "lower case"),
            ("smoke=mail h", "none of webhook, prometheus, command"),
            ("smoke=webhook", "no address"),
            ("smoke=webhook ftp://h/", "http or https"),
            ("smoke=webhook http://user:secret@h/", "credentials"),
            ("smoke=webhook http://h/ <", "neither"),
            ("smoke=prometheus http://h/ up", "no bound"),
            ("smoke=prometheus http://h/ up < many", "no number"),
            ("smoke=prometheus http://h/ up < NaN", "no number"),
            ("smoke=prometheus http://h/ < 1", "no query"),
            ("smoke=command ../bin/sh", "plain name"),
            ("smoke=command", "no program"),
            ("smoke(every=0s)=command x", "between"),
            ("smoke(often=1s)=command x", "none of every"),
            ("smoke(every=1s=command x", "do not end"),
            ("smoke=command x\ny", "one line"),
        ] {
            let error = text.parse::<Check>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
