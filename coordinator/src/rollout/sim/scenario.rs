//! What a seed decides before a run begins: the spec, and how hosts take to the release.

use std::time::Duration;

use sluice_common::units::Share;

use super::host::Nature;
use super::random::Random;
use crate::rollout::{OnFailure, PerDomain, Spec, Strategy};

pub(super) fn any_spec(random: &mut Random) -> Spec {
    let share = |random: &mut Random| match random.within(0, 1) {
        0 => Share::Count(random.within(1, 4) as u32),
        _ => Share::Percent(random.within(1, 100) as u8),
    };
    let tolerated = |random: &mut Random| Share::Count(random.pick(&[0, 0, 0, 1, 2]));
    Spec {
        selector: sluice_common::selector::Selector::everything(),
        strategy: match random.within(0, 4) {
            0 => Strategy::AllAtOnce,
            1 => Strategy::Rolling { batch: share(random) },
            2 => Strategy::Exponential { first: share(random) },
            _ => Strategy::Canary { canary: share(random), batch: share(random) },
        },
        bake: Duration::from_secs(random.pick(&[0, 1, 10, 40])),
        max_unavailable: share(random),
        max_failures: tolerated(random),
        on_failure: random.pick(&[OnFailure::Rollback, OnFailure::Rollback, OnFailure::Pause]),
        host_deadline: Duration::from_secs(random.within(10, 90)),
        per_domain: match random.within(0, 1) {
            0 => None,
            _ => Some(PerDomain {
                label: "rack".into(),
                max_unavailable: Share::Count(random.within(1, 2) as u32),
            }),
        },
        stage_first: random.pick(&[Share::Percent(100), Share::Percent(50), Share::Count(0)]),
    }
}

pub(super) fn any_nature(random: &mut Random) -> Nature {
    use Nature::{CannotStage, CannotSwitch, Good, Hangs, NoReturn, Reverts, Sickens, Slow};
    match random.within(0, 9) {
        0 => random.pick(&[CannotStage, CannotSwitch, Reverts, Sickens, Hangs, NoReturn]),
        1 | 2 => Slow,
        _ => Good,
    }
}
