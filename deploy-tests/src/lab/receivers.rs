//! Receivers: many connections that fetch one plan's frames at once and throw away what comes.
//!
//! What they cost at this end does not count; what they cost the coordinator is what a lab measures with
//! [`super::Lab::coordinator_process`].

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::manifest::{Contents, Manifest};
use sluice_common::transfer::TransferPlan;
use sluice_proto::transport::client::{Address, Dial};
use sluice_proto::transport::credentials::Credentials;
use sluice_proto::transport::tls;
use sluice_proto::v1;
use sluice_proto::v1::content_client::ContentClient;
use sluice_proto::v1::plan_part::Part;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::Lab;

/// What receivers got.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Payload of all of them together.
    pub bytes: u64,
    /// From the first request for frames to the last byte.
    pub wall: Duration,
}

/// Fetches every frame of the cold plan of `target` over each of `connections` connections, spread over the identities
/// of the lab's hosts. A standing order of each host must name the package, and no identity takes more than
/// [`caps::CONNECTIONS_PER_IDENTITY`] connections, its agent's among them.
///
/// Each frame is asked for from its second byte on: a host that begins a frame again has found it damaged, and the
/// coordinator would check it.
pub fn receive(lab: &Lab, target: Digest, connections: usize) -> Result<Received> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut clients = Vec::with_capacity(connections);
        for host in lab.hosts().iter().cycle().take(connections) {
            clients.push(connect(&lab.address(), host.dir()).await?);
        }
        ensure!(clients.len() == connections, "the lab has no host");
        let first = clients.first_mut().context("no connection was asked for")?;
        let frames = frames(first, target).await?;
        let started = Instant::now();
        let mut receiving = JoinSet::new();
        for client in clients {
            receiving.spawn(receive_all(client, target, frames.clone()));
        }
        let mut bytes = 0;
        while let Some(received) = receiving.join_next().await {
            bytes += received??;
        }
        Ok(Received { bytes, wall: started.elapsed() })
    })
}

async fn connect(address: &str, host: &Path) -> Result<ContentClient<Channel>> {
    let credentials = Credentials::load(&host.join("data/identity/identity.pem"))?;
    let mut dial = Dial::new(address.parse::<Address>()?, tls::client(&credentials)?);
    dial.window_bytes = Some(caps::CONTENT_WINDOW_BYTES);
    Ok(ContentClient::new(dial.connect().await?))
}

/// Asks for the cold plan and returns its frames.
async fn frames(client: &mut ContentClient<Channel>, target: Digest) -> Result<Vec<v1::FrameWanted>> {
    let request = v1::PlanRequest { target: target.as_bytes().to_vec(), ..v1::PlanRequest::default() };
    let mut parts = client.get_plan(request).await?.into_inner();
    let (mut manifest, mut plan) = (Vec::new(), Vec::new());
    while let Some(part) = parts.message().await? {
        match part.part {
            Some(Part::Manifest(bytes)) => manifest.extend_from_slice(&bytes),
            Some(Part::Plan(bytes)) => plan.extend_from_slice(&bytes),
            Some(Part::Header(_)) | None => {}
        }
    }
    let manifest = sluice_common::transfer::decode_manifest(&manifest, &[])?;
    let manifest = Manifest::decode(manifest)?;
    let plan = TransferPlan::decode(&plan, Contents::default(), manifest.contents())?;
    let wanted = |digest: Digest| v1::FrameWanted { digest: digest.as_bytes().to_vec(), offset: 1 };
    Ok(plan.frames.iter().map(|frame| wanted(frame.digest)).collect())
}

async fn receive_all(
    mut client: ContentClient<Channel>,
    target: Digest,
    frames: Vec<v1::FrameWanted>,
) -> Result<u64> {
    let request = v1::FetchRequest {
        target: target.as_bytes().to_vec(),
        base: Vec::new(),
        frames,
        limit_bytes_per_second: 0,
    };
    let mut messages = client.fetch(request).await?.into_inner();
    let mut bytes = 0;
    while let Some(message) = messages.message().await? {
        bytes += message.data.len() as u64;
    }
    Ok(bytes)
}
