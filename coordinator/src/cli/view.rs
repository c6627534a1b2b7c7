//! The JSON shapes of the command line, and the only place where wire messages become them.
//!
//! Keys are stable, in snake case, with their unit in their name; moments are RFC 3339 in UTC (`..._at`), digests
//! `sha256:...`. What is not known is `null`. Tables and live views are made of the same values.

pub(super) mod depot;
pub(super) mod environment;
pub(super) mod fleet;
pub(super) mod forecast;
pub(super) mod plan;
pub(super) mod release;
pub(super) mod rollout;

use jiff::Timestamp;
use serde::Serialize;
use sluice_common::digest::Digest;
use sluice_common::order::Phase;
use sluice_proto::v1;

/// A package on a host and the version of its release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Installed {
    pub(super) package: String,
    pub(super) version: String,
}

impl Installed {
    /// Takes the message; one without a package says that nothing is installed.
    pub(super) fn from_wire(message: Option<v1::Installed>) -> Option<Self> {
        let v1::Installed { package, version } = message?;
        (!package.is_empty()).then(|| Self { package: digest(&package), version })
    }
}

/// Where a host stands; `None` for a phase that this version does not know.
fn phase(value: i32) -> Option<Phase> {
    match v1::Phase::try_from(value).unwrap_or_default() {
        v1::Phase::Unspecified => None,
        v1::Phase::Fetching => Some(Phase::Fetching),
        v1::Phase::Staged => Some(Phase::Staged),
        v1::Phase::Candidate => Some(Phase::Candidate),
        v1::Phase::Draining => Some(Phase::Draining),
        v1::Phase::Switching => Some(Phase::Switching),
        v1::Phase::Validating => Some(Phase::Validating),
        v1::Phase::Active => Some(Phase::Active),
        v1::Phase::Reverting => Some(Phase::Reverting),
        v1::Phase::Reverted => Some(Phase::Reverted),
        v1::Phase::Failed => Some(Phase::Failed),
    }
}

/// Formats raw digest bytes; bytes that are none, in hex as they are.
fn digest(bytes: &[u8]) -> String {
    Digest::from_slice(bytes).map_or_else(|| hex::encode(bytes), |digest| digest.to_string())
}

/// Returns the 12 digits that people read of a formatted digest.
pub(super) fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}

/// Takes seconds since 1970; zero says never.
fn at_seconds(seconds: i64) -> Option<Timestamp> {
    (seconds != 0).then(|| Timestamp::from_second(seconds).ok()).flatten()
}

/// Takes milliseconds since 1970; zero says never.
pub(super) fn at_millis(millis: i64) -> Option<Timestamp> {
    (millis != 0).then(|| Timestamp::from_millisecond(millis).ok()).flatten()
}

/// Takes an empty text as none.
pub(super) fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
