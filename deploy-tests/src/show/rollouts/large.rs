//! A fleet of 100,000 hosts on paper: what a planning step takes, what a host weighs, how long a whole rollout takes.
//!
//! Times are those of the processor, for one thread does it all and a machine may have other work.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use sluice_common::digest::Digest;
use sluice_common::order::{Generation, Installed, Phase};
use sluice_common::units::{Share, format_duration, format_size};
use sluice_coordinator::rollout::simulate::{self, End, Odds, Pace, Scene};
use sluice_coordinator::rollout::{
    Action, Candidate, Contact, FleetView, HostView, Observed, PerDomain, Rollout, Spec, State, Strategy,
    Target, lower, plan,
};

use super::super::Options;
use super::super::board::Board;
use crate::lab::memory_of;

/// Hosts of the fleet.
const HOSTS: usize = 100_000;
/// Hosts of a site, and of a rack.
const SITE: usize = 500;
const RACK: usize = 20;
/// Longest step of the planner.
const STEP_MAX: Duration = Duration::from_millis(100);
/// Longest simulation of a whole rollout.
const RUN_MAX: Duration = Duration::from_secs(60);
/// How often a step is measured; the median counts.
const STEPS: usize = 9;

pub(super) fn run(board: &mut Board, _: &Options) -> Result<()> {
    memory(board)?;
    let begins = Timestamp::now();
    let mut scene = scene(HOSTS, begins)?;
    whole(board, &scene);
    steps(board, &mut scene, begins);
    Ok(())
}

/// One planning step at the moments at which a plan has most to look at.
fn steps(board: &mut Board, scene: &mut Scene, now: Timestamp) {
    let Scene { rollout, fleet, .. } = scene;
    let first = step(board, "nothing ordered yet", rollout, fleet, now);
    println!("       {} orders in the first plan", first.actions.len());
    for member in 0..rollout.members.len() {
        let order = Action::Order { member, generation: Generation(8), target: Target::Stage };
        rollout.apply(&order, now);
    }
    step(board, "every host is staging", rollout, fleet, now);
    for view in fleet.values_mut() {
        view.generation = Generation(8);
        if let Some(observed) = &mut view.observed {
            (observed.generation, observed.phase) = (Generation(8), Phase::Staged);
        }
    }
    step(board, "every host is staged", rollout, fleet, now);
    rollout.apply(&Action::BatchOpened { batch: 0 }, now);
    let last = rollout.batches.len() - 1;
    rollout.apply(&Action::BatchPassed { batch: last - 1 }, now);
    rollout.apply(&Action::BatchOpened { batch: last }, now);
    step(board, "the last and largest batch switches", rollout, fleet, now);
}

fn step(
    board: &mut Board,
    what: &str,
    rollout: &Rollout,
    fleet: &FleetView,
    now: Timestamp,
) -> sluice_coordinator::rollout::Plan {
    let mut made = plan(rollout, fleet, now);
    let mut times: Vec<Duration> = (0..STEPS)
        .map(|_| {
            let begun = processor();
            made = plan(rollout, fleet, now);
            processor() - begun
        })
        .collect();
    times.sort_unstable();
    let median = times[STEPS / 2];
    let figure = format!("{:.1} ms", median.as_secs_f64() * 1e3);
    board.line(&format!("a step over {HOSTS} hosts: {what}"), &figure, "under 100 ms", median < STEP_MAX);
    made
}

/// Returns the processor time that this thread has taken.
fn processor() -> Duration {
    let taken = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(taken.tv_sec.unsigned_abs(), u32::try_from(taken.tv_nsec).unwrap_or_default())
}

