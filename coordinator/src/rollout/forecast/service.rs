//! `Forecasts.*`: what a rollout would do, and how it may go.
//!
//! Simulations run here and not in the command line, for two reasons: what is simulated is the planner that will drive the
//! rollout, whichever version the operator has installed; and the answer is a page where the fleet would be megabytes. In
//! return they are bounded: one at a time, so many runs and so much time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_common::caps;
use sluice_common::name::SiteName;
use sluice_proto::convert::{Invalid, parse};
use sluice_proto::v1;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::gather::ForecastError;
use super::{Prospect, SiteForecast, Surroundings, forecast, staged, wire};
use crate::access::Caller;
use crate::rollout::handle::Handle;
use crate::rollout::simulate::{self, Course, Odds, Scene};
use crate::rollout::view::Contact;
use crate::rollout::wire::spec;

/// The `Forecasts` service.
#[derive(Clone)]
pub struct ForecastsService {
    handle: Handle,
    surroundings: Arc<dyn Surroundings>,
    simulations: Arc<Semaphore>,
}

impl ForecastsService {
    /// Makes the service.
    pub fn new(handle: Handle, surroundings: Arc<dyn Surroundings>) -> Self {
        Self { handle, surroundings, simulations: Arc::new(Semaphore::new(1)) }
    }

    async fn prospect<T>(
        &self,
        request: &Request<T>,
        (app, version): (&str, &str),
        asked: Option<v1::RolloutSpec>,
    ) -> Result<Prospect, Status> {
        let by = Caller::of(request)?.operator()?;
        let (app, version) = (parse("app", app)?, parse("version", version)?);
        let spec = spec(asked.unwrap_or_default())?;
        Ok(self.handle.prospect(by, app, version, spec, &*self.surroundings).await?)
    }
}

impl std::fmt::Debug for ForecastsService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForecastsService").finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl v1::forecasts_server::Forecasts for ForecastsService {
    async fn plan(
        &self,
        request: Request<v1::PlanRolloutRequest>,
    ) -> Result<Response<v1::PlanRolloutResponse>, Status> {
        let v1::PlanRolloutRequest { app, version, spec } = request.get_ref();
        let prospect = self.prospect(&request, (app, version), spec.clone()).await?;
        let saying = tokio::task::spawn_blocking(move || wire::forecast(&prospect, &forecast(&prospect)));
        let said =
            saying.await.map_err(|_| Status::internal("the forecast failed; see the coordinator's log"))?;
        Ok(Response::new(v1::PlanRolloutResponse { forecast: Some(said) }))
    }

    async fn simulate(
        &self,
        request: Request<v1::SimulateRolloutRequest>,
    ) -> Result<Response<v1::SimulateRolloutResponse>, Status> {
        let asked = request.get_ref().clone();
        let odds = wire::odds(&asked)?;
        let runs = match asked.runs {
            0 => return Err(Invalid::new("runs", "is 0; ask for 1 or more".to_owned()).into()),
            runs if runs > caps::SIMULATED_RUNS_MAX => {
                let reason = format!("are {runs}; there may be at most {}", caps::SIMULATED_RUNS_MAX);
                return Err(Invalid::new("runs", reason).into());
            }
            runs => runs,
        };
        let Ok(turn) = self.simulations.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted(
                "another simulation is running; try again when it is done",
            ));
        };
        let prospect = self.prospect(&request, (&asked.app, &asked.version), asked.spec.clone()).await?;
        let simulating = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let begun = Instant::now();
            let Simulation { courses, sites, unheard } = simulate_many(prospect, &odds, asked.seed, runs);
            wire::simulated(&courses, &sites, unheard, begun.elapsed())
        });
        let said = simulating.await;
        Ok(Response::new(
            said.map_err(|_| Status::internal("the simulation failed; see the coordinator's log"))?,
        ))
    }
}

/// Many courses of one prospect.
struct Simulation {
    courses: Vec<Course>,
    sites: BTreeMap<SiteName, SiteForecast>,
    unheard: usize,
}

/// Runs a prospect so many times, or as often as there is time for.
fn simulate_many(prospect: Prospect, odds: &Odds, seed: u64, runs: u32) -> Simulation {
    let (mut scene, sites) = staged(&prospect);
    let unheard = hear_everybody(&mut scene);
    let until = Instant::now() + Duration::from_secs(u64::from(caps::SIMULATION_SECONDS_MAX));
    let mut courses = Vec::new();
    for run in 0..u64::from(runs) {
        if run > 0 && Instant::now() >= until {
            break;
        }
        // Neighbouring seeds must not share runs: each seed has a range of its own.
        courses.push(simulate::run(
            &scene,
            odds,
            seed.wrapping_mul(u64::from(caps::SIMULATED_RUNS_MAX)) + run,
        ));
    }
    Simulation { courses, sites, unheard }
}

/// Takes hosts that cannot be heard for heard: with one of them lost for good no run would ever end.
fn hear_everybody(scene: &mut Scene) -> usize {
    let begins = scene.begins;
    let unheard = scene.fleet.values_mut().filter(|view| !view.is_reachable(begins));
    unheard.map(|view| view.contact = Some(Contact { since: begins, last: begins })).count()
}

impl From<ForecastError> for Status {
    fn from(error: ForecastError) -> Self {
        match error {
            ForecastError::Start(error) => error.into(),
            ForecastError::Transfer(_) => Self::failed_precondition(error.to_string()),
        }
    }
}
