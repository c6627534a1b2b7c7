//! What driver, recorder, sessions and operators share: who waits for news, and where news go.
//!
//! | channel | from | to | carries |
//! |---|---|---|---|
//! | `wanted` | handle | watcher | rollouts that somebody has to drive |
//! | `reports` | sessions | recorder | reports, each with a way to answer |
//! | [`Inbox`] | recorder, sessions, operators | one driver | hosts with news, "read again" |
//! | `starts` | handle | whoever prepares transfers | a count of rollouts started |
//! | `changes` of the inbox | driver, recorder | watching operators | "look again" |
//!
//! Locks are held for a look-up, never across an await.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_common::name::{AppName, HostName, RolloutId};
use tokio::sync::{Notify, mpsc, watch};

use super::hosts::Hosts;
use super::prober::Prober;
use super::recorder::Record;
use super::view::FleetView;
use crate::clock::Clock;
use crate::store::Store;

/// Everything that outlives a single task.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) hosts: Arc<dyn Hosts>,
    pub(super) prober: Arc<dyn Prober>,
    pub(super) clock: Clock,
    pub(super) wanted: mpsc::Sender<RolloutId>,
    pub(super) reports: mpsc::Sender<Record>,
    /// Counts the rollouts that were started here.
    pub(super) starts: watch::Sender<u64>,
    /// Counts what environments turn on: hosts that came, went or said something, rollouts that ended.
    pub(super) news: watch::Sender<u64>,
    inboxes: Mutex<HashMap<RolloutId, Arc<Inbox>>>,
    /// Grows with every coming and going of a host: the first report after it is believed whatever its number.
    comings: Mutex<HashMap<HostName, u64>>,
}

/// What one driver is told.
#[derive(Debug)]
pub(super) struct Inbox {
    news: Mutex<News>,
    wake: Notify,
    /// Counts changes that an operator may want to see.
    changes: watch::Sender<u64>,
}

/// What happened since the driver looked last.
#[derive(Debug, Default)]
struct News {
    /// The hosts that the driver wants to hear of, and their application; set by the driver.
    interest: Option<(AppName, HashSet<HostName>)>,
    /// Those that had news.
    hosts: HashSet<HostName>,
    /// Whether the rollout itself was changed by somebody else.
    reload: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked left at worst a missed wake-up; timers make up for it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(
        store: Store,
        hosts: Arc<dyn Hosts>,
        prober: Arc<dyn Prober>,
        wanted: mpsc::Sender<RolloutId>,
        reports: mpsc::Sender<Record>,
    ) -> Self {
        let (inboxes, comings) = (Mutex::default(), Mutex::default());
        let (starts, news) = (watch::Sender::default(), watch::Sender::default());
        Self {
            store,
            hosts,
            prober,
            clock: Clock::of_process(),
            wanted,
            reports,
            starts,
            news,
            inboxes,
            comings,
        }
    }

    /// Takes note that a host came, went or changed.
    pub(super) fn host_changed(&self, host: &HostName) {
        *lock(&self.comings).entry(host.clone()).or_default() += 1;
        self.tell(host, None, true);
    }

    /// Returns how often a host came or went.
    pub(super) fn comings(&self, host: &HostName) -> u64 {
        lock(&self.comings).get(host).copied().unwrap_or_default()
    }

    /// Puts into a view who was heard.
    pub(super) fn see(&self, fleet: &mut FleetView) {
        for (host, view) in fleet {
            view.contact = self.hosts.contact(host);
        }
    }

    /// Returns a rollout's inbox.
    pub(super) fn inbox(&self, id: &RolloutId) -> Arc<Inbox> {
        let mut inboxes = lock(&self.inboxes);
        Arc::clone(inboxes.entry(id.clone()).or_insert_with(|| {
            Arc::new(Inbox { news: Mutex::default(), wake: Notify::new(), changes: watch::Sender::default() })
        }))
    }

    /// Makes a rollout's driver, if there is one, read it again.
    pub(super) fn reload(&self, id: &RolloutId) {
        let inbox = lock(&self.inboxes).get(id).cloned();
        if let Some(inbox) = inbox {
            inbox.reload();
        }
    }

    /// Returns the count of a driven rollout's changes.
    pub(super) fn subscribe(&self, id: &RolloutId) -> Option<watch::Receiver<u64>> {
        lock(&self.inboxes).get(id).map(|inbox| inbox.changes.subscribe())
    }

    /// Drops the inbox of a rollout that nobody drives any more.
    pub(super) fn close_inbox(&self, id: &RolloutId) {
        if let Some(inbox) = lock(&self.inboxes).remove(id) {
            inbox.changed();
        }
        self.news.send_modify(|count| *count += 1);
    }

    /// Tells every driver that wants to hear of this host, and of this application where one is named. What decides
    /// nothing is told to watching operators only.
    pub(super) fn tell(&self, host: &HostName, app: Option<&AppName>, decides: bool) {
        let inboxes: Vec<Arc<Inbox>> = lock(&self.inboxes).values().cloned().collect();
        for inbox in inboxes {
            inbox.tell(host, app, decides);
        }
        if decides {
            self.news.send_modify(|count| *count += 1);
        }
    }
}

impl Inbox {
    fn tell(&self, host: &HostName, app: Option<&AppName>, decides: bool) {
        {
            let mut news = lock(&self.news);
            let concerns = news
                .interest
                .as_ref()
                .is_some_and(|(own, hosts)| app.is_none_or(|app| app == own) && hosts.contains(host));
            if !concerns {
                return;
            }
            if decides {
                news.hosts.insert(host.clone());
            }
        }
        if decides {
            self.wake.notify_one();
        }
        self.changed();
    }

    /// Says what the driver wants to hear of from now on.
    pub(super) fn listen(&self, app: &AppName, hosts: impl Iterator<Item = HostName>) {
        lock(&self.news).interest = Some((app.clone(), hosts.collect()));
    }

    /// Makes the driver read its rollout again.
    pub(super) fn reload(&self) {
        lock(&self.news).reload = true;
        self.wake.notify_one();
        self.changed();
    }

    /// Takes what happened since the last time.
    pub(super) fn take(&self) -> (HashSet<HostName>, bool) {
        let mut news = lock(&self.news);
        (std::mem::take(&mut news.hosts), std::mem::take(&mut news.reload))
    }

    /// Waits until something happened.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Tells watching operators to look again.
    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}
