//! What the collection removes, and why: pure, from what a survey found.
//!
//! Decided in three stages, each over what the one before leaves: packages, then packs, then objects.

use std::time::Duration;

use jiff::Timestamp;
use sluice_common::caps;
use sluice_common::digest::Digest;

use crate::clock;
use crate::depot::objects::Name;

/// How old must be what is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// Time since the last push of a package that no release names, and since chunks came that no package uses.
    pub unreleased: Duration,
    /// Time since an object was written that no row names.
    pub orphan: Duration,
}

impl Default for Ages {
    fn default() -> Self {
        Self { unreleased: caps::UNRELEASED_PACKAGE_TTL, orphan: caps::ORPHAN_OBJECT_TTL }
    }
}

/// A package as far as decisions turn on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackageFacts {
    pub(super) digest: Digest,
    /// When it was pushed last.
    pub(super) wanted: Timestamp,
    /// Whether a release names it.
    pub(super) is_released: bool,
    /// Whether a push or a plan in the making takes it.
    pub(super) is_in_use: bool,
}

/// Returns the packages to be forgotten: nobody has released them since they were pushed.
pub(super) fn packages(facts: &[PackageFacts], ages: Ages, now: Timestamp) -> Vec<PackageFacts> {
    let is_forgotten = |package: &&PackageFacts| {
        !package.is_released && !package.is_in_use && is_older(package.wanted, ages.unreleased, now)
    };
    facts.iter().filter(is_forgotten).copied().collect()
}

/// A pack as far as decisions turn on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackFacts {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    pub(super) stored: Timestamp,
    /// Whether the chunk index names it at all.
    pub(super) is_indexed: bool,
    /// Its bytes that packages or running pushes use.
    pub(super) live_bytes: u64,
}

/// What becomes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PackFate {
    /// No package uses a chunk of it: it goes.
    Unused,
    /// More than half of it is unused: the rest moves to another pack, and it goes.
    Sparse,
}

/// Returns the packs that go. Those that stay may hold chunks that nothing uses; the next push that needs such a
/// chunk finds it.
pub(super) fn packs(facts: &[PackFacts], ages: Ages, now: Timestamp) -> Vec<(PackFacts, PackFate)> {
    let fate = |pack: &PackFacts| {
        // What came last may belong to a push that was broken off and goes on.
        let is_old = is_older(pack.stored, ages.unreleased.max(ages.orphan), now);
        match pack {
            PackFacts { is_indexed: false, .. } => Some(PackFate::Unused),
            PackFacts { live_bytes: 0, .. } if is_old => Some(PackFate::Unused),
            PackFacts { live_bytes, bytes, .. } if is_old && *live_bytes < bytes / 2 => {
                Some(PackFate::Sparse)
            }
            PackFacts { .. } => None,
        }
    };
    facts.iter().filter_map(|pack| Some((*pack, fate(pack)?))).collect()
}

/// Returns the bytes of packs that stay only because they are young.
pub(super) fn waiting(facts: &[PackFacts], going: &[(PackFacts, PackFate)], now: Timestamp) -> u64 {
    let at_once = Ages { unreleased: Duration::ZERO, orphan: Duration::ZERO };
    let one_day = packs(facts, at_once, now).into_iter().map(|(pack, _)| pack);
    let young = one_day.filter(|pack| going.iter().all(|(other, _)| other.digest != pack.digest));
    young.map(|pack| pack.bytes.saturating_sub(pack.live_bytes)).sum()
}

/// An object as far as decisions turn on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ObjectFacts {
    pub(super) name: Name,
    pub(super) bytes: u64,
    pub(super) modified: Timestamp,
    /// Whether a row names it.
    pub(super) is_named: bool,
}

