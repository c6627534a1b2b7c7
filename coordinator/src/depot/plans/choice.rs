//! Which of the packages that a host has makes the best base, and which plan suits its link.

use std::sync::{Arc, PoisonError};

use sluice_common::digest::Digest;
use sluice_common::manifest::Manifest;
use sluice_common::transfer::{self, Effort};
use sluice_common::units::ByteRate;

use super::{Estimated, PlanError, Plans};
use crate::depot::packages::LoadError;

/// What a host's link is to a plan.
///
/// A best plan of two releases of numpy, scipy and pandas weighs 1.6 MB where the quick one weighs 3.9, and its restoring
/// takes a host 0.8 s of CPU where that of the quick one takes 0.15: on a local network it comes later and costs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// Nothing limits it: the plan that is restored soonest suits it.
    Open,
    /// It has a limit, which other hosts may share: the smallest plan suits it.
    Limited,
}

impl Link {
    /// Returns what a link of this limit is.
    pub fn of(limit: Option<ByteRate>) -> Self {
        limit.map_or(Self::Open, |_| Self::Limited)
    }
}

/// Bases looked at: a host keeps three releases and what it is staging.
const BASES_MAX: usize = 8;
/// What a byte that travels against a base weighs, in sixteenths of one that travels plain: compiled files of
/// neighbouring releases shrink to a tenth of their plain size and less.
const AGAINST_SIXTEENTHS: u64 = 2;

/// Estimates what travels from `base` to `target`, in sixteenths of plain bytes.
fn estimate(base: &Manifest, target: &Manifest) -> u64 {
    let weight = |against: bool| if against { AGAINST_SIXTEENTHS } else { 16 };
    let frames = transfer::plan(Some(base), target, Effort::Quick);
    frames.iter().map(|frame| frame.raw_len() * weight(frame.needs_base())).sum()
}

impl Plans {
    /// Returns the best of the packages that a host offers, best first as the host sees it: the first of those with the
    /// smallest estimate. Packages that the depot does not know, or no longer has undamaged, are passed over.
    pub async fn choose_base(
        self: &Arc<Self>,
        target: Digest,
        offered: &[Digest],
    ) -> Result<Option<Digest>, Arc<PlanError>> {
        let mut best: Option<(u64, Digest)> = None;
        for base in offered.iter().take(BASES_MAX) {
            if let Some(estimate) = self.estimate(*base, target).await?
                && best.is_none_or(|(least, _)| estimate < least)
            {
                best = Some((estimate, *base));
            }
        }
        Ok(best.map(|(_, base)| base))
    }

    /// Estimates once for all who ask: when a rollout begins, they are many.
    async fn estimate(self: &Arc<Self>, base: Digest, target: Digest) -> Estimated {
        let key = (base, target);
        let known = self.estimates.lock().unwrap_or_else(PoisonError::into_inner).get(&key);
        if known.is_some() {
            return Ok(known);
        }
        let plans = self.clone();
        let estimated = self
            .estimating
            .join(key, || async move { plans.estimate_anew(base, target).await.map_err(Arc::new) });
        estimated.await.unwrap_or_else(|| Err(Arc::new(PlanError::Stopping)))
    }

    async fn estimate_anew(&self, base: Digest, target: Digest) -> Result<Option<u64>, PlanError> {
        let _turn = self.depot.turn(&[base, target]).await?;
        let from = match self.depot.package(base).await {
            Ok(package) => package,
            Err(LoadError::Unknown(_) | LoadError::Damaged { .. }) => return Ok(None),
            Err(error @ (LoadError::Object(_) | LoadError::Store(_))) => return Err(error.into()),
        };
        let to = self.depot.package(target).await?;
        let estimating = tokio::task::spawn_blocking(move || estimate(&from.manifest, &to.manifest));
        let estimate = estimating.await.expect("planning does not panic");
        self.estimates.lock().unwrap_or_else(PoisonError::into_inner).insert((base, target), estimate, 1);
        Ok(Some(estimate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_common::manifest::{Entry, EntryKind, FileEntry};
    use sluice_common::path::RelPath;

    fn manifest(files: &[(&str, &str, u64)]) -> Manifest {
        let file = |content: &str, size| FileEntry {
            executable: false,
            size,
            digest: Digest::of(content.as_bytes()),
        };
        let entries = files.iter().map(|(path, content, size)| Entry {
            path: RelPath::new(path).unwrap(),
            kind: EntryKind::File(file(content, *size)),
        });
        Manifest::new(entries).unwrap()
    }

    #[test]
    fn what_a_base_shares_counts_most_and_what_it_resembles_comes_next() {
        let target = manifest(&[("a", "a2", 1000), ("b", "b", 1000)]);
        let same = estimate(&target, &target);
        let shares = estimate(&manifest(&[("b", "b", 1000)]), &target);
        let resembles = estimate(&manifest(&[("a", "a1", 1000), ("b", "b", 1000)]), &target);
        let nothing = estimate(&manifest(&[("z", "z", 1000)]), &target);
        assert_eq!(same, 0);
        assert!(same < resembles && resembles < shares && shares < nothing);
    }
}
