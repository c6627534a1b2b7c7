//! Why an object could not be read or written: damage at rest, which writing it anew heals, told from all else.

use std::io;
use std::iter;

use rustix::io::Errno;

/// Says why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is no such object.
    #[error("object {name} is missing from the depot")]
    Missing {
        /// The object.
        name: String,
    },
    /// The object ends before the bytes that were asked for.
    #[error("object {name} of the depot is cut short")]
    Short {
        /// The object.
        name: String,
    },
    /// The disk does not give back what was written.
    #[error("the disk cannot read object {name} of the depot")]
    Unreadable {
        /// The object.
        name: String,
        /// What failed.
        source: object_store::Error,
    },
    /// The disk has no room left, or none but what is kept free.
    #[error(
        "the coordinator's disk is full; run: sluice depot collect --unreleased-after 1h, or enlarge the disk"
    )]
    Full {
        /// The object.
        name: String,
    },
    /// The store failed.
    #[error("cannot reach object {name} in the depot")]
    Store {
        /// The object.
        name: String,
        /// What failed.
        source: object_store::Error,
    },
}

impl ObjectError {
    /// Makes the error of a read.
    pub(super) fn read(name: &impl ToString, error: object_store::Error) -> Self {
        let is_unreadable = is_caused_by(&error, is_bad_disk);
        match Self::new(name, error) {
            Self::Store { name, source } if is_unreadable => {
                // Whoever reads takes it as damage, of which no more is said than that.
                tracing::error!(
                    object = name,
                    error = &source as &dyn std::error::Error,
                    "the disk cannot read an object"
                );
                Self::Unreadable { name, source }
            }
            error => error,
        }
    }

    /// Makes the error of a write.
    pub(super) fn written(name: &impl ToString, error: object_store::Error) -> Self {
        match is_caused_by(&error, is_full_disk) {
            true => Self::Full { name: name.to_string() },
            false => Self::new(name, error),
        }
    }

    /// Makes the error of anything else.
    pub(super) fn new(name: &impl ToString, error: object_store::Error) -> Self {
        let name = name.to_string();
        match error {
            object_store::Error::NotFound { .. } => Self::Missing { name },
            source => Self::Store { name, source },
        }
    }

    /// Says whether the object is lost or damaged at rest: written anew, it is whole.
    pub(in crate::depot) fn is_damage(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Short { .. } | Self::Unreadable { .. } => true,
            Self::Full { .. } | Self::Store { .. } => false,
        }
    }
}

/// Says whether an error has such a cause.
fn is_caused_by(error: &object_store::Error, is_such: impl Fn(&io::Error) -> bool) -> bool {
    let first: &(dyn std::error::Error + 'static) = error;
    let mut causes = iter::successors(Some(first), |error| error.source());
    causes.any(|cause| cause.downcast_ref::<io::Error>().is_some_and(&is_such))
}

/// Says whether a disk, or a file system that checks what it reads, has lost bytes.
fn is_bad_disk(error: &io::Error) -> bool {
    let causes = [Errno::IO, Errno::BADMSG, Errno::UCLEAN].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| causes.contains(&code))
}

fn is_full_disk(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<ObjectError> for tonic::Status {
    fn from(error: ObjectError) -> Self {
        Self::from(&error)
    }
}

impl From<&ObjectError> for tonic::Status {
    fn from(error: &ObjectError) -> Self {
        // Handled here: the caller learns that it is not their fault, the log learns the rest.
        tracing::error!(error = error as &dyn std::error::Error, "depot failed");
        match error {
            ObjectError::Full { .. } => Self::resource_exhausted(error.to_string()),
            ObjectError::Missing { .. }
            | ObjectError::Short { .. }
            | ObjectError::Unreadable { .. }
            | ObjectError::Store { .. } => Self::internal("the coordinator's depot failed; see its log"),
        }
    }
}
