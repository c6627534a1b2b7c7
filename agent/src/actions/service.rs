//! The processes of an application, whoever runs them.

use sluice_common::spec::{self, Runner};
use tokio_util::sync::CancellationToken;

use super::supervise::Supervised;
use super::systemd::Unit;
use super::{ActionError, Scene};

/// The processes of one release in one slot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Service<'a> {
    spec: &'a spec::Service,
    runner: Running<'a>,
}

#[derive(Debug, Clone, PartialEq)]
enum Running<'a> {
    Systemd(Unit<'a>),
    Supervised(Supervised),
}

impl<'a> Service<'a> {
    /// Makes the actions of a spec in a scene.
    pub(crate) fn new(spec: &'a spec::Service, scene: &'a Scene) -> Result<Self, ActionError> {
        let runner = match &spec.runner {
            Runner::Systemd { unit, .. } => Running::Systemd(Unit::new(scene, unit)?),
            Runner::Exec(exec) => Running::Supervised(Supervised::new(exec, spec.stop_timeout, scene)?),
        };
        Ok(Self { spec, runner })
    }

    /// Starts the application. One that runs as wanted already is left alone.
    pub(crate) async fn start(&self, token: &CancellationToken) -> Result<(), ActionError> {
        match &self.runner {
            Running::Systemd(unit) => unit.start(self.spec.stop_timeout, token).await,
            Running::Supervised(supervised) => supervised.start(token).await,
        }
    }

    /// Starts the application where it should run and nobody else starts it: after a boot, or the end of its supervisor.
    pub(crate) async fn keep_running(&self, token: &CancellationToken) -> Result<(), ActionError> {
        match &self.runner {
            // systemd starts what is enabled, and what is not shall not run.
            Running::Systemd(_) => Ok(()),
            Running::Supervised(supervised) => supervised.keep_running(token).await,
        }
    }

    /// Stops the application with everything it started; one that does not run counts as stopped.
    pub(crate) async fn stop(&self, token: &CancellationToken) -> Result<(), ActionError> {
        match &self.runner {
            Running::Systemd(unit) => unit.stop(self.spec.stop_timeout * 2, token).await,
            Running::Supervised(supervised) => supervised.stop(token).await,
        }
    }

    /// Stops and starts the application.
    pub(crate) async fn restart(&self, token: &CancellationToken) -> Result<(), ActionError> {
        match &self.runner {
            Running::Systemd(unit) => unit.restart(self.spec.stop_timeout * 2, token).await,
            Running::Supervised(supervised) => {
                supervised.stop(token).await?;
                supervised.start(token).await
            }
        }
    }

    /// Has the application take what `current` leads to now without a restart; restarts it where it cannot.
    pub(crate) async fn reload(&self, token: &CancellationToken) -> Result<(), ActionError> {
        if !self.spec.can_reload() {
            return self.restart(token).await;
        }
        match &self.runner {
            Running::Systemd(unit) => unit.reload(self.spec.stop_timeout, token).await,
            Running::Supervised(supervised) => supervised.reload(token).await,
        }
    }
}
