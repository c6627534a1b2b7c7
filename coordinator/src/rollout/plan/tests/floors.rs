//! What dependents need of an application while it is rolled out, and who migrates what its hosts share.

use super::*;
use crate::rollout::floor::check_room;
use crate::rollout::origin::Origin;
use crate::rollout::spec::Retry;
use crate::rollout::testing::rollout_of;
use crate::rollout::{Floor, Rollout};

fn floor(min_healthy: &str) -> Floor {
    Floor { by: Some("web".parse().unwrap()), min_healthy: min_healthy.parse().unwrap(), label: None }
}

fn needing(hosts: u32, floors: &[Floor]) -> Spec {
    Spec { floors: floors.to_vec(), ..at_once(hosts) }
}

#[test]
fn no_host_switches_that_others_need() {
    let mut world = staged(3, needing(3, &[floor("2")]));
    assert_eq!(world.go(), "open 0, activate h1");
    assert_eq!(world.blockers()[0], "web needs 2 of 3 hosts of shop in service: 2 are");
    world.answer(&["h1"], Phase::Active);
    assert_eq!(world.go(), "activate h2");
    // Whatever takes a host out counts.
    world.health(&["h1"], Some(false));
    world.answer(&["h2"], Phase::Active);
    assert_eq!(world.go(), "");
    world.health(&["h1"], Some(true));
    world.lose(&["h1"]);
    assert_eq!(world.go(), "");
    world.find(&["h1"]);
    assert_eq!(world.go(), "activate h3");
}

#[test]
fn the_strictest_of_several_floors_holds_beside_the_budget() {
    for (max_unavailable, floors, first) in [
        (4, vec![floor("1"), floor("3")], "activate h1"),
        (4, vec![floor("50%")], "activate h1, activate h2"),
        (1, vec![floor("1")], "activate h1"),
        (4, vec![floor("1%")], "activate h1, activate h2, activate h3"),
    ] {
        let mut world = staged(4, needing(max_unavailable, &floors));
        assert_eq!(world.go(), format!("open 0, {first}"), "{floors:?}");
    }
}

#[test]
fn each_site_keeps_as_many_where_that_is_asked() {
    // h1 to h4 stand in berlin, h5 and h6 in rome.
    let mut world = staged(6, needing(6, &[Floor { label: Some("site".into()), ..floor("1") }]));
    assert_eq!(world.go(), "open 0, activate h1, activate h2, activate h3, activate h5");
    assert_eq!(
        world.blockers()[..2],
        [
            "web needs 1 of 4 hosts of shop (site berlin) in service: 1 is",
            "web needs 1 of 2 hosts of shop (site rome) in service: 1 is"
        ]
    );
}

#[test]
fn hosts_that_run_nothing_yet_take_nothing_away() {
    let mut world = World::new(3, needing(3, &[floor("1")]));
    for host in ["h2", "h3"] {
        world.host(host).observed.as_mut().unwrap().current = None;
    }
    world.go();
    world.answer(&["h1", "h2", "h3"], Phase::Staged);
    assert_eq!(world.go(), "open 0, activate h2, activate h3");
    world.answer(&["h2"], Phase::Active);
    assert_eq!(world.go(), "activate h1");
}

#[test]
fn a_host_that_is_out_already_may_be_mended() {
    let mut world = staged(3, needing(3, &[floor("2")]));
    world.health(&["h3"], Some(false));
    assert_eq!(world.go(), "open 0, activate h3");
}

#[test]
fn a_retreat_keeps_to_the_floors_and_comes_to_its_end() {
    let mut world = staged(3, needing(3, &[floor("2")]));
    for host in ["h1", "h2", "h3"] {
        world.go();
        world.answer(&[host], Phase::Active);
    }
    world.go();
    world.command(Command::RollBack { reason: "by alice".into() });
    for host in ["h3", "h2", "h1"] {
        assert_eq!(world.go(), format!("restore {host}"));
        world.answer(&[host], Phase::Active);
    }
    assert_eq!(world.go(), "finish rolled-back");
}

#[test]
fn a_floor_that_leaves_no_room_is_refused_at_the_start() {
    for (hosts, min_healthy, runs, is_refused) in [
        (3, "2", true, false),
        (3, "3", true, true),
        (3, "9", true, true),
        (3, "67%", true, true),
        (3, "66%", true, false),
        (1, "1%", true, true),
        (1, "1", false, false),
    ] {
        let rollout = rollout_of(hosts, needing(1, &[floor(min_healthy)]));
        let room = check_room(&rollout, |_| runs);
        assert_eq!(room.is_err(), is_refused, "{hosts} {min_healthy} {runs}");
    }
    let alone = needing(1, &[Floor { label: Some("site".into()), ..floor("1") }]);
    let error = check_room(&rollout_of(5, alone), |_| true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "min_healthy leaves no room: web needs 1 of the 1 hosts of rome in service, and none could ever switch; \
         lower it, or add a host"
    );
}

