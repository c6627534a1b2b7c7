//! Watching a rollout: whatever changes is sent, until it has ended or the coordinator stops.

use std::time::Duration;

use sluice_common::name::RolloutId;
use sluice_proto::v1;
use tokio::sync::watch;
use tonic::Status;

use super::RolloutsService;
use crate::rollout::wire;

/// Time between two looks of a watching operator at most: blockers count seconds.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two looks at least: many hosts report at once.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// A watching operator: gets the rollout now, and whenever it looks different, until it has ended.
pub(super) struct Watching {
    service: RolloutsService,
    id: RolloutId,
    changes: Option<watch::Receiver<u64>>,
    /// What was read and not yet sent.
    next: Option<v1::Rollout>,
    sent: Option<v1::Rollout>,
    /// How many hosts of what is being sent were named, where one message has no room for all.
    named: Option<usize>,
}

impl Watching {
    pub(super) fn new(service: RolloutsService, id: RolloutId, first: v1::Rollout) -> Self {
        Self { changes: service.handle.changes(&id), service, id, next: Some(first), sent: None, named: None }
    }

    /// Waits until the rollout looks different, and says how; nothing once it has ended.
    pub(super) async fn step(mut self) -> Result<Option<(v1::WatchRolloutResponse, Self)>, Status> {
        if let (Some(named), Some(sent)) = (self.named, &self.sent) {
            let next = wire::piece(sent.clone(), named);
            return Ok(Some(self.say(named, next)));
        }
        loop {
            let rollout = match self.next.take() {
                Some(first) => first,
                None if self.sent.as_ref().is_some_and(|sent| sent.ended_unix_ms != 0) => return Ok(None),
                None => {
                    tokio::select! {
                        () = self.service.stop.cancelled() => {
                            return Err(Status::unavailable("the coordinator is stopping; watch again"));
                        }
                        () = look_again(&mut self.changes) => {}
                    }
                    self.service.rollout(&self.id).await?
                }
            };
            if self.sent.as_ref() != Some(&rollout) {
                self.sent = Some(rollout.clone());
                return Ok(Some(self.say(0, wire::piece(rollout, 0))));
            }
        }
    }

    /// Says a piece, before which so many hosts were named.
    fn say(mut self, before: usize, piece: v1::Rollout) -> (v1::WatchRolloutResponse, Self) {
        self.named = (piece.hosts_left > 0).then(|| before + wire::named(&piece));
        (v1::WatchRolloutResponse { rollout: Some(piece) }, self)
    }
}

async fn look_again(changes: &mut Option<watch::Receiver<u64>>) {
    tokio::time::sleep(LOOK_PAUSE).await;
    let changed = async {
        // A driver that is gone says nothing more; time does.
        let is_told = match changes {
            Some(changes) => changes.changed().await.is_ok(),
            None => false,
        };
        if !is_told {
            std::future::pending::<()>().await;
        }
    };
    let _ = tokio::time::timeout(LOOK_INTERVAL, changed).await;
}
