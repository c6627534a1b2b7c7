//! The signed release of an accepted order, kept so that its signature can be checked again before a switch,
//! against the keys that are pinned then.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sluice_common::durable;
use sluice_common::keys::{PublicKey, Signature};
use sluice_common::release::{Release, ReleaseError, SignedRelease};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    key: PublicKey,
    signature: String,
    statement: String,
}

/// Says why a kept release cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignedFileError {
    /// Reading failed.
    #[error("cannot read the signed release")]
    Io(#[from] io::Error),
    /// It is not what [`store_signed`] writes.
    #[error("the signed release on disk is damaged: {0}")]
    Damaged(String),
    /// The statement is no release.
    #[error("the signed release on disk is damaged")]
    Release(#[from] ReleaseError),
}

/// Writes a signed release.
pub(crate) fn store_signed(path: &Path, signed: &SignedRelease) -> io::Result<()> {
    let file = File {
        key: signed.signature.key,
        signature: hex::encode(signed.signature.bytes),
        statement: hex::encode(signed.release.encode()),
    };
    durable::write_private(path, toml::to_string(&file).map_err(io::Error::other)?.as_bytes())
}

/// Reads a signed release. Its signature has not been checked.
pub(crate) fn load_signed(path: &Path) -> Result<SignedRelease, SignedFileError> {
    let damaged = |error: &dyn ToString| SignedFileError::Damaged(error.to_string());
    let file: File = toml::from_str(&fs_err::read_to_string(path)?).map_err(|e| damaged(&e.message()))?;
    let mut bytes = [0; 64];
    hex::decode_to_slice(&file.signature, &mut bytes).map_err(|e| damaged(&e))?;
    let statement = hex::decode(&file.statement).map_err(|e| damaged(&e))?;
    Ok(SignedRelease { release: Release::decode(&statement)?, signature: Signature { key: file.key, bytes } })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sluice_common::digest::Digest;
    use sluice_common::keys::SecretKey;
    use sluice_common::name::Platform;

    use super::*;

    #[test]
    fn a_kept_release_still_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("order-1.release");
        let key = SecretKey::generate().unwrap();
        let release = Release {
            app: "shop".parse().unwrap(),
            version: "1".parse().unwrap(),
            packages: BTreeMap::from([(Platform::any(), Digest::of(b"p"))]),
            notes: "n".into(),
        };
        let signed = release.sign(&key).unwrap();
        store_signed(&path, &signed).unwrap();
        let kept = load_signed(&path).unwrap();
        assert_eq!(kept, signed);
        assert_eq!(kept.verify(&[key.public()]), Ok(()));
        let text = fs_err::read_to_string(&path).unwrap();
        fs_err::write(&path, text.replace("statement = \"73", "statement = \"74")).unwrap();
        assert!(load_signed(&path).is_err());
    }
}
