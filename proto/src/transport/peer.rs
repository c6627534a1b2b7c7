//! What a certificate says of its holder.

use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use sluice_common::digest::Digest;
use sluice_common::identity::Principal;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The identity and life of a certificate whose chain was verified already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whom it speaks for.
    pub principal: Principal,
    /// SHA-256 of the certificate: what a revocation names.
    pub fingerprint: Digest,
    /// When it begins to hold.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

/// Says why a certificate speaks for nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("certificate is not a sluice identity: {0}")]
pub struct PeerError(String);

impl PeerCertificate {
    /// Reads a DER certificate.
    pub fn parse(der: &CertificateDer<'_>) -> Result<Self, PeerError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| PeerError(error.to_string()))?;
        let names = certificate.subject_alternative_name().map_err(|error| PeerError(error.to_string()))?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        let [uri] = uris[..] else {
            return Err(PeerError(format!("it has {} URIs instead of one", uris.len())));
        };
        let principal = uri.parse().map_err(|error| PeerError(format!("{error}")))?;
        let at = |seconds| Timestamp::from_second(seconds).map_err(|error| PeerError(error.to_string()));
        let validity = certificate.validity();
        Ok(Self {
            principal,
            fingerprint: Digest::of(der),
            not_before: at(validity.not_before.timestamp())?,
            not_after: at(validity.not_after.timestamp())?,
        })
    }

    /// Returns when to renew: after half of the certificate's life, spread over a further fifth of it by `spread`
    /// (0 to 1, a host's own), so that hosts enrolled together do not come together.
    pub fn renew_at(&self, spread: f64) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before).unsigned_abs();
        let share = 0.5 + 0.2 * spread.clamp(0.0, 1.0);
        let after = Duration::from_secs((life.as_secs_f64() * share) as u64);
        self.not_before.checked_add(after).unwrap_or(self.not_after)
    }
}
