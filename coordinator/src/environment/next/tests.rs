//! Stories of runs: what is begun, what waits for what, how it goes back, how hosts come later.

use sluice_common::digest::Digest;
use sluice_common::name::RolloutId;
use sluice_common::order::Installed;
use sluice_common::selector::Labels;

use super::super::view::HostView;
use super::*;
use crate::rollout::State as RolloutState;

mod later;

/// An environment on paper; each application has hosts of its own unless a test says otherwise.
struct World {
    wanted: Environment,
    standing: Option<Environment>,
    state: State,
    view: View,
    rollouts: usize,
}

/// Writes a file: `a b:a` is two applications, of which b needs a; `?` marks an optional need, `*` an atomic application.
fn file(text: &str, top: &str) -> Environment {
    let mut out = format!("environment = \"e\"\n{top}\n");
    for word in text.split_whitespace() {
        let (name, needs) = word.split_once(':').unwrap_or((word, ""));
        let (name, atomic) = name.strip_suffix('*').map_or((name, false), |name| (name, true));
        let need = |need: &str| match need.strip_suffix('?') {
            Some(app) => format!("{{ app = \"{app}\", optional = true, fallback = \"does without\" }}"),
            None => format!("{{ app = \"{need}\" }}"),
        };
        let needs: Vec<String> = needs.split(',').filter(|n| !n.is_empty()).map(need).collect();
        out += &format!(
            "[applications.{name}]\nrelease = \"1\"\nselector = \"*\"\natomic = {atomic}\nneeds = [{}]\n",
            needs.join(", ")
        );
    }
    Environment::parse(&out).unwrap()
}

fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

fn host(name: &str, site: &str) -> HostView {
    HostView {
        name: name.parse().unwrap(),
        site: site.parse().unwrap(),
        labels: Labels::new(),
        platform: Some("linux-x86_64".parse().unwrap()),
        is_reachable: true,
        package: Some(Digest::of(b"1")),
        running: None,
        healthy: None,
        is_settled: false,
        was_tried: false,
    }
}

fn settle(host: &mut HostView) {
    host.running = Some(Installed { package: Digest::of(b"1"), version: "1".parse().unwrap() });
    host.is_settled = true;
}

impl World {
    fn of(text: &str) -> Self {
        Self::with(text, "")
    }

    fn with(text: &str, top: &str) -> Self {
        let wanted = file(text, top);
        let of = |app: &AppName| {
            let hosts = vec![host(&format!("{app}1"), "berlin"), host(&format!("{app}2"), "berlin")];
            (app.clone(), AppView { is_released: true, hosts, ..AppView::default() })
        };
        let view = wanted.applications().keys().map(of).collect();
        Self { wanted, standing: None, state: State::Applying, view, rollouts: 0 }
    }

    fn app(&mut self, name: &str) -> &mut AppView {
        self.view.get_mut(&app(name)).unwrap()
    }

    fn next(&self) -> Step {
        next(&self.wanted, self.standing.as_ref(), &self.state, &self.view)
    }

    /// Does what is planned until nothing is left to do; returns it in short words.
    fn go(&mut self) -> String {
        let mut words = Vec::new();
        for _ in 0..100 {
            let step = self.next();
            if step.actions.is_empty() {
                return words.join(", ");
            }
            for action in step.actions {
                words.push(self.perform(action));
            }
        }
        panic!("the planner never comes to rest: {}", words.join(", "));
    }

    fn perform(&mut self, action: Action) -> String {
        match action {
            Action::Start { app, part, hosts, is_addition, beside: _ } => {
                self.rollouts += 1;
                let rollout: RolloutId = format!("r{}", self.rollouts).parse().unwrap();
                let of: Vec<String> = part
                    .iter()
                    .map(|site| format!("@{site}"))
                    .chain(hosts.iter().map(|h| format!(" {h}")))
                    .collect();
                let word = format!("start {app}{}", of.concat());
                let attempt = Attempt { rollout, part, is_addition, state: RolloutState::Running };
                self.view.get_mut(&app).unwrap().attempts.push(attempt);
                word
            }
            Action::TakeBack { rollout, .. } => {
                let (app, attempt) = self.find(&rollout);
                attempt.state = RolloutState::RollingBack { reason: "no".into() };
                format!("take back {app}")
            }
            Action::Settle { app } => {
                self.view.get_mut(&app).unwrap().has_stood = true;
                format!("{app} stands")
            }
            Action::Enter(state) => {
                let word = state.to_string();
                self.state = state;
                word
            }
        }
    }

    fn find(&mut self, rollout: &RolloutId) -> (AppName, &mut Attempt) {
        let found = self.view.iter_mut().find_map(|(app, view)| {
            let attempt = view.attempts.iter_mut().find(|attempt| attempt.rollout == *rollout)?;
            Some((app.clone(), attempt))
        });
        found.unwrap()
    }

