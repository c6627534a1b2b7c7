//! The handle: how sessions, content and operators speak to the rollout component.

use std::sync::Arc;

use jiff::Timestamp;
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::name::{AppName, HostName, OperatorName, RolloutId, Version};
use sluice_common::order::{Desired, Installed, Order, Report, Stage};
use sluice_common::release::SignedRelease;
use tokio::sync::{oneshot, watch};

use super::batches::lower;
use super::command::{Command, Refusal, decide};
use super::hosts::{SelectError, select};
use super::model::{Member, Rollout, Target};
use super::recorder::Record;
use super::shared::Shared;
use super::snapshot::Snapshot;
use super::spec::{Spec, SpecError};
use super::store::{self as tables, CommitError, Line, Standing};
use super::view::Contact;
use crate::depot::releases;
use crate::store::{self, Actor, Store};

/// Attempts at a command that others keep overtaking; each failure means that somebody else made progress.
const ATTEMPTS: usize = 20;

/// Speaks to the rollout component. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// Says why a rollout does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A field of the spec cannot be.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// There is no such release.
    #[error("there is no release {app} {version}; see: sluice release list {app}")]
    NoRelease {
        /// The application.
        app: AppName,
        /// The version.
        version: Version,
    },
    /// The selection cannot have the release.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// Another rollout is at work there.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Says which rollout has to end first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "rollout {rollout} of {app} is not finished on {host}; wait for it, or run: sluice rollout abort {rollout}"
)]
pub struct Busy {
    /// The application.
    pub app: AppName,
    /// The unfinished rollout.
    pub rollout: RolloutId,
    /// A host that both want.
    pub host: HostName,
}

/// Says why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such rollout.
    #[error("there is no rollout {0}; see: sluice rollout list")]
    NoRollout(RolloutId),
    /// The rollout's state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another rollout is at work on its hosts.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// Others changed the rollout again and again.
    #[error("rollout {0} changes too fast; try again")]
    Overtaken(RolloutId),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A session of one host: what it says and what it is to be told.
#[derive(Debug)]
pub struct Attachment {
    shared: Arc<Shared>,
    host: HostName,
    session: u64,
    changes: watch::Receiver<u64>,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Begins a session of a host; an older session of the same host is no longer believed.
    pub fn attach(&self, host: &HostName) -> Attachment {
        let (session, changes) = self.shared.attach(host);
        Attachment { shared: Arc::clone(&self.shared), host: host.clone(), session, changes }
    }

    /// Returns when a host was last heard since this coordinator began.
    pub fn last_heard(&self, host: &HostName) -> Option<Timestamp> {
        self.shared.last_heard(host)
    }

    /// Says whether a host counts as reachable.
    pub fn is_reachable(&self, host: &HostName) -> bool {
        let last = self.shared.last_heard(host);
        last.is_some_and(|last| Contact { since: last, last }.is_fresh(self.shared.clock.now()))
    }

    /// Says whether a host may have this package: whether an order that stands names it.
    pub async fn may_fetch(&self, host: &HostName, package: &Digest) -> Result<bool, store::Error> {
        tables::may_fetch(self.store(), host, package).await
    }

    /// Returns the newest report of every application on a host.
    pub async fn reports(&self, host: &HostName) -> Result<Vec<Report>, store::Error> {
        tables::reports_of(self.store(), host).await
    }

    /// Starts a rollout and returns its id.
    pub async fn start(
        &self,
        by: &OperatorName,
        actor: impl Into<Actor>,
        app: AppName,
        version: Version,
        spec: Spec,
    ) -> Result<RolloutId, StartError> {
        spec.check()?;
        let now = self.shared.clock.now();
        let Some(signed) = releases::get(self.store(), &app, &version).await? else {
            return Err(StartError::NoRelease { app, version });
        };
        let candidates = select(self.store(), &spec.selector, &signed.release, now).await?;
        let batches = lower(&spec.strategy, candidates);
        let mut tx = self.store().begin(actor).await?;
        let number = tables::next_number(&mut tx).await?;
        let rollout = Rollout::new(tables::id_of(number)?, app, version, spec, batches, by.clone(), now);
        if let Some(busy) = clash(&mut tx, &rollout).await? {
            return Err(busy.into());
        }
        tables::insert(&mut tx, &rollout, number).await?;
        tx.commit().await?;
        tracing::info!(rollout.id = %rollout.id, app = %rollout.app, release = %rollout.version, hosts = rollout.members.len(), "rollout started");
        self.drive(&rollout.id).await;
        Ok(rollout.id)
    }

