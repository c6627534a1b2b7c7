//! `Rollouts.*` as operators call it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use sluice_common::digest::Digest;
use sluice_common::identity::{Principal, Role};
use sluice_common::name::HostName;
use sluice_proto::v1;
use sluice_proto::v1::rollouts_server::Rollouts;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use super::world::{BAD, World};
use crate::access::Caller;
use crate::depot::plans::Link;
use crate::rollout::forecast::link::Limits;
use crate::rollout::forecast::{Disk, Surroundings, Transfer};
use crate::rollout::spec::Retry;
use crate::rollout::{Handle, RolloutsService};

fn asked<T>(message: T) -> Request<T> {
    let principal = Principal::Operator("alice".parse().unwrap());
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller { principal, role: Some(Role::Deployer) });
    request
}

fn service(handle: &Handle) -> RolloutsService {
    service_with(handle, Some(true))
}

fn service_with(handle: &Handle, slots: Option<bool>) -> RolloutsService {
    RolloutsService::new(handle.clone(), Arc::new(Around { slots }), CancellationToken::new())
}

/// What is around the rollouts, as far as they ask when they start.
struct Around {
    slots: Option<bool>,
}

#[tonic::async_trait]
impl Surroundings for Around {
    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn disks(&self) -> HashMap<HostName, Disk> {
        HashMap::new()
    }

    async fn transfer(&self, _: Digest, _: &[Digest], _: Link) -> Result<Transfer, String> {
        Err("nothing is sent here".to_owned())
    }

    async fn bake(&self, _: Digest) -> Duration {
        Duration::ZERO
    }

    async fn has_slots(&self, _: Digest) -> Option<bool> {
        self.slots
    }
}

