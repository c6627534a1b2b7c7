//! Hosts that come later.

use super::*;

fn standing(text: &str) -> World {
    let mut world = World::of(text);
    for view in world.view.values_mut() {
        view.hosts.iter_mut().for_each(settle);
    }
    assert!(world.go().ends_with("standing"));
    world.standing = Some(world.wanted.clone());
    world
}

#[test]
fn hosts_that_come_later_are_brought_up_in_the_order_of_needs() {
    let mut world = standing("b:a a");
    for name in ["a", "b"] {
        world.app(name).hosts.push(host("h13", "berlin"));
    }
    assert_eq!(world.go(), "start a h13");
    assert_eq!(world.blockers(), "a: r1 is running; b: waiting for a: b needs a");
    // Another one waits for the small rollout that is under way.
    world.app("b").hosts.push(host("h14", "berlin"));
    assert_eq!(world.go(), "");
    world.succeed("a");
    assert_eq!(world.go(), "start b h13 h14");
    world.succeed("b");
    assert_eq!((world.go(), world.blockers()), (String::new(), String::new()));
    assert_eq!(world.state, State::Standing);
}

#[test]
fn a_host_that_comes_later_and_fails_is_left_to_a_person() {
    let mut world = standing("a");
    world.app("a").hosts.push(host("h13", "berlin"));
    assert_eq!(world.go(), "start a h13");
    world.fail_addition();
    assert_eq!((world.go().as_str(), world.blockers().as_str()), ("", "a: r1 is rolled-back: 503"));
    assert_eq!(world.state, State::Standing);
}

impl World {
    fn fail_addition(&mut self) {
        self.app("a").attempts[0].state = RolloutState::RolledBack { reason: "503".into() };
        self.app("a").hosts.iter_mut().filter(|host| !host.is_settled).for_each(|host| host.was_tried = true);
    }
}

#[test]
fn who_runs_something_else_or_cannot_be_heard_is_no_addition() {
    let mut world = standing("a");
    let other = Some(Installed { package: Digest::of(b"0"), version: "0".parse().unwrap() });
    world.app("a").hosts.push(HostView { running: other, ..host("h13", "berlin") });
    world.app("a").hosts.push(HostView { is_reachable: false, ..host("h14", "berlin") });
    world.app("a").hosts.push(HostView { platform: None, ..host("h15", "berlin") });
    assert_eq!(world.go(), "");
}

#[test]
fn after_a_failure_hosts_get_what_their_neighbours_run() {
    let mut world = standing("a b");
    // A run brings a, fails with b, and stops.
    (world.state, world.app("b").has_stood) = (State::Stopped { reason: "b failed".into() }, false);
    for name in ["a", "b"] {
        world.app(name).hosts.push(host("h13", "berlin"));
    }
    assert_eq!(world.go(), "start a h13, start b h13");
    // Where nothing stood before, nothing is brought.
    let mut world = World::of("a");
    world.state = State::Stopped { reason: "failed".into() };
    assert_eq!(world.go(), "");
}
