//! What was refused, into log and audit log, at a bounded rate: a peer that knocks a thousand times a second must
//! fill neither.
//!
//! Task: [`run`], one for the service. In: a bounded channel from every [`Refusals`] handle; what does not fit is dropped.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Entry};
use crate::store::{self, Actor, Store};

/// Refusals of one actor that are recorded at once, and then each minute: enough to see a pattern.
const PER_MINUTE: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");
/// Refusals that wait to be written.
const WAITING: usize = 64;
/// Actors remembered before those with nothing on their account are forgotten.
const ACTORS_MAX: usize = 10_000;

struct Refused {
    actor: Actor,
    action: &'static str,
    subject: String,
    reason: String,
}

/// Takes note of refusals. Cheap to clone.
#[derive(Clone)]
pub struct Refusals {
    sender: mpsc::Sender<Refused>,
    limiter: Arc<DefaultKeyedRateLimiter<String>>,
}

/// The receiving end, for [`run`].
pub struct Inbox(mpsc::Receiver<Refused>);

impl Refusals {
    /// Makes the two ends.
    pub fn new() -> (Self, Inbox) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let limiter = Arc::new(RateLimiter::keyed(Quota::per_minute(PER_MINUTE)));
        (Self { sender, limiter }, Inbox(receiver))
    }

    /// Logs a refusal and hands it to the audit log, unless the actor had too many already.
    pub fn record(&self, actor: Actor, action: &'static str, subject: &str, reason: impl Display) {
        if self.limiter.len() > ACTORS_MAX {
            self.limiter.retain_recent();
        }
        if self.limiter.check_key(&actor.to_string()).is_err() {
            return;
        }
        let reason = reason.to_string();
        tracing::warn!(actor = %actor, action, subject, reason, "refused");
        let refused = Refused { actor, action, subject: subject.chars().take(120).collect(), reason };
        // Full: the log has it, and a flood must not slow down those who are let in.
        let _ = self.sender.try_send(refused);
    }
}

/// Writes refusals into the audit log until cancelled.
pub async fn run(mut inbox: Inbox, store: Store, stop: CancellationToken) {
    loop {
        let refused = tokio::select! {
            () = stop.cancelled() => return,
            refused = inbox.0.recv() => refused,
        };
        let Some(refused) = refused else { return };
        if let Err(error) = write(&store, refused).await {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot audit a refusal");
        }
    }
}

async fn write(store: &Store, refused: Refused) -> Result<(), store::Error> {
    let Refused { actor, action, subject, reason } = refused;
    let mut tx = store.begin(actor).await?;
    audit::append(&mut tx, Entry { action, subject: &subject, detail: json!({"reason": reason}) }).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Schema;

    #[tokio::test]
    async fn a_flood_leaves_a_few_entries_and_each_actor_has_its_own_account() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        let (refusals, inbox) = Refusals::new();
        for _ in 0..1_000 {
            refusals.record(Actor::newcomer("192.0.2.1"), "access.refuse", "/x", "no");
        }
        refusals.record(Actor::newcomer("192.0.2.2"), "access.refuse", "/x", "no");
        drop(refusals);
        run(inbox, store.clone(), CancellationToken::new()).await;
        let entries = audit::list(&store, 0, 1_000).await.unwrap();
        let of = |address: &str| entries.iter().filter(|entry| entry.actor.ends_with(address)).count();
        assert_eq!((of("192.0.2.1"), of("192.0.2.2")), (PER_MINUTE.get() as usize, 1));
    }
}
