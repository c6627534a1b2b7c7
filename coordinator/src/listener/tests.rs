use std::time::Duration;

use sluice_common::identity::Role;
use sluice_proto::transport::client::Dial;
use sluice_proto::transport::tls;
use sluice_proto::v1;
use sluice_proto::v1::administration_client::AdministrationClient;
use sluice_proto::v1::fleet_client::FleetClient;
use sluice_proto::v1::session_client::SessionClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use super::*;
use crate::authority::own;
use crate::testing::{Harness, certificate};

#[tokio::test]
async fn a_foreign_authority_is_nobody_here() {
    let (harness, other) = (Harness::start().await, Harness::start().await);
    let foreign = other.new_host("web-1").await;
    harness.new_host("web-1").await;
    // The client refuses the server, which another authority signed.
    assert!(harness.connect(&foreign).await.is_err());
    // A client that trusts the right authority but shows the wrong certificate is refused by the server.
    let trusted = harness.new_host("web-2").await;
    let mixed = {
        let (_, theirs) = split(&foreign);
        let (ours, _) = split(&trusted);
        rebuild(&theirs, &ours)
    };
    let refused = match harness.connect(&mixed).await {
        Err(_) => true,
        Ok(channel) => SessionClient::new(channel).renew(v1::RenewRequest::default()).await.is_err(),
    };
    assert!(refused);
    harness.stop().await;
    other.stop().await;
}

/// Splits an identity file into (authority, key and certificate).
fn split(credentials: &sluice_proto::transport::credentials::Credentials) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity.pem");
    credentials.store(&path).unwrap();
    let text = fs_err::read_to_string(&path).unwrap();
    let at = text.rfind("-----BEGIN CERTIFICATE-----").unwrap();
    (text[at..].to_owned(), text[..at].to_owned())
}

fn rebuild(own: &str, authority: &str) -> sluice_proto::transport::credentials::Credentials {
    sluice_proto::transport::credentials::Credentials::from_pem(format!("{own}{authority}")).unwrap()
}

#[tokio::test]
async fn without_a_certificate_there_is_nothing_but_enrolment() {
    let harness = Harness::start().await;
    let newcomer = tls::newcomer(harness.authority.fingerprint()).unwrap();
    let channel = Dial::new(harness.address.clone(), newcomer).connect().await.unwrap();
    let listed =
        FleetClient::new(channel.clone()).list_hosts(v1::ListHostsRequest::default()).await.unwrap_err();
    assert_eq!(listed.code(), Code::Unauthenticated, "{listed}");
    let renewed = SessionClient::new(channel.clone()).renew(v1::RenewRequest::default()).await.unwrap_err();
    assert_eq!(renewed.code(), Code::Unauthenticated, "{renewed}");
    let enrolled =
        v1::enrollment_client::EnrollmentClient::new(channel).enroll(v1::EnrollRequest::default()).await;
    assert!(enrolled.unwrap_err().message().contains("token is not known"));
    harness.stop().await;
}

