//! A release as it runs here: what it says of itself, the slot it has, the variables that its hooks and checks see.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use sluice_common::name::AppName;
use sluice_common::order::Installed;
use sluice_common::spec::{Hook, Spec};

use super::{Engine, blocking, specs};
use crate::content::Origin;
use crate::health::Subject;
use crate::hook::{self, Call};
use crate::layout::{AppDir, LinkName};
use crate::observe;
use crate::sequence::{Event, Whose};
use crate::state::{AppState, Switch};
use crate::update;

/// A release of an application in its slot.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    /// The application: another than the engine's where a configuration restarts what reads it.
    pub(super) app: AppName,
    pub(super) dir: AppDir,
    pub(super) release: Installed,
    pub(super) spec: Spec,
    pub(super) slot: Option<String>,
    /// What `previous` leads to, or will, when it is called.
    pub(super) previous: Option<Installed>,
}

impl Instance {
    /// Returns the variables of its slot.
    fn slot_variables(&self) -> BTreeMap<String, String> {
        let Some(slot) = &self.slot else { return BTreeMap::new() };
        let slots = self.spec.parallel.as_ref().map(|parallel| &parallel.slots);
        let mut variables = slots.and_then(|slots| slots.get(slot)).cloned().unwrap_or_default();
        variables.insert("SLOT".into(), slot.clone());
        variables
    }
}

/// Returns the name of the variable that says what a need is met by: `SLUICE_NEED_USERS_API` of `users-api`.
fn need_variable(app: &AppName) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("SLUICE_NEED_{}", app.as_str().chars().map(letter).collect::<String>())
}

impl<O: Origin> Engine<O> {
    /// Reads a release's `sluice.toml` after checking it, and the programs it names, against the signed manifest.
    pub(super) async fn spec(&self, release: &Installed) -> io::Result<Spec> {
        let (dir, package, known) = (self.dir.clone(), release.package, self.specs.clone());
        let spec = blocking(move || known.load(&dir, &package)).await?;
        Ok(if self.is_agent() { update::adapt(spec) } else { spec })
    }

    /// Makes an instance of a release of this application.
    pub(super) async fn instance(
        &self,
        release: Installed,
        slot: Option<String>,
        previous: Option<Installed>,
    ) -> io::Result<Instance> {
        let spec = self.spec(&release).await?;
        Ok(Instance { app: self.app.clone(), dir: self.dir.clone(), release, spec, slot, previous })
    }

    /// Returns the release that a step speaks to, and its slot; nothing where there is none.
    pub(super) fn addressee(&self, whose: Whose, switch: &Switch) -> Option<Installed> {
        match whose {
            Whose::Old => switch.predecessor.clone(),
            Whose::New => self.wanted_release(),
            Whose::Application => None,
        }
    }

    /// Returns the instance that a step speaks to; nothing where there is none.
    pub(super) async fn instance_of(&self, whose: Whose, switch: &Switch) -> io::Result<Option<Instance>> {
        if whose == Whose::Application {
            return self.application(switch).await;
        }
        let Some(release) = self.addressee(whose, switch) else { return Ok(None) };
        let (slot, previous) = match whose {
            Whose::Old => (switch.old_slot.clone(), switch.previous.clone()),
            Whose::New | Whose::Application => (switch.new_slot.clone(), switch.predecessor.clone()),
        };
        self.instance(release, slot, previous).await.map(Some)
    }

    /// Returns what runs of the application that the configuration is of.
    async fn application(&self, switch: &Switch) -> io::Result<Option<Instance>> {
        let Some(app) = self.configured(switch).await? else { return Ok(None) };
        let dir = AppDir::new(&self.host.root, &app);
        let found = dir.clone();
        let (current, previous, slot) = blocking(move || {
            let link = |name| Ok::<_, io::Error>(observe::link(&found, name)?.installed().cloned());
            let state = AppState::load(&found.state()).map_err(io::Error::other)?;
            let slot = state.and_then(|state| state.standing.slot);
            Ok((link(LinkName::Current)?, link(LinkName::Previous)?, slot))
        })
        .await?;
        let Some(release) = current else { return Ok(None) };
        let (found, package) = (dir.clone(), release.package);
        let spec = blocking(move || specs::load(&found, &package)).await?;
        Ok(Some(Instance { app, dir, release, spec, slot, previous }))
    }

    /// Returns the application that the configuration on its way is of.
    pub(super) async fn configured(&self, switch: &Switch) -> io::Result<Option<AppName>> {
        let Some(release) = self.wanted_release().or_else(|| switch.predecessor.clone()) else {
            return Ok(None);
        };
        Ok(self.spec(&release).await?.of)
    }

    /// Returns the call of an instance's hook; nothing where it has none.
    pub(super) fn call(&self, event: Event, instance: &Instance, snapshot: Option<&str>) -> Option<Call> {
        let Hook { command, timeout, environment, user, pass } = event.hook(&instance.spec)?;
        let mut variables = self.environment(instance);
        variables.insert("LIFECYCLE_EVENT".into(), event.as_str().into());
        if let Some(snapshot) = snapshot {
            variables.insert("SNAPSHOT".into(), snapshot.to_owned());
        }
        for name in pass {
            if let Ok(value) = std::env::var(name) {
                variables.insert(name.clone(), value);
            }
        }
        variables.extend(environment.clone());
        Some(Call {
            command: command.clone(),
            release: instance.dir.release(&instance.release.package),
            environment: variables,
            timeout: *timeout,
            user: user.clone(),
            id: hook::new_id(&format!("{}hook", self.scope())),
        })
    }

    /// Returns what the checks of an instance are asked of.
    pub(super) fn subject(&self, instance: &Instance) -> Arc<Subject> {
        Arc::new(Subject {
            checks: instance.spec.health.clone(),
            environment: self.environment(instance),
            release: instance.dir.release(&instance.release.package),
            scope: format!("{}check", self.scope()),
        })
    }

    /// Returns the variables that an instance's hooks, actions and checks see.
    pub(super) fn environment(&self, instance: &Instance) -> BTreeMap<String, String> {
        let Instance { app, dir, release, spec: _, slot: _, previous } = instance;
        let mut variables = self.host.variables.get(app).cloned().unwrap_or_default();
        variables.extend(instance.slot_variables());
        let version = release.version.to_string();
        let previous = previous.as_ref().map(|release| release.version.to_string());
        let directory = dir.release(&release.package).to_string_lossy().into_owned();
        for (name, value) in [
            ("APPLICATION_NAME", app.to_string()),
            ("VERSION", version.clone()),
            ("RELEASE_VERSION", version),
            ("PREVIOUS_VERSION", previous.unwrap_or_default()),
            ("RELEASE_DIR", directory),
        ] {
            variables.insert(name.into(), value);
        }
        if let Some(state) = &self.state {
            variables.insert("ROLLOUT_ID".into(), state.rollout.to_string());
            variables.insert("GENERATION".into(), state.generation.to_string());
            let need = |(app, by): (&AppName, &String)| (need_variable(app), by.clone());
            variables.extend(state.needs.iter().map(need));
        }
        variables
    }
}
