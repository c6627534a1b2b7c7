//! What a host says it is. Facts describe; nothing is granted by them.

use serde::{Deserialize, Serialize};
use sluice_common::name::Platform;
use sluice_proto::convert::{Invalid, parse};
use sluice_proto::v1;

/// Longest text of a fact: kernel and distribution names are below 100.
const TEXT_BYTES_MAX: usize = 256;

/// Free space is stored anew once it has moved by one of so many parts of the disk: 1 %.
const FREE_SPACE_PARTS: u64 = 100;

/// What a host is, read once at the start of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Version of its agent.
    pub agent_version: String,
    /// Its platform: chooses the package.
    pub platform: Platform,
    /// Name and version of its system.
    pub os_version: String,
    /// Version of its kernel.
    pub kernel: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Size of the file system that holds releases, in bytes.
    pub disk_bytes: u64,
    /// What is free of it, in bytes.
    pub disk_free_bytes: u64,
    /// What staging leaves free of it, in bytes; nothing where the agent has not told it.
    #[serde(default)]
    pub disk_floor_bytes: Option<u64>,
    /// The name it has by itself; for people only.
    pub hostname: String,
}

impl Facts {
    /// Says whether the two differ in nothing but a little space, which changes all the time: what is free, and with it, where
    /// a disk shares a pool with others, its size and the floor that is a part of it.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let Self { disk_bytes, disk_free_bytes, disk_floor_bytes, .. } = *self;
        let same = Self { disk_bytes, disk_free_bytes, disk_floor_bytes, ..other.clone() } == *self;
        let moved = [
            disk_bytes.abs_diff(other.disk_bytes),
            disk_free_bytes.abs_diff(other.disk_free_bytes),
            disk_floor_bytes.unwrap_or(0).abs_diff(other.disk_floor_bytes.unwrap_or(0)),
        ];
        let is_told = disk_floor_bytes.is_some() == other.disk_floor_bytes.is_some();
        same && is_told && moved.iter().all(|moved| *moved <= disk_bytes / FREE_SPACE_PARTS)
    }
}

impl TryFrom<v1::HostFacts> for Facts {
    type Error = Invalid;

    fn try_from(message: v1::HostFacts) -> Result<Self, Invalid> {
        let v1::HostFacts {
            agent_version,
            platform,
            os_version,
            kernel,
            cpus,
            memory_bytes,
            disk_bytes,
            disk_free_bytes,
            hostname,
            disk_floor_bytes,
        } = message;
        let short = |field, text: String| match text.len() {
            0..=TEXT_BYTES_MAX => Ok(text),
            n => Err(Invalid::new(field, format!("{n} bytes are too many"))),
        };
        Ok(Self {
            agent_version: short("facts.agent_version", agent_version)?,
            platform: parse("facts.platform", &platform)?,
            os_version: short("facts.os_version", os_version)?,
            kernel: short("facts.kernel", kernel)?,
            cpus,
            memory_bytes,
            disk_bytes,
            disk_free_bytes,
            disk_floor_bytes,
            hostname: short("facts.hostname", hostname)?,
        })
    }
}

impl From<&Facts> for v1::HostFacts {
    fn from(facts: &Facts) -> Self {
        let Facts {
            agent_version,
            platform,
            os_version,
            kernel,
            cpus,
            memory_bytes,
            disk_bytes,
            disk_free_bytes,
            hostname,
            disk_floor_bytes,
        } = facts.clone();
        Self {
            agent_version,
            platform: platform.to_string(),
            os_version,
            kernel,
            cpus,
            memory_bytes,
            disk_bytes,
            disk_free_bytes,
            hostname,
            disk_floor_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_free_space_is_no_news_and_all_else_is() {
        let facts = Facts {
            agent_version: "1".into(),
            platform: Platform::any(),
            os_version: "Debian 13".into(),
            kernel: "6.12".into(),
            cpus: 2,
            memory_bytes: 1 << 30,
            disk_bytes: 1_000,
            disk_free_bytes: 500,
            disk_floor_bytes: Some(100),
            hostname: "h1".into(),
        };
        assert!(facts.is_like(&Facts { disk_free_bytes: 490, ..facts.clone() }));
        assert!(!facts.is_like(&Facts { disk_free_bytes: 489, ..facts.clone() }));
        assert!(facts.is_like(&Facts { disk_bytes: 1_010, disk_floor_bytes: Some(101), ..facts.clone() }));
        assert!(!facts.is_like(&Facts { disk_bytes: 1_011, ..facts.clone() }));
        assert!(!facts.is_like(&Facts { disk_floor_bytes: Some(111), ..facts.clone() }));
        assert!(!facts.is_like(&Facts { disk_floor_bytes: None, ..facts.clone() }));
        assert!(!facts.is_like(&Facts { cpus: 3, ..facts.clone() }));
        assert!(!facts.is_like(&Facts { kernel: "6.13".into(), disk_free_bytes: 490, ..facts.clone() }));
    }
}
