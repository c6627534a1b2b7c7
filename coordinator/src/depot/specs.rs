//! The `sluice.toml` of a package, which hosts are sent before anything else, so that they can refuse the package early.

use std::io::Read;

use bytes::Bytes;
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::spec;
use sluice_common::transfer::ContentSource;

use super::Depot;
use super::packages::LoadError;
use super::reader::ReadError;

/// Says why a `sluice.toml` could not be read.
#[derive(Debug, thiserror::Error)]
enum SpecError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Depot {
    /// Returns the bytes of a package's `sluice.toml`, kept with its manifest; none where it has none. One that cannot be
    /// read is none too: hosts then learn it with the rest of the package, or that the package is damaged.
    pub(super) async fn spec(&self, package: Digest) -> Bytes {
        match self.read_spec(package).await {
            Ok(spec) => spec,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(package = %package, error, "a package's sluice.toml cannot be read");
                Bytes::new()
            }
        }
    }

    async fn read_spec(&self, digest: Digest) -> Result<Bytes, SpecError> {
        let package = &self.package(digest).await?;
        let spec = package.spec.get_or_try_init(|| async {
            let Some(content) = spec::content(&package.manifest) else { return Ok(Bytes::new()) };
            let wanted: Vec<u32> = package.manifest.content_number(&content.digest).into_iter().collect();
            let source = self.source(digest, package, &wanted).await?;
            let reading = tokio::task::spawn_blocking(move || {
                let mut bytes = Vec::new();
                source.reader(&content.digest, 0)?.take(caps::SPEC_BYTES_MAX).read_to_end(&mut bytes)?;
                Ok::<_, std::io::Error>(Bytes::from(bytes))
            });
            Ok(reading.await.expect("reading a content does not panic").map_err(ReadError::from)?)
        });
        spec.await.cloned()
    }
}
