//! Asks the checks of rollouts: webhooks, Prometheus servers, programs on this host. What the answers come to is decided
//! elsewhere ([`crate::rollout::check`]).
//!
//! Programs run only where the coordinator's configuration names a directory of them, and only those in it: whoever may start a
//! rollout may not run what they like. Servers are shown what the configuration keeps for them ([`credentials`]), which no check can say.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use sluice_common::caps;

use crate::outbound::Outbound;
use crate::rollout::check::{Check, Outcome, Probe};
use crate::rollout::prober::{About, Prober};

mod command;
mod credentials;
mod prometheus;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod webhook;

pub use credentials::{CredentialError, Credentials};

/// Asks checks for the coordinator.
#[derive(Debug, Default)]
pub struct Checks {
    outbound: Outbound,
    commands: Option<PathBuf>,
    credentials: Credentials,
}

impl Checks {
    /// Makes a prober; `commands` is the directory of programs that may be run, nothing where none may.
    pub fn new(outbound: Outbound, commands: Option<PathBuf>, credentials: Credentials) -> Self {
        Self { outbound, commands, credentials }
    }

    /// Makes a request what the configuration says that its server is to see, and asks.
    async fn call(
        &self,
        request: http::Result<Request<Full<Bytes>>>,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), String> {
        let mut request = request.map_err(|error| error.to_string())?;
        let headers = self.credentials.for_url(request.uri()).map_err(|error| error.to_string())?;
        request.headers_mut().extend(headers);
        self.outbound.call(request, timeout).await.map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Prober for Checks {
    async fn probe(&self, check: &Check, about: &About) -> (Outcome, String) {
        let (outcome, words) = match &check.probe {
            Probe::Webhook { url, bound } => webhook::ask(self, check, url, *bound, about).await,
            Probe::Prometheus { url, query, bound } => prometheus::ask(self, check, url, query, *bound).await,
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
