//! Content from a coordinator, on a connection of its own, paced on receipt.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use rustls::ClientConfig;
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_proto::transport::client::{Address, ConnectError, Dial};
use sluice_proto::transport::limiter::Limiter;
use sluice_proto::transport::metered::{Meter, Pacing};
use sluice_proto::v1;
use sluice_proto::v1::content_client::ContentClient as Grpc;
use sluice_proto::v1::plan_part::Part;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::answer::Answer;
use super::{
    Begun, ContentClient, ContentError, FrameChunk, FrameStream, FrameWanted, Origin, PlanReply,
    STALL_TIMEOUT, WireCount,
};

/// Window of a limited connection: less in flight than a change of the limit may take to be felt.
const LIMITED_WINDOW_BYTES: u32 = 256 * 1024;

/// Dials the first coordinator that answers, with the identity of the moment.
#[derive(Clone)]
pub(crate) struct Dialer {
    /// The coordinators, in order of preference.
    pub(crate) coordinators: Vec<Address>,
    /// Identity and trust; changes when the certificate is renewed.
    pub(crate) tls: watch::Receiver<Arc<ClientConfig>>,
}

impl Dialer {
    /// Connects to the first coordinator that answers; `configure` sets pacing and window.
    pub(crate) async fn connect(
        &self,
        configure: impl Fn(&mut Dial),
    ) -> Result<(Address, Channel), ConnectError> {
        let mut last = None;
        for address in &self.coordinators {
            let mut dial = Dial::new(address.clone(), self.tls.borrow().clone());
            configure(&mut dial);
            match dial.connect().await {
                Ok(channel) => return Ok((address.clone(), channel)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("a configuration names at least one coordinator"))
    }
}

/// Makes clients of coordinators.
pub(crate) struct RemoteOrigin {
    /// Dials.
    pub(crate) dialer: Dialer,
    /// The limit that all clients share.
    pub(crate) limiter: Limiter,
}

impl Origin for RemoteOrigin {
    type Client = RemoteContent;

    fn open(&self) -> RemoteContent {
        RemoteContent::new(self.dialer.clone(), self.limiter.clone())
    }
}

/// Content from a coordinator. Dials when first asked; the connection ends with this value.
pub(crate) struct RemoteContent {
    dialer: Dialer,
    limiter: Limiter,
    meter: Arc<Meter>,
    grpc: Option<Grpc<Channel>>,
}

impl RemoteContent {
    /// Makes a source; all sources of an agent share `limiter`.
    pub(crate) fn new(dialer: Dialer, limiter: Limiter) -> Self {
        Self { dialer, limiter, meter: Arc::default(), grpc: None }
    }

    async fn grpc(&mut self) -> Result<&mut Grpc<Channel>, ContentError> {
        if self.grpc.is_none() {
            let is_limited = self.limiter.rate().is_some();
            let window = if is_limited { LIMITED_WINDOW_BYTES } else { caps::CONTENT_WINDOW_BYTES };
            let configure = |dial: &mut Dial| {
                dial.meter = self.meter.clone();
                dial.pacing = Pacing::new(vec![self.limiter.clone()]);
                dial.window_bytes = Some(window);
                dial.keepalive_timeout = caps::CONTENT_KEEPALIVE_TIMEOUT;
            };
            let connected = self.dialer.connect(configure).await;
            let (_, channel) = connected.map_err(|error| ContentError::Unreachable(chain(&error)))?;
            self.grpc = Some(Grpc::new(channel).max_decoding_message_size(caps::GRPC_MESSAGE_BYTES_MAX));
        }
        Ok(self.grpc.as_mut().expect("it was just connected"))
    }

    fn limit(&self) -> u64 {
        self.limiter.rate().map_or(0, |rate| rate.bytes_per_second())
    }

    async fn ask_plan(
        &mut self,
        target: Digest,
        bases: Vec<Digest>,
        begun: &mut Begun,
    ) -> Result<PlanReply, ContentError> {
        let (name, len) = begun.read();
        let request = v1::PlanRequest {
            target: target.as_bytes().to_vec(),
            bases: bases.iter().map(|base| base.as_bytes().to_vec()).collect(),
            limit_bytes_per_second: self.limit(),
            begun: name.to_vec(),
            begun_len: len,
        };
        let mut parts = in_time(self.grpc().await?.get_plan(request)).await?.into_inner();
        let header = match next(&mut parts).await? {
            Some(v1::PlanPart { part: Some(Part::Header(header)) }) => header,
            _ => return Err(ContentError::Protocol("a plan begins without a header".into())),
        };
        let mut answer = Answer::begin(header, &bases, begun)?;
        while let Some(v1::PlanPart { part }) = next(&mut parts).await? {
            match part {
                Some(Part::Manifest(bytes)) => answer.take_manifest(&bytes)?,
                Some(Part::Plan(bytes)) => answer.take_plan(&bytes)?,
                Some(Part::Header(_)) | None => {
                    return Err(ContentError::Protocol("a plan has a second header".into()));
                }
            }
        }
        answer.end()
    }

    async fn ask_frames(
        &mut self,
        target: Digest,
        base: Option<Digest>,
        frames: Vec<FrameWanted>,
    ) -> Result<FrameStream, ContentError> {
        let request = v1::FetchRequest {
            target: target.as_bytes().to_vec(),
            base: base.map(|base| base.as_bytes().to_vec()).unwrap_or_default(),
            frames: frames
                .iter()
                .map(|frame| v1::FrameWanted {
                    digest: frame.digest.as_bytes().to_vec(),
                    offset: frame.offset,
                })
                .collect(),
            limit_bytes_per_second: self.limit(),
        };
        let stream = in_time(self.grpc().await?.fetch(request)).await?.into_inner();
        Ok(stream
            .map(|item| match item {
                Ok(v1::FrameData { frame, data }) => Ok(FrameChunk { frame: frame as usize, data }),
                Err(status) => Err(refusal(status)),
            })
            .boxed())
    }
}

impl ContentClient for RemoteContent {
    fn plan<'a>(
        &'a mut self,
        target: Digest,
        bases: Vec<Digest>,
        begun: &'a mut Begun,
    ) -> BoxFuture<'a, Result<PlanReply, ContentError>> {
        Box::pin(self.ask_plan(target, bases, begun))
    }

