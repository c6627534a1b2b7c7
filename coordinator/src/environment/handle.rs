//! The handle: how operators speak to the environments.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_common::name::{AppName, EnvironmentName, HostName, OperatorName, Version};
use tokio::sync::Notify;

use super::blocker::{Blocker, Wait};
use super::diff::{Difference, diff};
use super::export::{Mixed, export, observed};
use super::layout::{Row, layout};
use super::next::{Step, next};
use super::outline::{Outline, outline};
use super::spec::{Environment, ParseError};
use super::state::State;
use super::store::{self as tables, Change, Stored};
use super::survey::{Question, look};
use super::view::View;
use crate::clock::Clock;
use crate::fleet::RolloutSink as _;
use crate::rollout;
use crate::store::{self, Actor, Store};

/// Speaks to the environments. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) store: Store,
    pub(super) rollouts: rollout::Handle,
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
}

/// What operators and the runner share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Wakes the runner.
    pub(super) wake: Notify,
    refusals: Mutex<HashMap<(EnvironmentName, AppName), String>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<(EnvironmentName, AppName), String>> {
        // What is kept is only said; a thread that panicked left at worst an old word.
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what the rollouts last refused to do for an application, or that they did it.
    pub(super) fn note(&self, environment: &EnvironmentName, app: &AppName, refusal: Option<String>) {
        let key = (environment.clone(), app.clone());
        match refusal {
            Some(words) => drop(self.lock().insert(key, words)),
            None => drop(self.lock().remove(&key)),
        }
    }

    fn refusals(&self, environment: &EnvironmentName) -> Vec<Blocker> {
        let blocker = |((of, app), words): (&(EnvironmentName, AppName), &String)| {
            (of == environment).then(|| Blocker { app: app.clone(), wait: Wait::Refused(words.clone()) })
        };
        self.lock().iter().filter_map(blocker).collect()
    }
}

/// An environment at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// What is stored.
    pub stored: Stored,
    /// The fleet as it sees it.
    pub view: View,
    /// What it waits for.
    pub blockers: Vec<Blocker>,
    /// Whether something is about to be done.
    pub is_moving: bool,
}

/// Says why a file was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The file is wrong.
    #[error("{0}")]
    Parse(#[from] ParseError),
    /// Releases are missing.
    #[error("{}", missing(.0))]
    NoRelease(Vec<(AppName, Version)>),
    /// What stands would break on the way.
    #[error("{}", .0.join("; "))]
    Problems(Vec<String>),
    /// Failed rollouts have closed applications that would change. A run that waited for the cause would try again what failed as
    /// soon as somebody records it.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Closed(Vec<Blocker>),
    /// Another environment has the same application on the same host.
    #[error(
        "environment {other} has {app} on {host} too; let their selections differ, or take {app} out of one of the files"
    )]
    Overlap {
        /// The other one.
        other: EnvironmentName,
        /// The application.
        app: AppName,
        /// A host that both choose.
        host: HostName,
    },
    /// The run before goes back.
    #[error("environment {0} is rolling back; apply again when sluice env show {0} says that it has")]
    RollingBack(EnvironmentName),
    /// The forecast ended in a mistake of its own.
    #[error("the forecast failed; see the coordinator's log")]
    Unforeseen,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Says why a question or command about an environment has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is none of this name.
    #[error("there is no environment {0}; see: sluice env list")]
    None(EnvironmentName),
    /// Its state does not allow it.
    #[error("environment {name} is {state}; it cannot be {asked}")]
    Refused {
        /// Its name.
        name: EnvironmentName,
        /// Where it stands.
        state: &'static str,
        /// What was asked, as a participle.
        asked: &'static str,
    },
    /// What hosts report makes no file.
    #[error("no host reports an application; there is nothing to export")]
    Nothing,
    /// Somebody else was faster.
    #[error("environment {0} has just changed; try again")]
    Overtaken(EnvironmentName),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

fn missing(releases: &[(AppName, Version)]) -> String {
    let names: Vec<String> = releases.iter().map(|(app, version)| format!("{app} {version}")).collect();
    format!("there is no release {}; register it with: sluice release create", names.join(", "))
}

