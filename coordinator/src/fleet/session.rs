//! `Session.Attach`: the control stream of one agent. `Session.Renew`: a new certificate for the same identity.
//!
//! A session begins with `Hello`, answers `Welcome` and the standing orders, and repeats the orders whenever they
//! change and every [`caps::ORDER_RENEWAL`]. A report is acknowledged after it is durable. A session whose host is
//! silent, replaced or revoked ends; the agent comes back with full jitter.
//!
//! Task: one per session. In: the agent's stream, the order notification, the stop token. Out: a bounded channel that
//! tonic drains. The session is the only writer of its host's presence.

use std::sync::Arc;
use std::time::Duration;

use sluice_common::caps;
use sluice_common::name::HostName;
use sluice_common::order::Report;
use sluice_common::units::ByteRate;
use sluice_proto::convert::{Invalid, millis, required};
use sluice_proto::v1;
use sluice_proto::v1::agent_message::Message as FromAgent;
use sluice_proto::v1::coordinator_message::Message as ToAgent;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::registry::SessionTicket;
use super::{Fleet, RolloutSink};
use crate::access::Caller;
use crate::authority::Authority;
use crate::clock::Clock;
use crate::listener::Peer;

/// Messages that wait for a slow agent; more than one host ever has applications with orders is not needed.
const OUTBOUND: usize = 64;

/// The `Session` service.
#[derive(Clone)]
pub struct SessionService {
    fleet: Fleet,
    sink: Arc<dyn RolloutSink>,
    authority: Authority,
    tasks: TaskTracker,
    stop: CancellationToken,
}

type Outbound = mpsc::Sender<Result<v1::CoordinatorMessage, Status>>;

impl SessionService {
    /// Makes the service. Sessions run on `tasks` and end with `stop`.
    pub fn new(
        fleet: Fleet,
        sink: Arc<dyn RolloutSink>,
        authority: Authority,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { fleet, sink, authority, tasks, stop }
    }
}

#[tonic::async_trait]
impl v1::session_server::Session for SessionService {
    type AttachStream = ReceiverStream<Result<v1::CoordinatorMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let host = Caller::of(&request)?.host()?.clone();
        let (outbound, stream) = mpsc::channel(OUTBOUND);
        let session = Session {
            host,
            fleet: self.fleet.clone(),
            sink: self.sink.clone(),
            inbound: request.into_inner(),
            outbound,
            stop: self.stop.clone(),
        };
        self.tasks.spawn(session.run());
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let shown = Peer::of(&request)?.certificate.as_ref().map(|certificate| certificate.fingerprint);
        let shown = shown.ok_or_else(|| Status::unauthenticated("there is no certificate to renew"))?;
        let issued = self.authority.renew(&caller, shown, &request.into_inner().csr_pem).await?;
        let ca_pem = self.authority.certificate_pem().to_owned();
        Ok(Response::new(v1::RenewResponse { certificate_pem: issued.pem, ca_pem }))
    }
}

struct Session {
    host: HostName,
    fleet: Fleet,
    sink: Arc<dyn RolloutSink>,
    inbound: Streaming<v1::AgentMessage>,
    outbound: Outbound,
    stop: CancellationToken,
}

/// Why a session ended, where the agent has no fault.
enum End {
    /// The agent closed the stream.
    Closed,
    /// The agent is told why.
    Told(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Told(status)
    }
}

impl From<Invalid> for End {
    fn from(invalid: Invalid) -> Self {
        Self::Told(invalid.into())
    }
}

impl Session {
    async fn run(mut self) {
        let Some(ticket) = self.fleet.attach(&self.host, Clock::of_process().now()) else {
            let status = Status::unauthenticated("this host is not registered; enrol it again");
            return drop(self.outbound.try_send(Err(status)));
        };
        tracing::info!(host.id = %self.host, "session opened");
        self.sink.host_changed(&self.host);
        let (stop, replaced) = (self.stop.clone(), ticket.stop.clone());
        let end = tokio::select! {
            () = stop.cancelled() => End::Told(Status::unavailable("the coordinator is stopping; come back")),
            () = replaced.cancelled() => End::Told(Status::aborted("replaced by a newer session, or revoked")),
            end = self.serve(&ticket) => end,
        };
        let was_live = self.fleet.detach(&self.host, &ticket);
        let reason = match end {
            End::Closed => "closed by the agent".to_owned(),
            End::Told(status) => {
                let reason = status.message().to_owned();
                // Best effort: an agent that does not read sees the stream end instead.
                let _ = self.outbound.try_send(Err(status));
                reason
            }
        };
        tracing::info!(host.id = %self.host, reason, "session ended");
        if was_live {
            self.sink.host_changed(&self.host);
        }
    }

