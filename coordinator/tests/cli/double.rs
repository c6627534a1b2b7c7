//! A coordinator of a few lines: real TLS with an authority of its own, scripted answers.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use sluice_common::digest::Digest;
use sluice_proto::token::JoinToken;
use sluice_proto::transport::credentials::{Credentials, NewKey};
use sluice_proto::transport::peer::PeerCertificate;
use sluice_proto::transport::{COORDINATOR_NAME, tls};
use sluice_proto::v1;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};
use tower::Service as _;
use v1::administration_server::{Administration, AdministrationServer};
use v1::enrollment_server::{Enrollment, EnrollmentServer};
use v1::rollouts_server::{Rollouts, RolloutsServer};
use v1::session_server::{Session, SessionServer};

const SECRET: [u8; 32] = [7; 32];
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the double does and what it saw. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Double {
    authority: Arc<Authority>,
    pub(crate) script: Arc<Script>,
    tasks: TaskTracker,
}

/// What it answers.
#[derive(Default)]
pub(crate) struct Script {
    /// How far in the past certificates begin.
    pub(crate) backdated: Mutex<Duration>,
    /// How long they hold from now on.
    pub(crate) life: Mutex<Duration>,
    pub(crate) renewals: AtomicU32,
    pub(crate) spec: Mutex<Option<v1::RolloutSpec>>,
    /// What watchers of a rollout see, one after the other.
    pub(crate) states: Mutex<Vec<v1::Rollout>>,
    /// What commands are answered; else the first of `states`.
    pub(crate) answer: Mutex<Option<v1::Rollout>>,
    /// How many watches end after their first state, as if the coordinator had gone.
    pub(crate) breaks: AtomicU32,
    pub(crate) refusal: Mutex<Option<Status>>,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    fingerprint: Digest,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        let (pem, fingerprint) = (certificate.pem(), Digest::of(certificate.der()));
        Self { issuer: Issuer::new(params, key), pem, fingerprint }
    }

    fn issue(&self, csr_pem: &str, names: Vec<SanType>, backdated: Duration, life: Duration) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        request.params.subject_alt_names = names;
        request.params.not_before = (SystemTime::now() - backdated).into();
        request.params.not_after = (SystemTime::now() + life).into();
        request.params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        request.signed_by(&self.issuer).unwrap().pem()
    }

    fn own(&self) -> Credentials {
        let key = NewKey::generate().unwrap();
        let names = vec![SanType::DnsName(COORDINATOR_NAME.try_into().unwrap())];
        let pem = self.issue(&key.request_pem().unwrap(), names, Duration::ZERO, DAY);
        key.into_credentials(&pem, &self.pem).unwrap()
    }
}

impl Double {
    /// Begins to listen on loopback.
    pub(crate) async fn start() -> (Self, SocketAddr) {
        let double =
            Self { authority: Arc::new(Authority::new()), script: Arc::default(), tasks: TaskTracker::new() };
        *double.script.backdated.lock().unwrap() = Duration::from_secs(60);
        *double.script.life.lock().unwrap() = DAY;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(tls::server(&double.authority.own()).unwrap());
        let (established, incoming) = mpsc::channel(8);
        double.tasks.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(tcp).await {
                    let _ = established.send(Ok::<_, Infallible>(Tls(stream))).await;
                }
            }
        });
        double.tasks.spawn(double.clone().serve(ReceiverStream::new(incoming)));
        (double, address)
    }

    async fn serve(self, incoming: ReceiverStream<Result<Tls, Infallible>>) {
        let route = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
            let double = self.clone();
            async move {
                match request.uri().path().split('/').nth(1).unwrap_or_default() {
                    "sluice.v1.Enrollment" => EnrollmentServer::new(double).call(request).await,
                    "sluice.v1.Session" => SessionServer::new(double).call(request).await,
                    "sluice.v1.Administration" => AdministrationServer::new(double).call(request).await,
                    "sluice.v1.Rollouts" => RolloutsServer::new(double).call(request).await,
                    _ => Ok(Status::unimplemented("not here").into_http()),
                }
            }
        });
        Server::builder().serve_with_incoming(route, incoming).await.unwrap();
    }

    /// Returns a token that is good here.
    pub(crate) fn token(&self) -> String {
        JoinToken::new(&SECRET, self.authority.fingerprint).to_string()
    }

    fn operator_certificate(&self, csr_pem: &str) -> String {
        let names = vec![SanType::URI("sluice://operator/alice".try_into().unwrap())];
        let (backdated, life) = (*self.script.backdated.lock().unwrap(), *self.script.life.lock().unwrap());
        self.authority.issue(csr_pem, names, backdated, life)
    }

    fn answer(&self) -> Result<Option<v1::Rollout>, Status> {
        match &*self.script.refusal.lock().unwrap() {
            Some(refusal) => Err(refusal.clone()),
            None => {
                let answer = self.script.answer.lock().unwrap().clone();
                Ok(answer.or_else(|| self.script.states.lock().unwrap().first().cloned()))
            }
        }
    }
}

