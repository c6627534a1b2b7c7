//! `[hooks]`: commands that a package brings for the events of its life on a host.
//!
//! The order of the fields is that in which a deployment comes to them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::SpecError;
use super::rules::{check_command, check_duration};
use crate::caps;
use crate::units::duration_text;

/// The hooks of a package. Each is optional.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// Makes ready what the release needs beside its files, once it is on disk; what runs is not touched.
    pub stage: Option<Hook>,
    /// Begins the application in its slot, beside what runs.
    pub candidate: Option<Hook>,
    /// Keeps new requests from the application and waits for those under way; of the release that is left.
    pub drain: Option<Hook>,
    /// Ends the running application; the release that is being left brings it.
    pub stop: Option<Hook>,
    /// Moves what points at the application besides `current`: an upstream, an alias.
    pub switch: Option<Hook>,
    /// Begins the application after the switch.
    pub start: Option<Hook>,
    /// Makes the running application take the release without a restart; in place of `stop` and `start`.
    pub reload: Option<Hook>,
    /// Says whether the application works: exit status 0.
    pub validate: Option<Hook>,
    /// Lets requests to the application again, once it has been validated.
    pub undrain: Option<Hook>,
    /// Undoes what the release did outside its tree; run by the release that is left for its predecessor.
    pub rollback: Option<Hook>,
    /// Keeps the shared data as they are; the last line that it prints names what was kept.
    pub snapshot: Option<Hook>,
    /// Changes the shared data to what the release needs.
    pub migrate: Option<Hook>,
    /// Brings the shared data back to the snapshot.
    pub restore: Option<Hook>,
}

/// One command, run in the release directory without a shell.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Program and arguments; a program with a `/` is taken from the release, others from PATH. `${NAME}` is replaced
    /// from the hook's environment.
    pub command: Vec<String>,
    /// How long it may take before it is ended with everything it started.
    #[serde(default = "hook_timeout", with = "duration_text")]
    pub timeout: Duration,
    /// Further environment variables.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Whom it runs as; the agent's own user otherwise.
    #[serde(default)]
    pub user: Option<String>,
    /// Variables of the agent's own environment that it is given too.
    #[serde(default)]
    pub pass: Vec<String>,
}

impl Hooks {
    /// Returns every hook that there is, with its name.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &Hook)> {
        let Self {
            stage,
            candidate,
            drain,
            stop,
            switch,
            start,
            reload,
            validate,
            undrain,
            rollback,
            snapshot,
            migrate,
            restore,
        } = self;
        let hooks = [
            ("stage", stage),
            ("candidate", candidate),
            ("drain", drain),
            ("stop", stop),
            ("switch", switch),
            ("start", start),
            ("reload", reload),
            ("validate", validate),
            ("undrain", undrain),
            ("rollback", rollback),
            ("snapshot", snapshot),
            ("migrate", migrate),
            ("restore", restore),
        ];
        hooks.into_iter().filter_map(|(name, hook)| Some((name, hook.as_ref()?)))
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        for (name, hook) in self.each() {
            hook.check(&format!("hooks.{name}"))?;
        }
        Ok(())
    }
}

impl Hook {
    fn check(&self, place: &str) -> Result<(), SpecError> {
        check_command(&format!("{place}.command"), &self.command)?;
        check_duration(&format!("{place}.timeout"), self.timeout)?;
        if self.user.as_deref() == Some("") {
            return Err(SpecError::field(format!("{place}.user"), "is empty; name a user of the host"));
        }
        for name in self.environment.keys().chain(&self.pass) {
            check_variable(place, name)?;
        }
        Ok(())
    }
}

/// Checks the name of a variable: one that could load code into a program is never passed on.
fn check_variable(place: &str, name: &str) -> Result<(), SpecError> {
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let reason = match name {
        _ if !is_name => "is no name of a variable; use letters, digits and _",
        _ if name.starts_with("LD_") => "would load code into programs; leave it out",
        _ => return Ok(()),
    };
    Err(SpecError::field(format!("{place}.environment or {place}.pass"), format!("{name:?} {reason}")))
}

fn hook_timeout() -> Duration {
    caps::HOOK_TIMEOUT
}
