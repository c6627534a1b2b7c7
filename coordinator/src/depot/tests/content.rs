//! The `Content` service: who is let in, and what a host is told.

use async_trait::async_trait;
use futures::TryStreamExt;
use prost::Message as _;
use sluice_common::identity::{Principal, Role};
use sluice_common::name::HostName;
use sluice_common::transfer::{self, Effort};
use sluice_proto::v1::content_server::Content;
use tonic::{Code, Request};

use super::plans::{host, wanted};
use super::*;
use crate::access::Caller;
use crate::depot::content::{ContentService, OrderBook};
use crate::depot::plans::{Link, Plans};
use crate::fleet::{self, Fleet};
use crate::listener::Peer;
use crate::store::{self, Actor};

/// Orders one host to have one package.
struct OneOrder(Digest);

#[async_trait]
impl OrderBook for OneOrder {
    async fn may_fetch(&self, to: &HostName, package: &Digest) -> Result<bool, store::Error> {
        Ok(*to == host() && *package == self.0)
    }
}

fn called_by<T>(principal: Principal, message: T) -> Request<T> {
    let role = matches!(principal, Principal::Operator(_)).then_some(Role::Admin);
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller { principal, role });
    request.extensions_mut().insert(Peer {
        address: "127.0.0.1:1".parse().unwrap(),
        certificate: None,
        pacing: Default::default(),
        meter: Default::default(),
    });
    request
}

/// Makes the service for [`host`], which is ordered to have `target`.
async fn service(bench: &Bench, plans: &Arc<Plans>, target: Digest) -> ContentService {
    let mut tx = bench.store.begin(Actor::console()).await.unwrap();
    let (site, labels, now) = ("berlin".parse().unwrap(), Default::default(), jiff::Timestamp::now());
    fleet::insert_host(&mut tx, &host(), &site, &labels, now).await.unwrap();
    tx.commit_observation().await.unwrap();
    let fleet = Fleet::open(bench.store.clone(), None).await.unwrap();
    ContentService::new(plans.clone(), Arc::new(OneOrder(target)), fleet)
}

fn plan_request(base: Option<&Parcel>, target: &Parcel) -> v1::PlanRequest {
    v1::PlanRequest {
        target: target.digest.as_bytes().to_vec(),
        bases: base.map(|base| base.digest.as_bytes().to_vec()).into_iter().collect(),
        ..v1::PlanRequest::default()
    }
}

