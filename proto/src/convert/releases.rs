//! Signed releases and installed packages.

use sluice_common::keys::{PublicKey, Signature};
use sluice_common::order::Installed;
use sluice_common::release::{Release, SignedRelease};

use super::{Invalid, digest, parse};
use crate::v1;

impl From<&SignedRelease> for v1::SignedRelease {
    fn from(signed: &SignedRelease) -> Self {
        let SignedRelease { release, signature } = signed;
        Self {
            statement: release.encode(),
            key: signature.key.as_bytes().to_vec(),
            signature: signature.bytes.to_vec(),
        }
    }
}

impl TryFrom<v1::SignedRelease> for SignedRelease {
    type Error = Invalid;

    fn try_from(message: v1::SignedRelease) -> Result<Self, Invalid> {
        let v1::SignedRelease { statement, key, signature } = message;
        let release =
            Release::decode(&statement).map_err(|error| Invalid::new("release.statement", error))?;
        let key =
            PublicKey::from_slice(&key).ok_or_else(|| Invalid::new("release.key", "must have 32 bytes"))?;
        let bytes =
            signature.try_into().map_err(|_| Invalid::new("release.signature", "must have 64 bytes"))?;
        Ok(Self { release, signature: Signature { key, bytes } })
    }
}

impl From<&Installed> for v1::Installed {
    fn from(installed: &Installed) -> Self {
        let Installed { package, version } = installed;
        Self { package: package.as_bytes().to_vec(), version: version.to_string() }
    }
}

impl TryFrom<v1::Installed> for Installed {
    type Error = Invalid;

    fn try_from(message: v1::Installed) -> Result<Self, Invalid> {
        let v1::Installed { package, version } = message;
        Ok(Self {
            package: digest("installed.package", &package)?,
            version: parse("installed.version", &version)?,
        })
    }
}
