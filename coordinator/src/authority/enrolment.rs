//! `Enrollment.Enroll`: a token and a public key become an identity. The only method open to strangers.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use serde_json::json;
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::identity::{Principal, Role};
use sluice_common::name::{HostName, OperatorName, SiteName};
use sluice_common::selector::{Labels, parse_label};
use sluice_proto::convert::{Invalid, parse};
use sluice_proto::v1;
use tonic::{Request, Response, Status};

use super::{Authority, Issued, RequestError, Subject, TokenRefusal, identities, request_status, tokens};
use crate::access::Refusals;
use crate::audit::{self, Entry};
use crate::fleet::{self, Fleet};
use crate::listener::Peer;
use crate::rollout;
use crate::store::{self, Actor, Transaction};

/// Enrolments of one address a second, and at once: a rack behind one NAT, and no more than the store bears.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");
const AT_ONCE: NonZeroU32 = NonZeroU32::new(100).expect("a hundred is not zero");
/// Addresses remembered before those with nothing on their account are forgotten.
const ADDRESSES_MAX: usize = 10_000;

/// Says why somebody was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// A field.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The signing request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The token is for another host.
    #[error("token is for the host {bound}, not for {asked}; use that name, or ask for a token for this one")]
    Bound {
        /// The name in the token.
        bound: HostName,
        /// The name in the request.
        asked: HostName,
    },
    /// The name is taken.
    #[error(
        "{0} is enrolled already; if this one replaces it, revoke the old identity first (sluice host revoke, or another name)"
    )]
    Taken(Principal),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<EnrolError> for Status {
    fn from(error: EnrolError) -> Self {
        let message = error.to_string();
        match error {
            EnrolError::Token(_) | EnrolError::Bound { .. } => Self::permission_denied(message),
            EnrolError::Invalid(_) => Self::invalid_argument(message),
            EnrolError::Request(error) => request_status(error),
            EnrolError::Taken(_) => Self::already_exists(message),
            EnrolError::Store(error) => error.into(),
        }
    }
}

/// The `Enrollment` service.
#[derive(Clone)]
pub struct EnrollmentService {
    authority: Authority,
    fleet: Fleet,
    refusals: Refusals,
    attempts: Arc<DefaultKeyedRateLimiter<IpAddr>>,
}

/// A request, checked.
struct Enrolment {
    secret: String,
    csr_pem: String,
    name: String,
    labels: Labels,
}

/// Who enrolled.
struct Enrolled {
    principal: Principal,
    role: Option<Role>,
    issued: Issued,
}

impl EnrollmentService {
    /// Makes the service.
    pub fn new(authority: Authority, fleet: Fleet, refusals: Refusals) -> Self {
        let attempts = Arc::new(RateLimiter::keyed(Quota::per_second(PER_SECOND).allow_burst(AT_ONCE)));
        Self { authority, fleet, refusals, attempts }
    }

    fn check_rate(&self, address: IpAddr) -> Result<(), Status> {
        if self.attempts.len() > ADDRESSES_MAX {
            self.attempts.retain_recent();
        }
        let allowed = self.attempts.check_key(&address);
        allowed.map_err(|_| {
            Status::resource_exhausted("too many enrolments from this address; try again in a few seconds")
        })
    }

    /// Spends the token, registers its bearer and signs the certificate, all in one transaction.
    async fn enrol(&self, actor: Actor, enrolment: Enrolment) -> Result<Enrolled, EnrolError> {
        let Enrolment { secret, csr_pem, name, labels } = enrolment;
        let now = Timestamp::now();
        let inner = &self.authority.inner;
        let mut tx = inner.store.begin(actor).await?;
        let subject = tokens::consume(&mut tx, &secret, now).await??;
        let token = Digest::of(secret.as_bytes()).short();
        let (principal, role, action, about) = match subject {
            Subject::Host { site, labels: granted, name: bound } => {
                let host = host_name(&name, bound)?;
                let labels = merged(labels, granted)?;
                register_host(&mut tx, &host, &site, &labels, now).await?;
                // A machine that takes over a revoked name has nothing of what its forerunner reported.
                rollout::store::forget_reports(&mut tx, &host).await?;
                (Principal::Host(host), None, "host.enroll", json!({"site": site, "labels": labels}))
            }
            Subject::Operator { name, role } => {
                register_operator(&mut tx, &name, role, now).await?;
                (Principal::Operator(name), Some(role), "operator.enroll", json!({"role": role}))
            }
        };
        let issued = inner.ca.sign_request(&principal, &csr_pem)?;
        identities::insert_certificate(&mut tx, &principal, &issued, now).await?;
        let detail = json!({"token": token, "fingerprint": issued.fingerprint.short(), "as": about});
        audit::append(&mut tx, Entry { action, subject: &principal.to_string(), detail }).await?;
        tx.commit().await?;
        Ok(Enrolled { principal, role, issued })
    }
}

