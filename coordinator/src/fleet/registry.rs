//! The handle of the fleet: records of hosts and sites in memory, written through to the database where they must last.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use sluice_common::name::{HostName, SiteName};
use sluice_common::units::ByteRate;
use sluice_proto::transport::limiter::Limiter;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::meters::ContentMeters;
use super::tables::{self, StoredHost};
use super::{Facts, HostView, SiteView};
use crate::audit::{self, Entry};
use crate::listener::Peer;
use crate::rollout::Contact;
use crate::store::{self, Actor, Store};

/// How often times last seen are written: what a restart may forget.
const LAST_SEEN_INTERVAL: Duration = Duration::from_secs(30);

/// The fleet. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    hosts: RwLock<BTreeMap<HostName, Record>>,
    sites: RwLock<BTreeMap<SiteName, Limiter>>,
    /// The limit of all content that leaves this coordinator.
    total: Limiter,
    changes: watch::Sender<u64>,
}

/// A host in memory.
struct Record {
    stored: StoredHost,
    contact: Option<Contact>,
    /// Whether `contact` is newer than what the database holds.
    is_unwritten: bool,
    /// The host's own limit, as its agent announced it last.
    limiter: Limiter,
    content: ContentMeters,
    session: Option<SessionEntry>,
}

struct SessionEntry {
    number: u64,
    orders: Arc<Notify>,
    stop: CancellationToken,
}

/// What a session holds while it is the live one of its host.
pub(super) struct SessionTicket {
    number: u64,
    /// Fires when orders of the host have changed.
    pub(super) orders: Arc<Notify>,
    /// Ends the session: replaced or revoked.
    pub(super) stop: CancellationToken,
}

/// Says that there is no site of this name.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no site {0}; a site appears with the first token or host that names it, see sluice site list"
)]
pub struct UnknownSite(pub SiteName);

