//! Who asks checks: the effect behind them. The driver says which and when; what the answers come to is decided in
//! [`mod@super::check::verdict`].

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use sluice_common::name::{AppName, HostName, RolloutId, Version};
use tokio::task::{Id, JoinSet};

use super::check::{Check, CheckName, Outcome, Said};
use super::model::Rollout;
use crate::clock::Clock;

/// What a check is about.
#[derive(Debug, Clone)]
pub struct About {
    /// The rollout.
    pub rollout: RolloutId,
    /// The application.
    pub app: AppName,
    /// The version that comes.
    pub version: Version,
    /// The batch that bakes, counted from 0.
    pub batch: usize,
    /// How many batches there are.
    pub batches: usize,
    /// The hosts of the batch.
    pub hosts: Vec<HostName>,
}

/// Asks checks.
#[async_trait]
pub trait Prober: Send + Sync {
    /// Asks once, for no longer than the check's time limit; says what came of it and why, in a line.
    async fn probe(&self, check: &Check, about: &About) -> (Outcome, String);
}

/// The probes of one rollout that are under way. Dropped, they are given up.
#[derive(Default)]
pub(super) struct Probing {
    tasks: JoinSet<Said>,
    /// What each of them is about.
    asked: HashMap<Id, (usize, CheckName)>,
}

impl Probing {
    /// Asks these checks of the current batch, but for those under way.
    pub(super) fn ask(
        &mut self,
        names: &[CheckName],
        rollout: &Rollout,
        prober: &Arc<dyn Prober>,
        clock: &Clock,
    ) {
        let batch = rollout.cursor.batch;
        for name in names {
            let key = (batch, name.clone());
            let check = rollout.spec.checks.iter().find(|check| check.name == *name);
            let Some(check) = check.filter(|_| !self.asked.values().any(|asked| *asked == key)) else {
                continue;
            };
            let (check, about) = (check.clone(), about(rollout));
            let (prober, at) = (Arc::clone(prober), clock.now());
            let task = self.tasks.spawn(async move {
                let (outcome, words) = prober.probe(&check, &about).await;
                Said { at, outcome, words }
            });
            self.asked.insert(task.id(), key);
        }
    }

    /// Waits for the next answer; for ever where nothing was asked.
    pub(super) async fn next(&mut self) -> (usize, CheckName, Said) {
        loop {
            let Some(ended) = self.tasks.join_next_with_id().await else {
                return std::future::pending().await;
            };
            let id = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
            let Some((batch, name)) = self.asked.remove(&id) else { continue };
            match ended {
                Ok((_, said)) => return (batch, name, said),
                // It is due still, and asked again.
                Err(error) => {
                    tracing::error!(check = %name, error = &error as &dyn std::error::Error, "a check died");
                }
            }
        }
    }
}

fn about(rollout: &Rollout) -> About {
    let batch = rollout.cursor.batch;
    let hosts = rollout.batches.get(batch).cloned().unwrap_or_default();
    About {
        rollout: rollout.id.clone(),
        app: rollout.app.clone(),
        version: rollout.version.clone(),
        batch,
        batches: rollout.batches.len(),
        hosts: rollout.members[hosts].iter().map(|member| member.host.clone()).collect(),
    }
}
