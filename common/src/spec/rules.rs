//! Rules that several tables share.

use std::time::Duration;

use super::SpecError;
use crate::path::RelPathBuf;

/// Checks a command: a program, from `PATH`, absolute or inside the package, and its arguments.
pub(super) fn check_command(field: &str, command: &[String]) -> Result<(), SpecError> {
    let fail = |reason: String| Err(SpecError::field(field, reason));
    match command.first() {
        None => fail("is empty; write a program and its arguments".into()),
        Some(program) if program.starts_with('/') => Ok(()),
        Some(program) if program.contains('/') => {
            match program.strip_prefix("./").unwrap_or(program).parse::<RelPathBuf>() {
                Ok(_) => Ok(()),
                Err(error) => fail(format!("{error}; name a program inside the package")),
            }
        }
        Some(program) if program.is_empty() => fail("has an empty program".into()),
        Some(_) => Ok(()),
    }
}

/// Checks that a time is longer than zero.
pub(super) fn check_duration(field: &str, time: Duration) -> Result<(), SpecError> {
    if time.is_zero() {
        return Err(SpecError::field(field, "must be longer than zero"));
    }
    Ok(())
}

/// Checks the name of a systemd unit: with its suffix, and nothing that systemctl would take for an option or a pattern.
pub(super) fn check_unit(field: &str, unit: &str) -> Result<(), SpecError> {
    const SUFFIXES: [&str; 4] = [".service", ".target", ".socket", ".timer"];
    let fail = |reason: String| Err(SpecError::field(field, reason));
    if !SUFFIXES.iter().any(|suffix| unit.strip_suffix(suffix).is_some_and(|name| !name.is_empty())) {
        return fail(format!("{unit:?} has no suffix; write the whole name, as in \"shop.service\""));
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "@.-_:\\${}".contains(c);
    match unit.chars().find(|c| !is_allowed(*c)) {
        Some(c) => fail(format!("{unit:?} holds {c:?}, which no name of a unit has")),
        None if unit.starts_with('-') => fail(format!("{unit:?} begins with '-', which is an option")),
        None => Ok(()),
    }
}
