//! The balancers in front of an application, as one.

use sluice_common::spec;
use tokio_util::sync::CancellationToken;

use super::haproxy::Haproxy;
use super::nginx::Nginx;
use super::{ActionError, Scene};

/// What sends requests to one release in one slot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Traffic<'a> {
    haproxy: Option<Haproxy>,
    nginx: Option<Nginx<'a>>,
}

impl<'a> Traffic<'a> {
    /// Makes the actions of a spec in a scene.
    pub(crate) fn new(spec: &'a spec::Traffic, scene: &'a Scene) -> Result<Self, ActionError> {
        Ok(Self {
            haproxy: spec.haproxy.as_ref().map(|haproxy| Haproxy::new(haproxy, scene)).transpose()?,
            nginx: spec.nginx.as_ref().map(|nginx| Nginx::new(nginx, scene)).transpose()?,
        })
    }

    /// Keeps new requests away, and waits until those under way have ended, or the time that the spec gives them is over.
    pub(crate) async fn drain(&self, token: &CancellationToken) -> Result<(), ActionError> {
        if let Some(haproxy) = &self.haproxy {
            haproxy.drain(token).await?;
        }
        match &self.nginx {
            Some(nginx) => nginx.drain(token).await,
            None => Ok(()),
        }
    }

    /// Lets requests come, and waits until the balancers send them.
    pub(crate) async fn ready(&self, token: &CancellationToken) -> Result<(), ActionError> {
        if let Some(haproxy) = &self.haproxy {
            haproxy.ready(token).await?;
        }
        match &self.nginx {
            Some(nginx) => nginx.ready(token).await,
            None => Ok(()),
        }
    }

    /// Takes the requests over from another slot: first they may come here, then no longer there. What is under way
    /// there is waited for, where the two are servers of their own; with one server whose address changes it goes on in the
    /// other slot, which therefore has to stay up for the longest request.
    pub(crate) async fn take_over(
        &self,
        from: &Traffic<'_>,
        token: &CancellationToken,
    ) -> Result<(), ActionError> {
        self.ready(token).await?;
        if let Some(left) = from.haproxy.as_ref().and_then(|from| from.without(self.haproxy.as_ref())) {
            left.drain(token).await?;
        }
        // nginx has one line for the application; being ready has pointed it here.
        match (&from.nginx, &self.nginx) {
            (Some(from), None) => from.drain(token).await,
            (Some(_) | None, _) => Ok(()),
        }
    }
}
