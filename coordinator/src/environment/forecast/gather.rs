//! Puts together what a forecast takes: each rollout of the plan as it would be started now.

use sluice_common::name::OperatorName;

use super::super::handle::{ApplyError, Handle};
use super::super::outline::{Outline, PlannedApp};
use super::super::spec::Environment;
use super::{Ahead, Foresight, foresee};
use crate::rollout::StartError;
use crate::rollout::forecast::{ForecastError, Surroundings};
use crate::store;

impl Handle {
    /// Says what applying a file would do to links, disks and clocks; changes nothing but the transfer plans that are missing.
    pub(in crate::environment) async fn foresee(
        &self,
        by: &OperatorName,
        text: &str,
        surroundings: &dyn Surroundings,
    ) -> Result<Foresight, ApplyError> {
        let begins = self.clock.now();
        let (environment, _, plan) = self.plan(text).await?;
        let ahead = self.ahead(by, &environment, &plan, surroundings).await?;
        let saying = move || foresee(&environment, &plan, ahead, begins);
        tokio::task::spawn_blocking(saying).await.map_err(|_| ApplyError::Unforeseen)
    }

    async fn ahead(
        &self,
        by: &OperatorName,
        environment: &Environment,
        plan: &Outline,
        surroundings: &dyn Surroundings,
    ) -> Result<Vec<Ahead>, store::Error> {
        let mut ahead = Vec::new();
        for PlannedApp { app, parts, .. } in &plan.apps {
            let Some(release) = environment.release(app) else { continue };
            for part in parts {
                let (name, version, spec) = (app.clone(), release.clone(), part.spec.clone());
                let prospect = match self.rollouts.prospect(by, name, version, spec, surroundings).await {
                    Ok(prospect) => Ok(prospect),
                    Err(ForecastError::Start(StartError::Store(error))) => return Err(error),
                    Err(error) => Err(error.to_string()),
                };
                ahead.push(Ahead { app: app.clone(), site: part.site.clone(), prospect });
            }
        }
        Ok(ahead)
    }
}
