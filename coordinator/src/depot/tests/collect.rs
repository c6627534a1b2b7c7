//! Collection: what goes, what stays, whatever else happens at the same time, wherever it is cut off.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use futures::TryStreamExt;
use sluice_common::transfer::Effort;
use sluice_proto::transport::metered::Pacing;
use tonic::Code;

use super::plans::{host, install, wanted};
use super::*;
use crate::audit;
use crate::depot::collect::{Blocker, Collection};
use crate::depot::content;
use crate::depot::plans::{Link, Plans};

/// Everything that nothing uses goes, however young.
const AT_ONCE: Ages = Ages { unreleased: Duration::ZERO, orphan: Duration::ZERO };

/// Two large files, of which `shared` is in every version.
fn version(number: u64) -> Parcel {
    let files = [("lib/shared", noise(1, 300_000)), ("lib/own", noise(number, 1_200_000))];
    Parcel::new(&files.map(|(path, bytes)| (path, bytes)))
}

impl Bench {
    async fn collect_at_once(&self, mode: Mode) -> Collection {
        self.depot.collect(AT_ONCE, mode, Actor::console()).await.unwrap()
    }

    /// Names a package in a release; says whether it is still there.
    pub(super) async fn release(&self, parcel: &Parcel) -> bool {
        let mut tx = self.store.begin(Actor::console()).await.unwrap();
        let insert =
            "INSERT INTO release_packages (app, version, platform, package) VALUES ('shop', $1, 'any', $2)";
        let (version, package) = (parcel.digest.short(), parcel.digest.to_string());
        let named = sqlx::query(insert).bind(version).bind(package).execute(&mut *tx).await;
        tx.commit_observation().await.unwrap();
        named.is_ok()
    }

