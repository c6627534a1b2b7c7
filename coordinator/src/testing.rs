//! A coordinator in this process for tests: real sockets, real TLS, the real gate and services, rollouts on paper.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sluice_common::identity::Role;
use sluice_common::name::HostName;
use sluice_common::order::{Order, Report};
use sluice_proto::token::JoinToken;
use sluice_proto::transport::client::{Address, ConnectError, Dial};
use sluice_proto::transport::credentials::{Credentials, NewKey};
use sluice_proto::transport::{peer::PeerCertificate, tls};
use sluice_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::access::{Gate, Refusals, Roster, refusals};
use crate::authority::administration::AdministrationService;
use crate::authority::enrolment::EnrollmentService;
use crate::authority::{Authority, Subject, own};
use crate::fleet::service::FleetService;
use crate::fleet::session::SessionService;
use crate::fleet::{Fleet, RolloutSink};
use crate::listener::{Connections, ListenError, Listener, Routes, Serve};
use crate::store::{self, Actor, Schema, Store};

/// Rollouts on paper: what was reported, what is ordered.
#[derive(Default)]
pub(crate) struct Paper {
    pub(crate) reports: Mutex<Vec<(HostName, Report)>>,
    pub(crate) orders: Mutex<HashMap<HostName, Vec<Order>>>,
}

#[async_trait]
impl RolloutSink for Paper {
    async fn record_report(&self, host: &HostName, report: Report) -> Result<(), store::Error> {
        self.reports.lock().unwrap().push((host.clone(), report));
        Ok(())
    }

    async fn standing_orders(&self, host: &HostName) -> Result<Vec<Order>, store::Error> {
        Ok(self.orders.lock().unwrap().get(host).cloned().unwrap_or_default())
    }

    async fn latest_reports(&self, host: Option<&HostName>) -> Result<Vec<(HostName, Report)>, store::Error> {
        let reports = self.reports.lock().unwrap();
        Ok(reports.iter().filter(|(from, _)| host.is_none_or(|host| host == from)).cloned().collect())
    }

    fn host_changed(&self, _: &HostName) {}
}

/// A running coordinator.
pub(crate) struct Harness {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) authority: Authority,
    pub(crate) fleet: Fleet,
    pub(crate) paper: Arc<Paper>,
    pub(crate) address: Address,
    pub(crate) stop: CancellationToken,
    pub(crate) tls: watch::Sender<Arc<rustls::ServerConfig>>,
    served: JoinHandle<Result<(), ListenError>>,
}

