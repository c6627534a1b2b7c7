//! Which plan is worked on next: pure. First that there is one, then that it is small where that pays most.

use super::PlanKey;
use super::demand::Demand;

/// What the best plan leaves out of the quick one, of an update: 4.6 MB became 1.65 MB, 4.16 MB became 1.47 MB.
const SAVED_OF_UPDATE: f64 = 0.625;
/// The same of a cold install: 10.1 MB became 7.9 MB, 57.7 MB became 43 MB.
const SAVED_OF_COLD: f64 = 0.25;
/// CPU of a best update, in seconds a raw byte: about 20 s for a program of 25 MB.
const UPDATE_SECONDS_PER_BYTE: f64 = 8e-7;
/// CPU of a best cold install, in seconds a raw byte: zstd -19 takes 2.5 MB/s.
const COLD_SECONDS_PER_BYTE: f64 = 4e-7;

/// What is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::depot) enum Lane {
    /// Plans that hosts will ask for and that are not there yet, so that nobody has to wait for them.
    Ahead,
    /// Best plans beside quick ones, for links that are limited.
    Better,
}

/// A plan as it is stored, as far as decisions turn on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    /// What a host is sent.
    pub(super) wire_bytes: u64,
    /// What the frames restore.
    pub(super) raw_bytes: u64,
}

/// A plan that may be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Who would make it.
    pub(super) lane: Lane,
    /// From what to what, and how.
    pub(super) key: PlanKey,
    /// Who wants to go there.
    pub(super) demand: Demand,
    /// Whether it is there.
    pub(super) is_stored: bool,
    /// The quick plan, which hosts are served meanwhile.
    pub(super) quick: Option<Weight>,
    /// Whether somebody is at it, or it failed a short while ago.
    pub(super) is_held: bool,
}

impl Candidate {
    /// Says whether it is to be made.
    fn is_wanted(&self) -> bool {
        match self.lane {
            Lane::Ahead => !self.is_stored,
            // It takes minutes: not for a package that was only pushed, nor for hosts that would never be served it.
            Lane::Better => {
                !self.is_stored
                    && self.demand.wants_smallest
                    && self.quick.is_some_and(|quick| quick.raw_bytes > 0)
            }
        }
    }

    /// Returns how many seconds of the hosts' links a second of CPU saves.
    fn worth(&self) -> f64 {
        let Some(Weight { wire_bytes, raw_bytes }) = self.quick else { return 0.0 };
        let (share, cpu) = match self.key.base {
            Some(_) => (SAVED_OF_UPDATE, UPDATE_SECONDS_PER_BYTE),
            None => (SAVED_OF_COLD, COLD_SECONDS_PER_BYTE),
        };
        wire_bytes as f64 * share * self.demand.link_seconds_per_byte / (raw_bytes.max(1) as f64 * cpu)
    }
}

/// Returns the work of a lane, the most urgent first, held or not.
pub(super) fn queue(lane: Lane, candidates: &[Candidate]) -> Vec<Candidate> {
    let is_of = |candidate: &Candidate| candidate.lane == lane && candidate.is_wanted();
    let mut queue: Vec<Candidate> = candidates.iter().copied().filter(is_of).collect();
    queue.sort_by(|a, b| {
        let urgency = match lane {
            Lane::Ahead => b
                .demand
                .ordered
                .cmp(&a.demand.ordered)
                .then(b.demand.link_seconds_per_byte.total_cmp(&a.demand.link_seconds_per_byte)),
            Lane::Better => b.worth().total_cmp(&a.worth()),
        };
        // The same order at every look, whatever map the candidates came out of.
        urgency.then_with(|| (a.key.target, a.key.base).cmp(&(b.key.target, b.key.base)))
    });
    queue
}

/// Returns the plan to work on now.
pub(super) fn next(lane: Lane, candidates: &[Candidate]) -> Option<PlanKey> {
    queue(lane, candidates).into_iter().find(|candidate| !candidate.is_held).map(|candidate| candidate.key)
}

#[cfg(test)]
mod tests {
    use sluice_common::digest::Digest;
    use sluice_common::transfer::Effort;

    use super::*;