/// Asks for a plan; returns the header, and the bytes of manifest frame and plan that came.
async fn answer(service: &ContentService, request: v1::PlanRequest) -> (v1::PlanHeader, Vec<u8>) {
    use v1::plan_part::Part;
    let parts = service.get_plan(called_by(Principal::Host(host()), request)).await.unwrap().into_inner();
    let mut parts: Vec<v1::PlanPart> = parts.try_collect().await.unwrap();
    let Some(Part::Header(header)) = parts.remove(0).part else { panic!("header first") };
    let mut bytes = Vec::new();
    for part in parts {
        match part.part {
            Some(Part::Manifest(more)) => {
                assert!((header.offset + bytes.len() as u64) < header.manifest_len);
                bytes.extend(more);
            }
            Some(Part::Plan(more)) => bytes.extend(more),
            Some(Part::Header(_)) | None => panic!("one header"),
        }
    }
    (header, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_on_behind_what_a_host_has_of_it() {
    let bench = Bench::new().await;
    let (one, two) = (shop(1), shop(2));
    bench.push(&one).await.unwrap();
    bench.push(&two).await.unwrap();
    let service = service(&bench, &Plans::new(bench.depot.clone(), Effort::Quick), two.digest).await;
    let (first, whole) = answer(&service, plan_request(Some(&one), &two)).await;
    assert_eq!((first.offset, whole.len() as u64), (0, first.manifest_len + first.plan_len));
    for len in [0, 1, first.manifest_len, first.manifest_len + 1, whole.len() as u64] {
        let begun =
            v1::PlanRequest { begun: first.name.clone(), begun_len: len, ..plan_request(Some(&one), &two) };
        let (header, rest) = answer(&service, begun).await;
        assert_eq!((header.offset, &rest[..]), (len, &whole[len as usize..]));
        assert_eq!(header.name, first.name);
    }
    // Too much, another answer, and one without a name: all of it comes.
    let all = whole.len() as u64;
    for (name, len) in [(first.name.clone(), all + 1), (vec![7; 32], 5), (Vec::new(), 5)] {
        let begun = v1::PlanRequest { begun: name, begun_len: len, ..plan_request(Some(&one), &two) };
        assert_eq!(answer(&service, begun).await.0.offset, 0);
    }
    let (cold, _) = answer(&service, plan_request(None, &two)).await;
    assert_ne!(cold.name, first.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_gets_what_it_is_ordered_to_have_and_nothing_else() {
    let bench = Bench::new().await;
    let (one, two) = (shop(1), shop(2));
    bench.push(&one).await.unwrap();
    bench.push(&two).await.unwrap();
    let service = service(&bench, &Plans::new(bench.depot.clone(), Effort::Quick), two.digest).await;
    let plan = |target: &Parcel| plan_request(Some(&one), target);
    for (principal, target) in [
        (Principal::Host(host()), &one),
        (Principal::Operator("alice".parse().unwrap()), &two),
        (Principal::Coordinator, &two),
    ] {
        let Err(refused) = service.get_plan(called_by(principal, plan(target))).await else {
            panic!("let in")
        };
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    let parts = service.get_plan(called_by(Principal::Host(host()), plan(&two))).await.unwrap();
    let parts: Vec<v1::PlanPart> = parts.into_inner().try_collect().await.unwrap();
    let Some(v1::plan_part::Part::Header(header)) = &parts[0].part else { panic!("header first") };
    assert_eq!(header.base, one.digest.as_bytes());
    let total = |of: fn(&v1::plan_part::Part) -> usize| -> u64 {
        parts.iter().filter_map(|part| part.part.as_ref()).map(of).sum::<usize>() as u64
    };
    use v1::plan_part::Part;
    let manifest = |part: &Part| if let Part::Manifest(bytes) = part { bytes.len() } else { 0 };
    let plan_len = |part: &Part| if let Part::Plan(bytes) = part { bytes.len() } else { 0 };
    assert_eq!((total(manifest), total(plan_len)), (header.manifest_len, header.plan_len));
    let fetch = v1::FetchRequest {
        target: one.digest.as_bytes().to_vec(),
        base: Vec::new(),
        frames: Vec::new(),
        limit_bytes_per_second: 0,
    };
    let Err(refused) = service.fetch(called_by(Principal::Host(host()), fetch)).await else {
        panic!("let in")
    };
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_travels_is_counted_before_it_does() {
    let bench = Bench::new().await;
    let spec = "# What the next person has to know of this application.\n".repeat(1_900).into_bytes();
    assert!(spec.len() > 100 << 10);
    let version =
        |last| Parcel::new(&[("sluice.toml", spec.clone()), ("etc/app.conf", vec![b'a', b'b', last])]);
    let (one, two) = (version(b'1'), version(b'2'));
    bench.push(&one).await.unwrap();
    bench.push(&two).await.unwrap();
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let service = service(&bench, &plans, two.digest).await;
    for base in [None, Some(&one)] {
        let name = if base.is_some() { "update" } else { "cold install" };
        let called = called_by(Principal::Host(host()), plan_request(base, &two));
        let parts = service.get_plan(called).await.unwrap().into_inner();
        let parts: Vec<v1::PlanPart> = parts.try_collect().await.unwrap();
        let plan = plans.get(base.map(|base| base.digest), two.digest, Link::Open).await.unwrap();
        let fetch = v1::FetchRequest {
            target: two.digest.as_bytes().to_vec(),
            base: plan.base.map(|base| base.as_bytes().to_vec()).unwrap_or_default(),
            frames: plan.frames.iter().map(|frame| wanted(&frame.digest, 0)).collect(),
            limit_bytes_per_second: 0,
        };
        let frames = service.fetch(called_by(Principal::Host(host()), fetch)).await.unwrap().into_inner();
        let frames: Vec<v1::FrameData> = frames.try_collect().await.unwrap();
        let sent = parts.iter().map(v1::PlanPart::encoded_len).sum::<usize>()
            + frames.iter().map(v1::FrameData::encoded_len).sum::<usize>();
        let cost = transfer::cost(base.map(|base| &base.tree), &two.tree, Effort::Quick, 1, &|_| {}).unwrap();
        assert_eq!((cost.spec_bytes, cost.total()), (spec.len() as u64, plan.wire_bytes()), "{name}");
        // Besides: the base's digest, the answer's name, lengths, and a few bytes for each message.
        let beside = sent as u64 - cost.total();
        assert!(beside < 150, "{name}: {sent} of {}", cost.total());
    }
}
