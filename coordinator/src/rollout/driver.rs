//! The driver of one rollout: reads, plans, commits, tells sessions; waits for news or for the time the plan named.
//!
//! Checks that the plan wants asked run beside it, as tasks that end with it; their answers are news like any other.
//! It chooses nothing. It may die at any moment: whoever comes after it reads what was committed and plans again. It
//! need not be alone either: a commit that was planned on an older revision is refused, and planned anew.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sluice_common::name::{HostName, RolloutId};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::action::Action;
use super::check::{CheckName, Said};
use super::model::Rollout;
use super::plan::plan;
use super::prober::Probing;
use super::shared::{Inbox, Shared};
use super::store::{self as tables, CommitError, Fleet, Stored};
use super::view::{FleetView, HostView};
use crate::store::{self, Actor};

/// Time before a driver tries again after the database failed for a moment.
const RETRY: Duration = Duration::from_secs(1);
/// Time before a driver tries again where a row is damaged: somebody has to repair it first.
const RETRY_DAMAGED: Duration = Duration::from_secs(60);
/// News of more hosts than this are read as a whole.
const HOSTS_READ_SINGLY: usize = 200;

/// Drives one rollout until it has ended.
pub(super) struct Driver {
    shared: Arc<Shared>,
    id: RolloutId,
    inbox: Arc<Inbox>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, id: RolloutId) -> Self {
        let inbox = shared.inbox(&id);
        Self { shared, id, inbox }
    }

    /// Drives until the rollout has ended or `token` says to stop; survives failures of the database.
    pub(super) async fn run(self, token: CancellationToken) {
        let span = tracing::info_span!("rollout", rollout.id = %self.id);
        async {
            while let Err(error) = self.drive(&token).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "rollout cannot be driven, will try again"
                );
                let pause = if error.is_retryable() { RETRY } else { RETRY_DAMAGED };
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
        .instrument(span)
        .await;
    }

    async fn drive(&self, token: &CancellationToken) -> Result<(), store::Error> {
        let Some((mut stored, mut fleet)) = self.read().await? else { return Ok(()) };
        let mut probing = Probing::default();
        loop {
            let (hosts, reload) = self.inbox.take();
            if reload {
                let Some(fresh) = self.read().await? else { return Ok(()) };
                (stored, fleet) = fresh;
            } else {
                self.refresh(&stored.rollout, &mut fleet, hosts).await?;
                stored.rollout.awaits = tables::awaited(&self.shared.store, &stored.rollout).await?;
            }
            if stored.rollout.state.is_ended() {
                tracing::info!(state = %stored.rollout.state, "rollout has ended");
                return Ok(());
            }
            self.shared.see(&mut fleet);
            let plan = plan(&stored.rollout, &fleet, self.shared.clock.now());
            if !plan.actions.is_empty() {
                self.commit(&mut stored, &mut fleet, &plan.actions).await?;
                continue;
            }
            probing.ask(&plan.probes, &stored.rollout, &self.shared.prober, &self.shared.clock);
            let wake = plan.wake.map(|at| self.shared.clock.instant(at));
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                () = self.inbox.woken() => {}
                () = until(wake) => {}
                (batch, name, said) = probing.next() => self.sampled(&mut stored, batch, name, said).await?,
            }
        }
    }

    /// Keeps what a check said: nobody decided it, what follows from it is the next plan's.
    async fn sampled(
        &self,
        stored: &mut Stored,
        batch: usize,
        name: CheckName,
        said: Said,
    ) -> Result<(), store::Error> {
        tracing::debug!(batch = batch + 1, check = %name, outcome = %said.outcome, words = said.words, "check answered");
        let mut tx = self.shared.store.begin(Actor::coordinator()).await?;
        let tally = tables::sampled(&mut tx, &self.id, batch, &name, said).await?;
        tx.commit_reports().await?;
        stored.rollout.tallies.insert((batch, name), tally);
        self.inbox.changed();
        Ok(())
    }

    async fn read(&self) -> Result<Option<(Stored, FleetView)>, store::Error> {
        let now = self.shared.clock.now();
        let Some(mut stored) = tables::load(&self.shared.store, &self.id).await? else { return Ok(None) };
        stored.forget_future(now);
        // First listen, then read: what is reported in between is read twice rather than never.
        let hosts = stored.rollout.members.iter().map(|member| member.host.clone());
        self.inbox.listen(&stored.rollout.app, hosts);
        let mut fleet: FleetView =
            stored.rollout.members.iter().map(|member| (member.host.clone(), HostView::default())).collect();
        merge(&mut fleet, tables::fleet(&self.shared.store, &stored.rollout, now).await?);
        Ok(Some((stored, fleet)))
    }

    async fn refresh(
        &self,
        rollout: &Rollout,
        fleet: &mut FleetView,
        hosts: HashSet<HostName>,
    ) -> Result<(), store::Error> {
        let (store, now) = (&self.shared.store, self.shared.clock.now());
        let hosts: Vec<HostName> = hosts.into_iter().collect();
        match hosts.len() {
            0 => {}
            1..=HOSTS_READ_SINGLY => merge(fleet, tables::fleet_of(store, &rollout.app, &hosts, now).await?),
            _ => merge(fleet, tables::fleet(store, rollout, now).await?),
        }
        Ok(())
    }

    /// Commits a plan and tells whom it concerns. A conflict makes the next round read everything again.
    async fn commit(
        &self,
        stored: &mut Stored,
        fleet: &mut FleetView,
        actions: &[Action],
    ) -> Result<(), store::Error> {
        let now = self.shared.clock.now();
        for action in actions {
            stored.rollout.apply(action, now);
        }
        let mut tx = self.shared.store.begin(Actor::coordinator()).await?;
        match tables::commit(&mut tx, &stored.rollout, stored.revision, actions, now).await {
            Ok(()) => tx.commit().await?,
            Err(CommitError::Conflict) => {
                tx.roll_back().await?;
                tracing::debug!("plan was overtaken");
                self.inbox.reload();
                return Ok(());
            }
            Err(CommitError::Store(error)) => return Err(error),
        }
        stored.revision += 1;
        for action in actions {
            log(&stored.rollout, action);
            let Action::Order { member, generation, .. } = action else { continue };
            let host = &stored.rollout.members[*member].host;
            fleet.entry(host.clone()).or_default().generation = *generation;
            self.shared.hosts.notify_orders(host);
        }
        self.inbox.changed();
        Ok(())
    }
}

