//! Built-in actions in the place of hooks, and the load probe of a candidate.

use tokio_util::sync::CancellationToken;

use super::Engine;
use super::deeds::Told;
use super::instance::Instance;
use crate::actions::{ActionError, Scene, Service, Traffic};
use crate::content::Origin;
use crate::health;
use crate::sequence::{Event, Whose};
use crate::state::Switch;

impl<O: Origin> Engine<O> {
    /// Performs the built-in action in a hook's place; nothing where the release has none.
    pub(super) async fn act(
        &self,
        event: Event,
        instance: &Instance,
        switch: &Switch,
        token: &CancellationToken,
    ) -> Told {
        // Boxed, as are the others here: few steps have an action, and every step would carry its size.
        match Box::pin(self.try_act(event, instance, switch, token)).await {
            Ok(()) => Told::Done { last_line: None },
            Err(ActionError::Interrupted) => Told::Interrupted,
            Err(ActionError::Failed { reason, output }) => Told::Failed {
                reason: format!("{} of {}: {reason}", event.as_str(), instance.release.version),
                output: (!output.is_empty()).then_some(output),
            },
        }
    }

    async fn try_act(
        &self,
        event: Event,
        instance: &Instance,
        switch: &Switch,
        token: &CancellationToken,
    ) -> Result<(), ActionError> {
        let scene = self.scene(instance);
        let traffic = &instance.spec.traffic;
        let service = || instance.spec.service.as_ref().map(|spec| Service::new(spec, &scene)).transpose();
        match event {
            Event::Candidate | Event::Start => match service()? {
                Some(service) => service.start(token).await,
                None => Ok(()),
            },
            Event::Stop => match service()? {
                Some(service) => service.stop(token).await,
                None => Ok(()),
            },
            Event::Reload => match service()? {
                Some(service) => service.reload(token).await,
                None => Ok(()),
            },
            Event::Drain => Traffic::new(traffic, &scene)?.drain(token).await,
            Event::Undrain => Traffic::new(traffic, &scene)?.ready(token).await,
            Event::Switch => self.take_over(instance, switch, token).await,
            Event::Stage
            | Event::Validate
            | Event::Rollback
            | Event::Snapshot
            | Event::Migrate
            | Event::Restore => Ok(()),
        }
    }

    /// Has the traffic go to an instance instead of to the one in the other slot.
    async fn take_over(
        &self,
        instance: &Instance,
        switch: &Switch,
        token: &CancellationToken,
    ) -> Result<(), ActionError> {
        let scene = self.scene(instance);
        let traffic = Traffic::new(&instance.spec.traffic, &scene)?;
        let mut other = None;
        for whose in [Whose::Old, Whose::New] {
            let found = self.instance_of(whose, switch).await;
            let found = found
                .map_err(|error| ActionError::Failed { reason: error.to_string(), output: String::new() })?;
            other = other.or(found.filter(|found| found.slot != instance.slot));
        }
        let Some(other) = other else { return traffic.ready(token).await };
        let left = self.scene(&other);
        traffic.take_over(&Traffic::new(&other.spec.traffic, &left)?, token).await
    }

    /// Sees whether a candidate bears the load that its release asks for, and is no worse than what is live under the same;
    /// the error says how it is otherwise. Cancel-safe.
    pub(super) async fn bear_load(&self, candidate: &Instance, switch: &Switch) -> Result<(), String> {
        let Some(load) = &candidate.spec.load else { return Ok(()) };
        let live = match load.compare {
            Some(_) => self.instance_of(Whose::Old, switch).await.map_err(|error| error.to_string())?,
            None => None,
        };
        let live = live.map(|live| self.environment(&live));
        Box::pin(health::bear(load, &self.environment(candidate), live.as_ref())).await
    }

    /// Starts what the agent itself runs and nobody else starts again: after a boot, or the end of its supervisor.
    pub(super) async fn keep_running(&self, instance: &Instance) {
        let Some(spec) = &instance.spec.service else { return };
        // What hooks start is theirs.
        if Event::Start.hook(&instance.spec).is_some() {
            return;
        }
        let scene = self.scene(instance);
        let started = async { Service::new(spec, &scene)?.keep_running(&CancellationToken::new()).await };
        if let Err(error) = Box::pin(started).await {
            tracing::warn!(app = %self.app, reason = %error, "application cannot be started");
        }
    }

    fn scene(&self, instance: &Instance) -> Scene {
        Scene {
            base: instance.dir.base().to_owned(),
            slot: instance.slot.clone(),
            release: instance.dir.release(&instance.release.package),
            environment: self.environment(instance),
            scope: self.scope(),
        }
    }
}
