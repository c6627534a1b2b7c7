//! The coordinator's own certificate: made at each start, made anew before it ends, used from the next handshake on.
//!
//! Task: [`run`], one for the service. Out: a `watch` channel with the TLS configuration of the moment.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::ServerConfig;
use sluice_common::caps;
use sluice_proto::transport::tls::{self, TlsError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Authority, CaError};
use crate::access::Roster;

/// Share of the certificate's life after which it is renewed.
const RENEWED_AFTER: Duration = Duration::from_secs(caps::COORDINATOR_CERTIFICATE_TTL.as_secs() / 2);
/// Time until the next attempt when a renewal failed.
const RETRY: Duration = Duration::from_secs(3600);

/// Says why the coordinator has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The authority cannot sign.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// TLS refuses it.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Makes a certificate and the configuration that uses it.
pub fn configuration(authority: &Authority) -> Result<Arc<ServerConfig>, OwnError> {
    Ok(tls::server(&authority.own_credentials()?)?)
}

/// Renews the certificate in time, and forgets expired ones of others, until cancelled.
pub async fn run(
    authority: Authority,
    roster: Roster,
    current: watch::Sender<Arc<ServerConfig>>,
    stop: CancellationToken,
) {
    let mut wait = RENEWED_AFTER;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        roster.prune(Timestamp::now());
        wait = match configuration(&authority) {
            Ok(configuration) => {
                current.send_replace(configuration);
                tracing::info!("the coordinator's certificate was renewed");
                RENEWED_AFTER
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot renew the coordinator's certificate"
                );
                RETRY
            }
        };
    }
}
