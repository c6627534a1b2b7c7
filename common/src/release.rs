//! Releases: application, version, one package per platform and notes, signed offline by a release engineer.
//!
//! The signature covers the statement's canonical bytes. A host verifies them against its own pinned keys, so
//! neither a coordinator nor its database can make a host run anything.

use std::collections::BTreeMap;

use crate::caps;
use crate::codec::{self, DecodeError, Reader};
use crate::digest::Digest;
use crate::keys::{PublicKey, SecretKey, Signature};
use crate::name::{AppName, Platform, Version};

const MAGIC: &[u8; 15] = b"sluice-release\x01";
/// More platforms than exist; bounds the statement.
const PLATFORMS_MAX: u64 = 64;

/// What is deployed: the statement that gets signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The application.
    pub app: AppName,
    /// The version.
    pub version: Version,
    /// The package of each platform.
    pub packages: BTreeMap<Platform, Digest>,
    /// What is new, in words.
    pub notes: String,
}

/// A release and the signature over it. Holding one does not mean that it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRelease {
    /// The statement.
    pub release: Release,
    /// Who signed it.
    pub signature: Signature,
}

/// Says why a release is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The bytes are no statement.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The notes are too long.
    #[error("release notes have {0} bytes, more than {max}", max = caps::NOTES_BYTES_MAX)]
    Notes(usize),
    /// A release has a package for at least one platform.
    #[error("release has no package")]
    NoPackage,
    /// The signing key is not pinned.
    #[error("release is signed by the key {id}, which is not pinned here")]
    UnknownKey {
        /// The key's short id.
        id: String,
    },
    /// The signature does not fit the statement.
    #[error("signature by the key {id} does not fit the release")]
    BadSignature {
        /// The key's short id.
        id: String,
    },
}

impl Release {
    /// Returns the canonical bytes that are signed.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        codec::put_bytes(&mut out, self.app.as_str().as_bytes());
        codec::put_bytes(&mut out, self.version.as_str().as_bytes());
        codec::put_varint(&mut out, self.packages.len() as u64);
        for (platform, package) in &self.packages {
            codec::put_bytes(&mut out, platform.as_str().as_bytes());
            out.extend_from_slice(package.as_bytes());
        }
        codec::put_bytes(&mut out, self.notes.as_bytes());
        out
    }

    /// Decodes canonical bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReleaseError> {
        let mut reader = Reader::new("release", bytes);
        reader.magic(MAGIC)?;
        let app = reader.text(caps::NAME_BYTES_MAX)?.parse().map_err(|e| reader.invalid(e))?;
        let version = reader.text(caps::NAME_BYTES_MAX)?.parse().map_err(|e| reader.invalid(e))?;
        let mut packages = BTreeMap::new();
        for _ in 0..reader.varint(PLATFORMS_MAX)? {
            let platform: Platform =
                reader.text(caps::NAME_BYTES_MAX)?.parse().map_err(|e| reader.invalid(e))?;
            if packages.last_key_value().is_some_and(|(last, _)| *last >= platform) {
                return Err(reader.invalid("platforms are not in order").into());
            }
            packages.insert(platform, reader.digest()?);
        }
        let notes = reader.text(caps::NOTES_BYTES_MAX)?.to_owned();
        reader.finish()?;
        if packages.is_empty() {
            return Err(ReleaseError::NoPackage);
        }
        Ok(Self { app, version, packages, notes })
    }

    /// Returns the package for `platform`: its own, else the one for `any`.
    pub fn package_for(&self, platform: &Platform) -> Option<Digest> {
        self.packages.get(platform).or_else(|| self.packages.get(&Platform::any())).copied()
    }

    /// Signs the release; refuses one that no host would accept.
    pub fn sign(self, key: &SecretKey) -> Result<SignedRelease, ReleaseError> {
        if self.notes.len() > caps::NOTES_BYTES_MAX {
            return Err(ReleaseError::Notes(self.notes.len()));
        }
        if self.packages.is_empty() {
            return Err(ReleaseError::NoPackage);
        }
        let signature = key.sign(&self.encode());
        Ok(SignedRelease { release: self, signature })
    }
}

impl SignedRelease {
    /// Checks that the signature is by one of `pinned` and fits the statement.
    pub fn verify(&self, pinned: &[PublicKey]) -> Result<(), ReleaseError> {
        if !pinned.contains(&self.signature.key) {
            return Err(ReleaseError::UnknownKey { id: self.signature.key.id() });
        }
        self.verify_self()
    }

    /// Checks that the signature fits the statement, whoever made it.
    pub fn verify_self(&self) -> Result<(), ReleaseError> {
        let key = &self.signature.key;
        if key.verifies(&self.release.encode(), &self.signature.bytes) {
            Ok(())
        } else {
            Err(ReleaseError::BadSignature { id: key.id() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> Release {
        Release {
            app: "shop".parse().unwrap(),
            version: "1.2.0".parse().unwrap(),
            packages: BTreeMap::from([
                (Platform::any(), Digest::of(b"any")),
                ("linux-x86_64".parse().unwrap(), Digest::of(b"x86")),
            ]),
            notes: "faster".into(),
        }
    }

    #[test]
    fn the_statement_never_changes_its_bytes() {
        // A golden digest: when this fails, no signature in the field verifies any more.
        let golden = "sha256:1f16651b04264ccde999178ff806c8a12919c493de57676a315195528b2bc7d5";
        assert_eq!(Digest::of(&release().encode()).to_string(), golden);
        assert_eq!(Release::decode(&release().encode()).unwrap(), release());
    }

    #[test]
    fn only_a_pinned_key_over_the_same_statement_verifies() {
        let (key, other) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let signed = release().sign(&key).unwrap();
        assert_eq!(signed.verify(&[other.public(), key.public()]), Ok(()));
        assert!(matches!(signed.verify(&[other.public()]), Err(ReleaseError::UnknownKey { .. })));
        assert!(matches!(signed.verify(&[]), Err(ReleaseError::UnknownKey { .. })));
        let mut forged = signed;
        forged.release.version = "1.2.1".parse().unwrap();
        assert!(matches!(forged.verify(&[key.public()]), Err(ReleaseError::BadSignature { .. })));
    }

    #[test]
    fn a_platform_falls_back_to_any() {
        let release = release();
        assert_eq!(release.package_for(&"linux-x86_64".parse().unwrap()), Some(Digest::of(b"x86")));
        assert_eq!(release.package_for(&"linux-aarch64".parse().unwrap()), Some(Digest::of(b"any")));
    }
}
