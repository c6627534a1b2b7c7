//! A clock that survives restarts of the agent: time since boot, and which boot.
//!
//! Deadlines and the life of orders are kept on it, so that setting the wall clock changes neither. Across a
//! reboot the two readings cannot be compared, and [`BootTime::since`] says so.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment of one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootTime {
    boot: String,
    ms: u64,
}

impl BootTime {
    /// Reads the clock.
    pub(crate) fn now() -> io::Result<Self> {
        let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let uptime = fs_err::read_to_string("/proc/uptime")?;
        let seconds = uptime.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
        let seconds = seconds.ok_or_else(|| io::Error::other("/proc/uptime is not a number"))?;
        Ok(Self { boot, ms: (seconds * 1_000.0) as u64 })
    }

    /// Returns the moment `time` later.
    pub(crate) fn after(&self, time: Duration) -> Self {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { boot: self.boot.clone(), ms: self.ms.saturating_add(ms) }
    }

    /// Returns the time that passed since `earlier`, zero if it lies ahead; nothing when the host was booted in between.
    pub(crate) fn since(&self, earlier: &Self) -> Option<Duration> {
        (self.boot == earlier.boot).then(|| Duration::from_millis(self.ms.saturating_sub(earlier.ms)))
    }

    /// Returns the time left until `later`, zero if it has passed; nothing when the host was booted in between.
    pub(crate) fn until(&self, later: &Self) -> Option<Duration> {
        later.since(self)
    }

    /// Makes a moment of a boot by name.
    #[cfg(test)]
    pub(crate) fn at(boot: &str, time: Duration) -> Self {
        Self { boot: boot.to_owned(), ms: time.as_millis() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_two_boots_cannot_be_compared() {
        let early = BootTime::at("a", Duration::from_secs(5));
        let late = early.after(Duration::from_secs(3));
        assert_eq!(late.since(&early), Some(Duration::from_secs(3)));
        assert_eq!(early.since(&late), Some(Duration::ZERO));
        assert_eq!(early.until(&late), Some(Duration::from_secs(3)));
        assert_eq!(BootTime::at("b", Duration::from_secs(9)).since(&early), None);
    }

    #[test]
    fn the_host_has_a_clock() {
        let now = BootTime::now().unwrap();
        assert!(BootTime::now().unwrap().since(&now).is_some());
    }
}