impl Handle {
    /// Says what applying a file would do.
    pub async fn plan(&self, text: &str) -> Result<(Environment, View, Outline), ApplyError> {
        let environment = Environment::parse(text)?;
        let stored = tables::load(&self.store, environment.name()).await?;
        let standing = stored.as_ref().and_then(|stored| stored.standing.as_ref());
        let mut view = self.look_at(&environment).await?;
        // What the run before still does is in the way like anybody else's.
        if let Some(stored) = &stored {
            let progress = self.rollouts.progress(Some((stored.name(), stored.run))).await?;
            for (app, seen) in &mut view {
                let running = progress.unfinished.get(app).cloned();
                seen.others = running.unwrap_or_default();
            }
        }
        let mut outline = outline(&environment, standing, &view);
        match self.overlap(&environment).await {
            Ok(()) => {}
            Err(ApplyError::Store(error)) => return Err(error.into()),
            Err(overlap) => outline.problems.push(overlap.to_string()),
        }
        Ok((environment, view, outline))
    }

    /// Makes a file the desired state. The very file that is under way goes on as it is.
    pub async fn apply(
        &self,
        by: &OperatorName,
        actor: impl Into<Actor>,
        text: &str,
    ) -> Result<EnvironmentName, ApplyError> {
        let environment = Environment::parse(text)?;
        let name = environment.name().clone();
        let view = self.look_at(&environment).await?;
        let released = |app: &AppName| view.get(app).is_some_and(|seen| seen.is_released);
        let missing = environment.applications().iter().filter(|(app, _)| !released(app));
        let missing: Vec<(AppName, Version)> =
            missing.map(|(app, application)| (app.clone(), application.release.clone())).collect();
        if !missing.is_empty() {
            return Err(ApplyError::NoRelease(missing));
        }
        self.overlap(&environment).await?;
        let mut tx = self.store.begin(actor).await?;
        let before = tables::load_in(&mut tx, &name).await?;
        if let Some(before) = &before {
            match before.state {
                State::RollingBack { .. } => return Err(ApplyError::RollingBack(name)),
                State::Applying if before.file == text => return Ok(name),
                State::Applying | State::Standing | State::Stopped { .. } | State::RolledBack { .. } => {}
            }
        }
        let standing = before.as_ref().and_then(|before| before.standing.as_ref());
        let Outline { apps, problems, left: _ } = outline(&environment, standing, &view);
        if !problems.is_empty() {
            return Err(ApplyError::Problems(problems));
        }
        let closed = apps.into_iter().flat_map(|app| app.blockers);
        let closed: Vec<Blocker> = closed.filter(|b| matches!(b.wait, Wait::Closed(_))).collect();
        if !closed.is_empty() {
            return Err(ApplyError::Closed(closed));
        }
        tables::apply(&mut tx, text, &environment, by, self.clock.now()).await?;
        tx.commit().await?;
        tracing::info!(environment = %name, by = %by, apps = environment.applications().len(), "environment applied");
        self.shared.wake.notify_one();
        Ok(name)
    }

