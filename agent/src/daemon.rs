//! The running agent: checks, opens, starts, and ends everything in order.
//!
//! | task | in | out |
//! |---|---|---|
//! | [`Session`] | reports (`watch`) | orders (`mpsc`, 64) |
//! | [`Applications`] | orders | orders to each actor (`mpsc`, 8) |
//! | actor of an application | orders | reports, health subject (`watch`) |
//! | monitor of an application | health subject | reports |
//!
//! On TERM or INT the token is cancelled: staging stops where it is, hooks that run are ended and stay journalled,
//! applications are left alone.

use std::sync::Arc;

use anyhow::Context;
use sluice_common::name::Platform;
use sluice_proto::transport::limiter::Limiter;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
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
use crate::{directories, layout, lock};

/// Orders that wait to be passed on.
const ORDERS: usize = 64;

/// Runs the agent until it is told to stop.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    directories::create(&config.data, &config.root)?;
    let _lock = lock::take(&layout::agent_lock(&config.data))?;
    let identity = Identity::load(&config.data)?;
    tracing::info!(host.id = %identity.host(), version = env!("CARGO_PKG_VERSION"), root = %config.root.display(), "agent starts");
    let token = CancellationToken::new();
    let board = Board::default();
    let dialer = Dialer { coordinators: config.coordinators.clone(), tls: identity.tls() };
    let origin = RemoteOrigin { dialer: dialer.clone(), limiter: Limiter::new(config.limit) };
    let host = Arc::new(host(&config, origin, board.clone()));
    let (sender, orders) = mpsc::channel(ORDERS);
    let applications = Applications::new(host, config.data.clone(), token.clone());
    let session = Session { dialer, identity, board, orders: sender, root: config.root, limit: config.limit };
    let tasks = TaskTracker::new();
    let applications = tasks.spawn(applications.run(orders));
    tasks.spawn(session.run(token.clone()));
    tasks.close();
    stopped(&token).await?;
    token.cancel();
    tasks.wait().await;
    applications.await.context("the applications' task failed")??;
    tracing::info!("agent has stopped; applications are left as they are");
    Ok(())
}

/// Makes what the applications of a host share.
pub(crate) fn host<O>(config: &Config, origin: O, board: Board) -> Host<O> {
    Host {
        root: config.root.clone(),
        rules: Rules {
            trusted_keys: config.trusted_keys.clone(),
            policy: config.policy.clone(),
            platform: Platform::of_this_host(),
        },
        variables: config.variables.clone(),
        origin,
        reuse: config.reuse,
        upkeep: config.upkeep,
        staging: Semaphore::new(1),
        moving: Moving::default(),
        board,
        crash: CrashPoints::default(),
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