/// A TLS connection as tonic takes it; who called is in the request's extensions.
struct Tls(TlsStream<TcpStream>);

#[derive(Clone)]
struct Caller(Option<String>);

impl Connected for Tls {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        let chain = self.0.get_ref().1.peer_certificates();
        let certificate = chain.and_then(|chain| chain.first()).cloned();
        Caller(certificate.map(|der| PeerCertificate::parse(&der).unwrap().principal.to_string()))
    }
}

impl AsyncRead for Tls {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Enrollment for Double {
    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Answer<v1::EnrollResponse> {
        let request = request.into_inner();
        let token: JoinToken = self.token().parse().unwrap();
        if request.token != token.secret() {
            return Err(Status::unauthenticated("the token is unknown, used up or too old"));
        }
        Ok(Response::new(v1::EnrollResponse {
            certificate_pem: self.operator_certificate(&request.csr_pem),
            ca_pem: self.authority.pem.clone(),
            principal: "sluice://operator/alice".into(),
        }))
    }
}

#[tonic::async_trait]
impl Session for Double {
    type AttachStream = ReceiverStream<Result<v1::CoordinatorMessage, Status>>;

    async fn attach(&self, _: Request<Streaming<v1::AgentMessage>>) -> Answer<Self::AttachStream> {
        Err(Status::unimplemented("not here"))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Answer<v1::RenewResponse> {
        self.script.renewals.fetch_add(1, Ordering::Relaxed);
        let certificate_pem = self.operator_certificate(&request.into_inner().csr_pem);
        Ok(Response::new(v1::RenewResponse { certificate_pem, ca_pem: self.authority.pem.clone() }))
    }
}

#[tonic::async_trait]
impl Administration for Double {
    type ListAuditStream = ReceiverStream<Result<v1::AuditEntry, Status>>;

    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Answer<v1::WhoAmIResponse> {
        let Caller(principal) = request.extensions().get::<Caller>().unwrap().clone();
        let principal = principal.ok_or_else(|| Status::unauthenticated("no certificate"))?;
        Ok(Response::new(v1::WhoAmIResponse {
            principal,
            role: "deployer".into(),
            certificate_expires_unix: 1_900_000_000,
            coordinator_version: "0.0.1".into(),
        }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Answer<v1::CreateTokenResponse> {
        match request.into_inner().subject {
            Some(v1::create_token_request::Subject::Host(host)) if host.site == "berlin" => {
                assert_eq!(host.labels["role"], "web");
                Ok(Response::new(v1::CreateTokenResponse {
                    token: self.token(),
                    expires_unix: 1_900_000_000,
                }))
            }
            _ => Err(Status::permission_denied("creating tokens needs the role admin")),
        }
    }

    async fn revoke(&self, _: Request<v1::RevokeRequest>) -> Answer<v1::RevokeResponse> {
        Ok(Response::new(v1::RevokeResponse {}))
    }

    async fn list_operators(
        &self,
        _: Request<v1::ListOperatorsRequest>,
    ) -> Answer<v1::ListOperatorsResponse> {
        Err(Status::unimplemented("not here"))
    }

    async fn list_audit(&self, _: Request<v1::ListAuditRequest>) -> Answer<Self::ListAuditStream> {
        let (entries, receiver) = mpsc::channel(2);
        for number in 1..=2 {
            let detail = r#"{"reason":"test"}"#.to_owned();
            let (actor, action) = ("sluice://operator/alice".to_owned(), "rollout.start".to_owned());
            let subject = format!("r{number}");
            let entry = v1::AuditEntry {
                number,
                at_unix_ms: 1_800_000_000_000,
                actor,
                action,
                subject,
                detail,
                hash: vec![1],
            };
            entries.try_send(Ok(entry)).unwrap();
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn verify_audit(&self, _: Request<v1::VerifyAuditRequest>) -> Answer<v1::VerifyAuditResponse> {
        Ok(Response::new(v1::VerifyAuditResponse { entries: 9, head: vec![0xab], broken_at: 5 }))
    }
}

#[tonic::async_trait]
impl Rollouts for Double {
    type WatchStream = ReceiverStream<Result<v1::WatchRolloutResponse, Status>>;

    async fn start(&self, request: Request<v1::StartRolloutRequest>) -> Answer<v1::StartRolloutResponse> {
        *self.script.spec.lock().unwrap() = request.into_inner().spec;
        Ok(Response::new(v1::StartRolloutResponse { rollout: self.answer()? }))
    }

    async fn list(&self, _: Request<v1::ListRolloutsRequest>) -> Answer<v1::ListRolloutsResponse> {
        let rollouts = self.script.states.lock().unwrap().clone();
        Ok(Response::new(v1::ListRolloutsResponse { rollouts }))
    }

    async fn get(&self, _: Request<v1::GetRolloutRequest>) -> Answer<v1::GetRolloutResponse> {
        Ok(Response::new(v1::GetRolloutResponse { rollout: self.answer()? }))
    }

    async fn watch(&self, _: Request<v1::WatchRolloutRequest>) -> Answer<Self::WatchStream> {
        self.answer()?;
        let mut states = self.script.states.lock().unwrap().clone();
        let breaks =
            self.script.breaks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        let (updates, receiver) = mpsc::channel(16);
        if breaks.is_ok() {
            states.truncate(1);
        }
        for rollout in states {
            updates.try_send(Ok(v1::WatchRolloutResponse { rollout: Some(rollout) })).unwrap();
        }
        if breaks.is_err() {
            // Open until the watcher goes.
            self.tasks.spawn(async move { updates.closed().await });
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn pause(&self, _: Request<v1::PauseRolloutRequest>) -> Answer<v1::PauseRolloutResponse> {
        Ok(Response::new(v1::PauseRolloutResponse { rollout: self.answer()? }))
    }

    async fn resume(&self, _: Request<v1::ResumeRolloutRequest>) -> Answer<v1::ResumeRolloutResponse> {
        Ok(Response::new(v1::ResumeRolloutResponse { rollout: self.answer()? }))
    }

    async fn abort(&self, _: Request<v1::AbortRolloutRequest>) -> Answer<v1::AbortRolloutResponse> {
        Ok(Response::new(v1::AbortRolloutResponse { rollout: self.answer()? }))
    }

    async fn roll_back(&self, _: Request<v1::RollBackRolloutRequest>) -> Answer<v1::RollBackRolloutResponse> {
        Ok(Response::new(v1::RollBackRolloutResponse { rollout: self.answer()? }))
    }

    async fn approve(&self, _: Request<v1::ApproveRolloutRequest>) -> Answer<v1::ApproveRolloutResponse> {
        Ok(Response::new(v1::ApproveRolloutResponse { rollout: self.answer()? }))
    }

    async fn r#override(
        &self,
        _: Request<v1::OverrideRolloutRequest>,
    ) -> Answer<v1::OverrideRolloutResponse> {
        Ok(Response::new(v1::OverrideRolloutResponse { rollout: self.answer()? }))
    }

    async fn get_app(&self, _: Request<v1::GetAppRequest>) -> Answer<v1::GetAppResponse> {
        Err(Status::unimplemented("not here"))
    }

    async fn reopen_app(&self, request: Request<v1::ReopenAppRequest>) -> Answer<v1::ReopenAppResponse> {
        let v1::ReopenAppRequest { app, cause } = request.into_inner();
        let stop = v1::LineStop { app, rollout: "r7".into(), cause, ..v1::LineStop::default() };
        Ok(Response::new(v1::ReopenAppResponse { stops: vec![stop] }))
    }

    async fn app_history(&self, _: Request<v1::AppHistoryRequest>) -> Answer<v1::AppHistoryResponse> {
        Err(Status::unimplemented("not here"))
    }
}