    fn object_count(&self) -> usize {
        ["packs", "manifests", "indexes", "frames", "plans"].iter().map(|kind| self.objects(kind).len()).sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_released_goes_with_its_plans_and_packs() {
    let bench = Bench::new().await;
    let (one, two) = (version(10), version(20));
    bench.push(&one).await.unwrap();
    bench.push(&two).await.unwrap();
    assert!(bench.release(&two).await);
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    plans.get(None, one.digest, Link::Open).await.unwrap();
    plans.get(Some(one.digest), two.digest, Link::Open).await.unwrap();
    let cold = plans.get(None, two.digest, Link::Open).await.unwrap();

    assert_eq!(bench.collect(Duration::ZERO).await, 0, "a package pushed a moment ago waits for its release");
    let foreseen = bench.collect_at_once(Mode::DryRun).await;
    assert_eq!(
        (bench.count("packages").await, bench.objects("packs").len()),
        (2, 2),
        "a dry run removes nothing"
    );
    let collection = bench.collect_at_once(Mode::Remove).await;
    assert_eq!(collection.packages, foreseen.packages);
    assert_eq!((collection.objects(), collection.sparse_packs), (foreseen.objects(), 1));
    assert!(collection.freed_bytes() > 1_000_000, "{collection:?}");
    assert!(collection.freed_bytes().abs_diff(foreseen.freed_bytes()) < 1_000, "{collection:?} {foreseen:?}");
    assert_eq!((bench.count("packages").await, bench.count("depot_plans").await), (1, 1));

    assert_eq!(bench.collect_at_once(Mode::Remove).await.objects(), 0, "everything is used");
    let bench = bench.reopen().await;
    two.read_back(&bench).await.unwrap();
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let again = plans.get(None, two.digest, Link::Open).await.unwrap();
    assert_eq!((again.plan_bytes.clone(), plans.encoded()), (cold.plan_bytes.clone(), 0));
    install(&plans, &again, None, &two).await;
    let last = audit::verify(&bench.store).await.unwrap();
    assert_eq!((last.entries, last.broken_at), (3, None), "two pushes, one package forgotten");
    bench.push(&one).await.unwrap();
    one.read_back(&bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_pushed_again_is_as_young_as_a_new_one() {
    let bench = Bench::new().await;
    let (one, two) = (version(10), version(20));
    for parcel in [&one, &two] {
        bench.push(parcel).await.unwrap();
    }
    let mut tx = bench.store.begin(Actor::console()).await.unwrap();
    sqlx::query("UPDATE packages SET pushed_ms = 1").execute(&mut *tx).await.unwrap();
    tx.commit_observation().await.unwrap();
    assert_eq!(bench.push(&two).await.unwrap().chunks_sent, 0);
    let collection = bench.depot.collect(Ages::default(), Mode::Remove, Actor::console()).await.unwrap();
    assert_eq!(collection.packages.iter().map(|(package, _)| *package).collect::<Vec<_>>(), [one.digest]);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_go_on_while_their_pack_is_written_again() {
    let bench = Bench::new().await;
    let (one, two) = (version(10), version(20));
    bench.push(&one).await.unwrap();
    bench.push(&two).await.unwrap();
    assert!(bench.release(&two).await);
    let package = bench.depot.package(two.digest).await.unwrap();
    let index = bench.depot.index(two.digest, &package).await.unwrap();
    let all: Vec<u32> = (0..package.contents().len() as u32).collect();
    let open =
        async |reader| PackageSource::open(reader, &bench.store, &package, Some(&index), &all).await.unwrap();
    // A reader of its own has no frame in memory.
    let beside = bench.beside().await;
    let source = open(beside.chunks.clone()).await;
    assert_eq!(bench.collect_at_once(Mode::Remove).await.sparse_packs, 1);
    let contents: Vec<Digest> = package.contents().iter().map(|content| content.digest).collect();
    let reading = tokio::task::spawn_blocking(move || {
        let read = |content: &Digest| Digest::of_reader(source.reader(content, 0).unwrap()).unwrap().0;
        contents.iter().map(|content| (*content, read(content))).collect::<Vec<_>>()
    });
    assert!(reading.await.unwrap().iter().all(|(content, read)| content == read));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_fetch_goes_on_while_everything_else_is_collected() {
    let bench = Bench::new().await;
    let (one, two) = (version(10), version(20));
    bench.push(&one).await.unwrap();
    bench.push(&two).await.unwrap();
    assert!(bench.release(&two).await);
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let plan = plans.get(None, two.digest, Link::Open).await.unwrap();
    let frames: Vec<_> = plan.frames.iter().map(|frame| wanted(&frame.digest, 0)).collect();
    let fetch = content::fetch(&plans, host(), None, two.digest, frames, Pacing::default()).await.unwrap();
    let mut fetch = pin!(fetch);
    let mut bytes = vec![Vec::new(); plan.frames.len()];
    let mut collected = false;
    while let Some(v1::FrameData { frame, data }) = fetch.try_next().await.unwrap() {
        bytes[frame as usize].extend_from_slice(&data);
        if !std::mem::replace(&mut collected, true) {
            assert!(bench.collect_at_once(Mode::Remove).await.objects() > 0);
        }
    }
    let fetched: Vec<Digest> = bytes.iter().map(|bytes| Digest::of(bytes)).collect();
    assert_eq!(fetched, plan.frames.iter().map(|frame| frame.digest).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_push_keeps_the_chunks_that_it_counts_on() {
    let bench = Bench::new().await;
    let (one, two) = (version(10), version(20));
    bench.push(&one).await.unwrap();
    let mut client = Client::start(&bench.depot);
    for message in two.preamble() {
        client.send(message).await;
    }
    let missing = client.missing().await.unwrap();
    assert!(missing.len() < two.index.chunks().len(), "some are here already");
    let collection = bench.collect_at_once(Mode::Remove).await;
    assert_eq!((collection.packages.len(), collection.sparse_packs), (1, 1));
    for message in two.uploads(&missing) {
        client.send(message).await;
    }
    client.send(Request::Commit(v1::PushCommit {})).await;
    client.committed(missing.len()).await.unwrap();
    two.read_back(&bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_at_another_coordinator_notices_at_its_commit_what_was_collected() {
    let bench = Bench::new().await;
    let (one, two) = (version(10), version(20));
    bench.push(&one).await.unwrap();
    let beside = bench.beside().await;
    let mut client = Client::start(&beside);
    for message in two.preamble() {
        client.send(message).await;
    }
    let missing = client.missing().await.unwrap();
    bench.collect_at_once(Mode::Remove).await;
    for message in two.uploads(&missing) {
        client.send(message).await;
    }
    client.send(Request::Commit(v1::PushCommit {})).await;
    let refused = client.committed(missing.len()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused}: the client pushes again by itself");
    assert_eq!(bench.count("packages").await, 0);
    bench.push(&two).await.unwrap();
    two.read_back(&bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_released_is_whole_whatever_was_collected_meanwhile() {
    let bench = Bench::new().await;
    let parcels: Vec<Parcel> = (10..14).map(version).collect();
    // Time stamps of files lag behind the clock by a few milliseconds.
    let ages = Ages { unreleased: Duration::ZERO, orphan: Duration::from_millis(50) };
    let collecting = async {
        loop {
            let run = bench.depot.collect(ages, Mode::Remove, Actor::console()).await;
            run.unwrap();
        }
    };
    let pushing = async {
        for _ in 0..3 {
            let rounds = parcels.iter().map(|parcel| async {
                // Forgotten between push and release: pushed again, as its owner is told to.
                while !(bench.push(parcel).await.is_ok() && bench.release(parcel).await) {}
            });
            futures::future::join_all(rounds).await;
            for parcel in &parcels {
                parcel.read_back(&bench).await.unwrap();
            }
            let mut tx = bench.store.begin(Actor::console()).await.unwrap();
            sqlx::query("DELETE FROM release_packages").execute(&mut *tx).await.unwrap();
            tx.commit_observation().await.unwrap();
        }
    };
    tokio::select! {
        () = collecting => {}
        () = pushing => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_stay_while_it_cannot_be_told_what_a_package_uses() {
    let bench = Bench::new().await;
    let (one, two) = (version(10), version(20));
    bench.push(&one).await.unwrap();
    bench.push(&two).await.unwrap();
    assert!(bench.release(&one).await && bench.release(&two).await);
    bench.objects("indexes").iter().take(1).for_each(|path| flip(path));
    let bench = bench.reopen().await;
    let collection = bench.collect_at_once(Mode::Remove).await;
    assert!(matches!(collection.blockers[..], [Blocker::Damaged(_)]), "{collection:?}");
    assert_eq!(bench.objects("packs").len(), 2);
    for parcel in [&one, &two] {
        bench.push(parcel).await.unwrap();
        parcel.read_back(&bench).await.unwrap();
    }
}

/// Polls a future so many times, then drops it as a crash does.
async fn cut_off<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), polls);
    poll_fn(|context| match left.checked_sub(1) {
        None => Poll::Ready(None),
        Some(fewer) => {
            left = fewer;
            future.as_mut().poll(context).map(Some)
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_cut_off_anywhere_is_completed_by_the_next() {
    let (one, two) = (version(10), version(20));
    let mut expected = None;
    // The first run is not cut off; the following ones are, earlier and earlier in larger steps.
    for polls in std::iter::once(usize::MAX).chain((1..400).step_by(5)) {
        let bench = Bench::new().await;
        bench.push(&one).await.unwrap();
        bench.push(&two).await.unwrap();
        assert!(bench.release(&two).await);
        Plans::new(bench.depot.clone(), Effort::Quick).get(None, one.digest, Link::Open).await.unwrap();
        let actor = Actor::console();
        let ended = cut_off(bench.depot.run(AT_ONCE, Mode::Remove, &actor), polls).await.is_some();
        let bench = bench.reopen().await;
        two.read_back(&bench).await.unwrap();
        bench.collect_at_once(Mode::Remove).await;
        two.read_back(&bench).await.unwrap();
        let left = (bench.object_count(), bench.count("depot_chunks").await, bench.count("packages").await);
        assert_eq!(left, *expected.get_or_insert(left), "after {polls} polls");
        assert!(audit::verify(&bench.store).await.unwrap().broken_at.is_none());
        if ended && polls != usize::MAX {
            return;
        }
    }
    panic!("the collection never came to its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoding_that_takes_long_keeps_its_frames() {
    let bench = Bench::new().await;
    let two = version(20);
    bench.push(&two).await.unwrap();
    assert!(bench.release(&two).await);
    let under_way = bench.depot.works.begin(vec![two.digest]);
    let frame = bench.dir.path().join("depot/frames").join(Digest::of(b"frame").to_hex());
    fs::write(&frame, b"frame").unwrap();
    let written = std::time::SystemTime::from(bench.depot.works.oldest().unwrap()) + Duration::from_millis(1);
    fs::File::open(&frame).unwrap().file().set_modified(written).unwrap();
    assert_eq!(bench.collect(Duration::ZERO).await, 0);
    drop(under_way);
    assert_eq!(bench.collect(Duration::ZERO).await, 1);
}
