//! The `Content` service: plans and frames for hosts, on connections that are paced and counted from the first call on.
//!
//! Invariant: a host is sent only what a standing order of its own names. Frames are read in bounded pieces as the
//! connection takes them, shared by all who fetch the same, so that a slow host costs a few hundred KiB and no task of
//! its own.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::name::HostName;
use sluice_common::units::ByteRate;
use sluice_proto::convert::{self, Invalid};
use sluice_proto::transport::metered::Pacing;
use sluice_proto::v1;
use sluice_proto::v1::content_server::Content;
use sluice_proto::v1::plan_part::Part;
use tonic::{Request, Response, Status};

use super::plans::{Link, ManifestFrame, Plans, ServedPlan};
use super::service::pieces;
use crate::access::Caller;
use crate::fleet::Fleet;
use crate::listener::Peer;
use crate::store;

/// Knows what hosts are ordered to have.
#[async_trait]
pub trait OrderBook: Send + Sync + 'static {
    /// Says whether a standing order of `host` names `package`.
    async fn may_fetch(&self, host: &HostName, package: &Digest) -> Result<bool, store::Error>;
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Clone)]
pub struct ContentService {
    plans: Arc<Plans>,
    orders: Arc<dyn OrderBook>,
    fleet: Fleet,
}

impl ContentService {
    /// Makes the service.
    pub fn new(plans: Arc<Plans>, orders: Arc<dyn OrderBook>, fleet: Fleet) -> Self {
        Self { plans, orders, fleet }
    }

    /// Lets a host have `target`, by its orders, and makes its connection one of content.
    async fn admit<T>(
        &self,
        request: &Request<T>,
        target: Digest,
        agent_limit: u64,
    ) -> Result<HostName, Status> {
        let host = Caller::of(request)?.host()?.clone();
        let limit = ByteRate::from_bytes_per_second(agent_limit);
        self.fleet.admit_content(Peer::of(request)?, &host, limit)?;
        if !self.orders.may_fetch(&host, &target).await? {
            tracing::warn!(host.id = %host, package = %target, "a host asked for a package that it is not ordered to have");
            return Err(Status::permission_denied(format!("no order of this host names package {target}")));
        }
        Ok(host)
    }
}

impl std::fmt::Debug for ContentService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentService").finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl Content for ContentService {
    type GetPlanStream = Messages<v1::PlanPart>;

    async fn get_plan(
        &self,
        request: Request<v1::PlanRequest>,
    ) -> Result<Response<Self::GetPlanStream>, Status> {
        let v1::PlanRequest { target, bases, limit_bytes_per_second, begun, begun_len } = request.get_ref();
        let target = convert::digest("target", target)?;
        let offered: Vec<Digest> =
            bases.iter().map(|base| convert::digest("bases", base)).collect::<Result<_, Invalid>>()?;
        let host = self.admit(&request, target, *limit_bytes_per_second).await?;
        let pacing = Peer::of(&request)?.pacing.clone();
        let link = if pacing.is_unlimited() { Link::Open } else { Link::Limited };
        let plan = plan_for(&self.plans, target, &offered, link).await?;
        let spec = self.plans.depot().spec(target).await;
        tracing::debug!(host.id = %host, package = %target, bytes = plan.wire_bytes(), "plan served");
        let answer = Answer { offset: resumed(&plan, begun, *begun_len), plan, spec: spec.to_vec() };
        Ok(Response::new(Box::pin(plan_parts(&self.plans, host, answer, pacing))))
    }

    type FetchStream = Messages<v1::FrameData>;

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let v1::FetchRequest { target, base, frames: _, limit_bytes_per_second } = request.get_ref();
        let (target, base) = (convert::digest("target", target)?, convert::optional_digest("base", base)?);
        let host = self.admit(&request, target, *limit_bytes_per_second).await?;
        let pacing = Peer::of(&request)?.pacing.clone();
        let frames = request.into_inner().frames;
        Ok(Response::new(Box::pin(fetch(&self.plans, host, base, target, frames, pacing).await?)))
    }
}

