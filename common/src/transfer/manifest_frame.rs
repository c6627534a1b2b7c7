//! The manifest on the wire: zstd, against the canonical bytes of the manifest that the receiver has.

use std::io::{self, Read, Write};

use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;
use zstd::zstd_safe::CParameter;

use crate::caps;

/// High enough to find a moved directory, quick at the size of manifests (0.1 s for 4,000 entries).
const LEVEL: i32 = 19;
/// Above this, the level falls so that a million entries take seconds and not minutes.
const LEVEL_BYTES_MAX: usize = 8 << 20;

/// Compresses canonical manifest bytes, against `base` where the receiver has it (empty otherwise).
pub fn encode_manifest(manifest: &[u8], base: &[u8]) -> io::Result<Vec<u8>> {
    let level = if manifest.len() + base.len() <= LEVEL_BYTES_MAX { LEVEL } else { 3 };
    let mut encoder = Encoder::with_ref_prefix(Vec::new(), level, base)?;
    encoder.include_checksum(false)?;
    encoder.include_contentsize(false)?;
    encoder.set_pledged_src_size(Some(manifest.len() as u64))?;
    let span = (manifest.len() + base.len()) as u64;
    let window_log = (u64::BITS - span.leading_zeros()).clamp(10, caps::ZSTD_WINDOW_LOG_MAX);
    encoder.set_parameter(CParameter::WindowLog(window_log))?;
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(base.len() > 1 << 20))?;
    encoder.write_all(manifest)?;
    encoder.finish()
}

/// Restores canonical manifest bytes; stops at [`caps::MANIFEST_BYTES_MAX`]. The caller checks the digest.
pub fn decode_manifest(compressed: &[u8], base: &[u8]) -> io::Result<Vec<u8>> {
    let mut decoder = Decoder::with_ref_prefix(compressed, base)?;
    decoder.window_log_max(caps::ZSTD_WINDOW_LOG_MAX)?;
    let mut bytes = Vec::new();
    decoder.single_frame().take(caps::MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > caps::MANIFEST_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "manifest is longer than its limit"));
    }
    Ok(bytes)
}
