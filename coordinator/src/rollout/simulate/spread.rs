//! What many courses have in common: how long they took, how they ended, how many hosts they hurt.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Course, End};

/// The middle, what nine of ten and 99 of 100 stay below, and the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quantiles<T> {
    /// Half of all are at most this.
    pub p50: T,
    /// Nine of ten.
    pub p90: T,
    /// 99 of 100.
    pub p99: T,
    /// All.
    pub max: T,
}

impl<T: Ord + Copy + Default> Quantiles<T> {
    /// Takes them of these values, by the nearest rank; the default where there are none.
    pub fn of(values: impl IntoIterator<Item = T>) -> Self {
        let mut sorted: Vec<T> = values.into_iter().collect();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { p50: rank(50), p90: rank(90), p99: rank(99), max: rank(100) }
    }
}

/// Many runs of one scene.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spread {
    /// How many.
    pub runs: usize,
    /// How many ended how.
    pub ends: BTreeMap<&'static str, usize>,
    /// How long runs took that succeeded.
    pub succeeded: Quantiles<Duration>,
    /// How long the others took, until everything was back or nothing went on.
    pub others: Quantiles<Duration>,
    /// Hosts that the release hurt.
    pub hurt: Quantiles<usize>,
    /// Runs in which the release was bad.
    pub bad_runs: usize,
    /// Hosts that it hurt in those.
    pub hurt_by_bad: Quantiles<usize>,
    /// Bad runs that nothing stopped.
    pub bad_unnoticed: usize,
}

fn name(end: &End) -> &'static str {
    match end {
        End::State(state) => state.as_str(),
        End::Waits => "waits",
    }
}

const SUCCEEDED: &str = "succeeded";

impl Spread {
    /// Puts courses together.
    pub fn of(courses: &[Course]) -> Self {
        let mut ends = BTreeMap::new();
        for course in courses {
            *ends.entry(name(&course.end)).or_default() += 1;
        }
        let took = |succeeded: bool| {
            let of = courses.iter().filter(move |course| (name(&course.end) == SUCCEEDED) == succeeded);
            Quantiles::of(of.map(|course| course.took))
        };
        let bad = || courses.iter().filter(|course| course.is_bad);
        Self {
            runs: courses.len(),
            ends,
            succeeded: took(true),
            others: took(false),
            hurt: Quantiles::of(courses.iter().map(|course| course.hurt)),
            bad_runs: bad().count(),
            hurt_by_bad: Quantiles::of(bad().map(|course| course.hurt)),
            bad_unnoticed: bad().filter(|course| name(&course.end) == SUCCEEDED).count(),
        }
    }
}
