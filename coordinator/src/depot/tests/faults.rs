//! Disks that are full, bad or old: nothing is lost that is still there, and a push heals the rest.

use std::pin::pin;

use rustix::io::Errno;
use sluice_common::transfer::Effort;
use tonic::Code;

use super::disk::{Disk, Fault};
use super::improver::improver;
use super::*;
use crate::depot::chunks;
use crate::depot::collect::Blocker;
use crate::depot::objects::{Kind, Name};
use crate::depot::plans::queue::Lane;
use crate::depot::plans::{Link, Plans, Policy};
use crate::depot::push::PushError;

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
    pushed.as_ref().is_err_and(|status| status.code() == Code::Aborted)
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
    for mode in [Mode::DryRun, Mode::Remove, Mode::Remove] {
        let collection = bench.depot.collect(AT_ONCE, mode, Actor::console()).await.unwrap();
        assert!(matches!(collection.blockers[..], [Blocker::MissingPacks(1, _)]), "{mode:?}: {collection:?}");
    }
    // What reads it, and what comes again, takes away the rows that told of it.
    bench.push(&gone).await.unwrap();
    let collection = bench.depot.collect(AT_ONCE, Mode::Remove, Actor::console()).await.unwrap();
    assert!(matches!(collection.blockers[..], [Blocker::MissingPacks(0, _)]), "{collection:?}");
    bench = bring_back(bench, "newer.db").await;
    old.read_back(&bench).await.unwrap();
    new.read_back(&bench).await.unwrap();
    let collection = bench.depot.collect(AT_ONCE, Mode::Remove, Actor::console()).await.unwrap();
    assert!(collection.blockers.is_empty() && collection.objects() > 0, "{collection:?}");

    // Without the newer one, somebody has to say so.
    bench = bring_back(bench, "older.db").await;
    let collection = bench.depot.collect(AT_ONCE, Mode::Remove, Actor::console()).await.unwrap();
    assert!(matches!(collection.blockers[..], [Blocker::MissingPacks(1, _)]), "{collection:?}");
    bench.depot.accept_missing().await.unwrap();
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
        assert_eq!(refused.code(), Code::ResourceExhausted, "{fault:?}: {refused}");
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
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
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
