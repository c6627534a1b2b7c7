//! The certificate authority: one key and certificate in `DATA/authority/ca.pem`, made on the first start.

use std::path::Path;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sluice_common::digest::Digest;
use sluice_common::identity::Principal;
use sluice_common::{caps, durable};
use sluice_proto::transport::COORDINATOR_NAME;
use sluice_proto::transport::credentials::{Credentials, CredentialsError};
use uuid::Uuid;

/// How far a certificate's life reaches back: clocks of hosts differ.
const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// The authority's key and certificate.
pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    fingerprint: Digest,
}

/// A certificate, fresh from the authority.
#[derive(Debug, Clone)]
pub struct Issued {
    /// PEM.
    pub pem: String,
    /// SHA-256 of its DER.
    pub fingerprint: Digest,
    /// When it ends.
    pub not_after: Timestamp,
}

/// Says why the authority cannot work.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its file cannot be read or written.
    #[error("cannot use the authority's key")]
    Io(#[from] std::io::Error),
    /// Its file may be read by others.
    #[error(
        "the authority's key {path} may be read by others (mode {mode:03o}); run chmod 600 on it, and consider making a new authority"
    )]
    Exposed {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Its file is not what the coordinator wrote.
    #[error("the authority's key {path} is damaged: {reason}; restore it from a backup")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// There is none, but there are identities that it signed.
    #[error(
        "the authority's key {0} is missing although hosts or operators have enrolled; restore it from a backup"
    )]
    Lost(String),
    /// A key or certificate could not be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// The coordinator's own credentials could not be put together.
    #[error("cannot use the coordinator's own certificate")]
    Own(#[from] CredentialsError),
}

/// Says why a certificate signing request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is larger than any real one.
    #[error("the certificate signing request has {0} bytes; at most {max} are allowed", max = caps::CSR_BYTES_MAX)]
    TooLarge(usize),
    /// It is not one, or its signature does not hold.
    #[error("the certificate signing request is not valid: {0}")]
    Invalid(rcgen::Error),
    /// Signing failed.
    #[error("cannot sign the certificate")]
    Sign(#[source] rcgen::Error),
}

impl Ca {
    /// Loads the authority, or makes it where `may_create`.
    pub(super) fn open(path: &Path, may_create: bool) -> Result<Self, CaError> {
        if fs::exists(path)? {
            return Self::load(path);
        }
        if !may_create {
            return Err(CaError::Lost(path.display().to_string()));
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = authority_params().self_signed(&key)?;
        durable::write_private(path, format!("{}{}", key.serialize_pem(), certificate.pem()).as_bytes())?;
        tracing::info!(fingerprint = %Digest::of(certificate.der()), "certificate authority created");
        Self::load(path)
    }

    fn load(path: &Path) -> Result<Self, CaError> {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(CaError::Exposed { path: path.display().to_string(), mode });
        }
        let damaged = |reason: String| CaError::Damaged { path: path.display().to_string(), reason };
        let pem = fs::read_to_string(path)?;
        let key = KeyPair::from_pem(&pem).map_err(|error| damaged(error.to_string()))?;
        let der =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| damaged(error.to_string()))?;
        let begin =
            pem.find("-----BEGIN CERTIFICATE-----").ok_or_else(|| damaged("no certificate".into()))?;
        let certificate_pem = pem[begin..].to_owned();
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| damaged(error.to_string()))?;
        Ok(Self { issuer, certificate_pem, fingerprint: Digest::of(&der) })
    }

    /// Returns the certificate, PEM.
    pub(super) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Returns the SHA-256 of the certificate (DER): what join tokens carry.
    pub(super) fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Signs a certificate for `principal`. Of the request only the public key is used.
    pub(super) fn sign_request(&self, principal: &Principal, csr_pem: &str) -> Result<Issued, RequestError> {
        if csr_pem.len() > caps::CSR_BYTES_MAX {
            return Err(RequestError::TooLarge(csr_pem.len()));
        }
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(RequestError::Invalid)?;
        let life = match principal {
            Principal::Operator(_) => caps::OPERATOR_CERTIFICATE_TTL,
            Principal::Host(_) | Principal::Coordinator => caps::AGENT_CERTIFICATE_TTL,
        };
        self.sign(principal, &request.public_key, life).map_err(RequestError::Sign)
    }

    /// Makes a key and certificate for this coordinator.
    pub(super) fn own_credentials(&self) -> Result<Credentials, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let issued = self.sign(&Principal::Coordinator, &key, caps::COORDINATOR_CERTIFICATE_TTL)?;
        Ok(Credentials::from_pem(format!("{}{}{}", key.serialize_pem(), issued.pem, self.certificate_pem))?)
    }

    fn sign(
        &self,
        principal: &Principal,
        key: &impl PublicKeyData,
        life: Duration,
    ) -> Result<Issued, rcgen::Error> {
        let mut params = params(life);
        params.distinguished_name.push(DnType::CommonName, principal.to_string());
        params.subject_alt_names = vec![SanType::URI(principal.to_string().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        match principal {
            Principal::Coordinator => {
                params.subject_alt_names.push(SanType::DnsName(COORDINATOR_NAME.try_into()?));
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }
            Principal::Host(_) | Principal::Operator(_) => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }
        }
        let not_after = params.not_after.unix_timestamp();
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(Issued {
            pem: certificate.pem(),
            fingerprint: Digest::of(certificate.der()),
            not_after: Timestamp::from_second(not_after).unwrap_or(Timestamp::MAX),
        })
    }
}

