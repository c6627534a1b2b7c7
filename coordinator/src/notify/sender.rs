//! The task that tells listeners: one event each at a time, oldest first.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http_body_util::Full;
use jiff::Timestamp;
use sluice_common::caps;
use tokio_util::sync::CancellationToken;

use super::event::Event;
use super::signature;
use super::store::{self as tables, Ended, Queued};
use crate::clock::{Clock, after, elapsed};
use crate::outbound::Outbound;
use crate::store::{self, Store};

/// Time between two looks at the queue: what is told is told to people.
const LOOK: Duration = Duration::from_secs(1);
/// Wait after the first failure; doubled with each.
const AGAIN_MIN: Duration = Duration::from_secs(5);
/// Longest wait between two attempts.
const AGAIN_MAX: Duration = Duration::from_secs(3600);
/// Time that a listener has to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Tells listeners.
#[derive(Debug, Clone)]
pub struct Sender {
    store: Store,
    outbound: Outbound,
    clock: Clock,
}

impl Sender {
    /// Makes a sender.
    pub fn new(store: Store, outbound: Outbound) -> Self {
        Self { store, outbound, clock: Clock::of_process() }
    }

    /// Tells until told to stop. What is under way then is told again by the next sender.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                told = self.tell() => if let Err(error) = told {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot tell listeners, will try again");
                },
            }
        }
    }

    /// Tells every listener the oldest that is due, and what follows it as long as all goes well.
    pub(super) async fn tell(&self) -> Result<(), store::Error> {
        loop {
            let now = self.clock.now();
            let heads = tables::heads(&self.store).await?;
            let due: Vec<Queued> = heads.into_iter().filter(|queued| queued.due <= now).collect();
            if due.is_empty() {
                return Ok(());
            }
            for told in join_all(due.iter().map(|queued| self.tell_one(queued))).await {
                told?;
            }
        }
    }

    async fn tell_one(&self, queued: &Queued) -> Result<(), store::Error> {
        let Queued { listener, url, secret, id, event, body, tries, created, .. } = queued;
        let answer = self.post(url, secret, id, event, body.clone().into()).await;
        let now = self.clock.now();
        let ended = match answer {
            Ok(_) => Ended::Delivered,
            Err(error) if elapsed(*created, now) >= caps::NOTIFICATION_AGE_MAX => Ended::Dropped { error },
            Err(error) => Ended::Again { due: after(now, wait(*tries)), error },
        };
        match &ended {
            Ended::Delivered => tracing::debug!(listener, id, "listener told"),
            Ended::Again { error, .. } => {
                tracing::warn!(listener, id, error, "listener not told, will try again");
            }
            Ended::Dropped { error } => tracing::error!(listener, id, error, "listener not told, given up"),
        }
        tables::ended(&self.store, queued, &ended, now).await
    }

    /// Tells a listener of a test, now; says what it answered, or why it could not be told.
    pub(super) async fn test(&self, name: &str, url: &str, secret: &str) -> Result<String, String> {
        let event = Event::test(name, self.clock.now());
        self.post(url, secret, &event.id, event.kind, event.body.to_string().into()).await
    }

    async fn post(
        &self,
        url: &str,
        secret: &str,
        id: &str,
        event: &str,
        body: Bytes,
    ) -> Result<String, String> {
        let signed = signature::sign(secret, Timestamp::now().as_second(), &body);
        let request = Request::post(url)
            .header("content-type", "application/json")
            .header("user-agent", concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .header("sluice-event", event)
            .header("sluice-delivery", id)
            .header(signature::HEADER, signed)
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let (status, _) = self.outbound.call(request, TIMEOUT).await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(status.to_string()) } else { Err(format!("answered {status}")) }
    }
}

/// Returns how long to wait after so many failures before this one.
fn wait(tries: u32) -> Duration {
    AGAIN_MIN.saturating_mul(2_u32.saturating_pow(tries)).min(AGAIN_MAX)
}
