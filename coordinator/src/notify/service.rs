//! `Notifications.*`: who is told, for operators.

use jiff::Timestamp;
use serde_json::json;
use sluice_common::caps;
use sluice_common::name::SiteName;
use sluice_proto::convert::{Invalid, parse};
use sluice_proto::v1;
use tonic::{Request, Response, Status};

use super::event::KINDS;
use super::sender::Sender;
use super::signature;
use super::store::{self as tables, Listener};
use crate::access::Caller;
use crate::audit::{self, Entry};
use crate::rollout::check::url;
use crate::store::Store;

/// The `Notifications` service.
#[derive(Clone)]
pub struct NotificationsService {
    store: Store,
    sender: Sender,
}

impl NotificationsService {
    /// Makes the service.
    pub fn new(store: Store, sender: Sender) -> Self {
        Self { store, sender }
    }
}

/// Reads the name of a listener: like those of sites.
fn name(text: &str) -> Result<String, Invalid> {
    parse::<SiteName>("name", text).map(|name| name.to_string())
}

fn unknown(name: &str) -> Status {
    Status::not_found(format!("there is no listener {name}; see: sluice notify list"))
}

#[tonic::async_trait]
impl v1::notifications_server::Notifications for NotificationsService {
    async fn add(
        &self,
        request: Request<v1::AddListenerRequest>,
    ) -> Result<Response<v1::AddListenerResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let v1::AddListenerRequest { name: given, url: address, events } = request.into_inner();
        let name = name(&given)?;
        let address = url(&address).map_err(|reason| Invalid::new("url", reason))?;
        if let Some(odd) = events.iter().find(|event| !KINDS.contains(&event.as_str())) {
            return Err(Invalid::new("events", format!("{odd:?} is none of {}", KINDS.join(", "))).into());
        }
        if tables::list(&self.store).await?.len() >= caps::LISTENERS_MAX {
            return Err(Status::failed_precondition(format!(
                "there are {} listeners already; remove one first: sluice notify remove NAME",
                caps::LISTENERS_MAX
            )));
        }
        let secret =
            signature::secret().ok_or_else(|| Status::unavailable("the system has no randomness"))?;
        let listener = Listener {
            name: name.clone(),
            url: address.to_string(),
            events,
            created: Timestamp::now(),
            created_by: caller.operator()?.clone(),
            waiting: 0,
            dropped: 0,
            delivered: None,
            error: None,
        };
        let mut tx = self.store.begin(&caller).await?;
        if !tables::add(&mut tx, &listener, &secret).await? {
            return Err(Status::already_exists(format!(
                "there is a listener {name} already; remove it first: sluice notify remove {name}"
            )));
        }
        tx.commit().await?;
        Ok(Response::new(v1::AddListenerResponse { listener: Some(message(listener)), secret }))
    }

    async fn list(
        &self,
        _: Request<v1::ListListenersRequest>,
    ) -> Result<Response<v1::ListListenersResponse>, Status> {
        let listeners = tables::list(&self.store).await?.into_iter().map(message).collect();
        Ok(Response::new(v1::ListListenersResponse { listeners }))
    }

    async fn test(
        &self,
        request: Request<v1::TestListenerRequest>,
    ) -> Result<Response<v1::TestListenerResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let name = name(&request.into_inner().name)?;
        let (url, secret) = tables::find(&self.store, &name).await?.ok_or_else(|| unknown(&name))?;
        let mut tx = self.store.begin(&caller).await?;
        audit::append(&mut tx, Entry { action: "notify.test", subject: &name, detail: json!({}) }).await?;
        tx.commit().await?;
        let (delivered, answer) = match self.sender.test(&name, &url, &secret).await {
            Ok(answer) => (true, answer),
            Err(error) => (false, error),
        };
        Ok(Response::new(v1::TestListenerResponse { delivered, answer }))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveListenerRequest>,
    ) -> Result<Response<v1::RemoveListenerResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let name = name(&request.into_inner().name)?;
        let mut tx = self.store.begin(&caller).await?;
        if !tables::remove(&mut tx, &name).await? {
            return Err(unknown(&name));
        }
        tx.commit().await?;
        Ok(Response::new(v1::RemoveListenerResponse {}))
    }
}

fn message(listener: Listener) -> v1::Listener {
    let Listener { name, url, events, created, created_by, waiting, dropped, delivered, error } = listener;
    v1::Listener {
        name,
        url,
        events,
        created_unix_ms: created.as_millisecond(),
        created_by: created_by.to_string(),
        waiting,
        dropped,
        delivered_unix_ms: delivered.map_or(0, Timestamp::as_millisecond),
        error: error.unwrap_or_default(),
    }
}
