use std::time::Duration;

use sluice_common::identity::Role;
use sluice_common::order::{Desired, Generation, Phase};
use sluice_proto::transport::metered::Pacing;
use sluice_proto::v1;
use sluice_proto::v1::agent_message::Message as FromAgent;
use sluice_proto::v1::coordinator_message::Message as ToAgent;
use sluice_proto::v1::fleet_client::FleetClient;

use super::*;
use crate::audit;
use crate::listener::Peer;
use crate::testing::Harness;

fn order(generation: u64) -> Order {
    Order {
        app: "shop".parse().unwrap(),
        generation: Generation(generation),
        rollout: "r1".parse().unwrap(),
        desired: Desired::Absent,
        ttl: Duration::from_secs(60),
        confirmed: false,
        migrates: true,
        needs: std::collections::BTreeMap::new(),
    }
}

fn report(sequence: u64) -> v1::Report {
    v1::Report {
        app: "shop".to_owned(),
        generation: 1,
        sequence,
        phase: v1::Phase::Active.into(),
        ..Default::default()
    }
}

fn generation(message: &ToAgent) -> Option<u64> {
    match message {
        ToAgent::Order(order) => Some(order.generation),
        _ => None,
    }
}

#[tokio::test]
async fn a_session_welcomes_orders_acknowledges_and_is_seen() {
    let harness = Harness::start().await;
    let name: HostName = "web-1".parse().unwrap();
    harness.paper.orders.lock().unwrap().insert(name.clone(), vec![order(1)]);
    let credentials = harness.new_host("web-1").await;
    let mut changes = harness.fleet.changes();
    let mut session = harness.attach(&credentials).await;
    match session.hear().await.unwrap() {
        ToAgent::Welcome(welcome) => {
            assert_eq!((welcome.host.as_str(), welcome.site.as_str()), ("web-1", "berlin"));
            assert_eq!(welcome.heartbeat_interval_ms, 5_000);
        }
        other => panic!("{other:?}"),
    }
    changes.changed().await.unwrap();
    assert_eq!(generation(&session.hear().await.unwrap()), Some(1));
    // New orders arrive when the driver says so.
    harness.paper.orders.lock().unwrap().insert(name.clone(), vec![order(2)]);
    harness.fleet.notify_orders(&name);
    assert_eq!(generation(&session.hear().await.unwrap()), Some(2));
    session.say(FromAgent::Heartbeat(v1::Heartbeat { sequence: 7 })).await;
    assert!(matches!(session.hear().await.unwrap(), ToAgent::HeartbeatAck(ack) if ack.sequence == 7));
    session.say(FromAgent::Report(report(3))).await;
    match session.hear().await.unwrap() {
        ToAgent::ReportAck(ack) => {
            assert_eq!((ack.app.as_str(), ack.generation, ack.sequence), ("shop", 1, 3));
        }
        other => panic!("{other:?}"),
    }
    let recorded = harness.paper.reports.lock().unwrap().clone();
    assert_eq!((recorded[0].0.as_str(), recorded[0].1.phase), ("web-1", Phase::Active));
    let view = harness.fleet.host(&name).unwrap();
    assert!(view.connected && view.contact.is_some());
    assert_eq!(view.platform().unwrap().as_str(), "linux-x86_64");
    // A report that is none is not acknowledged, and the session goes on.
    session.say(FromAgent::Report(v1::Report { phase: 99, ..report(4) })).await;
    session.say(FromAgent::Heartbeat(v1::Heartbeat { sequence: 8 })).await;
    assert!(matches!(session.hear().await.unwrap(), ToAgent::HeartbeatAck(ack) if ack.sequence == 8));
    drop(session);
    while harness.fleet.host(&name).unwrap().connected {
        changes.changed().await.unwrap();
    }
    // Facts outlive a restart; presence does not.
    let reopened = Fleet::open(harness.store.clone(), None).await.unwrap();
    let view = reopened.host(&name).unwrap();
    assert!(view.facts.is_some() && view.contact.is_none() && !view.connected);
    harness.stop().await;
}

#[tokio::test]
async fn the_newer_session_of_a_host_replaces_the_older() {
    let harness = Harness::start().await;
    let credentials = harness.new_host("web-1").await;
    let name: HostName = "web-1".parse().unwrap();
    let mut first = harness.attach(&credentials).await;
    first.hear().await.unwrap();
    let mut second = harness.attach(&credentials).await;
    second.hear().await.unwrap();
    let ended = first.hear().await.unwrap_err();
    assert!(ended.message().contains("replaced by a newer session"), "{ended}");
    // The end of the older one takes nothing from the newer.
    assert!(harness.fleet.host(&name).unwrap().connected);
    harness.paper.orders.lock().unwrap().insert(name.clone(), vec![order(5)]);
    harness.fleet.notify_orders(&name);
    assert_eq!(generation(&second.hear().await.unwrap()), Some(5));
    harness.stop().await;
}

#[tokio::test]
async fn a_session_speaks_for_its_own_host_only_and_begins_with_hello() {
    let harness = Harness::start().await;
    harness.new_host("web-1").await;
    let two = harness.new_host("web-2").await;
    let mut session = harness.attach(&two).await;
    session.hear().await.unwrap();
    // There is no field in which a host could name another one: what it says is about itself.
    session.say(FromAgent::Report(report(1))).await;
    session.hear().await.unwrap();
    assert!(harness.paper.reports.lock().unwrap().iter().all(|(host, _)| host.as_str() == "web-2"));
    assert!(!harness.fleet.host(&"web-1".parse().unwrap()).unwrap().connected);
    session.say(FromAgent::Hello(v1::Hello::default())).await;
    let ended = session.hear().await.unwrap_err();
    assert_eq!(ended.code(), tonic::Code::InvalidArgument, "{ended}");
    harness.stop().await;
}

