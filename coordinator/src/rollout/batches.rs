//! Strategies are lowered to one form: an ordered list of batches. Planners know nothing else.

use std::collections::BTreeSet;

use sluice_common::digest::Digest;
use sluice_common::name::{HostName, Platform, SiteName};
use sluice_common::units::Share;

use super::spec::Strategy;

/// A host of the selection, before the rollout begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The host.
    pub host: HostName,
    /// Its site.
    pub site: SiteName,
    /// Its failure domain, where the spec has domains.
    pub domain: Option<String>,
    /// Its platform.
    pub platform: Platform,
    /// The release's package for its platform.
    pub package: Digest,
    /// Whether it runs this package already; such hosts come last, for they would prove nothing as canaries.
    pub settled: bool,
}

/// Lowers a strategy to batches: every candidate once, no batch empty, the same for any order of `candidates`.
///
/// Hosts go by site, then by name; a canary holds at least one host of every platform. Where one host goes first it is one,
/// whatever the platforms: what it does for all of them is done once.
pub fn lower(strategy: &Strategy, mut candidates: Vec<Candidate>) -> Vec<Vec<Candidate>> {
    candidates.sort_by(|a, b| (a.settled, &a.site, &a.host).cmp(&(b.settled, &b.site, &b.host)));
    let total = candidates.len();
    match strategy {
        Strategy::AllAtOnce => chunked(candidates, total),
        Strategy::Rolling { batch } | Strategy::BlueGreen { batch } => {
            chunked(candidates, size(*batch, total))
        }
        Strategy::Canary { canary, batch } => {
            let (first, rest) = split_canary(candidates, size(*canary, total));
            let mut batches = chunked(first, total);
            batches.extend(chunked(rest, size(*batch, total)));
            batches
        }
        Strategy::OneHostFirst { batch } => {
            let rest = candidates.split_off(total.min(1));
            let mut batches = chunked(candidates, total);
            batches.extend(chunked(rest, size(*batch, total)));
            batches
        }
        Strategy::Waves { waves } => {
            let goals = waves.iter().map(|wave| size(*wave, total)).chain([total]);
            stepped(candidates, goals)
        }
        Strategy::Exponential { first } => {
            let first = size(*first, total);
            // 1, 3, 7, 15 times the first: each batch twice the one before.
            let goals = (1..usize::BITS).map(|n| first.saturating_mul((1_usize << n) - 1));
            stepped(candidates, goals)
        }
    }
}

/// Makes batches after which as many hosts have been in one as `goals` say; the first covers every platform.
fn stepped(candidates: Vec<Candidate>, goals: impl Iterator<Item = usize>) -> Vec<Vec<Candidate>> {
    let mut batches: Vec<Vec<Candidate>> = Vec::new();
    let (mut rest, mut done) = (candidates, 0);
    for goal in goals {
        let missing = goal.saturating_sub(done).min(rest.len());
        if missing == 0 {
            continue;
        }
        let batch;
        (batch, rest) = match batches.is_empty() {
            true => split_canary(rest, missing),
            false => {
                let later = rest.split_off(missing);
                (rest, later)
            }
        };
        done += batch.len();
        batches.push(batch);
    }
    batches
}

fn size(share: Share, total: usize) -> usize {
    share.of_rounded_up(total).max(1)
}

fn chunked(candidates: Vec<Candidate>, size: usize) -> Vec<Vec<Candidate>> {
    let mut batches: Vec<Vec<Candidate>> = Vec::new();
    for candidate in candidates {
        match batches.last_mut() {
            Some(batch) if batch.len() < size => batch.push(candidate),
            Some(_) | None => batches.push(vec![candidate]),
        }
    }
    batches
}

