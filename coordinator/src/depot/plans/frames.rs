//! Trust in frames at rest: each is hashed when it is first sent after a start, and again when a host comes back for
//! one that it had from the first byte on.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use sluice_common::digest::{Digest, Hasher};
use sluice_common::name::HostName;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::PlanError;
use crate::depot::Depot;
use crate::depot::flights::Flights;
use crate::depot::lru::Lru;
use crate::depot::objects::{Kind, Name, ObjectError, Objects};

/// Frames whose soundness is remembered.
const SOUND_MAX: u64 = 4096;
/// Frames that hosts began are remembered, over all hosts.
const BEGUN_MAX: u64 = 4096;
/// Bytes hashed at a time: few enough for the allocator to use their memory again, where a mapping of its own for each costs more
/// than hashing it.
const PIECE_BYTES: u64 = 256 << 10;

type Checked = Result<(), Arc<PlanError>>;

/// What is known of frames since the start.
#[derive(Debug)]
pub(super) struct Frames {
    sound: Mutex<Lru<Digest, ()>>,
    begun: Mutex<Lru<(HostName, Digest), ()>>,
    checking: Flights<Digest, Checked>,
}

impl Frames {
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self {
            sound: Mutex::new(Lru::new(SOUND_MAX)),
            begun: Mutex::new(Lru::new(BEGUN_MAX)),
            checking: Flights::new(tasks),
        }
    }

    /// Returns at once when the frame is known to be sound; else runs `check`, once for all who ask.
    pub(super) async fn ensure<F>(&self, frame: Digest, check: impl FnOnce() -> F) -> Checked
    where
        F: Future<Output = Checked> + Send + 'static,
    {
        if self.sound(|sound| sound.get(&frame)).is_some() {
            return Ok(());
        }
        let checked = self.checking.join(frame, check).await;
        checked.unwrap_or_else(|| Err(Arc::new(PlanError::Stopping)))?;
        self.sound(|sound| sound.insert(frame, (), 1));
        Ok(())
    }

    /// Notes that a request of a host begins a frame; with the second request, the frame is doubted, and it says so.
    pub(super) fn begin(&self, host: &HostName, frame: Digest) -> bool {
        let key = (host.clone(), frame);
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let again = begun.remove(&key).is_some();
        if again {
            self.doubt(&frame);
        } else {
            begun.insert(key, (), 1);
        }
        again
    }

    /// Forgets that a frame was sound.
    pub(super) fn doubt(&self, frame: &Digest) {
        self.sound(|sound| sound.remove(frame));
    }

    fn sound<T>(&self, use_it: impl FnOnce(&mut Lru<Digest, ()>) -> T) -> T {
        use_it(&mut self.sound.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Says whether a frame's object is there and has its digest.
pub(super) async fn is_sound(depot: &Depot, frame: Digest, len: u64) -> Result<bool, PlanError> {
    let (objects, runtime) = (depot.objects.clone(), Handle::current());
    let hashing = tokio::task::spawn_blocking(move || hash(&objects, &runtime, frame, len));
    match hashing.await.expect("hashing does not panic") {
        Ok(found) => Ok(found == frame),
        Err(error) if error.is_damage() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn hash(objects: &Objects, runtime: &Handle, frame: Digest, len: u64) -> Result<Digest, ObjectError> {
    let mut hasher = Hasher::new();
    while hasher.len() < len {
        let range = hasher.len()..len.min(hasher.len() + PIECE_BYTES);
        hasher.update(&runtime.block_on(objects.range(Name(Kind::Frame, frame), range))?);
    }
    Ok(hasher.finish())
}
