//! The certificates that open anything, in memory: asked at every call, so never a query away.
//!
//! Invariant: a fingerprint that was revoked once never stands again, whatever the order in which news arrive.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;
use sluice_common::digest::Digest;
use sluice_common::identity::{Principal, Role};
use sluice_common::name::HostName;
use sqlx::Row;

use crate::store::{self, Store};

/// What a certificate stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whom.
    pub principal: Principal,
    /// An operator's role.
    pub role: Option<Role>,
    /// Until when.
    pub not_after: Timestamp,
}

/// Every certificate in force. Cheap to clone; all clones are the same roster.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    certificates: Arc<RwLock<Certificates>>,
}

#[derive(Debug, Default)]
struct Certificates {
    live: HashMap<Digest, Standing>,
    revoked: HashSet<Digest>,
    /// The latest end of any certificate of a host.
    ends: HashMap<HostName, Timestamp>,
}

impl Roster {
    /// Loads the certificates that are in force.
    pub async fn open(store: &Store) -> Result<Self, store::Error> {
        let rows = sqlx::query(
            "SELECT c.fingerprint, c.principal, c.not_after_ms, c.revoked_ms, o.role
             FROM certificates c LEFT JOIN operators o ON c.principal = 'sluice://operator/' || o.name
             WHERE c.not_after_ms > $1",
        )
        .bind(Timestamp::now().as_millisecond())
        .fetch_all(store.read())
        .await?;
        let roster = Self::default();
        for row in rows {
            let fingerprint =
                store::digest("certificates.fingerprint", &row.try_get::<Vec<u8>, _>("fingerprint")?)?;
            if row.try_get::<Option<i64>, _>("revoked_ms")?.is_some() {
                roster.revoke([fingerprint]);
                continue;
            }
            let role: Option<String> = row.try_get("role")?;
            roster.admit(
                fingerprint,
                Standing {
                    principal: store::parse(
                        "certificates.principal",
                        &row.try_get::<String, _>("principal")?,
                    )?,
                    role: role.map(|role| store::parse("operators.role", &role)).transpose()?,
                    not_after: store::from_millis("certificates.not_after_ms", row.try_get("not_after_ms")?)?,
                },
            );
        }
        Ok(roster)
    }

    /// Returns what a certificate stands for; nothing when it was not issued here or was revoked.
    pub fn standing(&self, fingerprint: &Digest) -> Option<Standing> {
        self.read().live.get(fingerprint).cloned()
    }

    /// Lets a certificate stand, once its issue is committed.
    pub fn admit(&self, fingerprint: Digest, standing: Standing) {
        let mut certificates = self.write();
        if certificates.revoked.contains(&fingerprint) {
            return;
        }
        if let Principal::Host(host) = &standing.principal {
            let end = certificates.ends.entry(host.clone()).or_insert(standing.not_after);
            *end = standing.not_after.max(*end);
        }
        certificates.live.insert(fingerprint, standing);
    }

    /// Ends certificates for good.
    pub fn revoke(&self, fingerprints: impl IntoIterator<Item = Digest>) {
        let mut certificates = self.write();
        for fingerprint in fingerprints {
            certificates.live.remove(&fingerprint);
            certificates.revoked.insert(fingerprint);
        }
    }

    /// Forgets certificates that have expired.
    pub fn prune(&self, now: Timestamp) {
        self.write().live.retain(|_, standing| standing.not_after > now);
    }

    /// Returns when the newest certificate of a host ends.
    pub fn host_certificate_end(&self, host: &HostName) -> Option<Timestamp> {
        self.read().ends.get(host).copied()
    }

    // Plain maps: whatever a panicking holder left is still a roster.
    fn read(&self) -> RwLockReadGuard<'_, Certificates> {
        self.certificates.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Certificates> {
        self.certificates.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_certificate_never_stands_again() {
        let (roster, a, b) = (Roster::default(), Digest::of(b"a"), Digest::of(b"b"));
        let standing = Standing {
            principal: "sluice://host/web-1".parse().unwrap(),
            role: None,
            not_after: Timestamp::from_second(100).unwrap(),
        };
        roster.admit(a, standing.clone());
        roster.revoke([a, b]);
        // News of an issue may come after news of its revocation.
        roster.admit(a, standing.clone());
        roster.admit(b, standing.clone());
        assert_eq!((roster.standing(&a), roster.standing(&b)), (None, None));
        let c = Digest::of(b"c");
        roster.admit(c, standing.clone());
        assert_eq!(roster.standing(&c), Some(standing));
        roster.prune(Timestamp::from_second(100).unwrap());
        assert_eq!(roster.standing(&c), None);
    }
}
