//! `[parallel]`: two slots in which releases run beside each other.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::SpecError;

/// Where a candidate runs beside the live release.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parallel {
    /// Two slots by name, each with the variables that set what runs there apart: a port at least.
    pub slots: BTreeMap<String, BTreeMap<String, String>>,
}

/// Longest name of a slot: it becomes part of unit names.
const SLOT_NAME_BYTES_MAX: usize = 32;

impl Parallel {
    /// Returns the slot that is free while the live release has `taken`.
    pub fn free(&self, taken: Option<&str>) -> &str {
        self.slots
            .keys()
            .map(String::as_str)
            .find(|slot| Some(*slot) != taken)
            .expect("a checked table has two slots")
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        let fail = |reason: String| Err(SpecError::field("parallel.slots", reason));
        if self.slots.len() != 2 {
            return fail(format!(
                "has {} slots; name two, as in {{ blue = {{ PORT = \"8081\" }}, green = {{ PORT = \"8082\" }} }}",
                self.slots.len()
            ));
        }
        for (slot, variables) in &self.slots {
            let is_name = !slot.is_empty()
                && slot.len() <= SLOT_NAME_BYTES_MAX
                && slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if !is_name {
                return fail(format!("{slot:?} is no name of a slot; use a-z, 0-9 and -"));
            }
            if variables.is_empty() {
                return fail(format!("slot {slot} has no variables; give it a PORT of its own"));
            }
        }
        Ok(())
    }
}
