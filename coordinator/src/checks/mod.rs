//! Asks the checks of rollouts: webhooks, Prometheus servers, programs on this host. What the answers come to is decided
//! elsewhere ([`crate::rollout::check`]).
//!
//! Programs run only where the coordinator's configuration names a directory of them, and only those in it: whoever may start a
//! rollout may not run what they like.

use std::path::PathBuf;

use async_trait::async_trait;
use sluice_common::caps;

use crate::outbound::Outbound;
use crate::rollout::check::{Check, Outcome, Probe};
use crate::rollout::prober::{About, Prober};

mod command;
mod prometheus;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod webhook;

/// Asks checks for the coordinator.
#[derive(Debug, Default)]
pub struct Checks {
    outbound: Outbound,
    commands: Option<PathBuf>,
}

impl Checks {
    /// Makes a prober; `commands` is the directory of programs that may be run, nothing where none may.
    pub fn new(outbound: Outbound, commands: Option<PathBuf>) -> Self {
        Self { outbound, commands }
    }
}

#[async_trait]
impl Prober for Checks {
    async fn probe(&self, check: &Check, about: &About) -> (Outcome, String) {
        let (outcome, words) = match &check.probe {
            Probe::Webhook { url, bound } => webhook::ask(&self.outbound, check, url, *bound, about).await,
            Probe::Prometheus { url, query, bound } => {
                prometheus::ask(&self.outbound, check, url, query, *bound).await
            }
            Probe::Command { command } => match &self.commands {
                Some(dir) => command::run(dir, command, check, about).await,
                None => inconclusive(
                    "this coordinator runs no programs; name their directory in its configuration, as check_commands",
                ),
            },
        };
        (outcome, line(&words))
    }
}

fn inconclusive(why: impl ToString) -> (Outcome, String) {
    (Outcome::Inconclusive, why.to_string())
}

/// Makes one line of what somebody else said.
fn line(words: &str) -> String {
    let mut line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    line.retain(|c| !c.is_control());
    if line.len() > caps::CHECK_WORDS_BYTES_MAX {
        line.truncate(line.floor_char_boundary(caps::CHECK_WORDS_BYTES_MAX));
        line += "…";
    }
    line
}
