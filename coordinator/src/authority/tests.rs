use sluice_common::name::HostName;
use sluice_proto::transport::credentials::{Credentials, NewKey};
use sluice_proto::v1;
use sluice_proto::v1::administration_client::AdministrationClient;
use sluice_proto::v1::session_client::SessionClient;
use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::testing::{Harness, certificate};

fn host_subject(name: Option<&str>) -> Subject {
    Subject::Host {
        site: "berlin".parse().unwrap(),
        labels: [("role".to_owned(), "db".to_owned())].into(),
        name: name.map(|name| name.parse().unwrap()),
    }
}

async fn admin(harness: &Harness) -> (Credentials, AdministrationClient<Channel>) {
    let credentials = harness.new_operator("ann", Role::Admin).await;
    let client = AdministrationClient::new(harness.connect(&credentials).await.unwrap());
    (credentials, client)
}

async fn revoke(client: &mut AdministrationClient<Channel>, principal: &str) -> Result<(), tonic::Status> {
    let request = v1::RevokeRequest { principal: principal.to_owned(), reason: "lost".to_owned() };
    client.revoke(request).await.map(drop)
}

#[tokio::test]
async fn a_host_enrols_once_and_its_token_is_spent() {
    let harness = Harness::start().await;
    let token = harness.token(host_subject(None)).await;
    let credentials = harness.enrol(&token, "web-1").await.unwrap();
    assert_eq!(certificate(&credentials).principal.to_string(), "sluice://host/web-1");
    let host = harness.fleet.host(&"web-1".parse().unwrap()).unwrap();
    // The label of the token wins over the one claimed.
    assert_eq!((host.site.as_str(), host.labels["role"].as_str()), ("berlin", "db"));
    let again = harness.enrol(&token, "web-2").await.unwrap_err();
    assert_eq!(again.code(), Code::PermissionDenied);
    assert_eq!(
        again.message(),
        "token was used already; ask an admin for a new one with sluice token create"
    );
    assert!(harness.fleet.host(&"web-2".parse().unwrap()).is_none());
    let verdict = audit::verify(&harness.store).await.unwrap();
    assert_eq!(verdict.broken_at, None);
    let log = audit::list(&harness.store, 0, 100).await.unwrap();
    assert!(log.iter().any(|entry| entry.action == "host.enroll" && entry.subject == "sluice://host/web-1"));
    assert!(!log.iter().any(|entry| entry.detail.contains(token.secret())), "a secret in the audit log");
    harness.stop().await;
}

#[tokio::test]
async fn what_a_token_does_not_allow_is_refused_and_audited() {
    let harness = Harness::start().await;
    harness.new_host("web-1").await;
    let expired = {
        let made =
            harness.authority.create_token(Actor::console(), &host_subject(None), Duration::ZERO, 1).await;
        made.unwrap().0
    };
    let unknown = JoinToken::new(&[7; 32], harness.authority.fingerprint());
    let cases = [
        ("expired", expired, "web-9", Code::PermissionDenied, "token expired"),
        ("unknown", unknown, "web-9", Code::PermissionDenied, "token is not known here"),
        (
            "bound",
            harness.token(host_subject(Some("db-1"))).await,
            "web-9",
            Code::PermissionDenied,
            "for the host db-1",
        ),
        (
            "taken",
            harness.token(host_subject(None)).await,
            "web-1",
            Code::AlreadyExists,
            "revoke the old identity first",
        ),
        ("nameless", harness.token(host_subject(None)).await, "", Code::InvalidArgument, "--name"),
        ("path", harness.token(host_subject(None)).await, "../x", Code::InvalidArgument, "host name"),
    ];
    for (case, token, name, code, message) in cases {
        let status = harness.enrol(&token, name).await.unwrap_err();
        assert_eq!(status.code(), code, "{case}: {status}");
        assert!(status.message().contains(message), "{case}: {status}");
    }
    assert_eq!(harness.fleet.hosts().len(), 1);
    // A refusal that is not the token's fault leaves the token usable.
    let token = harness.token(host_subject(Some("db-2"))).await;
    harness.enrol(&token, "other").await.unwrap_err();
    assert_eq!(
        certificate(&harness.enrol(&token, "").await.unwrap()).principal.to_string(),
        "sluice://host/db-2"
    );
    let log = async || audit::list(&harness.store, 0, 1_000).await.unwrap();
    while log().await.iter().filter(|entry| entry.action == "enrollment.refuse").count() < 7 {
        tokio::task::yield_now().await;
    }
    harness.stop().await;
}

#[tokio::test]
async fn of_twenty_racers_with_one_token_one_wins() {
    let harness = Harness::start().await;
    let token = harness.token(host_subject(None)).await;
    let names: Vec<String> = (0..20).map(|number| format!("web-{number}")).collect();
    let racers = names.iter().map(|name| harness.enrol(&token, name));
    let results = futures::future::join_all(racers).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for status in results.into_iter().filter_map(Result::err) {
        assert!(status.message().starts_with("token was used already"), "{status}");
    }
    assert_eq!(harness.fleet.hosts().len(), 1);
    harness.stop().await;
}

