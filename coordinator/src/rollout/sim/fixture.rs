//! What every seed has in common: one application at two versions, and hosts named by number.

use jiff::Timestamp;
use sluice_common::digest::Digest;
use sluice_common::order::Installed;

use crate::rollout::{Candidate, Rollout, Spec, lower};

/// Returns the package of the release that test rollouts bring.
pub(crate) fn package() -> Digest {
    Digest::of(b"new")
}

/// Returns what hosts run before a test rollout.
pub(crate) fn predecessor() -> Installed {
    Installed { package: Digest::of(b"old"), version: "1".parse().expect("a name") }
}

/// Returns what hosts run after it.
pub(crate) fn successor() -> Installed {
    Installed { package: package(), version: "2".parse().expect("a name") }
}

/// Returns a moment, in seconds after an arbitrary one.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("within a few thousand years")
}

/// Returns a rollout over the hosts `h1`, `h2` and so on.
pub(crate) fn rollout_of(hosts: usize, spec: Spec) -> Rollout {
    let candidate = |i: usize| Candidate {
        host: format!("h{i:02}").replace("h0", "h").parse().expect("a name"),
        site: if i <= 4 { "berlin" } else { "rome" }.parse().expect("a name"),
        domain: Some(format!("r{}", i % 3)),
        platform: "linux-x86_64".parse().expect("a name"),
        package: package(),
        settled: false,
    };
    let batches = lower(&spec.strategy, (1..=hosts).map(candidate).collect());
    Rollout::new(
        "r1".parse().expect("a name"),
        "shop".parse().expect("a name"),
        "2".parse().expect("a name"),
        spec,
        batches,
        "alice".parse().expect("a name"),
        at(0),
    )
}