    async fn serve(&mut self, ticket: &SessionTicket) -> End {
        match self.try_serve(ticket).await {
            Ok(()) => End::Closed,
            Err(end) => end,
        }
    }

    async fn try_serve(&mut self, ticket: &SessionTicket) -> Result<(), End> {
        self.greet().await?;
        let mut renewal = renewal();
        let mut silent_until = Instant::now() + caps::HEARTBEAT_LOST_AFTER;
        loop {
            tokio::select! {
                message = tokio::time::timeout_at(silent_until, self.inbound.message()) => match message {
                    Err(_) => return Err(Status::deadline_exceeded("no heartbeat in time").into()),
                    Ok(message) => match message? {
                        None => return Ok(()),
                        Some(message) => self.receive(message).await?,
                    },
                },
                () = ticket.orders.notified() => {
                    self.send_orders().await?;
                    continue;
                }
                _ = renewal.tick() => {
                    self.send_orders().await?;
                    continue;
                }
            }
            silent_until = Instant::now() + caps::HEARTBEAT_LOST_AFTER;
        }
    }

    /// Takes `Hello`, answers `Welcome`. The first tick of the renewal then brings the standing orders.
    async fn greet(&mut self) -> Result<(), End> {
        let first = tokio::time::timeout(caps::HANDSHAKE_TIMEOUT, self.inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello in time"))??;
        let Some(FromAgent::Hello(hello)) = first.and_then(|message| message.message) else {
            return Err(Invalid::new("hello", "must be the first message").into());
        };
        let v1::Hello { facts, limit_bytes_per_second } = hello;
        let facts = required("hello.facts", facts)?.try_into()?;
        self.fleet.set_own_limit(&self.host, ByteRate::from_bytes_per_second(limit_bytes_per_second));
        self.fleet.set_facts(&self.host, facts).await.map_err(Status::from)?;
        self.sink.host_changed(&self.host);
        let site = self.fleet.host(&self.host).map(|host| host.site.to_string()).unwrap_or_default();
        let heartbeat_interval_ms = millis(caps::HEARTBEAT_INTERVAL);
        let welcome = v1::Welcome { host: self.host.to_string(), site, heartbeat_interval_ms };
        self.send(ToAgent::Welcome(welcome)).await
    }

    async fn receive(&mut self, message: v1::AgentMessage) -> Result<(), End> {
        self.fleet.heard(&self.host, Clock::of_process().now());
        match required("message", message.message)? {
            FromAgent::Hello(_) => Err(Invalid::new("hello", "comes once").into()),
            FromAgent::Heartbeat(v1::Heartbeat { sequence }) => {
                self.send(ToAgent::HeartbeatAck(v1::HeartbeatAck { sequence })).await
            }
            FromAgent::Report(report) => self.receive_report(report).await,
        }
    }

    async fn receive_report(&mut self, report: v1::Report) -> Result<(), End> {
        let ack = v1::ReportAck {
            app: report.app.clone(),
            generation: report.generation,
            sequence: report.sequence,
        };
        match Report::try_from(report) {
            // It is repeated with the next session; ending this one would keep the host's other applications waiting.
            Err(invalid) => {
                tracing::warn!(host.id = %self.host, %invalid, "report refused");
                Ok(())
            }
            Ok(report) => {
                self.sink.record_report(&self.host, report).await.map_err(Status::from)?;
                self.send(ToAgent::ReportAck(ack)).await
            }
        }
    }

    async fn send_orders(&mut self) -> Result<(), End> {
        let orders = self.sink.standing_orders(&self.host).await.map_err(Status::from)?;
        for order in &orders {
            self.send(ToAgent::Order(order.into())).await?;
        }
        Ok(())
    }

    /// Sends, and gives up on an agent that does not read.
    async fn send(&mut self, message: ToAgent) -> Result<(), End> {
        let message = v1::CoordinatorMessage { message: Some(message) };
        let limit: Duration = caps::HEARTBEAT_LOST_AFTER;
        match self.outbound.send_timeout(Ok(message), limit).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(End::Closed),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                Err(Status::deadline_exceeded("the agent does not read").into())
            }
        }
    }
}

/// Ticks at once, then at every renewal.
fn renewal() -> Interval {
    let mut renewal = interval(caps::ORDER_RENEWAL);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    renewal
}
