//! The listener: accepts TCP, completes TLS within limits, serves HTTP/2 within limits, behind the gate of [`crate::access`].
//!
//! Invariants: before a peer has proved who it is it costs a bounded place for a bounded time; no request is handled
//! before the gate let it through; a revoked identity's connections end; a new certificate is used from the next
//! handshake on. Each connection is metered and can be paced at the socket ([`Peer`] in the request's extensions).
//!
//! Tasks: the accept loop, handshakes and newcomers' timers (see `accept`), on the given tracker; tonic's own task
//! for each connection, which ends with its connection. [`Listener::serve`] returns when all of them have ended.

mod accept;
mod connection;
mod connections;
mod peer;
mod routes;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use sluice_common::caps;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

pub use connection::Connection;
pub use connections::Connections;
pub use peer::Peer;
pub use routes::Routes;

use crate::access::Gate;
use accept::Acceptor;

/// Time for calls to end by themselves when the service stops.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Connections that have shaken hands and wait for their HTTP/2 task.
const ESTABLISHED: usize = 64;

/// A bound socket.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// What the listener needs to serve.
pub struct Serve {
    /// The services.
    pub routes: Routes,
    /// What stands in front of them.
    pub gate: Gate,
    /// The TLS configuration of the moment.
    pub tls: watch::Receiver<Arc<ServerConfig>>,
    /// Open connections by identity.
    pub connections: Connections,
    /// Where tasks run.
    pub tasks: TaskTracker,
    /// Ends the service.
    pub stop: CancellationToken,
}

/// Says why the listener failed.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be had.
    #[error("cannot listen on {address}; give a free address with --listen")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// HTTP/2 serving failed as a whole.
    #[error("the listener failed")]
    Serve(#[from] tonic::transport::Error),
}

impl Listener {
    /// Binds; from now on connections queue up.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind { address, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address })
    }

    /// Returns the bound address, with the port that the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then lets calls end for a while, and ends the rest.
    pub async fn serve(self, serve: Serve) -> Result<(), ListenError> {
        let Serve { routes, gate, tls, connections, tasks, stop } = serve;
        let end_all = CancellationToken::new();
        let acceptor = Acceptor::new(tls, connections, end_all.clone(), tasks.clone());
        let (outgoing, established) = mpsc::channel(ESTABLISHED);
        tasks.spawn(accept::run(self.socket, acceptor, outgoing, stop.clone()));
        let serving = server().layer(gate).serve_with_incoming_shutdown(
            routes,
            ReceiverStream::new(established),
            stop.clone().cancelled_owned(),
        );
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => return Ok(served?),
            () = async { stop.cancelled().await; tokio::time::sleep(STOP_GRACE).await } => end_all.cancel(),
        }
        Ok(serving.await?)
    }
}

/// HTTP/2 with limits: tonic's own defaults are made for peers that are trusted.
fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(caps::STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(caps::HEADER_LIST_BYTES_MAX)
        .http2_keepalive_interval(Some(caps::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(caps::CONTENT_KEEPALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(caps::STREAMS_PER_CONNECTION as usize))
        .initial_stream_window_size(caps::CONTENT_WINDOW_BYTES)
        .initial_connection_window_size(caps::CONTENT_WINDOW_BYTES)
}

#[cfg(test)]
mod tests;
