//! What is under way in the depot: pushes and plans in the making, with what they count on.
//!
//! Invariant: whoever writes objects that rows will name later, or counts on chunks and packages that nothing else
//! names, is on this list from before the first of them until the rows are committed. The collection asks it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sluice_common::digest::Digest;
use sluice_common::index::PackageIndex;

/// The list. Cheap to clone; clones are the same list.
#[derive(Debug, Clone, Default)]
pub(super) struct Works {
    list: Arc<Mutex<List>>,
}

#[derive(Debug, Default)]
struct List {
    next: u64,
    works: HashMap<u64, Work>,
}

#[derive(Debug)]
struct Work {
    begun: Timestamp,
    packages: Vec<Digest>,
    chunks: Option<Arc<PackageIndex>>,
}

/// A place on the list, until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay {
    works: Works,
    number: u64,
}

impl Works {
    /// Puts work that takes `packages` on the list.
    pub(super) fn begin(&self, packages: Vec<Digest>) -> UnderWay {
        let mut list = self.lock();
        let number = list.next;
        list.next += 1;
        list.works.insert(number, Work { begun: Timestamp::now(), packages, chunks: None });
        UnderWay { works: self.clone(), number }
    }

    /// Returns when the oldest work began.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.lock().works.values().map(|work| work.begun).min()
    }

    /// Returns the packages that some work takes.
    pub(super) fn packages(&self) -> HashSet<Digest> {
        self.lock().works.values().flat_map(|work| work.packages.iter().copied()).collect()
    }

    /// Returns the indexes of the packages that are being pushed.
    pub(super) fn chunks(&self) -> Vec<Arc<PackageIndex>> {
        self.lock().works.values().filter_map(|work| work.chunks.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        // Every change of the list is one step.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    /// Notes that this work counts on every chunk of an index.
    pub(super) fn count_on(&self, index: Arc<PackageIndex>) {
        if let Some(work) = self.works.lock().works.get_mut(&self.number) {
            work.chunks = Some(index);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.works.lock().works.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_on_the_list_until_it_is_dropped() {
        let works = Works::default();
        assert_eq!(works.oldest(), None);
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let first = works.begin(vec![a]);
        let since = works.oldest();
        let second = works.begin(vec![a, b]);
        assert_eq!((works.oldest(), works.packages()), (since, HashSet::from([a, b])));
        drop(first);
        assert!(works.oldest() >= since);
        drop(second);
        assert_eq!((works.oldest(), works.packages()), (None, HashSet::new()));
    }
}
