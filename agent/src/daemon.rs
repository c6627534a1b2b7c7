//! The running agent: checks, opens, starts, and ends everything in order.
//!
//! | task | in | out |
//! |---|---|---|
//! | [`Session`] | reports (`watch`) | orders (`mpsc`, 64) |
//! | [`Applications`] | orders | orders to each actor (`mpsc`, 8) |
//! | actor of an application | orders | reports, health subject (`watch`) |
//! | monitor of an application | health subject | reports |
//! | [`alive::tell`] | connection (`watch`) | the service manager's watchdog; the proof that this agent runs |
//! | [`live::tell`] | reports, connection (`watch`) | a file for `status` |
//!
//! On TERM or INT the token is cancelled: staging stops where it is, hooks that run are ended and stay journalled,
//! applications are left alone.

use std::sync::Arc;

use anyhow::Context;
use sluice_common::name::Platform;
use sluice_proto::transport::limiter::Limiter;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::Rules;
use crate::applications::Applications;
use crate::board::Board;
use crate::config::Config;
use crate::content::{Dialer, RemoteOrigin};
use crate::crash::CrashPoints;
use crate::engine::{Host, Moving};
use crate::identity::Identity;
use crate::session::Session;
use crate::status::live;
use crate::update::{Own, alive};
use crate::{directories, layout, lock};

/// Orders that wait to be passed on.
const ORDERS: usize = 64;

/// What the agent ended for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to stop.
    Stopped,
    /// Another release of it is to run in its place.
    GivesWay,
}

/// Runs the agent until it is told to stop, or to give way to another release of itself.
pub(crate) async fn run(config: Config) -> anyhow::Result<Ended> {
    directories::create(&config.data, &config.root)?;
    let _lock = lock::take(&layout::agent_lock(&config.data))?;
    let identity = Identity::load(&config.data)?;
    tracing::info!(host.id = %identity.host(), version = env!("CARGO_PKG_VERSION"), root = %config.root.display(), "agent starts");
    let token = CancellationToken::new();
    let board = Board::default();
    let dialer = Dialer { coordinators: config.coordinators.clone(), tls: identity.tls() };
    let origin = RemoteOrigin { dialer: dialer.clone(), limiter: Limiter::new(config.limit) };
    let host = Arc::new(host(&config, origin, board.clone()));
    let give_way = host.own.give_way.clone();
    let (sender, orders) = mpsc::channel(ORDERS);
    let applications = Applications::new(host, config.data.clone(), token.clone());
    let (connection, connected) = watch::channel(None);
    let tasks = TaskTracker::new();
    tasks.spawn(live::tell(config.data.clone(), board.clone(), connected.clone(), token.clone()));
    tasks.spawn(alive::tell(config.data, connected, token.clone()));
    let session = Session {
        dialer,
        identity,
        board,
        connection,
        orders: sender,
        disk_floor: config.upkeep.retention.disk_floor,
        root: config.root,
        limit: config.limit,
    };
    let applications = tasks.spawn(applications.run(orders));
    tasks.spawn(session.run(token.clone()));
    tasks.close();
    let ended = tokio::select! {
        stopped = stopped(&token) => stopped.map(|()| Ended::Stopped)?,
        () = give_way.cancelled() => Ended::GivesWay,
    };
    if ended == Ended::Stopped {
        alive::ends();
    }
    token.cancel();
    tasks.wait().await;
    applications.await.context("the applications' task failed")??;
    tracing::info!("agent has stopped; applications are left as they are");
    Ok(ended)
}

/// Makes what the applications of a host share.
pub(crate) fn host<O>(config: &Config, origin: O, board: Board) -> Host<O> {
    Host {
        root: config.root.clone(),
        rules: rules(config),
        variables: config.variables.clone(),
        origin,
        reuse: config.reuse,
        upkeep: config.upkeep,
        staging: Semaphore::new(1),
        verifying: Semaphore::new(1),
        own: Own::of_this_process(),
        moving: Moving::default(),
        board,
        crash: CrashPoints::default(),
    }
}

/// Returns what this host takes.
pub(crate) fn rules(config: &Config) -> Rules {
    Rules {
        trusted_keys: config.trusted_keys.clone(),
        policy: config.policy.clone(),
        platform: Platform::of_this_host(),
    }
}

async fn stopped(token: &CancellationToken) -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        () = token.cancelled() => {}
    }
    tracing::info!("agent is stopping");
    Ok(())
}
