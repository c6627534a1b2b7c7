//! Start, wiring and stop of the service.
//!
//! Start: store, identities, fleet, depot, rollouts, TLS, socket, `DATA/address`. Stop, in turn: the listener takes no
//! more connections, sessions end, calls get a few seconds, tasks are joined, the database is closed.
//!
//! Tasks, all on one tracker and ended by one token: the listener (and its own), refusals, times last seen, the
//! coordinator's certificate, the rollouts' service, the environments, the sender of notifications, the planning of transfers ahead, one session per connected host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::name::HostName;
use sluice_proto::v1::administration_server::AdministrationServer;
use sluice_proto::v1::content_server::ContentServer;
use sluice_proto::v1::depot_server::DepotServer;
use sluice_proto::v1::enrollment_server::EnrollmentServer;
use sluice_proto::v1::environments_server::EnvironmentsServer;
use sluice_proto::v1::fleet_server::FleetServer;
use sluice_proto::v1::forecasts_server::ForecastsServer;
use sluice_proto::v1::notifications_server::NotificationsServer;
use sluice_proto::v1::packages_server::PackagesServer;
use sluice_proto::v1::records_server::RecordsServer;
use sluice_proto::v1::rollouts_server::RolloutsServer;
use sluice_proto::v1::session_server::SessionServer;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::Config;
use super::data::DataDir;
use super::forecast::Survey;
use super::surroundings::Around;
use crate::access::{Gate, Refusals, Roster, refusals};
use crate::authority::administration::AdministrationService;
use crate::authority::enrolment::EnrollmentService;
use crate::authority::{Authority, own};
use crate::checks::Checks;
use crate::depot::Depot;
use crate::depot::collect::service::DepotService;
use crate::depot::content::{ContentService, OrderBook};
use crate::depot::plans::{Improver, Plans};
use crate::depot::service::PackagesService;
use crate::environment::{self, EnvironmentsService};
use crate::fleet::service::FleetService;
use crate::fleet::session::SessionService;
use crate::fleet::{Fleet, RolloutSink};
use crate::listener::{Connections, Listener, Routes, Serve};
use crate::notify::{NotificationsService, Sender};
use crate::outbound::Outbound;
use crate::rollout;
use crate::rollout::RecordsService;
use crate::rollout::forecast::{ForecastsService, Surroundings};
use crate::rollout::service::RolloutsService;
use crate::store::{self, Schema, Store};

/// Time that tasks have to end at the stop before they are left behind; nothing they do needs as long.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest message of a newcomer: a token and a signing request, a few KiB each.
const ENROLMENT_BYTES_MAX: usize = 32 << 10;

/// A running coordinator.
pub struct Coordinator {
    address: SocketAddr,
    data: DataDir,
    store: Store,
    depot: Arc<Depot>,
    tasks: TaskTracker,
    /// The tasks without which the service is none: the listener and the rollouts.
    vital: JoinSet<anyhow::Result<()>>,
}

