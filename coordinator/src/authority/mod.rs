//! Identities: the certificate authority, join tokens, enrolment, renewal, revocation.
//!
//! Invariants: a certificate says one name and nothing else, and only what the store knows stands behind it; of a
//! request only the public key is used; a token, what its bearer became and the audit entry commit together, so that
//! of any number of racers as many win as the token has uses; a secret is never stored, logged or audited.
//!
//! | part | owns |
//! |---|---|
//! | [`Authority`] | the handle: issue, renew, revoke, tokens |
//! | [`enrolment`] | `Enrollment.Enroll`, the one method that needs no certificate |
//! | [`administration`] | `Administration.*` for operators |
//! | [`own`] | the coordinator's own certificate, renewed while it runs |
//!
//! Task: [`own::run`], one for the service.

pub mod administration;
mod bootstrap;
mod ca;
pub mod enrolment;
mod identities;
pub mod own;
mod tokens;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use serde_json::json;
use sluice_common::digest::Digest;
use sluice_common::identity::{Principal, Role};
use sluice_common::{caps, durable};
use sluice_proto::token::JoinToken;
use sluice_proto::transport::credentials::Credentials;
use tonic::Status;

pub use ca::{CaError, Issued, RequestError};
pub use tokens::{Subject, TTL_MAX, TokenRefusal, USES_MAX};

use crate::access::{Caller, Roster, Standing};
use crate::audit::{self, Entry};
use crate::fleet;
use crate::store::{self, Actor, Store};
use ca::Ca;

/// Name of the file that holds key and certificate.
const FILE: &str = "ca.pem";
/// Renewals of one identity in a row; then one each minute. A certificate lives for days.
const RENEWALS: NonZeroU32 = NonZeroU32::new(5).expect("five is not zero");

/// The authority. Cheap to clone.
#[derive(Clone)]
pub struct Authority {
    inner: Arc<Inner>,
}

struct Inner {
    ca: Ca,
    store: Store,
    roster: Roster,
    renewals: DefaultKeyedRateLimiter<Principal>,
}

