use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use sluice_common::digest::Digest;
use sluice_common::keys::{PublicKey, Signature};
use sluice_common::name::Platform;
use sluice_common::order::{Desired, Generation, Installed, Order, Phase, Report, Stage};
use sluice_common::release::{Release, SignedRelease};

use crate::v1;

fn order() -> Order {
    let release = Release {
        app: "shop".parse().unwrap(),
        version: "1.2".parse().unwrap(),
        packages: BTreeMap::from([(Platform::any(), Digest::of(b"p"))]),
        notes: "n".into(),
    };
    let signature = Signature { key: PublicKey::from_slice(&[7; 32]).unwrap(), bytes: [9; 64] };
    Order {
        app: "shop".parse().unwrap(),
        generation: Generation(5),
        rollout: "r1".parse().unwrap(),
        desired: Desired::Release {
            stage: Stage::Active,
            release: SignedRelease { release, signature },
            package: Digest::of(b"p"),
        },
        ttl: Duration::from_secs(900),
        confirmed: false,
        migrates: true,
        needs: BTreeMap::new(),
    }
}

fn report() -> Report {
    Report {
        app: "shop".parse().unwrap(),
        generation: Generation(5),
        sequence: 3,
        phase: Phase::Validating,
        current: Some(Installed { package: Digest::of(b"p"), version: "1.2".parse().unwrap() }),
        previous: None,
        healthy: Some(false),
        reason: Some("answered 500".into()),
        hook_output: None,
        fetched_bytes: 10,
        fetch_total_bytes: 20,
        wire_bytes: 30,
        stage_time: Duration::from_micros(40),
        switch_time: Duration::from_micros(50),
        drift: None,
    }
}

/// The bytes that older agents and coordinators speak: when this fails, they no longer understand each other.
#[test]
fn golden_bytes() {
    let order_bytes = v1::Order::from(&order()).encode_to_vec();
    let report_bytes = v1::Report::from(&report()).encode_to_vec();
    assert_eq!(Digest::of(&order_bytes).short(), "6e7375c143e1");
    assert_eq!(Digest::of(&report_bytes).short(), "cb2616f84469");
}

fn needing(by: &str) -> Order {
    Order { needs: BTreeMap::from([("search".parse().unwrap(), by.to_owned())]), ..order() }
}

#[test]
fn orders_and_reports_round_trip() {
    assert_eq!(Order::try_from(v1::Order::from(&order())).unwrap(), order());
    assert_eq!(Report::try_from(v1::Report::from(&report())).unwrap(), report());
    let absent = Order { desired: Desired::Absent, ..order() };
    assert_eq!(Order::try_from(v1::Order::from(&absent)).unwrap(), absent);
    let renewed = Order { confirmed: true, migrates: false, ..order() };
    assert_eq!(Order::try_from(v1::Order::from(&renewed)).unwrap(), renewed);
    let needing = needing("lists by name");
    assert_eq!(Order::try_from(v1::Order::from(&needing)).unwrap(), needing);
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let good = v1::Order::from(&order());
    for (field, bad) in [
        ("order.app", v1::Order { app: "../x".into(), ..good.clone() }),
        ("order.desired", v1::Order { desired: None, ..good }),
    ] {
        assert_eq!(Order::try_from(bad).unwrap_err().field, field);
    }
    for by in ["a\0b".to_owned(), "x".repeat(513)] {
        assert_eq!(Order::try_from(v1::Order::from(&needing(&by))).unwrap_err().field, "order.needs");
    }
    let bad = v1::Report { phase: 0, ..v1::Report::from(&report()) };
    assert_eq!(Report::try_from(bad).unwrap_err().field, "phase");
    let bad = v1::Report { hook_output: Some("x".repeat(1 << 20)), ..v1::Report::from(&report()) };
    assert_eq!(Report::try_from(bad).unwrap_err().field, "report.hook_output");
}