#[tokio::test]
async fn roles_hold_over_the_wire() {
    let harness = Harness::start().await;
    let host = harness.new_host("web-1").await;
    let mut admin = AdministrationClient::new(
        harness.connect(&harness.new_operator("root", Role::Admin).await).await.unwrap(),
    );
    let whoami = admin.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!((whoami.principal.as_str(), whoami.role.as_str()), ("sluice://operator/root", "admin"));
    for role in Role::ALL {
        let channel = harness.connect(&harness.new_operator(role.as_str(), role).await).await.unwrap();
        let mut fleet = FleetClient::new(channel.clone());
        assert_eq!(
            fleet.list_hosts(v1::ListHostsRequest::default()).await.unwrap().into_inner().hosts.len(),
            1
        );
        let set = v1::SetSiteLimitRequest { site: "berlin".to_owned(), limit_bytes_per_second: 1_000_000 };
        assert_eq!(fleet.set_site_limit(set).await.is_ok(), role >= Role::Approver, "{role}");
        let token = v1::CreateTokenRequest {
            subject: Some(v1::create_token_request::Subject::Operator(v1::OperatorTokenSubject {
                name: "x".to_owned(),
                role: "admin".to_owned(),
            })),
            ttl_ms: 0,
        };
        let made = AdministrationClient::new(channel).create_token(token).await;
        assert_eq!(made.is_ok(), role == Role::Admin, "{role}");
    }
    // A host is no operator, and an operator no host.
    let channel = harness.connect(&host).await.unwrap();
    let refused = FleetClient::new(channel).list_hosts(v1::ListHostsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let operator = harness.new_operator("eve", Role::Admin).await;
    let mut session = SessionClient::new(harness.connect(&operator).await.unwrap());
    let refused = session.attach(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(refused.message(), "only hosts may call this; the caller is sluice://operator/eve");
    // Refusals are in the audit log.
    loop {
        let request = v1::ListAuditRequest::default();
        let mut entries = admin.list_audit(request).await.unwrap().into_inner();
        let mut found = 0;
        while let Some(entry) = entries.message().await.unwrap() {
            found += usize::from(entry.action == "access.refuse");
        }
        if found >= 2 {
            break;
        }
    }
    assert_eq!(admin.verify_audit(v1::VerifyAuditRequest {}).await.unwrap().into_inner().broken_at, 0);
    harness.stop().await;
}

#[tokio::test]
async fn plain_text_and_silence_get_no_answer() {
    let harness = Harness::start().await;
    let mut plain = TcpStream::connect(harness.address.to_string()).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // A TLS alert and the end; no HTTP.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
    harness.new_host("web-1").await;
    harness.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_takes_too_long_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let acceptor = paused_acceptor(&dir).await;
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let slow_loris = async {
        // The head of a long TLS record, then its bytes, one a second, as long as anyone listens.
        for byte in [0x16, 3, 1, 0x10, 0, 1, 0, 0x0f, 0xfc, 3, 3].into_iter().chain(std::iter::repeat(0)) {
            if far.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let start = tokio::time::Instant::now();
    let (accepted, ()) =
        tokio::join!(acceptor.accept(near, "192.0.2.1:1".parse().unwrap(), None), slow_loris);
    assert!(matches!(accepted, Err(accept::HandshakeError::TimedOut)));
    assert!(start.elapsed() >= caps::HANDSHAKE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_a_certificate_has_its_time_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let acceptor = paused_acceptor(&dir).await;
    let authority = open_authority(&dir).await;
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = rustls::pki_types::ServerName::try_from(sluice_proto::transport::COORDINATOR_NAME).unwrap();
    let client = tokio_rustls::TlsConnector::from(tls::newcomer(authority.fingerprint()).unwrap());
    let (accepted, connected) =
        tokio::join!(acceptor.accept(near, "192.0.2.1:1".parse().unwrap(), None), client.connect(name, far));
    let (mut connection, mut client) = (accepted.unwrap(), connected.unwrap());
    let mut byte = [0];
    client.write_all(&[1]).await.unwrap();
    connection.read_exact(&mut byte).await.unwrap();
    let start = tokio::time::Instant::now();
    let ended = tokio::time::timeout(2 * caps::NEWCOMER_TIMEOUT, connection.read_exact(&mut byte)).await;
    let error = ended.expect("it outlives its time").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    assert!(start.elapsed() >= caps::NEWCOMER_TIMEOUT - Duration::from_millis(10), "{:?}", start.elapsed());
}

async fn open_authority(dir: &tempfile::TempDir) -> crate::authority::Authority {
    // The database runs on threads of its own, which paused time does not wait for.
    tokio::time::resume();
    let store = crate::store::Store::open(dir.path(), crate::store::Schema::Migrate).await.unwrap();
    let authority = crate::authority::Authority::open(dir.path(), store, Default::default()).await.unwrap();
    tokio::time::pause();
    authority
}

async fn paused_acceptor(dir: &tempfile::TempDir) -> Acceptor {
    let authority = open_authority(dir).await;
    let (_, current) = watch::channel(own::configuration(&authority).unwrap());
    Acceptor::new(current, Connections::default(), CancellationToken::new(), TaskTracker::new())
}

#[tokio::test]
async fn a_new_certificate_is_used_from_the_next_handshake_on() {
    let harness = Harness::start().await;
    let host = harness.new_host("web-1").await;
    let mut session = harness.attach(&host).await;
    session.hear().await.unwrap();
    harness.tls.send_replace(own::configuration(&harness.authority).unwrap());
    let presented = async || {
        let tcp = TcpStream::connect(harness.address.to_string()).await.unwrap();
        let name =
            rustls::pki_types::ServerName::try_from(sluice_proto::transport::COORDINATOR_NAME).unwrap();
        let client = tokio_rustls::TlsConnector::from(tls::client(&host).unwrap());
        let stream = client.connect(name, tcp).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let before = presented().await;
    harness.tls.send_replace(own::configuration(&harness.authority).unwrap());
    assert_ne!(presented().await, before);
    // The session of before goes on.
    let beat = v1::agent_message::Message::Heartbeat(v1::Heartbeat { sequence: 1 });
    session.say(beat).await;
    session.hear().await.unwrap();
    harness.stop().await;
}

#[tokio::test]
async fn the_fifth_connection_of_a_host_ends_its_first() {
    let harness = Harness::start().await;
    let host = harness.new_host("web-1").await;
    let mut session = harness.attach(&host).await;
    session.hear().await.unwrap();
    let mut others = Vec::new();
    for _ in 0..caps::CONNECTIONS_PER_IDENTITY {
        let channel = harness.connect(&host).await.unwrap();
        // A call makes sure that the connection is taken in.
        let _ = SessionClient::new(channel.clone()).renew(v1::RenewRequest::default()).await;
        others.push(channel);
    }
    let ended = session.hear().await.unwrap_err();
    assert_ne!(ended.code(), Code::DeadlineExceeded, "it ended by silence, not by the limit");
    assert_eq!(certificate(&host).principal.to_string(), "sluice://host/web-1");
    harness.stop().await;
}