fn merge(fleet: &mut FleetView, known: Fleet) {
    for (host, (observed, generation)) in known {
        if let Some(view) = fleet.get_mut(&host) {
            (view.observed, view.generation) = (observed, generation);
        }
    }
}

async fn until(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// Logs what an operator can see.
fn log(rollout: &Rollout, action: &Action) {
    match action {
        Action::HostFailed { member, failure } => {
            let host = rollout.members.get(*member).map(|member| member.host.as_str());
            tracing::warn!(host.id = host, %failure, "host failed");
        }
        Action::CheckFailed { batch, name, reason } => {
            tracing::warn!(batch = batch + 1, check = %name, reason, "check failed");
        }
        Action::BatchOpened { batch } => tracing::info!(batch = batch + 1, "batch opened"),
        Action::BatchPassed { batch } => tracing::info!(batch = batch + 1, "batch passed"),
        Action::BeginRollback { reason } => tracing::warn!(reason, "rolling back"),
        Action::Pause { reason } => tracing::warn!(reason, "paused"),
        Action::Approve { by } => tracing::info!(%by, "approved"),
        Action::Override { reason } => tracing::warn!(reason, "calendar overridden"),
        Action::Migrates { member } => {
            let host = rollout.members.get(*member).map(|member| member.host.as_str());
            tracing::info!(host.id = host, "migrates shared data, if the release has any");
        }
        Action::Ready => tracing::info!("ready, but for those that it comes together with"),
        Action::Order { .. }
        | Action::BakeStarted { .. }
        | Action::BakeBroken { .. }
        | Action::Resume
        | Action::Finish { .. } => {}
    }
}
