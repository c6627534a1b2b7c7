//! Join tokens as people carry them: `sluice-join.<secret>.<fingerprint of the authority>`.
//!
//! The fingerprint lets a newcomer check the coordinator before it says anything secret to it.

use std::fmt;
use std::str::FromStr;

use sluice_common::digest::Digest;

const PREFIX: &str = "sluice-join.";
/// Characters of a secret: 32 random bytes in hex.
const SECRET_LEN: usize = 64;

/// A join token. Its secret shows in [`fmt::Display`] only, never in a debug print.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: String,
    authority: Digest,
}

/// Says that a text is no join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a join token; copy the whole line that `sluice token create` printed, beginning with {PREFIX}")]
pub struct TokenError;

impl JoinToken {
    /// Makes a token of 32 random bytes and the digest of the authority's certificate (DER).
    pub fn new(secret: &[u8; 32], authority: Digest) -> Self {
        let secret = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { secret, authority }
    }

    /// Returns the secret.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Returns the SHA-256 of the authority's certificate (DER).
    pub fn authority(&self) -> Digest {
        self.authority
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}.{}", self.secret, self.authority.to_hex())
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken(for {:?})", self.authority)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (secret, authority) =
            text.trim().strip_prefix(PREFIX).and_then(|t| t.split_once('.')).ok_or(TokenError)?;
        let is_secret = secret.len() == SECRET_LEN && secret.bytes().all(|b| b.is_ascii_hexdigit());
        let authority = format!("sha256:{authority}").parse().map_err(|_| TokenError)?;
        if is_secret { Ok(Self { secret: secret.to_owned(), authority }) } else { Err(TokenError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_round_trips_and_debug_hides_the_secret() {
        let token = JoinToken::new(&[0xab; 32], Digest::of(b"ca"));
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains("abab"));
        for bad in ["", "sluice-join.x.y", "sluice-join.", &token.to_string()[1..]] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
        }
    }
}
