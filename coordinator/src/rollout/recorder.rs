//! The recorder: takes reports of all sessions and commits them in groups, so that a thousand hosts that speak at once
//! cost a few syncs of the disk. A report is answered once it is durable (I14).

use std::collections::HashMap;
use std::sync::Arc;

use sluice_common::name::{AppName, HostName};
use sluice_common::order::Report;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use super::store::{Recorded, record};
use crate::store::{self, Actor};

/// Most reports in one transaction: some milliseconds of work beside the sync.
const GROUP_MAX: usize = 256;

/// A report on its way to the database.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) host: HostName,
    pub(super) report: Report,
    pub(super) done: oneshot::Sender<Result<(), store::Error>>,
}

/// Commits reports until told to stop.
pub(super) struct Recorder {
    shared: Arc<Shared>,
    reports: mpsc::Receiver<Record>,
    /// How often the host had come or gone when each of its applications was reported last.
    comings: HashMap<(HostName, AppName), u64>,
}

impl Recorder {
    pub(super) fn new(shared: Arc<Shared>, reports: mpsc::Receiver<Record>) -> Self {
        Self { shared, reports, comings: HashMap::new() }
    }

    pub(super) async fn run(mut self, token: CancellationToken) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                count = self.reports.recv_many(&mut group, GROUP_MAX) => {
                    if count == 0 {
                        return;
                    }
                }
            }
            self.write(std::mem::take(&mut group)).await;
        }
    }

    async fn write(&mut self, group: Vec<Record>) {
        let error = match self.commit(&group).await {
            Ok(recorded) => return self.publish(group, &recorded),
            Err(error) => error,
        };
        if group.len() == 1 {
            let record = group.into_iter().next();
            // A session that is gone no longer wants the answer.
            record.map(|record| record.done.send(Err(error)));
            return;
        }
        // One of them may be what the database cannot take: the others must not suffer for it.
        for record in group {
            Box::pin(self.write(vec![record])).await;
        }
    }

    async fn commit(&self, group: &[Record]) -> Result<Vec<Recorded>, store::Error> {
        let now = self.shared.clock.now();
        let mut tx = self.shared.store.begin(Actor::coordinator()).await?;
        let mut recorded = Vec::with_capacity(group.len());
        for Record { host, report, done: _ } in group {
            let last = self.comings.get(&(host.clone(), report.app.clone()));
            let is_first = last.copied() != Some(self.shared.comings(host));
            recorded.push(record(&mut tx, host, report, is_first, now).await?);
        }
        if recorded.iter().all(|recorded| *recorded == Recorded::Old) {
            tx.roll_back().await?;
        } else {
            tx.commit_reports().await?;
        }
        Ok(recorded)
    }

    fn publish(&mut self, group: Vec<Record>, recorded: &[Recorded]) {
        for (Record { host, report, done }, recorded) in group.into_iter().zip(recorded) {
            match recorded {
                Recorded::Old => {}
                Recorded::Progress => self.shared.tell(&host, Some(&report.app), false),
                Recorded::News => self.shared.tell(&host, Some(&report.app), true),
            }
            let comings = self.shared.comings(&host);
            self.comings.insert((host, report.app), comings);
            // A session that is gone no longer wants the answer.
            let _ = done.send(Ok(()));
        }
    }
}
