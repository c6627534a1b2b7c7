//! The applications of a host: starts an actor for each that stands on disk, and for each that an order names.
//!
//! One task. In: orders from the session, by a bounded channel. Out: orders to each actor, by a bounded channel each; a
//! full one drops an order, which the coordinator repeats. Actors run in a [`JoinSet`] and are joined at the end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use sluice_common::caps;
use sluice_common::name::AppName;
use sluice_common::order::Order;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::actor;
use crate::content::Origin;
use crate::engine::Host;

/// Orders that wait for one actor: it looks at the newest only.
const INBOX: usize = 8;

/// Runs the applications of a host.
pub(crate) struct Applications<O> {
    host: Arc<Host<O>>,
    data: PathBuf,
    actors: HashMap<AppName, mpsc::Sender<Order>>,
    tasks: JoinSet<()>,
    token: CancellationToken,
}

impl<O: Origin> Applications<O> {
    /// Makes the runner; `data` holds the locks.
    pub(crate) fn new(host: Arc<Host<O>>, data: PathBuf, token: CancellationToken) -> Self {
        Self { host, data, actors: HashMap::new(), tasks: JoinSet::new(), token }
    }

    /// Runs until the token is cancelled, and then until every actor has ended.
    pub(crate) async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> std::io::Result<()> {
        for app in self.known()? {
            self.start(app);
        }
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.deliver(order),
                    None => break,
                },
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(error = %error, "actor of an application failed");
                    }
                }
                () = self.token.cancelled() => break,
            }
        }
        self.actors.clear();
        while self.tasks.join_next().await.is_some() {}
        Ok(())
    }

    /// Returns the applications that have state on disk.
    fn known(&self) -> std::io::Result<Vec<AppName>> {
        let mut known = Vec::new();
        for entry in fs_err::read_dir(&self.host.root)? {
            let entry = entry?;
            if entry.path().join("state.toml").is_file()
                && let Some(app) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            {
                known.push(app);
            }
        }
        known.sort();
        Ok(known)
    }

    fn deliver(&mut self, order: Order) {
        let app = order.app.clone();
        if self.actors.get(&app).is_none_or(mpsc::Sender::is_closed) {
            if self.actors.len() >= caps::APPS_PER_HOST_MAX && !self.actors.contains_key(&app) {
                tracing::error!(app = %app, max = caps::APPS_PER_HOST_MAX, "too many applications; order is dropped");
                return;
            }
            self.start(app.clone());
        }
        if self.actors.get(&app).is_some_and(|actor| actor.try_send(order).is_err()) {
            tracing::warn!(app = %app, "application is busy; order is dropped until it is repeated");
        }
    }

    fn start(&mut self, app: AppName) {
        let (sender, inbox) = mpsc::channel(INBOX);
        self.actors.insert(app.clone(), sender);
        let (host, data, token) = (self.host.clone(), self.data.clone(), self.token.child_token());
        self.tasks.spawn(async move { actor::run(app, host, &data, inbox, token).await });
    }
}
