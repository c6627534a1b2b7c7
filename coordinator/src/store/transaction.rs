//! Writing transactions, and who acts in them.

use std::fmt;
use std::ops::{Deref, DerefMut};

use sluice_common::identity::Principal;
use sqlx::{Any, AnyConnection};

use super::Error;
use super::strike::{Commit, Kind};

/// Who changes something, as the audit log names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor(String);

impl Actor {
    /// Returns the coordinator itself: its driver, its timers.
    pub fn coordinator() -> Self {
        Self(Principal::Coordinator.to_string())
    }

    /// Returns whoever has a shell on the coordinator's machine and uses an offline command.
    pub fn console() -> Self {
        Self("console".to_owned())
    }

    /// Returns a peer that has no identity yet, by its address.
    pub fn newcomer(address: impl fmt::Display) -> Self {
        Self(format!("newcomer {address}"))
    }
}

impl From<&Principal> for Actor {
    fn from(principal: &Principal) -> Self {
        Self(principal.to_string())
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A writing transaction: derefs to the connection that queries run on. Dropped, it rolls back.
pub struct Transaction {
    inner: sqlx::Transaction<'static, Any>,
    actor: Actor,
    /// The action of its audit entry, once there is one.
    audited: Option<String>,
}

impl Transaction {
    pub(super) fn new(inner: sqlx::Transaction<'static, Any>, actor: Actor) -> Self {
        Self { inner, actor, audited: None }
    }

    /// Returns who acts.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Notes that the audit entry of this transaction is written, and what it says was done.
    pub(crate) fn mark_audited(&mut self, action: &str) {
        self.audited = Some(action.to_owned());
    }

    /// Commits a change of state. On return it is durable. Refuses when no audit entry was appended.
    pub async fn commit(mut self) -> Result<(), Error> {
        let action = self.audited.take().ok_or(Error::Unaudited)?;
        self.end(Kind::Decision(&action)).await
    }

    /// Commits what hosts reported. On return it is durable. Needs no audit entry.
    pub async fn commit_reports(self) -> Result<(), Error> {
        self.end(Kind::Report).await
    }

    /// Commits what was observed and decided by nobody: times seen, content that arrived. Needs no audit entry.
    pub async fn commit_observation(self) -> Result<(), Error> {
        self.end(Kind::Other).await
    }

    async fn end(self, kind: Kind<'_>) -> Result<(), Error> {
        let commit = Commit::begin(kind);
        self.inner.commit().await?;
        commit.end();
        Ok(())
    }

    /// Gives up every change.
    pub async fn roll_back(self) -> Result<(), Error> {
        Ok(self.inner.rollback().await?)
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("actor", &self.actor)
            .field("audited", &self.audited)
            .finish_non_exhaustive()
    }
}

impl Deref for Transaction {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.inner
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }
}