#[tokio::test]
async fn a_revoked_host_is_out_at_once_and_may_come_back_as_a_new_one() {
    let harness = Harness::start().await;
    let old = harness.new_host("web-1").await;
    let (_, mut client) = admin(&harness).await;
    let mut session = harness.attach(&old).await;
    session.hear().await.unwrap();
    let channel = harness.connect(&old).await.unwrap();
    revoke(&mut client, "sluice://host/web-1").await.unwrap();
    // Its session and connections end, and its certificate opens nothing on new ones.
    let ended = session.hear().await.unwrap_err();
    assert_ne!(ended.code(), Code::DeadlineExceeded, "it ended by silence, not by the revocation");
    let renew = |channel| async {
        let csr_pem = NewKey::generate().unwrap().request_pem().unwrap();
        SessionClient::new(channel).renew(v1::RenewRequest { csr_pem }).await
    };
    renew(channel).await.unwrap_err();
    let refused = renew(harness.connect(&old).await.unwrap()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(refused.message().contains("revoked"), "{refused}");
    let view = |name: &str| harness.fleet.host(&name.parse::<HostName>().unwrap()).unwrap();
    assert!(view("web-1").revoked && !view("web-1").connected);
    // The name is free again; the old certificate stays out.
    let new = harness.new_host("web-1").await;
    assert!(!view("web-1").revoked);
    renew(harness.connect(&new).await.unwrap()).await.unwrap();
    renew(harness.connect(&old).await.unwrap()).await.unwrap_err();
    let again = revoke(&mut client, "sluice://host/web-7").await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    harness.stop().await;
}

#[tokio::test]
async fn revocations_and_roles_outlive_a_restart() {
    let harness = Harness::start().await;
    let (ann, mut client) = admin(&harness).await;
    let bob = harness.new_operator("bob", Role::Viewer).await;
    let host = harness.new_host("web-1").await;
    revoke(&mut client, "sluice://host/web-1").await.unwrap();
    let roster = Roster::open(&harness.store).await.unwrap();
    let role =
        |credentials| roster.standing(&certificate(credentials).fingerprint).map(|standing| standing.role);
    assert_eq!(role(&ann), Some(Some(Role::Admin)));
    assert_eq!(role(&bob), Some(Some(Role::Viewer)));
    assert_eq!(role(&host), None);
    harness.stop().await;
}

#[tokio::test]
async fn the_last_admin_cannot_be_revoked() {
    let harness = Harness::start().await;
    let (_, mut client) = admin(&harness).await;
    let refused = revoke(&mut client, "sluice://operator/ann").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let bob = harness.new_operator("bob", Role::Admin).await;
    let mut bob = AdministrationClient::new(harness.connect(&bob).await.unwrap());
    revoke(&mut bob, "sluice://operator/ann").await.unwrap();
    client.who_am_i(v1::WhoAmIRequest {}).await.unwrap_err();
    harness.stop().await;
}

#[tokio::test]
async fn renewal_keeps_the_name_and_both_certificates_work() {
    let harness = Harness::start().await;
    let old = harness.new_host("web-1").await;
    let key = NewKey::generate().unwrap();
    let request = v1::RenewRequest { csr_pem: key.request_pem().unwrap() };
    let mut client = SessionClient::new(harness.connect(&old).await.unwrap());
    let renewed = client.renew(request).await.unwrap().into_inner();
    let new = key.into_credentials(&renewed.certificate_pem, &renewed.ca_pem).unwrap();
    assert_eq!(certificate(&new).principal, certificate(&old).principal);
    assert_ne!(certificate(&new).fingerprint, certificate(&old).fingerprint);
    for credentials in [&old, &new] {
        let mut session = harness.attach(credentials).await;
        session.hear().await.unwrap();
    }
    harness.stop().await;
}

#[tokio::test]
async fn a_revocation_that_overtakes_a_renewal_wins() {
    let harness = Harness::start().await;
    let shown = certificate(&harness.new_host("web-1").await);
    // The gate let the call through; before it is carried out the host is revoked, and its name given to another.
    harness.authority.revoke(Actor::console(), &shown.principal, "lost").await.unwrap();
    harness.new_host("web-1").await;
    let caller = Caller { principal: shown.principal, role: None };
    let csr_pem = NewKey::generate().unwrap().request_pem().unwrap();
    let refused = harness.authority.renew(&caller, shown.fingerprint, &csr_pem).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    harness.stop().await;
}

#[tokio::test]
async fn the_first_token_is_there_until_somebody_used_it() {
    let harness = Harness::start().await;
    let path = harness.dir.path().join("bootstrap-token");
    let read = || fs_err::read_to_string(&path).unwrap();
    harness.authority.prepare_bootstrap(harness.dir.path()).await.unwrap();
    let first = read();
    harness.authority.prepare_bootstrap(harness.dir.path()).await.unwrap();
    assert_eq!(read(), first, "an open token is kept");
    fs_err::remove_file(&path).unwrap();
    harness.authority.prepare_bootstrap(harness.dir.path()).await.unwrap();
    assert_ne!(read(), first);
    let credentials = harness.enrol(&read().parse().unwrap(), "").await.unwrap();
    assert_eq!(certificate(&credentials).principal.to_string(), "sluice://operator/admin");
    harness.authority.prepare_bootstrap(harness.dir.path()).await.unwrap();
    assert!(!path.exists());
    harness.stop().await;
}
