//! Why a push ended without a commit.

use std::io;

use sluice_common::codec::DecodeError;
use sluice_common::digest::Digest;
use sluice_common::manifest::ManifestError;
use sluice_proto::convert::Invalid;
use sluice_proto::v1::push_request::Message as Request;
use tonic::Status;

use crate::depot::objects::ObjectError;
use crate::depot::packages::IndexError;
use crate::depot::packs::{FrameError, StorePackError};
use crate::depot::reader::ReadError;
use crate::store;

/// Says why a push ended without a commit.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The stream ended or broke; the same push goes on where it was.
    #[error("the push was broken off before its commit")]
    Broken,
    /// Nothing came for a while.
    #[error("the push was silent for too long; push again, it goes on where it was")]
    Silent,
    /// The coordinator stops.
    #[error("the coordinator is stopping; push again, it goes on where it was")]
    Stopping,
    /// A request without content.
    #[error("a push request is empty")]
    Empty,
    /// A message out of its turn.
    #[error("a push request brought {found} where {expected} was due")]
    Unexpected {
        /// What was due.
        expected: &'static str,
        /// What came.
        found: &'static str,
    },
    /// A field does not parse.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The announced or received bytes are over a limit.
    #[error("the compressed {what} has {bytes} bytes, more than {max}")]
    TooLarge {
        /// Manifest or index.
        what: &'static str,
        /// How many were announced or came.
        bytes: u64,
        /// How many may.
        max: u64,
    },
    /// The manifest is no zstd of allowed size.
    #[error("the manifest cannot be decompressed")]
    ManifestZstd(#[source] io::Error),
    /// The manifest is not the package's.
    #[error("the manifest is that of {found}, not of package {package}")]
    ManifestDigest {
        /// What was announced.
        package: Digest,
        /// What came.
        found: Digest,
    },
    /// The manifest breaks a rule.
    #[error("the manifest is refused")]
    Manifest(#[from] ManifestError),
    /// The index is none, or does not fit the manifest.
    #[error("the package index is refused")]
    Index(#[source] IndexError),
    /// The index names impossible chunks.
    #[error("the package index is refused")]
    IndexRule(#[source] DecodeError),
    /// A chunk was sent that was not asked for, or twice.
    #[error("chunk number {0} was sent, but not asked for")]
    NotAsked(u32),
    /// An uploaded frame is refused.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The commit came too early.
    #[error("{0} chunks are still missing; push again, only they are sent")]
    Incomplete(u64),
    /// The chunks of a content, named by its first path, do not make it up.
    #[error(
        "the chunks of {0} do not make it up: it changed while it was packed; \
         let nothing write to the directory meanwhile, then run the same command again"
    )]
    Content(String),
    /// A chunk that was here could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The object store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

impl PushError {
    /// Makes an error about a message out of its turn.
    pub(super) fn unexpected(expected: &'static str, found: &Request) -> Self {
        let found = match found {
            Request::Begin(_) => "begin",
            Request::Description(_) => "description",
            Request::Manifest(_) => "manifest",
            Request::Index(_) => "index",
            Request::Chunks(_) => "chunks",
            Request::Commit(_) => "commit",
        };
        Self::Unexpected { expected, found }
    }
}

impl From<StorePackError> for PushError {
    fn from(error: StorePackError) -> Self {
        match error {
            StorePackError::Object(error) => Self::Object(error),
            StorePackError::Store(error) => Self::Store(error),
        }
    }
}

impl From<PushError> for Status {
    fn from(error: PushError) -> Self {
        let text = chain(&error);
        match error {
            PushError::Broken => Self::cancelled(text),
            PushError::Silent | PushError::Stopping => Self::unavailable(text),
            PushError::Invalid(invalid) => invalid.into(),
            PushError::Empty
            | PushError::Unexpected { .. }
            | PushError::TooLarge { .. }
            | PushError::ManifestZstd(_)
            | PushError::ManifestDigest { .. }
            | PushError::Manifest(_)
            | PushError::Index(_)
            | PushError::IndexRule(_)
            | PushError::NotAsked(_)
            | PushError::Frame(_)
            | PushError::Content(_) => Self::invalid_argument(text),
            // The same push again asks for just what is missing.
            PushError::Incomplete(_) => Self::aborted(text),
            PushError::Read(error) if error.is_damage() => Self::aborted(text),
            PushError::Read(error) => error.into(),
            PushError::Store(error) => error.into(),
            PushError::Object(error) => error.into(),
        }
    }
}

/// Joins an error with its sources: a status carries one text.
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |source| source.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
