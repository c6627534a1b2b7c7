//! Built-in actions: what most applications would otherwise need a script for.
//!
//! [`Service`] starts and ends the application's processes, [`Traffic`] keeps requests away while it changes. Both are made from a
//! release's `sluice.toml` and a [`Scene`]. Invariant: every action may be repeated, after a crash too, and then does
//! what is left to do; every action has a time limit and ends early when its token is cancelled. Called by the engine,
//! one action at a time.

mod command;
mod haproxy;
mod nginx;
mod processes;
mod service;
mod supervise;
mod systemd;
mod traffic;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use sluice_common::spec::expand;
use sluice_common::units::format_duration;
use tokio_util::sync::CancellationToken;

pub(crate) use service::Service;
pub(crate) use supervise::run as run_supervisor;
pub(crate) use systemd::Unit;
pub(crate) use traffic::Traffic;

/// Where actions are performed: a release in a slot of an application.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scene {
    /// The application's own directory; actions write nowhere else.
    pub(crate) base: PathBuf,
    /// The slot; nothing where the application has only one.
    pub(crate) slot: Option<String>,
    /// The release's tree.
    pub(crate) release: PathBuf,
    /// The variables that a spec may use.
    pub(crate) environment: BTreeMap<String, String>,
    /// Begins the marks of the commands that actions run.
    pub(crate) scope: String,
}

impl Scene {
    /// Replaces the variables in the text of a field.
    fn fill(&self, field: &str, text: &str) -> Result<String, ActionError> {
        expand(text, &self.environment).map_err(|name| {
            ActionError::failed(format!("{field} needs the variable {name}; set it in agent.toml"))
        })
    }
}

/// Says why an action did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ActionError {
    /// The agent stops; the action is to be repeated.
    #[error("was interrupted")]
    Interrupted,
    /// It failed.
    #[error("{reason}")]
    Failed {
        /// Why, and what to do.
        reason: String,
        /// Head and tail of what a command printed; may be empty.
        output: String,
    },
}

impl ActionError {
    fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into(), output: String::new() }
    }
}

/// Performs `work` within `limit`, unless the agent stops before.
async fn limited<T>(
    what: &str,
    limit: Duration,
    token: &CancellationToken,
    work: impl Future<Output = Result<T, ActionError>>,
) -> Result<T, ActionError> {
    tokio::select! {
        done = tokio::time::timeout(limit, work) => done.unwrap_or_else(|_| {
            Err(ActionError::failed(format!("{what} took longer than {}", format_duration(limit))))
        }),
        () = token.cancelled() => Err(ActionError::Interrupted),
    }
}

#[cfg(test)]
mod testing {
    use super::*;

    /// Makes a scene in a directory, with these variables.
    pub(super) fn scene(base: &std::path::Path, variables: &[(&str, &str)]) -> Scene {
        Scene {
            base: base.to_owned(),
            slot: None,
            release: base.to_owned(),
            environment: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            scope: "test".into(),
        }
    }
}
