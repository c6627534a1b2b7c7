//! Client channels: one TCP connection each, so that control and content never share one.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sluice_common::caps;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::COORDINATOR_NAME;
use super::metered::{Meter, Metered, Paced, Pacing};

/// The default port of a coordinator.
pub const DEFAULT_PORT: u16 = 7443;

/// Where a coordinator listens: `HOST` or `HOST:PORT`, optionally with `https://` before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    authority: String,
}

/// Says that a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a coordinator's address; write HOST or HOST:PORT, as in coordinator.example:{DEFAULT_PORT}"
)]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.to_owned());
        let rest = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
        let authority: http::uri::Authority = rest.parse().map_err(|_| error())?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(error());
        }
        let port =
            match authority.as_str().strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':')) {
                Some(port) => port.parse::<u16>().map_err(|_| error())?,
                None => DEFAULT_PORT,
            };
        Ok(Self { authority: format!("{}:{port}", authority.host()) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

/// How a channel is made.
#[derive(Clone)]
pub struct Dial {
    /// The coordinator.
    pub address: Address,
    /// Identity and trust.
    pub tls: Arc<ClientConfig>,
    /// Counts the connection's bytes.
    pub meter: Arc<Meter>,
    /// Limits what is received.
    pub pacing: Pacing,
    /// HTTP/2 window of a stream and of the connection, in bytes; nothing for HTTP/2's own 64 KiB.
    pub window_bytes: Option<u32>,
    /// Time a keepalive may go unanswered.
    pub keepalive_timeout: Duration,
}

impl Dial {
    /// Dials without limit and with the default window.
    pub fn new(address: Address, tls: Arc<ClientConfig>) -> Self {
        Self {
            address,
            tls,
            meter: Arc::default(),
            pacing: Pacing::default(),
            window_bytes: None,
            keepalive_timeout: caps::KEEPALIVE_TIMEOUT,
        }
    }

    /// Connects and completes the TLS handshake.
    pub async fn connect(self) -> Result<Channel, ConnectError> {
        let address = self.address.clone();
        let endpoint = self.endpoint()?;
        let connector = service_fn(move |_| open(self.clone()));
        endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|source| ConnectError::Connect { address: address.to_string(), source })
    }

    fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        // TLS is the connector's business; tonic sees a plain byte stream.
        let endpoint = Endpoint::from_shared(format!("http://{COORDINATOR_NAME}"));
        let endpoint =
            endpoint.map_err(|source| ConnectError::Connect { address: self.address.to_string(), source })?;
        Ok(endpoint
            .connect_timeout(caps::HANDSHAKE_TIMEOUT)
            .http2_keep_alive_interval(caps::KEEPALIVE_INTERVAL)
            .keep_alive_timeout(self.keepalive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(self.window_bytes)
            .initial_connection_window_size(self.window_bytes)
            .max_frame_size(caps::CONTENT_HTTP2_FRAME_BYTES)
            .http2_max_header_list_size(caps::HEADER_LIST_BYTES_MAX))
    }
}

/// Says why no channel could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TCP, TLS or HTTP/2 failed.
    #[error("cannot connect to the coordinator at {address}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
}

async fn open(dial: Dial) -> io::Result<TokioIo<tokio_rustls::client::TlsStream<Metered<TcpStream>>>> {
    let handshake = async {
        let tcp = TcpStream::connect(&dial.address.authority).await?;
        tcp.set_nodelay(true)?;
        let metered = Metered::new(tcp, vec![dial.meter], dial.pacing, Paced::Reads);
        let name = ServerName::try_from(COORDINATOR_NAME).map_err(io::Error::other)?;
        TlsConnector::from(dial.tls).connect(name, metered).await
    };
    let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "no TLS connection in time");
    let limit: Duration = caps::HANDSHAKE_TIMEOUT;
    Ok(TokioIo::new(tokio::time::timeout(limit, handshake).await.map_err(|_| timed_out())??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_take_the_forms_people_write() {
        for (text, expected) in [
            ("coordinator", "coordinator:7443"),
            ("https://c.example:9000/", "c.example:9000"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), expected);
        }
        for bad in ["", "http://x", "a b", "user@host", "host:", "host:99999", "host/path"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