#[test]
fn the_first_host_that_switches_migrates() {
    let mut world = staged(4, spec());
    assert_eq!(world.migrators(), Vec::<&str>::new());
    assert_eq!(world.go(), "open 0, activate h1");
    assert_eq!(world.migrators(), ["h1"]);
    world.answer(&["h1"], Phase::Active);
    world.wait(30);
    assert_eq!(world.go(), "pass 0, open 1, activate h2, activate h3");
    assert_eq!(world.migrators(), ["h1"]);
}

#[test]
fn who_migrates_is_who_could_be_ordered_first() {
    let mut world = staged(3, at_once(3));
    world.lose(&["h1"]);
    world.health(&["h2"], Some(true));
    assert_eq!(world.go(), "open 0, activate h2, activate h3");
    assert_eq!(world.migrators(), ["h2"]);
    world.find(&["h1"]);
    assert_eq!(world.go(), "activate h1");
    assert_eq!(world.migrators(), ["h2"]);
}

#[test]
fn another_migrates_only_where_the_first_has_gone_back() {
    let tolerant =
        |hosts| Spec { max_failures: Share::Count(2), max_unavailable: Share::Count(1), ..at_once(hosts) };
    let mut world = staged(3, tolerant(3));
    assert_eq!(world.go(), "open 0, activate h1");
    world.answer(&["h1"], Phase::Reverted);
    assert_eq!(world.go(), "fail h1, activate h2");
    assert_eq!(world.migrators(), ["h1", "h2"]);

    // One that is ill with the release has migrated: what it did stands until it has gone back.
    let mut world = staged(3, tolerant(3));
    world.go();
    world.answer(&["h1"], Phase::Active);
    assert_eq!(world.go(), "activate h2");
    world.health(&["h1"], Some(false));
    world.wait(15);
    world.answer(&["h2"], Phase::Active);
    world.go();
    assert_eq!(world.migrators(), ["h1"]);
}

#[test]
fn a_second_try_does_not_migrate_what_the_first_has_migrated() {
    let mut world = staged(3, Spec { max_failures: Share::Count(1), ..at_once(3) });
    world.go();
    world.answer(&["h1", "h2"], Phase::Active);
    world.answer(&["h3"], Phase::Reverted);
    assert_eq!(world.go(), "fail h3, pass 0, finish succeeded");
    let first = world.rollout.clone();
    assert!(first.has_migrated());
    let second = |first: &Rollout| {
        let retry = Some(Retry { of: first.id.clone(), is_migrated: first.has_migrated() });
        let mut world = staged(2, Spec { retry, ..at_once(2) });
        world.go();
        world.migrators().len()
    };
    assert_eq!(second(&first), 0);
    // Where it went back, so did what it had migrated.
    world.command(Command::RollBack { reason: "by alice".into() });
    world.go();
    assert_eq!(second(&world.rollout), 1);
}

#[test]
fn hosts_that_come_later_do_not_migrate_again() {
    let origin = Origin {
        environment: "shop".parse().unwrap(),
        run: 1,
        part: None,
        is_addition: true,
        needs: std::collections::BTreeMap::new(),
        beside: Vec::new(),
    };
    let mut world = staged(2, Spec { origin: Some(origin), ..at_once(2) });
    world.go();
    assert_eq!(world.migrators(), Vec::<&str>::new());
}

#[test]
fn the_first_site_may_bake_for_longer() {
    // h1 to h4 stand in berlin, h5 and h6 in rome: three batches of two.
    let two = Share::Count(2);
    let mut world = staged(
        6,
        Spec {
            strategy: crate::rollout::Strategy::Rolling { batch: two },
            max_unavailable: two,
            first_site_bake: Some(Duration::from_secs(90)),
            ..spec()
        },
    );
    for (hosts, bake) in [(["h1", "h2"], 90), (["h3", "h4"], 90), (["h5", "h6"], 30)] {
        world.go();
        world.answer(&hosts, Phase::Active);
        assert!(world.go().starts_with("bake"));
        assert_eq!(world.wakes_in(), Some(f64::from(bake)), "{hosts:?}");
        world.wait(i64::from(bake) - 1);
        assert_eq!(world.go(), "");
        world.wait(1);
        assert!(world.go().starts_with("pass"));
    }
    assert_eq!(world.rollout.state, State::Succeeded);
}
