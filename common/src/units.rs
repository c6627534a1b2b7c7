//! Quantities with a unit: byte rates, byte sizes, durations as people write them, and shares of a fleet.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Says why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}; write {example}")]
pub struct UnitError {
    text: String,
    what: &'static str,
    example: &'static str,
}

/// A speed limit in bytes a second. Never zero: "no traffic" is said by pausing, not by a limit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ByteRate(NonZeroU64);

impl ByteRate {
    /// Makes a rate of so many bytes a second; nothing for zero.
    pub fn from_bytes_per_second(bytes: u64) -> Option<Self> {
        NonZeroU64::new(bytes).map(Self)
    }

    /// Makes a rate of so many bytes a second.
    pub const fn of_bytes_per_second(bytes: NonZeroU64) -> Self {
        Self(bytes)
    }

    /// Returns bytes a second.
    pub const fn bytes_per_second(self) -> u64 {
        self.0.get()
    }

    /// Returns how many bytes pass in `time`, rounded down.
    pub fn bytes_in(self, time: Duration) -> u64 {
        let bytes = u128::from(self.0.get()) * time.as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Returns the time that `bytes` take, rounded up to the nanosecond.
    pub fn time_for(self, bytes: u64) -> Duration {
        let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(self.0.get()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

const RATE_UNITS: [(&str, u64, u64); 11] = [
    // unit, bytes a second as numerator and denominator
    ("bit/s", 1, 8),
    ("kbit/s", 1_000, 8),
    ("Mbit/s", 1_000_000, 8),
    ("Gbit/s", 1_000_000_000, 8),
    ("B/s", 1, 1),
    ("kB/s", 1_000, 1),
    ("MB/s", 1_000_000, 1),
    ("GB/s", 1_000_000_000, 1),
    ("KiB/s", 1 << 10, 1),
    ("MiB/s", 1 << 20, 1),
    ("GiB/s", 1 << 30, 1),
];

const SIZE_UNITS: [(&str, u64, u64); 9] = [
    ("B", 1, 1),
    ("kB", 1_000, 1),
    ("MB", 1_000_000, 1),
    ("GB", 1_000_000_000, 1),
    ("TB", 1_000_000_000_000, 1),
    ("KiB", 1 << 10, 1),
    ("MiB", 1 << 20, 1),
    ("GiB", 1 << 30, 1),
    ("TiB", 1 << 40, 1),
];

const TIME_UNITS: [(&str, u64, u64); 5] =
    [("ms", 1, 1), ("s", 1_000, 1), ("m", 60_000, 1), ("h", 3_600_000, 1), ("d", 86_400_000, 1)];

/// Splits `12.5MB` into a decimal number and one of `units` (exact case: `Mbit` is not `mbit`).
fn scaled(text: &str, units: &[(&str, u64, u64)]) -> Option<u64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = (text[..split].trim_end(), &text[split..]);
    let &(_, numerator, denominator) = units.iter().find(|(name, ..)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = format!("{whole}{fraction}").parse::<u128>().ok()?;
    let scaled = value.checked_mul(u128::from(numerator))? / (scale * u128::from(denominator));
    u64::try_from(scaled).ok()
}

impl FromStr for ByteRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        scaled(text, &RATE_UNITS).and_then(Self::from_bytes_per_second).ok_or_else(|| UnitError {
            text: text.to_owned(),
            what: "byte rate",
            example: "bits or bytes a second with the unit in full: 8Mbit/s, 64kbit/s, 1MiB/s",
        })
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from(self.0.get()) * 8;
        for (unit, scale) in [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000)] {
            // Three decimals are exact only when the rest divides; otherwise fall to the smaller unit.
            if bits >= scale && (bits * 1_000) % scale == 0 {
                let thousandths = bits * 1_000 / scale;
                return match thousandths % 1_000 {
                    0 => f.pad(&format!("{}{unit}", thousandths / 1_000)),
                    rest => {
                        let fraction = format!("{rest:03}");
                        f.pad(&format!("{}.{}{unit}", thousandths / 1_000, fraction.trim_end_matches('0')))
                    }
                };
            }
        }
        f.pad(&format!("{bits}bit/s"))
    }
}

impl fmt::Debug for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ByteRate> for String {
    fn from(rate: ByteRate) -> Self {
        rate.to_string()
    }
}

impl TryFrom<String> for ByteRate {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

/// Parses a size such as `512MiB` into bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    scaled(text, &SIZE_UNITS).ok_or_else(|| UnitError {
        text: text.to_owned(),
        what: "size",
        example: "a number with its unit: 512MiB, 1.5GB",
    })
}

/// Formats bytes for people, in decimal units with three significant digits: `24.5 MB`.
pub fn format_size(bytes: u64) -> String {
    const STEPS: [(u64, &str); 4] =
        [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    for (scale, unit) in STEPS {
        if bytes >= scale {
            let hundredths = (u128::from(bytes) * 100 / u128::from(scale)) as u64;
            return match hundredths {
                0..1_000 => format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100),
                1_000..10_000 => format!("{}.{} {unit}", hundredths / 100, hundredths % 100 / 10),
                _ => format!("{} {unit}", hundredths / 100),
            };
        }
    }
    format!("{bytes} B")
}