    /// Carries out an operator's command.
    pub async fn command(
        &self,
        actor: impl Into<Actor>,
        id: &RolloutId,
        command: Command,
    ) -> Result<(), CommandError> {
        let actor = actor.into();
        for _ in 0..ATTEMPTS {
            let stored = tables::load(self.store(), id).await?;
            let mut stored = stored.ok_or_else(|| CommandError::NoRollout(id.clone()))?;
            let Some(action) = decide(&stored.rollout, command.clone())? else { return Ok(()) };
            let (was_ended, now) = (stored.rollout.state.is_ended(), self.shared.clock.now());
            stored.rollout.apply(&action, now);
            let mut tx = self.store().begin(actor.clone()).await?;
            if was_ended && let Some(busy) = clash(&mut tx, &stored.rollout).await? {
                return Err(busy.into());
            }
            match tables::commit(&mut tx, &stored.rollout, stored.revision, &[action], now).await {
                Ok(()) => tx.commit().await?,
                Err(CommitError::Conflict) => continue,
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
            tracing::info!(rollout.id = %id, state = %stored.rollout.state, "rollout commanded");
            self.shared.reload(id);
            self.drive(id).await;
            return Ok(());
        }
        Err(CommandError::Overtaken(id.clone()))
    }

    /// Returns a rollout as it stands.
    pub async fn snapshot(&self, id: &RolloutId) -> Result<Option<Snapshot>, store::Error> {
        let Some(stored) = tables::load(self.store(), id).await? else { return Ok(None) };
        Snapshot::take(&self.shared, stored).await.map(Some)
    }

    /// Returns the newest rollouts, of one application or of all, without their reports.
    pub async fn list(&self, app: Option<&AppName>, limit: u32) -> Result<Vec<Snapshot>, store::Error> {
        let mut list = Vec::new();
        for stored in tables::list(self.store(), app, limit).await? {
            list.push(Snapshot::take(&self.shared, stored).await?);
        }
        Ok(list)
    }

    /// Returns a count that changes when the rollout, or a report of one of its hosts, does; nothing while nobody
    /// drives the rollout.
    pub fn changes(&self, id: &RolloutId) -> Option<watch::Receiver<u64>> {
        self.shared.subscribe(id)
    }

    /// Returns what ran where, newest first.
    pub async fn history(
        &self,
        app: &AppName,
        host: Option<&HostName>,
        limit: u32,
    ) -> Result<Vec<Line>, store::Error> {
        tables::history(self.store(), app, host, limit).await
    }

    /// Returns the notes of a release; nothing when there are none.
    pub async fn notes(&self, app: &AppName, version: &Version) -> Result<String, store::Error> {
        let signed = releases::get(self.store(), app, version).await?;
        Ok(signed.map(|signed| signed.release.notes).unwrap_or_default())
    }

    async fn drive(&self, id: &RolloutId) {
        // A component that has stopped drives nothing; the next one takes up what is unfinished.
        let _ = self.shared.wanted.send(id.clone()).await;
    }
}

/// Finds another unfinished rollout of the application that holds a host of this one.
async fn clash(tx: &mut store::Transaction, rollout: &Rollout) -> Result<Option<Busy>, store::Error> {
    let held = tables::unfinished_hosts(tx, &rollout.app).await?;
    let busy = |member: &Member| {
        let other = held.get(&member.host).filter(|id| **id != rollout.id)?;
        Some(Busy { app: rollout.app.clone(), rollout: other.clone(), host: member.host.clone() })
    };
    Ok(rollout.members.iter().find_map(busy))
}

impl Attachment {
    /// Takes note of a sign of life: call it for every message of the host.
    pub fn heard(&self) {
        self.shared.heard(&self.host);
    }

    /// Records a report; on return it is durable and may be acknowledged. Call it for one report after the other.
    pub async fn record(&self, report: Report) -> Result<(), store::Error> {
        self.heard();
        let (done, answer) = oneshot::channel();
        let record = Record { host: self.host.clone(), session: self.session, report, done };
        let stopped = || store::Error::Database(sqlx::Error::PoolClosed);
        self.shared.reports.send(record).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Returns the orders that stand for the host, one for each application that has one. Send them at the beginning
    /// of a session, whenever [`Self::changed`] returns, and every [`caps::ORDER_RENEWAL`].
    pub async fn orders(&self) -> Result<Vec<Order>, store::Error> {
        let mut orders = Vec::new();
        for standing in tables::standing(&self.shared.store, &self.host).await? {
            if standing.state.delivers(&standing.target) {
                orders.extend(self.order(standing).await?);
            }
        }
        Ok(orders)
    }

    /// Waits until the host's orders changed.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // Nobody gives orders any more: the component is gone, and the session will be ended.
            std::future::pending::<()>().await;
        }
    }

    async fn order(&self, standing: Standing) -> Result<Option<Order>, store::Error> {
        let Standing { app, generation, rollout, target, wanted, state: _ } = standing;
        let stage = match target {
            Target::Stage => Stage::Staged,
            Target::Activate { .. } | Target::Restore { .. } | Target::Remove => Stage::Active,
        };
        let desired = match wanted {
            None => Desired::Absent,
            Some(wanted) => match release_of(&self.shared.store, &app, &wanted).await? {
                Some(release) => Desired::Release { stage, release, package: wanted.package },
                None => {
                    tracing::error!(host.id = %self.host, %app, release = %wanted.version, "order withheld: its release is not registered here");
                    return Ok(None);
                }
            },
        };
        Ok(Some(Order { app, generation, rollout, desired, ttl: caps::ORDER_TTL }))
    }
}

/// Finds the signed release of an installed package: that of its version, else any that brings the package.
async fn release_of(
    store: &Store,
    app: &AppName,
    installed: &Installed,
) -> Result<Option<SignedRelease>, store::Error> {
    let named = releases::get(store, app, &installed.version).await?;
    match named.filter(|signed| signed.release.packages.values().any(|package| *package == installed.package))
    {
        Some(signed) => Ok(Some(signed)),
        None => releases::by_package(store, app, &installed.package).await,
    }
}
