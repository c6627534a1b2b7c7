//! Wire to domain and back. Every field is destructured, so that a new one cannot be forgotten; what does not
//! fit is an [`Invalid`] that names the field.

mod orders;
mod releases;

use std::str::FromStr;
use std::time::Duration;

use sluice_common::digest::Digest;
use tonic::Status;

/// Says which field of a message is not valid, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The field.
    pub field: &'static str,
    /// Why.
    pub reason: String,
}

impl Invalid {
    /// Makes an error about `field`.
    pub fn new(field: &'static str, reason: impl ToString) -> Self {
        Self { field, reason: reason.to_string() }
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        Self::invalid_argument(invalid.to_string())
    }
}

/// Parses a name, version, selector or other text value.
pub fn parse<T: FromStr<Err: ToString>>(field: &'static str, text: &str) -> Result<T, Invalid> {
    text.parse().map_err(|error: T::Err| Invalid::new(field, error))
}

/// Takes 32 bytes as a digest.
pub fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, Invalid> {
    Digest::from_slice(bytes)
        .ok_or_else(|| Invalid::new(field, format!("{} bytes are no SHA-256", bytes.len())))
}

/// Takes 32 bytes as a digest, and no bytes as none.
pub fn optional_digest(field: &'static str, bytes: &[u8]) -> Result<Option<Digest>, Invalid> {
    if bytes.is_empty() { Ok(None) } else { digest(field, bytes).map(Some) }
}

/// Takes a field that must be set.
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::new(field, "is missing"))
}

/// Returns whole milliseconds, at most `u64::MAX`.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns whole microseconds, at most `u64::MAX`.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
