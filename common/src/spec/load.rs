//! `[load]`: the load probe of parallel production, and the comparison of the candidate with what is live.

use std::time::Duration;

use serde::Deserialize;

use super::SpecError;
use super::rules::check_duration;
use crate::caps;
use crate::units::duration_text;

/// Requests sent to a candidate before it takes the traffic, and what must be true of the answers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// `http://HOST:PORT/PATH`; `${NAME}` is replaced from the environment of the slot that is asked.
    pub url: String,
    /// Requests a second, sent whether or not earlier ones were answered.
    pub rate: u32,
    /// How long.
    #[serde(with = "duration_text")]
    pub duration: Duration,
    /// After which a request counts as failed.
    #[serde(default = "timeout", with = "duration_text")]
    pub timeout: Duration,
    /// What 99 of 100 answers must be faster than, counted from when the request was to be sent.
    #[serde(default, with = "duration_text::option")]
    pub p99: Option<Duration>,
    /// What part of the requests may fail.
    #[serde(default)]
    pub errors: Fraction,
    /// What must be true beside the live release under the same probe; nothing: it is not asked.
    pub compare: Option<Compare>,
}

/// How much worse than the live release a candidate may be.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// How many times the live release's p99 is allowed.
    pub p99: Option<Factor>,
    /// What part of the requests may fail beyond the live release's own.
    pub errors: Option<Fraction>,
}

/// A part of a whole, in millionths, written `"0.1%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Fraction(u32);

impl Fraction {
    /// Says whether `part` of `whole` is more than this; of nothing, any part is.
    pub fn is_exceeded_by(self, part: u64, whole: u64) -> bool {
        u128::from(part) * 1_000_000 > u128::from(self.0) * u128::from(whole)
    }
}

impl TryFrom<String> for Fraction {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let hundredths_of_percent = text.strip_suffix('%').and_then(|number| decimal(number, 4));
        match hundredths_of_percent {
            Some(value) if value <= 1_000_000 => Ok(Self(value as u32)),
            _ => {
                Err(format!("{text:?} is no share; write 0% to 100%, at most four decimals, as in \"0.1%\""))
            }
        }
    }
}

impl std::fmt::Display for Fraction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:04}", self.0 / 10_000, self.0 % 10_000);
        f.pad(&format!("{}%", text.trim_end_matches('0').trim_end_matches('.')))
    }
}

/// How many times something, in thousandths, written `"1.5x"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Factor(u32);

impl Factor {
    /// Returns so many times `time`.
    pub fn of(self, time: Duration) -> Duration {
        time.saturating_mul(self.0) / 1_000
    }
}

impl TryFrom<String> for Factor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_suffix('x').and_then(|number| decimal(number, 3)) {
            Some(value @ 1_000..=1_000_000) => Ok(Self(value as u32)),
            _ => Err(format!(
                "{text:?} is no factor; write 1x to 1000x, at most three decimals, as in \"1.5x\""
            )),
        }
    }
}

impl std::fmt::Display for Factor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1_000, self.0 % 1_000);
        f.pad(&format!("{}x", text.trim_end_matches('0').trim_end_matches('.')))
    }
}

/// Reads a decimal number as so many times the last of `places` decimals.
fn decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = !whole.is_empty() && whole.len() <= 9 && fraction.len() <= places;
    if !is_number || !format!("{whole}{fraction}").bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{whole}{fraction:0<places$}").parse().ok()
}

fn timeout() -> Duration {
    Duration::from_secs(1)
}

impl Load {
    /// Checks the values; the error names the field.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        let fail = |field: &str, reason: String| Err(SpecError::field(format!("load.{field}"), reason));
        check_duration("load.duration", self.duration)?;
        check_duration("load.timeout", self.timeout)?;
        if !self.url.starts_with("http://") {
            return fail("url", format!("{:?} must begin with http://", self.url));
        }
        if !(1..=caps::LOAD_RATE_MAX).contains(&self.rate) {
            return fail("rate", format!("must be 1 to {} requests a second", caps::LOAD_RATE_MAX));
        }
        if self.duration > caps::LOAD_DURATION_MAX {
            return fail("duration", format!("must be at most {}s", caps::LOAD_DURATION_MAX.as_secs()));
        }
        if self.timeout > caps::LOAD_TIMEOUT_MAX {
            return fail("timeout", format!("must be at most {}s", caps::LOAD_TIMEOUT_MAX.as_secs()));
        }
        match &self.compare {
            Some(Compare { p99: None, errors: None }) => {
                fail("compare", "is empty; write p99 = \"1.5x\" or errors = \"0.1%\"".into())
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Load, String> {
        let load: Load = toml::from_str(text).map_err(|error| error.to_string())?;
        load.check().map_err(|error| error.to_string())?;
        Ok(load)
    }

    #[test]
    fn a_whole_table_is_read() {
        let load = read(
            "url = \"http://127.0.0.1:${PORT}/\"\nrate = 200\nduration = \"10s\"\np99 = \"50ms\"\nerrors = \"0.1%\"\n\
             compare = { p99 = \"1.5x\", errors = \"0.05%\" }",
        )
        .unwrap();
        assert_eq!((load.p99, load.timeout), (Some(Duration::from_millis(50)), Duration::from_secs(1)));
        let compare = load.compare.unwrap();
        assert_eq!(compare.p99.unwrap().of(Duration::from_millis(10)), Duration::from_millis(15));
        assert_eq!(
            (load.errors.to_string(), compare.errors.unwrap().to_string()),
            ("0.1%".into(), "0.05%".into())
        );
        assert_eq!(compare.p99.unwrap().to_string(), "1.5x");
        let least = read("url = \"http://a/\"\nrate = 1\nduration = \"1s\"").unwrap();
        assert_eq!((least.errors, least.p99, least.compare), (Fraction(0), None, None));
    }

    #[test]
    fn shares_are_compared_exactly() {
        let tenth: Fraction = "0.1%".to_owned().try_into().unwrap();
        assert!(!tenth.is_exceeded_by(1, 1_000) && tenth.is_exceeded_by(2, 1_000));
        assert!(
            !Fraction::default().is_exceeded_by(0, 10) && Fraction::default().is_exceeded_by(1, u64::MAX)
        );
    }

    #[test]
    fn mistakes_name_field_and_remedy() {
        let good = "url = \"http://a/\"\nrate = 10\nduration = \"1s\"\n";
        for (text, expected) in [
            ("rate = 10\nduration = \"1s\"".to_owned(), "url"),
            (good.replace("http:", "https:"), "load.url"),
            (good.replace("10", "0"), "load.rate"),
            (good.replace("10", "10000000"), "load.rate"),
            (good.replace("1s", "0s"), "load.duration"),
            (good.replace("1s", "2h"), "load.duration"),
            (format!("{good}timeout = \"5m\""), "load.timeout"),
            (format!("{good}p99 = 50"), "string"),
            (format!("{good}errors = \"101%\""), "as in \"0.1%\""),
            (format!("{good}errors = \"0.1\""), "as in \"0.1%\""),
            (format!("{good}compare = {{}}"), "load.compare"),
            (format!("{good}compare = {{ p99 = \"0.5x\" }}"), "as in \"1.5x\""),
            (format!("{good}compare = {{ p90 = \"2x\" }}"), "p90"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
