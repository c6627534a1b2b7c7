//! What a seed decides before a run begins: the spec, and how hosts take to the release.

use std::time::Duration;

use sluice_common::units::Share;

use super::host::Nature;
use super::random::Random;
use crate::rollout::{Calendar, Floor, OnFailure, PerDomain, Spec, Strategy};

pub(super) fn any_spec(random: &mut Random) -> Spec {
    let share = |random: &mut Random| match random.within(0, 1) {
        0 => Share::Count(random.within(1, 4) as u32),
        _ => Share::Percent(random.within(1, 100) as u8),
    };
    let tolerated = |random: &mut Random| Share::Count(random.pick(&[0, 0, 0, 1, 2]));
    Spec {
        selector: sluice_common::selector::Selector::everything(),
        strategy: match random.within(0, 6) {
            0 => Strategy::AllAtOnce,
            1 => Strategy::Rolling { batch: share(random) },
            2 => Strategy::Exponential { first: share(random) },
            6 => Strategy::BlueGreen { batch: share(random) },
            3 => Strategy::OneHostFirst { batch: share(random) },
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
                max_failures: random.pick(&[None, None, Some(Share::Count(0)), Some(Share::Count(1))]),
            }),
        },
        stage_first: random.pick(&[Share::Percent(100), Share::Percent(50), Share::Count(0)]),
        calendar: any_calendar(random),
        approvals: random.pick(&[0, 0, 0, 1, 2]),
        first_site_bake: random.once_in(4).then(|| Duration::from_secs(random.within(40, 60))),
        floors: any_floors(random),
        ..Spec::default()
    }
}

fn any_floors(random: &mut Random) -> Vec<Floor> {
    let count = random.pick(&[0, 0, 1, 2]);
    let floor = |_| Floor {
        by: Some("web".parse().expect("a name")),
        min_healthy: match random.within(0, 1) {
            0 => Share::Count(random.within(1, 5) as u32),
            _ => Share::Percent(random.within(1, 90) as u8),
        },
        label: random.once_in(3).then(|| "site".to_owned()),
    };
    (0..count).map(floor).collect()
}

/// Windows of a fleet that switches every other five minutes: short against what a rollout takes, long enough for a batch.
pub(super) const WINDOW_SECONDS: i64 = 300;

fn any_calendar(random: &mut Random) -> Calendar {
    if !random.once_in(4) {
        return Calendar::default();
    }
    let window = |minute: u64| {
        let (hour, minute) = (8 + minute / 60, minute % 60);
        format!("daily {hour:02}:{minute:02}-{hour:02}:{:02} UTC", minute + 5).parse().expect("a window")
    };
    let freeze = || "2027-01-15 08:02 to 2027-01-15 08:13 UTC: high load".parse().expect("a freeze");
    Calendar {
        // The simulation begins at 08:00; nothing takes longer than until noon.
        windows: (0..24).map(|i| window(10 * i)).collect(),
        freezes: if random.once_in(2) { vec![freeze()] } else { Vec::new() },
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
