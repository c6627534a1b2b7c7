//! `Administration.*`: tokens, revocation, operators, the audit log.

use std::pin::Pin;

use futures::Stream;
use sluice_common::identity::{Principal, Role};
use sluice_proto::convert::{Invalid, parse, required};
use sluice_proto::v1;
use sluice_proto::v1::create_token_request::Subject as WireSubject;
use tonic::{Request, Response, Status};

use super::enrolment::checked_labels;
use super::identities::StoredOperator;
use super::{Authority, RevokeError, Subject, USES_MAX, identities, token_ttl};
use crate::access::Caller;
use crate::audit::{self, Recorded};
use crate::fleet::Fleet;
use crate::listener::{Connections, Peer};
use crate::store::{self, Store};

/// Entries of the audit log that are read at once.
const AUDIT_PAGE: u32 = 500;
/// Longest reason of a revocation.
const REASON_BYTES_MAX: usize = 1_000;

/// The `Administration` service.
#[derive(Clone)]
pub struct AdministrationService {
    authority: Authority,
    fleet: Fleet,
    connections: Connections,
    store: Store,
}

impl AdministrationService {
    /// Makes the service.
    pub fn new(authority: Authority, fleet: Fleet, connections: Connections, store: Store) -> Self {
        Self { authority, fleet, connections, store }
    }
}

#[tonic::async_trait]
impl v1::administration_server::Administration for AdministrationService {
    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let caller = Caller::of(&request)?;
        let expires = Peer::of(&request)?.certificate.as_ref().map_or(0, |shown| shown.not_after.as_second());
        Ok(Response::new(v1::WhoAmIResponse {
            principal: caller.principal.to_string(),
            role: caller.role.map(Role::as_str).unwrap_or_default().to_owned(),
            certificate_expires_unix: expires,
            coordinator_version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let v1::CreateTokenRequest { subject, ttl_ms } = request.into_inner();
        let (subject, uses) = subject_of(required("subject", subject)?)?;
        let ttl = token_ttl(ttl_ms)?;
        let (token, expires) = self.authority.create_token(&caller, &subject, ttl, uses).await?;
        if let Subject::Host { site, .. } = &subject {
            self.fleet.site_added(site);
        }
        let expires_unix = expires.as_second();
        Ok(Response::new(v1::CreateTokenResponse { token: token.to_string(), expires_unix }))
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<v1::RevokeResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let v1::RevokeRequest { principal, reason } = request.into_inner();
        let principal: Principal = parse("principal", &principal)?;
        if reason.len() > REASON_BYTES_MAX {
            return Err(Invalid::new("reason", "is too long").into());
        }
        self.authority.revoke(&caller, &principal, &reason).await.map_err(|error| match error {
            RevokeError::Unknown(_) => Status::not_found(error.to_string()),
            RevokeError::LastAdmin(_) => Status::failed_precondition(error.to_string()),
            RevokeError::Store(error) => error.into(),
        })?;
        if let Principal::Host(host) = &principal {
            self.fleet.reload_host(host).await?;
        }
        self.connections.end(&principal);
        Ok(Response::new(v1::RevokeResponse {}))
    }

    async fn list_operators(
        &self,
        _: Request<v1::ListOperatorsRequest>,
    ) -> Result<Response<v1::ListOperatorsResponse>, Status> {
        let operators = identities::list_operators(&self.store).await?.into_iter();
        let operators = operators.map(|operator| {
            let StoredOperator { name, role, revoked, enrolled } = operator;
            let enrolled_unix = enrolled.as_second();
            v1::Operator { name: name.to_string(), role: role.to_string(), revoked, enrolled_unix }
        });
        Ok(Response::new(v1::ListOperatorsResponse { operators: operators.collect() }))
    }

    type ListAuditStream = Pin<Box<dyn Stream<Item = Result<v1::AuditEntry, Status>> + Send>>;

    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<Self::ListAuditStream>, Status> {
        let v1::ListAuditRequest { after, limit } = request.into_inner();
        let left = if limit == 0 { u64::MAX } else { u64::from(limit) };
        Ok(Response::new(Box::pin(pages(self.store.clone(), after, left))))
    }

    async fn verify_audit(
        &self,
        _: Request<v1::VerifyAuditRequest>,
    ) -> Result<Response<v1::VerifyAuditResponse>, Status> {
        let audit::Verdict { entries, head, broken_at } = audit::verify(&self.store).await?;
        if let Some(number) = broken_at {
            tracing::error!(number, "the audit log was changed");
        }
        Ok(Response::new(v1::VerifyAuditResponse {
            entries,
            head: head.as_bytes().to_vec(),
            broken_at: broken_at.unwrap_or(0),
        }))
    }
}

/// Where a listing stands: the last entry shown, and how many may follow.
type Position = (u64, u64);
/// Some entries and where the listing stands after them; nothing at its end.
type Page = Option<(Vec<Recorded>, Position)>;

/// Streams entries after `after`, at most `left`, page by page: a long log never stands in memory.
fn pages(store: Store, after: u64, left: u64) -> impl Stream<Item = Result<v1::AuditEntry, Status>> + Send {
    let next = async move |(after, left): Position| -> Result<Page, store::Error> {
        let wanted = u32::try_from(left).unwrap_or(u32::MAX).min(AUDIT_PAGE);
        let page = if wanted == 0 { Vec::new() } else { audit::list(&store, after, wanted).await? };
        let last = page.last().map(|entry| entry.number);
        Ok(last.map(|last| (last, left - page.len() as u64)).map(|position| (page, position)))
    };
    let state = (next, (after, left));
    let pages = futures::stream::try_unfold(state, |(next, position)| async move {
        let page = next(position).await.map_err(Status::from)?;
        Ok::<_, Status>(page.map(|(page, position)| (page, (next, position))))
    });
    futures::TryStreamExt::try_flatten(futures::TryStreamExt::map_ok(pages, |page| {
        futures::stream::iter(page.into_iter().map(|entry| Ok(entry.into())))
    }))
}

impl From<Recorded> for v1::AuditEntry {
    fn from(entry: Recorded) -> Self {
        let Recorded { number, at_ms, actor, action, subject, detail, previous: _, hash } = entry;
        let hash = hash.as_bytes().to_vec();
        Self { number, at_unix_ms: at_ms, actor, action, subject, detail, hash }
    }
}

/// Checks what a token is to be for; with the number of its uses.
fn subject_of(subject: WireSubject) -> Result<(Subject, u32), Invalid> {
    match subject {
        WireSubject::Host(v1::HostTokenSubject { site, labels, name, uses }) => {
            let name = if name.is_empty() { None } else { Some(parse("name", &name)?) };
            let uses = uses.max(1);
            if uses > USES_MAX {
                return Err(Invalid::new("uses", format!("at most {USES_MAX}")));
            }
            if name.is_some() && uses > 1 {
                return Err(Invalid::new("uses", "a token bound to one name is for one use"));
            }
            Ok((Subject::Host { site: parse("site", &site)?, labels: checked_labels(labels)?, name }, uses))
        }
        WireSubject::Operator(v1::OperatorTokenSubject { name, role }) => {
            Ok((Subject::Operator { name: parse("name", &name)?, role: parse("role", &role)? }, 1))
        }
    }
}