fn params(life: Duration) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + life).into();
    params.serial_number = Some(SerialNumber::from_slice(Uuid::new_v4().as_bytes()));
    params.distinguished_name = DistinguishedName::new();
    params
}

fn authority_params() -> CertificateParams {
    let mut params = params(caps::CA_TTL);
    params.distinguished_name.push(DnType::CommonName, "sluice authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::string::Ia5String;
    use sluice_proto::transport::credentials::NewKey;
    use sluice_proto::transport::peer::PeerCertificate;

    use super::*;

    fn open(dir: &tempfile::TempDir) -> Ca {
        Ca::open(&dir.path().join("ca.pem"), true).unwrap()
    }

    #[test]
    fn only_the_key_of_a_request_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut asked = CertificateParams::new(vec![COORDINATOR_NAME.to_owned()]).unwrap();
        asked.subject_alt_names.push(SanType::URI(Ia5String::try_from("sluice://operator/root").unwrap()));
        asked.distinguished_name.push(DnType::CommonName, "sluice://coordinator");
        let csr = asked.serialize_request(&key).unwrap().pem().unwrap();
        let principal: Principal = "sluice://host/web-1".parse().unwrap();
        let issued = open(&dir).sign_request(&principal, &csr).unwrap();
        let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        let parsed = PeerCertificate::parse(&der).unwrap();
        assert_eq!((parsed.principal, parsed.fingerprint), (principal, issued.fingerprint));
        assert_eq!(parsed.not_after, issued.not_after);
        let text = String::from_utf8_lossy(&der);
        assert!(!text.contains(COORDINATOR_NAME) && !text.contains("operator/root"));
    }

    #[test]
    fn requests_that_are_none_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ca = open(&dir);
        let host: Principal = "sluice://host/web-1".parse().unwrap();
        let good = NewKey::generate().unwrap().request_pem().unwrap();
        let forged = {
            let mut lines: Vec<_> = good.lines().map(str::to_owned).collect();
            let end = lines.len() - 2;
            lines[end] = lines[end].chars().rev().collect();
            lines.join("\n")
        };
        for bad in [String::new(), "x".repeat(caps::CSR_BYTES_MAX + 1), forged] {
            assert!(ca.sign_request(&host, &bad).is_err());
        }
        assert!(ca.sign_request(&host, &good).is_ok());
    }

    #[test]
    fn the_key_is_private_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let first = open(&dir).fingerprint();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open(&dir).fingerprint(), first);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(Ca::open(&path, true), Err(CaError::Exposed { mode: 0o640, .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(Ca::open(&path, false), Err(CaError::Lost(_))));
    }
}
