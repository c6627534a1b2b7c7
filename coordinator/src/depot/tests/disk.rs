//! A disk that fails as it is told, and depots on it.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use rustix::io::Errno;

use super::*;
use crate::depot::objects::space::{Room, Space};
use crate::depot::objects::{Kind, Name, Objects};

/// What a disk does wrong.
#[derive(Debug, Clone, Copy)]
pub(in crate::depot) enum Fault {
    /// An object cannot be read, until it is written anew.
    Read(Name, Errno),
    /// Nor be looked for.
    Look(Name, Errno),
    /// It cannot be read once.
    Blink(Name, Errno),
    /// Packs take no more bytes together than so many.
    Packs(u64),
    /// So many bytes are free of a TiB.
    Room(u64),
}

/// How an object cannot be read.
#[derive(Debug, Clone, Copy)]
struct Failure {
    error: Errno,
    of_looks: bool,
    is_once: bool,
}

#[derive(Debug, Default)]
struct Faults {
    unreadable: HashMap<ObjectPath, Failure>,
    pack_bytes_max: Option<u64>,
    room: Option<Room>,
    looks: usize,
}

/// Objects in a folder on a disk that fails as it is told.
#[derive(Debug, Clone)]
pub(in crate::depot) struct Disk {
    folder: PathBuf,
    faults: Arc<Mutex<Faults>>,
}

impl Disk {
    /// Makes a folder on such a disk; nothing is wrong at first.
    pub(in crate::depot) fn at(folder: &Path) -> Self {
        Objects::open(folder).unwrap();
        Self { folder: folder.to_owned(), faults: Arc::default() }
    }

    /// Returns the objects.
    pub(in crate::depot) fn objects(&self) -> Objects {
        let inner = LocalFileSystem::new_with_prefix(&self.folder).unwrap();
        let disk = self.clone();
        let space = Space::new(move || disk.faults(|faults| faults.room));
        Objects::over(Arc::new(Faulty { inner, disk: self.clone() }), space)
    }

    /// Has something go wrong from now on.
    pub(in crate::depot) fn set(&self, fault: Fault) {
        let fail = |Name(kind, digest): Name, failure| {
            let path = ObjectPath::from_iter([kind.folder(), &digest.to_hex()]);
            self.faults(|faults| faults.unreadable.insert(path, failure));
        };
        match fault {
            Fault::Read(name, error) => fail(name, Failure { error, of_looks: false, is_once: false }),
            Fault::Look(name, error) => fail(name, Failure { error, of_looks: true, is_once: false }),
            Fault::Blink(name, error) => fail(name, Failure { error, of_looks: false, is_once: true }),
            Fault::Room(_) | Fault::Packs(_) => {}
        }
        self.faults(|faults| match fault {
            Fault::Read(..) | Fault::Look(..) | Fault::Blink(..) => {}
            Fault::Room(free_bytes) => faults.room = Some(Room { free_bytes, disk_bytes: 1 << 40 }),
            Fault::Packs(bytes) => faults.pack_bytes_max = Some(bytes),
        });
    }

    fn faults<T>(&self, use_them: impl FnOnce(&mut Faults) -> T) -> T {
        use_them(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns how often objects were looked for.
    pub(super) fn looks(&self) -> usize {
        self.faults(|faults| faults.looks)
    }

    /// Waits until objects were looked for so often.
    pub(super) async fn looked(&self, times: usize) {
        while self.looks() < times {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn pack_bytes(&self) -> u64 {
        let packs = fs::read_dir(self.folder.join("packs")).unwrap();
        packs.map(|pack| pack.unwrap().metadata().unwrap().len()).sum()
    }

    fn failed(&self, path: &ObjectPath, error: Errno) -> object_store::Error {
        let path = self.folder.join(path.as_ref());
        let source = Failed { path, source: io::Error::from_raw_os_error(error.raw_os_error()) };
        object_store::Error::Generic { store: "Faulty", source: Box::new(source) }
    }
}

/// What a folder says, as [`LocalFileSystem`] does.
#[derive(Debug, thiserror::Error)]
#[error("Unable to use file {}: {source}", path.display())]
struct Failed {
    path: PathBuf,
    source: io::Error,
}

#[derive(Debug)]
struct Faulty {
    inner: LocalFileSystem,
    disk: Disk,
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let (max, is_pack) =
            (self.disk.faults(|faults| faults.pack_bytes_max), location.as_ref().starts_with("packs/"));
        let wanted = self.disk.pack_bytes() + payload.content_length() as u64;
        if is_pack && max.is_some_and(|max| wanted > max) {
            return Err(self.disk.failed(location, Errno::NOSPC));
        }
        let put = self.inner.put_opts(location, payload, options).await?;
        self.disk.faults(|faults| faults.unreadable.remove(location));
        Ok(put)
    }

    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> object_store::Result<GetResult> {
        let fault = self.disk.faults(|faults| {
            faults.looks += usize::from(options.head);
            let fault = faults.unreadable.get(location).copied();
            let fault = fault.filter(|fault| fault.of_looks || !options.head);
            if fault.is_some_and(|fault| fault.is_once) {
                faults.unreadable.remove(location);
            }
            fault
        });
        match fault {
            Some(Failure { error, .. }) => Err(self.disk.failed(location, error)),
            None => self.inner.get_opts(location, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &ObjectPath,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<ObjectPath>>,
    ) -> BoxStream<'static, object_store::Result<ObjectPath>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &ObjectPath,
        to: &ObjectPath,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl Bench {
    /// Opens a depot on a disk that fails as it is told. It collects when it is told to.
    pub(super) async fn on_a_disk() -> (Self, Disk) {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::at(&dir.path().join("depot"));
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        let token = CancellationToken::new();
        let depot = Depot::over(store.clone(), disk.objects(), token.clone());
        (Self { dir, store, depot, token }, disk)
    }

    /// Forgets what is in memory, as a restart does.
    pub(super) async fn again_on(self, disk: &Disk) -> Self {
        self.token.cancel();
        self.depot.ended().await;
        let token = CancellationToken::new();
        let depot = Depot::over(self.store.clone(), disk.objects(), token.clone());
        Self { depot, token, ..self }
    }

    /// Returns the objects of a kind.
    pub(super) fn names(&self, kind: Kind) -> Vec<Name> {
        let name = |path: &PathBuf| format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
        self.objects(kind.folder()).iter().map(|path| Name(kind, name(path).parse().unwrap())).collect()
    }
}
