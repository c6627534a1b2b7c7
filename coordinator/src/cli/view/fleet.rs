//! Hosts, sites, operators, audit entries.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use sluice_common::order::Phase;
use sluice_common::units::ByteRate;
use sluice_proto::v1;

use super::{Installed, at_millis, at_seconds, phase, text};

#[derive(Debug, Serialize)]
pub(in crate::cli) struct Host {
    pub(in crate::cli) name: String,
    pub(in crate::cli) site: String,
    pub(in crate::cli) labels: BTreeMap<String, String>,
    pub(in crate::cli) state: HostState,
    pub(in crate::cli) connected: bool,
    pub(in crate::cli) last_seen_at: Option<Timestamp>,
    pub(in crate::cli) enrolled_at: Option<Timestamp>,
    pub(in crate::cli) certificate_expires_at: Option<Timestamp>,
    pub(in crate::cli) content_bytes: u64,
    pub(in crate::cli) facts: Option<Facts>,
    pub(in crate::cli) applications: Vec<Application>,
}

/// Whether a host may and can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum HostState {
    Connected,
    Unreachable,
    Revoked,
}

impl HostState {
    pub(in crate::cli) fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Unreachable => "unreachable",
            Self::Revoked => "revoked",
        }
    }
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct Facts {
    pub(in crate::cli) agent_version: String,
    pub(in crate::cli) platform: String,
    pub(in crate::cli) os_version: String,
    pub(in crate::cli) kernel: String,
    pub(in crate::cli) hostname: String,
    pub(in crate::cli) cpus: u32,
    pub(in crate::cli) memory_bytes: u64,
    pub(in crate::cli) disk_bytes: u64,
    pub(in crate::cli) disk_free_bytes: u64,
    pub(in crate::cli) disk_floor_bytes: Option<u64>,
}

/// What a host reported last of one application.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Application {
    pub(in crate::cli) app: String,
    pub(in crate::cli) phase: Option<Phase>,
    pub(in crate::cli) current: Option<Installed>,
    pub(in crate::cli) previous: Option<Installed>,
    pub(in crate::cli) healthy: Option<bool>,
    pub(in crate::cli) reason: Option<String>,
    pub(in crate::cli) generation: u64,
    pub(in crate::cli) drift: Option<Drift>,
}

/// What differs on a host from its installed releases.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Drift {
    pub(in crate::cli) count: u64,
    pub(in crate::cli) first: String,
    pub(in crate::cli) mended: u64,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct Site {
    pub(in crate::cli) name: String,
    pub(in crate::cli) limit: Option<ByteRate>,
    pub(in crate::cli) limit_bytes_per_second: Option<u64>,
    pub(in crate::cli) hosts: u32,
    pub(in crate::cli) hosts_connected: u32,
    pub(in crate::cli) content_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct Operator {
    pub(in crate::cli) name: String,
    pub(in crate::cli) role: String,
    pub(in crate::cli) revoked: bool,
    pub(in crate::cli) enrolled_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct AuditEntry {
    pub(in crate::cli) number: u64,
    pub(in crate::cli) at: Option<Timestamp>,
    pub(in crate::cli) actor: String,
    pub(in crate::cli) action: String,
    pub(in crate::cli) subject: String,
    pub(in crate::cli) detail: serde_json::Value,
    pub(in crate::cli) hash: String,
}

impl From<v1::Host> for Host {
    fn from(message: v1::Host) -> Self {
        let v1::Host {
            name,
            site,
            labels,
            facts,
            connected,
            last_seen_unix_ms,
            enrolled_unix,
            revoked,
            reports,
            content_bytes,
            certificate_expires_unix,
        } = message;
        let state = match (revoked, connected) {
            (true, _) => HostState::Revoked,
            (false, true) => HostState::Connected,
            (false, false) => HostState::Unreachable,
        };
        Self {
            name,
            site,
            labels: labels.into_iter().collect(),
            state,
            connected,
            last_seen_at: at_millis(last_seen_unix_ms),
            enrolled_at: at_seconds(enrolled_unix),
            certificate_expires_at: at_seconds(certificate_expires_unix),
            content_bytes,
            facts: facts.map(Facts::from),
            applications: reports.into_iter().map(Application::from).collect(),
        }
    }
}

impl From<v1::HostFacts> for Facts {
    fn from(message: v1::HostFacts) -> Self {
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
        Self {
            agent_version,
            platform,
            os_version,
            kernel,
            hostname,
            cpus,
            memory_bytes,
            disk_bytes,
            disk_free_bytes,
            disk_floor_bytes,
        }
    }
}

impl From<v1::Report> for Application {
    fn from(report: v1::Report) -> Self {
        Self {
            phase: phase(report.phase),
            current: Installed::from_wire(report.current),
            previous: Installed::from_wire(report.previous),
            healthy: report.healthy,
            reason: report.reason.and_then(text),
            generation: report.generation,
            drift: report.drift.map(|v1::Drift { count, first, mended }| Drift { count, first, mended }),
            app: report.app,
        }
    }
}

impl From<v1::Site> for Site {
    fn from(message: v1::Site) -> Self {
        let v1::Site { name, limit_bytes_per_second, hosts, hosts_connected, content_bytes } = message;
        let limit = ByteRate::from_bytes_per_second(limit_bytes_per_second);
        Self {
            name,
            limit,
            limit_bytes_per_second: limit.map(ByteRate::bytes_per_second),
            hosts,
            hosts_connected,
            content_bytes,
        }
    }
}

impl From<v1::Operator> for Operator {
    fn from(message: v1::Operator) -> Self {
        let v1::Operator { name, role, revoked, enrolled_unix } = message;
        Self { name, role, revoked, enrolled_at: at_seconds(enrolled_unix) }
    }
}

impl From<v1::AuditEntry> for AuditEntry {
    fn from(message: v1::AuditEntry) -> Self {
        let v1::AuditEntry { number, at_unix_ms, actor, action, subject, detail, hash } = message;
        // Detail is a JSON object by contract; anything else is shown as the text it is.
        let detail = serde_json::from_str(&detail).unwrap_or(serde_json::Value::String(detail));
        Self { number, at: at_millis(at_unix_ms), actor, action, subject, detail, hash: hex::encode(hash) }
    }
}
