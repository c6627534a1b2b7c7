//! How a listener knows who tells it: `Sluice-Signature: t=SECONDS,v1=HEX`, where HEX is the HMAC-SHA256 of
//! `SECONDS.BODY` under the listener's secret, byte for byte as they were sent. A listener refuses times that are minutes old.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// The header that carries the signature.
pub const HEADER: &str = "sluice-signature";

/// Bytes of a secret: as many as the digest has.
const SECRET_BYTES: usize = 32;

/// Makes a secret. Nothing where the system has no randomness to give.
pub fn secret() -> Option<String> {
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(hex::encode(bytes))
}

/// Signs a body that is sent at a time, in seconds since 1970.
pub fn sign(secret: &str, seconds: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{seconds}.").as_bytes());
    context.update(body);
    format!("t={seconds},v1={}", hex::encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_anybody_can_recompute() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        let expected = "t=1700000000,v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
        let seen = sign("secret", 1_700_000_000, br#"{"a":1}"#);
        assert_eq!(seen, expected);
        assert_ne!(seen, sign("secret", 1_700_000_001, br#"{"a":1}"#));
        assert_ne!(seen, sign("other", 1_700_000_000, br#"{"a":1}"#));
        let (one, two) = (secret().unwrap(), secret().unwrap());
        assert!(one.len() == 64 && one != two);
    }
}
