//! What a run on paper says is what the planner does.

use sluice_common::order::{Generation, Phase};
use sluice_common::units::Share;

use super::spread::{Quantiles, Spread};
use super::*;
use crate::rollout::sim::fixture::{at, predecessor, rollout_of};
use crate::rollout::{Contact, HostView, Observed, OnFailure, Spec, Strategy};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn scene(hosts: usize, spec: Spec) -> Scene {
    let rollout = rollout_of(hosts, spec);
    let observed = Observed {
        generation: Generation(7),
        phase: Phase::Active,
        current: Some(predecessor()),
        healthy: Some(true),
        reason: None,
        fetched_bytes: 0,
        fetch_total_bytes: 0,
        since: at(0),
    };
    let view = HostView {
        contact: Some(Contact { since: at(0), last: at(0) }),
        observed: Some(observed),
        generation: Generation(7),
    };
    let fleet = rollout.members.iter().map(|member| (member.host.clone(), view.clone())).collect();
    let paces = vec![Pace { stage: seconds(100), candidate: seconds(20), switch: seconds(5) }; hosts];
    Scene { rollout, fleet, paces, begins: at(0) }
}

fn canary() -> Spec {
    let strategy = Strategy::Canary { canary: Share::Count(1), batch: Share::Percent(50) };
    Spec { strategy, max_unavailable: Share::Percent(50), ..Spec::default() }
}

const BAD: Odds = Odds { bad_release: 1.0, ..Odds::NONE };

#[test]
fn where_nothing_is_awry_the_times_add_up() {
    let course = run(&scene(9, canary()), &Odds::NONE, 1);
    assert_eq!(course.end, End::State(State::Succeeded));
    assert_eq!(course.staged, Some(seconds(100)));
    // Staged, then three batches (1, 5, 3), the second of which may have four hosts out at once: two rounds.
    let times = |batch: usize| (course.batches[batch].opened, course.batches[batch].passed);
    assert_eq!(times(0), (Some(seconds(100)), Some(seconds(135))));
    assert_eq!(times(1), (Some(seconds(135)), Some(seconds(175))));
    assert_eq!(times(2), (Some(seconds(175)), Some(seconds(210))));
    assert_eq!((course.took, course.switched, course.hurt), (seconds(210), 9, 0));
    assert_eq!(course.waits[0].until, Some(seconds(100)));
    assert!(course.waits[0].what.starts_with("staging: 0 of 9 hosts"), "{:?}", course.waits);
}

#[test]
fn a_bad_release_hurts_the_canary_alone_unless_it_shows_after_the_bake() {
    for (after, bake, hurt) in [(0, 30, 1), (10, 30, 1), (600, 30, 9), (600, 900, 1)] {
        let scene = scene(9, Spec { bake: seconds(bake), ..canary() });
        let odds = Odds { bad_after: seconds(after), ..BAD };
        let course = run(&scene, &odds, 1);
        assert_eq!(course.hurt, hurt, "{after} s, {bake} s: {course:?}");
        let has_stopped = matches!(course.end, End::State(State::RolledBack { .. }));
        assert_eq!(has_stopped, hurt == 1, "{course:?}");
    }
}

#[test]
fn a_run_leaps_to_the_window_and_says_that_it_waited() {
    let mut spec = canary();
    // The simulated day begins at 08:00.
    spec.calendar.windows.push("daily 20:00-23:00 UTC".parse().unwrap());
    let course = run(&scene(4, spec), &Odds::NONE, 1);
    assert_eq!(course.batches[0].opened, Some(seconds(12 * 3600)));
    let window = course.waits.iter().find(|wait| wait.what.contains("window")).unwrap();
    assert_eq!((window.from, window.until), (seconds(0), Some(seconds(12 * 3600))));
    assert!(course.plans < 60, "{}", course.plans);
}

#[test]
fn a_run_that_nothing_would_ever_let_go_on_ends() {
    let mut scene = scene(4, canary());
    scene.fleet.get_mut(&"h4".parse().unwrap()).unwrap().contact = None;
    let course = run(&scene, &Odds::NONE, 1);
    assert_eq!(course.end, End::Waits);
    let wait = course.waits.last().unwrap();
    assert!(wait.until.is_none() && wait.what.contains("h4"), "{course:?}");
}

#[test]
fn one_seed_is_one_course_and_lost_hosts_come_back() {
    let odds = Odds { host_loss: 0.5, loss: seconds(300), slow_host: 0.5, slowness: 3, ..Odds::NONE };
    let scene = scene(30, canary());
    let courses: Vec<Course> = (0..50).map(|seed| run(&scene, &odds, seed)).collect();
    assert_eq!(courses[7], run(&scene, &odds, 7));
    assert!(courses.iter().all(|course| course.end == End::State(State::Succeeded)), "{courses:?}");
    let spread = Spread::of(&courses);
    assert!(spread.succeeded.p50 < spread.succeeded.max, "{spread:?}");
    assert!(spread.succeeded.p50 > seconds(300 + 300), "{spread:?}");
}

#[test]
fn failures_stop_a_run_as_the_spec_says() {
    let odds = Odds { host_failure: 1.0, ..Odds::NONE };
    let paused = run(&scene(4, Spec { on_failure: OnFailure::Pause, ..canary() }), &odds, 1);
    assert!(matches!(paused.end, End::State(State::Paused { .. })), "{paused:?}");
    let spread = Spread::of(&[paused, run(&scene(4, canary()), &BAD, 1)]);
    assert_eq!((spread.bad_runs, spread.bad_unnoticed, spread.hurt_by_bad.max), (1, 0, 1));
    assert_eq!(spread.ends.keys().copied().collect::<Vec<_>>(), ["paused", "rolled-back"]);
}

#[test]
fn quantiles_are_nearest_ranks() {
    assert_eq!(Quantiles::of(1..=200), Quantiles { p50: 100, p90: 180, p99: 198, max: 200 });
    assert_eq!(Quantiles::of([5]), Quantiles { p50: 5, p90: 5, p99: 5, max: 5 });
    assert_eq!(Quantiles::<u32>::of([]), Quantiles::default());
}