/// Says why the authority could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Key or certificate.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The store.
    #[error("cannot read the identities")]
    Store(#[from] store::Error),
    /// The directory or the bootstrap token.
    #[error("cannot prepare the authority's files")]
    Io(#[from] std::io::Error),
}

/// Says why an identity was not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// There is nobody of that name, or they are revoked already.
    #[error("{0} is not enrolled, or revoked already; see sluice host list")]
    Unknown(Principal),
    /// It would leave nobody who can undo it.
    #[error("{0} is the last admin; make another first with sluice token create")]
    LastAdmin(Principal),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Authority {
    /// Opens the authority of a data directory; makes its key when nobody has enrolled yet.
    pub async fn open(data: &Path, store: Store, roster: Roster) -> Result<Self, OpenError> {
        let dir = data.join("authority");
        if !fs_err::exists(&dir)? {
            create_private_dir(&dir)?;
        }
        let may_create = !identities::has_any(&store).await?;
        Ok(Self::over(Ca::open(&dir.join(FILE), may_create)?, store, roster))
    }

    /// Opens an authority that must be there: for commands beside the service.
    pub fn open_existing(data: &Path, store: Store, roster: Roster) -> Result<Self, CaError> {
        Ok(Self::over(Ca::open(&data.join("authority").join(FILE), false)?, store, roster))
    }

    fn over(ca: Ca, store: Store, roster: Roster) -> Self {
        let renewals = RateLimiter::keyed(Quota::per_minute(NonZeroU32::MIN).allow_burst(RENEWALS));
        Self { inner: Arc::new(Inner { ca, store, roster, renewals }) }
    }

    /// Returns the authority's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        self.inner.ca.certificate_pem()
    }

    /// Returns the SHA-256 of the authority's certificate (DER).
    pub fn fingerprint(&self) -> Digest {
        self.inner.ca.fingerprint()
    }

    /// Makes a key and certificate for this coordinator.
    pub fn own_credentials(&self) -> Result<Credentials, CaError> {
        self.inner.ca.own_credentials()
    }

    /// Makes a join token. Returns it with the time at which it expires.
    pub async fn create_token(
        &self,
        actor: impl Into<Actor>,
        subject: &Subject,
        ttl: Duration,
        uses: u32,
    ) -> Result<(JoinToken, Timestamp), store::Error> {
        let mut tx = self.inner.store.begin(actor).await?;
        let made = tokens::create(&mut tx, subject, ttl, uses, self.fingerprint()).await?;
        tx.commit().await?;
        tracing::info!(expires = %made.1, "join token created");
        Ok(made)
    }

    /// Gives the caller a certificate for a new key. The one it called with (`shown`) holds until its own end.
    pub async fn renew(&self, caller: &Caller, shown: Digest, csr_pem: &str) -> Result<Issued, Status> {
        let principal = &caller.principal;
        let allowed = self.inner.renewals.check_key(principal);
        allowed.map_err(|_| Status::resource_exhausted("renewed too often; try again in a minute"))?;
        let issued = self.inner.ca.sign_request(principal, csr_pem).map_err(request_status)?;
        let mut tx = self.inner.store.begin(caller).await?;
        // Revoked since the gate: what is not in force must not father what is.
        if !identities::is_in_force(&mut tx, shown).await? {
            return Err(Status::unauthenticated("this identity was revoked"));
        }
        identities::insert_certificate(&mut tx, principal, &issued, Timestamp::now()).await?;
        let detail =
            json!({"fingerprint": issued.fingerprint.short(), "expires": issued.not_after.to_string()});
        audit::append(
            &mut tx,
            Entry { action: "certificate.renew", subject: &principal.to_string(), detail },
        )
        .await?;
        tx.commit().await?;
        self.admit(principal, caller.role, &issued);
        tracing::info!(identity = %principal, expires = %issued.not_after, "certificate renewed");
        Ok(issued)
    }

    /// Revokes an identity and all its certificates. The caller ends its connections and session.
    pub async fn revoke(
        &self,
        actor: impl Into<Actor>,
        principal: &Principal,
        reason: &str,
    ) -> Result<(), RevokeError> {
        let unknown = || RevokeError::Unknown(principal.clone());
        let mut tx = self.inner.store.begin(actor).await?;
        let now = Timestamp::now();
        match principal {
            Principal::Coordinator => return Err(unknown()),
            Principal::Host(host) => {
                if !fleet::revoke_host(&mut tx, host, now).await? {
                    return Err(unknown());
                }
            }
            Principal::Operator(name) => {
                let role = identities::revoke_operator(&mut tx, name, now).await?.ok_or_else(unknown)?;
                if role == Role::Admin && identities::count_admins(&mut tx).await? == 0 {
                    return Err(RevokeError::LastAdmin(principal.clone()));
                }
            }
        }
        let fingerprints = identities::revoke_certificates(&mut tx, principal, now).await?;
        let detail = json!({"reason": reason, "certificates": fingerprints.len()});
        let entry = Entry { action: "identity.revoke", subject: &principal.to_string(), detail };
        audit::append(&mut tx, entry).await?;
        tx.commit().await?;
        self.inner.roster.revoke(fingerprints);
        tracing::info!(identity = %principal, reason, "identity revoked");
        Ok(())
    }

    fn admit(&self, principal: &Principal, role: Option<Role>, issued: &Issued) {
        let standing = Standing { principal: principal.clone(), role, not_after: issued.not_after };
        self.inner.roster.admit(issued.fingerprint, standing);
    }
}

fn request_status(error: RequestError) -> Status {
    match error {
        RequestError::TooLarge(_) | RequestError::Invalid(_) => Status::invalid_argument(error.to_string()),
        RequestError::Sign(_) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the authority cannot sign");
            Status::internal(error.to_string())
        }
    }
}

fn create_private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs_err::create_dir_all(dir)?;
    fs_err::set_permissions(dir, PermissionsExt::from_mode(0o700))?;
    durable::sync_parent(dir)
}

/// Returns the life that a token gets when nobody asked for another, and the one asked for otherwise.
fn token_ttl(asked_ms: u64) -> Result<Duration, Status> {
    match Duration::from_millis(asked_ms) {
        Duration::ZERO => Ok(caps::JOIN_TOKEN_TTL),
        ttl if ttl <= TTL_MAX => Ok(ttl),
        _ => Err(Status::invalid_argument("a token lives for 24h at most")),
    }
}

#[cfg(test)]
mod tests;
