//! What a host says it is. Facts describe; nothing is granted by them.

use serde::{Deserialize, Serialize};
use sluice_common::name::Platform;
use sluice_proto::convert::{Invalid, parse};
use sluice_proto::v1;

/// Longest text of a fact: kernel and distribution names are below 100.
const TEXT_BYTES_MAX: usize = 256;

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
    /// The name it has by itself; for people only.
    pub hostname: String,
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
        }
    }
}
