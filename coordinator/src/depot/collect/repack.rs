//! Removing packs that are not used, or hardly: what is used of them moves to another pack first.
//!
//! Invariant: a chunk's row names a pack that is durable and holds the chunk, verified, at every moment. The rows move
//! in short transactions, in each of which every package there is was looked at; the objects of the packs that went are orphans
//! after the last. Whoever looked a chunk up before finds it at its new place.

use std::collections::HashSet;
use std::sync::Arc;

use sluice_common::chunk::Chunk;
use sluice_common::digest::Digest;

use super::plan::{Ages, PackFacts, PackFate};
use super::survey::{AsIf, PackSurvey};
use super::{CollectError, Collection, Mode};
use crate::depot::Depot;
use crate::depot::chunks::{self, Location};
use crate::depot::objects::Kind;
use crate::depot::objects::space::Reserve;
use crate::depot::packs::{FrameError, PackBuilder, VerifiedFrame, WrittenPack};
use crate::depot::reader::{ChunkReader, ReadError};
use crate::store::{Actor, Transaction};

/// Level for what is written again: what uploads have, for a fraction of the time that reading it takes.
const LEVEL: i32 = 3;

/// Packs that one new pack takes the place of at most.
const PACKS_MAX: usize = 64;

/// Removes packs, those that are not used first: their room may be needed for what is written again. Objects go as soon as nothing
/// names them, for the same reason. Says whether it came to the end: not, when a package came that was not looked at.
pub(super) async fn packs(
    depot: &Arc<Depot>,
    survey: &PackSurvey,
    fates: &[(PackFacts, PackFate)],
    ages: Ages,
    collection: &mut Collection,
) -> Result<bool, CollectError> {
    let unused = of_fate(fates, PackFate::Unused);
    for pack in &unused {
        if !replace(depot, survey, &[*pack], None).await? {
            return Ok(false);
        }
    }
    let mut sparse = of_fate(fates, PackFate::Sparse).into_iter().peekable();
    if !unused.is_empty() && sparse.peek().is_some() {
        remove_objects(depot, ages, collection).await?;
    }
    while sparse.peek().is_some() {
        let (mut old, mut indexed, mut builder) = (Vec::new(), 0, PackBuilder::default());
        while let Some(pack) = sparse
            .next_if(|_| !builder.is_full() && old.len() < PACKS_MAX && indexed < chunks::CHUNKS_FORGOTTEN)
        {
            let used = used_frames(depot, survey, pack).await?;
            used.frames.into_iter().for_each(|frame| builder.push(frame));
            indexed += used.indexed;
            old.push(pack);
        }
        let new = match builder.is_empty() {
            true => None,
            false => Some(builder.write(&depot.objects, Reserve::Spent).await?),
        };
        collection.rewritten_bytes += new.as_ref().map_or(0, |pack| pack.bytes);
        if !replace(depot, survey, &old, new.as_ref()).await? {
            return Ok(false);
        }
        collection.sparse_packs += old.len() as u64;
        if sparse.peek().is_some() {
            remove_objects(depot, ages, collection).await?;
        }
    }
    Ok(true)
}

/// Removes the objects of packs that went; those of the last ones go with all other objects.
async fn remove_objects(depot: &Depot, ages: Ages, collection: &mut Collection) -> Result<(), CollectError> {
    // What waits is counted at the end.
    depot.collect_kinds(&[Kind::Pack], ages, Mode::Remove, collection, &AsIf::default()).await.map(drop)
}

fn of_fate(fates: &[(PackFacts, PackFate)], wanted: PackFate) -> Vec<Digest> {
    fates.iter().filter(|(_, fate)| *fate == wanted).map(|(pack, _)| pack.digest).collect()
}

