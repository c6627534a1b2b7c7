use std::collections::BTreeSet;

use super::*;

/// Every hook, in the order of a life.
pub(crate) const HOOKS: [&str; 13] = [
    "stage",
    "candidate",
    "drain",
    "stop",
    "switch",
    "start",
    "reload",
    "validate",
    "undrain",
    "rollback",
    "snapshot",
    "migrate",
    "restore",
];

fn spec(text: &str) -> Spec {
    Spec::parse(text).unwrap()
}

/// A spec with these hooks.
fn with(hooks: &str) -> Spec {
    let tables = hooks.split_whitespace().map(|hook| format!("[hooks.{hook}]\ncommand = [\"x\"]\n"));
    spec(&tables.collect::<String>())
}

fn names<T: Serialize>(steps: &[T]) -> String {
    let name = |step: &T| serde_json::to_value(step).unwrap().as_str().unwrap().to_owned();
    steps.iter().map(name).collect::<Vec<_>>().join(" ")
}

fn change<'a>(old: Option<&'a Spec>, new: Option<&'a Spec>) -> Change<'a> {
    Change { old, new, migrates: true, returns: false, has_snapshot: false, runs_beside: false }
}

const PARALLEL: &str = "[parallel]\nslots = { blue = { PORT = \"1\" }, green = { PORT = \"2\" } }\n";

fn parallel() -> Spec {
    let hooks =
        ["candidate", "stop", "switch", "drain"].map(|hook| format!("[hooks.{hook}]\ncommand = [\"x\"]\n"));
    spec(&format!("{}{PARALLEL}[gate]\nbake = \"1s\"", hooks.concat()))
}

fn configuration(rest: &str) -> Spec {
    spec(&format!("kind = \"configuration\"\nof = \"shop\"\n{rest}"))
}

#[test]
fn each_kind_of_change_has_its_steps() {
    let plain = with("");
    let all = with("drain stop switch start validate undrain rollback snapshot migrate restore");
    let reloading = with("stop start reload");
    let baking = spec("[gate]\nconfirm = true");
    let (parallel, reload) = (parallel(), configuration("[hooks.reload]\ncommand = [\"x\"]"));
    let restart = configuration("");
    let none = None;
    for (name, change, expected) in [
        ("plain trees", change(Some(&plain), Some(&plain)), "link validate"),
        (
            "first install",
            change(none, Some(&all)),
            "snapshot migrate link switch_new start_new validate undrain_new",
        ),
        (
            "every hook",
            change(Some(&all), Some(&all)),
            "drain_old stop_old snapshot migrate link switch_new start_new validate undrain_new",
        ),
        (
            "another host migrates",
            Change { migrates: false, ..change(Some(&all), Some(&all)) },
            "drain_old stop_old link switch_new start_new validate undrain_new",
        ),
        (
            "back to what the rollout began with",
            Change { returns: true, has_snapshot: true, ..change(Some(&all), Some(&all)) },
            "drain_old stop_old rollback restore link switch_new start_new validate undrain_new",
        ),
        ("hooks of the old alone", change(Some(&all), Some(&plain)), "drain_old stop_old link validate"),
        ("taken away", change(Some(&all), none), "drain_old stop_old link"),
        ("confirmed", change(Some(&plain), Some(&baking)), "link validate bake"),
        ("both reload", change(Some(&reloading), Some(&reloading)), "link reload_new validate"),
        (
            "only the new one reloads",
            change(Some(&all), Some(&reloading)),
            "drain_old stop_old link start_new validate",
        ),
        ("first of those that reload", change(none, Some(&reloading)), "link start_new validate"),
        ("configuration that is read anew", change(none, Some(&reload)), "link reload_new validate"),
        (
            "configuration that takes a restart",
            change(Some(&restart), Some(&restart)),
            "stop_application link start_application validate",
        ),
        (
            "parallel",
            change(Some(&parallel), Some(&parallel)),
            "start_candidate validate_candidate link switch_new validate bake drain_old stop_old",
        ),
        (
            "parallel, running already",
            Change { runs_beside: true, ..change(Some(&parallel), Some(&parallel)) },
            "validate_candidate link switch_new validate bake drain_old stop_old",
        ),
        (
            "first parallel",
            change(none, Some(&parallel)),
            "start_candidate validate_candidate link switch_new validate bake",
        ),
    ] {
        assert_eq!(names(&sequence(&change)), expected, "{name}");
    }
}

