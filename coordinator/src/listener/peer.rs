//! What is known of the peer of a connection before any of its requests is read.

use std::net::SocketAddr;
use std::sync::Arc;

use sluice_proto::transport::metered::{Meter, Pacing};
use sluice_proto::transport::peer::PeerCertificate;
use tonic::{Request, Status};

/// The other end of one connection; in the extensions of each of its requests.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// Its certificate, signed by our authority; nothing for one that has yet to enrol.
    pub certificate: Option<PeerCertificate>,
    /// Limits of what this connection sends; empty until content is asked for.
    pub pacing: Pacing,
    /// Bytes of this connection at the socket.
    pub meter: Arc<Meter>,
}

impl Peer {
    /// Returns the peer that sent a request.
    pub fn of<T>(request: &Request<T>) -> Result<&Self, Status> {
        request.extensions().get::<Self>().ok_or_else(|| Status::internal("the connection has no peer"))
    }
}
