//! What a party proves itself with: key, certificate and authority, in one file so that a renewal is atomic.

use std::io;
use std::path::Path;

use fs_err as fs;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sluice_common::durable;

/// A key pair that has no certificate yet. The key never leaves the machine it was made on.
pub struct NewKey(KeyPair);

/// A private key, its certificate, and the authority that signed it; all PEM.
#[derive(Clone)]
pub struct Credentials {
    pem: String,
}

/// Says what is wrong with credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Reading or writing failed.
    #[error("cannot use the identity file")]
    Io(#[from] io::Error),
    /// The file is not what [`Credentials::store`] writes.
    #[error("identity is damaged: {0}; enrol again")]
    Damaged(String),
    /// The file may be read by others.
    #[error("identity file {path} may be read by others (mode {mode:03o}); run chmod 600 on it")]
    Exposed {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Making a key or request failed.
    #[error("cannot make a key")]
    Generate(#[from] rcgen::Error),
}

impl NewKey {
    /// Makes an ECDSA P-256 key.
    pub fn generate() -> Result<Self, CredentialsError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// Returns a certificate signing request, PEM. It carries the public key and nothing else.
    pub fn request_pem(&self) -> Result<String, CredentialsError> {
        Ok(CertificateParams::default().serialize_request(&self.0)?.pem()?)
    }

    /// Joins the key with the certificate made for it and the authority's.
    pub fn into_credentials(
        self,
        certificate_pem: &str,
        ca_pem: &str,
    ) -> Result<Credentials, CredentialsError> {
        Credentials::from_pem(format!("{}{certificate_pem}{ca_pem}", self.0.serialize_pem()))
    }
}

impl Credentials {
    /// Takes concatenated PEM: a private key, its certificate, the authority's certificate.
    pub fn from_pem(pem: String) -> Result<Self, CredentialsError> {
        let credentials = Self { pem };
        credentials.key()?;
        match credentials.certificates()?.len() {
            2 => Ok(credentials),
            n => Err(CredentialsError::Damaged(format!("{n} certificates instead of 2"))),
        }
    }

    /// Reads an identity file; refuses one that others may read.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(CredentialsError::Exposed { path: path.display().to_string(), mode });
        }
        Self::from_pem(fs::read_to_string(path)?)
    }

    /// Writes the identity file, durably and readable by its owner only.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        durable::write_private(path, self.pem.as_bytes())
    }

    /// Returns the private key.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, CredentialsError> {
        PrivateKeyDer::from_pem_slice(self.pem.as_bytes())
            .map_err(|e| CredentialsError::Damaged(e.to_string()))
    }

    /// Returns the party's own certificate.
    pub fn certificate(&self) -> Result<CertificateDer<'static>, CredentialsError> {
        Ok(self.certificates()?.swap_remove(0))
    }

    /// Returns the authority's certificate.
    pub fn authority(&self) -> Result<CertificateDer<'static>, CredentialsError> {
        Ok(self.certificates()?.swap_remove(1))
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
        CertificateDer::pem_slice_iter(self.pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| CredentialsError::Damaged(e.to_string()))
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}
