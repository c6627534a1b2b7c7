//! The gate in front of all services: looks up the rule, the certificate's standing and the role; lets a call through
//! with its [`Caller`], or refuses it. No handler runs before.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures::future::Either;
use jiff::Timestamp;
use sluice_common::identity::{Principal, Role};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::refusals::Refusals;
use super::rules::{Rule, rule};
use super::{Caller, Roster, Standing};
use crate::listener::Peer;
use crate::store::Actor;

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The method has no rule: it is not of this version.
    #[error("this coordinator does not know {0}; it may be older than the program that calls it")]
    UnknownMethod(String),
    /// The peer showed no certificate.
    #[error("this needs a certificate; run sluice login, or sluice-agent enroll on a host")]
    NoCertificate,
    /// The authority never issued the certificate, or it was revoked.
    #[error(
        "this certificate is not in force here: it was revoked, or issued before the coordinator's data was replaced; ask an admin for a new token and enrol again"
    )]
    NotInForce,
    /// The certificate ended while its connection stood.
    #[error("this certificate expired at {0}; enrol again")]
    Expired(Timestamp),
    /// A method of hosts.
    #[error("only hosts may call this; the caller is {0}")]
    HostsOnly(Principal),
    /// A method of operators.
    #[error("only operators may call this; the caller is {0}")]
    OperatorsOnly(Principal),
    /// The role does not reach.
    #[error("this needs the role {needed}; {caller} has {has}")]
    Role {
        /// Who calls.
        caller: Principal,
        /// The least role that may.
        needed: Role,
        /// The caller's.
        has: Role,
    },
}

impl From<&Refusal> for Status {
    fn from(refusal: &Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::UnknownMethod(_) => Self::unimplemented(message),
            Refusal::NoCertificate | Refusal::NotInForce | Refusal::Expired(_) => {
                Self::unauthenticated(message)
            }
            Refusal::HostsOnly(_) | Refusal::OperatorsOnly(_) | Refusal::Role { .. } => {
                Self::permission_denied(message)
            }
        }
    }
}

/// What the peer of a connection showed and what that stands for.
pub(super) enum Shown {
    Nothing,
    Unknown,
    Standing(Standing),
}

/// Decides one call. `Ok(None)` is a call that needs no identity.
pub(super) fn decide(path: &str, shown: &Shown, now: Timestamp) -> Result<Option<Caller>, Refusal> {
    let rule = rule(path).ok_or_else(|| Refusal::UnknownMethod(path.chars().take(120).collect()))?;
    if rule == Rule::Open {
        return Ok(None);
    }
    let Standing { principal, role, not_after } = match shown {
        Shown::Nothing => return Err(Refusal::NoCertificate),
        Shown::Unknown => return Err(Refusal::NotInForce),
        Shown::Standing(standing) => standing.clone(),
    };
    if not_after <= now {
        return Err(Refusal::Expired(not_after));
    }
    let caller = Caller { principal, role };
    match (rule, &caller.principal, role) {
        (Rule::Host, Principal::Host(_), _)
        | (Rule::AnyIdentity, Principal::Host(_) | Principal::Operator(_), _) => Ok(Some(caller)),
        (Rule::Operator(needed), Principal::Operator(_), Some(has)) if has >= needed => Ok(Some(caller)),
        (Rule::Operator(needed), Principal::Operator(_), Some(has)) => {
            Err(Refusal::Role { caller: caller.principal, needed, has })
        }
        (Rule::Host, ..) => Err(Refusal::HostsOnly(caller.principal)),
        (Rule::Operator(_) | Rule::AnyIdentity, ..) => Err(Refusal::OperatorsOnly(caller.principal)),
        (Rule::Open, ..) => Ok(None),
    }
}

/// Puts the gate in front of a service.
#[derive(Clone)]
pub struct Gate {
    roster: Roster,
    refusals: Refusals,
}

impl Gate {
    /// Makes the gate.
    pub fn new(roster: Roster, refusals: Refusals) -> Self {
        Self { roster, refusals }
    }

    fn admit(&self, request: &http::Request<Body>) -> Result<Option<Caller>, Refusal> {
        let peer = request.extensions().get::<Peer>();
        let shown = match peer.and_then(|peer| peer.certificate.as_ref()) {
            None => Shown::Nothing,
            Some(certificate) => match self.roster.standing(&certificate.fingerprint) {
                Some(standing) if standing.principal == certificate.principal => Shown::Standing(standing),
                Some(_) | None => Shown::Unknown,
            },
        };
        let path = request.uri().path();
        let decision = decide(path, &shown, Timestamp::now());
        if let Err(refusal) = &decision {
            let actor = match (peer, peer.and_then(|peer| peer.certificate.as_ref())) {
                (_, Some(certificate)) => Actor::from(&certificate.principal),
                (Some(peer), None) => Actor::newcomer(peer.address.ip()),
                (None, None) => Actor::newcomer("unknown"),
            };
            self.refusals.record(actor, "access.refuse", path, refusal);
        }
        decision
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<http::Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match self.gate.admit(&request) {
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                Either::Left(self.inner.call(request))
            }
            Err(refusal) => Either::Right(ready(Ok(Status::from(&refusal).into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::rules;

    fn standing(principal: &str, role: Option<Role>) -> Shown {
        let not_after = Timestamp::from_second(1_000).unwrap();
        Shown::Standing(Standing { principal: principal.parse().unwrap(), role, not_after })
    }

    #[test]
    fn the_matrix_of_rules_and_callers() {
        let now = Timestamp::from_second(999).unwrap();
        let host = standing("sluice://host/web-1", None);
        let coordinator = standing("sluice://coordinator", None);
        let roleless = standing("sluice://operator/eve", None);
        for (path, rule) in rules::all() {
            let may = |shown: &Shown| decide(path, shown, now).is_ok();
            assert_eq!(may(&Shown::Nothing), *rule == Rule::Open, "{path} without a certificate");
            assert_eq!(may(&Shown::Unknown), *rule == Rule::Open, "{path} with an unknown certificate");
            assert_eq!(may(&coordinator), *rule == Rule::Open, "{path} as a coordinator");
            assert_eq!(may(&host), !matches!(rule, Rule::Operator(_)), "{path} as a host");
            assert_eq!(
                may(&roleless),
                matches!(rule, Rule::Open | Rule::AnyIdentity),
                "{path} without a role"
            );
            for role in Role::ALL {
                let expected = match rule {
                    Rule::Open | Rule::AnyIdentity => true,
                    Rule::Host => false,
                    Rule::Operator(needed) => role >= *needed,
                };
                assert_eq!(may(&standing("sluice://operator/ann", Some(role))), expected, "{path} as {role}");
            }
        }
    }

    #[test]
    fn a_certificate_that_ends_during_its_connection_opens_nothing_more() {
        let host = standing("sluice://host/web-1", None);
        let at = |second| decide("/sluice.v1.Session/Attach", &host, Timestamp::from_second(second).unwrap());
        assert!(at(999).is_ok());
        assert!(matches!(at(1_000), Err(Refusal::Expired(_))));
    }

    #[test]
    fn a_refusal_says_which_role_is_needed() {
        let viewer = standing("sluice://operator/ann", Some(Role::Viewer));
        let refusal = decide("/sluice.v1.Fleet/SetSiteLimit", &viewer, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(refusal.to_string(), "this needs the role approver; sluice://operator/ann has viewer");
        assert_eq!(Status::from(&refusal).code(), tonic::Code::PermissionDenied);
    }
}
