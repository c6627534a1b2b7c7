//! From a TCP connection to an identified peer: limits first, then the handshake, in bounded time.
//!
//! Tasks: the accept loop; one for each handshake; one for each connection without a certificate, which ends it when
//! its time is up. Established connections go out by a bounded channel.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use rustls::ServerConfig;
use sluice_common::caps;
use sluice_proto::transport::metered::{Meter, Metered, Paced, Pacing};
use sluice_proto::transport::peer::PeerCertificate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Connection, Connections, Peer};

/// Pause after `accept` failed, for want of file descriptors mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Failed handshakes of one address that are logged each minute.
const LOGGED_PER_MINUTE: NonZeroU32 = NonZeroU32::new(6).expect("six is not zero");
/// Addresses remembered before those with nothing on their account are forgotten.
const ADDRESSES_MAX: usize = 10_000;

/// What comes out of the accept loop.
pub(super) type Secured<S> = Connection<TlsStream<Metered<S>>>;
type Outgoing = mpsc::Sender<Result<Secured<TcpStream>, Infallible>>;

/// Turns streams into identified connections.
#[derive(Clone)]
pub(super) struct Acceptor {
    tls: watch::Receiver<Arc<ServerConfig>>,
    connections: Connections,
    /// Places of peers without a certificate.
    newcomers: Arc<Semaphore>,
    /// Ends every connection.
    end_all: CancellationToken,
    tasks: TaskTracker,
    logged: Arc<DefaultKeyedRateLimiter<std::net::IpAddr>>,
}

/// Says why a connection was not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("the handshake took longer than {} s", caps::HANDSHAKE_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the handshake failed")]
    Failed(#[from] io::Error),
    #[error("the certificate names nobody")]
    Nameless(#[from] sluice_proto::transport::peer::PeerError),
    #[error("too many connections without a certificate")]
    TooManyNewcomers,
}

impl Acceptor {
    pub(super) fn new(
        tls: watch::Receiver<Arc<ServerConfig>>,
        connections: Connections,
        end_all: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            tls,
            connections,
            newcomers: Arc::new(Semaphore::new(caps::NEWCOMERS_MAX)),
            end_all,
            tasks,
            logged: Arc::new(RateLimiter::keyed(Quota::per_minute(LOGGED_PER_MINUTE))),
        }
    }

    /// Completes the handshake in time and finds out who is there.
    pub(super) async fn accept<S>(
        &self,
        stream: S,
        address: SocketAddr,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Secured<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (meter, pacing) = (Arc::new(Meter::default()), Pacing::default());
        let metered = Metered::new(stream, vec![meter.clone()], pacing.clone(), Paced::Writes);
        // Each handshake takes the configuration of the moment: that is all there is to a reload.
        let tls = TlsAcceptor::from(self.tls.borrow().clone());
        let handshake = tokio::time::timeout(caps::HANDSHAKE_TIMEOUT, tls.accept(metered));
        let stream = handshake.await.map_err(|_| HandshakeError::TimedOut)??;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = shown.map(PeerCertificate::parse).transpose()?;
        let end = self.end_all.child_token();
        let mut places: Vec<_> = place.into_iter().collect();
        match &certificate {
            Some(certificate) => self.connections.add(&certificate.principal, end.clone()),
            None => {
                let place = self.newcomers.clone().try_acquire_owned();
                places.push(place.map_err(|_| HandshakeError::TooManyNewcomers)?);
                self.end_in_time(end.clone());
            }
        }
        let peer = Peer { address, certificate, pacing, meter };
        Ok(Connection::new(stream, peer, end, places))
    }

    /// A peer without a certificate has one thing to do here and gets the time for that.
    fn end_in_time(&self, end: CancellationToken) {
        self.tasks.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = tokio::time::sleep(caps::NEWCOMER_TIMEOUT) => end.cancel(),
            }
        });
    }

    fn log_failure(&self, address: SocketAddr, error: &HandshakeError) {
        if self.logged.len() > ADDRESSES_MAX {
            self.logged.retain_recent();
        }
        if self.logged.check_key(&address.ip()).is_ok() {
            tracing::warn!(peer = %address, error = error as &dyn std::error::Error, "connection refused");
        }
    }

    async fn accept_and_pass_on(
        self,
        tcp: TcpStream,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
        handshake_place: OwnedSemaphorePermit,
        outgoing: Outgoing,
    ) {
        if let Err(error) = tcp.set_nodelay(true) {
            return self.log_failure(address, &error.into());
        }
        let accepted = tokio::select! {
            () = self.end_all.cancelled() => return,
            accepted = self.accept(tcp, address, Some(place)) => accepted,
        };
        drop(handshake_place);
        match accepted {
            // The receiver is gone only when the service stops.
            Ok(connection) => drop(outgoing.send(Ok(connection)).await),
            Err(error) => self.log_failure(address, &error),
        }
    }
}

/// Accepts until `stop`, then closes the listening socket.
pub(super) async fn run(
    listener: TcpListener,
    acceptor: Acceptor,
    outgoing: Outgoing,
    stop: CancellationToken,
) {
    let all = Arc::new(Semaphore::new(caps::CONNECTIONS_MAX));
    let handshakes = Arc::new(Semaphore::new(caps::HANDSHAKES_MAX));
    let next = async || {
        // Places first: what has none waits in the kernel's queue, where it costs nothing.
        let place = all.clone().acquire_owned().await.expect("the semaphore is never closed");
        let handshake = handshakes.clone().acquire_owned().await.expect("the semaphore is never closed");
        (listener.accept().await, place, handshake)
    };
    loop {
        let (accepted, place, handshake) = tokio::select! {
            () = stop.cancelled() => return,
            next = next() => next,
        };
        match accepted {
            Ok((tcp, address)) => {
                let task =
                    acceptor.clone().accept_and_pass_on(tcp, address, place, handshake, outgoing.clone());
                acceptor.tasks.spawn(task);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}
