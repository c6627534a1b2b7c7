//! Plans made ahead and made better: by one coordinator, by two, by one that dies; and what hosts are served meanwhile.

use std::num::NonZeroUsize;

use async_trait::async_trait;
use sluice_common::transfer::Effort;
use tokio::sync::watch;

use super::plans::{fetch, install, two_versions, wanted};
use super::*;
use crate::depot::plans::demand::{Forecast, Outlook, Standing};
use crate::depot::plans::improver::Options;
use crate::depot::plans::overview::State;
use crate::depot::plans::queue::Lane;
use crate::depot::plans::{Improver, Link, Plans, Policy};
use crate::store;

/// A fleet that stands still.
pub(super) struct Still(Outlook, watch::Sender<u64>);

#[async_trait]
impl Forecast for Still {
    async fn outlook(&self) -> Result<Outlook, store::Error> {
        Ok(self.0.clone())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.1.subscribe()
    }
}

/// Makes the planning ahead for hosts on limited links that have `one` and are ordered to have `two`.
pub(super) fn improver(
    plans: &Arc<Plans>,
    hosts: &[(Option<Digest>, Digest)],
    policy: Policy,
) -> Arc<Improver> {
    let limit = Some("1MB/s".parse().unwrap());
    let standing =
        |(has, ordered): &(_, _)| Standing { has: *has, ordered: Some(*ordered), newest: None, limit };
    let outlook = Outlook { hosts: hosts.iter().map(standing).collect(), released: Vec::new() };
    let options = Options { policy, workers: NonZeroUsize::MIN };
    Improver::new(plans.clone(), Arc::new(Still(outlook, watch::Sender::new(0))), options)
}