/// Returns the plan from the best of the offered bases that suits the link.
pub(super) async fn plan_for(
    plans: &Arc<Plans>,
    target: Digest,
    offered: &[Digest],
    link: Link,
) -> Result<Arc<ServedPlan>, Status> {
    let base = plans.choose_base(target, offered).await.map_err(|error| Status::from(&*error))?;
    plans.get(base, target, link).await.map_err(|error| Status::from(&*error))
}

/// What answers a question for a plan.
struct Answer {
    plan: Arc<ServedPlan>,
    /// The package's `sluice.toml`, which comes with the header.
    spec: Vec<u8>,
    /// Bytes of manifest frame and plan that the host has from an answer that was cut off.
    offset: u64,
}

/// Names the bytes of a plan's answer.
fn answer_name(plan: &ServedPlan) -> Digest {
    Digest::of(&[*plan.manifest_frame.digest.as_bytes(), *plan.plan_digest.as_bytes()].concat())
}

/// Returns from which byte on an answer is to come of which a host has the first `len` bytes, by the name that it had; from the
/// first one where it is another.
fn resumed(plan: &ServedPlan, name: &[u8], len: u64) -> u64 {
    let total = plan.manifest_frame.wire_len + plan.plan_bytes.len() as u64;
    let is_same = !name.is_empty() && len <= total && name == answer_name(plan).as_bytes();
    if is_same { len } else { 0 }
}

/// Cuts an answer into messages: header, manifest, plan.
fn plan_parts(
    plans: &Arc<Plans>,
    host: HostName,
    Answer { plan, spec, offset }: Answer,
    pacing: Pacing,
) -> impl Stream<Item = Result<v1::PlanPart, Status>> + Send + use<> {
    let ManifestFrame { digest, wire_len } = plan.manifest_frame;
    let header = v1::PlanHeader {
        base: plan.base.map(|base| base.as_bytes().to_vec()).unwrap_or_default(),
        manifest_len: wire_len,
        plan_len: plan.plan_bytes.len() as u64,
        spec,
        name: answer_name(&plan).as_bytes().to_vec(),
        offset,
    };
    let rest = plan.plan_bytes.slice(offset.saturating_sub(wire_len) as usize..);
    let bytes = pieces(rest).map(|piece| Ok(Part::Plan(piece.to_vec())));
    let sending = Sending { number: 0, digest, offset: offset.min(wire_len), len: wire_len };
    let queue = (sending.offset < wire_len).then_some(sending).into_iter().collect();
    let manifest = FrameStream::new(plans, plan, host, queue, pacing).messages();
    let manifest = manifest.map_ok(|message| Part::Manifest(message.data.to_vec()));
    let parts = stream::iter([Ok(Part::Header(header))]).chain(manifest).chain(stream::iter(bytes));
    parts.map_ok(|part| v1::PlanPart { part: Some(part) })
}

/// Returns the messages of the frames wanted. Frames must belong to the plan from `base` to `target`.
pub(super) async fn fetch(
    plans: &Arc<Plans>,
    host: HostName,
    base: Option<Digest>,
    target: Digest,
    wanted: Vec<v1::FrameWanted>,
    pacing: Pacing,
) -> Result<impl Stream<Item = Result<v1::FrameData, Status>> + Send + use<>, Status> {
    let digests: Vec<Digest> = wanted
        .iter()
        .map(|frame| convert::digest("frames.digest", &frame.digest))
        .collect::<Result<_, Invalid>>()?;
    let plan = plans.holding(base, target, &digests).await.map_err(|error| Status::from(&*error))?;
    let mut queue = VecDeque::with_capacity(wanted.len());
    for (number, (digest, v1::FrameWanted { offset, .. })) in digests.into_iter().zip(wanted).enumerate() {
        let len = plan.frame_len(&digest).expect("the plan holds what is wanted");
        if offset > len {
            let reason = format!("frame {digest} has {len} bytes, {offset} is beyond its end");
            return Err(Invalid::new("frames.offset", reason).into());
        }
        queue.push_back(Sending { number: number as u32, digest, offset, len });
    }
    Ok(FrameStream::new(plans, plan, host, queue, pacing).messages())
}

