//! Who this host is: its key and certificate on disk, and the TLS configuration made of them, published so that a
//! renewal reaches the next connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::ClientConfig;
use sluice_common::digest::Digest;
use sluice_common::identity::Principal;
use sluice_common::name::HostName;
use sluice_proto::transport::credentials::{Credentials, CredentialsError, NewKey};
use sluice_proto::transport::peer::{PeerCertificate, PeerError};
use sluice_proto::transport::tls::{self, TlsError};
use tokio::sync::watch;

use crate::layout;

/// This host's identity.
#[derive(Debug)]
pub(crate) struct Identity {
    path: PathBuf,
    host: HostName,
    certificate: PeerCertificate,
    tls: watch::Sender<Arc<ClientConfig>>,
}

/// Says why there is no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// The host was never enrolled.
    #[error("this host is not enrolled: {path} does not exist; run `sluice-agent enroll`")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged or may be read by others.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The certificate names nobody.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The certificate is not a host's.
    #[error("the identity is that of {0}, not of a host; enrol this host")]
    NotAHost(Principal),
    /// TLS refuses it.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Identity {
    /// Loads the identity below `data`.
    pub(crate) fn load(data: &Path) -> Result<Self, IdentityError> {
        let path = layout::identity(data);
        if !path.exists() {
            return Err(IdentityError::Missing { path });
        }
        let credentials = Credentials::load(&path)?;
        let (certificate, host) = read(&credentials)?;
        Ok(Self { path, host, certificate, tls: watch::Sender::new(tls::client(&credentials)?) })
    }

    /// Returns the host's name.
    pub(crate) fn host(&self) -> &HostName {
        &self.host
    }

    /// Returns the TLS configuration, now and after each renewal.
    pub(crate) fn tls(&self) -> watch::Receiver<Arc<ClientConfig>> {
        self.tls.subscribe()
    }

    /// Says whether it is time to renew. Hosts spread their renewals by their names.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        let spread = f64::from(Digest::of(self.host.as_str().as_bytes()).as_bytes()[0]) / 255.0;
        now >= self.certificate.renew_at(spread)
    }

    /// Says whether the certificate has ended.
    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        now >= self.certificate.not_after
    }

    /// Takes a renewed certificate: writes key and certificate in one step, then publishes them.
    pub(crate) fn renew(
        &mut self,
        key: NewKey,
        certificate_pem: &str,
        ca_pem: &str,
    ) -> Result<(), IdentityError> {
        let credentials = key.into_credentials(certificate_pem, ca_pem)?;
        let (certificate, host) = read(&credentials)?;
        let config = tls::client(&credentials)?;
        if host != self.host {
            return Err(IdentityError::NotAHost(Principal::Host(host)));
        }
        credentials.store(&self.path).map_err(CredentialsError::from)?;
        self.certificate = certificate;
        self.tls.send_replace(config);
        Ok(())
    }
}

/// Reads whom credentials speak for; only a host's are of use here.
pub(crate) fn read(credentials: &Credentials) -> Result<(PeerCertificate, HostName), IdentityError> {
    let certificate = PeerCertificate::parse(&credentials.certificate()?)?;
    match certificate.principal.clone() {
        Principal::Host(host) => Ok((certificate, host)),
        other @ (Principal::Operator(_) | Principal::Coordinator) => Err(IdentityError::NotAHost(other)),
    }
}