/// Says whether an object goes: no row names it, nor will one that is on its way. `oldest_work` is when the oldest push
/// or encoding that still runs began.
pub(super) fn is_orphan(
    object: &ObjectFacts,
    ages: Ages,
    oldest_work: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    let since = oldest_work.map_or(now, |begun| begun.min(now));
    !object.is_named && is_older(object.modified, ages.orphan, since)
}

/// Says whether a moment was at least so long before another. What seems to lie ahead is young.
fn is_older(then: Timestamp, age: Duration, now: Timestamp) -> bool {
    clock::after(then, age) <= now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::depot::objects::Kind;

    const AGES: Ages = Ages { unreleased: Duration::from_secs(100), orphan: Duration::from_secs(10) };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn packages_go_that_nobody_released_in_time() {
        let old =
            PackageFacts { digest: Digest::of(b"p"), wanted: at(900), is_released: false, is_in_use: false };
        for (name, package, goes) in [
            ("as old as may be", old, true),
            ("younger", PackageFacts { wanted: at(901), ..old }, false),
            ("pushed ahead of our clock", PackageFacts { wanted: at(5_000), ..old }, false),
            ("released", PackageFacts { is_released: true, ..old }, false),
            ("read by an encoder", PackageFacts { is_in_use: true, ..old }, false),
        ] {
            assert_eq!(packages(&[package], AGES, at(1_000)).len(), usize::from(goes), "{name}");
        }
    }

    #[test]
    fn packs_go_when_more_than_half_of_them_is_dead() {
        let old = PackFacts {
            digest: Digest::of(b"p"),
            bytes: 1_000,
            stored: at(900),
            is_indexed: true,
            live_bytes: 1_000,
        };
        for (name, pack, fate) in [
            ("all live", old, None),
            ("half dead", PackFacts { live_bytes: 500, ..old }, None),
            ("more than half dead", PackFacts { live_bytes: 499, ..old }, Some(PackFate::Sparse)),
            ("the same, but young", PackFacts { live_bytes: 499, stored: at(901), ..old }, None),
            ("all dead", PackFacts { live_bytes: 0, ..old }, Some(PackFate::Unused)),
            ("all dead, but young", PackFacts { live_bytes: 0, stored: at(901), ..old }, None),
            (
                "every chunk was damaged, or lies elsewhere",
                PackFacts { live_bytes: 0, is_indexed: false, stored: at(999), ..old },
                Some(PackFate::Unused),
            ),
        ] {
            let fates: Vec<PackFate> =
                packs(&[pack], AGES, at(1_000)).into_iter().map(|(_, fate)| fate).collect();
            assert_eq!(fates, Vec::from_iter(fate), "{name}");
        }
        let young = PackFacts { live_bytes: 100, stored: at(901), ..old };
        let going = packs(&[old], AGES, at(1_000));
        assert_eq!(waiting(&[old, young], &going, at(1_000)), 900);
        let hasty = Ages { unreleased: Duration::ZERO, ..AGES };
        let young = PackFacts { live_bytes: 0, stored: at(991), ..old };
        assert!(packs(&[young], hasty, at(1_000)).is_empty(), "its package may come any moment");
    }

    #[test]
    fn objects_go_that_no_row_names_and_no_work_will_name() {
        let name = Name(Kind::Frame, Digest::of(b"f"));
        let old = ObjectFacts { name, bytes: 1, modified: at(990), is_named: false };
        for (name, object, work, goes) in [
            ("old and unnamed", old, None, true),
            ("named", ObjectFacts { is_named: true, ..old }, None, false),
            ("young", ObjectFacts { modified: at(991), ..old }, None, false),
            ("written by an encoding that runs", old, Some(980), false),
            ("written while its clock was behind", old, Some(999), false),
            (
                "written long before the work that runs",
                ObjectFacts { modified: at(969), ..old },
                Some(980),
                true,
            ),
            ("the work began ahead of our clock", old, Some(2_000), true),
        ] {
            assert_eq!(is_orphan(&object, AGES, work.map(at), at(1_000)), goes, "{name}");
        }
    }
}