/// What a host weighs in the coordinator's view of a rollout, at three sizes.
fn memory(board: &mut Board) -> Result<()> {
    let mut kept = Vec::new();
    let mut weights = Vec::new();
    for hosts in [HOSTS / 4, HOSTS / 2, HOSTS] {
        let before = resident()?;
        kept.push(scene(hosts, Timestamp::now())?);
        let weight = (resident()? - before) as f64 / hosts as f64;
        println!("       {hosts} hosts: {weight:.0} B each, {}", format_size((weight * hosts as f64) as u64));
        weights.push(weight);
    }
    let (least, most) =
        weights.iter().fold((f64::MAX, 0.0_f64), |(least, most), w| (least.min(*w), most.max(*w)));
    let figure = format!("{most:.0} B, {:.2} between sizes", most / least);
    board.line(
        "memory of a host in a rollout",
        &figure,
        "up to 2 KiB, 1.00 to 1.30",
        most <= 2048.0 && most / least <= 1.3,
    );
    Ok(())
}

fn resident() -> Result<u64> {
    Ok(memory_of(std::process::id()).context("no memory of this process")?.resident)
}

/// A whole rollout: staged over thin links, in growing batches, with hosts that fail, are slow and vanish.
fn whole(board: &mut Board, scene: &Scene) {
    let odds = Odds {
        host_failure: 0.001,
        host_loss: 0.001,
        loss: Duration::from_secs(600),
        slow_host: 0.01,
        slowness: 3,
        ..Odds::NONE
    };
    let begun = processor();
    let course = simulate::run(scene, &odds, 1);
    let took = processor() - begun;
    println!(
        "       {:?} after {}; {} plans, {} hosts switched, {} went back by themselves",
        course.end,
        format_duration(course.took),
        course.plans,
        course.switched,
        course.hurt
    );
    let holds = took < RUN_MAX && course.end == End::State(State::Succeeded) && course.switched == HOSTS;
    board.line(
        &format!("a rollout over {HOSTS} hosts, simulated"),
        &format!("{:.1} s", took.as_secs_f64()),
        "under 60 s, succeeded",
        holds,
    );
}

/// A fleet that runs something else, staged by sites one after the other, and a rollout over it.
fn scene(hosts: usize, begins: Timestamp) -> Result<Scene> {
    let package = Digest::of(b"new");
    let spec = Spec {
        strategy: Strategy::Waves { waves: ["10", "1%", "10%", "50%", "100%"].map(share).to_vec() },
        max_unavailable: Share::Percent(10),
        max_failures: Share::Percent(1),
        per_domain: Some(PerDomain {
            label: "rack".into(),
            max_unavailable: Share::Percent(50),
            max_failures: None,
        }),
        bake: Duration::from_secs(600),
        ..Spec::default()
    };
    let candidate = |i: usize| -> Result<Candidate> {
        Ok(Candidate {
            host: format!("host-{i:06}").parse()?,
            site: format!("site-{:03}", i / SITE).parse()?,
            domain: Some(format!("rack-{}", i / RACK)),
            platform: if i.is_multiple_of(7) { "linux-arm" } else { "linux-x86_64" }.parse()?,
            package,
            settled: false,
        })
    };
    let batches = lower(&spec.strategy, (0..hosts).map(candidate).collect::<Result<_>>()?);
    let rollout =
        Rollout::new("r1".parse()?, "shop".parse()?, "2".parse()?, spec, batches, "alice".parse()?, begins);
    let observed = Observed {
        generation: Generation(7),
        phase: Phase::Active,
        current: Some(Installed { package: Digest::of(b"old"), version: "1".parse()? }),
        healthy: Some(true),
        reason: None,
        fetched_bytes: 0,
        fetch_total_bytes: 0,
        since: begins,
    };
    let view = HostView {
        contact: Some(Contact { since: begins, last: begins }),
        observed: Some(observed),
        generation: Generation(7),
    };
    let fleet: FleetView = rollout.members.iter().map(|member| (member.host.clone(), view.clone())).collect();
    let pace = |i: usize| Pace {
        stage: Duration::from_secs(60 + (i % SITE) as u64 * 7),
        candidate: Duration::from_secs(5),
        switch: Duration::from_secs(2 + (i % 9) as u64),
    };
    Ok(Scene { rollout, fleet, paces: (0..hosts).map(pace).collect(), begins })
}

fn share(text: &str) -> Share {
    text.parse().expect("a share")
}
