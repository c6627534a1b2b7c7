//! The control session with a coordinator: who we are, heartbeats, orders in, reports out. Content never travels here.
//!
//! One task, which reconnects for ever. In: reports, by [`Board`] (`watch`: the latest of each application). Out: orders,
//! by a bounded channel. A report is sent when it changes and repeated until it is acknowledged; a lost session changes
//! nothing about what the applications do.

mod reports;

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, OptionFuture};
use jiff::Timestamp;
use sluice_common::caps;
use sluice_common::order::Order;
use sluice_common::units::ByteRate;
use sluice_proto::transport::credentials::NewKey;
use sluice_proto::v1;
use sluice_proto::v1::agent_message::Message as FromAgent;
use sluice_proto::v1::coordinator_message::Message as FromCoordinator;
use sluice_proto::v1::session_client::SessionClient;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::backoff::{Outage, random};
use crate::board::Board;
use crate::content::{Dialer, chain};
use crate::facts;
use crate::identity::Identity;
use crate::stage::Floor;
use crate::status::live::Connection;

use reports::Outbox;

/// Messages to the coordinator that wait: it reads them as they come.
const OUTBOUND: usize = 64;
/// Interval at which reports are looked through for ones to repeat.
const REPEAT_CHECK: Duration = Duration::from_secs(1);
/// Interval at which the certificate's age is looked at.
const RENEWAL_CHECK: Duration = Duration::from_secs(60);
/// Bounds of the heartbeat interval that a coordinator may ask for.
const HEARTBEAT_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Keeps the session.
pub(crate) struct Session {
    /// Dials.
    pub(crate) dialer: Dialer,
    /// Who we are.
    pub(crate) identity: Identity,
    /// What is reported.
    pub(crate) board: Board,
    /// Tells with whom there is a session.
    pub(crate) connection: watch::Sender<Option<Connection>>,
    /// Takes orders.
    pub(crate) orders: mpsc::Sender<Order>,
    /// Where applications stand, for the facts of the disk.
    pub(crate) root: std::path::PathBuf,
    /// What stays free of that disk.
    pub(crate) disk_floor: Floor,
    /// The agent's own limit, which it tells.
    pub(crate) limit: Option<ByteRate>,
}

/// Says why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Connect(#[from] sluice_proto::transport::client::ConnectError),
    #[error("the coordinator ended the session: {0}")]
    Refused(String),
    #[error("the coordinator ended the session")]
    Ended,
    #[error("the coordinator is silent")]
    Silent,
    #[error("the coordinator does not read what it is sent")]
    Stalled,
}

type Renewed = Result<(NewKey, v1::RenewResponse), String>;

/// What one attached session knows.
struct Attached {
    client: SessionClient<Channel>,
    outbound: mpsc::Sender<v1::AgentMessage>,
    outbox: Outbox,
    heard: Instant,
    sequence: u64,
    renewal: Option<BoxFuture<'static, Renewed>>,
}

/// Returns why no session began. A coordinator that refuses a certificate ends the connection, and its alert is often lost
/// with it: the one cause that does not pass by itself is named.
fn told(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        Some(cause) => format!(
            "{}; if this goes on, it does not accept this host's certificate: see its log, and enrol the host anew",
            chain(cause)
        ),
        None => status.message().to_owned(),
    }
}

impl Session {
    /// Runs until `token` is cancelled.
    pub(crate) async fn run(mut self, token: CancellationToken) {
        let mut outage = Outage::begin(Instant::now());
        while !token.is_cancelled() {
            let (began, mut was_attached) = (Instant::now(), false);
            let ended = tokio::select! {
                ended = self.attach(&mut was_attached) => ended,
                () = token.cancelled() => return,
            };
            self.connection.send_replace(None);
            outage.try_ended(was_attached, began.elapsed(), Instant::now());
            let delay = outage.next_delay(Instant::now(), random());
            let delay_ms = delay.as_millis() as u64;
            if let Err(error) = ended {
                tracing::warn!(
                    error = chain(&error),
                    delay_ms,
                    "no session with a coordinator; it is dialled again"
                );
            }
            if self.identity.has_expired(Timestamp::now()) {
                tracing::error!("this host's certificate has expired; enrol the host anew");
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = token.cancelled() => return,
            }
        }
    }

