//! Ed25519 keys: release engineers sign with them, hosts pin them.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::durable;

const PUBLIC_PREFIX: &str = "sluice-public-key ed25519 ";
const SECRET_PREFIX: &str = "sluice-secret-key ed25519 ";

/// A key that verifies releases.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PublicKey([u8; 32]);

/// A signature over a release's statement.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// The key that made it.
    pub key: PublicKey,
    /// Its 64 bytes.
    pub bytes: [u8; 64],
}

/// A key that signs releases. Never printed.
pub struct SecretKey(Ed25519KeyPair);

/// Says what is wrong with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is no key.
    #[error("not a {expected}: expected one line {prefix:?}<base64>")]
    Parse {
        /// Public or secret key.
        expected: &'static str,
        /// How the line begins.
        prefix: &'static str,
    },
    /// The file's mode lets others read the secret.
    #[error("secret key {path} may be read by others (mode {mode:03o}); run chmod 600 on it")]
    Exposed {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// The file exists already.
    #[error("{0} exists already; a key is never overwritten")]
    Exists(String),
    /// Reading or writing failed.
    #[error("cannot use the key file")]
    Io(#[from] io::Error),
    /// The random number generator failed.
    #[error("the system gave no random bytes")]
    Random,
}

impl PublicKey {
    /// Returns the first 12 hex digits of the key's SHA-256: what people compare.
    pub fn id(&self) -> String {
        Digest::of(&self.0).short()
    }

    /// Returns the 32 raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Wraps raw bytes; nothing when there are not 32 of them.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Says whether `signature` over `message` was made by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        signature::UnparsedPublicKey::new(&signature::ED25519, &self.0).verify(message, signature).is_ok()
    }

    /// Reads a public key file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        fs::read_to_string(path)?.trim().parse()
    }
}

impl SecretKey {
    /// Makes a key from the system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        aws_lc_rs::rand::SecureRandom::fill(&SystemRandom::new(), &mut seed).map_err(|_| KeyError::Random)?;
        Self::from_seed(&seed)
    }

    fn from_seed(seed: &[u8]) -> Result<Self, KeyError> {
        let error = |_| KeyError::Parse { expected: "secret key", prefix: SECRET_PREFIX };
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(error)
    }

    /// Returns the key that verifies what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_slice(self.0.public_key().as_ref()).expect("an ed25519 public key has 32 bytes")
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let bytes = self.0.sign(message).as_ref().try_into().expect("an ed25519 signature has 64 bytes");
        Signature { key: self.public(), bytes }
    }

    /// Writes the secret to `path` (mode 0600) and the public key to `path` with `.pub` appended. Overwrites nothing.
    pub fn store(&self, path: &Path) -> Result<PublicKey, KeyError> {
        let public_path = public_path(path);
        for taken in [path, &public_path] {
            if fs::symlink_metadata(taken).is_ok() {
                return Err(KeyError::Exists(taken.display().to_string()));
            }
        }
        let seed = self.0.seed().map_err(|_| KeyError::Random)?;
        let seed = AsBigEndian::<Curve25519SeedBin<'_>>::as_be_bytes(&seed).map_err(|_| KeyError::Random)?;
        durable::write_private(
            path,
            format!("{SECRET_PREFIX}{}\n", BASE64.encode(seed.as_ref())).as_bytes(),
        )?;
        durable::write_public(&public_path, format!("{}\n", self.public()).as_bytes())?;
        Ok(self.public())
    }

    /// Reads a secret key file; refuses one that others may read.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.display().to_string(), mode });
        }
        let error = || KeyError::Parse { expected: "secret key", prefix: SECRET_PREFIX };
        let text = fs::read_to_string(path)?;
        let encoded = text.trim().strip_prefix(SECRET_PREFIX).ok_or_else(error)?;
        Self::from_seed(&BASE64.decode(encoded).map_err(|_| error())?)
    }
}

/// Returns where the public half of the secret key at `path` stands.
pub fn public_path(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", BASE64.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature(by {})", self.key.id())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public().id())
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let error = || KeyError::Parse { expected: "public key", prefix: PUBLIC_PREFIX };
        let encoded = text.strip_prefix(PUBLIC_PREFIX).ok_or_else(error)?;
        Self::from_slice(&BASE64.decode(encoded).map_err(|_| error())?).ok_or_else(error)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_key_signs_and_its_public_half_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("release.key");
        let public = SecretKey::generate().unwrap().store(&path).unwrap();
        let signature = SecretKey::load(&path).unwrap().sign(b"message");
        assert_eq!(PublicKey::load(&public_path(&path)).unwrap(), public);
        assert!(public.verifies(b"message", &signature.bytes));
        assert!(!public.verifies(b"massage", &signature.bytes));
        assert!(!SecretKey::generate().unwrap().public().verifies(b"message", &signature.bytes));
    }

    #[test]
    fn keys_are_neither_overwritten_nor_read_when_exposed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("release.key");
        let key = SecretKey::generate().unwrap();
        key.store(&path).unwrap();
        assert!(matches!(key.store(&path), Err(KeyError::Exists(_))));
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(SecretKey::load(&path), Err(KeyError::Exposed { mode: 0o640, .. })));
        assert!(!format!("{key:?}").contains(&fs::read_to_string(&path).unwrap()[SECRET_PREFIX.len()..]));
    }
}