/// Puts `new`, which is durable, in the place of `old`; says whether it could. Cut off, or where it cannot go on, it leaves each
/// chunk in the one or the other.
async fn replace(
    depot: &Depot,
    survey: &PackSurvey,
    old: &[Digest],
    new: Option<&WrittenPack>,
) -> Result<bool, CollectError> {
    let mut moving = new.map(|pack| &pack.chunks[..]).unwrap_or_default();
    loop {
        if depot.token.is_cancelled() {
            return Ok(false);
        }
        let mut tx = depot.store.begin(Actor::coordinator()).await?;
        if !survey.holds(&mut tx).await? || came_back(&mut tx, survey, old, new).await? {
            tx.roll_back().await?;
            return Ok(false);
        }
        let (now, later) = moving.split_at(moving.len().min(chunks::CHUNKS_FORGOTTEN));
        if let Some(pack) = new {
            chunks::move_to(&mut tx, pack.digest, pack.bytes, now).await?;
        }
        let left = chunks::CHUNKS_FORGOTTEN - now.len();
        let is_done = later.is_empty() && chunks::forget_packs(&mut tx, old, left).await?;
        tx.commit_observation().await?;
        if is_done {
            return Ok(true);
        }
        moving = later;
    }
}

/// Says whether a pack that goes holds a chunk that is used and does not move: its damaged pack was pushed again since it was
/// looked at, and the package that uses it may be the same as before.
async fn came_back(
    tx: &mut Transaction,
    survey: &PackSurvey,
    old: &[Digest],
    new: Option<&WrittenPack>,
) -> Result<bool, CollectError> {
    let moving: HashSet<Digest> =
        new.iter().flat_map(|pack| &pack.chunks).map(|chunk| chunk.digest).collect();
    for pack in old {
        let chunks = chunks::names_of_pack(tx, *pack).await?;
        if chunks.iter().any(|chunk| survey.used.contains(chunk) && !moving.contains(chunk)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is used of a pack.
struct UsedFrames {
    frames: Vec<VerifiedFrame>,
    /// Chunks of it that are indexed, used or not.
    indexed: usize,
}

/// Reads the chunks of a pack that are used, verified, and gathers them in new frames. A frame that turns out damaged
/// is left out: its rows are gone.
async fn used_frames(
    depot: &Arc<Depot>,
    survey: &PackSurvey,
    pack: Digest,
) -> Result<UsedFrames, CollectError> {
    let mut chunks = chunks::of_pack(&depot.store, pack).await?;
    let indexed = chunks.len();
    chunks.retain(|(chunk, _)| survey.used.contains(chunk));
    let reader = depot.chunks.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let frames = chunks.chunk_by(|(_, a), (_, b)| a.frame_offset == b.frame_offset);
        let frames = frames.map(|chunks| frame(&reader, chunks));
        frames.filter_map(Result::transpose).collect::<Result<_, _>>()
    });
    let frames = reading.await.expect("reading a pack does not panic")?;
    Ok(UsedFrames { frames, indexed })
}

fn frame(reader: &ChunkReader, chunks: &[(Digest, Location)]) -> Result<Option<VerifiedFrame>, CollectError> {
    let mut raw = Vec::new();
    for (chunk, at) in chunks {
        match reader.read(chunk, at) {
            Ok(bytes) => raw.extend_from_slice(&bytes),
            Err(error) if error.is_damage() => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    let chunks = chunks.iter().map(|(digest, at)| Chunk { digest: *digest, len: at.raw_len }).collect();
    let compressed = zstd::bulk::compress(&raw, LEVEL).map_err(ReadError::Io)?;
    VerifiedFrame::verify(compressed.into(), chunks).map(Some).map_err(|error: FrameError| error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::depot::collect::survey;
    use crate::depot::tests::{Bench, Parcel};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pack_that_came_back_since_it_was_looked_at_stays() {
        let bench = Bench::new().await;
        let bytes =
            (0..100_000_u32).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_be_bytes()).collect();
        let parcel = Parcel::new(&[("file", bytes)]);
        bench.push(&parcel).await.unwrap();
        let [pack] = &bench.objects("packs")[..] else { panic!("expected one pack") };
        fs_err::remove_file(pack).unwrap();
        let bench = bench.reopen().await;
        parcel.read_back(&bench).await.unwrap_err();
        assert_eq!(bench.count("depot_chunks").await, 0, "what was lost is forgotten");

        let survey = survey::packs(&bench.depot, &AsIf::default()).await.unwrap();
        let fates: Vec<_> = survey.facts.iter().map(|pack| (*pack, PackFate::Unused)).collect();
        assert_eq!(fates.len(), 1);
        bench.push(&parcel).await.unwrap();
        assert_eq!(bench.objects("packs"), std::slice::from_ref(pack), "the same chunks make the same pack");
        let mut collection = Collection::default();
        let is_whole = packs(&bench.depot, &survey, &fates, Ages::default(), &mut collection).await.unwrap();
        assert!(!is_whole, "it is looked at again");
        parcel.read_back(&bench).await.unwrap();
    }

    /// Stores a pack of so many small chunks; returns the first of them.
    async fn store_small_chunks(bench: &Bench, first: u32, count: u32) -> Vec<u8> {
        let chunk = |number: u32| number.to_be_bytes();
        let raw: Vec<u8> = (first..first + count).flat_map(chunk).collect();
        let listed =
            (first..first + count).map(|number| Chunk { digest: Digest::of(&chunk(number)), len: 4 });
        let mut pack = PackBuilder::default();
        let compressed = zstd::bulk::compress(&raw, LEVEL).unwrap();
        pack.push(VerifiedFrame::verify(compressed.into(), listed.collect()).unwrap());
        pack.store(&bench.depot.objects, &bench.depot.store).await.unwrap();
        chunk(first).to_vec()
    }

    async fn forgettings(bench: &Bench) -> i64 {
        chunks::forgettings(bench.depot.store.read()).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pack_of_many_chunks_goes_in_several_transactions() {
        let bench = Bench::new().await;
        store_small_chunks(&bench, 0, 41_000).await;
        let survey = survey::packs(&bench.depot, &AsIf::default()).await.unwrap();
        let fates: Vec<_> = survey.facts.iter().map(|pack| (*pack, PackFate::Unused)).collect();
        let before = forgettings(&bench).await;
        let mut collection = Collection::default();
        let is_whole = packs(&bench.depot, &survey, &fates, Ages::default(), &mut collection).await.unwrap();
        assert!(is_whole);
        assert_eq!(forgettings(&bench).await - before, 3, "20,000 chunks at a time");
        assert_eq!((bench.count("depot_chunks").await, bench.count("depot_packs").await), (0, 0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn packs_of_many_chunks_are_written_again_few_at_a_time() {
        let bench = Bench::new().await;
        let mut used = Vec::new();
        for number in 0..3 {
            used.push(store_small_chunks(&bench, number * 100_000, 12_000).await);
        }
        let parcel = Parcel::new(&[("a", used[0].clone()), ("b", used[1].clone()), ("c", used[2].clone())]);
        bench.push(&parcel).await.unwrap();
        assert_eq!(bench.count("depot_packs").await, 3, "they are here already");
        let survey = survey::packs(&bench.depot, &AsIf::default()).await.unwrap();
        let fates: Vec<_> = survey.facts.iter().map(|pack| (*pack, PackFate::Sparse)).collect();
        assert_eq!(fates.len(), 3);
        let before = forgettings(&bench).await;
        let mut collection = Collection::default();
        let is_whole = packs(&bench.depot, &survey, &fates, Ages::default(), &mut collection).await.unwrap();
        assert!(is_whole);
        assert_eq!(
            (collection.sparse_packs, bench.count("depot_packs").await),
            (3, 2),
            "two, then the third"
        );
        assert_eq!(forgettings(&bench).await - before, 3, "24,000 chunks in two steps, 12,000 in one");
        assert_eq!(bench.count("depot_chunks").await, 3);
        parcel.read_back(&bench).await.unwrap();
    }
}