#[tokio::test]
async fn times_last_seen_are_written_at_the_end() {
    let harness = Harness::start().await;
    let mut session = harness.attach(&harness.new_host("web-1").await).await;
    session.hear().await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    harness.fleet.clone().run(stop).await;
    let reopened = Fleet::open(harness.store.clone(), None).await.unwrap();
    assert!(reopened.host(&"web-1".parse().unwrap()).unwrap().last_seen.is_some());
    harness.stop().await;
}

fn rate(text: &str) -> Option<ByteRate> {
    text.parse().ok()
}

#[tokio::test]
async fn a_site_limit_changes_for_running_transfers_durably_and_audited() {
    let harness = Harness::start().await;
    let host: HostName = "web-1".parse().unwrap();
    harness.new_host("web-1").await;
    let chain = harness.fleet.chain(&host, rate("8Mbit/s"));
    let rates = || chain.iter().map(sluice_proto::transport::limiter::Limiter::rate).collect::<Vec<_>>();
    assert_eq!(rates(), [rate("8Mbit/s"), None, None]);
    let approver = harness.new_operator("ann", Role::Approver).await;
    let mut client = FleetClient::new(harness.connect(&approver).await.unwrap());
    let set =
        |site: &str, bytes| v1::SetSiteLimitRequest { site: site.to_owned(), limit_bytes_per_second: bytes };
    let site = client.set_site_limit(set("berlin", 500_000)).await.unwrap().into_inner().site.unwrap();
    assert_eq!((site.limit_bytes_per_second, site.hosts), (500_000, 1));
    assert_eq!(rates(), [rate("8Mbit/s"), rate("4Mbit/s"), None]);
    let unknown = client.set_site_limit(set("berln", 1)).await.unwrap_err();
    assert!(unknown.message().contains("there is no site berln"), "{unknown}");
    let reopened = Fleet::open(harness.store.clone(), None).await.unwrap();
    assert_eq!(reopened.sites()[0].limit, rate("4Mbit/s"));
    client.set_site_limit(set("berlin", 0)).await.unwrap();
    assert_eq!(rates()[1], None);
    let log = audit::list(&harness.store, 0, 100).await.unwrap();
    let set: Vec<_> = log.iter().filter(|entry| entry.action == "site.set_limit").collect();
    assert_eq!(set[0].actor, "sluice://operator/ann");
    assert_eq!(set[0].detail, r#"{"from":"none","to":"4Mbit/s"}"#);
    harness.stop().await;
}

#[tokio::test]
async fn a_host_announces_its_own_limit_before_it_fetches_anything() {
    let harness = Harness::start().await;
    let (credentials, name) = (harness.new_host("web-1").await, "web-1".parse::<HostName>().unwrap());
    let limit = || harness.fleet.host(&name).unwrap().limit;
    for (announced, expected) in [(1_000_000, rate("8Mbit/s")), (0, None)] {
        let mut session = harness.attach_limited(&credentials, announced).await;
        session.hear().await.unwrap();
        assert_eq!(limit(), expected);
        drop(session);
    }
    // What it asks for its content holds as well.
    harness.fleet.chain(&name, rate("4Mbit/s"));
    assert_eq!(limit(), rate("4Mbit/s"));
    harness.stop().await;
}

#[tokio::test]
async fn operators_who_change_a_limit_at_once_leave_one_limit_behind() {
    let harness = Harness::start().await;
    harness.new_host("web-1").await;
    let site: SiteName = "berlin".parse().unwrap();
    for round in 1..=20_u64 {
        let set = |bytes: u64| {
            let rate = ByteRate::from_bytes_per_second(bytes);
            harness.fleet.set_site_limit(crate::store::Actor::console(), &site, rate)
        };
        let (one, two, three) = tokio::join!(set(round * 3), set(round * 3 + 1), set(round * 3 + 2));
        assert!([one, two, three].into_iter().all(|set| set.unwrap().is_ok()));
        let stored = Fleet::open(harness.store.clone(), None).await.unwrap().sites()[0].limit;
        assert_eq!(harness.fleet.sites()[0].limit, stored, "round {round}");
    }
    harness.stop().await;
}

#[tokio::test]
async fn content_is_counted_for_its_host_and_site() {
    let harness = Harness::start().await;
    harness.new_host("web-1").await;
    let host: HostName = "web-1".parse().unwrap();
    let meter = std::sync::Arc::new(sluice_proto::transport::metered::Meter::default());
    let peer = Peer {
        address: "192.0.2.1:1".parse().unwrap(),
        certificate: None,
        pacing: Pacing::default(),
        meter: meter.clone(),
    };
    harness.fleet.admit_content(&peer, &host, None).unwrap();
    let (near, _far) = tokio::io::duplex(1 << 10);
    let paced = sluice_proto::transport::metered::Paced::Writes;
    let mut stream =
        sluice_proto::transport::metered::Metered::new(near, vec![meter], peer.pacing.clone(), paced);
    tokio::io::AsyncWriteExt::write_all(&mut stream, &[0; 700]).await.unwrap();
    assert_eq!(harness.fleet.host(&host).unwrap().content_bytes, 700);
    assert_eq!(harness.fleet.sites()[0].content_bytes, 700);
    let stranger = "web-9".parse().unwrap();
    assert!(harness.fleet.admit_content(&peer, &stranger, None).is_err());
    harness.stop().await;
}