impl Fleet {
    /// Loads hosts and sites. `total` limits all content together.
    pub async fn open(store: Store, total: Option<ByteRate>) -> Result<Self, store::Error> {
        let hosts = tables::load_hosts(&store, None).await?;
        let hosts = hosts.into_iter().map(|stored| (stored.name.clone(), Record::new(stored))).collect();
        let sites = tables::load_sites(&store).await?;
        let sites = sites.into_iter().map(|(name, limit)| (name, Limiter::new(limit))).collect();
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                hosts: RwLock::new(hosts),
                sites: RwLock::new(sites),
                total: Limiter::new(total),
                changes: watch::Sender::new(0),
            }),
        })
    }

    /// Returns every host, revoked ones too, by name.
    pub fn hosts(&self) -> Vec<HostView> {
        self.inner.hosts().values().map(Record::view).collect()
    }

    /// Returns one host.
    pub fn host(&self, name: &HostName) -> Option<HostView> {
        self.inner.hosts().get(name).map(Record::view)
    }

    /// Returns every site, by name.
    pub fn sites(&self) -> Vec<SiteView> {
        let hosts = self.hosts();
        let of = |name: &SiteName, limiter: &Limiter| {
            let here = || hosts.iter().filter(|host| host.site == *name);
            SiteView {
                name: name.clone(),
                limit: limiter.rate(),
                hosts: here().filter(|host| !host.revoked).count(),
                hosts_connected: here().filter(|host| host.connected).count(),
                content_bytes: here().map(|host| host.content_bytes).sum(),
            }
        };
        self.inner.sites().iter().map(|(name, limiter)| of(name, limiter)).collect()
    }

    /// Returns a number that changes whenever a host connects, goes, enrols, is revoked or has new facts.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Makes the session of a host fetch and send its standing orders again. Nothing happens without a session: a
    /// session begins with them.
    pub fn notify_orders(&self, host: &HostName) {
        if let Some(session) = self.inner.hosts().get(host).and_then(|record| record.session.as_ref()) {
            session.orders.notify_one();
        }
    }

    /// Returns the limits of content to a host: its own (`agent_limit`), its site's, the coordinator's.
    pub fn chain(&self, host: &HostName, agent_limit: Option<ByteRate>) -> Vec<Limiter> {
        let hosts = self.inner.hosts();
        let Some(record) = hosts.get(host) else { return vec![self.inner.total.clone()] };
        record.announce_limit(agent_limit);
        let site = self.inner.sites().get(&record.stored.site).cloned();
        [Some(record.limiter.clone()), site, Some(self.inner.total.clone())].into_iter().flatten().collect()
    }

    /// Makes a connection one of content: paced by every limit of its host from now on, counted for host and site.
    pub fn admit_content(
        &self,
        peer: &Peer,
        host: &HostName,
        agent_limit: Option<ByteRate>,
    ) -> Result<(), Status> {
        peer.pacing.attach(self.chain(host, agent_limit));
        let mut hosts = self.inner.hosts_mut();
        let record = hosts.get_mut(host).ok_or_else(|| Status::not_found("this host is not registered"))?;
        record.content.add(&peer.meter);
        Ok(())
    }

    /// Returns the limit of all content together.
    pub fn total_limit(&self) -> Option<ByteRate> {
        self.inner.total.rate()
    }

    /// Changes a site's limit, durably and for transfers that run. Of operators who do so at once the one that commits last has the
    /// last word in both: the limit moves while nobody else can write, and back where the commit fails.
    pub async fn set_site_limit(
        &self,
        actor: impl Into<Actor>,
        site: &SiteName,
        limit: Option<ByteRate>,
    ) -> Result<Result<SiteView, UnknownSite>, store::Error> {
        let text = |limit: Option<ByteRate>| limit.map_or_else(|| "none".to_owned(), |rate| rate.to_string());
        let mut tx = self.inner.store.begin(actor).await?;
        let before = self.inner.sites().get(site).and_then(Limiter::rate);
        if !tables::update_limit(&mut tx, site, limit).await? {
            return Ok(Err(UnknownSite(site.clone())));
        }
        let detail = json!({"from": text(before), "to": text(limit)});
        audit::append(&mut tx, Entry { action: "site.set_limit", subject: site.as_str(), detail }).await?;
        let set = |limit| {
            self.inner.sites_mut().entry(site.clone()).or_insert_with(|| Limiter::new(None)).set_rate(limit);
        };
        set(limit);
        if let Err(error) = tx.commit().await {
            set(before);
            return Err(error);
        }
        tracing::info!(site = %site, limit = text(limit), "site limit changed");
        let view = self.sites().into_iter().find(|view| view.name == *site);
        Ok(view.ok_or_else(|| UnknownSite(site.clone())))
    }

    /// Takes note of a site that was committed.
    pub fn site_added(&self, site: &SiteName) {
        self.inner.sites_mut().entry(site.clone()).or_insert_with(|| Limiter::new(None));
    }

    /// Takes in what the database says of a host by now: it enrolled or was revoked. A revoked one loses its session.
    pub async fn reload_host(&self, name: &HostName) -> Result<(), store::Error> {
        let Some(stored) = tables::load_hosts(&self.inner.store, Some(name)).await?.pop() else {
            return Ok(());
        };
        self.site_added(&stored.site);
        {
            let mut hosts = self.inner.hosts_mut();
            let record = match hosts.entry(name.clone()) {
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Record::new(stored)),
                std::collections::btree_map::Entry::Occupied(entry) => {
                    let record = entry.into_mut();
                    record.stored = stored;
                    record
                }
            };
            if record.stored.revoked
                && let Some(session) = record.session.take()
            {
                session.stop.cancel();
            }
        }
        self.changed();
        Ok(())
    }

    /// Makes a session the live one of its host; an older one is told to end. Nothing for a host that is not registered.
    pub(super) fn attach(&self, name: &HostName, now: Timestamp) -> Option<SessionTicket> {
        let ticket = {
            let mut hosts = self.inner.hosts_mut();
            let record = hosts.get_mut(name).filter(|record| !record.stored.revoked)?;
            let number = record.session.as_ref().map_or(1, |session| session.number + 1);
            let (orders, stop) = (Arc::new(Notify::new()), CancellationToken::new());
            let entry = SessionEntry { number, orders: orders.clone(), stop: stop.clone() };
            if let Some(older) = record.session.replace(entry) {
                tracing::warn!(host.id = %name, "duplicate session: the newer one replaces it");
                older.stop.cancel();
            }
            record.heard(now);
            SessionTicket { number, orders, stop }
        };
        self.changed();
        Some(ticket)
    }

    /// Ends a session; says whether it was still the live one.
    pub(super) fn detach(&self, name: &HostName, ticket: &SessionTicket) -> bool {
        let was_live = {
            let mut hosts = self.inner.hosts_mut();
            let session = hosts.get_mut(name).map(|record| &mut record.session);
            session.is_some_and(|session| session.take_if(|live| live.number == ticket.number).is_some())
        };
        if was_live {
            self.changed();
        }
        was_live
    }

    /// Takes note of a sign of life.
    pub(super) fn heard(&self, name: &HostName, now: Timestamp) {
        if let Some(record) = self.inner.hosts_mut().get_mut(name) {
            record.heard(now);
        }
    }

    /// Takes note of the limit that a host has by itself.
    pub(super) fn set_own_limit(&self, name: &HostName, limit: Option<ByteRate>) {
        if let Some(record) = self.inner.hosts().get(name) {
            record.announce_limit(limit);
        }
    }

    /// Stores what a host says it is, when that is news.
    pub(super) async fn set_facts(&self, name: &HostName, facts: Facts) -> Result<(), store::Error> {
        let Some(known) = self.host(name).map(|host| host.facts) else { return Ok(()) };
        if known.as_ref() == Some(&facts) {
            return Ok(());
        }
        // A fleet that comes back at once must not cost a sync of the disk for every host.
        if !known.is_some_and(|known| known.is_like(&facts)) {
            let mut tx = self.inner.store.begin(Actor::coordinator()).await?;
            tables::update_facts(&mut tx, name, &facts).await?;
            tx.commit_observation().await?;
        }
        if let Some(record) = self.inner.hosts_mut().get_mut(name) {
            record.stored.facts = Some(facts);
        }
        self.changed();
        Ok(())
    }

    /// Writes times last seen until cancelled, and once more then.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let is_last = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(LAST_SEEN_INTERVAL) => false,
            };
            if let Err(error) = self.write_last_seen().await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot store when hosts were seen"
                );
            }
            if is_last {
                return;
            }
        }
    }

    async fn write_last_seen(&self) -> Result<(), store::Error> {
        let unwritten: Vec<(HostName, Timestamp)> = {
            let mut hosts = self.inner.hosts_mut();
            hosts.values_mut().filter_map(Record::take_unwritten).collect()
        };
        if unwritten.is_empty() {
            return Ok(());
        }
        let mut tx = self.inner.store.begin(Actor::coordinator()).await?;
        for (host, seen) in &unwritten {
            tables::update_last_seen(&mut tx, host, *seen).await?;
        }
        tx.commit_observation().await
    }

    fn changed(&self) {
        self.inner.changes.send_modify(|revision| *revision += 1);
    }
}