impl Harness {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        let roster = Roster::open(&store).await.unwrap();
        let authority = Authority::open(dir.path(), store.clone(), roster.clone()).await.unwrap();
        let fleet = Fleet::open(store.clone(), None).await.unwrap();
        let (stop, tasks, connections) =
            (CancellationToken::new(), TaskTracker::new(), Connections::default());
        let (refusals, inbox) = Refusals::new();
        tasks.spawn(refusals::run(inbox, store.clone(), stop.clone()));
        let paper = Arc::new(Paper::default());
        let sink: Arc<dyn RolloutSink> = paper.clone();
        let session =
            SessionService::new(fleet.clone(), sink.clone(), authority.clone(), tasks.clone(), stop.clone());
        let administration =
            AdministrationService::new(authority.clone(), fleet.clone(), connections.clone(), store.clone());
        let enrolment = EnrollmentService::new(authority.clone(), fleet.clone(), refusals.clone());
        let routes = Routes::default()
            .with(v1::enrollment_server::EnrollmentServer::new(enrolment))
            .with(v1::session_server::SessionServer::new(session))
            .with(v1::administration_server::AdministrationServer::new(administration))
            .with(v1::fleet_server::FleetServer::new(FleetService::new(fleet.clone(), sink, roster.clone())));
        let (tls, current) = watch::channel(own::configuration(&authority).unwrap());
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address().to_string().parse().unwrap();
        let gate = Gate::new(roster, refusals);
        let serve =
            Serve { routes, gate, tls: current, connections, tasks: tasks.clone(), stop: stop.clone() };
        let served = tasks.spawn(listener.serve(serve));
        Self { dir, store, authority, fleet, paper, address, stop, tls, served }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.served.await.unwrap().unwrap();
    }

    pub(crate) async fn token(&self, subject: Subject) -> JoinToken {
        let made = self
            .authority
            .create_token(Actor::console(), &subject, sluice_common::caps::JOIN_TOKEN_TTL, 1)
            .await;
        made.unwrap().0
    }

    /// Connects without a certificate and enrols.
    pub(crate) async fn enrol(&self, token: &JoinToken, name: &str) -> Result<Credentials, Status> {
        let tls = tls::newcomer(token.authority()).unwrap();
        let channel = Dial::new(self.address.clone(), tls).connect().await.unwrap();
        let key = NewKey::generate().unwrap();
        let request = v1::EnrollRequest {
            token: token.secret().to_owned(),
            csr_pem: key.request_pem().unwrap(),
            name: name.to_owned(),
            labels: [("role".to_owned(), "web".to_owned())].into(),
        };
        let mut client = v1::enrollment_client::EnrollmentClient::new(channel);
        let v1::EnrollResponse { certificate_pem, ca_pem, principal: _ } =
            client.enroll(request).await?.into_inner();
        Ok(key.into_credentials(&certificate_pem, &ca_pem).unwrap())
    }

    pub(crate) async fn new_host(&self, name: &str) -> Credentials {
        let subject = Subject::Host {
            site: "berlin".parse().unwrap(),
            labels: [("rack".to_owned(), "r1".to_owned())].into(),
            name: None,
        };
        self.enrol(&self.token(subject).await, name).await.unwrap()
    }

    pub(crate) async fn new_operator(&self, name: &str, role: Role) -> Credentials {
        let subject = Subject::Operator { name: name.parse().unwrap(), role };
        self.enrol(&self.token(subject).await, "").await.unwrap()
    }

    pub(crate) async fn connect(&self, credentials: &Credentials) -> Result<Channel, ConnectError> {
        Dial::new(self.address.clone(), tls::client(credentials).unwrap()).connect().await
    }

    /// Opens a session and says hello.
    pub(crate) async fn attach(&self, credentials: &Credentials) -> AgentEnd {
        self.attach_limited(credentials, 0).await
    }

    /// Opens a session of a host with a limit of its own, in bytes a second; zero for none.
    pub(crate) async fn attach_limited(
        &self,
        credentials: &Credentials,
        limit_bytes_per_second: u64,
    ) -> AgentEnd {
        let channel = self.connect(credentials).await.unwrap();
        let (outbound, stream) = mpsc::channel(16);
        let facts = v1::HostFacts { platform: "linux-x86_64".to_owned(), ..Default::default() };
        let hello = v1::Hello { facts: Some(facts), limit_bytes_per_second };
        let mut end = AgentEnd {
            outbound,
            inbound: v1::session_client::SessionClient::new(channel)
                .attach(ReceiverStream::new(stream))
                .await
                .unwrap()
                .into_inner(),
        };
        end.say(v1::agent_message::Message::Hello(hello)).await;
        end
    }
}

/// The agent's end of a session.
pub(crate) struct AgentEnd {
    outbound: mpsc::Sender<v1::AgentMessage>,
    inbound: Streaming<v1::CoordinatorMessage>,
}

impl AgentEnd {
    pub(crate) async fn say(&mut self, message: v1::agent_message::Message) {
        self.outbound.send(v1::AgentMessage { message: Some(message) }).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Result<v1::coordinator_message::Message, Status> {
        match self.inbound.message().await? {
            Some(message) => Ok(message.message.unwrap()),
            None => Err(Status::ok("closed")),
        }
    }
}

/// Returns the fingerprint and life of credentials.
pub(crate) fn certificate(credentials: &Credentials) -> PeerCertificate {
    PeerCertificate::parse(&credentials.certificate().unwrap()).unwrap()
}
