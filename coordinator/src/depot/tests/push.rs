//! Pushes: whole, broken off, repeated, damaged at rest.

use sluice_common::caps;
use sluice_common::manifest::Manifest;
use sluice_common::transfer::Effort;
use tonic::Code;

use super::*;
use crate::audit;
use crate::depot::plans::{Link, Plans};
use crate::depot::{chunks, packages};

#[tokio::test(flavor = "multi_thread")]
async fn a_push_brings_the_package_and_a_second_one_sends_nothing() {
    let bench = Bench::new().await;
    let shop = shop(1);
    let pushed = bench.push(&shop).await.unwrap();
    assert_eq!(pushed.chunks_sent, shop.index.chunks().len());
    assert_eq!(pushed.stored as usize, pushed.chunks_sent);
    assert_eq!((pushed.package.files, pushed.package.pushed_by.as_str()), (44, "alice"));
    shop.read_back(&bench).await.unwrap();
    let again = bench.push(&shop).await.unwrap();
    assert_eq!((again.chunks_sent, &again.package), (0, &pushed.package));
    assert_eq!(audit::verify(&bench.store).await.unwrap().entries, 1);
    let bench = bench.reopen().await;
    assert_eq!(bench.push(&shop).await.unwrap().chunks_sent, 0);
    shop.read_back(&bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_package_is_answered_before_its_manifest_comes() {
    let bench = Bench::new().await;
    let shop = shop(1);
    bench.push(&shop).await.unwrap();
    let mut client = Client::start(&bench.depot);
    client.send(shop.begin()).await;
    assert_eq!(client.missing().await.unwrap(), Vec::<u32>::new());
    assert_eq!(client.committed(0).await.unwrap().package.files, 44);
    assert!(client.break_off().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_version_sends_only_new_chunks() {
    let bench = Bench::new().await;
    bench.push(&shop(1)).await.unwrap();
    let next = shop(2);
    let pushed = bench.push(&next).await.unwrap();
    assert!((1..=4).contains(&pushed.chunks_sent), "{} chunks", pushed.chunks_sent);
    next.read_back(&bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_broken_off_after_any_message_goes_on_where_it_was() {
    let shop = shop(1);
    let all: Vec<u32> = (0..shop.index.chunks().len() as u32).collect();
    let (preamble, uploads) = (shop.preamble(), shop.uploads(&all));
    assert!(uploads.len() >= 3);
    for sent in 0..=preamble.len() + uploads.len() {
        let bench = Bench::new().await;
        let mut client = Client::start(&bench.depot);
        for message in preamble.iter().chain(&uploads).take(sent) {
            client.send(message.clone()).await;
        }
        let status = client.break_off().await.unwrap();
        assert_eq!(status.code(), Code::Cancelled, "after {sent} messages: {status}");
        assert_eq!(bench.count("packages").await, 0);
        let before: usize = uploads.iter().take(sent.saturating_sub(preamble.len())).map(chunk_count).sum();
        assert_eq!(bench.count("depot_chunks").await, before as i64);
        let pushed = bench.push(&shop).await.unwrap();
        assert_eq!(pushed.chunks_sent, all.len() - before, "after {sent} messages");
        shop.read_back(&bench).await.unwrap();
    }
}

fn chunk_count(message: &Request) -> usize {
    match message {
        Request::Chunks(chunks) => chunks.numbers.len(),
        Request::Begin(_)
        | Request::Description(_)
        | Request::Manifest(_)
        | Request::Index(_)
        | Request::Commit(_) => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_pack_is_found_and_healed_by_the_next_push() {
    let bench = Bench::new().await;
    let shop = shop(1);
    bench.push(&shop).await.unwrap();
    let indexed = bench.count("depot_chunks").await;
    bench.damage("packs");
    let bench = bench.reopen().await;
    let error = shop.read_back(&bench).await.unwrap_err().to_string();
    assert!(error.contains("was damaged in pack"), "{error}");
    let left = bench.count("depot_chunks").await;
    assert!(left < indexed, "{left} of {indexed}");
    let healed = bench.push(&shop).await.unwrap();
    assert_eq!(healed.chunks_sent as i64, indexed - left);
    shop.read_back(&bench).await.unwrap();
    assert_eq!(bench.count("packages").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_a_backup_lacks_come_again_though_nobody_has_missed_them() {
    let bench = Bench::new().await;
    let shop = shop(1);
    let sent = bench.push(&shop).await.unwrap().chunks_sent;
    bench.objects("packs").iter().for_each(|path| fs::remove_file(path).unwrap());
    let bench = bench.reopen().await;
    assert_eq!(bench.push(&shop).await.unwrap().chunks_sent, sent);
    shop.read_back(&bench).await.unwrap();
    assert_eq!(bench.push(&shop).await.unwrap().chunks_sent, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_found_damaged_has_pushes_look_again() {
    let bench = Bench::new().await;
    let shop = shop(1);
    bench.push(&shop).await.unwrap();
    bench.damage("packs");
    let bench = bench.reopen().await;
    let before = chunks::forgettings(bench.store.read()).await.unwrap();
    shop.read_back(&bench).await.unwrap_err();
    assert!(chunks::forgettings(bench.store.read()).await.unwrap() > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_stored_again_is_as_young_as_a_new_one() {
    let bench = Bench::new().await;
    let shop = shop(1);
    bench.push(&shop).await.unwrap();
    let mut tx = bench.store.begin(Actor::console()).await.unwrap();
    sqlx::query("UPDATE depot_packs SET stored_ms = 1").execute(&mut *tx).await.unwrap();
    tx.commit_observation().await.unwrap();
    bench.objects("packs").iter().for_each(|path| fs::remove_file(path).unwrap());
    let again = bench.push(&shop).await.unwrap();
    assert_eq!(again.chunks_sent, shop.index.chunks().len());
    let sql = "SELECT COUNT(*) FROM depot_packs WHERE stored_ms = 1";
    let old: i64 = sqlx::query_scalar(sql).fetch_one(bench.store.read()).await.unwrap();
    assert_eq!(old, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_cut_and_damaged_objects_are_healed_by_the_next_push() {
    let lose: fn(&Path) = |path| fs::remove_file(path).unwrap();
    let cut: fn(&Path) = |path| fs::write(path, &fs::read(path).unwrap()[..20]).unwrap();
    for kind in ["packs", "manifests", "indexes"] {
        for (how, spoil) in [("lost", lose), ("cut", cut), ("damaged", flip)] {
            let bench = Bench::new().await;
            let shop = shop(1);
            bench.push(&shop).await.unwrap();
            bench.objects(kind).iter().for_each(|path| spoil(path));
            let bench = bench.reopen().await;
            // A frame after the other is found damaged; each time, the next push brings what was forgotten. A push that took long
            // made several packs, and a content in two of them is found damaged once more as the next one proves it.
            let mut heals = 0;
            while shop.read_back(&bench).await.is_err() {
                if let Err(status) = bench.push(&shop).await {
                    assert_eq!(status.code(), Code::Aborted, "{kind} {how}: {status}");
                }
                heals += 1;
                assert!(heals < 20, "{kind} {how}");
            }
            assert!(heals > 0, "{kind} {how}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_object_and_commit_leaves_an_orphan_and_nothing_else() {
    let bench = Bench::new().await;
    let shop = shop(1);
    let mut client = Client::start(&bench.depot);
    for message in shop.preamble() {
        client.send(message).await;
    }
    let missing = client.missing().await.unwrap();
    // The database is gone when the rows are to be written; the object is durable by then.
    bench.store.close().await;
    for message in shop.uploads(&missing) {
        client.send(message).await;
    }
    assert!(client.break_off().await.is_some());
    assert_eq!(bench.objects("packs").len(), 1);
    let bench = bench.reopen().await;
    assert_eq!(bench.count("depot_chunks").await, 0);
    assert_eq!(bench.collect(caps::ORPHAN_OBJECT_TTL).await, 0, "it is young");
    assert_eq!(bench.collect(Duration::ZERO).await, 1);
    assert!(bench.objects("packs").is_empty());
    bench.push(&shop).await.unwrap();
    assert_eq!(bench.collect(Duration::ZERO).await, 0, "everything is named");
    shop.read_back(&bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_write_left_is_removed_at_the_start() {
    let bench = Bench::new().await;
    let left = bench.dir.path().join("depot/packs/abc#1");
    fs::write(&left, b"half").unwrap();
    let bench = bench.reopen().await;
    assert!(bench.objects("packs").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_of_the_same_package_at_once_all_succeed() {
    let bench = Bench::new().await;
    let shop = shop(1);
    let pushes = futures::future::join_all((0..6).map(|_| bench.push(&shop))).await;
    assert!(pushes.iter().all(Result::is_ok));
    assert_eq!((bench.count("packages").await, bench.count("audit").await), (1, 1));
    shop.read_back(&bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_come_is_stored_before_the_commit() {
    let bench = Bench::new().await;
    let shop = shop(1);
    let mut client = Client::start(&bench.depot);
    for message in shop.preamble() {
        client.send(message).await;
    }
    let missing = client.missing().await.unwrap();
    let first = shop.uploads(&missing).remove(0);
    client.send(first.clone()).await;
    let Response::Stored(v1::PushStored { chunks }) = client.next().await.unwrap() else { panic!("stored") };
    assert_eq!(chunks as usize, chunk_count(&first));
    assert_eq!(bench.count("depot_chunks").await, i64::from(chunks));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_larger_than_a_pack_is_stored_in_several() {
    let bench = Bench::new().await;
    let large = Parcel::new(&[("large", noise(1, 70 << 20))]);
    bench.push(&large).await.unwrap();
    let packs = bench.objects("packs");
    assert!(packs.len() >= 3, "{} packs", packs.len());
    for pack in packs {
        assert!(fs::metadata(pack).unwrap().len() <= caps::PACK_BYTES + 4 * 3 * GROUP_BYTES);
    }
    large.read_back(&bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_of_several_packages_names_them() {
    let bench = Bench::new().await;
    let mut tx = bench.store.begin(crate::store::Actor::console()).await.unwrap();
    let names: Vec<String> = (0..2).map(|i| format!("sha256:abcdef{i:058}")).collect();
    for name in &names {
        let insert = "INSERT INTO packages (digest, files, tree_bytes, index_digest, pushed_ms, pushed_by)
                      VALUES ($1, 1, 1, $2, $3, 'alice')";
        // Not so long ago that it would be collected.
        let now = crate::store::to_millis(jiff::Timestamp::now());
        sqlx::query(insert)
            .bind(name.as_str())
            .bind(vec![0_u8; 32])
            .bind(now)
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    tx.commit_observation().await.unwrap();
    let error = packages::find_by_prefix(&bench.store, "abcdef").await.unwrap_err().to_string();
    assert!(names.iter().all(|name| error.contains(name)) && error.contains("more digits"), "{error}");
    assert!(packages::find_by_prefix(&bench.store, &names[0]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_are_found_by_the_first_digits_of_their_digest() {
    let bench = Bench::new().await;
    let (one, two) = (shop(1), shop(2));
    bench.push(&one).await.unwrap();
    bench.push(&two).await.unwrap();
    let store = &bench.store;
    assert_eq!(packages::list(store).await.unwrap().len(), 2);
    let full = one.digest.to_string();
    for typed in [&full[..], &full[7..], &full[..13], &full[7..13]] {
        assert_eq!(packages::find_by_prefix(store, typed).await.unwrap().digest, one.digest, "{typed}");
    }
    for (typed, expected) in [
        ("abc", "at least 6 digits"),
        ("", "at least 6"),
        ("zzzzzzzz", "at least 6"),
        ("000000", "has no package"),
    ] {
        let error = packages::find_by_prefix(store, typed).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{typed}: {error}");
    }
    let manifest = bench.depot.compressed_manifest(two.digest).await.unwrap();
    let manifest = sluice_common::transfer::decode_manifest(&manifest, &[]).unwrap();
    assert_eq!(&Manifest::decode(manifest).unwrap(), two.tree.manifest());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_orphans_are_removed_at_the_start() {
    let bench = Bench::new().await;
    let shop = shop(1);
    bench.push(&shop).await.unwrap();
    let orphan = bench.dir.path().join("depot/frames").join(Digest::of(b"orphan").to_hex());
    fs::write(&orphan, b"orphan").unwrap();
    let hours_ago = std::time::SystemTime::now() - 2 * caps::ORPHAN_OBJECT_TTL;
    fs::File::open(&orphan).unwrap().set_modified(hours_ago).unwrap();
    let bench = bench.reopen().await;
    while orphan.exists() {
        tokio::task::yield_now().await;
    }
    shop.read_back(&bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_is_read_only_for_what_may_have_been_cut() {
    for (name, len, is_read) in
        [("small", caps::CHUNK_BYTES_MIN, false), ("large", caps::CHUNK_BYTES_MIN + 1, true)]
    {
        let bench = Bench::new().await;
        let parcel =
            Parcel::new(&[("a", noise(1, len as usize)), ("b", noise(2, 10)), ("empty", Vec::new())]);
        bench.push(&parcel).await.unwrap();
        bench.objects("indexes").iter().for_each(|path| fs::remove_file(path).unwrap());
        assert_eq!(parcel.read_back(&bench).await.is_err(), is_read, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_with_large_packages_takes_turns_and_small_ones_never_wait() {
    let (bench, one, two) = super::plans::two_versions().await;
    let mut tx = bench.store.begin(Actor::console()).await.unwrap();
    sqlx::query("UPDATE packages SET files = 250000 WHERE digest = $1")
        .bind(one.digest.to_string())
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit_observation().await.unwrap();
    let turn = bench.depot.turn(&[one.digest]).await.unwrap();
    assert!(turn.is_some());
    assert!(bench.depot.turn(&[two.digest]).await.unwrap().is_none(), "small packages take none");
    assert!(bench.depot.large.try_lock().is_err(), "another waits");
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    drop(turn);
    let quick = plans.get(None, one.digest, Link::Limited).await.unwrap();
    let turn = bench.depot.turn(&[one.digest]).await.unwrap();
    // Below what a turn is waited for.
    let get = plans.get(None, one.digest, Link::Limited);
    let served = tokio::time::timeout(Duration::from_secs(20), get).await;
    let served = served.expect("a plan that is there waits for none that is being made").unwrap();
    assert_eq!(served.plan_bytes, quick.plan_bytes);
    drop(turn);
    assert!(bench.depot.turn(&[two.digest, one.digest]).await.unwrap().is_some());
}