/// Parses a time span such as `500ms`, `30s`, `10m`, `2h`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    scaled(text, &TIME_UNITS).map(Duration::from_millis).ok_or_else(|| UnitError {
        text: text.to_owned(),
        what: "time span",
        example: "a number with its unit: 500ms, 30s, 10m, 2h, 7d",
    })
}

/// Formats a time span for people, with at most two units: `90s` is `1m30s`.
pub fn format_duration(time: Duration) -> String {
    let millis = time.as_millis();
    let seconds = millis / 1_000;
    match seconds {
        0 => format!("{millis}ms"),
        1..60 if millis.is_multiple_of(1_000) => format!("{seconds}s"),
        1..60 => format!("{seconds}.{}s", millis % 1_000 / 100),
        60..3_600 if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 if seconds % 3_600 < 60 => format!("{}h", seconds / 3_600),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ if seconds % 86_400 < 3_600 => format!("{}d", seconds / 86_400),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Serde adapter: a [`Duration`] written as in `sluice.toml` (`"30s"`).
pub mod duration_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes milliseconds exactly.
    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}ms", time.as_millis()))
    }

    /// Reads any form that [`super::parse_duration`] takes.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        super::parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }

    /// The same for a time that may be missing; read with `default`.
    pub mod option {
        use std::time::Duration;

        use serde::{Deserializer, Serializer};

        /// Writes milliseconds exactly, or nothing.
        pub fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        /// Reads any form that [`crate::units::parse_duration`] takes.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }
}

/// A part of a set of hosts: a count, or a percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Share {
    /// So many hosts.
    Count(u32),
    /// So many percent of the hosts, 0 to 100.
    Percent(u8),
}

impl Share {
    /// Returns how many of `total` hosts are meant, a percentage rounded up: "go on with at least this many".
    pub fn of_rounded_up(self, total: usize) -> usize {
        match self {
            Self::Count(count) => total.min(count as usize),
            Self::Percent(percent) => (total * usize::from(percent)).div_ceil(100),
        }
    }

    /// Returns how many of `total` hosts are meant, a percentage rounded down: "never more than this many".
    pub fn of_rounded_down(self, total: usize) -> usize {
        match self {
            Self::Count(count) => total.min(count as usize),
            Self::Percent(percent) => total * usize::from(percent) / 100,
        }
    }
}

impl FromStr for Share {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError {
            text: text.to_owned(),
            what: "share of hosts",
            example: "a count or a percentage: 2, 25%",
        };
        match text.strip_suffix('%') {
            Some(number) => match number.parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                _ => Err(error()),
            },
            None => text.parse().map(Self::Count).map_err(|_| error()),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

impl TryFrom<String> for Share {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_with_their_unit_only() {
        for (text, bytes) in [
            ("8Mbit/s", 1_000_000),
            ("64kbit/s", 8_000),
            ("1MiB/s", 1 << 20),
            ("1.5 MB/s", 1_500_000),
            ("12Gbit/s", 1_500_000_000),
        ] {
            assert_eq!(text.parse::<ByteRate>().unwrap().bytes_per_second(), bytes, "{text}");
        }
        for bad in ["", "8", "8M", "8mbit/s", "0Mbit/s", "1e3B/s", "-1B/s", "1..2B/s", "4bit/s"] {
            assert!(bad.parse::<ByteRate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_printed_rate_reads_back_exactly() {
        for bytes in
            [1, 7, 1_000, 8_000, 125_000, 1 << 20, 1_000_000, 1_234_567, 125_000_000, 999_999_999_999]
        {
            let rate = ByteRate::from_bytes_per_second(bytes).unwrap();
            assert_eq!(rate.to_string().parse::<ByteRate>().unwrap(), rate, "{rate}");
        }
        assert_eq!("2.5Mbit/s".parse::<ByteRate>().unwrap().to_string(), "2.5Mbit/s");
    }

    #[test]
    fn time_and_bytes_of_a_rate_agree() {
        let rate: ByteRate = "64kbit/s".parse().unwrap();
        assert_eq!(rate.time_for(8_000), Duration::from_secs(1));
        assert_eq!(rate.bytes_in(Duration::from_millis(100)), 800);
    }

    #[test]
    fn spans_and_sizes() {
        assert_eq!(parse_duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("1.5h").unwrap(), Duration::from_secs(5_400));
        assert!(parse_duration("90").is_err());
        assert_eq!(format_duration(Duration::from_millis(1_250)), "1.2s");
        assert_eq!(format_duration(Duration::from_secs(5_400)), "1h30m");
        assert_eq!(parse_size("512MiB").unwrap(), 512 << 20);
        assert_eq!(format_size(24_512_345), "24.5 MB");
        assert_eq!(format_size(999), "999 B");
    }

    #[test]
    fn shares_round_to_the_safe_side() {
        let quarter: Share = "25%".parse().unwrap();
        assert_eq!((quarter.of_rounded_up(6), quarter.of_rounded_down(6)), (2, 1));
        assert_eq!("3".parse::<Share>().unwrap().of_rounded_up(2), 2);
        for bad in ["101%", "-1", "x", "", "5 %"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }
}
