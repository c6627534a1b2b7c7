//! Drift: what of an application's installed releases is no longer what it must be. When it is looked for, and what is known
//! of it. The looking itself is [`pace`]d, so that what runs does not feel it.
//!
//! A look compares names, kinds, modes and sizes, and reads the files that may have been written to since their bytes were last
//! hashed; every so often every byte is read. Mending is the [`crate::engine`]'s, which does nothing else meanwhile.

pub(crate) mod pace;

use std::sync::Arc;
use std::time::Duration;

use sluice_common::digest::Digest;
use sluice_common::order::Drift;
use tokio::time::Instant;

use crate::seen::Seen;
use crate::upkeep::Timetable;

/// Time from the start of an agent to the first verification of every byte: a host that boots has other things to read.
const FIRST_HASH_AFTER: Duration = Duration::from_secs(60);

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What may have changed since it was hashed.
    Look,
    /// Every byte.
    Hash,
}

/// What an engine knows of the drift of its application, for as long as the agent runs.
#[derive(Debug)]
pub(crate) struct Watch {
    opened: Instant,
    looked: Option<Instant>,
    hashed: Option<Instant>,
    seen: Vec<Arc<Seen>>,
    /// What was found and not mended, in words.
    found: Vec<String>,
    mended: u64,
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn new(now: Instant) -> Self {
        Self { opened: now, looked: None, hashed: None, seen: Vec::new(), found: Vec::new(), mended: 0 }
    }

    /// Returns when to look next, and how deep. Pure.
    pub(crate) fn next(&self, timetable: &Timetable) -> (Instant, Depth) {
        let first = self.opened + FIRST_HASH_AFTER.min(timetable.hash);
        let hash = self.hashed.map_or(first, |hashed| hashed + timetable.hash);
        let look = self.looked.map_or(self.opened, |looked| looked + timetable.look);
        if hash <= look { (hash, Depth::Hash) } else { (look, Depth::Look) }
    }

    /// Returns what was hashed of a release.
    pub(crate) fn seen(&self, package: &Digest) -> Option<Arc<Seen>> {
        self.seen.iter().find(|seen| seen.package() == package).cloned()
    }

    /// Notes that a look was begun at `began` and ended with these findings; `seen` is what was hashed in it and before.
    pub(crate) fn note(
        &mut self,
        depth: Depth,
        began: Instant,
        seen: Vec<Seen>,
        found: Vec<String>,
        mended: u64,
    ) {
        self.looked = Some(began);
        if depth == Depth::Hash {
            self.hashed = Some(began);
        }
        self.seen = seen.into_iter().filter(Seen::is_worth_its_memory).map(Arc::new).collect();
        self.found = found;
        self.mended += mended;
    }

    /// Returns what is reported; nothing where all was always right.
    pub(crate) fn report(&self) -> Option<Drift> {
        let first = self.found.first().cloned().unwrap_or_default();
        let drift = Drift { count: self.found.len() as u64, first, mended: self.mended };
        (drift.count > 0 || drift.mended > 0).then_some(drift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_at_once_and_every_byte_is_read_once_a_day() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let timetable = Timetable::default();
        let (look, hash) = (timetable.look.as_secs(), timetable.hash.as_secs());
        for (name, looked, hashed, expected) in [
            ("at the start", None, None, (0, Depth::Look)),
            ("after the first look", Some(0), None, (60, Depth::Hash)),
            ("after everything was read", Some(60), Some(60), (60 + look, Depth::Look)),
            ("a look later", Some(60 + look), Some(60), (60 + 2 * look, Depth::Look)),
            ("a day later", Some(hash), Some(60), (hash + 60, Depth::Hash)),
        ] {
            let watch = Watch { looked: looked.map(at), hashed: hashed.map(at), ..Watch::new(start) };
            let (when, depth) = watch.next(&timetable);
            assert_eq!((when, depth), (at(expected.0), expected.1), "{name}");
        }
    }

    #[test]
    fn only_what_differs_is_reported() {
        let now = Instant::now();
        let mut watch = Watch::new(now);
        assert_eq!(watch.report(), None);
        watch.note(Depth::Look, now, Vec::new(), vec!["a is missing".into(), "b is missing".into()], 1);
        let found = Drift { count: 2, first: "a is missing".into(), mended: 1 };
        assert_eq!(watch.report(), Some(found));
        watch.note(Depth::Look, now, Vec::new(), Vec::new(), 2);
        assert_eq!(watch.report(), Some(Drift { count: 0, first: String::new(), mended: 3 }));
    }
}
