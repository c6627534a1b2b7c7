//! Disks that are full, bad or old: nothing is lost that is still there, and a push heals the rest.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
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
use sluice_common::transfer::Effort;

use super::improver::improver;
use super::*;
use crate::depot::chunks;
use crate::depot::collect::Blocker;
use crate::depot::objects::space::{Room, Space};
use crate::depot::objects::{Kind, Name, Objects};
use crate::depot::plans::queue::Lane;
use crate::depot::plans::{Link, Plans, Policy};
use crate::depot::push::PushError;

/// What a disk does wrong.
#[derive(Debug, Clone, Copy)]
pub(in crate::depot) enum Fault {
    /// An object cannot be read, until it is written anew.
    Read(Name, Errno),
    /// Packs take no more bytes together than so many.
    Packs(u64),
    /// So many bytes are free of a TiB.
    Room(u64),
}

#[derive(Debug, Default)]
struct Faults {
    unreadable: HashMap<ObjectPath, Errno>,
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
        self.faults(|faults| match fault {
            Fault::Read(Name(kind, digest), error) => {
                let path = ObjectPath::from_iter([kind.folder(), &digest.to_hex()]);
                faults.unreadable.insert(path, error);
            }
            Fault::Room(free_bytes) => faults.room = Some(Room { free_bytes, disk_bytes: 1 << 40 }),
            Fault::Packs(bytes) => faults.pack_bytes_max = Some(bytes),
        });
    }

    fn faults<T>(&self, use_them: impl FnOnce(&mut Faults) -> T) -> T {
        use_them(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns how often objects were looked for.
    fn looks(&self) -> usize {
        self.faults(|faults| faults.looks)
    }

    /// Waits until objects were looked for so often.
    async fn looked(&self, times: usize) {
        while self.looks() < times {
            tokio::task::yield_now().await;
        }
    }

    fn pack_bytes(&self) -> u64 {
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
            faults.unreadable.get(location).copied()
        });
        match fault.filter(|_| !options.head) {
            Some(error) => Err(self.disk.failed(location, error)),
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
    async fn on_a_disk() -> (Self, Disk) {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::at(&dir.path().join("depot"));
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        let token = CancellationToken::new();
        let depot = Depot::over(store.clone(), disk.objects(), token.clone());
        (Self { dir, store, depot, token }, disk)
    }

    /// Forgets what is in memory, as a restart does.
    async fn again_on(self, disk: &Disk) -> Self {
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

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_cannot_read_comes_again_with_the_next_push() {
    for (kind, error) in
        [(Kind::Pack, Errno::IO), (Kind::Manifest, Errno::BADMSG), (Kind::Index, Errno::UCLEAN)]
    {
        let (bench, disk) = Bench::on_a_disk().await;
        let shop = shop(1);
        bench.push(&shop).await.unwrap();
        bench.names(kind).into_iter().for_each(|name| disk.set(Fault::Read(name, error)));
        let mut bench = bench.again_on(&disk).await;
        let collected = bench.depot.collect(Ages::default(), Mode::Remove, Actor::console()).await.unwrap();
        assert_eq!(collected.blockers.is_empty(), kind == Kind::Pack, "{collected:?}");
        // A frame after the other is found out, as when bytes of it were flipped.
        let mut heals = 0;
        while shop.read_back(&bench).await.is_err() {
            let pushed = bench.push(&shop).await;
            assert!(pushed.is_ok() || is_aborted(&pushed), "{kind:?}: {pushed:?}");
            bench = bench.again_on(&disk).await;
            heals += 1;
            assert!(heals < 20, "{kind:?}");
        }
        assert!(heals > 0, "{kind:?}");
        let collected = bench.depot.collect(Ages::default(), Mode::Remove, Actor::console()).await.unwrap();
        assert!(collected.blockers.is_empty(), "{collected:?}");
    }
}

fn is_aborted(pushed: &Result<Pushed, Status>) -> bool {
    pushed.as_ref().is_err_and(|status| status.code() == tonic::Code::Aborted)
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_and_frames_that_the_disk_cannot_read_are_made_anew() {
    for kind in [Kind::Frame, Kind::Plan] {
        let (bench, disk) = Bench::on_a_disk().await;
        let shop = shop(1);
        bench.push(&shop).await.unwrap();
        let plans = Plans::new(bench.depot.clone(), Effort::Quick);
        let plan = plans.get(None, shop.digest, Link::Open).await.unwrap();
        bench.names(kind).into_iter().for_each(|name| disk.set(Fault::Read(name, Errno::IO)));
        let bench = bench.again_on(&disk).await;
        let plans = Plans::new(bench.depot.clone(), Effort::Quick);
        let healed = plans.get(None, shop.digest, Link::Open).await.unwrap();
        assert_eq!((healed.plan_bytes.clone(), plans.encoded()), (plan.plan_bytes.clone(), 1), "{kind:?}");
        super::plans::install(&plans, &healed, None, &shop).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_push_has_healed_is_not_forgotten() {
    let (bench, disk) = Bench::on_a_disk().await;
    bench.push(&shop(1)).await.unwrap();
    let (store, objects, indexed) = (&bench.store, &bench.depot.objects, bench.count("depot_chunks").await);
    let [Name(_, pack)] = bench.names(Kind::Pack)[..] else { panic!("expected one pack") };
    let forget = async || chunks::forget_lost::<PushError>(store, objects, pack).await.unwrap();
    assert_eq!((forget().await, bench.count("depot_chunks").await), (0, indexed), "it is there");

    fs::remove_file(&bench.objects("packs")[0]).unwrap();
    let before = chunks::forgettings(store.read()).await.unwrap();
    // The writer is held while the object is looked for: then the pack is stored again.
    let mut tx = store.begin(Actor::coordinator()).await.unwrap();
    let (mut forgetting, looks) = (pin!(forget()), disk.looks());
    tokio::select! {
        _ = &mut forgetting => panic!("it waits for the writer"),
        () = disk.looked(looks + 1) => {}
    }
    sqlx::query("UPDATE depot_packs SET stored_ms = stored_ms + 1").execute(&mut *tx).await.unwrap();
    tx.commit_observation().await.unwrap();
    assert_eq!((forgetting.await, bench.count("depot_chunks").await), (0, indexed), "it came again");
    assert_eq!(chunks::forgettings(store.read()).await.unwrap(), before);

    assert_eq!((forget().await as i64, bench.count("depot_chunks").await), (indexed, 0));
    assert_eq!(chunks::forgettings(store.read()).await.unwrap(), before + 1, "pushes look again");
}

/// Everything that nothing uses goes, however young.
const AT_ONCE: Ages = Ages { unreleased: Duration::ZERO, orphan: Duration::ZERO };

/// A depot with a pack that nothing uses, one that is hardly used, by what is returned, and a frame that nothing names.
async fn with_unused_packs() -> (Bench, Disk, Parcel) {
    let (bench, disk) = Bench::on_a_disk().await;
    let shared = ("shared", noise(1, 100_000));
    let [unused, sparse, kept] = [
        Parcel::new(&[("own", noise(10, 900_000))]),
        Parcel::new(&[shared.clone(), ("own", noise(20, 900_000))]),
        Parcel::new(&[shared]),
    ];
    for parcel in [&unused, &sparse, &kept] {
        bench.push(parcel).await.unwrap();
    }
    assert!(bench.release(&kept).await);
    assert_eq!(bench.objects("packs").len(), 2);
    fs::write(bench.dir.path().join("depot/frames").join(Digest::of(b"frame").to_hex()), b"frame").unwrap();
    (bench, disk, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_cannot_write_removes_what_nothing_uses_all_the_same() {
    let (bench, disk, kept) = with_unused_packs().await;
    disk.set(Fault::Packs(0));
    bench.depot.collect(AT_ONCE, Mode::Remove, Actor::console()).await.unwrap_err();
    assert_eq!((bench.objects("packs").len(), bench.objects("frames").len()), (1, 0));
    kept.read_back(&bench).await.unwrap();
    disk.set(Fault::Packs(2_000_000));
    let collection = bench.depot.collect(AT_ONCE, Mode::Remove, Actor::console()).await.unwrap();
    assert_eq!((collection.sparse_packs, bench.objects("packs").len()), (1, 1));
    let bench = bench.again_on(&disk).await;
    kept.read_back(&bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_collected_in_the_room_of_what_nothing_uses() {
    let (bench, disk, kept) = with_unused_packs().await;
    disk.set(Fault::Packs(disk.pack_bytes()));
    let collection = bench.depot.collect(AT_ONCE, Mode::Remove, Actor::console()).await.unwrap();
    assert_eq!((collection.sparse_packs, bench.objects("packs").len()), (1, 1));
    assert!(collection.freed_bytes() > 1_700_000, "{collection:?}");
    let bench = bench.again_on(&disk).await;
    kept.read_back(&bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_database_costs_nothing_that_the_newer_one_names() {
    let bench = Bench::new().await;
    let (old, new, gone) = (shop(1), shop(2), Parcel::new(&[("gone", noise(9, 200_000))]));
    for parcel in [&gone, &old] {
        bench.push(parcel).await.unwrap();
    }
    assert!(bench.release(&old).await);
    let backup = |to: &str| {
        let sql = format!("VACUUM INTO '{}'", bench.dir.path().join(to).display());
        let store = bench.store.clone();
        async move {
            let mut connection = store.read().acquire().await.unwrap();
            sqlx::raw_sql("PRAGMA query_only = OFF").execute(&mut *connection).await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await.unwrap();
        }
    };
    backup("older.db").await;
    bench.push(&new).await.unwrap();
    assert!(bench.release(&new).await);
    assert!(bench.depot.collect(AT_ONCE, Mode::Remove, Actor::console()).await.unwrap().objects() > 0);
    backup("newer.db").await;
    let bring_back = async |bench: Bench, from: &str| {
        bench.token.cancel();
        bench.depot.ended().await;
        bench.store.close().await;
        for name in ["sluice.db-wal", "sluice.db-shm"] {
            let _ = fs::remove_file(bench.dir.path().join(name));
        }
        fs::copy(bench.dir.path().join(from), bench.dir.path().join("sluice.db")).unwrap();
        Bench::open(bench.dir).await
    };
    let mut bench = bring_back(bench, "older.db").await;
    for mode in [Mode::DryRun, Mode::Remove] {
        let collection = bench.depot.collect(AT_ONCE, mode, Actor::console()).await.unwrap();
        assert_eq!(collection.blockers, [Blocker::MissingPacks(1)], "{mode:?}");
    }
    bench = bring_back(bench, "newer.db").await;
    old.read_back(&bench).await.unwrap();
    new.read_back(&bench).await.unwrap();

    // Without the newer one, what is pushed again ends it.
    bench = bring_back(bench, "older.db").await;
    bench.push(&gone).await.unwrap();
    let collection = bench.depot.collect(AT_ONCE, Mode::Remove, Actor::console()).await.unwrap();
    assert!(collection.blockers.is_empty() && collection.objects() > 0, "{collection:?}");
    old.read_back(&bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_a_full_disk_says_what_to_do() {
    for fault in [Fault::Packs(0), Fault::Room(256 << 20)] {
        let (bench, disk) = Bench::on_a_disk().await;
        disk.set(fault);
        let refused = bench.push(&shop(1)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{fault:?}: {refused}");
        assert!(refused.message().contains("disk is full; run: sluice depot collect"), "{refused}");
        disk.set(Fault::Packs(u64::MAX));
        disk.set(Fault::Room(1 << 40));
        bench.push(&shop(1)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_may_take_the_room_that_is_kept_free() {
    let (bench, disk, kept) = with_unused_packs().await;
    disk.set(Fault::Room(0));
    let collection = bench.depot.collect(AT_ONCE, Mode::Remove, Actor::console()).await.unwrap();
    assert_eq!((collection.sparse_packs, bench.objects("packs").len()), (1, 1));
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let refused = plans.get(None, kept.digest, Link::Open).await.unwrap_err();
    let refused = Status::from(&*refused);
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_best_plan_is_begun_that_finds_no_room() {
    let (bench, disk) = Bench::on_a_disk().await;
    let (one, two) = (shop(1), shop(2));
    bench.push(&one).await.unwrap();
    bench.push(&two).await.unwrap();
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let improver = improver(&plans, &[(Some(one.digest), two.digest)], Policy::Improve);
    while improver.step(Lane::Ahead).await.unwrap() {}
    let (encoded, frames) = (plans.encoded(), bench.objects("frames").len());
    disk.set(Fault::Room(256 << 20));
    assert!(!improver.step(Lane::Better).await.unwrap());
    assert_eq!((plans.encoded(), bench.objects("frames").len()), (encoded, frames));
    disk.set(Fault::Room(1 << 40));
    assert!(improver.step(Lane::Better).await.unwrap());
    assert_eq!(plans.encoded(), encoded + 1);
}