#[tokio::test]
async fn a_release_without_slots_is_refused_where_candidates_are_asked_for() {
    let world = World::new(2).await;
    let spec = v1::RolloutSpec { strategy: v1::StrategyKind::BlueGreen.into(), ..Default::default() };
    let request = || {
        asked(v1::StartRolloutRequest {
            app: "shop".into(),
            version: "1".into(),
            spec: Some(spec.clone()),
            ..Default::default()
        })
    };
    let refused = service_with(&world.handle, Some(false)).start(request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(
        refused.message(),
        "release shop 1 has no [parallel] slots in its sluice.toml, so it cannot run beside the live release; \
         give it two slots, or choose another strategy than blue-green"
    );
    // What cannot be known is for the hosts to find out.
    service_with(&world.handle, None).start(request()).await.unwrap();
    assert!(
        service_with(&world.handle, Some(false))
            .start(start("1"))
            .await
            .unwrap_err()
            .message()
            .contains("not finished")
    );
}

#[tokio::test]
async fn a_second_try_is_of_an_ended_rollout_of_the_same_release() {
    let world = World::new(2).await;
    let service = service(&world.handle);
    let again = |version: &str, of: &str| {
        let mut request = start(version).into_inner();
        request.retry_of = of.into();
        asked(request)
    };
    let unknown = service.start(again("1", "r7")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    service.start(start("1")).await.unwrap();
    let early = service.start(again("1", "r1")).await.unwrap_err();
    assert!(early.message().contains("retry_of: r1 has not ended"), "{early}");
    watch(&service, "r1").await;
    let other = service.start(again("2", "r1")).await.unwrap_err();
    assert!(other.message().contains("retry_of: r1 is of shop 1, not of shop 2"), "{other}");
    service.start(again("1", "r1")).await.unwrap();
    watch(&service, "r2").await;
    let retry = world.handle.snapshot(&"r2".parse().unwrap()).await.unwrap().unwrap().rollout.spec.retry;
    assert_eq!(retry, Some(Retry { of: "r1".parse().unwrap(), is_migrated: true }));
}

fn start(version: &str) -> Request<v1::StartRolloutRequest> {
    let spec = v1::RolloutSpec { canary: "1".into(), batch: "2".into(), bake_ms: 30, ..Default::default() };
    asked(v1::StartRolloutRequest {
        app: "shop".into(),
        version: version.into(),
        spec: Some(spec),
        ..Default::default()
    })
}

/// Watches until the stream ends; returns everything that was seen.
async fn watch(service: &RolloutsService, id: &str) -> Vec<v1::Rollout> {
    let stream = service.watch(asked(v1::WatchRolloutRequest { id: id.into() })).await.unwrap().into_inner();
    stream.map(|answer| answer.unwrap().rollout.unwrap()).collect().await
}

#[tokio::test]
async fn a_watched_rollout_is_told_from_its_start_to_its_end() {
    let world = World::new(4).await;
    let service = service(&world.handle);
    let started = service.start(start("1")).await.unwrap().into_inner().rollout.unwrap();
    assert_eq!(
        (started.id.as_str(), started.notes.as_str(), started.started_by.as_str()),
        ("r1", "faster", "alice")
    );
    assert_eq!(started.batches.iter().map(|batch| batch.hosts.len()).collect::<Vec<_>>(), [1, 2, 1]);
    let seen = watch(&service, "r1").await;
    assert!(seen.windows(2).all(|two| two[0].revision <= two[1].revision && two[0] != two[1]));
    let end = seen.last().unwrap();
    assert_eq!(end.state(), v1::RolloutState::Succeeded);
    assert!(end.ended_unix_ms >= end.started_unix_ms && end.blockers.is_empty());
    for batch in &end.batches {
        assert_eq!(batch.state(), v1::BatchState::Passed);
        for host in &batch.hosts {
            assert_eq!((host.outcome(), host.reachable), (v1::HostOutcome::Updated, true));
            assert_eq!(host.report.as_ref().unwrap().phase(), v1::Phase::Active);
        }
    }
    assert_eq!(watch(&service, "r1").await.len(), 1, "one that has ended is told once");
}

#[tokio::test]
async fn a_failed_host_says_why_after_it_went_back() {
    let world = World::new(2).await;
    let service = service(&world.handle);
    for version in ["1", BAD] {
        service.start(start(version)).await.unwrap();
        watch(&service, if version == "1" { "r1" } else { "r2" }).await;
    }
    let end = service
        .get(asked(v1::GetRolloutRequest { id: "r2".into(), hosts_from: 0 }))
        .await
        .unwrap()
        .into_inner()
        .rollout
        .unwrap();
    assert_eq!(end.state(), v1::RolloutState::RolledBack);
    let host = &end.batches[0].hosts[0];
    assert_eq!(host.outcome(), v1::HostOutcome::RolledBack);
    assert_eq!(host.predecessor.as_ref().unwrap().version, "1");
    let report = host.report.as_ref().unwrap();
    assert_eq!(report.reason(), "went back by itself: 503 from /health");
    assert_eq!(report.hook_output(), "503 from /health");
    let request = v1::ListRolloutsRequest { app: "shop".into(), limit: 0 };
    let list = service.list(asked(request)).await.unwrap().into_inner().rollouts;
    assert_eq!(list.iter().map(|rollout| rollout.id.as_str()).collect::<Vec<_>>(), ["r2", "r1"]);
    assert!(list.iter().flat_map(|r| &r.batches).flat_map(|b| &b.hosts).all(|host| host.report.is_none()));
    let request = v1::AppHistoryRequest { app: "shop".into(), host: String::new(), limit: 1 };
    let lines = service.app_history(asked(request)).await.unwrap().into_inner().entries;
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].to.as_ref().unwrap().version.as_str(), lines[0].rollout.as_str()), ("1", "r1"));
}

#[tokio::test]
async fn errors_say_what_to_do_and_whose_fault_it_is() {
    let world = World::new(2).await;
    let service = service(&world.handle);
    let refused = |status: Status| (status.code(), status.message().to_owned());
    let mut request = start("1");
    request.get_mut().spec.as_mut().unwrap().batch = "0".into();
    let (code, message) = refused(service.start(request).await.unwrap_err());
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.starts_with("spec.batch is 0; it must be at least 1 or 1%"), "{message}");
    let mut request = start("1");
    request.get_mut().spec.as_mut().unwrap().selector = "a b".into();
    let (code, message) = refused(service.start(request).await.unwrap_err());
    assert!(code == Code::InvalidArgument && message.starts_with("spec.selector: "), "{message}");
    assert_eq!(refused(service.start(start("9")).await.unwrap_err()).0, Code::NotFound);
    let pause =
        |id: &str, reason: &str| asked(v1::PauseRolloutRequest { id: id.into(), reason: reason.into() });
    assert_eq!(refused(service.pause(pause("r1", "")).await.unwrap_err()).0, Code::NotFound);
    assert_eq!(refused(service.pause(pause("R 1", "")).await.unwrap_err()).0, Code::InvalidArgument);
    let mut slow = start("1");
    slow.get_mut().spec.as_mut().unwrap().bake_ms = 60_000;
    service.start(slow).await.unwrap();
    let (code, message) = refused(service.start(start("2")).await.unwrap_err());
    assert!(
        code == Code::FailedPrecondition && message.contains("rollout r1 of shop is not finished"),
        "{message}"
    );
    let paused = service.pause(pause("r1", "lunch")).await.unwrap().into_inner().rollout.unwrap();
    assert_eq!((paused.state(), paused.reason.as_str()), (v1::RolloutState::Paused, "by alice: lunch"));
    assert_eq!(paused.blockers, ["paused: by alice: lunch"]);
    let request = v1::AbortRolloutRequest { id: "r1".into(), reason: String::new() };
    let aborted = service.abort(asked(request)).await.unwrap().into_inner().rollout.unwrap();
    assert_eq!((aborted.state(), aborted.reason.as_str()), (v1::RolloutState::Aborted, "by alice"));
    let request = v1::ResumeRolloutRequest { id: "r1".into() };
    assert_eq!(refused(service.resume(asked(request)).await.unwrap_err()).0, Code::FailedPrecondition);
}

