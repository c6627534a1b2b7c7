//! The depot's objects: immutable bytes under a kind and a digest, in a folder (S3 when that is outgrown).
//!
//! Invariant: an object is whole and durable before [`Objects::put`] returns, so that whatever names it in the
//! database may be committed afterwards. What is read back is *not* trusted: readers verify.

mod error;
pub(super) mod space;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fs_err as fs;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use sluice_common::digest::Digest;

pub(super) use self::error::ObjectError;
use self::space::{Reserve, Space};
use super::sweep::{Sweep, Traffic};

/// How long is waited before what the disk could not read is read once more.
const RETRIES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// What an object holds; each kind is a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Frames of chunks as they were uploaded, one after the other; named by the digest of all of it.
    Pack,
    /// A compressed manifest; named by its package.
    Manifest,
    /// A compressed package index; named by its package.
    Index,
    /// Compressed bytes that travel to hosts; named by their own digest.
    Frame,
    /// An encoded transfer plan; named by its own digest.
    Plan,
}

impl Kind {
    /// Every kind.
    pub(super) const ALL: [Self; 5] = [Self::Pack, Self::Manifest, Self::Index, Self::Frame, Self::Plan];

    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Pack => "packs",
            Self::Manifest => "manifests",
            Self::Index => "indexes",
            Self::Frame => "frames",
            Self::Plan => "plans",
        }
    }
}

/// Names an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Name(pub(super) Kind, pub(super) Digest);

impl Name {
    fn path(&self) -> Path {
        Path::from_iter([self.0.folder(), &self.1.to_hex()])
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.folder(), self.1.to_hex())
    }
}

/// An object that exists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Its name within its kind.
    pub(super) digest: Digest,
    /// How large it is.
    pub(super) bytes: u64,
    /// When it was written.
    pub(super) modified: Timestamp,
}

/// The objects. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    space: Space,
    traffic: Traffic,
}

impl Objects {
    /// Opens a folder, made where it is missing; removes what interrupted writes left behind.
    pub(super) fn open(folder: &FsPath) -> io::Result<Self> {
        for kind in Kind::ALL {
            let folder = folder.join(kind.folder());
            fs::create_dir_all(&folder)?;
            remove_unfinished(&folder)?;
        }
        let store = LocalFileSystem::new_with_prefix(folder).map_err(io::Error::other)?.with_fsync(true);
        Ok(Self::over(Arc::new(store), Space::of(folder)))
    }

    /// Takes any store, and whatever measures the room on its disk. Its writes must be durable when they return.
    pub(super) fn over(store: Arc<dyn ObjectStore>, space: Space) -> Self {
        Self { store, space, traffic: Traffic::new() }
    }

    /// Writes an object, unless it would take what is kept free; the same name again replaces it by the same bytes.
    pub(super) async fn put(&self, name: Name, bytes: impl Into<PutPayload>) -> Result<(), ObjectError> {
        self.put_from(Reserve::Kept, name, bytes).await
    }

    /// Writes an object, with or without the room that is kept free.
    pub(super) async fn put_from(
        &self,
        reserve: Reserve,
        name: Name,
        bytes: impl Into<PutPayload>,
    ) -> Result<(), ObjectError> {
        let bytes: PutPayload = bytes.into();
        if reserve == Reserve::Kept && !self.has_room(bytes.content_length() as u64).await {
            return Err(ObjectError::Full { name: name.to_string() });
        }
        let _writing = self.traffic.write(name).await;
        match self.store.put(&name.path(), bytes).await {
            Ok(_) => Ok(()),
            Err(error) => Err(ObjectError::written(&name, error)),
        }
    }

    /// Says whether so many bytes may be written without what is kept free.
    pub(super) async fn has_room(&self, bytes: u64) -> bool {
        self.space.has(bytes).await
    }