    fn fetch(
        &mut self,
        target: Digest,
        base: Option<Digest>,
        frames: Vec<FrameWanted>,
    ) -> BoxFuture<'_, Result<FrameStream, ContentError>> {
        Box::pin(self.ask_frames(target, base, frames))
    }

    fn wire(&self) -> WireCount {
        let meter = self.meter.clone();
        Arc::new(move || meter.total())
    }
}

/// Waits for the beginning of an answer. A plan that takes longer to make is under way for whoever asks again.
async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, ContentError> {
    match tokio::time::timeout(STALL_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(refusal),
        Err(_) => Err(ContentError::Unreachable("the coordinator does not answer".into())),
    }
}

async fn next(parts: &mut Streaming<v1::PlanPart>) -> Result<Option<v1::PlanPart>, ContentError> {
    match tokio::time::timeout(STALL_TIMEOUT, parts.message()).await {
        Ok(part) => part.map_err(refusal),
        Err(_) => Err(ContentError::Unreachable("the plan does not come".into())),
    }
}

/// Tells what may be tried for ever from what is refused.
fn refusal(status: Status) -> ContentError {
    match status.code() {
        Code::NotFound
        | Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::AlreadyExists
        | Code::Unimplemented
        | Code::DataLoss => ContentError::Refused(status.message().to_owned()),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable => ContentError::Unreachable(chain(&status)),
    }
}

/// Returns an error with its sources, for a line that people read.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Wrappers often repeat what they wrap.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}