/// Everything that was opened, before it is wired.
struct Parts {
    store: Store,
    roster: Roster,
    authority: Authority,
    fleet: Fleet,
    connections: Connections,
    refusals: Refusals,
    depot: Arc<Depot>,
    plans: Arc<Plans>,
    improver: Arc<Improver>,
    rollouts: rollout::Handle,
    environments: environment::Handle,
    sender: Sender,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Starts a coordinator; on return it accepts connections and `DATA/address` says where.
pub async fn start(config: &Config, data: DataDir, stop: CancellationToken) -> anyhow::Result<Coordinator> {
    let store = Store::open(data.path(), Schema::Migrate).await?;
    let roster = Roster::open(&store).await?;
    let authority = Authority::open(data.path(), store.clone(), roster.clone()).await?;
    authority.prepare_bootstrap(data.path()).await?;
    let fleet = Fleet::open(store.clone(), config.limit).await?;
    let depot = Depot::open(store.clone(), &data.path().join("depot"), stop.clone())?;
    let outbound = Outbound::default();
    let prober =
        Arc::new(Checks::new(outbound.clone(), config.check_commands.clone(), config.credentials.clone()));
    let sender = Sender::new(store.clone(), outbound);
    let (rollout_service, rollouts) = rollout::Service::new(store.clone(), Arc::new(fleet.clone()), prober);
    let (environment_service, environments) = environment::Service::new(store.clone(), rollouts.clone());
    let (refusals, inbox) = Refusals::new();
    let (current, tls) = watch::channel(own::configuration(&authority)?);
    let listener = Listener::bind(config.listen).await?;
    let address = listener.address();

    let tasks = TaskTracker::new();
    tasks.spawn(refusals::run(inbox, store.clone(), stop.clone()));
    tasks.spawn(fleet.clone().run(stop.clone()));
    tasks.spawn(sender.clone().run(stop.clone()));
    tasks.spawn(own::run(authority.clone(), roster.clone(), current, stop.clone()));
    tasks.spawn(environment_service.run(stop.clone()));
    let plans = Plans::new(depot.clone(), config.plans.policy.first());
    let forecast = Survey { store: store.clone(), fleet: fleet.clone(), rollouts: rollouts.clone() };
    let improver = Improver::new(plans.clone(), Arc::new(forecast), config.plans);
    tasks.spawn(improver.clone().run(stop.clone()));
    let (connections, stop_rollouts) = (Connections::default(), stop.clone());
    let parts = Parts {
        store: store.clone(),
        roster,
        authority,
        fleet,
        connections: connections.clone(),
        refusals,
        plans,
        improver,
        depot: depot.clone(),
        rollouts,
        environments,
        sender,
        tasks: tasks.clone(),
        stop: stop.clone(),
    };
    let gate = Gate::new(parts.roster.clone(), parts.refusals.clone());
    let serve = Serve { routes: routes(parts), gate, tls, connections, tasks: tasks.clone(), stop };
    let mut vital = JoinSet::new();
    vital.spawn(async move { rollout_service.run(stop_rollouts).await.context("the rollouts failed") });
    vital.spawn(async move { Ok(listener.serve(serve).await?) });
    data.write_address(address)?;
    tracing::info!(%address, data = %data.path().display(), version = env!("CARGO_PKG_VERSION"), "coordinator ready");
    Ok(Coordinator { address, data, store, depot, tasks, vital })
}

/// Puts every service where its calls come in.
fn routes(parts: Parts) -> Routes {
    let Parts {
        store,
        roster,
        authority,
        fleet,
        connections,
        refusals,
        depot,
        plans,
        improver,
        rollouts,
        environments,
        sender,
        tasks,
        stop,
    } = parts;
    let around = Around { fleet: fleet.clone(), plans: plans.clone() };
    let around: Arc<dyn Surroundings> = Arc::new(around);
    let forecasts = ForecastsService::new(rollouts.clone(), Arc::clone(&around));
    let rollout_rpcs = RolloutsService::new(rollouts.clone(), Arc::clone(&around), stop.clone());
    let sink: Arc<dyn RolloutSink> = Arc::new(rollouts.clone());
    let enrolment = EnrollmentService::new(authority.clone(), fleet.clone(), refusals);
    let session = SessionService::new(fleet.clone(), sink.clone(), authority.clone(), tasks, stop);
    let administration = AdministrationService::new(authority, fleet.clone(), connections, store.clone());
    let hosts = FleetService::new(fleet.clone(), sink, roster);
    let content = ContentService::new(plans, Arc::new(Orders(rollouts)), fleet);
    let max = caps::GRPC_MESSAGE_BYTES_MAX;
    Routes::default()
        .with(EnrollmentServer::new(enrolment).max_decoding_message_size(ENROLMENT_BYTES_MAX))
        .with(SessionServer::new(session).max_decoding_message_size(max))
        .with(ContentServer::new(content).max_decoding_message_size(max))
        .with(AdministrationServer::new(administration).max_decoding_message_size(max))
        .with(FleetServer::new(hosts).max_decoding_message_size(max))
        .with(DepotServer::new(DepotService::new(depot.clone())).max_decoding_message_size(max))
        .with(PackagesServer::new(PackagesService::new(depot, improver)).max_decoding_message_size(max))
        .with(RecordsServer::new(RecordsService::new(store.clone())).max_decoding_message_size(max))
        .with(
            NotificationsServer::new(NotificationsService::new(store, sender)).max_decoding_message_size(max),
        )
        .with(
            EnvironmentsServer::new(EnvironmentsService::new(environments, around))
                .max_decoding_message_size(max),
        )
        .with(ForecastsServer::new(forecasts).max_decoding_message_size(max))
        .with(RolloutsServer::new(rollout_rpcs).max_decoding_message_size(max))
}

/// The rollouts, as the content service asks them.
struct Orders(rollout::Handle);

#[async_trait]
impl OrderBook for Orders {
    async fn may_fetch(&self, host: &HostName, package: &Digest) -> Result<bool, store::Error> {
        self.0.may_fetch(host, package).await
    }
}

impl Coordinator {
    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until a vital task ends, which it does only when it failed or was told to stop.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        match self.vital.join_next().await {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(error)) => Err(error).context("a vital task panicked"),
        }
    }

    /// Waits, after the token was cancelled, until everything has ended.
    pub async fn stopped(mut self) -> anyhow::Result<()> {
        let mut result = Ok(());
        let all = async {
            while let Some(ended) = self.vital.join_next().await {
                result = ended.context("a vital task panicked").and_then(|ended| ended);
                if let Err(error) = &result {
                    tracing::error!("{error:#}");
                }
            }
            self.tasks.close();
            self.tasks.wait().await;
            self.depot.ended().await;
        };
        if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
            tracing::warn!("some tasks did not end in time and are left behind");
        }
        self.store.close().await;
        self.data.remove_address()?;
        tracing::info!("coordinator stopped");
        result
    }
}

#[cfg(test)]
mod tests;
