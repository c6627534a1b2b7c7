//! Mutually authenticated TLS 1.3 over TCP, metered at the socket and paced where content travels.
//!
//! The layers, outside in: HTTP/2 (tonic), TLS (rustls), [`metered::Metered`] (counts and paces), TCP. Counting
//! and pacing sit below TLS, so that they see what the link sees.

pub mod client;
pub mod credentials;
pub mod limiter;
pub mod metered;
pub mod peer;
pub mod tls;

/// The DNS name in every coordinator's certificate. Clients verify it whatever address they dial, so that a
/// coordinator may move; no other certificate of the authority ever carries it.
pub const COORDINATOR_NAME: &str = "coordinator.sluice.internal";