/// Returns where the plans of both efforts stand.
async fn states(improver: &Improver, base: Option<Digest>, target: Digest) -> Vec<(Effort, State)> {
    let plans = improver.overview(None).await.unwrap();
    let of_route = plans.into_iter().filter(|p| (p.base, p.target) == (base, target));
    of_route.map(|p| (p.effort, p.state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_are_there_before_hosts_ask_and_get_better_while_they_are_served() {
    let (bench, one, two) = two_versions().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let (from, to) = (Some(one.digest), two.digest);
    let improver = improver(&plans, &[(from, to), (from, to)], Policy::Improve);
    let queued = State::Queued { place: 1 };
    assert_eq!(states(&improver, from, to).await, [(Effort::Quick, queued)]);
    while improver.step(Lane::Ahead).await.unwrap() {}
    // The update, and both packages cold: they were just pushed.
    assert_eq!(plans.encoded(), 3);
    let quick = plans.get(from, to, Link::Limited).await.unwrap();
    let (is_quick, is_best) = ((Effort::Quick, State::Ready), (Effort::Best, queued));
    assert_eq!((states(&improver, from, to).await, plans.encoded()), (vec![is_quick, is_best], 3));

    while improver.step(Lane::Better).await.unwrap() {}
    assert_eq!(plans.encoded(), 4, "what nobody is to have stays quick");
    let best = plans.get(from, to, Link::Limited).await.unwrap();
    assert!(best.wire_bytes() < quick.wire_bytes(), "{} of {}", best.wire_bytes(), quick.wire_bytes());
    install(&plans, &best, Some(&one), &two).await;
    let open = plans.get(from, to, Link::Open).await.unwrap();
    assert_eq!(open.plan_bytes, quick.plan_bytes, "an open link is served what is restored soonest");
    let views = improver.overview(Some(one.digest)).await.unwrap().into_iter().filter(|p| p.base == from);
    let views: Vec<_> = views.map(|view| (view.effort, view.state, view.hosts, view.wire_bytes)).collect();
    let (quick_bytes, best_bytes) = (quick.wire_bytes(), best.wire_bytes());
    let expected =
        [(Effort::Quick, State::Ready, 0, quick_bytes), (Effort::Best, State::Ready, 2, best_bytes)];
    assert_eq!(views, expected);

    // A host that began with the quick plan goes on with it, also after restarts and collections.
    install(&plans, &quick, Some(&one), &two).await;
    let bench = bench.reopen().await;
    bench.collect(Duration::ZERO).await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    install(&plans, &quick, Some(&one), &two).await;
    install(&plans, &best, Some(&one), &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_frame_of_a_best_plan_costs_nobody_minutes() {
    let (bench, one, two) = two_versions().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let (from, to) = (Some(one.digest), two.digest);
    let quick = plans.get(from, to, Link::Limited).await.unwrap();
    let improver = improver(&plans, &[(from, to)], Policy::Improve);
    while improver.step(Lane::Better).await.unwrap() {}
    let best = plans.get(from, to, Link::Limited).await.unwrap();
    let frame = best.frames[0].digest;
    flip(&bench.dir.path().join("depot/frames").join(frame.to_hex()));
    let encoded = plans.encoded();
    let gone = fetch(&plans, &best, vec![wanted(&frame, 0)]).await.unwrap_err();
    assert_eq!(gone.code(), tonic::Code::NotFound, "{gone}");
    assert!(gone.message().contains("ask for the plan again"), "{gone}");
    assert_eq!(plans.get(from, to, Link::Limited).await.unwrap().plan_bytes, quick.plan_bytes);
    assert_eq!(plans.encoded(), encoded);
    while improver.step(Lane::Better).await.unwrap() {}
    install(&plans, &plans.get(from, to, Link::Limited).await.unwrap(), Some(&one), &two).await;
    assert_eq!(plans.encoded(), encoded + 1, "it was made again in the background");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_over_one_depot_do_no_work_twice() {
    let (bench, one, two) = two_versions().await;
    let other = bench.beside().await;
    let (a, b) = (Plans::new(bench.depot.clone(), Effort::Quick), Plans::new(other.clone(), Effort::Quick));
    let (from, to) = (Some(one.digest), two.digest);
    let hosts = [(from, to), (None, to)];
    let (first, second) = (improver(&a, &hosts, Policy::Improve), improver(&b, &hosts, Policy::Improve));
    for lane in [Lane::Ahead, Lane::Better] {
        let (first, second) = (first.clone(), second.clone());
        let work = async |improver: Arc<Improver>| while improver.step(lane).await.unwrap() {};
        tokio::join!(work(first), work(second));
    }
    // Three quick plans, two of them made better.
    assert_eq!(a.encoded() + b.encoded(), 5);
    let frames = |plans: &Arc<Plans>| {
        let plans = plans.clone();
        async move { plans.get(from, to, Link::Limited).await.unwrap().plan_bytes.clone() }
    };
    first.step(Lane::Better).await.unwrap();
    second.step(Lane::Better).await.unwrap();
    assert_eq!(frames(&a).await, frames(&b).await, "both serve what one has made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_may_take_its_plan_from_one_coordinator_and_its_frames_from_another() {
    let (bench, one, two) = two_versions().await;
    let (a, b) =
        (Plans::new(bench.depot.clone(), Effort::Quick), Plans::new(bench.beside().await, Effort::Quick));
    let (from, to) = (Some(one.digest), two.digest);
    let quick = b.get(from, to, Link::Limited).await.unwrap();
    while improver(&a, &[(from, to)], Policy::Improve).step(Lane::Better).await.unwrap() {}
    let best = a.get(from, to, Link::Limited).await.unwrap();
    // The other one still has the quick plan in memory.
    install(&b, &best, Some(&one), &two).await;
    install(&a, &quick, Some(&one), &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_no_half_plan_and_holds_the_work_up_only_for_a_lease() {
    let (bench, one, two) = two_versions().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let (from, to) = (Some(one.digest), two.digest);
    let quick = plans.get(from, to, Link::Limited).await.unwrap();
    let dead = improver(&plans, &[(from, to)], Policy::Improve);
    // Cut off as soon as it holds the plan, as a kill does: nothing is given back.
    let mut step = Box::pin(dead.step(Lane::Better));
    while bench.count("depot_plan_leases").await == 0 {
        assert!(futures::poll!(&mut step).is_pending(), "it ended before it was cut off");
        tokio::task::yield_now().await;
    }
    drop(step);
    let bench = bench.reopen().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let next = improver(&plans, &[(from, to)], Policy::Improve);
    assert!(!next.step(Lane::Better).await.unwrap(), "the plan is held");
    assert_eq!(plans.get(from, to, Link::Limited).await.unwrap().plan_bytes, quick.plan_bytes);
    install(&plans, &quick, Some(&one), &two).await;
    expire_leases(&bench).await;
    assert!(next.step(Lane::Better).await.unwrap());
    let best = plans.get(from, to, Link::Limited).await.unwrap();
    assert!(best.wire_bytes() < quick.wire_bytes());
    install(&plans, &best, Some(&one), &two).await;
    assert_eq!(bench.count("depot_plan_leases").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_while_its_plan_is_stored_by_the_same_writer() {
    let (bench, one, two) = two_versions().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let (from, to) = (Some(one.digest), two.digest);
    plans.get(from, to, Link::Limited).await.unwrap();
    let mut improver = improver(&plans, &[(from, to)], Policy::Improve);
    // So short that it falls into the transaction of the plan.
    Arc::get_mut(&mut improver).unwrap().renewal_interval = Duration::from_millis(1);
    // Far below what the database is waited for: each waiting for the other would take that long.
    let step = tokio::time::timeout(Duration::from_secs(20), improver.step(Lane::Better));
    assert!(step.await.expect("renewal and plan do not wait for each other").unwrap());
    assert!(states(&improver, from, to).await.contains(&(Effort::Best, State::Ready)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_a_package_that_is_forgotten_meanwhile_is_not_kept() {
    let (bench, one, two) = two_versions().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let (from, to) = (Some(one.digest), two.digest);
    plans.get(from, to, Link::Limited).await.unwrap();
    let improver = improver(&plans, &[(from, to)], Policy::Improve);
    let mut step = Box::pin(improver.step(Lane::Better));
    while plans.encoded() < 2 {
        assert!(futures::poll!(&mut step).is_pending(), "it ended before its packages were read");
        tokio::task::yield_now().await;
    }
    let ages = Ages { unreleased: Duration::ZERO, orphan: Duration::ZERO };
    let mut tx = bench.store.begin(store::Actor::console()).await.unwrap();
    for sql in ["DELETE FROM packages", "DELETE FROM depot_plan_frames", "DELETE FROM depot_plans"] {
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
    }
    tx.commit_observation().await.unwrap();
    assert!(step.await.unwrap());
    assert_eq!((bench.count("depot_plans").await, bench.count("depot_plan_frames").await), (0, 0));
    bench.depot.collect(ages, Mode::Remove, store::Actor::console()).await.unwrap();
    assert_eq!(bench.objects("frames"), Vec::<PathBuf>::new(), "nothing names what was made");
}

async fn expire_leases(bench: &Bench) {
    let mut tx = bench.store.begin(store::Actor::console()).await.unwrap();
    sqlx::query("UPDATE depot_plan_leases SET expires_ms = 0").execute(&mut *tx).await.unwrap();
    tx.commit_observation().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_better_is_left_alone() {
    let bench = Bench::new().await;
    let (one, two) = (Parcel::new(&[("a", noise(1, 50_000))]), Parcel::new(&[("a", noise(2, 50_000))]));
    bench.push(&one).await.unwrap();
    bench.push(&two).await.unwrap();
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let (from, to) = (Some(one.digest), two.digest);
    let quick = plans.get(from, to, Link::Limited).await.unwrap();
    let improver = improver(&plans, &[(from, to)], Policy::Improve);
    assert!(improver.step(Lane::Better).await.unwrap());
    assert!(!improver.step(Lane::Better).await.unwrap(), "it is tried once");
    let after = plans.get(from, to, Link::Limited).await.unwrap();
    assert!(after.wire_bytes() <= quick.wire_bytes());
    let ready = [(Effort::Quick, State::Ready), (Effort::Best, State::Ready)];
    assert_eq!(states(&improver, from, to).await, ready);

    // A package that is damaged in the depot is not tried again and again.
    let three = Parcel::new(&[("a", noise(3, 50_000))]);
    bench.push(&three).await.unwrap();
    bench.damage("packs");
    let bench = bench.reopen().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let improver = self::improver(&plans, &[(None, three.digest)], Policy::Quick);
    while improver.step(Lane::Ahead).await.unwrap() {}
    assert_eq!(states(&improver, None, three.digest).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_work_by_themselves_and_stop_when_told() {
    let (bench, one, two) = two_versions().await;
    let plans = Plans::new(bench.depot.clone(), Effort::Quick);
    let (from, to) = (Some(one.digest), two.digest);
    let improver = improver(&plans, &[(from, to)], Policy::Improve);
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(improver.clone().run(bench.token.clone()));
    while !states(&improver, from, to).await.contains(&(Effort::Best, State::Ready)) {
        tokio::task::yield_now().await;
    }
    bench.token.cancel();
    tasks.close();
    tasks.wait().await;
    assert_eq!(bench.count("depot_plan_leases").await, 0);
}