/// A frame on its way to a host.
#[derive(Debug, Clone, Copy)]
struct Sending {
    number: u32,
    digest: Digest,
    offset: u64,
    len: u64,
}

/// Frames that a host wants, read as they are sent.
struct FrameStream {
    plans: Arc<Plans>,
    plan: Arc<ServedPlan>,
    host: HostName,
    queue: VecDeque<Sending>,
    open: Option<Sending>,
    /// Frames that were begun. A host may want one frame several times at once: only another request says that it did not fit.
    begun: HashSet<Digest>,
    /// Read and not yet sent, of the open frame.
    read: Bytes,
    pacing: Pacing,
}

impl FrameStream {
    fn new(
        plans: &Arc<Plans>,
        plan: Arc<ServedPlan>,
        host: HostName,
        queue: VecDeque<Sending>,
        pacing: Pacing,
    ) -> Self {
        let (plans, begun) = (plans.clone(), HashSet::new());
        Self { plans, plan, host, queue, open: None, begun, read: Bytes::new(), pacing }
    }

    fn messages(self) -> impl Stream<Item = Result<v1::FrameData, Status>> + Send {
        stream::try_unfold(
            self,
            |mut frames| async move { Ok(frames.next().await?.map(|data| (data, frames))) },
        )
    }

    async fn next(&mut self) -> Result<Option<v1::FrameData>, Status> {
        loop {
            let Some(sending) = self.open else {
                let Some(next) = self.queue.pop_front() else { return Ok(None) };
                self.open(next).await?;
                continue;
            };
            if self.read.is_empty() && sending.offset == sending.len {
                self.open = None;
                continue;
            }
            if self.read.is_empty() {
                self.read = self.read().await?;
            }
            let frame = self.open.as_ref().map_or(0, |sending| sending.number);
            let data = self.read.split_to(self.read.len().min(self.message_bytes()));
            return Ok(Some(v1::FrameData { frame, data }));
        }
    }

    /// Opens a frame: sound, or made so, before its first byte is sent.
    async fn open(&mut self, sending: Sending) -> Result<(), Status> {
        if sending.offset == 0 && self.begun.insert(sending.digest) {
            self.plans.begin_frame(&self.host, sending.digest);
        }
        let sound = self.plans.ensure_frame(&self.plan, sending.digest, sending.len).await;
        sound.map_err(|error| Status::from(&*error))?;
        self.open = Some(sending);
        Ok(())
    }

    /// Returns the size of the next message. A limited connection takes small ones: at 64 kbit/s a large one would
    /// keep the answer to a keepalive waiting for too long.
    fn message_bytes(&self) -> usize {
        if self.pacing.is_unlimited() {
            caps::CONTENT_MESSAGE_BYTES_UNLIMITED
        } else {
            caps::CONTENT_MESSAGE_BYTES
        }
    }

    /// Reads on in the open frame.
    async fn read(&mut self) -> Result<Bytes, Status> {
        let Some(Sending { digest: frame, offset, len, .. }) = self.open else { return Ok(Bytes::new()) };
        let read = self.plans.depot().hot.read(frame, len, offset).await;
        match read.ok_or_else(|| Status::unavailable("the coordinator is stopping"))? {
            Ok(bytes) => {
                self.open.iter_mut().for_each(|sending| sending.offset += bytes.len() as u64);
                Ok(bytes)
            }
            Err(error) => match &*error {
                error if error.is_damage() => {
                    self.plans.doubt_frame(&frame);
                    Err(Status::unavailable(format!("frame {frame} was damaged in the depot; ask again")))
                }
                error => Err(Status::from(error)),
            },
        }
    }
}