/// Takes the first host of every platform, then fills up in order.
fn split_canary(candidates: Vec<Candidate>, size: usize) -> (Vec<Candidate>, Vec<Candidate>) {
    let mut platforms = BTreeSet::new();
    let mut chosen: Vec<bool> = candidates.iter().map(|c| platforms.insert(c.platform.clone())).collect();
    let mut missing = size.saturating_sub(platforms.len());
    for choice in &mut chosen {
        if missing > 0 && !*choice {
            *choice = true;
            missing -= 1;
        }
    }
    let mut chosen = chosen.into_iter();
    candidates.into_iter().partition(|_| chosen.next().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use proptest::strategy::Strategy as Generator;

    use super::*;

    fn candidate(host: &str, site: &str, platform: &str) -> Candidate {
        Candidate {
            host: host.parse().unwrap(),
            site: site.parse().unwrap(),
            domain: None,
            platform: platform.parse().unwrap(),
            package: Digest::of(platform.as_bytes()),
            settled: false,
        }
    }

    fn any_share() -> impl Generator<Value = Share> {
        prop_oneof![(1..50_u32).prop_map(Share::Count), (1..=100_u8).prop_map(Share::Percent)]
    }

    fn any_strategy() -> impl Generator<Value = Strategy> {
        prop_oneof![
            Just(Strategy::AllAtOnce),
            any_share().prop_map(|batch| Strategy::Rolling { batch }),
            (any_share(), any_share()).prop_map(|(canary, batch)| Strategy::Canary { canary, batch }),
            proptest::collection::vec(any_share(), 1..5).prop_map(|waves| Strategy::Waves { waves }),
            any_share().prop_map(|first| Strategy::Exponential { first }),
            any_share().prop_map(|batch| Strategy::OneHostFirst { batch }),
            any_share().prop_map(|batch| Strategy::BlueGreen { batch }),
        ]
    }

    proptest! {
        #[test]
        fn batches_partition_the_selection(
            strategy in any_strategy(),
            hosts in proptest::collection::vec((0..3_u8, 0..4_u8, any::<bool>()), 1..60),
            turn in 0..60_usize,
        ) {
            let candidates: Vec<Candidate> = hosts.iter().enumerate().map(|(i, (site, platform, settled))| Candidate {
                settled: *settled,
                ..candidate(&format!("h{i}"), &format!("s{site}"), &format!("p{platform}"))
            }).collect();
            let total = candidates.len();
            let batches = lower(&strategy, candidates.clone());
            let mut turned = candidates.clone();
            turned.rotate_left(turn % total);
            prop_assert_eq!(&batches, &lower(&strategy, turned));
            prop_assert!(batches.iter().all(|batch| !batch.is_empty()));
            let seen: BTreeSet<&HostName> = batches.iter().flatten().map(|c| &c.host).collect();
            prop_assert_eq!(seen.len(), total);
            prop_assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), total);
            let limit = |share: &Share| share.of_rounded_up(total).max(1);
            match &strategy {
                Strategy::AllAtOnce => prop_assert_eq!(batches.len(), 1),
                Strategy::Rolling { batch } | Strategy::BlueGreen { batch } => prop_assert!(batches.iter().all(|b| b.len() <= limit(batch))),
                Strategy::Canary { canary, batch } => {
                    let platforms = |cs: &[Candidate]| cs.iter().map(|c| c.platform.clone()).collect::<BTreeSet<_>>();
                    prop_assert_eq!(platforms(&batches[0]), platforms(&candidates));
                    prop_assert!(batches[0].len() <= limit(canary).max(platforms(&candidates).len()));
                    prop_assert!(batches[1..].iter().all(|b| b.len() <= limit(batch)));
                }
                Strategy::OneHostFirst { batch } => {
                    prop_assert_eq!(batches[0].len(), 1);
                    prop_assert!(batches[1..].iter().all(|b| b.len() <= limit(batch)));
                }
                Strategy::Waves { .. } => {
                    let platforms = |cs: &[Candidate]| cs.iter().map(|c| c.platform.clone()).collect::<BTreeSet<_>>();
                    prop_assert_eq!(platforms(&batches[0]), platforms(&candidates));
                }
                Strategy::Exponential { first } => {
                    let platforms = |cs: &[Candidate]| cs.iter().map(|c| c.platform.clone()).collect::<BTreeSet<_>>();
                    prop_assert_eq!(platforms(&batches[0]), platforms(&candidates));
                    let largest = |n: usize| limit(first).saturating_mul(1 << n.min(20));
                    prop_assert!(batches.iter().enumerate().skip(1).all(|(n, b)| b.len() <= largest(n + 6)));
                }
            }
        }
    }
}