#[tokio::test]
async fn a_closed_application_is_shown_and_reopened() {
    let world = World::new(2).await;
    let service = service(&world.handle);
    service.start(start(BAD)).await.unwrap();
    watch(&service, "r1").await;
    let app = async || {
        let request = v1::GetAppRequest { app: "shop".into(), limit: 0 };
        service.get_app(asked(request)).await.unwrap().into_inner()
    };
    let closed = app().await;
    assert!(closed.closed && closed.stops[0].reopened_unix_ms == 0, "{closed:?}");
    assert_eq!(closed.stops[0].rollout, "r1");
    assert_eq!(service.start(start("1")).await.unwrap_err().code(), Code::FailedPrecondition);
    let reopen = async |cause: &str| {
        let request = v1::ReopenAppRequest { app: "shop".into(), cause: cause.into() };
        service.reopen_app(asked(request)).await.map(|answer| answer.into_inner().stops)
    };
    let empty = reopen(" ").await.unwrap_err();
    assert_eq!(
        (empty.code(), empty.message()),
        (Code::InvalidArgument, "cause: is empty; others will want to know")
    );
    let stops = reopen("a lock").await.unwrap();
    assert_eq!((stops.len(), stops[0].reopened_by.as_str(), stops[0].cause.as_str()), (1, "alice", "a lock"));
    assert_eq!(reopen("a lock").await.unwrap(), []);
    assert!(!app().await.closed);
    let request = v1::AppHistoryRequest { app: "shop".into(), host: String::new(), limit: 0 };
    assert_eq!(service.app_history(asked(request)).await.unwrap().into_inner().stops, stops);
    service.start(start("1")).await.unwrap();
}

#[tokio::test]
async fn a_rollout_that_asks_for_it_is_approved_by_somebody_else() {
    let world = World::new(2).await;
    let service = service(&world.handle);
    let mut request = start("1");
    request.get_mut().spec.as_mut().unwrap().approvals = 1;
    service.start(request).await.unwrap();
    let approve = |by: &str| {
        let principal = Principal::Operator(by.parse().unwrap());
        let mut request = Request::new(v1::ApproveRolloutRequest { id: "r1".into() });
        request.extensions_mut().insert(Caller { principal, role: Some(Role::Approver) });
        request
    };
    assert_eq!(service.approve(approve("alice")).await.unwrap_err().code(), Code::FailedPrecondition);
    let approved = service.approve(approve("bob")).await.unwrap().into_inner().rollout.unwrap();
    assert_eq!(approved.approvals[0].operator, "bob");
    assert_eq!(watch(&service, "r1").await.last().unwrap().state(), v1::RolloutState::Succeeded);
    let request = v1::OverrideRolloutRequest { id: "r1".into(), reason: String::new() };
    assert_eq!(service.r#override(asked(request)).await.unwrap_err().code(), Code::InvalidArgument);
    let mut never = start("1");
    never.get_mut().spec.as_mut().unwrap().windows = vec!["sat 20:00-20:05 UTC".into()];
    let refused = service.start(never).await.unwrap_err();
    assert!(
        refused.message().starts_with("spec.windows have no place for a batch within a year"),
        "{refused}"
    );
}
