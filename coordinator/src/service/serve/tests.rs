use sluice_proto::token::JoinToken;
use sluice_proto::transport::client::{Address, Dial};
use sluice_proto::transport::credentials::NewKey;
use sluice_proto::transport::tls;
use sluice_proto::v1;
use sluice_proto::v1::DESCRIPTORS;
use sluice_proto::v1::enrollment_client::EnrollmentClient;
use tonic::transport::Channel;

use super::*;
use crate::depot::plans::Policy;
use crate::depot::plans::improver::Options;

async fn started(dir: &tempfile::TempDir) -> (Coordinator, CancellationToken) {
    let data = dir.path().join("data");
    let config = Config {
        data: data.clone(),
        listen: "127.0.0.1:0".parse().unwrap(),
        limit: None,
        plans: Options::new(Policy::Improve),
        check_commands: None,
        credentials: Default::default(),
    };
    let stop = CancellationToken::new();
    let coordinator = start(&config, DataDir::open(&data).unwrap(), stop.clone()).await.unwrap();
    (coordinator, stop)
}

async fn first_admin(data: &std::path::Path, address: &Address) -> Channel {
    let token: JoinToken = fs_err::read_to_string(data.join("bootstrap-token")).unwrap().parse().unwrap();
    let key = NewKey::generate().unwrap();
    let newcomer =
        Dial::new(address.clone(), tls::newcomer(token.authority()).unwrap()).connect().await.unwrap();
    let request = v1::EnrollRequest {
        token: token.secret().to_owned(),
        csr_pem: key.request_pem().unwrap(),
        ..Default::default()
    };
    let enrolled = EnrollmentClient::new(newcomer).enroll(request).await.unwrap().into_inner();
    let credentials = key.into_credentials(&enrolled.certificate_pem, &enrolled.ca_pem).unwrap();
    Dial::new(address.clone(), tls::client(&credentials).unwrap()).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_serves_every_service_of_the_protocol_and_stops_clean() {
    use prost::Message;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (coordinator, stop) = started(&dir).await;
    let address = fs_err::read_to_string(data.join("address")).unwrap();
    assert_eq!(address.trim(), coordinator.address().to_string());
    let channel = first_admin(&data, &address.trim().parse().unwrap()).await;
    // A call with an admin's certificate is refused or fails, but never for want of a service.
    let files = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    for service in files.iter().flat_map(|file| &file.service) {
        for method in &service.method {
            let path = format!("/sluice.v1.{}/{}", service.name(), method.name());
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            grpc.ready().await.unwrap();
            let codec = tonic_prost::ProstCodec::<v1::WhoAmIRequest, v1::WhoAmIResponse>::default();
            let request = tonic::Request::new(tokio_stream::once(v1::WhoAmIRequest {}));
            let answer = grpc.streaming(request, path.parse().unwrap(), codec).await;
            let missing = answer.is_err_and(|status| status.code() == tonic::Code::Unimplemented);
            assert!(!missing, "{path} is not served");
        }
    }
    drop(channel);
    stop.cancel();
    coordinator.stopped().await.unwrap();
    assert!(!data.join("address").exists());
    // All of it is there again after a restart, under the same authority.
    let before = fs_err::read_to_string(data.join("authority/ca.pem")).unwrap();
    let (coordinator, stop) = started(&dir).await;
    assert_eq!(fs_err::read_to_string(data.join("authority/ca.pem")).unwrap(), before);
    assert!(!data.join("bootstrap-token").exists(), "the first token outlives the first operator");
    stop.cancel();
    coordinator.stopped().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_does_not_hold_up_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (coordinator, stop) = started(&dir).await;
    let address = coordinator.address().to_string().parse().unwrap();
    let channel = first_admin(&dir.path().join("data"), &address).await;
    // An upload that never ends.
    let (_uploading, stream) = tokio::sync::mpsc::channel(1);
    let mut packages = v1::packages_client::PackagesClient::new(channel);
    let pushing = packages.push(tokio_stream::wrappers::ReceiverStream::new(stream));
    let stopping = async {
        stop.cancel();
        coordinator.stopped().await
    };
    let (_, stopped) = tokio::join!(pushing, stopping);
    stopped.unwrap();
}
