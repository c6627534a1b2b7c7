//! What driver, recorder, sessions and operators share: who was heard, who waits for news, where news go.
//!
//! | channel | from | to | carries |
//! |---|---|---|---|
//! | `wanted` | handle | watcher | rollouts that somebody has to drive |
//! | `reports` | sessions | recorder | reports, each with a way to answer |
//! | [`Inbox`] | recorder, sessions, operators | one driver | hosts with news, "read again" |
//! | `changes` | driver, recorder | watching operators | "look again" |
//! | `orders` | driver | one session | "your orders changed" |
//!
//! Locks are held for a look-up, never across an await.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sluice_common::name::{AppName, HostName, RolloutId};
use tokio::sync::{Notify, mpsc, watch};

use super::clock::Clock;
use super::recorder::Record;
use super::view::{Contact, FleetView};
use crate::store::Store;

/// Everything that outlives a single task.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) wanted: mpsc::Sender<RolloutId>,
    pub(super) reports: mpsc::Sender<Record>,
    presence: Mutex<HashMap<HostName, Presence>>,
    inboxes: Mutex<HashMap<RolloutId, Arc<Inbox>>>,
    orders: Mutex<HashMap<HostName, watch::Sender<u64>>>,
}

#[derive(Debug, Clone, Copy)]
struct Presence {
    contact: Contact,
    /// Grows with every session of the host; reports of an older one come too late.
    session: u64,
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
        clock: Clock,
        wanted: mpsc::Sender<RolloutId>,
        reports: mpsc::Sender<Record>,
    ) -> Self {
        Self {
            store,
            clock,
            wanted,
            reports,
            presence: Mutex::default(),
            inboxes: Mutex::default(),
            orders: Mutex::default(),
        }
    }

    /// Begins a session of a host; returns its number and the place where changes of its orders are told.
    pub(super) fn attach(&self, host: &HostName) -> (u64, watch::Receiver<u64>) {
        let session = self.present(host, true);
        let changes = lock(&self.orders).entry(host.clone()).or_default().subscribe();
        (session, changes)
    }

    /// Takes note that a host was heard.
    pub(super) fn heard(&self, host: &HostName) {
        self.present(host, false);
    }

    fn present(&self, host: &HostName, attaches: bool) -> u64 {
        let now = self.clock.now();
        let (session, is_new) = {
            let mut presence = lock(&self.presence);
            let before = presence.get(host).copied();
            let contact = Contact::heard(before.map(|before| before.contact), now);
            let session = before.map_or(0, |before| before.session) + u64::from(attaches);
            presence.insert(host.clone(), Presence { contact, session });
            (session, before.is_none_or(|before| before.contact.since != contact.since))
        };
        if is_new {
            self.tell(host, None, true);
        }
        session
    }

    /// Says whether a session is the host's newest.
    pub(super) fn is_newest(&self, host: &HostName, session: u64) -> bool {
        lock(&self.presence).get(host).is_none_or(|presence| presence.session <= session)
    }

    /// Puts into a view who was heard.
    pub(super) fn see(&self, fleet: &mut FleetView) {
        let presence = lock(&self.presence);
        for (host, view) in fleet {
            view.contact = presence.get(host).map(|presence| presence.contact);
        }
    }

    /// Returns when a host was last heard.
    pub(super) fn last_heard(&self, host: &HostName) -> Option<Timestamp> {
        lock(&self.presence).get(host).map(|presence| presence.contact.last)
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
    }

    /// Tells every driver that wants to hear of this host, and of this application where one is named. What decides
    /// nothing is told to watching operators only.
    pub(super) fn tell(&self, host: &HostName, app: Option<&AppName>, decides: bool) {
        let inboxes: Vec<Arc<Inbox>> = lock(&self.inboxes).values().cloned().collect();
        for inbox in inboxes {
            inbox.tell(host, app, decides);
        }
    }

    /// Tells a host's session that its orders changed.
    pub(super) fn orders_changed<'a>(&self, hosts: impl Iterator<Item = &'a HostName>) {
        let mut orders = lock(&self.orders);
        for host in hosts {
            if let Some(changes) = orders.get(host) {
                changes.send_modify(|count| *count += 1);
                if changes.receiver_count() == 0 {
                    orders.remove(host);
                }
            }
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