    /// Says whether an object is there. One of which the disk cannot tell is: whoever reads it finds out what is left of it.
    pub(super) async fn has(&self, name: Name) -> Result<bool, ObjectError> {
        match self.len(name).await {
            Ok(_) | Err(ObjectError::Unreadable { .. }) => Ok(true),
            Err(ObjectError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn len(&self, name: Name) -> Result<u64, ObjectError> {
        let meta = self.store.head(&name.path()).await;
        meta.map(|meta| meta.size).map_err(|error| ObjectError::read(&name, error))
    }

    /// Reads an object whole.
    pub(super) async fn get(&self, name: Name) -> Result<Bytes, ObjectError> {
        insist(|| self.get_once(name)).await
    }

    async fn get_once(&self, name: Name) -> Result<Bytes, ObjectError> {
        let error = |error| ObjectError::read(&name, error);
        self.store.get(&name.path()).await.map_err(error)?.bytes().await.map_err(error)
    }

    /// Reads exactly these bytes of an object.
    pub(super) async fn range(&self, name: Name, range: Range<u64>) -> Result<Bytes, ObjectError> {
        insist(|| self.range_once(name, range.clone())).await
    }

    async fn range_once(&self, name: Name, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let wanted = range.end.saturating_sub(range.start);
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let end = range.end;
        match self.store.get_range(&name.path(), range).await {
            Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            Ok(_) => Err(ObjectError::Short { name: name.to_string() }),
            Err(error) => match ObjectError::read(&name, error) {
                // A range that begins beyond the end is reported in the folder's own words, as much else is.
                ObjectError::Store { .. } if self.len(name).await.is_ok_and(|len| len < end) => {
                    Err(ObjectError::Short { name: name.to_string() })
                }
                error => Err(error),
            },
        }
    }

    /// Begins to remove objects by what a listing says; the caller sees to it that nobody else does.
    pub(super) fn sweep(&self) -> Sweep {
        self.traffic.sweep()
    }

    /// Removes an object unless it was written since the sweep began; says whether. One that is missing is removed
    /// already.
    pub(super) async fn remove(&self, sweep: &Sweep, name: Name) -> Result<bool, ObjectError> {
        let Some(_removing) = sweep.remove(name) else { return Ok(false) };
        self.delete(name).await.map(|()| true)
    }

    /// Removes an object; one that is missing is removed already.
    pub(super) async fn delete(&self, name: Name) -> Result<(), ObjectError> {
        match self.store.delete(&name.path()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(ObjectError::new(&name, error)),
        }
    }

    /// Lists the objects of a kind; foreign names are passed over.
    pub(super) fn list(&self, kind: Kind) -> BoxStream<'static, Result<Found, ObjectError>> {
        let listed = self.store.list(Some(&Path::from(kind.folder())));
        let found = listed.map_err(move |error| ObjectError::new(&kind.folder(), error));
        Box::pin(found.try_filter_map(|meta| async move {
            let digest = meta.location.filename().and_then(|name| format!("sha256:{name}").parse().ok());
            let (second, nanos) =
                (meta.last_modified.timestamp(), meta.last_modified.timestamp_subsec_nanos());
            let modified = Timestamp::new(second, nanos as i32).ok();
            Ok(digest.zip(modified).map(|(digest, modified)| Found { digest, bytes: meta.size, modified }))
        }))
    }
}

/// Reads once more what the disk could not read, and again: whoever learns that it cannot forgets what lies there, and a path or a
/// mount that comes back has lost nothing.
async fn insist<T, F>(read: impl Fn() -> F) -> Result<T, ObjectError>
where
    F: Future<Output = Result<T, ObjectError>>,
{
    for pause in RETRIES {
        match read().await {
            Err(ObjectError::Unreadable { .. }) => tokio::time::sleep(pause).await,
            read => return read,
        }
    }
    read().await
}

/// Removes staging files (`NAME#NUMBER`), which listing passes over.
fn remove_unfinished(folder: &FsPath) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains('#') {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::depot::tests::disk::{Disk, Fault};

    #[tokio::test]
    async fn what_ends_too_early_is_told_from_what_cannot_be_opened() {
        let dir = tempfile::tempdir().unwrap();
        // The path stands in the errors, whose words tell nothing.
        let disk = Disk::at(&dir.path().join("orange"));
        let name = Name(Kind::Pack, Digest::of(b"pack"));
        disk.objects().put(name, &b"0123456789"[..]).await.unwrap();
        let read = async |range| disk.objects().range(name, range).await;
        assert_eq!(read(2..10).await.unwrap(), &b"23456789"[..]);
        for range in [5..11, 10..11, 20..30] {
            assert!(matches!(read(range.clone()).await, Err(ObjectError::Short { .. })), "{range:?}");
        }
        disk.set(Fault::Read(name, Errno::MFILE));
        let error = read(2..10).await.unwrap_err();
        assert!(matches!(error, ObjectError::Store { .. }) && !error.is_damage(), "{error:?}");
        disk.set(Fault::Read(name, Errno::IO));
        let error = read(2..10).await.unwrap_err();
        assert!(matches!(error, ObjectError::Unreadable { .. }) && error.is_damage(), "{error:?}");
        disk.objects().put(name, &b"0123456789"[..]).await.unwrap();
        read(2..10).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_disk_could_not_read_is_read_again_and_not_taken_for_gone() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::at(dir.path());
        let name = Name(Kind::Pack, Digest::of(b"pack"));
        disk.objects().put(name, &b"0123456789"[..]).await.unwrap();
        disk.set(Fault::Blink(name, Errno::IO));
        assert_eq!(disk.objects().range(name, 2..10).await.unwrap(), &b"23456789"[..]);
        disk.set(Fault::Blink(name, Errno::IO));
        assert_eq!(disk.objects().get(name).await.unwrap(), &b"0123456789"[..]);
        disk.set(Fault::Look(name, Errno::IO));
        assert!(disk.objects().has(name).await.unwrap());
        assert!(!disk.objects().has(Name(Kind::Pack, Digest::of(b"other"))).await.unwrap());
    }
}