    const MB: u64 = 1_000_000;

    fn candidate(lane: Lane, base: &str, target: &str) -> Candidate {
        let key = PlanKey {
            base: (!base.is_empty()).then(|| Digest::of(base.as_bytes())),
            target: Digest::of(target.as_bytes()),
            effort: if lane == Lane::Better { Effort::Best } else { Effort::Quick },
        };
        let (demand, quick) = (wanted(1, 1e-8), quick(4 * MB, 25 * MB));
        Candidate { lane, key, demand, is_stored: false, quick, is_held: false }
    }

    fn wanted(ordered: u64, link_seconds_per_byte: f64) -> Demand {
        Demand { ordered, link_seconds_per_byte, wants_smallest: true, ..Demand::default() }
    }

    fn quick(wire_bytes: u64, raw_bytes: u64) -> Option<Weight> {
        Some(Weight { wire_bytes, raw_bytes })
    }

    /// A case: what differs between two plans, the lane, and whether the first, the second or none is taken.
    type Case = (&'static str, Lane, fn(&mut Candidate, &mut Candidate), Option<usize>);

    #[test]
    fn the_work_that_pays_most_is_taken_first() {
        let cases: [Case; 15] = [
            (
                "more hosts",
                Lane::Better,
                |a, b| (a.demand, b.demand) = (wanted(10, 1e-7), wanted(2, 2e-8)),
                Some(0),
            ),
            ("a thinner link", Lane::Better, |_, b| b.demand = wanted(1, 1e-6), Some(1)),
            ("more to save", Lane::Better, |_, b| b.quick = quick(8 * MB, 25 * MB), Some(1)),
            ("less to compute", Lane::Better, |a, _| a.quick = quick(4 * MB, 5 * MB), Some(0)),
            ("an update before an install", Lane::Better, |_, b| b.key.base = None, Some(0)),
            (
                "held by another",
                Lane::Better,
                |a, b| {
                    a.demand = wanted(10, 1e-7);
                    (a.is_held, b.is_held) = (true, false);
                },
                Some(1),
            ),
            ("everything held", Lane::Better, |a, b| (a.is_held, b.is_held) = (true, true), None),
            ("best already", Lane::Better, |a, b| (a.is_stored, b.is_stored) = (true, true), None),
            (
                "nothing to send",
                Lane::Better,
                |a, b| {
                    (a.quick, b.quick) = (quick(100, 0), quick(100, 0));
                },
                None,
            ),
            (
                "pushed, not released",
                Lane::Better,
                |a, b| {
                    (a.demand, b.demand) = (Demand::default(), Demand::default());
                },
                None,
            ),
            ("on open links alone", Lane::Better, |a, _| a.demand.wants_smallest = false, Some(1)),
            ("before there is a quick one", Lane::Better, |a, _| a.quick = None, Some(1)),
            ("missing, and the other is not", Lane::Ahead, |a, _| a.is_stored = true, Some(1)),
            (
                "missing, ordered before foreseen",
                Lane::Ahead,
                |a, b| {
                    b.demand.ordered = 1;
                    a.demand = Demand { foreseen: 9, link_seconds_per_byte: 1.0, ..Demand::default() };
                },
                Some(1),
            ),
            (
                "missing, a plan that nobody waits for",
                Lane::Ahead,
                |a, b| (a.demand, b.is_stored) = (Demand::default(), true),
                Some(0),
            ),
        ];
        for (name, lane, change, expected) in cases {
            let (mut a, mut b) = (candidate(lane, "1", "2"), candidate(lane, "3", "4"));
            change(&mut a, &mut b);
            for candidates in [[a, b], [b, a]] {
                assert_eq!(next(lane, &candidates), expected.map(|which| [a.key, b.key][which]), "{name}");
            }
        }
        assert_eq!(next(Lane::Ahead, &[]), None);
    }

    #[test]
    fn equal_work_is_taken_in_one_order_by_every_coordinator() {
        let (a, b) = (candidate(Lane::Better, "1", "2"), candidate(Lane::Better, "3", "4"));
        assert_eq!(next(Lane::Better, &[a, b]), next(Lane::Better, &[b, a]));
    }
}