#[test]
fn the_way_back_undoes_what_was_begun() {
    use SwitchStep as S;
    let all = with("drain stop switch start validate undrain rollback snapshot migrate restore");
    let in_place = sequence(&change(Some(&all), Some(&all)));
    let parallel = parallel();
    let beside = sequence(&change(Some(&parallel), Some(&parallel)));
    let reloading = with("reload");
    let reload = sequence(&change(Some(&reloading), Some(&reloading)));
    let restart = configuration("");
    let restart = sequence(&change(Some(&restart), Some(&restart)));
    for (steps, reached, expected) in [
        (&in_place, S::DrainOld, "undrain_old"),
        (&in_place, S::StopOld, "start_old undrain_old"),
        (&in_place, S::Snapshot, "start_old undrain_old"),
        (&in_place, S::Migrate, "restore start_old undrain_old"),
        (&in_place, S::Link, "rollback restore link_back start_old undrain_old"),
        (&in_place, S::StartNew, "stop_new rollback restore link_back switch_old start_old undrain_old"),
        (&in_place, S::Validate, "stop_new rollback restore link_back switch_old start_old undrain_old"),
        (
            &in_place,
            S::UndrainNew,
            "drain_new stop_new rollback restore link_back switch_old start_old undrain_old",
        ),
        (&beside, S::StartCandidate, "stop_candidate"),
        (&beside, S::ValidateCandidate, "stop_candidate"),
        (&beside, S::Link, "rollback link_back stop_candidate"),
        (&beside, S::SwitchNew, "switch_back rollback link_back stop_candidate"),
        (&beside, S::Bake, "switch_back rollback link_back stop_candidate"),
        (&beside, S::DrainOld, ""),
        (&beside, S::StopOld, ""),
        (&reload, S::Link, "rollback link_back"),
        (&reload, S::ReloadNew, "rollback link_back reload_old"),
        (&restart, S::StopApplication, "start_application"),
        (&restart, S::Validate, "stop_application rollback link_back start_application"),
        (&undeclared(), S::StopOld, "start_old"),
        (&undeclared(), S::Bake, "stop_new rollback link_back start_old"),
    ] {
        assert_eq!(names(&way_back(steps, reached)), expected, "{} at {reached:?}", names(steps));
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Staging has its hook too, which is no step of a switch.
    const OF_A_SWITCH: &[&str] = HOOKS.split_at(1).1;

    fn any_spec() -> impl Strategy<Value = Spec> {
        (proptest::sample::subsequence(OF_A_SWITCH.to_vec(), 0..=OF_A_SWITCH.len()), 0..4_u8, any::<bool>())
            .prop_map(|(hooks, kind, bakes)| {
                let tables = hooks.iter().map(|hook| format!("[hooks.{hook}]\ncommand = [\"x\"]\n"));
                let head = match kind {
                    0 => "kind = \"configuration\"\nof = \"shop\"\n",
                    1 => "kind = \"shared-data\"\n",
                    _ => "",
                };
                let parallel = if kind == 2 && hooks.contains(&"candidate") { PARALLEL } else { "" };
                let bake = if bakes { "[gate]\nbake = \"1s\"\n" } else { "" };
                spec(&format!("{head}{}{parallel}{bake}", tables.collect::<String>()))
            })
    }

    proptest! {
        #[test]
        fn every_sequence_can_be_gone_through_and_back(
            old in proptest::option::of(any_spec()),
            new in proptest::option::of(any_spec()),
            (migrates, returns, has_snapshot, runs_beside) in any::<(bool, bool, bool, bool)>(),
        ) {
            let change = Change { old: old.as_ref(), new: new.as_ref(), migrates, returns, has_snapshot, runs_beside };
            let steps = sequence(&change);
            let distinct: BTreeSet<String> = steps.iter().map(|step| format!("{step:?}")).collect();
            prop_assert_eq!(distinct.len(), steps.len(), "a step stands once");
            prop_assert_eq!(steps.iter().filter(|step| **step == SwitchStep::Link).count(), 1);
            prop_assert_eq!(steps.contains(&SwitchStep::Validate), new.is_some());
            for (i, at) in steps.iter().enumerate() {
                prop_assert_eq!(after(&steps, *at), steps.get(i + 1).copied());
                let back = way_back(&steps, *at);
                let link = steps.iter().position(|step| *step == SwitchStep::Link).unwrap_or(usize::MAX);
                if is_settled(&steps, *at) {
                    prop_assert!(back.is_empty(), "proved");
                } else {
                    prop_assert_eq!(back.contains(&BackStep::LinkBack), i >= link);
                    let stops = steps[..=i].contains(&SwitchStep::StopOld);
                    prop_assert_eq!(back.contains(&BackStep::StartOld), stops, "what was stopped runs again");
                }
            }
        }
    }
}