// Records are plain values: whatever a panicking holder left is still a record.
impl Inner {
    fn hosts(&self) -> RwLockReadGuard<'_, BTreeMap<HostName, Record>> {
        self.hosts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn hosts_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<HostName, Record>> {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn sites(&self) -> RwLockReadGuard<'_, BTreeMap<SiteName, Limiter>> {
        self.sites.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn sites_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<SiteName, Limiter>> {
        self.sites.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn new(stored: StoredHost) -> Self {
        Self {
            stored,
            contact: None,
            is_unwritten: false,
            limiter: Limiter::new(None),
            content: ContentMeters::default(),
            session: None,
        }
    }

    fn heard(&mut self, now: Timestamp) {
        self.contact = Some(Contact::heard(self.contact, now));
        self.is_unwritten = true;
    }

    /// Returns when the host was heard, if the database does not know yet; it is about to.
    fn take_unwritten(&mut self) -> Option<(HostName, Timestamp)> {
        let is_unwritten = std::mem::take(&mut self.is_unwritten);
        let contact = self.contact.filter(|_| is_unwritten)?;
        Some((self.stored.name.clone(), contact.last))
    }

    fn view(&self) -> HostView {
        let StoredHost { name, site, labels, facts, enrolled, last_seen, revoked } = &self.stored;
        HostView {
            name: name.clone(),
            site: site.clone(),
            labels: labels.clone(),
            facts: facts.clone(),
            connected: self.session.is_some(),
            contact: self.contact,
            last_seen: self.contact.map(|contact| contact.last).or(*last_seen),
            enrolled: *enrolled,
            revoked: *revoked,
            content_bytes: self.content.total(),
            limit: self.limiter.rate(),
        }
    }

    /// Takes note of the host's own limit; transfers that run keep to it.
    fn announce_limit(&self, limit: Option<ByteRate>) {
        if self.limiter.rate() != limit {
            self.limiter.set_rate(limit);
        }
    }
}
