//! The handle: how sessions, content and operators speak to the rollout component.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde_json::json;
use sluice_common::digest::Digest;
use sluice_common::name::{AppName, HostName, OperatorName, RolloutId, Version};
use tokio::sync::watch;

use super::batches::lower;
use super::command::{Command, Refusal, decide};
use super::floor::check_room;
use super::hosts::{SelectError, select};
use super::line::LineStop;
use super::model::{Member, Rollout};
use super::shared::Shared;
use super::snapshot::Snapshot;
use super::spec::{Spec, SpecError};
use super::store::{self as tables, CommitError, Line};
use super::view::Observed;
use crate::audit::{self, Entry};
use crate::depot::releases;
use crate::store::{self, Actor, Store};

/// Attempts at a command that others keep overtaking; each failure means that somebody else made progress.
const ATTEMPTS: usize = 20;

/// Speaks to the rollout component. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
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
    /// No candidate of it can run beside the live release.
    #[error(
        "release {app} {version} has no [parallel] slots in its sluice.toml, so it cannot run beside the live release; \
         give it two slots, or choose another strategy than blue-green"
    )]
    NoSlots {
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
    /// A failed rollout has closed the application.
    #[error(
        "{app} is closed to new rollouts since {rollout} failed at {at:.0}: {reason}; \
         once the cause is found, run: sluice app reopen {app} --cause \"...\"; \
         an emergency passes with: --emergency --reason \"...\"",
        app = .0.app, rollout = .0.rollout, at = .0.at, reason = .0.reason
    )]
    Closed(Box<LineStop>),
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

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(super) fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Says whether a host may have this package: whether an order that stands names it.
    pub async fn may_fetch(&self, host: &HostName, package: &Digest) -> Result<bool, store::Error> {
        tables::may_fetch(self.store(), host, package).await
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
        spec.check_calendar(now)?;
        let Some(signed) = releases::get(self.store(), &app, &version).await? else {
            return Err(StartError::NoRelease { app, version });
        };
        let known = tables::fleet_running(self.store(), &app, now).await?;
        let candidates = select(&self.shared.hosts.enrolled(), &known, &spec, &signed.release)?;
        let (runs, batches) = (running(&known), lower(&spec.strategy, candidates));
        let mut tx = self.store().begin(actor).await?;
        let number = tables::next_number(&mut tx).await?;
        let rollout = Rollout::new(tables::id_of(number)?, app, version, spec, batches, by.clone(), now);
        check_room(&rollout, |host| runs.contains(host))?;
        if let Some(busy) = clash(&mut tx, &rollout).await? {
            return Err(busy.into());
        }
        match tables::standing_stop(&mut tx, &rollout.app).await? {
            Some(stop) if rollout.spec.emergency.is_none() => return Err(StartError::Closed(Box::new(stop))),
            Some(stop) => {
                tracing::warn!(rollout.id = %rollout.id, app = %rollout.app, closed_by = %stop.rollout, "emergency");
            }
            None => {}
        }
        tables::insert(&mut tx, &rollout, number).await?;
        tx.commit().await?;
        self.shared.starts.send_modify(|count| *count += 1);
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

    /// Returns a count that changes when a rollout is started.
    pub fn starts(&self) -> watch::Receiver<u64> {
        self.shared.starts.subscribe()
    }

    /// Returns the packages that unfinished rollouts bring to hosts.
    pub async fn unfinished_targets(&self) -> Result<HashMap<(HostName, AppName), Digest>, store::Error> {
        tables::unfinished_targets(self.store()).await
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

    /// Returns what has closed an application to new rollouts: what does so now, then the others, newest first.
    pub async fn stops(&self, app: &AppName, limit: u32) -> Result<Vec<LineStop>, store::Error> {
        tables::stops(self.store(), app, limit).await
    }

    /// Opens an application to new rollouts again; returns what had closed it, nothing where it was open.
    pub async fn reopen(
        &self,
        by: &OperatorName,
        actor: impl Into<Actor>,
        app: &AppName,
        cause: &str,
    ) -> Result<Vec<LineStop>, store::Error> {
        let mut tx = self.store().begin(actor).await?;
        let stops = tables::reopen(&mut tx, app, by, cause, self.shared.clock.now()).await?;
        if stops.is_empty() {
            tx.roll_back().await?;
            return Ok(stops);
        }
        let rollouts: Vec<&str> = stops.iter().map(|stop| stop.rollout.as_str()).collect();
        let detail = json!({ "cause": cause, "rollouts": rollouts });
        audit::append(&mut tx, Entry { action: "app.reopen", subject: app.as_str(), detail }).await?;
        tx.commit().await?;
        tracing::info!(app = %app, cause, "application reopened");
        self.shared.news.send_modify(|count| *count += 1);
        Ok(stops)
    }

    /// Returns the packages of a release, of every platform; none where there is no such release.
    pub(super) async fn packages(
        &self,
        app: &AppName,
        version: &Version,
    ) -> Result<BTreeSet<Digest>, store::Error> {
        let signed = releases::get(self.store(), app, version).await?;
        Ok(signed.into_iter().flat_map(|signed| signed.release.packages.into_values()).collect())
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

/// Returns the hosts that are known to run something.
pub(super) fn running(known: &tables::Fleet) -> HashSet<HostName> {
    let runs = |(observed, _): &(Option<Observed>, _)| observed.as_ref().is_some_and(|o| o.current.is_some());
    known.iter().filter(|(_, known)| runs(known)).map(|(host, _)| host.clone()).collect()
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
