//! Why there is no plan.

use std::io;

use sluice_common::digest::Digest;
use sluice_common::transfer::EncodeError;
use tonic::Status;

use crate::depot::objects::ObjectError;
use crate::depot::packages::LoadError;
use crate::depot::reader::ReadError;
use crate::store;

/// Says why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A package is unknown, or its manifest or index is damaged.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A chunk is damaged or missing.
    #[error(transparent)]
    Read(ReadError),
    /// A content is not what its digest says, though its chunks are.
    #[error("content {0} of the depot is not what its digest says; push its package again")]
    Content(Digest),
    /// Compressing failed.
    #[error("cannot encode the transfer")]
    Encode(#[source] io::Error),
    /// The plan does not name the frame, or no longer.
    #[error("frame {0} is not in this plan, or no longer; ask for the plan again")]
    FrameGone(Digest),
    /// The coordinator stops.
    #[error("the coordinator is stopping; ask again")]
    Stopping,
    /// The object store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl PlanError {
    /// Says whether something at rest is damaged, so that another plan may do.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Load(error) => matches!(error, LoadError::Damaged { .. }),
            Self::Read(error) => error.is_damage(),
            Self::Content(_) => true,
            Self::Encode(_) | Self::FrameGone(_) | Self::Stopping | Self::Object(_) | Self::Store(_) => false,
        }
    }
}

impl From<EncodeError> for PlanError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Io(error) => match ReadError::from(error) {
                ReadError::Io(error) => Self::Encode(error),
                read => Self::Read(read),
            },
            EncodeError::Damaged(content) => Self::Content(content),
        }
    }
}

impl From<&PlanError> for Status {
    fn from(error: &PlanError) -> Self {
        match error {
            PlanError::Load(LoadError::Unknown(_)) | PlanError::FrameGone(_) => {
                Self::not_found(error.to_string())
            }
            PlanError::Load(LoadError::Damaged { .. })
            | PlanError::Read(ReadError::Lacking { .. } | ReadError::Damaged { .. })
            | PlanError::Content(_) => Self::failed_precondition(error.to_string()),
            PlanError::Stopping => Self::unavailable(error.to_string()),
            PlanError::Load(LoadError::Object(error))
            | PlanError::Read(ReadError::Object(error))
            | PlanError::Object(error) => error.into(),
            PlanError::Load(LoadError::Store(_))
            | PlanError::Read(ReadError::Io(_) | ReadError::Store(_))
            | PlanError::Encode(_)
            | PlanError::Store(_) => {
                tracing::error!(error = error as &dyn std::error::Error, "no transfer plan");
                Self::internal("the coordinator's depot failed; see its log")
            }
        }
    }
}