    /// Ends a run where it stands, or takes back what it has brought.
    pub async fn stop(
        &self,
        actor: impl Into<Actor>,
        name: &EnvironmentName,
        reason: String,
        roll_back: bool,
    ) -> Result<(), AskError> {
        let mut tx = self.store.begin(actor).await?;
        let stored = tables::load_in(&mut tx, name).await?.ok_or_else(|| AskError::None(name.clone()))?;
        let state = match (&stored.state, roll_back) {
            (State::Applying | State::Stopped { .. }, true) => State::RollingBack { reason },
            (State::Applying, false) => State::Stopped { reason },
            (state, _) => {
                let asked = if roll_back { "taken back" } else { "stopped" };
                return Err(AskError::Refused { name: name.clone(), state: state.as_str(), asked });
            }
        };
        let change = Change { state: Some(state), ..Change::default() };
        if !tables::change(&mut tx, &stored, &change, self.clock.now()).await? {
            return Err(AskError::Overtaken(name.clone()));
        }
        tx.commit().await?;
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Returns the names of all environments.
    pub async fn names(&self) -> Result<Vec<EnvironmentName>, store::Error> {
        tables::names(&self.store).await
    }

    /// Returns an environment as it stands.
    pub async fn status(&self, name: &EnvironmentName) -> Result<Status, AskError> {
        let stored = tables::load(&self.store, name).await?.ok_or_else(|| AskError::None(name.clone()))?;
        let (view, Step { actions, mut blockers }) = self.step(&stored).await?;
        if !stored.state.is_ended() || !actions.is_empty() {
            blockers.extend(self.shared.refusals(name));
        }
        Ok(Status { is_moving: !actions.is_empty(), stored, view, blockers })
    }

    /// Returns what is not as declared.
    pub async fn diff(&self, name: &EnvironmentName) -> Result<(Vec<Difference>, usize), AskError> {
        let Status { stored, view, .. } = self.status(name).await?;
        let looked_at = view.values().map(|seen| seen.hosts.len()).sum();
        Ok((diff(&view, |app| declared(&stored, &view, app)), looked_at))
    }

    /// Returns what runs where.
    pub async fn layout(&self, name: &EnvironmentName) -> Result<Vec<Row>, AskError> {
        let Status { stored, view, .. } = self.status(name).await?;
        Ok(layout(&view, |app| declared(&stored, &view, app)))
    }

    /// Returns the text of what stands; without a name, of what hosts report.
    pub async fn export(&self, name: Option<&EnvironmentName>) -> Result<String, AskError> {
        let Some(name) = name else { return self.export_observed().await };
        let Status { stored, view, .. } = self.status(name).await?;
        let file = export(&stored.wanted, |app| declared(&stored, &view, app));
        written(&file, &[])
    }

    async fn export_observed(&self) -> Result<String, AskError> {
        let reports = self.rollouts.latest_reports(None).await?;
        let name = "observed".parse().expect("a valid name");
        let (file, mixed) = observed(name, &reports);
        if file.applications.is_empty() {
            return Err(AskError::Nothing);
        }
        let note = |(app, versions): &Mixed| {
            let counts: Vec<String> =
                versions.iter().map(|(version, hosts)| format!("{version} on {hosts}")).collect();
            format!("# {app} runs in several versions: {}", counts.join(", "))
        };
        written(&file, &mixed.iter().map(note).collect::<Vec<_>>())
    }

    /// Looks at the fleet for a stored environment, and plans.
    pub(super) async fn step(&self, stored: &Stored) -> Result<(View, Step), store::Error> {
        let in_force = |app: &AppName, stands: bool| stored.in_force(app, stands);
        let run = Some((stored.name(), stored.run));
        let question = Question { run, settled: &stored.settled, apps: stored.apps(), in_force: &in_force };
        let view = look(&self.store, &self.rollouts, &question).await?;
        let step = next(&stored.wanted, stored.standing.as_ref(), &stored.state, &view);
        Ok((view, step))
    }

    /// Looks at the fleet for a file that was not applied.
    async fn look_at(&self, environment: &Environment) -> Result<View, store::Error> {
        let in_force = |_: &AppName, _: bool| Some(environment);
        let apps = environment.applications().keys().cloned().collect();
        let question = Question { run: None, settled: &BTreeSet::new(), apps, in_force: &in_force };
        look(&self.store, &self.rollouts, &question).await
    }

    /// Refuses an application on a host on which another environment has it.
    async fn overlap(&self, environment: &Environment) -> Result<(), ApplyError> {
        let fleet = self.rollouts.hosts_heard();
        for other in tables::names(&self.store).await? {
            if other == *environment.name() {
                continue;
            }
            let Some(stored) = tables::load(&self.store, &other).await? else { continue };
            for app in environment.applications().keys() {
                let both = fleet.iter().map(|(host, _)| host).find(|host| {
                    let selects = |of: &Environment| of.selects(app, &host.name, &host.site, &host.labels);
                    selects(environment) && selects(&stored.wanted)
                });
                if let Some(host) = both {
                    return Err(ApplyError::Overlap { other, app: app.clone(), host: host.name.clone() });
                }
            }
        }
        Ok(())
    }
}

/// Returns the environment whose word holds for an application that was looked at.
pub(super) fn declared<'a>(stored: &'a Stored, view: &View, app: &AppName) -> Option<&'a Environment> {
    stored.in_force(app, view.get(app).is_some_and(super::view::AppView::stands))
}

fn written(file: &super::file::File, notes: &[String]) -> Result<String, AskError> {
    let text = toml::to_string(file).map_err(|error| store::Error::damaged("an exported file", error))?;
    let notes: String = notes.iter().map(|note| format!("{note}\n")).collect();
    Ok(format!("{notes}{text}"))
}