#[tonic::async_trait]
impl v1::enrollment_server::Enrollment for EnrollmentService {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, Status> {
        let address = Peer::of(&request)?.address.ip();
        self.check_rate(address)?;
        let actor = Actor::newcomer(address);
        let enrolled = match Enrolment::try_from(request.into_inner()) {
            Ok(enrolment) => self.enrol(actor.clone(), enrolment).await,
            Err(invalid) => Err(invalid.into()),
        };
        let Enrolled { principal, role, issued } = enrolled.map_err(|error| {
            self.refusals.record(actor, "enrollment.refuse", "enrollment", &error);
            Status::from(error)
        })?;
        self.authority.admit(&principal, role, &issued);
        if let Principal::Host(host) = &principal {
            self.fleet.reload_host(host).await?;
        }
        tracing::info!(identity = %principal, %address, expires = %issued.not_after, "enrolled");
        Ok(Response::new(v1::EnrollResponse {
            certificate_pem: issued.pem,
            ca_pem: self.authority.certificate_pem().to_owned(),
            principal: principal.to_string(),
        }))
    }
}

impl TryFrom<v1::EnrollRequest> for Enrolment {
    type Error = Invalid;

    fn try_from(message: v1::EnrollRequest) -> Result<Self, Invalid> {
        let v1::EnrollRequest { token, csr_pem, name, labels } = message;
        if token.len() > 256 {
            return Err(Invalid::new("token", "is too long"));
        }
        Ok(Self { secret: token, csr_pem, name, labels: checked_labels(labels)? })
    }
}

/// Checks labels as they came over the wire.
pub(super) fn checked_labels(labels: impl IntoIterator<Item = (String, String)>) -> Result<Labels, Invalid> {
    let labels: Result<Labels, _> =
        labels.into_iter().map(|(key, value)| parse_label(&format!("{key}={value}"))).collect();
    let labels = labels.map_err(|error| Invalid::new("labels", error))?;
    if labels.len() > caps::LABELS_MAX {
        return Err(Invalid::new("labels", format!("{} are too many", labels.len())));
    }
    Ok(labels)
}

/// Joins the labels that a host claims with those in its token; those in the token win.
fn merged(claimed: Labels, granted: Labels) -> Result<Labels, Invalid> {
    checked_labels(claimed.into_iter().chain(granted))
}

fn host_name(asked: &str, bound: Option<HostName>) -> Result<HostName, EnrolError> {
    let asked: Option<HostName> = if asked.is_empty() { None } else { Some(parse("name", asked)?) };
    match (asked, bound) {
        (Some(asked), Some(bound)) if asked != bound => Err(EnrolError::Bound { bound, asked }),
        (_, Some(name)) | (Some(name), None) => Ok(name),
        (None, None) => Err(Invalid::new("name", "is missing; give one with --name").into()),
    }
}

async fn register_host(
    tx: &mut Transaction,
    host: &HostName,
    site: &SiteName,
    labels: &Labels,
    now: Timestamp,
) -> Result<(), EnrolError> {
    let is_new = fleet::insert_host(tx, host, site, labels, now).await?;
    if is_new { Ok(()) } else { Err(EnrolError::Taken(Principal::Host(host.clone()))) }
}

async fn register_operator(
    tx: &mut Transaction,
    name: &OperatorName,
    role: Role,
    now: Timestamp,
) -> Result<(), EnrolError> {
    let is_new = identities::insert_operator(tx, name, role, now).await?;
    if is_new { Ok(()) } else { Err(EnrolError::Taken(Principal::Operator(name.clone()))) }
}
