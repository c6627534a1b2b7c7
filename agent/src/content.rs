//! Where content comes from. Staging asks through [`ContentClient`], so that tests serve frames from memory and a
//! relay or a stick can follow; whatever answers, every byte is checked on receipt.

mod answer;
mod remote;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use sluice_common::caps;
use sluice_common::digest::Digest;

pub(crate) use answer::Begun;
pub(crate) use remote::{Dialer, RemoteOrigin, chain};

/// How to get a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlanReply {
    /// The base that was chosen, one of those offered; nothing: none.
    pub(crate) base: Option<Digest>,
    /// The manifest frame.
    pub(crate) manifest: Vec<u8>,
    /// The encoded plan.
    pub(crate) plan: Vec<u8>,
    /// The package's `sluice.toml`; empty where it has none, or the source does not send it.
    pub(crate) spec: Vec<u8>,
}

/// A frame that is wanted, from a byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameWanted {
    /// The frame.
    pub(crate) digest: Digest,
    /// The first byte that is lacking.
    pub(crate) offset: u64,
}

/// Some bytes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameChunk {
    /// The frame's number in the request.
    pub(crate) frame: usize,
    /// The next bytes of it.
    pub(crate) data: Bytes,
}

/// Says why content did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    /// No source can be reached, or the connection broke: trying again is right, however long it takes.
    #[error("no content source can be reached: {0}")]
    Unreachable(String),
    /// The source refuses; trying again a few times may help.
    #[error("the content source refuses: {0}")]
    Refused(String),
    /// The source answers nonsense.
    #[error("the content source answers what nobody asked: {0}")]
    Protocol(String),
}

/// The frames of one fetch as they arrive.
pub(crate) type FrameStream = BoxStream<'static, Result<FrameChunk, ContentError>>;

/// A source of content.
pub(crate) trait ContentClient: Send {
    /// Asks how to get `target` from one of `bases`, best first. Goes on with what has `begun`, and leaves there what has come
    /// where the connection breaks.
    fn plan<'a>(
        &'a mut self,
        target: Digest,
        bases: Vec<Digest>,
        begun: &'a mut Begun,
    ) -> BoxFuture<'a, Result<PlanReply, ContentError>>;

    /// Asks for frames of the plan from `base` to `target`.
    fn fetch(
        &mut self,
        target: Digest,
        base: Option<Digest>,
        frames: Vec<FrameWanted>,
    ) -> BoxFuture<'_, Result<FrameStream, ContentError>>;

    /// Returns what counts the bytes that its connections carry, both ways.
    fn wire(&self) -> WireCount;
}

/// Counts bytes of content connections.
pub(crate) type WireCount = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Where clients come from: one for each staging, so that its connection ends with it.
pub(crate) trait Origin: Send + Sync + 'static {
    /// The client.
    type Client: ContentClient;

    /// Makes a client.
    fn open(&self) -> Self::Client;
}

/// Silence after which a content stream counts as broken. Longer than the coordinator takes to compute a plan of a large tree.
pub(crate) const STALL_TIMEOUT: Duration = caps::CONTENT_KEEPALIVE_TIMEOUT;