    /// Attaches, says so in `was_attached`, and keeps the session until it is lost.
    async fn attach(&mut self, was_attached: &mut bool) -> Result<(), SessionError> {
        let (address, channel) = self.dialer.connect(|_| {}).await?;
        let (outbound, receiver) = mpsc::channel(OUTBOUND);
        let mut client = SessionClient::new(channel).max_decoding_message_size(caps::GRPC_MESSAGE_BYTES_MAX);
        let hello = v1::Hello {
            facts: Some(facts::read(&self.root, self.disk_floor)),
            limit_bytes_per_second: self.limit.map_or(0, ByteRate::bytes_per_second),
        };
        send(&outbound, FromAgent::Hello(hello)).await?;
        let attached =
            tokio::time::timeout(caps::HANDSHAKE_TIMEOUT, client.attach(ReceiverStream::new(receiver)));
        let mut inbound = match attached.await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(SessionError::Refused(told(&status))),
            Err(_) => return Err(SessionError::Silent),
        };
        *was_attached = true;
        let (coordinator, since) = (address.to_string(), Timestamp::now());
        self.connection.send_replace(Some(Connection { coordinator, since }));
        tracing::info!(coordinator = %address, host.id = %self.identity.host(), "session is attached");
        let mut session = Attached {
            client,
            outbound,
            outbox: Outbox::default(),
            heard: Instant::now(),
            sequence: 0,
            renewal: None,
        };
        let mut board = self.board.watch();
        let mut heartbeat = interval(caps::HEARTBEAT_INTERVAL);
        let mut repeat = interval(REPEAT_CHECK);
        let mut renewal_check = interval(RENEWAL_CHECK);
        loop {
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(message)) => {
                        session.heard = Instant::now();
                        if let Some(asked) = self.hear(&mut session, message) {
                            heartbeat = interval(asked);
                        }
                    }
                    Ok(None) => return Err(SessionError::Ended),
                    Err(status) => return Err(SessionError::Refused(chain(&status))),
                },
                _ = heartbeat.tick() => {
                    if session.heard.elapsed() > caps::HEARTBEAT_LOST_AFTER {
                        return Err(SessionError::Silent);
                    }
                    session.sequence += 1;
                    let sequence = session.sequence;
                    send(&session.outbound, FromAgent::Heartbeat(v1::Heartbeat { sequence })).await?;
                }
                changed = board.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.report(&mut session, &mut board).await?;
                }
                _ = repeat.tick() => self.report(&mut session, &mut board).await?,
                _ = renewal_check.tick() => self.begin_renewal(&mut session),
                renewed = OptionFuture::from(session.renewal.as_mut()), if session.renewal.is_some() => {
                    session.renewal = None;
                    renewed.into_iter().for_each(|renewed| self.end_renewal(renewed));
                }
            }
        }
    }

    /// Takes a message; returns a new heartbeat interval where one is asked for.
    fn hear(&self, session: &mut Attached, message: v1::CoordinatorMessage) -> Option<Duration> {
        match message.message {
            Some(FromCoordinator::Welcome(v1::Welcome { host, site, heartbeat_interval_ms })) => {
                tracing::info!(host.id = host, site, "coordinator welcomes this host");
                let (least, most) = HEARTBEAT_BOUNDS;
                return Some(Duration::from_millis(heartbeat_interval_ms).clamp(least, most))
                    .filter(|_| heartbeat_interval_ms > 0);
            }
            Some(FromCoordinator::HeartbeatAck(v1::HeartbeatAck { sequence: _ })) => {}
            Some(FromCoordinator::ReportAck(v1::ReportAck { app, generation, sequence })) => {
                session.outbox.acknowledged(&app, generation, sequence);
            }
            Some(FromCoordinator::Order(order)) => match Order::try_from(order) {
                Ok(order) => {
                    // Whoever repeats an order may not have our answer to it.
                    session.outbox.forget(&order.app);
                    if let Err(error) = self.orders.try_send(order) {
                        tracing::warn!(error = %error, "order is dropped until it is repeated");
                    }
                }
                Err(error) => tracing::error!(error = %error, "order is not valid and is refused"),
            },
            // A newer coordinator may say more than we know.
            None => {}
        }
        None
    }

    async fn report(
        &self,
        session: &mut Attached,
        board: &mut tokio::sync::watch::Receiver<reports::Reports>,
    ) -> Result<(), SessionError> {
        let due = session.outbox.due(&board.borrow_and_update(), Instant::now());
        for report in due {
            send(&session.outbound, FromAgent::Report(report)).await?;
        }
        Ok(())
    }

    fn begin_renewal(&self, session: &mut Attached) {
        if session.renewal.is_none() && self.identity.is_due(Timestamp::now()) {
            session.renewal = Some(renew(session.client.clone()).boxed());
        }
    }

    fn end_renewal(&mut self, renewed: Renewed) {
        let taken = renewed.and_then(|(key, v1::RenewResponse { certificate_pem, ca_pem })| {
            self.identity.renew(key, &certificate_pem, &ca_pem).map_err(|error| chain(&error))
        });
        match taken {
            Ok(()) => tracing::info!("certificate is renewed"),
            Err(error) => tracing::warn!(error, "certificate is not renewed; it is tried again"),
        }
    }
}

async fn renew(mut client: SessionClient<Channel>) -> Renewed {
    let key = NewKey::generate().map_err(|error| error.to_string())?;
    let request = v1::RenewRequest { csr_pem: key.request_pem().map_err(|error| error.to_string())? };
    let response = client.renew(request).await.map_err(|status| chain(&status))?;
    Ok((key, response.into_inner()))
}

async fn send(outbound: &mpsc::Sender<v1::AgentMessage>, message: FromAgent) -> Result<(), SessionError> {
    let message = v1::AgentMessage { message: Some(message) };
    match tokio::time::timeout(caps::HEARTBEAT_LOST_AFTER, outbound.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(SessionError::Ended),
        Err(_) => Err(SessionError::Stalled),
    }
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}
