//! Plans: made once, kept, healed, and what they restore.

use std::collections::HashMap;
use std::io;

use futures::TryStreamExt;
use sluice_common::caps;
use sluice_common::manifest::Manifest;
use sluice_common::name::HostName;
use sluice_common::transfer::{Effort, NoContent, Part, PartSink, Workspace, decode_frame, decode_manifest};
use sluice_proto::transport::limiter::Limiter;
use sluice_proto::transport::metered::Pacing;

use super::*;
use crate::depot::content;
use crate::depot::plans::{Link, PlanError, Plans, ServedPlan};

/// Collects what frames hold, by the content's number.
#[derive(Default)]
struct Memory {
    files: HashMap<u32, Vec<u8>>,
    open: Vec<u8>,
}

impl PartSink for Memory {
    fn begin(&mut self, _: &Part) -> io::Result<()> {
        self.open.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(&mut self, part: &Part) -> io::Result<()> {
        let file = self.files.entry(part.extent.content).or_default();
        let end = (part.extent.offset + part.extent.len) as usize;
        file.resize(file.len().max(end), 0);
        file[part.extent.offset as usize..end].copy_from_slice(&self.open);
        Ok(())
    }
}

pub(super) fn host() -> HostName {
    "web-1".parse().unwrap()
}

pub(super) fn wanted(frame: &Digest, offset: u64) -> v1::FrameWanted {
    v1::FrameWanted { digest: frame.as_bytes().to_vec(), offset }
}

/// Fetches frames as a host does and returns the bytes of each.
pub(super) async fn fetch(
    plans: &Arc<Plans>,
    plan: &ServedPlan,
    frames: Vec<v1::FrameWanted>,
) -> Result<Vec<Vec<u8>>, Status> {
    let mut bytes = vec![Vec::new(); frames.len()];
    let messages = content::fetch(plans, host(), plan.base, plan.target, frames, Pacing::default()).await?;
    let mut messages = std::pin::pin!(messages);
    while let Some(v1::FrameData { frame, data }) = messages.try_next().await? {
        assert!(data.len() <= caps::CONTENT_MESSAGE_BYTES_UNLIMITED);
        bytes[frame as usize].extend_from_slice(&data);
    }
    Ok(bytes)
}

async fn fetch_all(plans: &Arc<Plans>, plan: &ServedPlan) -> Result<Vec<Vec<u8>>, Status> {
    let frames = plan.frames.iter().map(|frame| wanted(&frame.digest, 0)).collect();
    let fetched = fetch(plans, plan, frames).await?;
    for (frame, bytes) in plan.frames.iter().zip(&fetched) {
        assert_eq!((Digest::of(bytes), bytes.len() as u64), (frame.digest, frame.wire_len));
    }
    Ok(fetched)
}

/// Takes a plan in as a host with `base` does: everything it gets comes from the plan and its frames.
pub(super) async fn install(plans: &Arc<Plans>, plan: &ServedPlan, base: Option<&Parcel>, target: &Parcel) {
    assert_eq!(plan.base, base.map(|base| base.digest));
    let base_manifest = base.map(|base| base.tree.manifest().as_bytes()).unwrap_or_default();
    let frame = fetch(plans, plan, vec![wanted(&plan.manifest_frame.digest, 0)]).await.unwrap();
    let manifest = decode_manifest(&frame[0], base_manifest).unwrap();
    assert_eq!(Digest::of(&manifest), target.digest);
    let manifest = Manifest::decode(manifest).unwrap();
    let contents = manifest.contents();
    let base_contents = base.map(|base| base.tree.manifest().contents()).unwrap_or_default();
    let decoded =
        sluice_common::transfer::TransferPlan::decode(&plan.plan_bytes, base_contents, contents).unwrap();
    let source: &dyn ContentSource = match base {
        Some(base) => &base.tree,
        None => &NoContent,
    };
    let mut memory = Memory::default();
    for (frame, bytes) in decoded.frames.iter().zip(fetch_all(plans, plan).await.unwrap()) {
        // No quick frame leans on what another one restored.
        let (base, produced) = ((base_contents, source), (contents, &NoContent as _));
        decode_frame(frame, &bytes[..], base, produced, &Workspace::new(std::env::temp_dir()), &mut memory)
            .unwrap();
    }
    for (number, content) in contents.iter().enumerate() {
        match memory.files.get(&(number as u32)) {
            Some(bytes) => assert_eq!(Digest::of(bytes), content.digest),
            None => assert!(content.size == 0 || base_contents.iter().any(|known| known == content)),
        }
    }
}

/// A depot with two versions of the shop.
pub(super) async fn two_versions() -> (Bench, Parcel, Parcel) {
    let bench = Bench::new().await;
    let (one, two) = (shop(1), shop(2));
    bench.push(&one).await.unwrap();
    bench.push(&two).await.unwrap();
    (bench, one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_restore_every_content_cold_and_from_a_base() {
    let (bench, one, two) = two_versions().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let cold = plans.get(None, two.digest, Link::Open).await.unwrap();
    install(&plans, &cold, None, &two).await;
    let update = plans.get(Some(one.digest), two.digest, Link::Open).await.unwrap();
    install(&plans, &update, Some(&one), &two).await;
    assert!(update.wire_bytes() * 50 < cold.wire_bytes(), "{} of {}", update.wire_bytes(), cold.wire_bytes());
    let nothing = plans.get(Some(two.digest), two.digest, Link::Open).await.unwrap();
    assert!(nothing.frames.is_empty());
    install(&plans, &nothing, Some(&two), &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_want_a_plan_at_once_cost_one_encoding() {
    let (bench, one, two) = two_versions().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let gets = (0..20).map(|_| plans.get(Some(one.digest), two.digest, Link::Open));
    let got = futures::future::join_all(gets).await;
    let first = got[0].as_ref().unwrap();
    assert!(got.iter().all(|plan| plan.as_ref().unwrap().plan_bytes == first.plan_bytes));
    assert_eq!(plans.encoded(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_outlives_a_restart_and_is_never_collected() {
    let (bench, one, two) = two_versions().await;
    let before = Plans::new(bench.depot.clone(), Effort::Quick)
        .get(Some(one.digest), two.digest, Link::Open)
        .await
        .unwrap();
    let bench = bench.reopen().await;
    assert_eq!(bench.collect(std::time::Duration::ZERO).await, 0);
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let after = plans.get(Some(one.digest), two.digest, Link::Open).await.unwrap();
    assert_eq!((&after.plan_bytes, &after.manifest_frame), (&before.plan_bytes, &before.manifest_frame));
    assert_eq!(plans.encoded(), 0);
    install(&plans, &after, Some(&one), &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_at_any_byte() {
    let (bench, _, two) = two_versions().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let plan = plans.get(None, two.digest, Link::Open).await.unwrap();
    let whole = fetch_all(&plans, &plan).await.unwrap();
    let (frame, len) = (plan.frames[0].digest, whole[0].len());
    assert!(len > 600_000, "several reads");
    for offset in [0, 1, 32 << 10, (32 << 10) - 1, 256 << 10, (256 << 10) + 1, len / 2, len - 1, len] {
        let rest = fetch(&plans, &plan, vec![wanted(&frame, offset as u64)]).await.unwrap();
        assert!(rest[0] == whole[0][offset..], "from {offset}");
    }
    let limits = Pacing::new(vec![Limiter::new("1Mbit/s".parse().ok())]);
    let frames = vec![wanted(&frame, 0)];
    let messages = content::fetch(&plans, host(), plan.base, plan.target, frames, limits).await.unwrap();
    let messages: Vec<v1::FrameData> = messages.try_collect().await.unwrap();
    assert!(
        messages.iter().all(|message| message.data.len() <= caps::CONTENT_MESSAGE_BYTES),
        "a limit is on"
    );
    let twice = fetch(&plans, &plan, vec![wanted(&frame, 100), wanted(&frame, 200)]).await.unwrap();
    assert!(twice[0] == whole[0][100..] && twice[1] == whole[0][200..]);
    let beyond = fetch(&plans, &plan, vec![wanted(&frame, len as u64 + 1)]).await.unwrap_err();
    assert_eq!(beyond.code(), tonic::Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_the_plan_does_not_name_are_not_served() {
    let (bench, one, two) = two_versions().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let cold = plans.get(None, two.digest, Link::Open).await.unwrap();
    let update = plans.get(Some(one.digest), two.digest, Link::Open).await.unwrap();
    let foreign = vec![wanted(&cold.frames[0].digest, 0)];
    let refused = fetch(&plans, &update, foreign).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    assert!(refused.message().contains("ask for the plan again"), "{refused}");
    let unknown = plans.get(None, Digest::of(b"unknown"), Link::Open).await.unwrap_err();
    assert_eq!(Status::from(&*unknown).code(), tonic::Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_frames_and_plans_are_made_anew() {
    type Named = fn(&ServedPlan) -> (&'static str, Digest);
    let cases: [(&str, Named); 3] = [
        ("frame", |plan| ("frames", plan.frames[0].digest)),
        ("manifest frame", |plan| ("frames", plan.manifest_frame.digest)),
        ("plan", |plan| ("plans", Digest::of(&plan.plan_bytes))),
    ];
    for (name, named) in cases {
        for lose in [false, true] {
            let (bench, one, two) = two_versions().await;
            let plan = Plans::new(bench.depot.clone(), Effort::Quick)
                .get(Some(one.digest), two.digest, Link::Open)
                .await
                .unwrap();
            let (kind, digest) = named(&plan);
            let path = bench.dir.path().join("depot").join(kind).join(digest.to_hex());
            match lose {
                true => fs::remove_file(path).unwrap(),
                false => flip(&path),
            }
            let bench = bench.reopen().await;
            let plans = Plans::new(bench.depot.clone(), Effort::Quick);
            let plan = plans.get(Some(one.digest), two.digest, Link::Open).await.unwrap();
            install(&plans, &plan, Some(&one), &two).await;
            assert_eq!(plans.encoded(), 1, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_damaged_while_it_is_served_is_healed_when_a_host_comes_back_for_it() {
    let (bench, _, two) = two_versions().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let plan = plans.get(None, two.digest, Link::Open).await.unwrap();
    fetch_all(&plans, &plan).await.unwrap();
    let frame = plan.frames[0].digest;
    flip(&bench.dir.path().join("depot/frames").join(frame.to_hex()));
    // The host has found by the digest that its bytes do not fit, and asks from the first byte on.
    let again = fetch(&plans, &plan, vec![wanted(&frame, 0)]).await.unwrap();
    assert_eq!(Digest::of(&again[0]), frame);
    assert_eq!(plans.encoded(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_one_request_wants_twice_is_not_doubted() {
    let (bench, _, two) = two_versions().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let plan = plans.get(None, two.digest, Link::Open).await.unwrap();
    let (frame, len) = (plan.frames[0].digest, plan.frames[0].wire_len as usize);
    let path = bench.dir.path().join("depot/frames").join(frame.to_hex());
    let twice = vec![wanted(&frame, 0), wanted(&frame, 0)];
    let messages = content::fetch(&plans, host(), None, plan.target, twice, Pacing::default()).await.unwrap();
    let mut messages = std::pin::pin!(messages);
    let mut come = [0, 0];
    while let Some(v1::FrameData { frame, data }) = messages.try_next().await.unwrap() {
        come[frame as usize] += data.len();
        if come == [len, 0] {
            // Whoever looks at the frame again sees it by this.
            flip(&path);
        }
    }
    assert_eq!((come, plans.encoded()), ([len, len], 1), "it was sent twice, and looked at once");
    let again = fetch(&plans, &plan, vec![wanted(&frame, 0)]).await.unwrap();
    assert_eq!((Digest::of(&again[0]), plans.encoded()), (frame, 2), "another request doubts it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_base_gives_a_cold_plan_and_a_damaged_target_says_what_to_do() {
    let bench = Bench::new().await;
    let base = Parcel::new(&[("a", noise(1, 300_000)), ("b", noise(2, 300_000))]);
    let target = Parcel::new(&[("a", [noise(3, 10_000), noise(1, 300_000)].concat())]);
    bench.push(&base).await.unwrap();
    let packs = bench.objects("packs");
    bench.push(&target).await.unwrap();
    packs.iter().for_each(|path| fs::remove_file(path).unwrap());
    let bench = bench.reopen().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    // The target shares chunks with the base: its own are found damaged, too.
    let error = plans.get(Some(base.digest), target.digest, Link::Open).await.unwrap_err();
    assert!(matches!(&*error, PlanError::Read(_)), "{error}");
    assert!(error.to_string().contains("push the package again"), "{error}");
    bench.push(&target).await.unwrap();
    let cold = plans.get(Some(base.digest), target.digest, Link::Open).await.unwrap();
    install(&plans, &cold, None, &target).await;
    bench.push(&base).await.unwrap();
    let update = plans.get(Some(base.digest), target.digest, Link::Open).await.unwrap();
    install(&plans, &update, Some(&base), &target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_base_is_chosen_and_unknown_ones_are_passed_over() {
    let (bench, one, two) = two_versions().await;
    let other = Parcel::new(&[("x", noise(7, 1_000))]);
    bench.push(&other).await.unwrap();
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let unknown = Digest::of(b"unknown");
    for (offered, best) in [
        (vec![], None),
        (vec![unknown], None),
        (vec![unknown, other.digest], Some(other.digest)),
        (vec![other.digest, one.digest], Some(one.digest)),
        (vec![one.digest, two.digest], Some(two.digest)),
        (vec![one.digest, one.digest], Some(one.digest)),
    ] {
        assert_eq!(plans.choose_base(two.digest, &offered).await.unwrap(), best, "{offered:?}");
    }
}
