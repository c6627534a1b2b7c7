//! The services over a real connection.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use sluice_common::identity::{Principal, Role};
use sluice_common::keys::SecretKey;
use sluice_common::name::Platform;
use sluice_common::release::Release;
use sluice_common::transfer::Effort;
use sluice_proto::v1::packages_client::PackagesClient;
use sluice_proto::v1::packages_server::PackagesServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::TaskTracker;
use tonic::Request as Call;
use tonic::transport::{Channel, Endpoint, Server};

use super::improver::improver;
use super::*;
use crate::access::Caller;
use crate::depot::plans::{Plans, Policy};
use crate::depot::service::PackagesService;

/// Serves a depot on loopback to a caller that the gate has let in as alice.
async fn serve(bench: &Bench, tasks: &TaskTracker) -> PackagesClient<Channel> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let caller =
        Caller { principal: Principal::Operator("alice".parse().unwrap()), role: Some(Role::Deployer) };
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let improver = improver(&plans, &[], Policy::Quick);
    let service = PackagesServer::with_interceptor(
        PackagesService::new(bench.depot.clone(), improver),
        move |mut call: Call<()>| {
            call.extensions_mut().insert(caller.clone());
            Ok(call)
        },
    );
    let stop = bench.token.clone().cancelled_owned();
    let incoming = TcpListenerStream::new(listener);
    tasks.spawn(async move { Server::builder().serve_with_incoming_shutdown(service, incoming, stop).await });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    PackagesClient::new(endpoint.connect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_pushed_shown_and_released_over_the_wire() {
    let (bench, tasks, shop) = (Bench::new().await, TaskTracker::new(), shop(1));
    let mut client = serve(&bench, &tasks).await;
    let key = SecretKey::generate().unwrap();
    let packages = BTreeMap::from([(Platform::any(), shop.digest)]);
    let release = Release {
        app: "shop".parse().unwrap(),
        version: "1.0".parse().unwrap(),
        packages,
        notes: String::new(),
    };
    let signed = v1::SignedRelease::from(&release.sign(&key).unwrap());
    let create = || v1::CreateReleaseRequest { release: Some(signed.clone()) };
    let early = client.create_release(create()).await.unwrap_err();
    assert!(early.message().contains("sluice package push"), "{early}");

    let all: Vec<u32> = (0..shop.index.chunks().len() as u32).collect();
    let commit = Request::Commit(v1::PushCommit {});
    let messages: Vec<Request> =
        shop.preamble().into_iter().chain(shop.uploads(&all)).chain([commit]).collect();
    // Twice, both times everything at once: the second time, most of it is passed over.
    for _ in 0..2 {
        let requests = messages.clone().into_iter().map(|message| v1::PushRequest { message: Some(message) });
        let responses = client.push(futures::stream::iter(requests)).await.unwrap().into_inner();
        let responses: Vec<v1::PushResponse> = responses.try_collect().await.unwrap();
        assert!(matches!(responses.last().unwrap().message, Some(Response::Committed(_))));
    }

    assert!(client.create_release(create()).await.unwrap().into_inner().created);
    assert!(!client.create_release(create()).await.unwrap().into_inner().created);
    let mut pages = client.list_packages(v1::ListPackagesRequest {}).await.unwrap().into_inner();
    let listed = pages.message().await.unwrap().unwrap().packages;
    assert!(pages.message().await.unwrap().is_none());
    assert_eq!((listed.len(), &listed[0].releases), (1, &vec!["shop 1.0".to_owned()]));
    for (app, count) in [("", 1), ("shop", 1), ("other", 0)] {
        let request = v1::ListReleasesRequest { app: app.into() };
        let mut pages = client.list_releases(request).await.unwrap().into_inner();
        assert_eq!(pages.message().await.unwrap().unwrap().releases.len(), count);
    }
    for (prefix, count) in [("", 1), (&*shop.digest.short(), 1)] {
        let request = v1::ListPlansRequest { digest_prefix: prefix.to_owned() };
        let mut pages = client.list_plans(request).await.unwrap().into_inner();
        let plans = pages.message().await.unwrap().unwrap().plans;
        assert_eq!(plans.len(), count, "the cold plan of what was just pushed");
        assert_eq!(
            (plans[0].state(), plans[0].target_releases.as_slice()),
            (v1::PlanState::Queued, &["shop 1.0".to_owned()][..])
        );
    }
    let get = v1::GetPackageRequest { digest_prefix: shop.digest.short(), manifest: true };
    let parts = client.get_package(get).await.unwrap().into_inner();
    let parts: Vec<v1::GetPackageResponse> = parts.try_collect().await.unwrap();
    let manifest: Vec<u8> = parts
        .into_iter()
        .filter_map(|part| match part.message {
            Some(v1::get_package_response::Message::Manifest(bytes)) => Some(bytes),
            Some(v1::get_package_response::Message::Package(_)) | None => None,
        })
        .flatten()
        .collect();
    assert_eq!(manifest, shop.manifest);
}