    /// Ends the open rollout of some applications well.
    fn succeed(&mut self, apps: &str) {
        for name in apps.split_whitespace() {
            let environment = self.wanted.clone();
            let view = self.app(name);
            let attempt = view.attempts.iter_mut().find(|attempt| attempt.fate() == Fate::Open).unwrap();
            attempt.state = RolloutState::Succeeded;
            let part = attempt.part.clone();
            view.hosts.iter_mut().filter(|h| environment.part(&h.site) == part.as_ref()).for_each(settle);
        }
    }

    /// Ends the open rollout of some applications badly.
    fn fail(&mut self, apps: &str) {
        for name in apps.split_whitespace() {
            let view = self.app(name);
            let attempt = view.attempts.iter_mut().find(|a| a.fate() != Fate::Lost).unwrap();
            attempt.state = RolloutState::RolledBack { reason: "503".into() };
            for host in view.hosts.iter_mut().filter(|host| !host.is_settled) {
                host.was_tried = true;
            }
        }
    }

    fn blockers(&self) -> String {
        self.next().blockers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

#[test]
fn what_is_needed_comes_first_and_what_is_independent_comes_beside_it() {
    for (name, text, waves) in [
        ("chain", "c:b b:a a", "a|b|c"),
        ("diamond", "d:b,c b:a c:a a", "a|b c|d"),
        ("independent", "a b c", "a b c"),
        ("atomic cycle", "a*:b b*:a c:a", "a b|c"),
        ("optional", "b:a? a", "a|b"),
        ("optional missing", "b:z? a", "a b"),
    ] {
        let mut world = World::of(text);
        for (number, wave) in waves.split('|').enumerate() {
            let started = world.go();
            let expected: Vec<String> = wave.split(' ').map(|app| format!("start {app}")).collect();
            assert!(started.ends_with(&expected.join(", ")), "{name}, wave {number}: {started}");
            world.succeed(wave);
        }
        assert!(world.go().ends_with("standing"), "{name}");
        assert_eq!(world.next(), Step::default(), "{name}");
    }
}

#[test]
fn a_run_begins_only_what_is_not_there() {
    let mut world = World::of("b:a a");
    world.app("a").hosts.iter_mut().for_each(settle);
    assert_eq!(world.go(), "a stands, start b");
    let mut world = World::of("a");
    settle(&mut world.app("a").hosts[0]);
    assert_eq!(world.go(), "start a");
}

#[test]
fn a_failure_stops_what_depends_on_it_and_nothing_else() {
    let mut world = World::of("a b:a c d:c");
    assert_eq!(world.go(), "start a, start c");
    world.fail("a");
    assert_eq!(world.go(), "");
    assert_eq!(
        world.blockers(),
        "a: r1 is rolled-back: 503; b: waiting for a: b needs a; c: r2 is running; d: waiting for c: d needs c"
    );
    world.succeed("c");
    assert_eq!(world.go(), "c stands, start d");
    world.succeed("d");
    assert_eq!(world.go(), "d stands, stopped");
    assert_eq!(world.state.reason(), Some("a: r1 is rolled-back: 503"));
    assert_eq!(world.go(), "");
}

#[test]
fn a_failure_takes_the_run_back_in_reverse_order_where_the_file_says_so() {
    let mut world = World::with("a b:a c:b x", "on_failure = \"rollback\"");
    assert_eq!(world.go(), "start a, start x");
    world.succeed("a");
    assert_eq!(world.go(), "a stands, start b");
    world.succeed("b");
    assert_eq!(world.go(), "b stands, start c");
    world.fail("c");
    // What is under way beside it goes back at once, what others stand on only after them.
    assert_eq!(world.go(), "rolling-back, take back x, take back b");
    assert_eq!(
        world.blockers(),
        "x: r2 is rolling-back: no; b: r3 is rolling-back: no; a: b goes back first"
    );
    world.fail("b");
    assert_eq!(world.go(), "take back a");
    world.fail("a x");
    assert_eq!(world.go(), "rolled-back");
}

#[test]
fn members_of_an_atomic_unit_know_what_they_come_together_with() {
    let begun = |world: &World| -> Vec<String> {
        let beside = |action: Action| match action {
            Action::Start { app, beside, .. } => {
                let names: Vec<&str> = beside.iter().map(AppName::as_str).collect();
                Some(format!("{app} with {}", names.join(" ")))
            }
            _ => None,
        };
        world.next().actions.into_iter().filter_map(beside).collect()
    };
    let mut world = World::of("a*:b b*:c c*:a d");
    assert_eq!(begun(&world), ["a with b c", "b with a c", "c with a b", "d with "]);
    // A coordinator that died after the first of them finds it under way.
    let first = world.next().actions.remove(0);
    world.perform(first);
    assert_eq!(begun(&world), ["b with a c", "c with a b", "d with "]);
    // What stands already is not waited for, nor what no host is for.
    let mut world = World::of("a*:b b*:c c*:a");
    world.app("a").hosts.iter_mut().for_each(settle);
    world.app("c").hosts.clear();
    assert_eq!(begun(&world), ["b with "]);
}

#[test]
fn an_atomic_unit_begins_and_goes_back_as_one() {
    let mut world = World::of("a*:b,z b*:a z");
    assert_eq!(world.go(), "start z");
    assert_eq!(
        world.blockers(),
        "z: r1 is running; a: waiting for z: a needs z; b: waiting for z: a needs z"
    );
    world.succeed("z");
    assert_eq!(world.go(), "z stands, start a, start b");
    world.succeed("b");
    assert_eq!(world.go(), "b stands");
    world.fail("a");
    assert_eq!(world.go(), "take back b");
    world.fail("b");
    assert_eq!(world.go(), "stopped");
}

#[test]
fn what_cannot_begin_says_why() {
    type Change = fn(&mut World);
    let cases: [(&str, Change, &str); 7] = [
        (
            "no host",
            |w| w.app("a").hosts.clear(),
            "a: no host matches its selection yet; b: waiting for a host that a is for: b needs a",
        ),
        (
            "closed",
            |w| w.app("a").closed_by = Some("r9".parse().unwrap()),
            "a: closed to new rollouts since r9 failed; run: sluice app reopen a --cause \"...\"; b: waiting for a: b needs a",
        ),
        (
            "busy",
            |w| w.app("a").others = vec!["r9".parse().unwrap()],
            "a: rollout r9 has to end first; b: waiting for a: b needs a",
        ),
        (
            "no release",
            |w| w.app("a").is_released = false,
            "a: there is no release 1; see: sluice release list a; b: waiting for a: b needs a",
        ),
        (
            "no package",
            |w| w.app("a").hosts.iter_mut().for_each(|h| h.package = None),
            "a: release 1 has no package for the platform of a1, a2; b: waiting for a: b needs a",
        ),
        (
            "unheard",
            |w| w.app("a").hosts.iter_mut().for_each(|h| (h.package, h.platform) = (None, None)),
            "a: waiting for the first session of a1, a2; b: waiting for a: b needs a",
        ),
        (
            "paused",
            |w| {
                w.go();
                w.app("a").attempts[0].state = RolloutState::Paused { reason: "look".into() };
            },
            "a: r1 is paused: look; b: waiting for a: b needs a",
        ),
    ];
    for (name, change, expected) in cases {
        let mut world = World::of("b:a a");
        change(&mut world);
        assert_eq!(world.next().actions, [], "{name}");
        assert_eq!(world.blockers(), expected, "{name}");
        let is_first_human = world.next().blockers[0].needs_operator();
        assert_eq!(is_first_human, name != "busy", "{name}");
    }
}

#[test]
fn an_optional_need_that_nobody_can_meet_holds_nobody_up() {
    let mut world = World::of("b:a? a");
    world.app("a").hosts.clear();
    assert_eq!(world.go(), "start b");
    let mut world = World::of("b:a? a");
    world.go();
    world.fail("a");
    assert_eq!(world.go(), "start b");
}

#[test]
fn sites_with_a_calendar_of_their_own_come_after_the_others() {
    let mut world = World::with("a", "[sites.lisbon]\nwindows = [\"daily 02:00-05:00 Europe/Lisbon\"]");
    world.app("a").hosts.push(host("l1", "lisbon"));
    assert_eq!(world.go(), "start a");
    world.succeed("a");
    assert_eq!(world.go(), "start a@lisbon");
    world.succeed("a");
    assert_eq!(world.go(), "a stands, standing");
}

#[test]
fn hosts_of_unknown_platform_do_not_hold_up_the_others() {
    let mut world = World::of("a");
    let silent = HostView { platform: None, package: None, ..host("a3", "berlin") };
    world.app("a").hosts.push(silent);
    assert_eq!(world.go(), "start a a1 a2");
    world.succeed("a");
    let third = world.app("a").hosts.last_mut().unwrap();
    (third.running, third.is_settled) = (None, false);
    assert_eq!(world.go(), "a stands, standing");
    let third = world.app("a").hosts.last_mut().unwrap();
    (third.platform, third.package) = (Some("linux-arm".parse().unwrap()), Some(Digest::of(b"arm")));
    assert_eq!(world.go(), "start a a3");
}
